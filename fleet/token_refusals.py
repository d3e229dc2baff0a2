"""Tokens and keys that were refused, in bulk: one entry of the audit a minute, however many there were.

A token that has run out is an everyday thing; ten in a minute are somebody who tries.
"""

from collections import Counter

from fleet.actor import SYSTEM
from fleet.audit import Audit

WORTH_TELLING = 10
_ADDRESSES_LIMIT = 20


class TokenRefusals:
    """Counts, and writes down what it counted."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._count = 0
        self._addresses: Counter[str] = Counter()

    def note(self, address: str) -> None:
        self._count += 1
        if address in self._addresses or len(self._addresses) < _ADDRESSES_LIMIT:
            self._addresses[address] += 1

    async def write(self) -> None:
        """For the timers: once a minute."""
        count, addresses = self._count, dict(self._addresses)
        self._count = 0
        self._addresses.clear()
        if count >= WORTH_TELLING:
            said = {"count": count, "addresses": {address[:64]: number for address, number in addresses.items()}}
            await self._audit.record(SYSTEM, "token.refused", "user", "", None, said)

"""The books of a run: every message by device and number, what became of it, and what the store has in the end.

A message's number is its value, and its time is the book's `base_ms` and the number: a point that is lost, doubled or
changed shows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Point = tuple[int, float]
"""(ts_ms, value)"""


@dataclass(slots=True)
class Account:
    """One device's messages, numbered from 0."""

    published: int = 0
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    @property
    def open(self) -> set[int]:
        """Those that nothing is known of: sent, and neither acknowledged nor refused."""
        return set(range(self.published)) - self.acknowledged - self.refused


class Ledger:
    """The accounts of all devices."""

    def __init__(self, base_ms: int) -> None:
        self.base_ms = base_ms
        self.accounts: dict[str, Account] = {}

    def account(self, device_id: str) -> Account:
        return self.accounts.setdefault(device_id, Account())

    @property
    def acknowledged(self) -> int:
        return sum(len(account.acknowledged) for account in self.accounts.values())

    def close(self, stored: Mapping[str, Iterable[Point]]) -> None:
        """All is balanced: published = acknowledged + refused, and of the acknowledged each is stored, once, as sent.

        What was refused is nowhere. An account may be left `open` by a device that went away; what it does not know
        of may be stored or not.
        """
        for device_id, account in self.accounts.items():
            assert not account.acknowledged & account.refused, f"{device_id}: both acknowledged and refused"
            points = list(stored.get(device_id, ()))
            numbers = [ts - self.base_ms for ts, _ in points]
            assert all(value == number for (_, value), number in zip(points, numbers, strict=True)), device_id
            assert len(numbers) == len(set(numbers)), f"{device_id}: {len(numbers) - len(set(numbers))} points twice"
            lost = account.acknowledged - set(numbers)
            assert not lost, f"{device_id}: {len(lost)} acknowledged points lost, such as {sorted(lost)[:5]}"
            extra = set(numbers) - account.acknowledged - account.open
            assert not extra, f"{device_id}: {len(extra)} points that were refused or never sent"

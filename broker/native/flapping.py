"""Clients that connect over and over: two devices with one client id, or one that crashes at each start.

They are refused for as long as they come too often, and said so in one line a minute. Only those that the Guard lets in
are counted, or anybody could keep a client out by its name.
"""

import logging

from broker.allowance import Allowances

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 60.0
_TOLD_LIMIT = 1000  # clients whose tries are counted for the next line


class Flapping:
    """Counts how often each client comes. `connects_per_min` of 0 is no bound."""

    def __init__(self, connects_per_min: int) -> None:
        self._allowed = Allowances(connects_per_min / 60, connects_per_min)
        self._refused: dict[str, int] = {}
        self._told_at = float("-inf")

    def may_come(self, client_id: str, address: str, now: float) -> bool:
        """Whether a client may connect now."""
        if self._allowed.wait_s(client_id, now) <= 0:
            self._allowed.spend(client_id, 1, now)
            return True
        if client_id in self._refused or len(self._refused) < _TOLD_LIMIT:
            self._refused[client_id] = self._refused.get(client_id, 0) + 1
        if now - self._told_at >= _TELL_EVERY_S:
            worst = max(self._refused, key=self._refused.__getitem__, default=client_id)
            logger.warning(
                "%s: client %.70r connects too often and is refused for a while; such clients lately: %d, most: %.70r",
                address,
                client_id,
                len(self._refused),
                worst,
            )
            self._told_at = now
            self._refused.clear()
        return False

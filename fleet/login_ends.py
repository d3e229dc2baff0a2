"""When what devices came in with ends while they are connected: a JWT, a certificate, a credential with a date. No I/O.

By device and connection: who has come again with something newer is left in peace.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

_CONNECTIONS_LIMIT = 16  # of one device; beyond, the earliest end is the end of all


@dataclass(frozen=True, slots=True)
class Login:
    """One connection's: `source` is the credential, or the authority that vouched for it."""

    until: datetime
    source: str


class LoginEnds:
    """`now` and `until` are aware UTC."""

    def __init__(self) -> None:
        self._logins: dict[str, dict[str, Login]] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._first: dict[str, datetime] = {}
        """When a device is next in the heap."""

    def enter(self, device_id: str, client_id: str, login: Login | None) -> None:
        """A device came in; None: with what has no end."""
        logins = self._logins.get(device_id)
        if login is None:
            if logins is not None:
                logins.pop(client_id, None)
            return
        if logins is None:
            logins = self._logins[device_id] = {}
        logins[client_id] = login
        if len(logins) > _CONNECTIONS_LIMIT:
            earliest = min(logins.values(), key=lambda each: each.until)
            logins.clear()
            logins[client_id] = login = earliest
        first = self._first.get(device_id)
        if first is None or login.until < first:
            self._push(device_id, login.until)

    def due(self, now: datetime) -> list[str]:
        """The devices of which something has ended; each is named once."""
        ended = []
        while self._heap and self._heap[0][0] <= now:
            at, device_id = heapq.heappop(self._heap)
            if self._first.get(device_id) != at:
                continue
            del self._first[device_id]
            logins = self._logins.pop(device_id, {})
            left = {client_id: login for client_id, login in logins.items() if login.until > now}
            if len(left) < len(logins):
                ended.append(device_id)
            if left:
                self._logins[device_id] = left
                self._push(device_id, min(login.until for login in left.values()))
        return ended

    def entered_by(self, which: Callable[[str], bool]) -> list[str]:
        """The devices that have a connection whose source is one of these."""
        return [
            device_id
            for device_id, logins in self._logins.items()
            if any(which(login.source) for login in logins.values())
        ]

    def forget(self, device_id: str) -> None:
        """The device's connections are being dropped."""
        self._logins.pop(device_id, None)

    def _push(self, device_id: str, at: datetime) -> None:
        self._first[device_id] = at
        heapq.heappush(self._heap, (at, device_id))

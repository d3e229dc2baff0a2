"""Slows down who tries wrong secrets: of one device from one address, and of all devices from one address. No I/O.

Asked only about secrets that could be guessed: a token of ours, a JWT and a certificate are looked at in any case, so
that nobody locks a device out that has one. One that comes from elsewhere than who guesses is not held up either.
"""

from fleet.errors import TooManyAttempts
from fleet.throttle import Throttle

FREE = 20
_CAP_S = 300.0


class Guessing:
    """`now` is monotonic seconds; `address` may have a port, which does not count, and may be empty: unknown."""

    def __init__(self) -> None:
        self._throttle = Throttle(free=FREE, base_s=1.0, cap_s=_CAP_S)

    def begin(self, device_id: str, address: str, now: float) -> bool:
        """A try that may be a guess; whether it was the one too many. Raises TooManyAttempts."""
        keys = _keys(device_id, address)
        wait_s = max((self._throttle.wait_s(key, now) for key in keys), default=0.0)
        if wait_s > 0:
            raise TooManyAttempts(wait_s)
        for key in keys:
            self._throttle.begin(key, now)
        return any(self._throttle.wait_s(key, now) > 0 for key in keys)

    def right(self, device_id: str, address: str) -> None:
        """The last try was none."""
        for key in _keys(device_id, address):
            self._throttle.take_back(key)


def _keys(device_id: str, address: str) -> list[tuple[str, str]]:
    host = _host(address)
    if not host:
        return []
    return [("", host), (device_id, host)] if device_id else [("", host)]


def _host(address: str) -> str:
    """Without the port: 192.0.2.7:5000, [2001:db8::7]:5000, or either without one."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, _, port = address.rpartition(":")
    return host if port.isdigit() and ":" not in host and host else address

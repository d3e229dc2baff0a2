"""Devices that come and go all the time: the first changes of a minute are told one by one, the rest as a number.

No I/O, no clock: `now` is monotonic seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

CHANGES_TOLD = 10  # five times there and gone again: what a bad afternoon on a mobile network looks like
WINDOW_S = 60.0


@dataclass(slots=True)
class _Window:
    began: float
    changes: int = 0


class Flapping:
    """One window a device, from its first change on; at most as many as there are devices."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def is_told(self, device_id: str, now: float) -> bool:
        """Count a change; whether it is one of those to be told by itself."""
        window = self._windows.setdefault(device_id, _Window(began=now))
        window.changes += 1
        return window.changes <= CHANGES_TOLD

    def over(self, now: float) -> Iterator[tuple[str, int]]:
        """Forget the windows that have ended; gives those in which changes were not told, and how many."""
        ended = [device_id for device_id, window in self._windows.items() if now - window.began >= WINDOW_S]
        for device_id in ended:
            untold = self._windows.pop(device_id).changes - CHANGES_TOLD
            if untold > 0:
                yield device_id, untold

    def forget(self, device_id: str) -> None:
        self._windows.pop(device_id, None)

"""Which days may hold a device, and each of its metrics: so that few files are opened for what is in few.

Kept in memory, filled from the names of series in each day's file, and told of new series before they are written:
what it names may have no readings, what has readings is named. A day that was not looked through yet may hold anything.
No I/O, no clock; any thread.
"""

from collections.abc import Callable, Iterable
from threading import Lock

_ROOM_DAYS = 64  # made at once where a day before all others comes


class Holdings:
    """Some hundred bytes a series, whatever the number of days."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._learned: set[int] = set()
        self._first_day: int | None = None  # bit 0
        self._days: dict[str, int] = {}  # of each device, one bit a day
        self._newest: dict[str, dict[str, int]] = {}  # of each device and metric

    def add(self, day: int, series: Iterable[tuple[str, str]]) -> None:
        """These (device, metric) may have readings of that day."""
        with self._lock:
            bit = self._bit(day)
            for device_id, metric in series:
                self._days[device_id] = self._days.get(device_id, 0) | bit
                newest = self._newest.setdefault(device_id, {})
                newest[metric] = max(day, newest.get(metric, day))

    def learn(self, day: int, series: Iterable[tuple[str, str]]) -> None:
        """All that a day's file names."""
        self.add(day, series)
        with self._lock:
            self._learned.add(day)

    def knows(self, days: Iterable[int]) -> bool:
        """Whether all of these days were looked through."""
        with self._lock:
            return self._learned.issuperset(days)

    def unknown(self, days: Iterable[int]) -> list[int]:
        """Those of these days that were not looked through, the newest first."""
        with self._lock:
            return sorted(set(days) - self._learned, reverse=True)

    def days_of(self, device_id: str) -> set[int]:
        """The days, of those looked through, that may hold a device."""
        with self._lock:
            return self._named(self._days.get(device_id, 0))

    def newest_of(self, device_id: str) -> dict[str, int]:
        """By metric, the newest day that may hold it."""
        with self._lock:
            return dict(self._newest.get(device_id, {}))

    def forget_device(self, day: int, device_id: str) -> None:
        """It has no readings of that day any more."""
        with self._lock:
            left = self._days.get(device_id, 0) & ~self._bit(day)
            if left:
                self._days[device_id] = left
            else:
                self._days.pop(device_id, None)
                self._newest.pop(device_id, None)

    def forget_day(self, day: int) -> None:
        """Its file is gone."""
        with self._lock:
            self._learned.discard(day)
            bit = self._bit(day)
            for device_id in [device_id for device_id, days in self._days.items() if days & bit]:
                self._days[device_id] &= ~bit
                if not self._days[device_id]:
                    del self._days[device_id], self._newest[device_id]

    def expired(self, oldest_day: Callable[[str], int]) -> tuple[dict[int, list[str]], set[int]]:
        """(by day, the devices that are kept from a later day on; the days that hold a device that is kept)"""
        gone: dict[int, list[str]] = {}
        kept = 0
        with self._lock:
            for device_id, days in self._days.items():
                before = max(0, oldest_day(device_id) - (self._first_day or 0))
                expired = days & ((1 << before) - 1)
                kept |= days ^ expired
                for day in self._named(expired):
                    gone.setdefault(day, []).append(device_id)
            return gone, self._named(kept)

    def _bit(self, day: int) -> int:
        if self._first_day is None:
            self._first_day = day - _ROOM_DAYS
        elif day < self._first_day:
            shift = self._first_day - day + _ROOM_DAYS
            self._first_day -= shift
            self._days = {device_id: days << shift for device_id, days in self._days.items()}
        return 1 << day - self._first_day

    def _named(self, days: int) -> set[int]:
        found: set[int] = set()
        while days:
            lowest = days & -days
            found.add(lowest.bit_length() - 1 + (self._first_day or 0))
            days ^= lowest
        return found

"""Presence where no connection tells it: a device is there while it has given a sign of life lately. No I/O, no clock.

For links whose devices have no connection of their own here: an external broker, plain HTTP requests.
"""

from collections import OrderedDict


class Activity:
    """The devices heard of within `timeout_s`, longest silent first. `now` is monotonic seconds throughout."""

    def __init__(self, *, timeout_s: float, limit: int) -> None:
        self._timeout_s = timeout_s
        self._limit = limit
        self._seen: OrderedDict[str, float] = OrderedDict()
        self.turned_away = 0
        """Signs of life not kept because `limit` devices were there already."""

    def seen(self, device_id: str, now: float) -> bool:
        """Note a sign of life; True when it is the first one after a silence."""
        fresh = device_id not in self._seen
        if fresh and len(self._seen) >= self._limit:
            self.turned_away += 1
            return False
        self._seen[device_id] = now
        self._seen.move_to_end(device_id)
        return fresh

    def expire(self, now: float) -> list[str]:
        """Forget the devices that have been silent for `timeout_s`, and return them."""
        silent = []
        while self._seen:
            device_id, last = next(iter(self._seen.items()))
            if now - last < self._timeout_s:
                break
            del self._seen[device_id]
            silent.append(device_id)
        return silent

    def forget(self, device_id: str) -> bool:
        """Drop one device; False when it was not there."""
        return self._seen.pop(device_id, None) is not None

    def __contains__(self, device_id: str) -> bool:
        return device_id in self._seen

    def __len__(self) -> int:
        return len(self._seen)

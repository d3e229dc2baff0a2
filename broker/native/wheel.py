"""Deadlines of many things, each with at most one: kept in slots of a tenth of a second. No I/O, no clock.

Moving a deadline on at every packet would cost more than routing it. So an item stays where it is, and when its
slot comes up it says itself until when to wait on. Taking an item out costs the same however many there are.
"""

from collections import deque
from typing import Protocol

SLOT_S = 0.1


class Timed(Protocol):
    """What has a deadline. `slot` is the wheel's."""

    slot: int

    def due(self, now: float) -> float | None:
        """The deadline may have come: act on it; returns the next one (monotonic seconds), or None for none."""
        ...


class Wheel:
    """Items by the slot of their deadline."""

    def __init__(self, now: float) -> None:
        self._slots: dict[int, dict[Timed, None]] = {}
        self._at = int(now / SLOT_S)

    def set(self, item: Timed, when: float) -> None:
        """Give an item its deadline, in place of the one it had; it comes up to two slots after it, never before."""
        self.clear(item)
        item.slot = max(int(when / SLOT_S) + 1, self._at + 1)
        self._slots.setdefault(item.slot, {})[item] = None

    def clear(self, item: Timed) -> None:
        """Take an item's deadline away."""
        if (found := self._slots.get(item.slot)) is not None:
            found.pop(item, None)
            if not found:
                del self._slots[item.slot]
        item.slot = 0

    def turn(self, now: float) -> None:
        """Ask all whose slot has come. What one of them raises is raised; the next turn asks the others."""
        last = int(now / SLOT_S)
        if last - self._at > len(self._slots):  # after a long sleep: only those that exist
            slots = sorted(slot for slot in self._slots if slot <= last)
        else:
            slots = [slot for slot in range(self._at + 1, last + 1) if slot in self._slots]
        self._at = max(last, self._at)
        for slot in slots:
            waiting = deque(self._slots.pop(slot, ()))
            try:
                while waiting:
                    item = waiting.popleft()
                    if item.slot != slot:  # another one's deadline has taken it out
                        continue
                    item.slot = 0
                    if (when := item.due(now)) is not None:
                        self.set(item, when)
            except BaseException:
                self._slots[slot] = dict.fromkeys(each for each in waiting if each.slot == slot)
                self._at = slot - 1
                raise

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

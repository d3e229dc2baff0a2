"""Slows down guessing: after some free failures of one key, each further try waits twice as long. No I/O, no clock.

A try counts as a failure from its beginning, so that many at once are not all free; a success takes it back. The
key holds the account and the address: whoever guesses at an account from elsewhere does not lock out its owner.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_FORGET_S = 900.0  # a quiet quarter of an hour and all is forgotten


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class Throttle:
    """`free` failures cost nothing; then `base_s`, 2 x `base_s` … up to `cap_s`. `now` is monotonic seconds."""

    def __init__(self, *, free: int, base_s: float = 2.0, cap_s: float = 300.0, limit: int = 20_000) -> None:
        self._free = free
        self._base_s = base_s
        self._cap_s = cap_s
        self._limit = limit
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def wait_s(self, key: Hashable, now: float) -> float:
        """Seconds until the next try is allowed; 0 when it is."""
        failures = self._failures.get(key)
        if failures is None or failures.count < self._free:
            return 0.0
        delay_s = min(self._cap_s, self._base_s * 2.0 ** min(failures.count - self._free, 16))
        return max(0.0, failures.last + delay_s - now)

    def begin(self, key: Hashable, now: float) -> None:
        """A try begins: a failure until `succeed` says otherwise."""
        failures = self._failures.get(key)
        if failures is None or now - failures.last > _FORGET_S:
            failures = self._failures[key] = _Failures(0, now)
        failures.count += 1
        failures.last = now
        self._failures.move_to_end(key)
        while len(self._failures) > self._limit:
            self._failures.popitem(last=False)

    def succeed(self, key: Hashable) -> None:
        """Forget the failures of this key."""
        self._failures.pop(key, None)

    def take_back(self, key: Hashable) -> None:
        """This try was no failure; those before it stay."""
        failures = self._failures.get(key)
        if failures is not None:
            failures.count = max(0, failures.count - 1)

    def __len__(self) -> int:
        return len(self._failures)

"""Buckets folded from parts: from single readings, or from the partial answers of several days. No I/O, no clock."""

from gateway.readings import Value
from gateway.store import Aggregate, Series

#: What text and booleans can answer.
ANY_KIND = frozenset({Aggregate.COUNT, Aggregate.LAST})


class Buckets:
    """One series of buckets in the making. Parts may come in any order."""

    def __init__(self, aggregate: Aggregate, start_ms: int, width_ms: int) -> None:
        self._aggregate = aggregate
        self._start_ms = start_ms
        self._width_ms = width_ms
        self._counts: dict[int, int] = {}
        self._values: dict[int, Value] = {}  # the sum for SUM and MEAN; unused for COUNT
        self._times: dict[int, int] = {}  # of the newest reading, for LAST

    def add_reading(self, ts_ms: int, value: Value) -> None:
        self.add((ts_ms - self._start_ms) // self._width_ms, 1, value, ts_ms)

    def add(self, bucket: int, count: int, value: Value, newest_ms: int = 0) -> None:
        """`value`: sum of the part for SUM and MEAN, else its min, max or last; `newest_ms` matters for LAST alone."""
        known = self._counts.get(bucket)
        if known is None:
            self._counts[bucket] = count
            self._values[bucket] = value
            self._times[bucket] = newest_ms
            return
        self._counts[bucket] = known + count
        match self._aggregate:
            case Aggregate.MEAN | Aggregate.SUM:
                self._values[bucket] += value  # type: ignore[operator]
            case Aggregate.MIN:
                self._values[bucket] = min(self._values[bucket], value)
            case Aggregate.MAX:
                self._values[bucket] = max(self._values[bucket], value)
            case Aggregate.LAST:
                if newest_ms >= self._times[bucket]:
                    self._values[bucket] = value
                    self._times[bucket] = newest_ms
            case Aggregate.COUNT:
                pass

    def series(self) -> Series:
        """The buckets that hold anything, in order of time."""
        order = sorted(self._counts)
        values: list[Value]
        match self._aggregate:
            case Aggregate.COUNT:
                values = [self._counts[bucket] for bucket in order]
            case Aggregate.MEAN:
                values = [self._values[bucket] / self._counts[bucket] for bucket in order]  # type: ignore[operator]
            case _:
                values = [self._values[bucket] for bucket in order]
        return Series(t=[self._start_ms + bucket * self._width_ms for bucket in order], v=values)

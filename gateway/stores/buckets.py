"""Buckets folded from readings, one by one, for a server that gives nothing but readings. No I/O, no clock."""

from gateway.readings import Value
from gateway.store import Aggregate, Series, rank_of

#: What text and booleans can answer.
ANY_KIND = frozenset({Aggregate.COUNT, Aggregate.FIRST, Aggregate.LAST})


class Buckets:
    """One series of buckets in the making. Readings come in order of time."""

    def __init__(self, aggregate: Aggregate, start_ms: int, width_ms: int) -> None:
        self._aggregate = aggregate
        self._start_ms = start_ms
        self._width_ms = width_ms
        self._counts: dict[int, int] = {}
        self._values: dict[int, Value] = {}  # the sum for SUM and MEAN; unused for COUNT and percentiles
        self._all: dict[int, list[float]] = {}  # for percentiles

    def add_reading(self, ts_ms: int, value: Value) -> None:
        bucket = (ts_ms - self._start_ms) // self._width_ms
        known = self._counts.get(bucket)
        self._counts[bucket] = (known or 0) + 1
        if self._aggregate.percent is not None:
            self._all.setdefault(bucket, []).append(value)  # type: ignore[arg-type] # a number: others are not asked
            return
        if known is None:
            self._values[bucket] = value
            return
        match self._aggregate:
            case Aggregate.MEAN | Aggregate.SUM:
                self._values[bucket] += value  # type: ignore[operator]
            case Aggregate.MIN:
                self._values[bucket] = min(self._values[bucket], value)  # type: ignore[type-var]
            case Aggregate.MAX:
                self._values[bucket] = max(self._values[bucket], value)  # type: ignore[type-var]
            case Aggregate.LAST:
                self._values[bucket] = value
            case _:
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
            case Aggregate.P50 | Aggregate.P95:
                percent = self._aggregate.percent or 0
                values = [sorted(self._all[bucket])[rank_of(self._counts[bucket], percent)] for bucket in order]
            case _:
                values = [self._values[bucket] for bucket in order]
        return Series(t=[self._start_ms + bucket * self._width_ms for bucket in order], v=values)

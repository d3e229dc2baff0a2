"""Readings into buckets, exactly, where some of them are known twice or only here. No I/O, no clock.

A store's buckets cannot be corrected by adding recent readings to them: some of these are in the store already.
So the stretch of time that recent readings cover is taken raw from both and counted once per point, and only what
lies beside it in the same bucket comes as the store's own aggregate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.readings import Kind, Value, kind_of
from gateway.store import Aggregate, Query, rank_of

Points = dict[str, dict[int, Value]]
"""By metric, the value at each time; a later reading of the same time has replaced the earlier one."""


def fits(value: Value, aggregate: Aggregate) -> bool:
    """Whether a bucket of such values has this aggregate: all others only know first, last and count."""
    return aggregate in (Aggregate.FIRST, Aggregate.LAST, Aggregate.COUNT) or kind_of(value) is Kind.NUMBER


class Run(NamedTuple):
    """Neighbouring buckets from `start_ms` to `stop_ms`, touched by recent readings in [first_ms, end_ms)."""

    start_ms: int
    first_ms: int
    end_ms: int
    stop_ms: int


def runs(times: Iterable[int], query: Query) -> list[Run]:
    """The runs of touched buckets, ascending: times in neighbouring buckets belong to one run."""
    width = query.width_ms or 1
    out: list[Run] = []
    for ts in sorted(times):
        start = query.start_ms + (ts - query.start_ms) // width * width
        stop = min(start + width, query.end_ms)
        first, end = ts, ts + 1
        if query.aggregate.percent is not None:  # parts tell nothing of it: all readings of the bucket are needed
            first, end = start, stop
        if out and start <= out[-1].stop_ms:
            out[-1] = out[-1]._replace(end_ms=end, stop_ms=stop)
        else:
            out.append(Run(start, first, end, stop))
    return out


@dataclass(slots=True)
class Bucket:
    """What is known of one bucket of one metric so far."""

    count: int = 0
    total: float | None = None
    low: float | None = None
    high: float | None = None
    first_ms: int = 1 << 62
    first: Value = 0
    last_ms: int = -1
    last: Value = 0
    numbers: list[float] | None = None
    """All of them, where a percentile is asked for."""

    def add(self, ts_ms: int, value: Value) -> None:
        """One reading."""
        self.count += 1
        if ts_ms >= self.last_ms:
            self.last_ms, self.last = ts_ms, value
        if ts_ms <= self.first_ms:
            self.first_ms, self.first = ts_ms, value
        if isinstance(value, int | float):
            if self.numbers is not None:
                self.numbers.append(value)
            self.total = value if self.total is None else self.total + value
            if self.low is None or value < self.low:
                self.low = value
            if self.high is None or value > self.high:
                self.high = value

    def add_part(self, part: Mapping[Aggregate, Value], at_ms: int) -> None:
        """The store's aggregates of a part of the bucket that holds no recent reading; `at_ms` where it begins."""
        for aggregate, value in part.items():
            if aggregate is Aggregate.FIRST:
                if at_ms <= self.first_ms:
                    self.first_ms, self.first = at_ms, value
            elif aggregate is Aggregate.LAST:
                if at_ms >= self.last_ms:
                    self.last_ms, self.last = at_ms, value
            elif not isinstance(value, int | float):
                continue
            elif aggregate is Aggregate.COUNT:
                self.count += int(value)
            elif aggregate is Aggregate.SUM:
                self.total = value if self.total is None else self.total + value
            elif aggregate is Aggregate.MIN:
                self.low = value if self.low is None else min(self.low, value)
            elif aggregate is Aggregate.MAX:
                self.high = value if self.high is None else max(self.high, value)

    def result(self, aggregate: Aggregate) -> Value | None:
        """The bucket's value, or None when it is empty."""
        if aggregate is Aggregate.MEAN:
            return self.total / self.count if self.count and self.total is not None else None
        if aggregate is Aggregate.COUNT:
            return self.count or None
        if aggregate is Aggregate.SUM:
            return self.total
        if aggregate is Aggregate.MIN:
            return self.low
        if aggregate is Aggregate.MAX:
            return self.high
        if aggregate is Aggregate.FIRST:
            return self.first if self.first_ms < 1 << 62 else None
        if aggregate.percent is not None:
            return sorted(self.numbers)[rank_of(self.count, aggregate.percent)] if self.numbers else None
        return self.last if self.last_ms >= 0 else None


def parts_of(aggregate: Aggregate) -> tuple[Aggregate, ...]:
    """What has to be asked of the parts of a bucket to know the whole."""
    if aggregate is Aggregate.MEAN:
        return (Aggregate.SUM, Aggregate.COUNT)
    return (aggregate,)

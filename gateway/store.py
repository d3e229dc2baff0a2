"""Where readings stay: the interface of every time-series store, and what a query asks of it.

One contract suite (tests/gateway/test_store_contract.py) holds for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gateway.readings import Reading, Value


class Aggregate(StrEnum):
    """How a bucket's readings become one value. What is no number knows only `first`, `last` and `count`.

    Percentiles are by nearest rank, as InfluxQL has them: of the sorted values the one at place
    floor(count * p / 100 + 0.5), at least the first; always one that was measured.
    """

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    COUNT = "count"
    LAST = "last"
    FIRST = "first"
    P50 = "p50"
    P95 = "p95"

    @property
    def percent(self) -> int | None:
        """Of a percentile."""
        return int(self[1:]) if self in (Aggregate.P50, Aggregate.P95) else None


def rank_of(count: int, percent: int) -> int:
    """The place, from 0, of a percentile among `count` sorted values."""
    return max(1, (2 * count * percent + 100) // 200) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Readings of one device in [start_ms, end_ms). No metrics: all. `buckets` None: the raw readings.

    Buckets are of equal width, ceil((end - start) / buckets) ms, the first one beginning at start_ms; a bucket's
    time is its beginning; empty buckets are left out. Raw answers are bounded to the newest `limit` a series.
    """

    device_id: str
    start_ms: int
    end_ms: int
    metrics: tuple[str, ...] = ()
    buckets: int | None = None
    aggregate: Aggregate = Aggregate.MEAN
    limit: int = 10_000

    @property
    def width_ms(self) -> int | None:
        """A bucket's width, or None for raw readings."""
        return None if self.buckets is None else max(1, -(-(self.end_ms - self.start_ms) // self.buckets))


@dataclass(slots=True)
class Series:
    """Times in ms, ascending, and the value at each."""

    t: list[int]
    v: list[Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What the store knows of itself; None where it cannot say."""

    kind: str
    points: int | None = None
    loose_points: int | None = None
    """Those of them that are not compressed yet."""
    size_bytes: int | None = None
    limit_bytes: int | None = None
    oldest_ms: int | None = None
    dropped_days: int = 0
    """Deleted before their retention ended, to keep within the limit; since the start."""
    damaged_chunks: int = 0
    """Met by queries that could not read them; since the start."""


class StoreError(Exception):
    """The store did not take or give readings. Base of the two below."""


class StoreUnavailable(StoreError):
    """Not now: refused, timed out, 5xx, 429. Try the same again later (`retry_after_s` when it said so).

    `status` is that of the HTTP answer, where there was one.
    """

    def __init__(self, detail: str, *, retry_after_s: float | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.status = status


class StoreRejected(StoreError):
    """Not ever: the store read these readings and will not have them. Trying the same again is useless."""


class Store(Protocol):
    """A time-series store. Writing the same reading twice changes nothing; a later value for a point replaces it."""

    write_readings: int
    """How many readings one write should bring, about: stores take thousands at the price of one."""
    visible_after_s: float
    """How long after a write a query may still miss it; 0 where reads see every finished write."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, readings: Sequence[Reading]) -> None:
        """Store all of them, durably. Raises StoreUnavailable or StoreRejected; then none or some are stored."""
        ...

    async def query(self, query: Query) -> dict[str, Series]:
        """One series a metric that has readings in the range; others are left out."""
        ...

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        """(ts_ms, value) of each metric's newest reading."""
        ...

    async def delete_device(self, device_id: str) -> None:
        """Forget all readings of a device."""
        ...

    async def stats(self) -> StoreStats: ...


@runtime_checkable
class Buffering(Protocol):
    """A store that answers a write before it is on disk. It is there `visible_after_s` later, if the server lived on.

    Whoever has to be sure asks whether the server is still the one that was written to.
    """

    async def run(self) -> str | None:
        """What tells one run of the server from the next; None where it does not say. Raises StoreUnavailable."""
        ...

"""All readings of a store, device by device in order of time, a bounded number of them in memory.

A query gives the newest `limit` of a series only. So a span is asked for in windows, each halved until no series fills
it; its width grows again where readings are sparse.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from gateway.readings import Reading, Value
from gateway.store import Query, Series

#: A query's readings a series; with 1,000 metrics of a device the worst that is in memory at once is a million.
PAGE = 1_000
_FIRST_WINDOW_MS = 3_600_000
_LONGEST_WINDOW_MS = 30 * 86_400_000


class Source(Protocol):
    """Where readings are read from: a store, or a gateway's history."""

    async def query(self, query: Query) -> dict[str, Series]: ...

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]: ...


@runtime_checkable
class Enumerable(Source, Protocol):
    """A store that can say whose readings it has."""

    async def devices(self) -> list[str]: ...


async def scan(
    source: Source, device_id: str, start_ms: int, end_ms: int, metrics: Sequence[str] = ()
) -> AsyncGenerator[list[Reading], None]:
    """A device's readings in [start_ms, end_ms), window after window, each in order of time, then of metric."""
    width_ms = min(_FIRST_WINDOW_MS, max(1, end_ms - start_ms))
    at = start_ms
    ask = Query(device_id=device_id, start_ms=at, end_ms=end_ms, metrics=tuple(metrics), limit=PAGE)
    while at < end_ms:
        stop = min(at + width_ms, end_ms)
        found = await source.query(replace(ask, start_ms=at, end_ms=stop))
        fullest = max((len(series.t) for series in found.values()), default=0)
        # A series has at most one reading a ms, so a window narrower than PAGE ms is never cut off.
        if fullest >= PAGE and stop - at >= PAGE:
            width_ms = (stop - at) // 2
            continue
        if found:
            yield readings_of(device_id, found)
        at = stop
        if fullest < PAGE // 4:
            width_ms = min(width_ms * 2, _LONGEST_WINDOW_MS)


def readings_of(device_id: str, found: Mapping[str, Series]) -> list[Reading]:
    """A query's answer as readings, in order of time, then of metric."""
    rows = [(ts, metric, value) for metric, s in found.items() for ts, value in zip(s.t, s.v, strict=True)]
    rows.sort(key=lambda row: row[:2])
    return [Reading(device_id, metric, ts, value) for ts, metric, value in rows]

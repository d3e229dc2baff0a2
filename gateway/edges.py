"""Where the buckets of an answer begin and end: so that they are whole, and rollups can tell of them. No I/O."""

from collections.abc import Sequence
from dataclasses import replace

from gateway.readings import Value
from gateway.store import Query, Series

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def on_whole_edges(query: Query) -> Query:
    """The query with a range widened to whole minutes of UTC where its buckets are a minute or more, or whole hours
    from an hour on: as many buckets as were asked for, and one more at most. Narrower ones, and no buckets, stay.
    """
    width_ms = query.width_ms
    if width_ms is None or width_ms < MINUTE_MS:
        return query
    unit_ms = HOUR_MS if width_ms >= HOUR_MS else MINUTE_MS
    width_ms = -(-width_ms // unit_ms) * unit_ms
    start_ms = query.start_ms // unit_ms * unit_ms
    buckets = -(-(query.end_ms - start_ms) // width_ms)
    return replace(query, start_ms=start_ms, end_ms=start_ms + buckets * width_ms, buckets=buckets)


def with_empty_buckets(series: Series, query: Query) -> tuple[Sequence[int], Sequence[Value | None]]:
    """(times, values) of every bucket of the query, None where there is nothing."""
    width_ms = query.width_ms
    assert width_ms is not None  # noqa: S101 # of buckets only
    known = dict(zip(series.t, series.v, strict=True))
    times = range(query.start_ms, query.end_ms, width_ms)
    return times, [known.get(ts_ms) for ts_ms in times]

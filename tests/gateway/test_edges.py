"""Buckets on whole minutes and hours: whole ones, that hold what was asked for, and that rollups can tell of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edges import HOUR_MS, MINUTE_MS, on_whole_edges, with_empty_buckets
from gateway.store import Aggregate, Query, Series
from gateway.stores.folding import rollup_for

DAY_MS = 24 * HOUR_MS


def query(start_ms: int, end_ms: int, buckets: int | None) -> Query:
    return Query(device_id="d", start_ms=start_ms, end_ms=end_ms, buckets=buckets, aggregate=Aggregate.MEAN)


@pytest.mark.parametrize(
    ("asked", "start_ms", "width_ms", "rollup"),
    [
        (query(7, DAY_MS + 7, 300), 0, 5 * MINUTE_MS, "minutes"),  # 4.8 minutes
        (query(61_000, 61_000 + 60 * MINUTE_MS, 60), MINUTE_MS, MINUTE_MS, "minutes"),
        (query(HOUR_MS + 1, HOUR_MS + 1 + 30 * DAY_MS, 300), HOUR_MS, 3 * HOUR_MS, "hours"),  # 2.4 hours
        (query(5, 5 + 59_999, 1), 5, 59_999, None),
        (query(5, 500, 100), 5, 5, None),
    ],
)
def test_wide_buckets_are_whole(asked: Query, start_ms: int, width_ms: int, rollup: str | None) -> None:
    whole = on_whole_edges(asked)
    assert (whole.start_ms, whole.width_ms, rollup_for(whole)) == (start_ms, width_ms, rollup)
    assert on_whole_edges(whole) == whole


@given(st.integers(0, 2**41), st.integers(1, 400 * DAY_MS), st.integers(1, 2000))
def test_all_that_was_asked_for_is_in_them_and_hardly_more(start_ms: int, span_ms: int, buckets: int) -> None:
    asked = query(start_ms, start_ms + span_ms, buckets)
    whole = on_whole_edges(asked)
    assert whole.width_ms is not None
    assert asked.width_ms is not None
    assert whole.start_ms <= asked.start_ms < whole.start_ms + HOUR_MS
    assert asked.end_ms <= whole.end_ms < asked.end_ms + whole.width_ms or asked == whole
    assert whole.buckets is not None
    assert whole.buckets <= buckets + 1
    if asked.width_ms >= MINUTE_MS:
        assert rollup_for(whole) is not None


def test_raw_readings_have_no_edges() -> None:
    assert on_whole_edges(query(1, 10, None)) == query(1, 10, None)


def test_empty_buckets_can_be_shown() -> None:
    asked = query(0, 50, 5)
    times, values = with_empty_buckets(Series([10, 40], [1.5, 2]), asked)
    assert (list(times), values) == ([0, 10, 20, 30, 40], [None, 1.5, None, None, 2])

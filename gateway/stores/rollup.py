"""Readings of a series reduced to spans of time: count, sum, least, greatest, first and last of each. No I/O, no clock.

The same reduction makes the rollups that are kept beside a chunk and the buckets of an answer, from readings or from
finer spans, so an answer from rollups is that from readings, but for the order in which floats were added.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gateway.stores.chunk import Array, Column, DamagedChunk

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
WORTH = 8  # so many times fewer spans than what they are made of, or they are not kept
_FIELDS = 7


class Spans(NamedTuple):
    """One row a span that holds readings, in order of time. `starts`: in ms, int64; `counts`: int64; others float64."""

    starts: Array
    counts: Array
    sums: Array
    lows: Array
    highs: Array
    firsts: Array
    lasts: Array

    def within(self, start_ms: int, end_ms: int) -> "Spans":
        """The spans that begin in [start_ms, end_ms)."""
        first, end = np.searchsorted(self.starts, (start_ms, end_ms))
        return Spans(*(field[first:end] for field in self))


def spans_of(column: Column, origin_ms: int, width_ms: int) -> Spans:
    """A column of numbers in spans of `width_ms`, counted from `origin_ms`."""
    numbers = column.numbers
    assert numbers is not None  # noqa: S101 # the caller's to see to
    starts, places = _groups(column.times, origin_ms, width_ms)
    ends = np.append(places[1:], len(numbers))
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(numbers, places)
    return Spans(
        starts,
        ends - places,
        sums,
        np.minimum.reduceat(numbers, places),
        np.maximum.reduceat(numbers, places),
        numbers[places],
        numbers[ends - 1],
    )


def coarser(spans: Spans, origin_ms: int, width_ms: int) -> Spans:
    """Spans joined to wider ones; those that begin in a wide one are wholly in it."""
    starts, places = _groups(spans.starts, origin_ms, width_ms)
    ends = np.append(places[1:], len(spans.starts))
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(spans.sums, places)
    return Spans(
        starts,
        np.add.reduceat(spans.counts, places),
        sums,
        np.minimum.reduceat(spans.lows, places),
        np.maximum.reduceat(spans.highs, places),
        spans.firsts[places],
        spans.lasts[ends - 1],
    )


def joined(parts: Sequence[Spans]) -> Spans:
    """Spans one behind the other; the last of one and the first of the next may be of the same time."""
    return Spans(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def rollups(column: Column) -> tuple[bytes | None, bytes | None]:
    """(hours, minutes) of a chunk, packed; None where they are not worth their bytes."""
    if column.numbers is None:
        return None, None
    minutes = spans_of(column, 0, MINUTE_MS)
    hours = coarser(minutes, 0, HOUR_MS)
    readings = len(column.times)
    keeps_minutes = len(minutes.starts) * WORTH <= readings
    keeps_hours = len(hours.starts) * WORTH <= (len(minutes.starts) if keeps_minutes else readings)
    return _packed(hours) if keeps_hours else None, _packed(minutes) if keeps_minutes else None


def unpacked(data: bytes) -> Spans:
    """What `rollups` packed. Raises DamagedChunk."""
    try:
        rows = np.frombuffer(zlib.decompress(data), dtype="<f8").reshape(_FIELDS, -1)
    except (zlib.error, ValueError) as error:
        raise DamagedChunk(str(error)) from error
    return Spans(rows[0].astype(np.int64), rows[1].astype(np.int64), *rows[2:])


def _packed(spans: Spans) -> bytes:
    # times and counts are exact in a float; bytes of one significance together deflate better
    return zlib.compress(np.stack([field.astype("<f8") for field in spans]).tobytes(), 6)


def _groups(times: Array, origin_ms: int, width_ms: int) -> tuple[Array, Array]:
    """(when each span begins, the place of its first row) of rows in order of time."""
    numbers = (times - origin_ms) // width_ms
    places = np.flatnonzero(np.concatenate([np.array([True]), numbers[1:] != numbers[:-1]]))
    return origin_ms + numbers[places] * width_ms, places

"""Answers made of what day files hold: pieces of a series, in order of time, folded into one answer. No I/O, no clock.

A piece is a column of readings, or spans from a rollup where a whole chunk lies within the range and nothing newer lies
over it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.readings import Value
from gateway.store import Aggregate, Query, Series, rank_of
from gateway.stores.buckets import ANY_KIND
from gateway.stores.chunk import Array, Column, DamagedChunk, decode, merged, numbers_of
from gateway.stores.rollup import HOUR_MS, MINUTE_MS, Spans, coarser, joined, spans_of, unpacked

Piece = Column | Spans


@dataclass(frozen=True, slots=True)
class Sealed:
    """A chunk as it lies in a file: its range, and its body, or a rollup of it in its place."""

    first_ms: int
    last_ms: int
    readings: int
    data: bytes
    is_rollup: bool

    def piece(self) -> Piece:
        """Raises DamagedChunk."""
        return unpacked(self.data) if self.is_rollup else decode(self.data)


def rollup_for(query: Query) -> str | None:
    """Which rollup can answer the query: "hours" or "minutes"; None: only readings can."""
    width_ms = query.width_ms
    if width_ms is None or query.aggregate.percent is not None:
        return None
    for name, span_ms in (("hours", HOUR_MS), ("minutes", MINUTE_MS)):
        if width_ms % span_ms == 0 and query.start_ms % span_ms == 0:
            return name
    return None


def overlain(sealed: Sealed, loose: Column | None) -> bool:
    """Whether newer readings lie within the chunk's range."""
    if loose is None:
        return False
    first, end = np.searchsorted(loose.times, (sealed.first_ms, sealed.last_ms + 1))
    return bool(end > first)


def laid_out(
    loose: Column | None,
    chunks: Sequence[Sealed],
    start_ms: int,
    end_ms: int,
    damaged: Callable[[Sealed, DamagedChunk], None],
) -> list[Piece]:
    """What lies in [start_ms, end_ms), in order of time: chunks, and loose readings over and between them.

    `damaged` is told of chunks that cannot be read; they are left out.
    """
    pieces: list[Piece] = []
    at_ms = start_ms

    def add(piece: Piece | None) -> None:
        if isinstance(piece, Column):
            piece = piece.between(start_ms, end_ms)
        if piece is not None and len(piece.times if isinstance(piece, Column) else piece.starts):
            pieces.append(piece)

    for sealed in chunks:
        if loose is not None:
            add(loose.between(at_ms, sealed.first_ms))
        at_ms = sealed.last_ms + 1
        over = loose.between(sealed.first_ms, at_ms) if loose is not None else None
        try:
            piece: Piece = sealed.piece()
        except DamagedChunk as error:
            damaged(sealed, error)
            add(over)
            continue
        if over is not None and len(over.times) and isinstance(piece, Column):
            piece = merged(piece, over)
        add(piece)
    if loose is not None:
        add(loose.between(max(at_ms, start_ms), end_ms))
    return pieces


def raw(pieces: Sequence[Piece], limit: int) -> Series:
    """The newest `limit` readings."""
    times: list[int] = []
    values: list[Value] = []
    for piece in reversed(pieces):
        assert isinstance(piece, Column)  # noqa: S101 # no rollup was asked for
        room = limit - len(times)
        if room <= 0:
            break
        times[:0] = piece.times[-room:].tolist()
        values[:0] = piece.values()[-room:]
    return Series(t=times, v=values)


def folded(pieces: Sequence[Piece], query: Query) -> Series | None:
    """The buckets that hold anything of the aggregate's kind; None when none does."""
    width_ms = query.width_ms
    assert width_ms is not None  # noqa: S101 # the caller's to see to
    if query.aggregate in ANY_KIND and any(isinstance(piece, Column) and piece.numbers is None for piece in pieces):
        return _of_any_kind(pieces, query, width_ms)
    columns = [column for piece in pieces if isinstance(piece, Column) and (column := numbers_of(piece)) is not None]
    if query.aggregate.percent is not None:
        return _percentiles(columns, query, width_ms, query.aggregate.percent) if columns else None
    parts = []
    for piece in pieces:
        if isinstance(piece, Spans):
            parts.append(coarser(piece, query.start_ms, width_ms))
        elif (column := numbers_of(piece)) is not None:
            parts.append(spans_of(column, query.start_ms, width_ms))
    if not parts:
        return None
    spans = coarser(joined(parts), query.start_ms, width_ms)
    values: Array
    match query.aggregate:
        case Aggregate.MEAN:
            with np.errstate(invalid="ignore", over="ignore"):
                values = spans.sums / spans.counts
        case Aggregate.SUM:
            values = spans.sums
        case Aggregate.COUNT:
            values = spans.counts
        case Aggregate.MIN:
            values = spans.lows
        case Aggregate.MAX:
            values = spans.highs
        case Aggregate.FIRST:
            values = spans.firsts
        case _:
            values = spans.lasts
    found: list[Value] = values.tolist()
    if query.aggregate not in (Aggregate.MEAN, Aggregate.SUM) and all(column.whole for column in columns):
        found = _as_integers(found)
    return Series(t=spans.starts.tolist(), v=found)


def _as_integers(values: list[Value]) -> list[Value]:
    whole: list[Value] = [int(value) for value in values if isinstance(value, float) and value.is_integer()]
    return whole if len(whole) == len(values) else values


def _percentiles(columns: Sequence[Column], query: Query, width_ms: int, percent: int) -> Series:
    times = np.concatenate([column.times for column in columns])
    numbers = np.concatenate([column.numbers for column in columns if column.numbers is not None])
    buckets = (times - query.start_ms) // width_ms
    places = np.flatnonzero(np.concatenate([np.array([True]), buckets[1:] != buckets[:-1]]))
    found: list[Value] = []
    for first, end in zip(places.tolist(), [*places[1:].tolist(), len(numbers)], strict=True):
        rank = rank_of(end - first, percent)
        found.append(float(np.partition(numbers[first:end], rank)[rank]))
    if all(column.whole for column in columns):
        found = _as_integers(found)
    return Series(t=(query.start_ms + buckets[places] * width_ms).tolist(), v=found)


def _of_any_kind(pieces: Sequence[Piece], query: Query, width_ms: int) -> Series:
    """Count, first and last where not all values are numbers: one by one."""
    counts: dict[int, int] = {}
    firsts: dict[int, Value] = {}
    lasts: dict[int, Value] = {}
    for piece in pieces:
        if isinstance(piece, Spans):
            rows = zip(
                piece.starts.tolist(), piece.counts.tolist(), piece.firsts.tolist(), piece.lasts.tolist(), strict=True
            )
        else:
            values = piece.values()
            rows = zip(piece.times.tolist(), [1] * len(values), values, values, strict=True)
        for ts_ms, count, first, last in rows:
            bucket = query.start_ms + (ts_ms - query.start_ms) // width_ms * width_ms
            counts[bucket] = counts.get(bucket, 0) + count
            firsts.setdefault(bucket, first)
            lasts[bucket] = last
    by_bucket: dict[int, Value] = {
        Aggregate.COUNT: dict[int, Value](counts),
        Aggregate.FIRST: firsts,
    }.get(query.aggregate, lasts)
    return Series(t=list(by_bucket), v=list(by_bucket.values()))

"""Answers made of what day files hold: pieces of a series, in order of time, folded into one answer. No I/O, no clock.

A piece is a column of readings, or spans from a rollup where a whole chunk lies within the range and nothing newer lies
over it. It is unpacked when its turn comes and let go of before the next one: an answer costs the memory of one piece
and of itself, whatever it is made of.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gateway.readings import Value
from gateway.store import Aggregate, Query, Series, rank_of
from gateway.stores.buckets import ANY_KIND
from gateway.stores.chunk import Array, Column, DamagedChunk, decode, merged, numbers_of
from gateway.stores.rollup import HOUR_MS, MINUTE_MS, Spans, coarser, joined, spans_of, unpacked

Piece = Column | Spans
Packed = Callable[[], Piece | None]
"""Gives a piece that holds something, or None."""


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
) -> list[Packed]:
    """What lies in [start_ms, end_ms), in order of time: chunks, and loose readings over and between them.

    `damaged` is told of chunks that cannot be read; they are left out.
    """
    found: list[Packed] = []
    at_ms = start_ms

    def add_loose(until_ms: int) -> None:
        part = None if loose is None else loose.between(at_ms, until_ms)
        if part is not None and len(part.times):
            found.append(lambda: part)

    def unpacked_one(sealed: Sealed) -> Piece | None:
        over = None if loose is None else loose.between(sealed.first_ms, sealed.last_ms + 1)
        try:
            piece: Piece | None = sealed.piece()
        except DamagedChunk as error:
            damaged(sealed, error)
            piece = over
        else:
            if over is not None and len(over.times) and isinstance(piece, Column):
                piece = merged(piece, over)
        if isinstance(piece, Column):
            piece = piece.between(start_ms, end_ms)
        return piece if piece is not None and len(piece[0] if isinstance(piece, Spans) else piece.times) else None

    for one in chunks:
        add_loose(one.first_ms)
        found.append(partial(unpacked_one, one))
        at_ms = max(at_ms, one.last_ms + 1)
    add_loose(end_ms)
    return found


def raw(pieces: Sequence[Packed], limit: int) -> Series:
    """The newest `limit` readings."""
    parts: list[Series] = []
    room = limit
    for packed in reversed(pieces):
        if room <= 0:
            break
        piece = packed()
        if piece is None:
            continue
        assert isinstance(piece, Column)  # noqa: S101 # no rollup was asked for
        parts.append(Series(t=piece.times[-room:].tolist(), v=list(piece.values()[-room:])))
        room -= len(parts[-1].t)
    return behind_each_other(parts[::-1])


def behind_each_other(parts: Sequence[Series]) -> Series:
    """Parts of a series in order of time as one."""
    if len(parts) == 1:
        return parts[0]
    found = Series(t=[], v=[])
    for part in parts:
        found.t.extend(part.t)
        found.v.extend(part.v)
    return found


class Folding:
    """One series of an answer in buckets, in the making; pieces come in order of time."""

    def __init__(self, query: Query) -> None:
        width_ms = query.width_ms
        assert width_ms is not None  # noqa: S101 # the caller's to see to
        self._aggregate = query.aggregate
        self._origin_ms, self._width_ms = query.start_ms, width_ms
        self._parts: list[Spans] = []
        self._whole = True  # all numbers that were seen are integers
        self._any: dict[int, _Any] | None = None  # by bucket, once there was something that is no number
        self._ranking = None if query.aggregate.percent is None else _Ranking(query, width_ms, query.aggregate.percent)

    def add(self, pieces: Iterable[Packed]) -> None:
        for packed in pieces:
            piece = packed()
            if isinstance(piece, Spans):
                self._add_spans(coarser(piece, self._origin_ms, self._width_ms), whole=False)
            elif piece is not None:
                self._add_column(piece)

    def series(self) -> Series | None:
        """The buckets that hold anything of the aggregate's kind; None when none does."""
        if self._ranking is not None:
            return self._ranking.series(self._whole)
        if self._any is not None:
            return self._of_any_kind(self._any)
        return self._of_numbers() if self._parts else None

    def _add_column(self, column: Column) -> None:
        if column.numbers is None and self._aggregate in ANY_KIND:
            self._add_values(column)
            return
        numbers = numbers_of(column)
        if numbers is None:
            return
        self._whole = self._whole and numbers.whole
        if self._ranking is not None:
            self._ranking.add(numbers)
        else:
            self._add_spans(spans_of(numbers, self._origin_ms, self._width_ms), whole=numbers.whole)

    def _add_spans(self, spans: Spans, *, whole: bool) -> None:
        if self._any is None:
            self._parts.append(spans)
            return
        firsts, lasts = spans.firsts.tolist(), spans.lasts.tolist()
        if whole:
            firsts, lasts = list(map(int, firsts)), list(map(int, lasts))
        for bucket, count, first, last in zip(spans.starts.tolist(), spans.counts.tolist(), firsts, lasts, strict=True):
            self._add_any(bucket, count, first, last)

    def _add_values(self, column: Column) -> None:
        """One by one: there is nothing to reduce them by."""
        if self._any is None:
            self._any = {}
            parts, self._parts = self._parts, []
            for spans in parts:
                self._add_spans(spans, whole=self._whole)
        buckets = (column.times - self._origin_ms) // self._width_ms * self._width_ms + self._origin_ms
        for bucket, value in zip(buckets.tolist(), column.values(), strict=True):
            self._add_any(bucket, 1, value, value)

    def _add_any(self, bucket: int, count: int, first: Value, last: Value) -> None:
        assert self._any is not None  # noqa: S101 # the caller made it
        known = self._any.get(bucket)
        if known is None:
            self._any[bucket] = _Any(count, first, last)
        else:
            known.count += count
            known.last = last

    def _of_any_kind(self, buckets: "dict[int, _Any]") -> Series:
        match self._aggregate:
            case Aggregate.COUNT:
                values: list[Value] = [each.count for each in buckets.values()]
            case Aggregate.FIRST:
                values = [each.first for each in buckets.values()]
            case _:
                values = [each.last for each in buckets.values()]
        return Series(t=list(buckets), v=values)

    def _of_numbers(self) -> Series:
        spans = coarser(joined(self._parts), self._origin_ms, self._width_ms)
        values: Array
        match self._aggregate:
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
        if self._whole and self._aggregate not in (Aggregate.MEAN, Aggregate.SUM):
            found = _as_integers(found)
        return Series(t=spans.starts.tolist(), v=found)


@dataclass(slots=True)
class _Any:
    """A bucket of values of any kind."""

    count: int
    first: Value
    last: Value


class _Ranking:
    """A percentile of each bucket; the readings of one bucket and one piece are held at a time."""

    def __init__(self, query: Query, width_ms: int, percent: int) -> None:
        self._origin_ms, self._width_ms, self._percent = query.start_ms, width_ms, percent
        self._bucket: int | None = None  # the newest, which may go on in the next piece
        self._numbers: list[Array] = []
        self._times: list[int] = []
        self._values: list[Value] = []

    def add(self, column: Column) -> None:
        assert column.numbers is not None  # noqa: S101 # the caller's to see to
        buckets = (column.times - self._origin_ms) // self._width_ms
        places = np.flatnonzero(np.concatenate([np.array([True]), buckets[1:] != buckets[:-1]])).tolist()
        for first, end in zip(places, [*places[1:], len(buckets)], strict=True):
            bucket = int(buckets[first])
            if bucket != self._bucket:
                self._end()
                self._bucket = bucket
            self._numbers.append(column.numbers[first:end])

    def series(self, whole: bool) -> Series | None:
        """Of all that was added; None when nothing was."""
        self._end()
        if not self._times:
            return None
        return Series(t=self._times, v=_as_integers(self._values) if whole else self._values)

    def _end(self) -> None:
        if self._bucket is None:
            return
        numbers = np.concatenate(self._numbers)
        rank = rank_of(len(numbers), self._percent)
        self._times.append(self._origin_ms + self._bucket * self._width_ms)
        self._values.append(float(np.partition(numbers, rank)[rank]))
        self._bucket, self._numbers = None, []


def _as_integers(values: list[Value]) -> list[Value]:
    whole: list[Value] = [int(value) for value in values if isinstance(value, float) and value.is_integer()]
    return whole if len(whole) == len(values) else values

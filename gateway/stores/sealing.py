"""What sealing makes of a series: loose readings folded into its chunks, small chunks joined. No I/O, no clock.

A window of some chunks is decoded at a time, however much a day holds. Chunks that nothing lies over are left alone,
but for small ones right before what is new: as in a binary counter they are joined to it, so that a series of many
small sealings has few chunks, and each reading is packed a few times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.stores.chunk import Column, DamagedChunk, column_of, concatenated, decode, encode, merged
from gateway.stores.folding import Sealed
from gateway.stores.rollup import rollups

CHUNK_READINGS = 8192
WINDOW_READINGS = 4 * CHUNK_READINGS
SMALL_READINGS = 2_000
"""A chunk of fewer is joined to what comes after it."""
BEFORE = 8
"""Small chunks right before the first loose reading that `folded_in` wants to see."""

Row = tuple[int, int, int, bytes | None, bytes | None, bytes]
"""Of a chunk: first_ms, last_ms, readings, hours, minutes, body."""


@dataclass(slots=True)
class Change:
    """`gone`: first_ms of chunks that `rows` replace; `left`: readings that stay loose, over damaged chunks."""

    gone: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    left: list[Column] = field(default_factory=list)


def folded_in(loose: Column, chunks: Sequence[Sealed]) -> Change:
    """Seal loose readings; `chunks` are those of the series that these lie over, and small ones right before them.

    A chunk that cannot be read stays as it is, and what lies over it stays loose.
    """
    change = Change()
    window = _Window(change)
    at_ms = int(loose.times[0])
    for one in chunks:
        window.add(loose.between(at_ms, one.first_ms))
        over = loose.between(one.first_ms, one.last_ms + 1)
        at_ms = max(at_ms, one.last_ms + 1)
        if not len(over.times):
            window.pass_by(one)
            continue
        try:
            older = decode(one.data)
        except DamagedChunk:
            window.end()
            change.left.append(over)
            continue
        change.gone.append(one.first_ms)
        window.add(merged(older, over))
    window.add(loose.between(at_ms, int(loose.times[-1]) + 1))
    window.end()
    return change


def joined_up(chunks: Sequence[Sealed]) -> Change:
    """Chunks beside each other as full ones and a rest. Raises DamagedChunk."""
    column = concatenated([decode(one.data) for one in chunks])
    return Change(gone=[one.first_ms for one in chunks], rows=_rows(column, CHUNK_READINGS))


def next_to_join(chunks: Sequence[tuple[int, int]], damaged: frozenset[int] = frozenset()) -> list[int]:
    """first_ms of a run of chunks that would be fewer if joined, a window's worth at most; empty when there is none.

    `chunks`: (first_ms, readings) of all of a series, in order. Nothing is joined over a `damaged` one (its first_ms).
    """
    stretches: list[list[tuple[int, int]]] = [[]]
    for chunk in chunks:
        if chunk[0] in damaged:
            stretches.append([])
        else:
            stretches[-1].append(chunk)
    for stretch in stretches:
        if len(stretch) <= -(-sum(readings for _, readings in stretch) // CHUNK_READINGS):
            continue
        run: list[int] = []
        total = 0
        for first_ms, readings in stretch:
            if run or readings < CHUNK_READINGS:
                run.append(first_ms)
                total += readings
            if len(run) > 1 and total >= WINDOW_READINGS:
                break
        return run
    return []


class _Window:
    """Readings in order of time that become chunks together."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._columns: list[Column] = []
        self._readings = 0
        self._before: list[Sealed] = []  # chunks left alone, right before the window

    def add(self, column: Column) -> None:
        if not len(column.times):
            return
        self._columns.append(column)
        self._readings += len(column.times)
        if self._readings >= WINDOW_READINGS:
            rows = _rows(concatenated(self._columns), CHUNK_READINGS)
            self._columns, self._before, self._readings = [], [], 0
            if rows[-1][2] < CHUNK_READINGS:
                self.add(decode(rows.pop()[-1]))  # holds nothing of the columns before
            self._change.rows += rows

    def pass_by(self, chunk: Sealed) -> None:
        """A chunk that stays as it is, for now."""
        if self._columns:
            self.end()
        self._before.append(chunk)

    def end(self) -> None:
        """Make chunks of what is here."""
        while self._columns and self._before:
            last = self._before.pop()
            if last.readings >= SMALL_READINGS or last.readings > self._readings:
                break
            try:
                column = decode(last.data)
            except DamagedChunk:
                break
            self._change.gone.append(last.first_ms)
            self._columns.insert(0, column)
            self._readings += len(column.times)
        if self._columns:
            pieces = -(-self._readings // CHUNK_READINGS)
            self._change.rows += _rows(concatenated(self._columns), -(-self._readings // pieces))
        self._columns, self._before, self._readings = [], [], 0


def _rows(column: Column, size: int) -> list[Row]:
    """Of chunks of so many readings, the last one of what is over."""
    rows: list[Row] = []
    all_times, all_values = column.times.tolist(), column.values()
    for at in range(0, len(all_times), size):
        times, values = all_times[at : at + size], all_values[at : at + size]
        hours, minutes = rollups(column_of(times, values))
        rows.append((times[0], times[-1], len(times), hours, minutes, encode(times, values)))
    return rows

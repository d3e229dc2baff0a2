"""What is acknowledged but not yet sure to be seen in the store, by device: bounded, in memory. No I/O, no clock.

The newest rows are held whole. Past the limit the oldest are let go and only a sketch of each is kept (times, and
which devices may be in it), enough to know which rows of the journal's file a query has to read.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gateway.frames import Frame
from gateway.readings import Reading

_BITS = 8192

EVERY_DEVICE = (1 << _BITS) - 1
"""The bits of a row that may hold any device."""


class Summary(NamedTuple):
    """A row of the journal without its readings. `devices`: see device_bits."""

    seq: int
    at_ms: int
    readings: int
    first_ms: int
    last_ms: int
    bytes: int
    devices: int


@dataclass(slots=True)
class Row:
    """A committed row with its readings. `cost` is bytes of memory."""

    summary: Summary
    frames: list[Frame]
    cost: int


@dataclass(slots=True)
class _Span:
    """Neighbouring rows that are on disk only."""

    first: int
    last: int
    at_ms: int
    first_ms: int
    last_ms: int
    devices: int


def device_bits(device_ids: Iterable[str]) -> int:
    """A Bloom filter of 8,192 bits, two a device: 1,000 devices give 5 % false alarms."""
    bits = bytearray(_BITS // 8)
    for device_id in set(device_ids):
        digest = zlib.crc32(device_id.encode())
        for bit in (digest & (_BITS - 1), digest >> 16 & (_BITS - 1)):
            bits[bit >> 3] |= 1 << (bit & 7)
    return int.from_bytes(bits, "little")


class Recent:
    """Rows are added and forgotten in order. 64 MiB hold 200,000 to a million readings."""

    def __init__(self, *, limit_bytes: int = 64 << 20, limit_spans: int = 4096) -> None:
        self._limit_bytes = limit_bytes
        self._limit_spans = limit_spans
        self._rows: dict[int, Row] = {}
        self._by_device: dict[str, deque[tuple[int, Frame]]] = {}
        self._spans: deque[_Span] = deque()
        self.bytes = 0
        self.readings = 0

    def add(self, row: Row) -> None:
        seq = row.summary.seq
        self._rows[seq] = row
        self.bytes += row.cost
        self.readings += row.summary.readings
        for frame in row.frames:
            held = self._by_device.get(frame.device_id)
            if held is None:
                held = self._by_device[frame.device_id] = deque()
            held.append((seq, frame))
        while self.bytes > self._limit_bytes:
            oldest = next(iter(self._rows.values()))
            self.add_stored(oldest.summary)
            self._let_go(oldest)

    def add_stored(self, summary: Summary) -> None:
        """A row that is on disk only. Past the limit of spans neighbours are joined: queries then read more rows."""
        self._spans.append(
            _Span(summary.seq, summary.seq, summary.at_ms, summary.first_ms, summary.last_ms, summary.devices)
        )
        if len(self._spans) > self._limit_spans:
            spans = list(self._spans)
            self._spans = deque(_join(spans[i : i + 2]) for i in range(0, len(spans), 2))

    def forget(self, upto: int) -> None:
        """The store answers for the rows up to `upto`."""
        while self._spans and self._spans[0].last <= upto:
            self._spans.popleft()
        while self._rows:
            seq, row = next(iter(self._rows.items()))
            if seq > upto:
                break
            self._let_go(row)

    def forget_device(self, device_id: str, upto: int) -> None:
        held = self._by_device.get(device_id)
        while held and held[0][0] <= upto:
            held.popleft()
        if held is not None and not held:
            del self._by_device[device_id]

    def row(self, seq: int) -> Row | None:
        """A row held in memory."""
        return self._rows.get(seq)

    def at_ms(self, seq: int) -> int | None:
        """When row `seq` was committed (for one on disk: no later than that), or None for one not known."""
        row = self._rows.get(seq)
        if row is not None:
            return row.summary.at_ms
        return next((span.at_ms for span in self._spans if span.first <= seq <= span.last), None)

    def of_device(self, device_id: str) -> Iterator[Reading]:
        """The device's readings in memory, oldest row first."""
        for _, frame in self._by_device.get(device_id, ()):
            yield from frame.readings()

    def spans(self, device_id: str, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """(first, last) of rows on disk only that may hold readings of the device in [start_ms, end_ms)."""
        bits = device_bits((device_id,))
        return [
            (span.first, span.last)
            for span in self._spans
            if span.devices & bits == bits and span.first_ms < end_ms and span.last_ms >= start_ms
        ]

    def _let_go(self, row: Row) -> None:
        seq = row.summary.seq
        del self._rows[seq]
        self.bytes -= row.cost
        self.readings -= row.summary.readings
        for frame in row.frames:
            self.forget_device(frame.device_id, seq)


def _join(spans: list[_Span]) -> _Span:
    if len(spans) == 1:
        return spans[0]
    one, two = spans
    return _Span(
        one.first,
        two.last,
        min(one.at_ms, two.at_ms),
        min(one.first_ms, two.first_ms),
        max(one.last_ms, two.last_ms),
        one.devices | two.devices,
    )

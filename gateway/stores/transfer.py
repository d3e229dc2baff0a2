"""Readings on their way in or out of a store: records of a file, and what is wrong with a point. No I/O, no clock.

The forms themselves are in transfer_csv.py and transfer_lines.py; both read records, which are lines of a file unless
a quoted text spans several.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from gateway.documents import DEFAULT_LIMITS, EXACT, DecodeLimits, Undecodable, shown
from gateway.json_values import check_json
from gateway.readings import Kind, Reading, Value

#: 2000-01-01, as for telemetry: an earlier time is a clock that was never set, or another unit.
OLDEST_MS = 946_684_800_000
AHEAD_MS = 86_400_000
RECORD_LIMIT_BYTES = 2**20
_DEVICE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class BadRecord(Exception):
    """A record cannot be taken as readings; the message says why, fit to be shown."""


class Unfinished(BadRecord):
    """The record ends inside a quoted text: the next line belongs to it."""


class Record(NamedTuple):
    """One record of a file: the number of its first line (from 1), the bytes up to its end, its text."""

    line: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The times a point may have, both ends included: retention and a fast clock set them."""

    oldest_ms: int = OLDEST_MS
    latest_ms: int

    @classmethod
    def of(cls, now_ms: int, retention_days: int | None) -> "Window":
        """What is taken at this time. `retention_days` None: the store drops nothing by itself."""
        kept = OLDEST_MS if retention_days is None else now_ms - retention_days * 86_400_000
        return cls(oldest_ms=max(OLDEST_MS, kept), latest_ms=now_ms + AHEAD_MS)


def checked(reading: Reading, window: Window, limits: DecodeLimits = DEFAULT_LIMITS) -> Reading:
    """The reading, if telemetry would take it but for its age. Raises BadRecord."""
    device_id, metric, ts_ms, value = reading
    if not _DEVICE_ID.fullmatch(device_id):
        raise BadRecord(f"device {shown(device_id)}: 1 to 64 of A-Z a-z 0-9 . _ : -")
    if not 0 < len(metric) <= limits.metric_chars or not metric.isprintable():
        raise BadRecord(f"metric {shown(metric)}: 1 to {limits.metric_chars} printable characters")
    if ts_ms < OLDEST_MS:
        raise BadRecord("its time lies before 2000: is it in another unit?")
    if ts_ms < window.oldest_ms:
        raise BadRecord("older than the store keeps readings")
    if ts_ms > window.latest_ms:
        raise BadRecord("its time lies more than a day ahead: is it in another unit?")
    if isinstance(value, str):
        if len(value.encode(errors="surrogatepass")) > limits.text_bytes:
            raise BadRecord(f"{shown(metric)}: text of at most {limits.text_bytes} bytes")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRecord(f"{shown(metric)}: text with a NUL, or that is not valid Unicode")
    elif isinstance(value, dict | list):
        try:
            check_json(metric, value, limits)
        except Undecodable as error:
            raise BadRecord(error.detail) from error
    elif not isinstance(value, bool):
        if not isfinite(value):
            raise BadRecord(f"{shown(metric)}: not a finite number")
        if isinstance(value, int) and not -EXACT <= value <= EXACT:
            raise BadRecord(f"{shown(metric)}: an integer beyond 2**53")
    return reading


def number_of(text: str) -> Value:
    """An integer where it is written as one, else a float. Raises BadRecord."""
    try:
        # int() takes a thousand digits and underscores; neither is a number here.
        if len(text) > 40 or "_" in text or not text.isascii():
            raise ValueError
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError as error:
        raise BadRecord(f"{shown(text)} is not a {Kind.NUMBER}") from error


class Records:
    """Records out of chunks of a file, at most RECORD_LIMIT_BYTES of it in memory.

    One that never ends is given cut at the limit: whoever parses it says what is wrong, and reading goes on behind it.
    """

    def __init__(self, *, quoted: bool, line: int = 0, offset: int = 0) -> None:
        """`quoted`: a record goes on while its `"` are odd in number (CSV). `line`, `offset`: what was read before."""
        self._quoted = quoted
        self._line = line
        self._offset = offset
        self._rest = bytearray()
        self._scanned = 0  # of _rest, up to a line's end
        self._lines = 0  # in _rest[:_scanned]
        self._odd = False

    def feed(self, chunk: bytes) -> Iterator[Record]:
        """The records that end in this chunk."""
        self._rest += chunk
        start = 0
        while True:
            newline = self._rest.find(b"\n", self._scanned)
            end = len(self._rest) if newline < 0 else newline + 1
            if newline < 0 and end - start <= RECORD_LIMIT_BYTES:
                break
            if self._quoted:
                self._odd ^= self._rest.count(b'"', self._scanned, end) % 2 == 1
            self._scanned = end
            self._lines += newline >= 0
            if not self._odd or end - start > RECORD_LIMIT_BYTES:
                yield self._record(start, end)
                start = end
        del self._rest[:start]
        self._scanned -= start

    def finish(self) -> Iterator[Record]:
        """The last record, where the file does not end in a newline or ends inside a quoted text."""
        if self._rest:
            self._lines += 1
            yield self._record(0, len(self._rest))
            self._rest.clear()
            self._scanned = 0

    def _record(self, start: int, end: int) -> Record:
        raw = bytes(self._rest[start:end])
        first, self._line = self._line + 1, self._line + self._lines
        self._offset += len(raw)
        self._lines, self._odd = 0, False
        text = raw.decode("utf-8", errors="surrogateescape").rstrip("\r\n")
        return Record(first, self._offset, text.removeprefix("\ufeff") if first == 1 else text)


def records(chunks: Iterable[bytes], *, quoted: bool) -> Iterator[Record]:
    """All records of a file that is at hand in pieces."""
    splitter = Records(quoted=quoted)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.finish()

"""Readings as CSV and back, in two forms. No I/O, no clock.

long, one reading a row:      device,metric,ts,time,type,value
                              pump-7,temperature,1700000000000,2023-11-14T22:13:20.000Z,number,21.5
wide, one time a row:         device,ts,time,temperature:number,door:text
                              pump-7,1700000000000,2023-11-14T22:13:20.000Z,21.5,open

`ts` is Unix time in ms, `time` the same in RFC 3339; reading needs one of them. A wide column is a metric and its kind;
without a kind, a cell that reads as a number or as true or false is one. An empty cell is no reading.

What a device chose (ids, names, texts) never reaches a spreadsheet as a formula: a text that begins with = + - @, tab
or carriage return gets an apostrophe in front, and so does one that begins with an apostrophe, and the empty text,
so that reading takes exactly one away again and nothing is lost.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import orjson

from gateway.documents import shown
from gateway.readings import Kind, Reading, Value, canonical_json, kind_of
from gateway.stores.transfer import BadRecord, number_of

LONG = ("device", "metric", "ts", "time", "type", "value")
WIDE = ("device", "ts", "time")
MAX_COLUMNS = 1_003  # WIDE and as many metrics as a device may have
_FORMULA = "=+-@\t\r＝＋－＠"
_BOOLEANS = {"true": True, "false": False}

Column = tuple[str, Kind]
"""A wide column: a metric and its kind. A metric that two devices use for different kinds has two."""


def header_of(columns: Sequence[Column] | None = None) -> bytes:
    """The first row: of the long form, or of the wide one with these metrics."""
    if columns is None:
        return _rows([LONG])
    return _rows([[*WIDE, *(guarded(f"{metric}:{kind}") for metric, kind in columns)]])


def encode_long(readings: Iterable[Reading]) -> bytes:
    """One row a reading."""
    return _rows(
        [guarded(device_id), guarded(metric), ts_ms, rfc3339(ts_ms), kind_of(value), cell_of(value)]
        for device_id, metric, ts_ms, value in readings
    )


def encode_wide(readings: Iterable[Reading], columns: Sequence[Column]) -> bytes:
    """One row a device and time, in order of both. Raises KeyError with the column that is not among `columns`."""
    places = {column: place for place, column in enumerate(columns, len(WIDE))}
    table: dict[tuple[str, int], list[object]] = {}
    for device_id, metric, ts_ms, value in readings:
        row = table.get((device_id, ts_ms))
        if row is None:
            row = table[device_id, ts_ms] = [guarded(device_id), ts_ms, rfc3339(ts_ms), *[""] * len(columns)]
        row[places[metric, kind_of(value)]] = cell_of(value)
    return _rows(table[key] for key in sorted(table))


class CsvReader:
    """Rows to readings; the header says which form it is. Raises BadRecord, for the header as for a row."""

    def __init__(self, header: str) -> None:
        names = [name.strip() for name in _cells(header)]
        if len(set(names)) != len(names):
            raise BadRecord("the header names a column twice")
        if len(names) > MAX_COLUMNS:
            raise BadRecord(f"at most {MAX_COLUMNS} columns")
        self._width = len(names)
        self._at = {name: place for place, name in enumerate(names)}
        if "device" not in self._at or not {"ts", "time"} & self._at.keys():
            raise BadRecord(f"the first row must name the columns: {','.join(LONG)}, or {','.join(WIDE)} and metrics")
        self.is_long = {"metric", "value"} <= self._at.keys()
        self._columns: list[tuple[int, str, Kind | None]] = []
        if not self.is_long:
            self._columns = [(self._at[name], *_column(name)) for name in names if name not in WIDE]
            if not self._columns:
                raise BadRecord("the header names no metric")

    def read(self, row: str) -> list[Reading]:
        """A row's readings; none of an empty row. Their bounds are not checked here (transfer.checked)."""
        if not row:
            return []
        cells = _cells(row)
        if len(cells) != self._width:
            raise BadRecord(f"{len(cells)} cells where the header has {self._width}")
        device_id, ts_ms = unguarded(cells[self._at["device"]]), self._time(cells)
        if not self.is_long:
            return [
                Reading(device_id, metric, ts_ms, value_of(kind, cells[place]))
                for place, metric, kind in self._columns
                if cells[place]
            ]
        kind = _kind(cells[self._at["type"]]) if "type" in self._at else None
        metric, cell = unguarded(cells[self._at["metric"]]), cells[self._at["value"]]
        return [Reading(device_id, metric, ts_ms, value_of(kind, cell))]

    def _time(self, cells: Sequence[str]) -> int:
        if "ts" in self._at and (text := cells[self._at["ts"]].strip()):
            ts = number_of(text)
            if not isinstance(ts, int):
                raise BadRecord("ts is Unix time in milliseconds, an integer")
            return ts
        text = cells[self._at["time"]].strip() if "time" in self._at else ""
        try:
            at = datetime.fromisoformat(text)
        except ValueError as error:
            raise BadRecord(f"{shown(text)} is no time in RFC 3339") from error
        if at.tzinfo is None:
            raise BadRecord(f"{shown(text)}: the time needs Z or an offset")
        return round(at.timestamp() * 1000)


def cell_of(value: Value) -> str:
    """A value as its cell: the shortest text that reads back as the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return canonical_json(value)
    return guarded(value) if isinstance(value, str) else repr(value)


def value_of(kind: Kind | None, cell: str) -> Value:
    """The value of a cell. `kind` None: a number or a boolean where it reads as one, else text. Raises BadRecord."""
    match kind:
        case Kind.TEXT:
            return unguarded(cell)
        case Kind.BOOLEAN:
            try:
                return _BOOLEANS[cell.strip().lower()]
            except KeyError as error:
                raise BadRecord(f"{shown(cell)} is not true or false") from error
        case Kind.NUMBER:
            return number_of(cell.strip())
        case Kind.POSITION | Kind.JSON:
            try:
                value = orjson.loads(cell)
            except orjson.JSONDecodeError as error:
                raise BadRecord(f"{shown(cell)} is not JSON") from error
            if not isinstance(value, dict | list) or kind_of(value) is not kind:
                raise BadRecord(f"{shown(cell)} is not a {kind}")
            return value
    if cell in _BOOLEANS:
        return _BOOLEANS[cell]
    try:
        return number_of(cell)
    except BadRecord:
        return unguarded(cell)


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if not text or text[0] in _FORMULA or text[0] == "'" else text


def unguarded(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell.removeprefix("'")


def rfc3339(ts_ms: int) -> str:
    """A time in ms as text, in UTC."""
    at = datetime.fromtimestamp(ts_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}Z"


def columns_of(latest: Iterable[Mapping[str, tuple[int, Value]]]) -> list[Column]:
    """The wide columns for devices whose newest readings these are, in order of the metrics' names."""
    return sorted({(metric, kind_of(value)) for table in latest for metric, (_, value) in table.items()})


def _rows(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    # Carriage returns within a text are only quoted where the rows end in them.
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode(errors="replace")


def _cells(row: str) -> list[str]:
    try:
        found = list(csv.reader([row], strict=True))
    except csv.Error as error:
        raise BadRecord(f"not CSV: {error}") from error
    return found[0] if found else []


def _column(name: str) -> tuple[str, Kind | None]:
    metric, _, kind = unguarded(name).rpartition(":")
    return (metric, Kind(kind)) if metric and kind in set(Kind) else (unguarded(name), None)


def _kind(text: str) -> Kind | None:
    if text not in set(Kind) and text:
        raise BadRecord(f"type {shown(text)}: one of {', '.join(Kind)}")
    return Kind(text) if text else None

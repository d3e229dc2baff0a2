"""A file of devices, read as it comes: CSV with a header, a JSON array, or JSON lines. No I/O, no clock.

What is wrong with the file as such (its encoding, its header, a quote that is never closed) refuses all of it, with
the line; what is wrong with one device refuses that one. Memory holds one record and the ids read so far.

A cell of an `attributes.` column is JSON where it can be read as such, else text: `7`, `true`, `["a"]`, `hall 3`. An
apostrophe before what a spreadsheet would take for a formula is taken off: `cell_of` puts it there.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from fleet.errors import Invalid
from fleet.limits import ATTRIBUTES_LIMIT_BYTES, checked_object, checked_tags, checked_text
from gateway.channels import CLAIMANT, is_device_id

ROWS_LIMIT = 100_000
FILE_LIMIT_BYTES = 64 << 20
LINES_LIMIT = 1_000_000  # of CSV: empty ones and those within quotes cost time too
RECORD_LIMIT_BYTES = 64 * 1024  # the attributes may have 16 KiB, and JSON may need six bytes a character
COLUMNS_LIMIT = 256
ATTRIBUTE = "attributes."
_PLAIN = ("id", "name", "profile", "tags")
_FIELDS = (*_PLAIN, "attributes")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_MARKS = re.compile(rb'["\\{}\[\]]')
_UTF8_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class FileForm(StrEnum):
    CSV = "csv"
    JSON = "json"
    """An array of objects, or an object a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One device of the file. `fields` has what was given of name, profile, tags and attributes, checked.

    With a `reason` it is refused, for what is in `column` ("": the row as such).
    """

    line: int
    id: str
    fields: Mapping[str, Any]
    column: str = ""
    reason: str = ""


class DeviceFile:
    """Feed it bytes, take out devices; `finish` gives the rest. Both raise Invalid, whose field names the line."""

    def __init__(self, form: FileForm) -> None:
        self._records: _CsvRecords | _JsonRecords = _CsvRecords() if form is FileForm.CSV else _JsonRecords()
        self._lines_of: dict[str, int] = {}
        self._bytes = 0
        self.rows = 0

    def feed(self, data: bytes) -> list[Entry]:
        self._bytes += len(data)
        if self._bytes > FILE_LIMIT_BYTES:
            raise Invalid("file", f"is larger than {FILE_LIMIT_BYTES >> 20} MiB: import it in parts")
        return [self._entry(*record) for record in self._records.feed(data)]

    def finish(self) -> list[Entry]:
        return [self._entry(*record) for record in self._records.finish()]

    def _entry(self, line: int, record: Mapping[str, Any] | Invalid) -> Entry:
        self.rows += 1
        if self.rows > ROWS_LIMIT:
            raise Invalid(f"line {line}", f"more than {ROWS_LIMIT:,} devices: import them in parts")
        id_ = ""
        try:
            if isinstance(record, Invalid):
                raise record
            given = record.get("id")
            if not isinstance(given, str) or not is_device_id(given) or given == CLAIMANT:
                raise Invalid("id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
            id_ = given
            if id_ in self._lines_of:
                raise Invalid("id", f"is on line {self._lines_of[id_]} already")
            fields = _checked(record)
        except Invalid as error:
            return Entry(line=line, id=id_, fields={}, column=error.field[:128], reason=error.detail)
        self._lines_of[id_] = line
        return Entry(line=line, id=id_, fields=fields)


def cell_of(value: object) -> str:
    """A value as a cell that reads back as it was, and that no spreadsheet takes for a formula."""
    text = value if isinstance(value, str) and value and not _is_json(value) else orjson.dumps(value).decode()
    return guarded(text)


def guarded(text: str) -> str:
    """Text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def _checked(record: Mapping[str, Any]) -> dict[str, Any]:
    for name in record:
        if name not in _FIELDS:
            raise Invalid(peer_column(name), f"is none of {', '.join(_FIELDS)}")
    fields: dict[str, Any] = {}
    for name in ("name", "profile"):
        if (text := record.get(name)) is not None:
            if not isinstance(text, str):
                raise Invalid(name, "must be text")
            fields[name] = checked_text(name, text, empty=True)
    if (tags := record.get("tags")) is not None:
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise Invalid("tags", "must be a list of texts")
        fields["tags"] = checked_tags(tags)
    if (attributes := record.get("attributes")) is not None:
        text = checked_object("attributes", attributes, limit_bytes=ATTRIBUTES_LIMIT_BYTES)
        fields["attributes"] = orjson.loads(text)
    return fields


def peer_column(name: str) -> str:
    """A name out of the file, fit to be shown."""
    return "".join(each if each.isprintable() else "?" for each in name[:64]) or "(no name)"


class _CsvRecords:
    def __init__(self) -> None:
        self._rest = b""
        self._line = 0
        self._open: list[str] = []  # lines of a record whose quote is not closed yet
        self._open_size = self._open_line = self._quotes = 0
        self._columns: list[str] | None = None

    def feed(self, data: bytes) -> Iterator[tuple[int, Mapping[str, Any] | Invalid]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._take(line)
        if len(self._rest) > RECORD_LIMIT_BYTES:
            raise _too_long(self._line + 1)

    def finish(self) -> Iterator[tuple[int, Mapping[str, Any] | Invalid]]:
        if self._rest:
            yield from self._take(self._rest)
        if self._open:
            raise Invalid(f"line {self._open_line}", "a quote is never closed")
        if self._columns is None:
            raise Invalid("line 1", "the file is empty: it begins with a header such as id,name,tags")

    def _take(self, raw: bytes) -> Iterator[tuple[int, Mapping[str, Any] | Invalid]]:
        self._line += 1
        if self._line > LINES_LIMIT:
            raise Invalid(f"line {self._line}", f"more than {LINES_LIMIT:,} lines: import them in parts")
        if self._line == 1:
            raw = raw.removeprefix(_UTF8_BOM)
        text = _decoded(raw.removesuffix(b"\r"), self._line)
        if not self._open:
            self._open_line, self._open_size, self._quotes = self._line, 0, 0
        self._open_size += len(raw) + 1
        if self._open_size > RECORD_LIMIT_BYTES:
            raise _too_long(self._open_line)
        self._open.append(text)
        self._quotes += text.count('"')
        if self._quotes % 2:
            return
        record, self._open = "\n".join(self._open), []
        if not record.strip():
            return
        try:
            cells = next(csv.reader([record], strict=True))
        except csv.Error as error:
            raise Invalid(f"line {self._open_line}", f"is no CSV: {error}") from error
        if self._columns is None:
            self._columns = _header([cell.strip() for cell in cells], self._open_line)
        else:
            yield self._open_line, self._record(cells)

    def _record(self, cells: list[str]) -> Mapping[str, Any] | Invalid:
        columns = self._columns or []
        if len(cells) != len(columns):
            return Invalid("", f"has {len(cells)} cells, the header has {len(columns)}")
        record: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for column, cell in zip(columns, cells, strict=True):
            text = cell[1:] if _GUARDED.match(cell) else cell
            if not text:
                continue
            if column.startswith(ATTRIBUTE):
                attributes[column.removeprefix(ATTRIBUTE)] = _value(text)
            elif column == "tags":
                record[column] = [tag for tag in text.split(";") if tag.strip()]
            else:
                record[column] = text.strip()
        if attributes:
            record["attributes"] = attributes
        return record


class _JsonRecords:
    """Cuts out the outermost objects by their braces; each is then parsed by itself."""

    def __init__(self) -> None:
        self._rest = b""
        self._line = 1
        self._depth = 0
        self._in_text = False
        self._from = 0  # where the next mark is looked for
        self._is_array: bool | None = None
        self._ended = False
        self._objects = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, Mapping[str, Any] | Invalid]]:
        if self._is_array is None:
            if self._rest + data in (_UTF8_BOM[:1], _UTF8_BOM[:2]):
                self._rest += data
                return
            data, self._rest = (self._rest + data).removeprefix(_UTF8_BOM), b""
            _decoded(data[:2] if data[:2] in _UTF16_BOMS else b"", 1)
            start = data.lstrip()
            if not start:
                self._line += data.count(b"\n")
                return
            self._is_array = start[:1] == b"["
            if self._is_array:
                self._line += data[: len(data) - len(start)].count(b"\n")
                data = start[1:]
        self._rest += data
        done = 0  # where what is not taken out begins
        at = self._from
        while (mark := self._next_mark(at)) is not None:
            at, found = mark
            if self._in_text:
                self._in_text = found != b'"'
            elif found == b'"' and self._depth:
                self._in_text = True
            elif found in b"{[" and (self._depth or found == b"{"):
                if not self._depth:
                    self._gap(self._rest[done : at - 1])
                    done = at - 1
                self._depth += 1
            elif found in b"}]" and self._depth:
                self._depth -= 1
                if not self._depth:
                    yield self._object(self._rest[done:at])
                    done = at
        if self._depth and len(self._rest) - done > RECORD_LIMIT_BYTES:
            raise _too_long(self._line)
        if not self._depth and len(self._rest) - done > RECORD_LIMIT_BYTES:
            raise Invalid(f"line {self._line}", "is no JSON array of devices, nor one a line")
        self._from, self._rest = max(0, at - done), self._rest[done:]

    def finish(self) -> Iterator[tuple[int, Mapping[str, Any] | Invalid]]:
        if self._is_array is None:
            raise Invalid("line 1", "the file is empty: it is a JSON array of devices, or one a line")
        if self._depth:
            raise Invalid(f"line {self._line}", "the device that begins here does not end")
        if self._is_array:
            rest = self._rest.strip()
            if not rest.endswith(b"]") or rest[:-1].strip():
                raise Invalid(f"line {self._line}", "the array does not end here as it should")
        elif self._rest.strip():
            raise Invalid(f"line {self._line}", "is no device")
        yield from ()

    def _next_mark(self, at: int) -> tuple[int, bytes] | None:
        """The next byte that counts, and the place behind it; None when more is needed."""
        while (match := _MARKS.search(self._rest, at)) is not None:
            if match[0] != b"\\":
                return match.end(), match[0]
            if match.end() == len(self._rest):
                return None
            at = match.end() + 1
        return None

    def _gap(self, between: bytes) -> None:
        """What is between two devices."""
        separator = b"," if self._is_array and self._objects else b""
        self._line += between.count(b"\n")
        if between.strip() != separator:
            raise Invalid(f"line {self._line}", "is no JSON array of devices, nor one a line")

    def _object(self, raw: bytes) -> tuple[int, Mapping[str, Any] | Invalid]:
        line = self._line
        self._line += raw.count(b"\n")
        self._objects += 1
        if len(raw) > RECORD_LIMIT_BYTES:
            raise _too_long(line)
        _decoded(raw, line)
        try:
            record: dict[str, Any] = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"line {line}", f"is no JSON: {error.msg}") from error
        return line, record


def _header(columns: list[str], line: int) -> list[str]:
    where = f"line {line}"
    if len(columns) > COLUMNS_LIMIT:
        raise Invalid(where, f"has {len(columns):,} columns, of {COLUMNS_LIMIT} that it may have")
    if "id" not in columns:
        hint = "; it looks as if separated by ;, save it with commas" if ";" in "".join(columns) else ""
        raise Invalid(where, f"the header has no column id{hint}")
    for n, column in enumerate(columns):
        if column not in _PLAIN and not (column.startswith(ATTRIBUTE) and len(column) > len(ATTRIBUTE)):
            raise Invalid(where, f"column {peer_column(column)} is none of {', '.join(_PLAIN)}, {ATTRIBUTE}…")
        if column in columns[:n]:
            raise Invalid(where, f"column {peer_column(column)} is there twice")
    return columns


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _is_json(text: str) -> bool:
    return not isinstance(_value(text), str) or _value(text) != text


def _decoded(raw: bytes, line: int) -> str:
    if line == 1 and raw[:2] in _UTF16_BOMS:
        raise Invalid("line 1", "the file is UTF-16: save it as UTF-8")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"line {line}", "is not UTF-8: save the file as UTF-8") from error


def _too_long(line: int) -> Invalid:
    return Invalid(f"line {line}", f"a record of more than {RECORD_LIMIT_BYTES >> 10} KiB begins here")

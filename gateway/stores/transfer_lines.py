"""InfluxDB line protocol, read for an import: a line to its parts, and the parts to readings. No I/O, no clock.

    weather,device=pump-7,room=12 temperature=21.5,door="open",on=true 1700000000000000000

The device is a tag's value, a field is a metric. Mooring's own layout (line_protocol.py) is known by its measurements
and read back as what it was. Escapes are those of InfluxDB's reference: `\\,` `\\=` `\\ ` outside of quotes, `\\"` and
`\\\\` within; any other backslash is itself.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gateway.documents import shown
from gateway.readings import Reading, Value
from gateway.stores.line_protocol import MEASUREMENTS, text_of
from gateway.stores.transfer import BadRecord, Unfinished, number_of

_KEY = re.compile(r"(?:\\.|[^\\,= ])+")
_TAG_VALUE = re.compile(r"(?:\\.|[^\\, ])+")
_MEASUREMENT = re.compile(r"(?:\\.|[^\\, ])+")
_STRING = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_PLAIN = re.compile(r"[^, ]+")
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')
_INTEGER = re.compile(r"[+-]?\d{1,20}[iu]")
_BOOLEANS = {"t": True, "T": True, "true": True, "True": True, "TRUE": True} | {
    "f": False,
    "F": False,
    "false": False,
    "False": False,
    "FALSE": False,
}
_OWN = frozenset(MEASUREMENTS.values())


class Precision(StrEnum):
    """The unit of a line's time."""

    NS = "ns"
    US = "us"
    MS = "ms"
    S = "s"

    def to_ms(self, time: int) -> int:
        """Unix time in ms: rounded down, since two points must not become one in the future."""
        match self:
            case Precision.NS:
                return time // 1_000_000
            case Precision.US:
                return time // 1_000
            case Precision.S:
                return time * 1_000
            case Precision.MS:
                return time


class Line(NamedTuple):
    """A line's parts, escapes undone. `time` is in the file's own unit, None where the line has none."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Value]
    time: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """How lines become readings. A metric is a field's name, with what is asked for here in front of it, by dots.

    Tags other than these are left out: where two series differ by one of them only, name it in `metric_tags`.
    """

    device_tag: str = "device"
    measurement_prefix: bool = False
    metric_tags: tuple[str, ...] = ()
    precision: Precision = Precision.NS


def parse_line(text: str) -> Line | None:
    """None for an empty line or a comment. Raises BadRecord, and Unfinished inside a quoted text."""
    if not text.strip() or text.lstrip().startswith("#"):
        return None
    at = len(text) - len(text.lstrip())
    measurement, at = _take(_MEASUREMENT, text, at, "a measurement")
    tags: dict[str, str] = {}
    while text[at : at + 1] == ",":
        key, at = _take(_KEY, text, at + 1, "a tag's name")
        if text[at : at + 1] != "=":
            raise BadRecord(f"tag {shown(key)} has no value")
        value, at = _take(_TAG_VALUE, text, at + 1, f"the value of tag {shown(key)}")
        tags[_plain(key)] = _plain(value)
    fields: dict[str, Value] = {}
    separator = " "
    while text[at : at + 1] == separator:
        at += 1
        if separator == " ":
            at += len(text[at:]) - len(text[at:].lstrip(" "))
        key, at = _take(_KEY, text, at, "a field's name")
        if text[at : at + 1] != "=":
            raise BadRecord(f"field {shown(key)} has no value")
        fields[_plain(key)], at = _field(text, at + 1, key)
        separator = ","
    if not fields:
        raise BadRecord("no fields")
    rest = text[at:].strip()
    if rest and (not rest.lstrip("-").isdigit() or not rest.isascii() or len(rest) > 20 or text[at] != " "):
        raise BadRecord(f"{shown(rest)} is no time")
    return Line(_plain(measurement), tags, fields, int(rest) if rest else None)


def readings_of(line: Line, mapping: Mapping) -> list[Reading]:
    """A line's readings; their bounds are not checked here (transfer.checked). Raises BadRecord."""
    if line.time is None:
        raise BadRecord("no time: a backfill needs one")
    if line.measurement in _OWN and {"device", "metric"} <= line.tags.keys() and "value" in line.fields:
        # Mooring itself wrote it, in ms; whoever wrote the file chose its unit.
        value: Value = line.fields["value"]
        device_id, metric = text_of(line.tags["device"]), text_of(line.tags["metric"])
        return [Reading(device_id, metric, mapping.precision.to_ms(line.time), value)]
    device = line.tags.get(mapping.device_tag)
    if device is None:
        raise BadRecord(f"no tag {shown(mapping.device_tag)} that names the device")
    missing = [tag for tag in mapping.metric_tags if tag not in line.tags]
    if missing:
        raise BadRecord(f"no tag {shown(missing[0])}")
    front = [line.measurement] if mapping.measurement_prefix else []
    front += [line.tags[tag] for tag in mapping.metric_tags]
    ts_ms = mapping.precision.to_ms(line.time)
    return [Reading(device, ".".join([*front, name]), ts_ms, value) for name, value in line.fields.items()]


def _take(pattern: re.Pattern[str], text: str, at: int, what: str) -> tuple[str, int]:
    found = pattern.match(text, at)
    if found is None:
        raise BadRecord(f"{what} is missing at character {at + 1}")
    return found[0], found.end()


def _field(text: str, at: int, key: str) -> tuple[Value, int]:
    if text[at : at + 1] == '"':
        found = _STRING.match(text, at)
        if found is None:
            raise Unfinished(f"the text of field {shown(key)} does not end")
        return _ESCAPED_IN_STRING.sub(r"\1", found[1]), found.end()
    plain, at = _take(_PLAIN, text, at, f"the value of field {shown(key)}")
    if plain in _BOOLEANS:
        return _BOOLEANS[plain], at
    return number_of(plain[:-1] if _INTEGER.fullmatch(plain) else plain), at


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)

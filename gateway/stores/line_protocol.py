"""InfluxDB line protocol for readings, and what it wrote read back from tag values. No I/O, no clock.

The layout, one measurement a kind, tags `device` and `metric`, one field `value`, time in ms:

    mooring_number,device=pump-7,metric=temperature value=21.5 1700000000000
    mooring_boolean,device=pump-7,metric=running value=true 1700000000000
    mooring_text,device=pump-7,metric=state value="open" 1700000000000
    mooring_position,device=pump-7,metric=place value="{\"lat\":54.3,\"lon\":10.1}" 1700000000000
    mooring_json,device=pump-7,metric=valves value="[1,0,1]" 1700000000000

Why so: InfluxDB fixes a field's type for all series of a measurement, so with metrics as fields one device sending
text where another sends numbers would block the other's data (and InfluxDB 3 allows 500 columns a table). Here a
field has one type by construction. Numbers are always floats, since an integer field would refuse 21.5 later.

VictoriaMetrics keeps numbers only. There text and JSON are a label:
`mooring_text,device=…,metric=…,text=open value=1 …`.

Line protocol cannot carry every text in a tag: there is no escape for a newline or for a backslash at the end. Tag
values are therefore written with `%XX` in place of control characters, quotes and backslashes (and of a `%` that
reads like such an escape), which loses nothing and leaves ordinary names as they are: `humidity %` stays.
"""

import math
import re
from collections.abc import Iterable
from enum import Enum

from gateway.readings import Kind, Reading, Value, canonical_json, kind_of
from gateway.store import StoreRejected

NUMBER, BOOLEAN, TEXT = "mooring_number", "mooring_boolean", "mooring_text"
POSITION, JSON = "mooring_position", "mooring_json"
MEASUREMENTS = {
    Kind.NUMBER: NUMBER,
    Kind.BOOLEAN: BOOLEAN,
    Kind.TEXT: TEXT,
    Kind.POSITION: POSITION,
    Kind.JSON: JSON,
}
#: Those whose text is JSON.
JSON_TEXTS = (POSITION, JSON)
#: Series whose prefix is remembered: 220 bytes each. All are forgotten when it is full; making one costs 5 µs.
CACHED_SERIES = 100_000
#: Beyond its -maxLabelValueLen (16 KiB in 1.79) VictoriaMetrics cuts a label, and since 1.108 drops the point.
LABEL_LIMIT_BYTES = 4096

# Quotes are legal in a tag, but VictoriaMetrics takes a leading one for the beginning of a quoted value.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\\"']|%(?=[0-9A-F]{2})")
_ESCAPED = re.compile(r"%([0-9A-F]{2})")
_SPECIAL = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_QUOTED = str.maketrans({'"': r"\"", "\\": r"\\"})


class Texts(Enum):
    """Where a text reading's value goes."""

    FIELD = "field"
    LABEL = "label"


class LineEncoder:
    """Readings to lines. Keeps the escaped beginning of each series it has seen, so one encoder serves many batches."""

    def __init__(self, texts: Texts = Texts.FIELD) -> None:
        self._texts = texts
        self._prefixes: dict[tuple[str, str, type], str] = {}

    def encode(self, readings: Iterable[Reading]) -> bytes:
        """One line a point, in order; of several readings of a point the last one only.

        Raises StoreRejected for what has no line: a number that is not finite, text that is not valid Unicode.
        """
        lines: dict[tuple[str, int], str] = {}
        prefixes = self._prefixes
        for device_id, metric, ts_ms, value in readings:
            kind = value.__class__
            prefix = prefixes.get((device_id, metric, kind))
            if prefix is None:
                prefix = self._remember(device_id, metric, value)
            if kind is float or kind is int:
                lines[prefix, ts_ms] = _number(value)  # type: ignore[arg-type]
            else:
                lines[prefix, ts_ms] = self._other(value)
        try:
            return "\n".join([f"{prefix}{value} {ts_ms}" for (prefix, ts_ms), value in lines.items()]).encode()
        except UnicodeEncodeError as error:
            raise StoreRejected("text that is not valid Unicode (a lone surrogate)") from error

    def _other(self, value: Value) -> str:
        if isinstance(value, bool):
            return " value=true" if value else " value=false"
        if isinstance(value, int | float):
            return _number(value)
        if not isinstance(value, str):
            value = canonical_json(value)
        if self._texts is Texts.LABEL:
            return _label(value)
        return f' value="{value.translate(_QUOTED)}"'

    def _remember(self, device_id: str, metric: str, value: Value) -> str:
        if not device_id or not metric:
            raise StoreRejected("a reading without device or metric")
        measurement = MEASUREMENTS[kind_of(value)]
        prefix = f"{measurement},device={escape_tag(device_id)},metric={escape_tag(metric)}"
        if len(self._prefixes) >= CACHED_SERIES:
            self._prefixes.clear()
        self._prefixes[device_id, metric, value.__class__] = prefix
        return prefix


def escape_tag(text: str) -> str:
    """A tag's value as it stands in a line."""
    return tag_of(text).translate(_SPECIAL)


def tag_of(text: str) -> str:
    """A tag's value as the server knows it: what to ask for in a query."""
    return _UNFIT.sub(lambda match: f"%{ord(match[0]):02X}", text)


def text_of(tag: str) -> str:
    """The text behind a tag's value as the server gives it."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), tag) if "%" in tag else tag


def _label(text: str) -> str:
    if not text:
        return " value=1"  # an empty label is no label, and reads back as ""
    tag = escape_tag(text)
    if len(tag.encode(errors="surrogatepass")) > LABEL_LIMIT_BYTES:
        raise StoreRejected(f"text of {len(text)} characters is too long for a label")
    return f",text={tag} value=1"


def _number(value: float) -> str:
    try:
        number = float(value)
    except OverflowError as error:
        raise StoreRejected("an integer beyond the range of floats") from error
    if not math.isfinite(number):
        raise StoreRejected(f"a number that is not finite: {number!r}")
    return f" value={number!r}"

"""SenML (RFC 8428), in JSON and CBOR, as readings. No I/O, no clock; raises Undecodable and nothing else.

A pack is an array of records. Base fields hold from their record on; the rest is a record's own. Each record
becomes the reading <base name + name> at <base time + time>, and <…>/sum where it has a sum. What readings have no
place for (units, the update time, labels that nobody here knows) is checked and left out; nothing is stripped from
names, since the RFC gives their parts no meaning.

In CBOR labels are integers, which cbor2 refuses as keys unless it is to take every hashable thing, arrays that are
made to collide among them: so the pack and its records are read here, and only what they hold by cbor2.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from io import SEEK_CUR, BytesIO
from math import isfinite
from typing import Any

import cbor2

from gateway.documents import (
    CBOR_ERRORS,
    DEFAULT_LIMITS,
    EXACT,
    DecodeLimits,
    Undecodable,
    cbor_decoder,
    check_text,
    invalid_cbor,
    not_finite,
    read_json,
    read_json_strictly,
    shown,
)
from gateway.readings import Reading, Value
from gateway.refusals import Refusal

NEWEST_VERSION = 10
"""That of RFC 8428. Later ones add features as bits (RFC 9100), none of which is understood here."""

RELATIVE_BELOW_S = 2**28
"""Times below are seconds from now, the others Unix time (section 4.5.3)."""

_RECORD_FIELDS = 32
"""Twice what the RFC defines; more would only be work."""

_LABELS = {
    -6: "bs",
    -5: "bv",
    -4: "bu",
    -3: "bt",
    -2: "bn",
    -1: "bver",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
_TEXTS = frozenset(("bn", "bu", "n", "u", "vs", "vd"))
_NUMBERS = frozenset(("bv", "bs", "v", "s", "bt", "t", "ut"))
_KNOWN = frozenset(_LABELS.values())
_VALUES = ("v", "vs", "vb", "vd")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")  # section 4.5.1
_BASE64 = re.compile(r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?")

_Record = dict[str, Any]
_Number = int | float


def decode_senml(
    payload: bytes,
    *,
    is_cbor: bool,
    device_id: str,
    now_ms: int,
    stamp: Callable[[], int],
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> list[Reading]:
    """The readings of one pack, in its order. `stamp` is asked once, for the "now" of all times relative to it."""
    if is_cbor:
        return _Pack(device_id, now_ms, stamp, limits).resolve(_read_cbor(payload, limits.values))
    records = read_json(payload)
    if type(records) is not list:
        raise Undecodable(Refusal.UNSUPPORTED_VALUE, "the payload is no array of SenML records")
    pack = _Pack(device_id, now_ms, stamp, limits)
    readings = pack.resolve(records)
    # Without a backslash each colon is a key's or stands in text as it is: as many as were counted, no key came twice.
    if pack.is_doubtful or b"\\" in payload or payload.count(b":") != pack.colons:
        read_json_strictly(payload)
    return readings


class _Pack:
    """The base fields while the records are walked through."""

    def __init__(self, device_id: str, now_ms: int, stamp: Callable[[], int], limits: DecodeLimits) -> None:
        self.colons = 0
        """Those that the keys seen and the text in known fields account for."""
        self.is_doubtful = False
        """Whether something was seen that the fast JSON parser may have changed."""
        self._device_id = device_id
        self._stamp = stamp
        self._limits = limits
        self._latest_ms = now_ms + limits.ahead_ms
        self._now_ms: int | None = None
        self._version: int | None = None
        self._name = ""
        self._time: _Number = 0
        self._value: _Number | None = None
        self._sum: _Number | None = None
        self._points: set[tuple[str, int]] = set()
        self._readings: list[Reading] = []

    def resolve(self, records: list[Any]) -> list[Reading]:
        if len(records) > self._limits.values:
            raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {self._limits.values} records")
        for record in records:
            if type(record) is not dict:
                raise Undecodable(Refusal.UNSUPPORTED_VALUE, "a SenML record is an object")
            if len(record) > _RECORD_FIELDS:
                raise Undecodable(Refusal.TOO_MANY_VALUES, f"a record of more than {_RECORD_FIELDS} fields")
            for label, value in record.items():
                self._check(label, value)
            self._resolve(record)
        return self._readings

    def _check(self, label: str, value: Any) -> None:
        """Refuse a field that is not what its label says, before anything is made of it."""
        self.colons += 1
        kind = type(value)
        if label in _NUMBERS:
            if kind is float:
                if not -EXACT <= value <= EXACT:
                    self._check_range(label, value)
                    self.is_doubtful = True
            elif kind is int:
                self._check_range(label, value)
            else:
                is_time = label in ("t", "bt")
                reason = Refusal.BAD_TIMESTAMP if is_time else Refusal.UNSUPPORTED_VALUE
                raise Undecodable(reason, f"{label} is a number")
        elif label in _TEXTS:
            if kind is not str:
                raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{label} is text")
            self.colons += value.count(":")
        elif label == "vb":
            if kind is not bool:
                raise Undecodable(Refusal.UNSUPPORTED_VALUE, "vb is true or false")
        elif label == "bver":
            self._check_version(value)
        elif label.endswith("_"):  # section 4.4: to be understood or refused
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(label)} has to be understood, and is not")
        else:
            self.is_doubtful = True

    @staticmethod
    def _check_range(label: str, value: _Number) -> None:
        if isinstance(value, float):
            if not isfinite(value):
                raise not_finite(label, value)
        elif not -EXACT <= value <= EXACT:
            raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{label}: an integer beyond 2**53")

    def _check_version(self, version: object) -> None:
        if type(version) is not int or version < 1:
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, "bver is a positive integer")
        if version > NEWEST_VERSION:
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"SenML of a version above {NEWEST_VERSION} is not understood")
        if self._readings and version != (self._version or NEWEST_VERSION):
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, "all records of a pack have one version")
        self._version = version

    def _resolve(self, record: _Record) -> None:
        self._name = record.get("bn", self._name)
        self._time = record.get("bt", self._time)
        self._value = record.get("bv", self._value)
        self._sum = record.get("bs", self._sum)
        name = self._name + record.get("n", "")
        if len(name) > self._limits.metric_chars or _NAME.fullmatch(name) is None:
            raise Undecodable(
                Refusal.BAD_METRIC_NAME,
                f"{shown(name)}: a SenML name is 1 to {self._limits.metric_chars} of A-Z a-z 0-9 - : . / _,"
                " the first a letter or digit",
            )
        ts_ms = self._ts_ms(self._time + record.get("t", 0))
        given = [label for label in _VALUES if label in record]
        has_sum = "s" in record or self._sum is not None
        if len(given) > 1:
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(name)}: more than one value in a record")
        if given:
            self._add(name, ts_ms, self._value_of(name, record, given[0]))
        elif self._value is not None and not has_sum:  # section 4.5.4: a value that is missing is zero
            self._add(name, ts_ms, self._value)
        elif not has_sum:
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(name)}: a record without a value")
        if has_sum:
            total = record.get("s", 0) if self._sum is None else _total(name, self._sum, record.get("s"))
            if len(name) + len("/sum") > self._limits.metric_chars:
                raise Undecodable(Refusal.BAD_METRIC_NAME, f"{shown(name)}: too long for its /sum")
            self._add(name + "/sum", ts_ms, total)

    def _ts_ms(self, seconds: _Number) -> int:
        if seconds < RELATIVE_BELOW_S:
            if self._now_ms is None:
                self._now_ms = self._stamp()
            if seconds <= -self._now_ms / 1000:
                raise _bad_time()
            ts_ms = self._now_ms + round(seconds * 1000)
        elif seconds <= self._latest_ms:  # far too many, but 1e308 * 1000 would be no number
            ts_ms = round(seconds * 1000)
        else:
            raise _bad_time()
        if not self._limits.oldest_ms <= ts_ms <= self._latest_ms:
            raise _bad_time()
        return ts_ms

    def _value_of(self, name: str, record: _Record, label: str) -> Value:
        value: Value = record[label]
        if label == "v":
            return value if self._value is None else _total(name, self._value, record["v"])
        if isinstance(value, str):
            check_text(name, value, self._limits)
            if label == "vd" and _BASE64.fullmatch(value) is None:
                raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(name)}: vd is base64url without padding")
        return value

    def _add(self, metric: str, ts_ms: int, value: Value) -> None:
        # Two values for one point: the second would hide the first. Often only their units tell them apart.
        if (metric, ts_ms) in self._points:
            raise Undecodable(Refusal.DUPLICATE_KEY, f"{shown(metric)} comes twice for one time: name them apart")
        if len(self._readings) >= self._limits.values:
            raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {self._limits.values} values")
        self._points.add((metric, ts_ms))
        self._readings.append(Reading(self._device_id, metric, ts_ms, value))


def _bad_time() -> Undecodable:
    return Undecodable(Refusal.BAD_TIMESTAMP, "bt + t in seconds lies before 2000 or more than a day ahead")


def _total(name: str, base: _Number, own: _Number | None) -> _Number:
    """base + own, refused where a double would not hold it."""
    total = base if own is None else base + own
    if isinstance(total, float):
        if not isfinite(total):
            raise not_finite(name, total)
    elif not -EXACT <= total <= EXACT:
        raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{shown(name)}: an integer beyond 2**53")
    return total


# CBOR (section 6)

_ARRAY, _MAP, _TAG = 4, 5, 6
_BREAK = b"\xff"


def _read_cbor(payload: bytes, limit: int) -> list[_Record]:
    """The records with their labels as in JSON, data as base64 text; not more than `limit` and one."""
    source = BytesIO(payload)
    decoder = cbor_decoder(source)
    try:
        records = [_read_record(source, decoder) for _ in _items(source, _ARRAY, limit, "records")]
    except CBOR_ERRORS as error:
        raise invalid_cbor(error) from error
    if source.read(1):
        raise Undecodable(Refusal.INVALID_CBOR, "bytes after the end of the item")
    return records


def _read_record(source: BytesIO, decoder: cbor2.CBORDecoder) -> _Record:
    record: _Record = {}
    for _ in _items(source, _MAP, _RECORD_FIELDS, "fields in a record"):
        key = decoder.decode()
        label = _LABELS.get(key) if type(key) is int else key
        if type(label) is not str:
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, "a label is text or an integer from -6 to 8")
        if label in record:
            raise Undecodable(Refusal.DUPLICATE_KEY, f"{shown(label)} comes twice")
        value = decoder.decode()
        if label == "vd":
            if type(value) is not bytes:
                raise Undecodable(Refusal.UNSUPPORTED_VALUE, "vd is a byte string")
            value = urlsafe_b64encode(value).rstrip(b"=").decode()
        record[label] = value
    return record


def _items(source: BytesIO, major: int, limit: int, what: str) -> Iterator[None]:
    """Once before each item of the array or map that begins here. Raises ValueError at what is no CBOR."""
    count = _read_count(source, major)
    done = 0
    while count is None or done < count:
        if count is None:
            head = source.read(1)
            if head == _BREAK:
                return
            source.seek(-len(head), SEEK_CUR)
        if done >= limit or (count or 0) > limit:
            raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limit} {what}")
        yield
        done += 1


def _read_count(source: BytesIO, major: int) -> int | None:
    """The number of items in an array's or a map's head, None when it is open."""
    head = source.read(1)
    if not head:
        raise ValueError("the payload ends too early")
    if head[0] >> 5 == _TAG:
        raise ValueError("tag refused")
    if head[0] >> 5 != major:
        raise Undecodable(Refusal.UNSUPPORTED_VALUE, "SenML is an array of maps")
    size = head[0] & 31
    if size < 24:
        return size
    if size == 31:
        return None
    if size > 27:
        raise ValueError("a reserved length")
    length = 1 << size - 24
    digits = source.read(length)
    if len(digits) < length:
        raise ValueError("the payload ends too early")
    return int.from_bytes(digits)

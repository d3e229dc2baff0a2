"""A telemetry payload, in JSON or CBOR, as readings. No I/O, no clock; raises Undecodable and nothing else.

Three forms (docs/topics.md): {"metric": value, …}, {"ts": ms, "values": {…}}, or an array of these. Values are
stored exactly as sent or refused, never rounded into something else. The fast parser keeps the last of two equal
keys and turns integers beyond 64 bits into floats, without a word; where that may have happened (more colons than
keys, a float beyond 2**53) the payload is read a second time by a slower parser that does say.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from math import isfinite, isnan
from typing import Any, NoReturn

import cbor2
import orjson

from gateway.channels import TELEMETRY_CBOR
from gateway.readings import Reading
from gateway.refusals import Refusal

EXACT = 2**53
"""Integers up to here are exact in the double that every store keeps."""

_KNOWN_TAGS = (2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""The tags cbor2 6.2 decodes by itself, without 0 and 1 (times). 28 and 29 turn 205 bytes into 83 MB."""

_CBOR_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What one telemetry message may hold. 64 KiB: a message is decoded at once, in the event loop."""

    payload_bytes: int = 64 * 1024
    depth: int = 4
    values: int = 256
    text_bytes: int = 1024
    metric_chars: int = 128
    oldest_ms: int = 946_684_800_000
    """2000-01-01: a device that counts from 1970 or from its own start has no clock, and is told so."""
    ahead_ms: int = 86_400_000
    """How far before the server's clock a device's may be: one day."""


DEFAULT_LIMITS = DecodeLimits()


class Undecodable(Exception):
    """The payload cannot be read as readings. `reason` is the slug, `detail` one line without control characters."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode(
    channel: str,
    content_type: str | None,
    payload: bytes,
    *,
    device_id: str,
    now_ms: int,
    limits: DecodeLimits = DEFAULT_LIMITS,
    stamp: Callable[[], int] | None = None,
) -> list[Reading]:
    """The readings of one message, in its order. `stamp` gives the time of each object that has no "ts".

    Without `stamp` these are now_ms, now_ms + 1, …: two objects of an array stay two points.
    """
    if len(payload) > limits.payload_bytes:
        raise Undecodable(Refusal.TOO_LARGE, f"{len(payload)} bytes, at most {limits.payload_bytes}")
    is_cbor = _is_cbor(channel, content_type)
    document = _parse_cbor(payload) if is_cbor else _parse_json(payload)
    objects = document if type(document) is list else (document,)
    stamps = stamp or _count_from(now_ms).__next__
    latest_ms = now_ms + limits.ahead_ms
    readings: list[Reading] = []
    keys = 0
    huge = False
    for entry in objects:
        if type(entry) is not dict:
            raise _unsupported(entry, "the payload", 1, limits)
        keys += len(entry)
        values = entry.get("values")
        if type(values) is dict:
            keys += len(values)
            ts_ms = _timestamp(entry, limits.oldest_ms, latest_ms)
            if ts_ms is None:
                ts_ms = stamps()
        elif entry:
            values = entry
            ts_ms = stamps()
        else:
            continue
        if len(readings) + len(values) > limits.values:
            raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limits.values} values")
        for metric, value in values.items():
            kind = type(value)
            if kind is float:
                if not -EXACT <= value <= EXACT:
                    if not isfinite(value):
                        raise _not_finite(metric, value)
                    huge = True
            elif kind is int:
                if not -EXACT <= value <= EXACT:
                    raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{_shown(metric)}: an integer beyond 2**53")
            elif kind is str:
                _check_text(metric, value, limits)
            elif kind is not bool:
                raise _unsupported(value, _shown(metric), 2, limits)
            if type(metric) is not str or not 0 < len(metric) <= limits.metric_chars or not metric.isprintable():
                raise Undecodable(
                    Refusal.BAD_METRIC_NAME,
                    f"{_shown(metric)}: a metric's name is 1 to {limits.metric_chars} printable characters",
                )
            readings.append(Reading(device_id, metric, ts_ms, value))
    # Every key has its colon, and colons in text only add to them: as many colons as keys means no key came twice.
    if not is_cbor and (huge or payload.count(b":") != keys):
        _parse_json_strictly(payload)
    return readings


def _count_from(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def _is_cbor(channel: str, content_type: str | None) -> bool:
    if channel == TELEMETRY_CBOR:
        return True
    if not content_type:
        return False
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/cbor":
        return True
    if kind != "application/json":
        raise Undecodable(Refusal.UNSUPPORTED_CONTENT_TYPE, f"{_shown(kind)}: application/json or application/cbor")
    return False


def _parse_json(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        text = str(error)
        if "depth limit" in text:
            reason = Refusal.TOO_DEEP
        elif "infinity" in text:
            reason = Refusal.NUMBER_OUT_OF_RANGE
        elif "not valid UTF-8" in text:
            reason = Refusal.INVALID_UTF8
        else:
            reason = Refusal.INVALID_JSON
        raise Undecodable(reason, _printable(text)) from error


def _parse_json_strictly(payload: bytes) -> None:
    """Read again what orjson took, and refuse what it changed: equal keys, integers it made floats."""
    try:
        json.loads(payload.decode(), object_pairs_hook=_distinct, parse_int=_whole, parse_constant=_whole)
    except Undecodable:
        raise
    except RecursionError as error:
        raise Undecodable(Refusal.TOO_DEEP, "nested too deep") from error
    except ValueError as error:
        raise Undecodable(Refusal.INVALID_JSON, _printable(str(error))) from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Undecodable(Refusal.DUPLICATE_KEY, f"{_shown(key)} comes twice")
            seen.add(key)
    return found


def _whole(digits: str) -> int:
    # 17 characters hold every integer up to 2**53 with its sign; int() of thousands of digits would be slow.
    if len(digits) > 17 or abs(int(digits)) > EXACT:
        raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, "an integer beyond 2**53")
    return 0


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tag refused")


_TAG_DECODERS = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)


def _parse_cbor(payload: bytes) -> Any:
    source = BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        source,
        tag_hook=_refuse_tag,
        semantic_decoders=_TAG_DECODERS,
        max_depth=_CBOR_DEPTH,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        document = decoder.decode()
        rest = source.read(1)
    except (cbor2.CBORError, ValueError, OverflowError, TypeError) as error:
        text = str(error)
        if "Duplicate map key" in text:
            reason = Refusal.DUPLICATE_KEY
        elif "map key must be" in text:
            reason = Refusal.BAD_METRIC_NAME
        elif "nesting depth" in text:
            reason = Refusal.TOO_DEEP
        elif "text string" in text and isinstance(error.__cause__, UnicodeDecodeError):
            reason = Refusal.INVALID_UTF8
        else:
            reason = Refusal.INVALID_CBOR
        raise Undecodable(reason, _printable(text)) from error
    if rest:
        raise Undecodable(Refusal.INVALID_CBOR, "bytes after the end of the item")
    return document


def _timestamp(entry: dict[str, Any], oldest_ms: int, latest_ms: int) -> int | None:
    """The "ts" beside "values", or None; nothing else may stand there."""
    if "ts" not in entry:
        if len(entry) > 1:
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, 'beside "values" only "ts" may stand')
        return None
    if len(entry) > 2:
        raise Undecodable(Refusal.UNSUPPORTED_VALUE, 'beside "values" only "ts" may stand')
    ts = entry["ts"]
    if isinstance(ts, datetime):
        try:
            ts = round(ts.timestamp() * 1000)
        except (OverflowError, ValueError) as error:
            raise Undecodable(Refusal.BAD_TIMESTAMP, "ts is beyond any calendar") from error
    if type(ts) is not int:
        raise Undecodable(Refusal.BAD_TIMESTAMP, "ts is Unix time in milliseconds, an integer")
    if not oldest_ms <= ts <= latest_ms:
        raise Undecodable(Refusal.BAD_TIMESTAMP, "ts in milliseconds lies before 2000 or more than a day ahead")
    return ts


def _check_text(metric: object, value: str, limits: DecodeLimits) -> None:
    # A character is at most 4 bytes, so short texts need no encoding to be measured.
    if len(value) * 4 > limits.text_bytes and len(value.encode()) > limits.text_bytes:
        raise Undecodable(Refusal.TEXT_TOO_LONG, f"{_shown(metric)}: text of at most {limits.text_bytes} bytes")
    if "\0" in value:
        raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{_shown(metric)}: text with a NUL")


def _not_finite(metric: object, value: float) -> Undecodable:
    if isnan(value):
        return Undecodable(Refusal.NOT_A_NUMBER, f"{_shown(metric)}: NaN")
    return Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{_shown(metric)}: infinite")


def _unsupported(value: object, where: str, depth: int, limits: DecodeLimits) -> Undecodable:
    if _deeper_than(value, limits.depth - depth):
        return Undecodable(Refusal.TOO_DEEP, f"{where}: nested deeper than {limits.depth}")
    kind = "null" if value is None else "an array" if type(value) in (list, tuple) else "an object"
    if not isinstance(value, list | tuple | dict | None):
        kind = _shown(type(value).__name__)
    wanted = "an object or an array of objects" if depth == 1 else "number, boolean or text"
    return Undecodable(Refusal.UNSUPPORTED_VALUE, f"{where} is {kind}: {wanted}")


def _deeper_than(value: object, levels: int) -> bool:
    """Whether containers nest more than `levels` deep; level by level, since a bomb would exhaust the stack."""
    layer = [value]
    while layer := [item for item in layer if isinstance(item, list | tuple | dict)]:
        if levels <= 0:
            return True
        levels -= 1
        layer = [child for item in layer for child in (item.values() if isinstance(item, dict) else item)]
    return False


def _shown(value: object) -> str:
    """A peer's text, cut and escaped, fit for a log and a page."""
    return ascii(value if isinstance(value, str) else type(value).__name__)[:80]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])

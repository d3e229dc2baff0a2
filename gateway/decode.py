"""A telemetry payload as readings. No I/O, no clock; raises Undecodable and nothing else.

JSON or CBOR in three forms (docs/topics.md): {"metric": value, …}, {"ts": ms, "values": {…}}, or an array of these;
SenML is in gateway/senml.py. Values are stored exactly as sent or refused, never rounded into something else.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from math import isfinite
from typing import Any

from gateway.channels import TELEMETRY, TELEMETRY_BINARY, TELEMETRY_CBOR, TELEMETRY_SENML, TELEMETRY_SENML_CBOR
from gateway.compressed import FIRST_BYTES, decompress, is_compressed
from gateway.documents import (
    DEFAULT_LIMITS,
    EXACT,
    DecodeLimits,
    Undecodable,
    check_text,
    not_finite,
    read_cbor,
    read_json,
    read_json_strictly,
    shown,
)
from gateway.json_values import check_json
from gateway.readings import Reading
from gateway.refusals import Refusal
from gateway.senml import decode_senml

__all__ = ["DEFAULT_LIMITS", "DecodeLimits", "Undecodable", "decode"]

_FORMS = {
    "application/json": (False, False),
    "application/cbor": (False, True),
    "application/senml+json": (True, False),
    "application/senml+cbor": (True, True),
}
"""Whether a payload is SenML and whether it is CBOR, by its content type."""

_CHANNEL_FORMS = {
    TELEMETRY_CBOR: _FORMS["application/cbor"],
    TELEMETRY_SENML: _FORMS["application/senml+json"],
    TELEMETRY_SENML_CBOR: _FORMS["application/senml+cbor"],
}
"""The same by channel; a channel that says it needs no content type, and is believed over one."""

_OTHER_UNITS = (("seconds", 1), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))
"""What devices send in place of milliseconds, and how many of them make a second."""


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

    Without `stamp` these are now_ms, now_ms + 1, …: two objects of an array stay two points. A payload that begins
    as gzip or zlib does is decompressed first; `limits.payload_bytes` holds before and after.
    """
    if len(payload) > limits.payload_bytes:
        raise Undecodable(Refusal.TOO_LARGE, f"{len(payload)} bytes, at most {limits.payload_bytes}")
    if payload[:1] in FIRST_BYTES and is_compressed(payload):
        payload = decompress(payload, limits.payload_bytes)
    form = _CHANNEL_FORMS.get(channel)
    if is_binary(channel, content_type):
        raise Undecodable(Refusal.UNSUPPORTED_CONTENT_TYPE, "bytes, and no profile of the device says what they mean")
    is_senml, is_cbor = form or (_form_of(content_type) if content_type else (False, False))
    stamps = stamp or _count_from(now_ms).__next__
    if is_senml:
        return decode_senml(payload, is_cbor=is_cbor, device_id=device_id, now_ms=now_ms, stamp=stamps, limits=limits)
    document = read_cbor(payload) if is_cbor else read_json(payload)
    objects = document if type(document) is list else (document,)
    latest_ms = now_ms + limits.ahead_ms
    readings: list[Reading] = []
    keys = 0
    doubtful = False  # whether something was seen that the fast JSON parser may have changed
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
                        raise not_finite(metric, value)
                    doubtful = True
            elif kind is int:
                if not -EXACT <= value <= EXACT:
                    raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{shown(metric)}: an integer beyond 2**53")
            elif kind is str:
                check_text(metric, value, limits)
            elif kind is dict or kind is list:
                check_json(metric, value, limits)
                doubtful = True  # its keys were not counted
            elif kind is not bool:
                raise _unsupported(value, shown(metric), 2, limits)
            if type(metric) is not str or not 0 < len(metric) <= limits.metric_chars or not metric.isprintable():
                raise Undecodable(
                    Refusal.BAD_METRIC_NAME,
                    f"{shown(metric)}: a metric's name is 1 to {limits.metric_chars} printable characters",
                )
            readings.append(Reading(device_id, metric, ts_ms, value))
    # Every key has its colon, and colons in text only add to them: as many colons as keys means no key came twice.
    if not is_cbor and (doubtful or payload.count(b":") != keys):
        read_json_strictly(payload)
    return readings


def is_binary(channel: str, content_type: str | None) -> bool:
    """Whether the payload is bytes that only a profile can read."""
    if channel == TELEMETRY:
        return content_type is not None and _bare(content_type) == "application/octet-stream"
    return channel == TELEMETRY_BINARY


def document_form(channel: str, content_type: str | None) -> str | None:
    """ "json" or "cbor" where the payload is one document, None where it is SenML. Raises Undecodable."""
    is_senml, is_cbor = _CHANNEL_FORMS.get(channel) or (_form_of(content_type) if content_type else (False, False))
    return None if is_senml else "cbor" if is_cbor else "json"


def _count_from(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def _form_of(content_type: str) -> tuple[bool, bool]:
    kind = _bare(content_type)
    form = _FORMS.get(kind)
    if form is None:
        raise Undecodable(Refusal.UNSUPPORTED_CONTENT_TYPE, f"{shown(kind)}: one of {', '.join(_FORMS)}")
    return form


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


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
        detail = "ts in milliseconds lies before 2000 or more than a day ahead"
        for unit, per_s in _OTHER_UNITS:
            if oldest_ms <= ts * 1000 // per_s <= latest_ms:
                detail += f"; it looks like {unit}"
        raise Undecodable(Refusal.BAD_TIMESTAMP, detail)
    return ts


def _unsupported(value: object, where: str, depth: int, limits: DecodeLimits) -> Undecodable:
    if _deeper_than(value, limits.depth - depth):
        return Undecodable(Refusal.TOO_DEEP, f"{where}: nested deeper than {limits.depth}")
    kind = "null" if value is None else "an array" if type(value) in (list, tuple) else "an object"
    if not isinstance(value, list | tuple | dict | None):
        kind = shown(type(value).__name__)
    wanted = "an object or an array of objects" if depth == 1 else "number, boolean, text, object or array"
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

"""Bytes as JSON or CBOR documents, and what is refused while reading them. No I/O, no clock; raises Undecodable alone.

The fast JSON parser keeps the last of two equal keys and turns integers beyond 64 bits into floats, without a word:
whoever has to know reads the payload a second time by `read_json_strictly`, which does say.
"""

import json
from dataclasses import dataclass
from io import BytesIO
from math import isnan
from typing import Any, NoReturn

import cbor2
import orjson

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


def read_json(payload: bytes) -> Any:
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
        raise Undecodable(reason, printable(text)) from error


def read_json_strictly(payload: bytes, *, exact: bool = True) -> None:
    """Read again what orjson took, and refuse what it changed: equal keys and, if `exact`, integers it made floats."""
    parse_int = _whole if exact else len
    try:
        json.loads(payload.decode(), object_pairs_hook=_distinct, parse_int=parse_int, parse_constant=_whole)
    except Undecodable:
        raise
    except RecursionError as error:
        raise Undecodable(Refusal.TOO_DEEP, "nested too deep") from error
    except ValueError as error:
        raise Undecodable(Refusal.INVALID_JSON, printable(str(error))) from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Undecodable(Refusal.DUPLICATE_KEY, f"{shown(key)} comes twice")
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


def read_cbor(payload: bytes) -> Any:
    """The one item that the payload is."""
    source = BytesIO(payload)
    try:
        document = cbor_decoder(source).decode()
        rest = source.read(1)
    except CBOR_ERRORS as error:
        raise invalid_cbor(error) from error
    if rest:
        raise Undecodable(Refusal.INVALID_CBOR, "bytes after the end of the item")
    return document


def cbor_decoder(source: BytesIO) -> cbor2.CBORDecoder:
    """A decoder that takes no tags but times, no equal keys and only text and bytes as keys. Raises CBOR_ERRORS."""
    return cbor2.CBORDecoder(
        source,
        tag_hook=_refuse_tag,
        semantic_decoders=_TAG_DECODERS,
        max_depth=_CBOR_DEPTH,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )


CBOR_ERRORS = (cbor2.CBORError, ValueError, OverflowError, TypeError)


def invalid_cbor(error: Exception) -> Undecodable:
    """The refusal that one of CBOR_ERRORS stands for."""
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
    return Undecodable(reason, printable(text))


def check_text(metric: object, value: str, limits: DecodeLimits) -> None:
    # A character is at most 4 bytes, so short texts need no encoding to be measured.
    if len(value) * 4 > limits.text_bytes and len(value.encode()) > limits.text_bytes:
        raise Undecodable(Refusal.TEXT_TOO_LONG, f"{shown(metric)}: text of at most {limits.text_bytes} bytes")
    if "\0" in value:
        raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(metric)}: text with a NUL")


def not_finite(metric: object, value: float) -> Undecodable:
    if isnan(value):
        return Undecodable(Refusal.NOT_A_NUMBER, f"{shown(metric)}: NaN")
    return Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{shown(metric)}: infinite")


def shown(value: object) -> str:
    """A peer's text, cut and escaped, fit for a log and a page."""
    return ascii(value if isinstance(value, str) else type(value).__name__)[:80]


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])

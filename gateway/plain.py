"""The shortest way from payloads to readings, for what most devices send most of the time. No I/O, no clock.

That is `{"ts": ms, "values": {…}}` in JSON, of numbers, booleans and short texts, under names that are known already
for this kind of value: what is known has been checked once, and need not be again. Many of them of one device are read
as one document and checked column by column. Anything else gets None here, and `decode` says what it is or what is
wrong with it; what comes out here is what `decode` and `Kinds.sort` would give.
"""

from collections.abc import Collection, Mapping, Sequence

import orjson

from gateway.documents import EXACT, DecodeLimits
from gateway.frames import Frame
from gateway.kinds import KIND_OF
from gateway.readings import Kind, Value

_make = tuple.__new__  # a NamedTuple's own constructor takes half as long again
_NUMBER, _TEXT = Kind.NUMBER, Kind.TEXT


def read_plain(
    payloads: Sequence[bytes], device_id: str, known: Mapping[str, Kind], latest_ms: int, limits: DecodeLimits
) -> list[Frame] | None:
    """The frames of plain messages that fix no kind, in order; None when one of the messages is not of that sort.

    `latest_ms` bounds their times.
    """
    if len(payloads) == 1:
        frame = _read_one(payloads[0], device_id, known, latest_ms, limits)
        return None if frame is None else [frame]
    if max(map(len, payloads)) > limits.payload_bytes:
        return None
    try:
        # As many plain documents as payloads, each with two braces opened, is one in each: nothing can hide between.
        documents = orjson.loads(b"[%b]" % b",".join(payloads))
    except orjson.JSONDecodeError:
        return None
    if len(documents) != len(payloads):
        return None
    frames: list[Frame] = []
    metrics: tuple[str, ...] = ()
    times: list[int] = []
    rows: list[Collection[Value]] = []
    for payload, document in zip(payloads, documents, strict=True):
        if type(document) is not dict or len(document) != 2:
            return None
        values, ts_ms = document.get("values"), document.get("ts")
        if type(values) is not dict or type(ts_ms) is not int or not values or len(values) > limits.values:
            return None
        # Every key has its colon, and colons in text only add to them: as many as keys means no key came twice.
        if payload.count(b":") != len(values) + 2 or payload.count(b"{") != 2:
            return None
        names = tuple(values)
        if names != metrics:
            if rows:
                frames.append(Frame(device_id, metrics, times, list(zip(*rows, strict=True))))
            metrics, times, rows = names, [], []
        times.append(ts_ms)
        rows.append(values.values())
    frames.append(Frame(device_id, metrics, times, list(zip(*rows, strict=True))))
    for frame in frames:
        if min(frame.times) < limits.oldest_ms or max(frame.times) > latest_ms:
            return None
        for metric, column in zip(frame.metrics, frame.columns, strict=True):
            if not _fits(column, known.get(metric), limits):
                return None
    return frames


def _read_one(
    payload: bytes, device_id: str, known: Mapping[str, Kind], latest_ms: int, limits: DecodeLimits
) -> Frame | None:
    """The same for one message: where devices send one at a time, what a frame spares costs more than it brings."""
    if len(payload) > limits.payload_bytes:
        return None
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if type(document) is not dict or len(document) != 2:
        return None
    values, ts_ms = document.get("values"), document.get("ts")
    if type(values) is not dict or type(ts_ms) is not int or not limits.oldest_ms <= ts_ms <= latest_ms:
        return None
    if not values or len(values) > limits.values or payload.count(b":") != len(values) + 2:
        return None
    for metric, value in values.items():
        kind = KIND_OF.get(type(value))
        if kind is None or known.get(metric) is not kind:
            return None
        if kind is _NUMBER:
            if not -EXACT <= value <= EXACT:
                return None
        elif kind is _TEXT and (len(value) * 4 > limits.text_bytes or "\0" in value):
            return None
    return _make(Frame, (device_id, tuple(values), (ts_ms,), [(value,) for value in values.values()]))


def _fits(column: Sequence[Value], kind: Kind | None, limits: DecodeLimits) -> bool:
    """Whether all values are of the kind and within what needs no closer look."""
    types = set(map(type, column))
    if not all(KIND_OF.get(each) is kind for each in types):
        return False
    if kind is Kind.NUMBER:
        return min(column) >= -EXACT and max(column) <= EXACT  # type: ignore[operator, type-var] # numbers
    if kind is Kind.TEXT:
        texts: Sequence[str] = column  # type: ignore[assignment]
        return max(map(len, texts)) * 4 <= limits.text_bytes and not any("\0" in text for text in texts)
    return kind is Kind.BOOLEAN

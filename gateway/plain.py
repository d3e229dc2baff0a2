"""The shortest way from a payload to readings, for what most devices send most of the time. No I/O, no clock.

That is `{"ts": ms, "values": {…}}` in JSON, of numbers, booleans and short texts, under names that are known already
for this kind of value: what is known has been checked once, and need not be again. Anything else gets None here, and
`decode` says what it is or what is wrong with it; what comes out here is what `decode` and `Kinds.sort` would give.
"""

from collections.abc import Mapping

import orjson

from gateway.documents import EXACT, DecodeLimits
from gateway.kinds import KIND_OF
from gateway.readings import Kind, Reading

_NUMBER, _TEXT = Kind.NUMBER, Kind.TEXT
_make = tuple.__new__  # a NamedTuple's own constructor takes half as long again


def read_plain(
    payload: bytes, device_id: str, known: Mapping[str, Kind], latest_ms: int, limits: DecodeLimits
) -> list[Reading] | None:
    """The readings of a plain message that fixes no kind, or None for every other. `latest_ms` bounds its time."""
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
    # Every key has its colon, and colons in text only add to them: as many colons as keys means no key came twice.
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
    return [_make(Reading, (device_id, metric, ts_ms, value)) for metric, value in values.items()]

"""A reading: one value of one metric of one device at one time. No I/O, no clock."""

from enum import StrEnum
from typing import Any, NamedTuple

import orjson

Value = float | int | bool | str | dict[str, Any] | list[Any]
"""A number, a boolean, a text, a position ({"lat", "lon"}, perhaps "alt"), or a small JSON object or array."""

_POSITIONS = (frozenset({"lat", "lon"}), frozenset({"lat", "lon", "alt"}))


class Kind(StrEnum):
    """What a metric holds. A metric's kind is that of its first reading and stays."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    POSITION = "position"
    JSON = "json"


class Reading(NamedTuple):
    """Identified by (device_id, metric, ts_ms): the same three again is the same point. `ts_ms` is Unix time in ms.

    A NamedTuple because one is made per value: a frozen dataclass costs three times as much on Python 3.11.
    """

    device_id: str
    metric: str
    ts_ms: int
    value: Value


def kind_of(value: Value) -> Kind:
    """The kind a value belongs to; bool before int, since Python's bool is an int."""
    if isinstance(value, bool):
        return Kind.BOOLEAN
    if isinstance(value, int | float):
        return Kind.NUMBER
    if isinstance(value, str):
        return Kind.TEXT
    return Kind.POSITION if isinstance(value, dict) and value.keys() in _POSITIONS else Kind.JSON


def canonical_json(value: Value) -> str:
    """The shortest JSON of a value, keys sorted: equal values have equal text. Raises TypeError where it has none."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()

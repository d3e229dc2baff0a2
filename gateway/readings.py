"""A reading: one value of one metric of one device at one time. No I/O, no clock."""

from enum import StrEnum
from typing import NamedTuple

Value = float | int | bool | str


class Kind(StrEnum):
    """What a metric holds. A metric's kind is that of its first reading and stays."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"


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
    return Kind.TEXT if isinstance(value, str) else Kind.NUMBER

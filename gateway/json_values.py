"""Values that are more than a number, a boolean or a text: positions and small JSON. No I/O, no clock.

What these may hold is bounded as a text is, by the bytes of their shortest JSON. Raises Undecodable alone.
"""

from math import isfinite
from typing import Any

from gateway.documents import EXACT, DecodeLimits, Undecodable, check_text, not_finite, shown
from gateway.readings import Kind, canonical_json, kind_of
from gateway.refusals import Refusal

#: Of a position, in degrees; `alt` is in metres, and any number.
_RANGES = {"lat": 90.0, "lon": 180.0}


def check_json(metric: object, value: dict[Any, Any] | list[Any], limits: DecodeLimits) -> None:
    """Refuse an object or an array that no store could give back as it came."""
    layer: list[Any] = [value]
    levels = 0
    # Level by level, since a bomb would exhaust the stack.
    while layer:
        levels += 1
        if levels > limits.depth:
            raise Undecodable(Refusal.TOO_DEEP, f"{shown(metric)}: nested deeper than {limits.depth}")
        below: list[Any] = []
        for container in layer:
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(metric)}: a key that is no text")
                    check_text(metric, key, limits)
            for item in container.values() if type(container) is dict else container:
                if type(item) in (dict, list):
                    below.append(item)
                else:
                    _check_leaf(metric, item, limits)
        layer = below
    if kind_of(value) is Kind.POSITION:
        _check_position(metric, value)  # type: ignore[arg-type] # an object, then
    if len(canonical_json(value).encode()) > limits.text_bytes:
        raise Undecodable(Refusal.TEXT_TOO_LONG, f"{shown(metric)}: JSON of at most {limits.text_bytes} bytes")


def _check_leaf(metric: object, item: object, limits: DecodeLimits) -> None:
    kind = type(item)
    if kind is str:
        check_text(metric, item, limits)  # type: ignore[arg-type]
    elif kind is float:
        if not isfinite(item):  # type: ignore[arg-type]
            raise not_finite(metric, item)  # type: ignore[arg-type]
    elif kind is int:
        if not -EXACT <= item <= EXACT:  # type: ignore[operator]
            raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{shown(metric)}: an integer beyond 2**53")
    elif kind is not bool and item is not None:
        raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(metric)} holds what JSON has no word for: {shown(item)}")


def _check_position(metric: object, position: dict[str, Any]) -> None:
    for name, number in position.items():
        if type(number) not in (int, float):
            raise Undecodable(Refusal.UNSUPPORTED_VALUE, f"{shown(metric)}: {name} of a position is a number")
        limit = _RANGES.get(name)
        if limit is not None and not -limit <= number <= limit:
            raise Undecodable(
                Refusal.NUMBER_OUT_OF_RANGE, f"{shown(metric)}: {name} lies between -{limit:g} and {limit:g}"
            )

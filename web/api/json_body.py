"""JSON from people, read strictly: what comes through can be stored and given back unchanged. No I/O.

Python's own reader takes NaN, lone surrogates and integers of any length; a database, another JSON library or
a browser further on does not, and would fail where nobody expects it.
"""

import math
from typing import Any

from pydantic_core import from_json

MAX_DEPTH = 20
MAX_INT = 2**53
"""Integers beyond this are not exact in JavaScript, and so not in the console."""


class BadJson(ValueError):
    """The text is not JSON, or not JSON that can be kept; str() says why."""


def read_json(raw: bytes) -> Any:
    """The value in `raw`. Raises BadJson."""
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise BadJson(f"the body is not JSON: {error}") from error
    _check(value)
    return value


def _check(value: Any) -> None:
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        match item:
            case dict():
                if any("\0" in key for key in item):
                    raise BadJson("the body has a name with a NUL character")
                stack.extend((child, depth + 1) for child in item.values())
            case list():
                stack.extend((child, depth + 1) for child in item)
            case str() if "\0" in item:
                raise BadJson("the body has text with a NUL character")
            case bool():
                pass
            case int() if abs(item) > MAX_INT:
                raise BadJson("the body has an integer beyond 2^53, which cannot be kept exactly")
            case float() if not math.isfinite(item):
                raise BadJson("the body has a number that is too large")
        if depth > MAX_DEPTH:
            raise BadJson(f"the body is nested deeper than {MAX_DEPTH} levels")

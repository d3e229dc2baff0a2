"""Cursor paging: a page of anything, and the opaque text that says where the next one begins. No I/O, no clock."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from fleet.errors import Invalid

T = TypeVar("T")

PAGE_LIMIT = 500  # more than a screen; small enough that one answer never holds up the event loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """`next_cursor` is None on the last page; `total` is None where counting was not asked for."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None


def page_limit(limit: int) -> int:
    """`limit` brought into 1..500."""
    return max(1, min(limit, PAGE_LIMIT))


def encode_cursor(*position: str | int) -> str:
    """Opaque text for a position in a sorted list."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The position in a cursor of ours, whose parts are of `kinds`. Raises Invalid for any other text."""
    try:
        position = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise Invalid("cursor", "is not one that this server gave out") from error
    if (
        not isinstance(position, list)
        or len(position) != len(kinds)
        or any(type(part) is not kind for part, kind in zip(position, kinds, strict=True))
        or any(isinstance(part, str) and "\0" in part for part in position)  # PostgreSQL has no such text
    ):
        raise Invalid("cursor", "is not one that this server gave out")
    return tuple(position)

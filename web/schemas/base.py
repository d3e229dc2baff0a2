"""What all shapes share: the base of requests and of answers, times, names, free-form JSON, pages. No I/O.

A request refuses properties it does not know (a misspelt field must not be dropped in silence, a read-only one
must not look as if it had been set); an answer is built from our own values and is never checked for more.
"""

import re
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-20T12:00:00.000Z"])]
"""An instant in an answer: RFC 3339 in UTC, with milliseconds and Z, as the fleet's views write it."""

Line = Annotated[str, AfterValidator(_one_line)]
"""Text of one line: no control characters."""

DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", examples=["pump-7"])]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["01JD2Z4K8X0000000000000000"])]
Name = Annotated[Line, Field(min_length=1, max_length=128)]
Tag = Annotated[Line, Field(min_length=1, max_length=64)]
Tags = Annotated[list[Tag], Field(max_length=64)]
Username = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,64}$", examples=["alice"])]
Password = Annotated[str, Field(min_length=8, max_length=256, json_schema_extra={"format": "password"})]


class In(BaseModel):
    """Base of what a request carries."""

    model_config = ConfigDict(extra="forbid")


class Out(BaseModel):
    """Base of what an answer carries."""


class Paged(In):
    """Query of a list."""

    cursor: str | None = Field(default=None, max_length=512, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=500, description="Most items on one page.")


class Page(Out, Generic[T]):
    """One page of a list."""

    items: list[T]
    next_cursor: str | None = Field(default=None, description="Ask for the next page with this; null on the last.")
    total: int | None = Field(default=None, description="Items on all pages; null where counting them would be slow.")

"""Refused messages: lists, one of them whole, replays. No I/O."""

from typing import Annotated

from pydantic import AwareDatetime, Field, model_validator

from gateway.replays import ReplayState
from web.schemas.base import DeviceId, In, Out, Page, Paged, Time

Reason = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$", examples=["invalid_json"])]
LetterId = Annotated[int, Field(ge=1, lt=1 << 62)]


class DeadLetter(Out):
    id: int
    device: str
    received_at: Time
    channel: str = Field(description="The topic below devices/{device}/.", examples=["telemetry"])
    reason: Reason
    detail: str
    payload: str = Field(description="In lists its first 4,096 characters, else as much as was kept.")
    encoding: str = Field(description='"text" or "base64".')
    size: int = Field(description="Bytes of the whole message.")
    content_type: str | None
    link: str = Field(description="The way it came; empty for what the store rejected.", examples=["http"])
    replays: int = Field(description="How often it was tried again and refused again.")
    replayable: bool = Field(description="False where only the beginning of the message was kept.")


class DeadLetterPage(Page[DeadLetter]):
    reasons: dict[str, int] = Field(description="How many there are on all pages, by reason.")


class LetterChoice(In):
    """Which letters: those for which all that is given holds."""

    device: DeviceId | None = None
    reason: Reason | None = None
    since: AwareDatetime | None = Field(default=None, description="Received at this time or later.")
    until: AwareDatetime | None = Field(default=None, description="Received before this time.")

    @property
    def is_empty(self) -> bool:
        return self.device is None and self.reason is None and self.since is None and self.until is None


class LetterQuery(LetterChoice, Paged):
    cursor: str | None = Field(
        default=None, pattern=r"^[1-9][0-9]{0,17}$", description="`next_cursor` of the page before."
    )


class ReplayCreate(In):
    """`ids`, or a `filter`; an empty filter means all."""

    ids: list[LetterId] | None = Field(default=None, min_length=1, max_length=10_000)
    filter: LetterChoice | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "ReplayCreate":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self


class Replay(Out):
    id: str
    state: ReplayState
    total: int = Field(description="Letters meant at its start.")
    taken: int = Field(description="Accepted now, and no longer among the dead letters.")
    refused: int = Field(description="Refused again: still there, with the reason of now.")
    skipped: int = Field(description="Not tried, since only their beginning was kept.")
    detail: str = Field(description="Why it was broken off, or what it waited for.")


class Deleted(Out):
    deleted: int

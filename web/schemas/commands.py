"""Commands to devices. No I/O."""

from typing import Any

from pydantic import Field

from fleet.machines.command import CommandState
from gateway.profiles.commands import TTL_LIMIT_S, Delivery
from web.schemas.base import In, Name, Out, Page, Paged, Time


class Command(Out):
    id: str
    device: str
    name: str
    params: Any
    status: CommandState
    progress: int | None = Field(description="0 to 100, when the device says so.")
    result: Any
    error: str | None
    attempts: int = Field(description="How often it was sent; more than one after a reconnect.")
    created_at: Time
    sent_at: Time | None
    updated_at: Time
    finished_at: Time | None
    expires_at: Time
    answer_by: Time | None = Field(description="When it ends without an answer: its time-out began with the sending.")
    delivery: Delivery
    waiting_for: str | None = Field(
        description="What is next, in words; null when it has ended.", examples=["device to connect"]
    )
    created_by: str


class CommandPage(Page[Command]):
    pass


class CommandCreate(In):
    name: Name
    params: Any = None
    ttl: int | None = Field(
        default=None,
        ge=1,
        le=TTL_LIMIT_S,
        description="Seconds until it expires without an answer. Left out: as the device's profile says, else an hour.",
    )
    delivery: Delivery | None = Field(
        default=None,
        description="sequential: sent once the sequential ones before it have ended. null: as the profile.",
    )


class CommandQuery(Paged):
    status: CommandState | None = None


class CommandWait(In):
    wait: float = Field(default=0, ge=0, le=30, description="Seconds to wait for a final state before answering.")

"""Commands to devices. No I/O."""

from typing import Any

from pydantic import Field

from fleet.machines.command import CommandState
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
    created_by: str


class CommandPage(Page[Command]):
    pass


class CommandCreate(In):
    name: Name
    params: Any = None
    ttl: int = Field(default=3600, ge=1, le=30 * 86_400, description="Seconds until it expires without an answer.")


class CommandQuery(Paged):
    status: CommandState | None = None


class CommandWait(In):
    wait: float = Field(default=0, ge=0, le=30, description="Seconds to wait for a final state before answering.")

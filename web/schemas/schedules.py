"""Schedules: commands by time. No I/O."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from fleet.cadence import CRON_LIMIT
from fleet.schedules import TARGETS_LIMIT, CatchUp, ScheduledCommand
from gateway.profiles.commands import TTL_LIMIT_S, Delivery
from web.schemas.base import DeviceId, In, Line, Name, Out, Page, Time

Cron = Annotated[Line, Field(max_length=CRON_LIMIT, examples=["30 2 * * *"])]
Zone = Annotated[Line, Field(max_length=64, examples=["Europe/Berlin"])]


class CommandToMake(In):
    """As in `POST devices/{id}/commands`."""

    name: Name
    params: Any = None
    ttl: int | None = Field(default=None, ge=1, le=TTL_LIMIT_S, description="Seconds; null: as the profile says.")
    delivery: Delivery | None = None

    def value(self) -> ScheduledCommand:
        return ScheduledCommand(name=self.name, params=self.params, ttl_s=self.ttl, delivery=self.delivery)


class Target(In):
    ids: Annotated[list[DeviceId], Field(min_length=1, max_length=TARGETS_LIMIT)]


class ScheduleCreate(In):
    name: Name
    command: CommandToMake
    target: Target
    at: AwareDatetime | None = Field(default=None, description="Once at this time; or give `cron`.")
    cron: Cron | None = Field(default=None, description="Minute, hour, day of the month, month, day of the week.")
    time_zone: Zone = Field(default="UTC", description="In which `cron` is read, by its name in the IANA database.")
    catch_up: CatchUp = Field(
        default=CatchUp.ONCE, description="Runs missed by more than a minute: all of them as one, late, or none."
    )
    paused: bool = False


class ScheduleUpdate(In):
    """What is left out stays. `at` takes the place of `cron`, and `cron` that of `at`."""

    name: Name | None = None
    command: CommandToMake | None = None
    target: Target | None = None
    at: AwareDatetime | None = None
    cron: Cron | None = None
    time_zone: Zone | None = None
    catch_up: CatchUp | None = None
    paused: bool | None = None


class ScheduleOut(Out):
    id: str
    name: str
    command: CommandToMake
    target: Target
    at: Time | None
    cron: str | None
    time_zone: str
    catch_up: CatchUp
    paused: bool
    next_run: Time | None = Field(description="null: paused, or over.")
    last_run: Time | None = Field(description="When the last run that began was due.")
    runs: int = Field(description="How many have begun.")
    skipped: int = Field(description="How many were missed and not caught up with.")
    created_by: str
    created_at: Time
    updated_at: Time


class SchedulePage(Page[ScheduleOut]):
    pass


class ScheduleRunOut(Out):
    run: int
    due_at: Time
    device: str
    command: str | None = Field(description="The id of the command that was made.")
    error: str | None = Field(description="Why there is none.")


class ScheduleRunPage(Page[ScheduleRunOut]):
    pass

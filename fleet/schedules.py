"""Schedules: a command to devices, once at a time or again and again by a cron line; kept and changed.

`next_run_at` is stored and only ever moves on, so that neither a restart nor a clock that is set back has a time come
twice. Who carries runs out is fleet/schedule_runs.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.cadence import Cadence
from fleet.clock import Clock, rfc3339, rfc3339_or_none
from fleet.database import Database
from fleet.errors import Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.limits import PARAMS_LIMIT_BYTES, checked_json, checked_text
from fleet.models import ScheduleRow, ScheduleRunRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from gateway.channels import is_device_id
from gateway.profiles.commands import TTL_LIMIT_S, Delivery

SCHEDULES_LIMIT = 1_000
TARGETS_LIMIT = 1_000
AHEAD_LIMIT = timedelta(days=3_650)


class CatchUp(StrEnum):
    """What becomes of runs whose time has passed while nobody was there to start them."""

    ONCE = "once"
    """All of them together are one run, late."""
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledCommand:
    """As in Commands.create; None: as the device's profile says at that time."""

    name: str
    params: Any = None
    ttl_s: int | None = None
    delivery: Delivery | None = None

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "params": self.params, "ttl": self.ttl_s, "delivery": self.delivery}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Either `at` or `cron` is there. `next_run_at` is None when it is paused or over; `runs` counts those begun."""

    id: str
    name: str
    command: ScheduledCommand
    device_ids: tuple[str, ...]
    at: datetime | None
    cron: str | None
    time_zone: str
    catch_up: CatchUp
    paused: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    runs: int
    skipped: int
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "command": self.command.json(),
            "target": {"ids": list(self.device_ids)},
            "at": rfc3339_or_none(self.at),
            "cron": self.cron,
            "time_zone": self.time_zone,
            "catch_up": self.catch_up.value,
            "paused": self.paused,
            "next_run": rfc3339_or_none(self.next_run_at),
            "last_run": rfc3339_or_none(self.last_run_at),
            "runs": self.runs,
            "skipped": self.skipped,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRun:
    """What one run made of one device: a command, or why there is none."""

    run: int
    due_at: datetime
    device_id: str
    command_id: str | None
    error: str | None

    def json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "due_at": rfc3339(self.due_at),
            "device": self.device_id,
            "command": self.command_id,
            "error": self.error,
        }


class Schedules:
    """Made, changed, paused and deleted by operators."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        command: ScheduledCommand,
        device_ids: Sequence[str],
        at: datetime | None = None,
        cron: str | None = None,
        time_zone: str = "UTC",
        catch_up: CatchUp = CatchUp.ONCE,
        paused: bool = False,
    ) -> Schedule:
        """Raises Invalid, and Conflict beyond 1,000 schedules."""
        now = self._clock.utc()
        row = ScheduleRow(
            id=new_id(),
            name=checked_text("name", name),
            command=_checked_command(command),
            device_ids=_checked_targets(device_ids),
            at=None if at is None else _checked_time(at, now),
            cron=cron,
            time_zone=time_zone,
            catch_up=catch_up,
            paused=paused,
            created_by=actor.id,
            created_at=now,
            updated_at=now,
        )
        row.next_run_at = _planned(row, now)
        async with self._database.transaction():
            if await ScheduleRow.all().count() >= SCHEDULES_LIMIT:
                raise Conflict(f"there are {SCHEDULES_LIMIT} schedules already")
            await row.save(force_create=True)
            view = schedule_view(row)
            await self._audit.record(actor, "schedule.create", "schedule", row.id, None, view.json())
        return view

    async def update(self, actor: Actor, id: str, **changes: Any) -> Schedule:  # noqa: A002
        """Fields as of `create`, None for those that stay; what has been due meanwhile while paused is forgotten.

        Raises NotFound, Invalid, Conflict (it ran or was changed at the same time).
        """
        now = self._clock.utc()
        row = await self._row(id)
        before = schedule_view(row).json()
        news: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        if "name" in news:
            news["name"] = checked_text("name", news["name"])
        if "command" in news:
            news["command"] = _checked_command(news["command"])
        if "device_ids" in news:
            news["device_ids"] = _checked_targets(news["device_ids"])
        if "at" in news:
            _checked_time(news["at"], now)
        if "at" in news or "cron" in news:
            news = {"at": None, "cron": None} | news
        row.update_from_dict(news)
        if news.keys() & {"at", "cron", "time_zone", "paused"}:
            news["next_run_at"] = row.next_run_at = _planned(row, now)
        news |= {"version": row.version + 1, "updated_at": now}
        async with self._database.transaction():
            if not await ScheduleRow.filter(id=id, version=row.version).update(**news):
                raise Conflict("it was changed at the same time: try again")
            row.update_from_dict(news)
            view = schedule_view(row)
            await self._audit.record(actor, "schedule.update", "schedule", id, before, view.json())
        return view

    async def delete(self, actor: Actor, id: str) -> None:  # noqa: A002
        """Commands that it has made stay. Raises NotFound."""
        async with self._database.transaction():
            row = await self._row(id)
            await ScheduleRow.filter(id=id).delete()
            await self._audit.record(actor, "schedule.delete", "schedule", id, schedule_view(row).json(), None)

    async def get(self, id: str) -> Schedule:  # noqa: A002
        """Raises NotFound."""
        return schedule_view(await self._row(id))

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[Schedule]:
        """Newest first."""
        limit = page_limit(limit)
        rows = ScheduleRow.all()
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=[schedule_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=await ScheduleRow.all().count(),
        )

    async def runs(self, id: str, *, cursor: str | None = None, limit: int = 50) -> Page[ScheduleRun]:  # noqa: A002
        """What the last runs made of each device, newest first. Raises NotFound."""
        await self._row(id)
        limit = page_limit(limit)
        rows = ScheduleRunRow.filter(schedule_id=id)
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=[_run_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
        )

    async def _row(self, id: str) -> ScheduleRow:  # noqa: A002
        row = await ScheduleRow.get_or_none(id=id)
        if row is None:
            raise NotFound("schedule", id)
        return row


def schedule_view(row: ScheduleRow) -> Schedule:
    return Schedule(
        id=row.id,
        name=row.name,
        command=command_of(row),
        device_ids=tuple(orjson.loads(row.device_ids)),
        at=row.at,
        cron=row.cron,
        time_zone=row.time_zone,
        catch_up=CatchUp(row.catch_up),
        paused=row.paused,
        next_run_at=row.next_run_at,
        last_run_at=row.last_run_at,
        runs=row.runs,
        skipped=row.skipped,
        version=row.version,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def command_of(row: ScheduleRow) -> ScheduledCommand:
    """What the row says to send."""
    said = orjson.loads(row.command)
    delivery = said["delivery"] and Delivery(said["delivery"])
    return ScheduledCommand(name=said["name"], params=said["params"], ttl_s=said["ttl"], delivery=delivery)


def _run_view(row: ScheduleRunRow) -> ScheduleRun:
    return ScheduleRun(
        run=row.run,
        due_at=row.due_at,
        device_id=row.device_id,
        command_id=row.command_id or None,
        error=row.error or None,
    )


def _planned(row: ScheduleRow, now: datetime) -> datetime | None:
    """When it runs next, as of now. Raises Invalid."""
    if (row.at is None) == (row.cron is None):
        raise Invalid("at", "give either at or cron")
    if row.cron is not None:
        cadence = Cadence(row.cron, row.time_zone)
        row.cron = cadence.cron
        found = cadence.after(now)
        if found is None:
            raise Invalid("cron", "never comes")
        return None if row.paused else found
    return None if row.paused or row.at is None else _checked_time(row.at, now)


def _checked_time(at: datetime, now: datetime) -> datetime:
    """Before a row is made of it: at the ends of the calendar there are times that have no UTC."""
    if at <= now:
        raise Invalid("at", "lies in the past")
    if at > now + AHEAD_LIMIT:
        raise Invalid("at", f"lies more than {AHEAD_LIMIT.days} days ahead")
    return at


def _checked_command(command: ScheduledCommand) -> str:
    checked_text("command/name", command.name)
    checked_json("command/params", command.params, limit_bytes=PARAMS_LIMIT_BYTES)
    if command.ttl_s is not None and not 1 <= command.ttl_s <= TTL_LIMIT_S:
        raise Invalid("command/ttl", f"must be from 1 to {TTL_LIMIT_S} seconds")
    return orjson.dumps(command.json()).decode()


def _checked_targets(device_ids: Sequence[str]) -> str:
    wanted = list(dict.fromkeys(device_ids))
    if not 1 <= len(wanted) <= TARGETS_LIMIT:
        raise Invalid("target/ids", f"must be 1 to {TARGETS_LIMIT}")
    for device_id in wanted:
        if not is_device_id(device_id):
            raise Invalid("target/ids", f"{device_id[:80]!r} cannot be a device's id")
    return orjson.dumps(wanted).decode()

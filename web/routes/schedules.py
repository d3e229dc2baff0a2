"""Commands by time."""

from fleet.views import Role
from web.api.layer import Routes
from web.call import Call
from web.schemas.base import Id, Paged
from web.schemas.schedules import (
    ScheduleCreate,
    ScheduleOut,
    SchedulePage,
    ScheduleRunOut,
    ScheduleRunPage,
    ScheduleUpdate,
)

schedules = Routes("Schedules", "Commands to devices, once at a time or again and again by a cron line.")

_SCHEDULES = "/api/v1/schedules"


@schedules.get(_SCHEDULES, summary="Schedules, newest first", role=Role.VIEWER)
async def list_schedules(call: Call, query: Paged) -> SchedulePage:
    page = await call.fleet.schedules.list(cursor=query.cursor, limit=query.limit)
    return SchedulePage(
        items=[ScheduleOut.model_validate(one.json()) for one in page.items],
        next_cursor=page.next_cursor,
        total=page.total,
    )


@schedules.post(_SCHEDULES, summary="Make a schedule", role=Role.OPERATOR, status=201, raises=(409,), idempotent=True)
async def create_schedule(call: Call, body: ScheduleCreate) -> ScheduleOut:
    """The devices need not be there yet; each run says what became of each of them.

    At the change of the hour it is as with cron: a daily run whose time is left out comes right after the gap, one
    whose time comes twice comes once; what recurs by the hour or faster follows the time that really passes.
    """
    made = await call.fleet.schedules.create(
        call.actor,
        name=body.name,
        command=body.command.value(),
        device_ids=body.target.ids,
        at=body.at,
        cron=body.cron,
        time_zone=body.time_zone,
        catch_up=body.catch_up,
        paused=body.paused,
    )
    return ScheduleOut.model_validate(made.json())


@schedules.get(f"{_SCHEDULES}/{{id}}", summary="One schedule", role=Role.VIEWER, raises=(404,))
async def get_schedule(call: Call, schedule_id: Id) -> ScheduleOut:
    return ScheduleOut.model_validate((await call.fleet.schedules.get(schedule_id)).json())


@schedules.patch(f"{_SCHEDULES}/{{id}}", summary="Change or pause a schedule", role=Role.OPERATOR, raises=(404, 409))
async def update_schedule(call: Call, schedule_id: Id, body: ScheduleUpdate) -> ScheduleOut:
    """What was due while it was paused is forgotten. 409 when it began to run at the same time."""
    made = await call.fleet.schedules.update(
        call.actor,
        schedule_id,
        name=body.name,
        command=body.command and body.command.value(),
        device_ids=body.target and body.target.ids,
        at=body.at,
        cron=body.cron,
        time_zone=body.time_zone,
        catch_up=body.catch_up,
        paused=body.paused,
    )
    return ScheduleOut.model_validate(made.json())


@schedules.delete(f"{_SCHEDULES}/{{id}}", summary="Delete a schedule", role=Role.OPERATOR, raises=(404,))
async def delete_schedule(call: Call, schedule_id: Id) -> None:
    """The commands that it has made stay."""
    await call.fleet.schedules.delete(call.actor, schedule_id)


@schedules.get(f"{_SCHEDULES}/{{id}}/runs", summary="What its last ten runs made", role=Role.VIEWER, raises=(404,))
async def list_schedule_runs(call: Call, schedule_id: Id, query: Paged) -> ScheduleRunPage:
    """Newest first: for each device its command, or why there is none."""
    page = await call.fleet.schedules.runs(schedule_id, cursor=query.cursor, limit=query.limit)
    return ScheduleRunPage(
        items=[ScheduleRunOut.model_validate(one.json()) for one in page.items], next_cursor=page.next_cursor
    )

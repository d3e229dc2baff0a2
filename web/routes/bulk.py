"""Work on many devices at once: one job, and what became of each of them."""

from fleet.bulk import BulkJob, Selection
from fleet.bulk_actions import action_of
from fleet.views import Role
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.schemas.base import Id, Paged
from web.schemas.bulk import (
    BulkCreate,
    BulkCreated,
    BulkJobOut,
    BulkJobPage,
    BulkResultOut,
    BulkResultPage,
    BulkResultQuery,
)

bulk = Routes(
    "Bulk work", "One action on many devices, done by the server: watched, cancelled, taken up after a crash."
)


@bulk.post(
    "/api/v1/devices:bulk", summary="Act on many devices", role=Role.OPERATOR, raises=(404, 409), idempotent=True
)
async def act_on_devices(call: Call, body: BulkCreate) -> BulkCreated:
    """409 when 20 jobs are unfinished already. They are worked on one after the other."""
    if [body.query, body.group, body.ids].count(None) != 2:
        detail = "name one of query, group and ids"
        raise Problem(422, f"query: {detail}", errors=[("query", detail)])
    selection = Selection(query=body.query or "", group=body.group or "", ids=tuple(body.ids or ()))
    action = action_of(body.action.model_dump())
    if body.dry_run:
        action.check()
        total, sample = await call.fleet.bulk.preview(selection)
        return BulkCreated(total=total, sample=sample, job=None)
    job = await call.fleet.bulk.create(call.actor, selection, action)
    return BulkCreated(total=job.total, sample=[], job=_shape(job))


@bulk.get("/api/v1/bulk-jobs", summary="Bulk jobs, newest first", role=Role.VIEWER)
async def list_bulk_jobs(call: Call, query: Paged) -> BulkJobPage:
    """Of those that have ended, the newest 50."""
    page = await call.fleet.bulk.list(cursor=query.cursor, limit=query.limit)
    return BulkJobPage(items=[_shape(job) for job in page.items], next_cursor=page.next_cursor, total=page.total)


@bulk.get("/api/v1/bulk-jobs/{id}", summary="One bulk job", role=Role.VIEWER, raises=(404,))
async def get_bulk_job(call: Call, id: Id) -> BulkJobOut:  # noqa: A002
    return _shape(await call.fleet.bulk.get(id))


@bulk.get("/api/v1/bulk-jobs/{id}/results", summary="What became of each device", role=Role.VIEWER, raises=(404,))
async def list_bulk_results(call: Call, id: Id, query: BulkResultQuery) -> BulkResultPage:  # noqa: A002
    """By device id."""
    status = "" if query.status is None else query.status.value
    page = await call.fleet.bulk.results(id, status=status, cursor=query.cursor, limit=query.limit)
    items = [BulkResultOut(device=one.device_id, status=one.status, error=one.error) for one in page.items]
    return BulkResultPage(items=items, next_cursor=page.next_cursor, total=page.total)


@bulk.post("/api/v1/bulk-jobs/{id}/cancel", summary="Cancel a bulk job", role=Role.OPERATOR, raises=(404, 409))
async def cancel_bulk_job(call: Call, id: Id) -> BulkJobOut:  # noqa: A002
    """What is done stays done; the devices being acted on, at most 20, are finished."""
    return _shape(await call.fleet.bulk.cancel(call.actor, id))


def _shape(job: BulkJob) -> BulkJobOut:
    return BulkJobOut(**job.json())

"""Work on many devices as one job: whom it is about is fixed when it is made, and each device has its own result.

A device is marked `acting` before anything is done to it and gets its result afterwards. When the process dies in
between, the next one does again what may be done twice; of a command it says `unknown`, since one may be under way.
Jobs wait in line: one runs at a time in a process, and each node works on one of its own.
"""

import asyncio
import builtins
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.bulk_actions import Actions, BulkAction, action_of
from fleet.clock import Clock, rfc3339, rfc3339_or_none
from fleet.database import Database, log_failure, trouble
from fleet.errors import Conflict, FleetError, Invalid, NotFound
from fleet.ids import new_id
from fleet.limits import peer_text
from fleet.models import BulkJobRow, BulkTargetRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.query.sql import Condition
from fleet.selections import Selections

logger = logging.getLogger(__name__)

DEVICES_LIMIT = 100_000  # of a job
IDS_LIMIT = 5_000  # named one by one
UNFINISHED_LIMIT = 20
KEPT = 50  # finished jobs; the oldest go, with their results
SAMPLE = 20  # devices that a dry run names
_TURN = 20  # devices marked at once: so many are done again, or unknown, after a crash
_LEASE_S = 60.0
_LOOK_S = 5.0  # for jobs of a node that died, and after trouble with the database
_ERROR_LIMIT = 300


class BulkStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class TargetStatus(StrEnum):
    PENDING = "pending"
    ACTING = "acting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


_UNFINISHED = (BulkStatus.QUEUED.value, BulkStatus.RUNNING.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One of the three: a query, a group's id, or ids."""

    query: str = ""
    group: str = ""
    ids: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        if self.ids:
            return {"ids": len(self.ids)}
        return {"query": self.query} if self.query else {"group": self.group}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkJob:
    """`counts` has a number for each state of a device; they add up to `total`."""

    id: str
    status: BulkStatus
    action: BulkAction
    selection: dict[str, Any]
    total: int
    counts: dict[TargetStatus, int]
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status.value,
            "action": self.action.json(),
            "selection": self.selection,
            "total": self.total,
            "counts": {status.value: count for status, count in self.counts.items()},
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "started_at": rfc3339_or_none(self.started_at),
            "finished_at": rfc3339_or_none(self.finished_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """What became of one device; `error` says why it failed."""

    device_id: str
    status: TargetStatus
    error: str | None


class BulkJobs:
    """Make, follow and cancel jobs; `start()` works on them until `stop()`."""

    def __init__(self, *, database: Database, actions: Actions, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._actions = actions
        self._audit = audit
        self._clock = clock
        self._selections = Selections(database=database, clock=clock)
        self._worker = new_id()
        self._news = asyncio.Event()
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._is_stopping = False
        self._news.set()
        self._task = asyncio.create_task(self._work(), name="bulk jobs")

    async def stop(self) -> None:
        """The device at hand is finished; the rest is gone on with at the next start."""
        self._is_stopping = True
        self._news.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def preview(self, selection: Selection) -> tuple[int, builtins.list[str]]:
        """How many devices it would be about, and the first of them. Raises Invalid, NotFound, Conflict."""
        if selection.ids:
            ids = _checked_ids(selection.ids)
            return len(ids), ids[:SAMPLE]
        condition = await self._condition(selection)
        rows, total = await self._selections.page(condition, sort="id", cursor=None, limit=SAMPLE, with_total=True)
        return total or 0, [row.id for row in rows[:SAMPLE]]

    async def create(self, actor: Actor, selection: Selection, action: BulkAction) -> BulkJob:
        """Raises Invalid (also for no or too many devices), NotFound (the group), Conflict (too many jobs)."""
        action.check()
        ids = _checked_ids(selection.ids) if selection.ids else []
        condition = None if ids else await self._condition(selection)
        row = BulkJobRow(
            id=new_id(),
            status=BulkStatus.QUEUED,
            action=orjson.dumps(action.json()).decode(),
            selection=orjson.dumps(selection.json()).decode(),
            actor_kind=actor.kind,
            created_by=actor.id,
            address=actor.address,
            created_at=self._clock.utc(),
        )
        async with self._database.transaction():
            if await BulkJobRow.filter(status__in=_UNFINISHED).count() >= UNFINISHED_LIMIT:
                raise Conflict(f"{UNFINISHED_LIMIT} bulk jobs are unfinished: wait or cancel some")
            await row.save(force_create=True)
            if condition is None:
                columns = ("job_id", "device_id", "status", "error")
                targets = [(row.id, each, TargetStatus.PENDING.value, "") for each in ids]
                await self._database.insert("bulk_target", columns, targets)
            else:
                await self._fix(row.id, condition)
            row.total = await BulkTargetRow.filter(job_id=row.id).count()
            if not 0 < row.total <= DEVICES_LIMIT:
                raise Invalid("devices", f"are {row.total:,}: a job is about 1 to {DEVICES_LIMIT:,}")
            await BulkJobRow.filter(id=row.id).update(total=row.total)
            asked = {"action": action.json(), "selection": selection.json(), "total": row.total}
            await self._audit.record(actor, "bulk.create", "bulk_job", row.id, None, asked)
        await self._prune()
        self._news.set()
        return await self._view(row)

    async def get(self, id: str) -> BulkJob:  # noqa: A002
        """Raises NotFound."""
        return await self._view(await _row(id))

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[BulkJob]:
        """Newest first."""
        limit = page_limit(limit)
        rows = BulkJobRow.all()
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=[await self._view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=await BulkJobRow.all().count(),
        )

    async def results(
        self,
        id: str,  # noqa: A002
        *,
        status: str = "",
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[BulkResult]:
        """By device id. Raises NotFound."""
        await _row(id)
        limit = page_limit(limit)
        rows = BulkTargetRow.filter(job_id=id)
        if status:
            rows = rows.filter(status=status)
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(device_id__gt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("device_id").limit(limit + 1)
        return Page(
            items=[
                BulkResult(device_id=row.device_id, status=TargetStatus(row.status), error=row.error or None)
                for row in found[:limit]
            ],
            next_cursor=encode_cursor(found[limit - 1].device_id) if len(found) > limit else None,
            total=total,
        )

    async def cancel(self, actor: Actor, id: str) -> BulkJob:  # noqa: A002
        """What is done stays done; some 20 devices may still be at work. Raises NotFound, Conflict (it has ended)."""
        async with self._database.transaction():
            row = await _row(id)
            ended: dict[str, Any] = {"status": BulkStatus.CANCELLED, "finished_at": self._clock.utc()}
            if not await BulkJobRow.filter(id=id, status__in=_UNFINISHED).update(**ended):
                raise Conflict(f"the job is {row.status}")
            await BulkTargetRow.filter(job_id=id, status=TargetStatus.PENDING).update(status=TargetStatus.CANCELLED)
            await self._audit.record(
                actor, "bulk.cancel", "bulk_job", id, {"status": row.status}, {"status": "cancelled"}
            )
        return await self.get(id)

    # ---- the work

    async def _work(self) -> None:
        while not self._is_stopping:
            self._news.clear()
            try:
                while not self._is_stopping and (row := await self._claim()) is not None:
                    await self._run(row)
            except Exception as error:
                log_failure(logger, error, "bulk jobs: broke off; tried again in %.0f s", _LOOK_S)
                self._worker = new_id()  # what was at work is looked at as after a crash
            try:
                await asyncio.wait_for(self._news.wait(), _LOOK_S)
            except TimeoutError:
                continue

    async def _claim(self) -> BulkJobRow | None:
        """The next job in line, now ours: one that waits, or whose worker is gone."""
        now = self._clock.utc()
        for row in await BulkJobRow.filter(status__in=_UNFINISHED).order_by("id"):
            is_led = row.status == BulkStatus.RUNNING and row.lease_until is not None and row.lease_until > now
            if is_led and self._database.is_shared and row.worker != self._worker:
                continue
            ours = {
                "status": BulkStatus.RUNNING,
                "worker": self._worker,
                "lease_until": now + timedelta(seconds=_LEASE_S),
                "started_at": row.started_at or now,
            }
            if await BulkJobRow.filter(id=row.id, status=row.status, worker=row.worker).update(**ours):
                row.update_from_dict(ours)
                return row
        return None

    async def _run(self, row: BulkJobRow) -> None:
        action = action_of(orjson.loads(row.action))
        actor = Actor(kind=row.actor_kind, id=row.created_by, address=row.address)  # type: ignore[arg-type]
        await self._take_up(row.id, action)
        while not self._is_stopping:
            lease_until = self._clock.utc() + timedelta(seconds=_LEASE_S)
            ours = BulkJobRow.filter(id=row.id, status=BulkStatus.RUNNING, worker=self._worker)
            if not await ours.update(lease_until=lease_until):
                return  # cancelled, or another node's
            targets = await self._mark(row.id)
            if not targets:
                await ours.update(status=BulkStatus.FINISHED, finished_at=self._clock.utc())
                return
            await self._act(actor, action, row.id, targets)

    async def _take_up(self, job_id: str, action: BulkAction) -> None:
        """What a process that died was about to do."""
        acting = BulkTargetRow.filter(job_id=job_id, status=TargetStatus.ACTING)
        if action.is_repeatable:
            await acting.update(status=TargetStatus.PENDING)
        else:
            error = "the server stopped at this moment: look whether the device has the command"
            await acting.update(status=TargetStatus.UNKNOWN, error=error)

    async def _mark(self, job_id: str) -> builtins.list[str]:
        """Some devices whose turn it is; nobody else, and no cancelling, gets at them now."""
        acting, pending = TargetStatus.ACTING.value, TargetStatus.PENDING.value
        rows = await self._database.execute(
            "UPDATE bulk_target SET status = ? WHERE id IN (SELECT id FROM bulk_target WHERE job_id = ? AND status = ? "
            "ORDER BY device_id LIMIT ?) AND status = ? RETURNING device_id",
            (acting, job_id, pending, _TURN, pending),
        )
        return sorted(str(row["device_id"]) for row in rows)

    async def _act(self, actor: Actor, action: BulkAction, job_id: str, targets: Sequence[str]) -> None:
        results: dict[tuple[TargetStatus, str], builtins.list[str]] = {}
        for device_id in targets:
            result = (TargetStatus.SUCCEEDED, "")
            if self._is_stopping:
                result = (TargetStatus.PENDING, "")
            else:
                try:
                    await self._actions.act(actor, device_id, action)
                except FleetError as error:
                    result = (TargetStatus.FAILED, peer_text(str(error), _ERROR_LIMIT))
                except Exception as error:
                    if trouble(error) is not None:
                        raise
                    logger.exception("bulk job %s: %s failed at %s", job_id, action.type, device_id)
                    result = (TargetStatus.FAILED, "a fault of the server's: see its log")
            results.setdefault(result, []).append(device_id)
        for (status, error_text), ids in results.items():
            rows = BulkTargetRow.filter(job_id=job_id, device_id__in=ids, status=TargetStatus.ACTING)
            await rows.update(status=status, error=error_text)

    # ---- rows

    async def _condition(self, selection: Selection) -> Condition:
        if bool(selection.query) == bool(selection.group):
            raise Invalid("query", "name one of query, group and ids")
        return await self._selections.condition(query=selection.query, group=selection.group)

    async def _fix(self, job_id: str, condition: Condition) -> None:
        which = f"FROM device WHERE {condition.sql} ORDER BY id LIMIT ?"  # its values are parameters
        await self._database.execute(
            "INSERT INTO bulk_target (job_id, device_id, status, error) "
            f"SELECT CAST(? AS TEXT), id, 'pending', '' {which}",
            (job_id, *condition.values, DEVICES_LIMIT + 1),
        )

    async def _prune(self) -> None:
        ended = await BulkJobRow.exclude(status__in=_UNFINISHED).order_by("-id").offset(KEPT).limit(10)
        for row in ended:
            await row.delete()

    async def _view(self, row: BulkJobRow) -> BulkJob:
        rows = await self._database.execute(
            "SELECT status, COUNT(*) AS number FROM bulk_target WHERE job_id = ? GROUP BY status", (row.id,)
        )
        counts = dict.fromkeys(TargetStatus, 0)
        counts |= {TargetStatus(each["status"]): int(each["number"]) for each in rows}
        return BulkJob(
            id=row.id,
            status=BulkStatus(row.status),
            action=action_of(orjson.loads(row.action)),
            selection=orjson.loads(row.selection),
            total=row.total,
            counts=counts,
            created_by=row.created_by,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


async def _row(id_: str) -> BulkJobRow:
    row = await BulkJobRow.get_or_none(id=id_)
    if row is None:
        raise NotFound("bulk job", id_)
    return row


def _checked_ids(ids: Sequence[str]) -> list[str]:
    found = sorted(set(ids))
    if len(found) > IDS_LIMIT:
        raise Invalid("ids", f"are more than {IDS_LIMIT:,}")
    return found

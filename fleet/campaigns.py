"""Campaigns as operators see them: one artifact for many devices, one job each.

Whole campaigns are changed by single statements, however many jobs they have; what a job does on its own is in
jobs.py. A campaign is finished when its last job has ended.
"""

import builtins
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson
from tortoise.expressions import F

from fleet.actor import Actor
from fleet.artifacts import Artifacts
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.jobs import Jobs
from fleet.limits import checked_text
from fleet.machines.campaign import CAMPAIGN, CampaignEffect, CampaignEvent, CampaignState
from fleet.machines.job import JOB_RETRIABLE, JOB_UNFINISHED, JobState
from fleet.models import ArtifactRow, CampaignRow, DeviceRow, JobRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.records import campaign_views, job_view, timeouts_of
from fleet.views import Campaign, Job, StepTimeouts
from gateway.bus import Bus, Event

DEVICES_LIMIT = 20_000
STEP_LIMIT_S = 30 * 86_400
_BATCH = 500
_TRIES = 10  # compare-and-swap losers; each loss means that somebody else got on


class Campaigns:
    """Create, start, stop and follow campaigns."""

    def __init__(
        self, *, database: Database, artifacts: Artifacts, jobs: Jobs, audit: Audit, bus: Bus, clock: Clock
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._artifacts = artifacts
        self._audit = audit
        self._bus = bus
        self._clock = clock
        self._changed: set[str] = set()
        """Campaigns whose counts changed since they were last shown; bounded by the number of running ones."""
        self.nudge: Callable[..., None] = lambda device_id, *owed: None
        """Tells the outbox that a device is owed something."""

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        artifact_id: str,
        devices: Sequence[str],
        timeouts: StepTimeouts | None = None,
    ) -> Campaign:
        """A draft. Raises NotFound (artifact), Invalid (no devices, unknown ones, too many)."""
        name = checked_text("name", name)
        timeouts = timeouts or StepTimeouts()
        for step, seconds in timeouts.json().items():
            if not 1 <= seconds <= STEP_LIMIT_S:
                raise Invalid(f"timeouts.{step}", f"must be from 1 to {STEP_LIMIT_S} seconds")
        wanted = list(dict.fromkeys(devices))
        if not 1 <= len(wanted) <= DEVICES_LIMIT:
            raise Invalid("devices", f"must be from 1 to {DEVICES_LIMIT} devices")
        artifact = await self._artifacts.get(artifact_id)
        firmware = await self._firmware_of(wanted)
        if unknown := [device for device in wanted if device not in firmware]:
            raise Invalid("devices", f"{len(unknown)} unknown: {', '.join(unknown[:5])[:200]}")
        now = self._clock.utc()
        row = CampaignRow(
            id=new_id(),
            name=name,
            artifact_id=artifact_id,
            status=CAMPAIGN.initial,
            timeouts=orjson.dumps(timeouts.json()).decode(),
            created_by=actor.id,
            created_at=now,
        )
        columns = (
            *("id", "campaign_id", "device_id", "started", "status", "error", "attempt", "from_version", "to_version"),
            *("version", "created_at", "updated_at", "step_at", "offers"),
        )
        jobs = [
            (
                *(new_id(), row.id, device, False, JobState.QUEUED.value, "", 1, firmware[device], artifact.version),
                *(1, now, now, now, 0),
            )
            for device in wanted
        ]
        async with self._database.transaction():
            await self._artifacts.take(artifact_id)
            await row.save(force_create=True)
            await self._database.insert("job", columns, jobs)
            after = {"name": name, "artifact": artifact_id, "devices": len(wanted)}
            await self._audit.record(actor, "campaign.create", "campaign", row.id, None, after)
        return await self._show(row)

    async def list(
        self, *, cursor: str | None = None, limit: int = 50, status: str = "", with_total: bool = True
    ) -> Page[Campaign]:
        """Newest first."""
        limit = page_limit(limit)
        if status and status not in set(CampaignState):
            raise Invalid("status", f"must be one of {', '.join(CampaignState)}")
        rows = CampaignRow.filter(status=status) if status else CampaignRow.all()
        total = await rows.count() if with_total else None
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=await campaign_views(found[:limit]),
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=total,
        )

    async def get(self, id: str) -> Campaign:  # noqa: A002
        """Raises NotFound."""
        return (await campaign_views([await self._row(id)]))[0]

    async def jobs(
        self,
        id: str,  # noqa: A002
        *,
        cursor: str | None = None,
        limit: int = 50,
        status: str = "",
        with_total: bool = True,
    ) -> Page[Job]:
        """By device id. Raises NotFound, Invalid."""
        limit = page_limit(limit)
        if status and status not in set(JobState):
            raise Invalid("status", f"must be one of {', '.join(JobState)}")
        await self._row(id)
        rows = JobRow.filter(campaign_id=id)
        if status:
            rows = rows.filter(status=status)
        total = await rows.count() if with_total else None
        if cursor is not None:
            rows = rows.filter(device_id__gt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("device_id").limit(limit + 1)
        return Page(
            items=[job_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].device_id) if len(found) > limit else None,
            total=total,
        )

    async def start(self, actor: Actor, id: str) -> Campaign:  # noqa: A002
        """Offer the artifact to the devices as they come. Raises NotFound, Conflict (not a draft)."""
        return await self._change(actor, id, CampaignEvent.START)

    async def abort(self, actor: Actor, id: str) -> Campaign:  # noqa: A002
        """Cancel every unfinished job; devices keep what they have begun to install. Raises NotFound, Conflict."""
        return await self._change(actor, id, CampaignEvent.ABORT)

    async def retry(self, actor: Actor, id: str) -> Campaign:  # noqa: A002
        """Failed, timed out and rejected jobs again. Raises NotFound, Conflict (there are none; draft; aborted)."""
        return await self._change(actor, id, CampaignEvent.RETRY)

    async def running(self) -> int:
        """How many campaigns are running."""
        return await CampaignRow.filter(status=CampaignState.RUNNING).count()

    async def job_moved(self, id: str, ended: bool) -> None:  # noqa: A002
        """A job of this campaign has moved: show it soon; if it has ended, perhaps the campaign has."""
        self._changed.add(id)
        if ended:
            await self._settle(id)

    async def show_changed(self) -> None:
        """For the timers: the live views see a campaign's counts at most once a turn, not at each job's step."""
        changed, self._changed = self._changed, set()
        if changed and self._bus.watched("campaigns"):
            for campaign in await campaign_views(await CampaignRow.filter(id__in=list(changed))):
                self._publish(campaign)

    async def settle_all(self) -> None:
        """For the timers: campaigns whose last job ended just before a crash."""
        for id in await CampaignRow.filter(status=CampaignState.RUNNING).values_list("id", flat=True):  # noqa: A001
            await self._settle(str(id))

    async def _change(self, actor: Actor, id: str, event: CampaignEvent) -> Campaign:  # noqa: A002
        for _ in range(_TRIES):
            row = await self._row(id)
            step = CAMPAIGN.step(CampaignState(row.status), event)
            if not step.moved:
                raise Conflict(f"the campaign is {row.status}: it cannot {event}")
            before = row.status
            async with self._database.transaction():
                if not await self._swap(row, step.state, step.effects):
                    continue
                devices: list[str] = []
                for effect in step.effects:
                    devices += await self._carry_out(row, effect)
                await self._audit.record(
                    actor, f"campaign.{event}", "campaign", id, {"status": before}, {"status": row.status}
                )
            if event is CampaignEvent.START:
                await self._confirm_those_there(row)
            for device in devices:
                self._jobs.on_ended(device)
                self.nudge(device)
            await self._settle(id)
            return await self._show(await self._row(id))
        raise Conflict("too many changes at once: try again")

    async def _carry_out(self, row: CampaignRow, effect: CampaignEffect) -> builtins.list[str]:
        """Change the jobs, inside the transaction; returns the devices to be told something."""
        now = self._clock.utc()
        deadline = now + timedelta(seconds=timeouts_of(row).offered_s)
        moved: dict[str, Any] = {"updated_at": now, "step_at": now, "version": F("version") + 1}
        jobs = JobRow.filter(campaign_id=row.id)
        match effect:
            case CampaignEffect.QUEUE_JOBS:
                devices = await self._devices(jobs)
                await jobs.update(started=True, deadline=deadline, **moved)
                await self._aim(devices, before=None, after=await self._release(row))
            case CampaignEffect.RETRY_JOBS:
                jobs = jobs.filter(status__in=JOB_RETRIABLE)
                devices = await self._devices(jobs)
                if not devices:
                    raise Conflict("no job has failed, timed out or been rejected")
                try:
                    await self._artifacts.take(row.artifact_id)
                except NotFound as error:
                    raise Conflict("the artifact was deleted") from error
                again = {"status": JobState.QUEUED, "attempt": F("attempt") + 1, "deadline": deadline}
                cleared = {"error": "", "progress": None, "finished_at": None, "offers": 0, "next_offer_at": None}
                await jobs.update(**again, **cleared, **moved)
                await self._aim(devices, before=None, after=await self._release(row))
            case CampaignEffect.CANCEL_JOBS:
                jobs = jobs.filter(status__in=JOB_UNFINISHED)
                devices = await self._devices(jobs)
                ended = {"status": JobState.CANCELLED, "finished_at": now, "error": "the campaign was aborted"}
                await jobs.update(**ended, deadline=None, next_offer_at=None, slot=None, **moved)
                await self._aim(devices, before=await self._release(row), after="")
            case _:
                return []
        return devices

    async def _confirm_those_there(self, row: CampaignRow) -> None:
        """Devices that run the wanted version already have nothing to do."""
        release = await self._release(row)
        queued = await self._devices(JobRow.filter(campaign_id=row.id, status=JobState.QUEUED))
        for start in range(0, len(queued), _BATCH):
            there = DeviceRow.filter(id__in=queued[start : start + _BATCH], firmware=release)
            for device in await there.values_list("id", flat=True):
                await self._jobs.version_seen(str(device), release)

    async def _settle(self, id: str) -> None:  # noqa: A002
        for _ in range(_TRIES):
            row = await self._row(id)
            if row.status != CampaignState.RUNNING:
                return
            if await JobRow.filter(campaign_id=id, status__in=JOB_UNFINISHED).exists():
                return
            step = CAMPAIGN.step(CampaignState(row.status), CampaignEvent.SETTLE)
            if await self._swap(row, step.state, step.effects):
                await self._show(row)
                return

    async def _swap(self, row: CampaignRow, state: CampaignState, effects: Sequence[CampaignEffect]) -> bool:
        news: dict[str, Any] = {"status": state, "version": row.version + 1}
        if CampaignEffect.STAMP_START in effects:
            news["started_at"] = self._clock.utc()
        if CampaignEffect.STAMP_FINISH in effects:
            news["finished_at"] = self._clock.utc()
        if CampaignEffect.CLEAR_FINISH in effects:
            news["finished_at"] = None
        if not await CampaignRow.filter(id=row.id, version=row.version).update(**news):
            return False
        row.update_from_dict(news)
        return True

    async def _aim(self, devices: Sequence[str], *, before: str | None, after: str) -> None:
        """Set the devices' target version, or take it back where it is still `before`."""
        for start in range(0, len(devices), _BATCH):
            rows = DeviceRow.filter(id__in=devices[start : start + _BATCH])
            if before is not None:
                rows = rows.filter(target_firmware=before)
            await rows.update(target_firmware=after)

    async def _devices(self, jobs: Any) -> builtins.list[str]:
        return [str(device) for device in await jobs.order_by("device_id").values_list("device_id", flat=True)]

    async def _firmware_of(self, devices: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(devices), _BATCH):
            rows = DeviceRow.filter(id__in=devices[start : start + _BATCH])
            found |= dict(await rows.values_list("id", "firmware"))
        return found

    async def _release(self, row: CampaignRow) -> str:
        return (await ArtifactRow.get(id=row.artifact_id)).release

    async def _row(self, id: str) -> CampaignRow:  # noqa: A002
        row = await CampaignRow.get_or_none(id=id)
        if row is None:
            raise NotFound("campaign", id)
        return row

    async def _show(self, row: CampaignRow) -> Campaign:
        campaign = (await campaign_views([row]))[0]
        self._publish(campaign)
        return campaign

    def _publish(self, campaign: Campaign) -> None:
        if self._bus.watched("campaigns"):
            self._bus.publish(Event(channel="campaigns", device_id=None, data={"campaign": campaign.json()}))

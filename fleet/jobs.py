"""Update jobs as devices see them: offers, reports, the version that decides, and the time each step has.

A job succeeds only when its device reports exactly the wanted version. A report of another version fails it, if the
device has had its reboot: it said so itself in an update report, or it has connected anew since it went to reboot.
Every attempt has a wire id of its own (the job's id, then with -2, -3 …), so late reports of the last try miss it.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from tortoise.exceptions import IntegrityError

from fleet.clock import Clock, unix_ms
from fleet.database import Database
from fleet.errors import Invalid, NotFound
from fleet.limits import TEXT_LIMIT, checked_progress, peer_text
from fleet.machines.job import JOB, JOB_ACTIVE, JOB_UNFINISHED, JobEffect, JobEvent, JobState
from fleet.machines.machine import Answer
from fleet.models import ArtifactRow, CampaignRow, DeviceRow, JobRow
from fleet.outbox import Greeting
from fleet.ports import Sender
from fleet.presence import Presence
from fleet.query.versions import version_key
from fleet.records import job_view, timeouts_of
from fleet.timeline import Timeline
from fleet.views import Level, StepTimeouts, TimelineKind
from gateway.bus import Bus, Event
from gateway.channels import OTA_OFFER

logger = logging.getLogger(__name__)

_TRIES = 10  # compare-and-swap losers; each loss means that somebody else got on
_TURN = 500  # rows a timer's turn
_REOFFER_FIRST_S = 30.0
_REOFFER_CAP_S = 600.0

_REPORTS = {
    "downloading": JobEvent.DOWNLOAD,
    "verifying": JobEvent.VERIFY,
    "installing": JobEvent.INSTALL,
    "rebooting": JobEvent.REBOOT,
    "failed": JobEvent.FAIL,
    "rejected": JobEvent.REJECT,
}
_SUCCEEDED = "succeeded"
_LEVELS = {
    JobState.FAILED: Level.ERROR,
    JobState.TIMED_OUT: Level.ERROR,
    JobState.REJECTED: Level.WARNING,
    JobState.CANCELLED: Level.WARNING,
}


def wire_id(row: JobRow) -> str:
    """What the device knows this attempt by."""
    return row.id if row.attempt == 1 else f"{row.id}-{row.attempt}"


def parse_wire_id(text: str) -> tuple[str, int]:
    """(job id, attempt)."""
    id, dash, attempt = text.partition("-")  # noqa: A001
    return id, int(attempt) if dash and attempt.isascii() and attempt.isdigit() and len(attempt) < 6 else 1


def step_timeout_s(timeouts: StepTimeouts, state: JobState) -> int:
    """How long a job may stay in an unfinished state. Waiting for an offer has the time of the offer itself."""
    return {
        JobState.QUEUED: timeouts.offered_s,
        JobState.OFFERED: timeouts.offered_s,
        JobState.DOWNLOADING: timeouts.downloading_s,
        JobState.VERIFYING: timeouts.verifying_s,
        JobState.INSTALLING: timeouts.installing_s,
        JobState.REBOOTING: timeouts.rebooting_s,
    }[state]


class Jobs:
    """Moves jobs along; the Outbox's part that sends offers."""

    def __init__(
        self,
        *,
        database: Database,
        presence: Presence,
        sender: Sender,
        timeline: Timeline,
        bus: Bus,
        clock: Clock,
        device_http_url: str,
    ) -> None:
        self._database = database
        self._presence = presence
        self._sender = sender
        self._timeline = timeline
        self._bus = bus
        self._clock = clock
        self._device_http_url = device_http_url.rstrip("/")
        self.nudge: Callable[..., None] = lambda device_id, *owed: None
        """Tells the outbox that a device is owed something."""
        self.on_moved: Callable[[str, bool], Awaitable[None]] | None = None
        """Called after a commit with a campaign's id and whether a job of it has ended."""
        self.on_ended: Callable[[str], None] = lambda device_id: None
        """Called when a device's job has ended: it may no longer read the artifact."""

    # From devices

    async def report(self, device_id: str, report: Mapping[str, Any]) -> None:
        """Take over an update report. Raises NotFound, Invalid; duplicates and late ones are no error."""
        job = report.get("job")
        if not isinstance(job, str) or not job:
            raise Invalid("job", "must be the id of the offered job")
        status = report.get("status")
        known = isinstance(status, str) and (status in _REPORTS or status == _SUCCEEDED)
        version = _version(report.get("version"))
        if not known and (status is not None or version is None):
            raise Invalid("status", f"must be one of {', '.join((*_REPORTS, _SUCCEEDED))}")
        progress = checked_progress(report.get("progress"))
        id, attempt = parse_wire_id(job)  # noqa: A001
        row = await JobRow.get_or_none(id=id, device_id=device_id)
        if row is None:
            raise NotFound("job", job)
        if attempt != row.attempt:
            return  # of an earlier try
        # What a device calls its version while it is on the way may be the old one or the new one.
        came_back = row.status == JobState.REBOOTING and (
            status is None or (status == "rebooting" and self._has_reconnected(row))
        )
        if status in _REPORTS:
            await self._report_step(row, _REPORTS[str(status)], progress, report.get("error"))
        if version is not None and (status == _SUCCEEDED or came_back):
            await self.version_seen(device_id, version, row=row)
        elif version is not None and status in ("failed", None):
            await self.version_seen(device_id, version)
        elif status == _SUCCEEDED:
            await self._claimed(row)

    async def twin_reported(self, device_id: str, patch: Mapping[str, Any]) -> None:
        """Look for `firmware.version` in what a device reports of its twin."""
        firmware = patch.get("firmware")
        version = _version(firmware.get("version")) if isinstance(firmware, Mapping) else None
        if version is not None:
            await self.version_seen(device_id, version)

    async def version_seen(self, device_id: str, version: str, *, row: JobRow | None = None) -> None:
        """The device runs `version`. `row`: the job whose report says so, so it has had its reboot."""
        await self._note_version(device_id, version)
        for job in await JobRow.filter(device_id=device_id, started=True, status__in=JOB_UNFINISHED).order_by("id"):
            if job.to_version == version:
                await self._apply(job, JobEvent.CONFIRM, progress=100)
                continue
            said_so = row is not None and row.id == job.id
            if said_so and job.status in JOB_ACTIVE:
                await self._apply(job, JobEvent.REBOOT)
            if said_so or self._has_reconnected(job):
                error = f"came back with {version}, expected {job.to_version}"
                await self._apply(job, JobEvent.MISMATCH, error=error)

    # To devices

    async def serve(self, greetings: Sequence[Greeting]) -> None:
        """For the outbox: the offer that each device is owed, the oldest job first, one at a time."""
        due = {greeting.device_id: greeting for greeting in greetings}
        rows = await JobRow.filter(device_id__in=list(due), started=True, status__in=JOB_UNFINISHED).order_by("id")
        by_device: dict[str, JobRow] = {}
        for row in rows:
            chosen = by_device.get(row.device_id)
            if chosen is None or (row.status in JOB_ACTIVE and chosen.status not in JOB_ACTIVE):
                by_device[row.device_id] = row
        for device_id, row in by_device.items():
            greeting = due[device_id]
            wanted = greeting.again or row.status == JobState.QUEUED or row.id in greeting.owed
            if wanted and row.status != JobState.REBOOTING and not await self._offer(row):
                greeting.left.add(row.id)

    # By time

    async def time_out(self) -> None:
        """For the timers: end what has stayed in one step for too long."""
        now = self._clock.utc()
        for row in await JobRow.filter(deadline__lte=now, status__in=JOB_UNFINISHED).limit(_TURN):
            waited_s = (now - row.step_at).total_seconds()
            await self._apply(row, JobEvent.TIME_OUT, error=f"no end of {row.status!s} within {waited_s:.0f} s")

    async def reoffer(self) -> None:
        """For the timers: once more to connected devices that say nothing."""
        now = self._clock.utc()
        for row in await JobRow.filter(next_offer_at__lte=now, status=JobState.OFFERED).order_by("id").limit(_TURN):
            if not self._presence.is_connected(row.device_id):
                # It is offered when the device is back.
                await JobRow.filter(id=row.id, version=row.version).update(next_offer_at=None)
            elif not await self._offer(row):
                self.nudge(row.device_id, row.id)

    async def forget_device(self, device_id: str) -> None:
        """The device was deleted: its unfinished jobs end, and go on counting."""
        for row in await JobRow.filter(device_id=device_id, status__in=JOB_UNFINISHED):
            await self._apply(row, JobEvent.CANCEL, error="the device was deleted")

    # One step

    async def _report_step(self, row: JobRow, event: JobEvent, progress: int | None, error: object) -> None:
        changes: dict[str, Any] = {}
        if event in (JobEvent.FAIL, JobEvent.REJECT):
            changes["error"] = peer_text(error)
        answer = await self._apply(row, event, progress=progress, **changes)
        ahead = progress is not None and progress > (row.progress or 0)
        if answer is Answer.IGNORED and ahead and _REPORTS.get(row.status) is event:
            # The same step, further on: no step of the machine, and no more time for it either.
            news = {"progress": progress, "updated_at": self._clock.utc(), "version": row.version + 1}
            if await JobRow.filter(id=row.id, version=row.version).update(**news):
                row.update_from_dict(news)
                await self._tell(row, moved=False)

    async def _claimed(self, row: JobRow) -> None:
        """It says that it succeeded, and not with which version: believed when that is known from elsewhere."""
        device = await DeviceRow.get_or_none(id=row.device_id)
        if device is not None and device.firmware == row.to_version:
            await self._apply(row, JobEvent.CONFIRM, progress=100)

    async def _offer(self, row: JobRow) -> bool:
        """Offer a job, after the row says so; True when there is nothing left to do for it now."""
        first = row.status == JobState.QUEUED
        if first:
            device = await DeviceRow.get_or_none(id=row.device_id)
            if device is None or device.disabled:
                return True
            if device.firmware == row.to_version:
                await self._apply(row, JobEvent.CONFIRM, progress=100)
                return True
            row.from_version = device.firmware
        if await self._apply(row, JobEvent.OFFER, from_version=row.from_version) is Answer.ILLEGAL:
            return True
        if row.status not in JOB_ACTIVE:
            return True  # ended meanwhile, or another job has the device
        if await self._sender.send(row.device_id, OTA_OFFER, await self._offer_payload(row)):
            if first:
                self._note(row, f"update to {row.to_version} offered")
            return True
        if first:
            await self._apply(row, JobEvent.UNOFFER)
        return False

    async def _offer_payload(self, row: JobRow) -> bytes:
        campaign = await CampaignRow.get(id=row.campaign_id)
        artifact = await ArtifactRow.get(id=campaign.artifact_id)
        return orjson.dumps(
            {
                "job": wire_id(row),
                "version": row.to_version,
                "artifact": {
                    "id": artifact.id,
                    "name": artifact.name,
                    "size": artifact.size,
                    "sha256": artifact.sha256,
                    "signature": None,
                    "url": f"{self._device_http_url}/device/v1/artifacts/{artifact.id}",
                },
                "deadline": unix_ms(row.deadline) if row.deadline is not None else None,
            }
        )

    async def _apply(self, row: JobRow, event: JobEvent, *, progress: int | None = None, **changes: Any) -> Answer:
        """One step by compare-and-swap, read again while others are faster; `row` is then as in the database."""
        for _ in range(_TRIES):
            before = row.status
            step = JOB.step(JobState(row.status), event)
            if not step.moved:
                return step.answer
            now = self._clock.utc()
            news: dict[str, Any] = {**changes, "status": step.state, "updated_at": now, "version": row.version + 1}
            if step.state != before:
                news |= {"step_at": now, "progress": progress}
            if JobEffect.ARM_DEADLINE in step.effects and not (event is JobEvent.OFFER and row.offers):
                timeouts = timeouts_of(await CampaignRow.get(id=row.campaign_id))
                news["deadline"] = now + timedelta(seconds=step_timeout_s(timeouts, step.state))
            for effect in step.effects:
                news |= _effect(row, effect, now)
            try:
                won = await JobRow.filter(id=row.id, version=row.version).update(**news)
            except IntegrityError:
                return Answer.IGNORED  # another job of this device was offered in the same moment
            if won:
                row.update_from_dict(news)
                await self._moved(row, before)
                return step.answer
            fresh = await JobRow.get_or_none(id=row.id)
            if fresh is None or fresh.attempt != row.attempt:
                return Answer.IGNORED
            row.update_from_dict({name: getattr(fresh, name) for name in _FIELDS})
        return Answer.IGNORED

    async def _moved(self, row: JobRow, before: str) -> None:
        ended = row.status in JOB.final
        if row.status != before and row.status not in (JobState.QUEUED, JobState.OFFERED):
            detail = f": {row.error}" if row.error else ""
            self._note(row, f"update to {row.to_version}: {str(row.status).replace('_', ' ')}{detail}")
        await self._tell(row, moved=ended)
        if ended:
            if row.status != JobState.SUCCEEDED:
                await DeviceRow.filter(id=row.device_id, target_firmware=row.to_version).update(target_firmware="")
            self.on_ended(row.device_id)
            self.nudge(row.device_id)  # for the next job in its queue

    async def _tell(self, row: JobRow, *, moved: bool) -> None:
        if self._bus.watched("campaigns"):
            self._bus.publish(Event(channel="campaigns", device_id=row.device_id, data={"job": job_view(row).json()}))
        if self.on_moved is not None:
            await self.on_moved(row.campaign_id, moved)

    async def _note_version(self, device_id: str, version: str) -> None:
        device = await DeviceRow.get_or_none(id=device_id)
        if device is None or device.firmware == version:
            return
        before = device.firmware
        if not await DeviceRow.filter(id=device_id, firmware=before).update(
            firmware=version, firmware_key=version_key(version)
        ):
            return
        fell_back = bool(device.target_firmware) and before == device.target_firmware
        summary = f"runs firmware {version}, before that {before}" if before else f"runs firmware {version}"
        if fell_back:
            summary = f"fell back from firmware {before} to {version}"
        self._timeline.note(
            device_id,
            TimelineKind.UPDATE,
            summary,
            level=Level.WARNING if fell_back else Level.INFO,
            data={"firmware": version, "before": before or None},
        )

    def _has_reconnected(self, row: JobRow) -> bool:
        connected_at = self._presence.connected_at(row.device_id)
        return row.status == JobState.REBOOTING and connected_at is not None and connected_at > row.step_at

    def _note(self, row: JobRow, summary: str) -> None:
        level = _LEVELS.get(JobState(row.status), Level.INFO)
        data = {"job": row.id, "campaign": row.campaign_id, "status": str(row.status), "version": row.to_version}
        self._timeline.note(row.device_id, TimelineKind.UPDATE, summary, level=level, data=data)


_FIELDS = ("status", "version", "progress", "error", "deadline", "step_at", "next_offer_at", "offers", "slot")


def _effect(row: JobRow, effect: JobEffect, now: datetime) -> dict[str, Any]:
    """What an effect writes; the deadline is its campaign's business."""
    match effect:
        case JobEffect.PLAN_OFFER:
            delay_s = min(_REOFFER_CAP_S, _REOFFER_FIRST_S * 2.0 ** min(row.offers, 10))
            return {"slot": row.device_id, "offers": row.offers + 1, "next_offer_at": now + timedelta(seconds=delay_s)}
        case JobEffect.STOP_OFFERING:
            return {"next_offer_at": None}
        case JobEffect.FINISH:
            return {"finished_at": now}
        case JobEffect.FREE_DEVICE:
            return {"slot": None}
        case JobEffect.DISARM_DEADLINE:
            return {"deadline": None}
        case JobEffect.COUNT_ATTEMPT:
            return {"attempt": row.attempt + 1, "offers": 0, "progress": None, "error": "", "finished_at": None}
        case JobEffect.ARM_DEADLINE:
            return {}


def _version(version: object) -> str | None:
    """A version as a device reports it, or None when it is no text that could be one."""
    return peer_text(version, TEXT_LIMIT) or None if isinstance(version, str) else None

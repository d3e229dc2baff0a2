"""Rows into views, in one place: nothing but this module and the services knows both."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from tortoise.functions import Count

from fleet.clock import EPOCH
from fleet.documents import delta
from fleet.machines.campaign import CampaignState
from fleet.machines.command import CommandState
from fleet.machines.job import JobState
from fleet.models import (
    ArtifactRow,
    CampaignRow,
    CommandRow,
    CredentialRow,
    DeviceRow,
    JobRow,
    PersonRow,
    TimelineRow,
    TwinRow,
)
from fleet.views import (
    Artifact,
    Campaign,
    Command,
    Credential,
    CredentialKind,
    Device,
    DeviceStatus,
    Job,
    Level,
    Role,
    StepTimeouts,
    TimelineEntry,
    TimelineKind,
    Twin,
    User,
)
from gateway.profiles.commands import Delivery


def device_view(row: DeviceRow, heard_at: datetime | None = None) -> Device:
    """`heard_at`: when it was last heard of, if that is not in the database yet."""
    last_seen = max(row.last_seen_at, heard_at) if heard_at else row.last_seen_at
    return Device(
        id=row.id,
        name=row.name,
        profile=row.profile or None,
        tags=tuple(orjson.loads(row.tags)),
        attributes=orjson.loads(row.attributes),
        status=DeviceStatus(row.status),
        disabled=row.disabled,
        quarantined=row.quarantined,
        since=row.since,
        last_seen=None if last_seen == EPOCH else last_seen,
        address=row.address or None,
        link=row.link or None,
        firmware=row.firmware or None,
        target_firmware=row.target_firmware or None,
        retention_days=row.retention_days,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
    )


def credential_view(row: CredentialRow) -> Credential:
    return Credential(
        id=row.id,
        type=CredentialKind.TOKEN if row.kind == CredentialKind.CHOSEN else row.kind,
        name=row.name,
        hint=row.hint,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def twin_view(row: TwinRow) -> Twin:
    desired, reported = orjson.loads(row.desired), orjson.loads(row.reported)
    return Twin(
        device_id=row.device_id,
        desired=desired,
        reported=reported,
        delta=delta(desired, reported),
        version=row.version,
        fault=row.fault or None,
        updated_at=row.updated_at,
    )


def command_view(row: CommandRow, waiting_for: str | None) -> Command:
    return Command(
        id=row.id,
        device_id=row.device_id,
        name=row.name,
        params=orjson.loads(row.params),
        status=CommandState(row.status),
        progress=row.progress,
        result=orjson.loads(row.result),
        error=row.error or None,
        attempts=row.attempts,
        created_at=row.created_at,
        sent_at=row.sent_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        answer_by=row.answer_by,
        delivery=Delivery.SEQUENTIAL if row.sequential else Delivery.PARALLEL,
        waiting_for=waiting_for,
        created_by=row.created_by,
    )


def artifact_view(row: ArtifactRow) -> Artifact:
    return Artifact(
        id=row.id,
        name=row.name,
        version=row.release,
        description=row.description,
        size=row.size,
        sha256=row.sha256,
        created_at=row.created_at,
        created_by=row.created_by,
    )


def job_view(row: JobRow) -> Job:
    return Job(
        id=row.id,
        campaign_id=row.campaign_id,
        device_id=row.device_id,
        status=JobState(row.status),
        progress=row.progress,
        error=row.error or None,
        attempt=row.attempt,
        from_version=row.from_version or None,
        to_version=row.to_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        deadline=row.deadline,
    )


async def campaign_views(rows: Sequence[CampaignRow]) -> list[Campaign]:
    """Campaigns with their artifacts and counts: three queries, however many they are."""
    if not rows:
        return []
    artifacts = {row.id: row for row in await ArtifactRow.filter(id__in={row.artifact_id for row in rows})}
    counts: dict[str, dict[JobState, int]] = {row.id: dict.fromkeys(JobState, 0) for row in rows}
    grouped: list[dict[str, Any]] = (
        await JobRow.filter(campaign_id__in=list(counts))
        .annotate(number=Count("id"))
        .group_by("campaign_id", "status")
        .values("campaign_id", "status", "number")
    )
    for group in grouped:
        counts[group["campaign_id"]][JobState(group["status"])] = group["number"]
    return [
        Campaign(
            id=row.id,
            name=row.name,
            status=CampaignState(row.status),
            artifact=artifact_view(artifacts[row.artifact_id]),
            counts=counts[row.id],
            total=sum(counts[row.id].values()),
            timeouts=timeouts_of(row),
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            created_by=row.created_by,
        )
        for row in rows
    ]


def timeouts_of(row: CampaignRow) -> StepTimeouts:
    return StepTimeouts(**orjson.loads(row.timeouts))


def timeline_view(row: TimelineRow) -> TimelineEntry:
    return TimelineEntry(
        id=row.id,
        device_id=row.device_id,
        at=row.at,
        kind=TimelineKind(row.kind),
        level=Level(row.level),
        summary=row.summary,
        data=orjson.loads(row.data),
    )


def user_view(row: PersonRow) -> User:
    return User(
        id=row.id,
        username=row.username,
        role=Role(row.role),
        created_at=row.created_at,
        last_login_at=row.last_login_at,
        disabled=row.disabled,
        second_factor=row.totp_since is not None,
    )

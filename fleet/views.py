"""What the services give out: frozen values, each with its JSON shape as the API and the live views show it.

No I/O, no clock, no ORM: rows never leave the services.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from fleet.actor import Actor
from fleet.clock import rfc3339, rfc3339_or_none
from fleet.machines.campaign import CampaignState
from fleet.machines.command import CommandState
from fleet.machines.job import JobState
from gateway.profiles.commands import Delivery


class DeviceStatus(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    STALE = "stale"
    """Connected, or come over HTTP, and not heard of for longer than its profile expects."""
    NEVER_SEEN = "never_seen"
    DISABLED = "disabled"


class CredentialKind(StrEnum):
    """`chosen` is a token that its owner thought of; the API calls both kinds of token "token"."""

    TOKEN = "token"  # noqa: S105 # a kind, no token
    CHOSEN = "chosen"
    JWT = "jwt"
    X509 = "x509"


class Role(StrEnum):
    """Each may do all that the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role is allowed what `needed` is allowed."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class TimelineKind(StrEnum):
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    MESSAGE_REFUSED = "message_refused"
    COMMAND = "command"
    UPDATE = "update"
    CHANGE = "change"
    EVENT = "event"


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`since` is when the present connection (or absence) began; `version` grows with every change of the record."""

    id: str
    name: str
    profile: str | None
    tags: tuple[str, ...]
    attributes: dict[str, Any]
    status: DeviceStatus
    disabled: bool
    quarantined: bool
    since: datetime | None
    last_seen: datetime | None
    address: str | None
    link: str | None
    firmware: str | None
    target_firmware: str | None
    retention_days: int | None
    created_at: datetime
    updated_at: datetime
    version: int

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "profile": self.profile,
            "tags": list(self.tags),
            "attributes": self.attributes,
            "status": self.status.value,
            "quarantined": self.quarantined,
            "since": rfc3339_or_none(self.since),
            "last_seen": rfc3339_or_none(self.last_seen),
            "address": self.address,
            "link": self.link,
            "firmware": self.firmware,
            "target_firmware": self.target_firmware,
            "retention_days": self.retention_days,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A credential's record, without its secret. `hint` is the end of a token, or of a key's SHA-256."""

    id: str
    type: str
    name: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "name": self.name,
            "hint": self.hint,
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339_or_none(self.expires_at),
            "last_used_at": rfc3339_or_none(self.last_used_at),
            "revoked_at": rfc3339_or_none(self.revoked_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """`delta` holds every desired leaf that differs from what is reported; `fault` is the first thing in the reported
    part that is not as the device's profile had it at that time."""

    device_id: str
    desired: dict[str, Any]
    reported: dict[str, Any]
    delta: dict[str, Any]
    version: int
    fault: str | None
    updated_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "desired": self.desired,
            "reported": self.reported,
            "delta": self.delta,
            "version": self.version,
            "fault": self.fault,
            "updated_at": rfc3339(self.updated_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`progress` is 0 to 100, or None until the device reports some. `waiting_for` says in words what is next."""

    id: str
    device_id: str
    name: str
    params: Any
    status: CommandState
    progress: int | None
    result: Any
    error: str | None
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    expires_at: datetime
    answer_by: datetime | None
    delivery: Delivery
    waiting_for: str | None
    created_by: str

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "device": self.device_id,
            "name": self.name,
            "params": self.params,
            "status": self.status.value,
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
            "attempts": self.attempts,
            "created_at": rfc3339(self.created_at),
            "sent_at": rfc3339_or_none(self.sent_at),
            "updated_at": rfc3339(self.updated_at),
            "finished_at": rfc3339_or_none(self.finished_at),
            "expires_at": rfc3339(self.expires_at),
            "answer_by": rfc3339_or_none(self.answer_by),
            "delivery": self.delivery.value,
            "waiting_for": self.waiting_for,
            "created_by": self.created_by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A firmware file and what it is."""

    id: str
    name: str
    version: str
    description: str
    size: int
    sha256: str
    created_at: datetime
    created_by: str

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "size": self.size,
            "sha256": self.sha256,
            "created_at": rfc3339(self.created_at),
            "created_by": self.created_by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeouts:
    """Seconds that each step of a job may last. `offered_s` also bounds the wait for a device that is away."""

    offered_s: int = 7 * 86_400
    downloading_s: int = 3_600
    verifying_s: int = 600
    installing_s: int = 1_800
    rebooting_s: int = 600

    def json(self) -> dict[str, int]:
        return {
            "offered_s": self.offered_s,
            "downloading_s": self.downloading_s,
            "verifying_s": self.verifying_s,
            "installing_s": self.installing_s,
            "rebooting_s": self.rebooting_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """`counts` has one number for each job state, also those of no job; they add up to `total` at all times."""

    id: str
    name: str
    status: CampaignState
    artifact: Artifact
    counts: dict[JobState, int]
    total: int
    timeouts: StepTimeouts
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    created_by: str

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status.value,
            "artifact": self.artifact.json(),
            "counts": {state.value: count for state, count in self.counts.items()},
            "total": self.total,
            "timeouts": self.timeouts.json(),
            "created_at": rfc3339(self.created_at),
            "started_at": rfc3339_or_none(self.started_at),
            "finished_at": rfc3339_or_none(self.finished_at),
            "created_by": self.created_by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One device's part of a campaign. `deadline` is when the present step times out."""

    id: str
    campaign_id: str
    device_id: str
    status: JobState
    progress: int | None
    error: str | None
    attempt: int
    from_version: str | None
    to_version: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    deadline: datetime | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "campaign": self.campaign_id,
            "device": self.device_id,
            "status": self.status.value,
            "progress": self.progress,
            "error": self.error,
            "attempt": self.attempt,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "finished_at": rfc3339_or_none(self.finished_at),
            "deadline": rfc3339_or_none(self.deadline),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One thing that happened to a device, in words."""

    id: str
    device_id: str
    at: datetime
    kind: TimelineKind
    level: Level
    summary: str
    data: dict[str, Any] = field(default_factory=dict)
    identity: str | None = None
    """Of an event that may come twice; None: of its own."""

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "device": self.device_id,
            "at": rfc3339(self.at),
            "kind": self.kind.value,
            "level": self.level.value,
            "summary": self.summary,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who may log in."""

    id: str
    username: str
    role: Role
    created_at: datetime
    last_login_at: datetime | None
    disabled: bool
    second_factor: bool = False

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "username": self.username,
            "role": self.role.value,
            "created_at": rfc3339(self.created_at),
            "last_login_at": rfc3339_or_none(self.last_login_at),
            "disabled": self.disabled,
            "second_factor": self.second_factor,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a token speaks for, and by what: a login of theirs, or an API key, whose role is that of `user` here."""

    user: User
    login_id: str | None = None
    api_key_id: str | None = None
    api_key_name: str | None = None
    must_enrol: bool = False
    """May do nothing but set up a second factor."""

    @property
    def name(self) -> str:
        """For the audit: the user name, and behind a slash, which no user name holds, that of the API key."""
        return self.user.username if self.api_key_name is None else f"{self.user.username}/{self.api_key_name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login that stands: from where, with what (as it said), and when it last renewed its tokens."""

    id: str
    address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "address": self.address,
            "user_agent": self.user_agent,
            "created_at": rfc3339(self.created_at),
            "last_used_at": rfc3339(self.last_used_at),
            "expires_at": rfc3339(self.expires_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a login gives: a JWT for the `Authorization` header, and the one-time token that renews it."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    refresh_expires_in: int
    user: User

    def json(self) -> dict[str, Any]:
        return {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "refresh_token": self.refresh_token,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A change that somebody made: `before` and `after` hold what changed, None where there was nothing."""

    id: str
    at: datetime
    actor: Actor
    action: str
    target_kind: str
    target_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": rfc3339(self.at),
            "actor": self.actor.json(),
            "action": self.action,
            "target": {"kind": self.target_kind, "id": self.target_id},
            "before": self.before,
            "after": self.after,
        }

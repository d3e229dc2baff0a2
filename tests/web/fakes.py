# ruff: noqa: A001, A002 - the parameters are named as in the services

"""A fleet and a gateway in memory, with just enough behind each service to answer every route of the API.

What the services themselves promise is tested with the real ones; here they only have to give the API's handlers
something to translate.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from broker.engine import SessionInfo
from broker.native.topic_tree import TopicLevels, TopicLook
from broker.reason import ReasonCode
from fleet.actor import SYSTEM, Actor
from fleet.api_keys import ApiKey
from fleet.audit_chain import START, Mark, Report
from fleet.authorities import CertificateAuthority
from fleet.bulk import BulkJob, BulkResult, BulkStatus, Selection, TargetStatus
from fleet.bulk_actions import ActionType, BulkAction
from fleet.claim_keys import ClaimKey, ClaimMode, ExpectedDevice
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound, PreconditionFailed, TooManyAttempts, Unauthorized
from fleet.groups import Group
from fleet.machines.campaign import CampaignState
from fleet.machines.command import CommandState
from fleet.machines.job import JobState
from fleet.new_credential import NewCredential
from fleet.page import Page
from fleet.profiles import StoredProfile
from fleet.provisioning import Application, ApplicationStatus
from fleet.schedules import CatchUp, Schedule, ScheduledCommand, ScheduleRun
from fleet.twin_history import TwinChange
from fleet.twin_templates import Compliance, Target, TemplateState, TwinTemplate
from fleet.views import (
    Artifact,
    AuditEntry,
    Campaign,
    Command,
    Credential,
    Device,
    DeviceStatus,
    Identity,
    Job,
    Level,
    Role,
    Session,
    StepTimeouts,
    TimelineEntry,
    TimelineKind,
    Tokens,
    Twin,
    User,
)
from gateway.bus import Bus, Event
from gateway.clocks import Clocks
from gateway.dead_letters import DeadLetters
from gateway.profiles.commands import Delivery
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from gateway.readings import Value
from gateway.replays import Replays
from gateway.store import Query, Series, StoreStats

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PASSWORD = "correct horse"


class Devices:
    def __init__(self) -> None:
        self.by_id: dict[str, Device] = {}
        self.tokens: dict[str, list[Credential]] = {}

    async def create(
        self,
        actor: Actor,
        *,
        id: str,
        name: str | None = None,
        profile: str | None = None,
        tags: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> tuple[Device, str]:
        if id in self.by_id:
            raise AlreadyExists("device", id)
        self.by_id[id] = Device(
            id=id,
            name=name or id,
            profile=profile,
            tags=tuple(tags),
            attributes=dict(attributes or {}),
            status=DeviceStatus.NEVER_SEEN,
            disabled=False,
            quarantined=False,
            since=None,
            last_seen=None,
            address=None,
            link=None,
            firmware=None,
            target_firmware=None,
            retention_days=None,
            created_at=NOW,
            updated_at=NOW,
            version=1,
        )
        self.tokens[id] = []
        await self.add_credential(actor, id)
        return self.by_id[id], "token-of-" + id

    async def list(
        self,
        *,
        q: str = "",
        tag: str = "",
        status: str = "",
        firmware: str = "",
        query: str = "",
        group: str = "",
        sort: str = "id",
        cursor: str | None = None,
        limit: int = 50,
        with_total: bool = True,
    ) -> Page[Device]:
        if cursor is not None and cursor not in self.by_id:
            raise Invalid("cursor", "is not one that this server gave out")
        if group not in ("", "G0"):
            raise NotFound("group", group)
        found = [
            one
            for one in sorted(self.by_id.values(), key=lambda one: one.id)
            if q in one.id and (cursor or "") < one.id and firmware in ("", one.firmware)
        ]
        more = len(found) > limit
        return Page(items=found[:limit], next_cursor=found[limit - 1].id if more else None, total=len(self.by_id))

    async def get(self, id: str) -> Device:
        if id not in self.by_id:
            raise NotFound("device", id)
        return self.by_id[id]

    async def update(self, actor: Actor, id: str, **change: Any) -> Device:
        device = await self.get(id)
        self.by_id[id] = replace(device, **{name: value for name, value in change.items() if value is not None})
        return self.by_id[id]

    async def delete(self, actor: Actor, id: str) -> None:
        await self.get(id)
        del self.by_id[id]

    async def counts(self) -> dict[str, int]:
        seen = {"online": 0, "offline": 0, "stale": 0}
        return {"total": len(self.by_id), **seen, "never_seen": len(self.by_id), "disabled": 0}

    async def firmware_versions(self) -> dict[str, int]:
        return {"1.0.0": 2}

    async def credentials(self, id: str) -> Sequence[Credential]:
        await self.get(id)
        return self.tokens[id]

    async def add_credential(
        self, actor: Actor, id: str, wanted: NewCredential | None = None
    ) -> tuple[Credential, str | None]:
        await self.get(id)
        if len(self.tokens[id]) >= 2:
            raise Conflict("two credentials are valid already")
        credential = Credential(
            id=f"C{len(self.tokens[id])}",
            type="token" if wanted is None else wanted.type,
            name="",
            hint="abcd",
            created_at=NOW,
            expires_at=None,
            last_used_at=None,
            revoked_at=None,
        )
        self.tokens[id].append(credential)
        return credential, "secret"

    async def revoke_credential(self, actor: Actor, id: str, credential_id: str) -> None:
        await self.get(id)
        if credential_id not in [one.id for one in self.tokens[id]]:
            raise NotFound("credential", credential_id)


class People:
    def __init__(self) -> None:
        self.users = {
            role.value: User(
                id=f"U{role.value}", username=role.value, role=role, created_at=NOW, last_login_at=None, disabled=False
            )
            for role in Role
        }
        self.refresh_tokens: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.failures = 0
        self._made = 0

    def _tokens(self, username: str) -> Tokens:
        self._made += 1
        self.refresh_tokens[f"refresh-{self._made}"] = username
        return Tokens(
            access_token=username,
            refresh_token=f"refresh-{self._made}",
            expires_in=900,
            refresh_expires_in=1000,
            user=self.users[username],
        )

    async def setup_needed(self) -> bool:
        return False

    async def setup(
        self, token: str, username: str, password: str, *, address: str = "", user_agent: str = ""
    ) -> Tokens:
        raise Conflict("there is an administrator already")

    async def login(
        self, username: str, password: str, address: str = "", *, otp: str = "", user_agent: str = ""
    ) -> Tokens:
        if self.failures >= 5:
            raise TooManyAttempts(29.2)
        if username not in self.users or password != PASSWORD:
            self.failures += 1
            raise Unauthorized
        return self._tokens(username)

    async def exchange(self, code: str, *, address: str = "", user_agent: str = "") -> Tokens:
        if code != "code":
            raise Unauthorized
        return self._tokens("admin")

    async def refresh(self, refresh_token: str) -> Tokens:
        if refresh_token not in self.refresh_tokens:
            raise Unauthorized
        return self._tokens(self.refresh_tokens.pop(refresh_token))

    async def logout(self, refresh_token: str) -> None:
        self.refresh_tokens.pop(refresh_token, None)

    async def verify(self, access_token: str) -> User:
        name = access_token.partition(".")[0]  # "admin.2" is a second token of the same person
        if name not in self.users or access_token in self.revoked:
            raise Unauthorized
        return self.users[name]

    async def sessions(self, person_id: str) -> Sequence[Session]:
        return [
            Session(id="L1", address="", user_agent="", created_at=NOW, last_used_at=NOW, expires_at=NOW + timedelta(1))
        ]

    async def end_session(self, actor: Actor, person_id: str, login_id: str) -> None:
        if login_id != "L1":
            raise NotFound("session", login_id)

    async def end_other_sessions(self, actor: Actor, person_id: str, login_id: str) -> int:
        return 1

    async def change_password(
        self, actor: Actor, person_id: str, password: str, new_password: str, *, user_agent: str = ""
    ) -> Tokens:
        if password != PASSWORD:
            raise Invalid("password", "is not right")
        return self._tokens(self._by_id(person_id).username)

    async def enrol_second_factor(self, actor: Actor, person_id: str, password: str) -> tuple[str, str]:
        return "SECRET", "otpauth://totp/Mooring:x?secret=SECRET"

    async def confirm_second_factor(self, actor: Actor, person_id: str, code: str) -> Sequence[str]:
        return ["AAAA-AAAA-AAAA-AAAA"]

    async def remove_second_factor(self, actor: Actor, person_id: str, password: str) -> None:
        pass

    async def reset_second_factor(self, actor: Actor, person_id: str) -> None:
        self._by_id(person_id)

    async def identify(self, token: str, address: str = "") -> Identity:
        return Identity(user=await self.verify(token), login_id="L1")

    async def list(self) -> Sequence[User]:
        return list(self.users.values())

    def _by_id(self, id: str) -> User:
        for user in self.users.values():
            if user.id == id:
                return user
        raise NotFound("user", id)

    async def create(self, actor: Actor, username: str, password: str, role: Role) -> User:
        if username in self.users:
            raise AlreadyExists("user", username)
        self.users[username] = replace(self.users["viewer"], id="U" + username, username=username, role=role)
        return self.users[username]

    async def update(self, actor: Actor, id: str, **change: Any) -> User:
        return self._by_id(id)

    async def delete(self, actor: Actor, id: str) -> None:
        user = self._by_id(id)
        if user.role is Role.ADMIN:
            raise Conflict("this is the last administrator")
        del self.users[user.username]


class ApiKeys:
    def __init__(self) -> None:
        self.key = ApiKey(
            id="Y0",
            name="ci",
            owner="admin",
            role=Role.VIEWER,
            hint="abcd",
            created_at=NOW,
            expires_at=None,
            last_used_at=None,
            revoked_at=None,
        )

    async def create(
        self, actor: Actor, owner_id: str, *, name: str, role: Role, expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        return replace(self.key, name=name, role=role, expires_at=expires_at), "mrk_secret"

    async def list(self, owner_id: str | None, *, cursor: str | None = None, limit: int = 50) -> Page[ApiKey]:
        return Page(items=[self.key], total=1)

    async def get(self, id: str, owner_id: str | None = None) -> ApiKey:
        if id != self.key.id:
            raise NotFound("API key", id)
        return self.key

    async def revoke(self, actor: Actor, id: str, owner_id: str | None = None) -> None:
        await self.get(id, owner_id)


class Twins:
    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self.version = 1
        self.desired: dict[str, Any] = {}

    async def get(self, device_id: str) -> Twin:
        await self._devices.get(device_id)
        return Twin(
            device_id=device_id,
            desired=self.desired,
            reported={},
            delta=self.desired,
            version=self.version,
            fault=None,
            updated_at=NOW,
        )

    async def patch_desired(
        self, actor: Actor, device_id: str, merge_patch: Mapping[str, Any], if_version: int | None = None
    ) -> Twin:
        await self._devices.get(device_id)
        if if_version is not None and if_version != self.version:
            raise PreconditionFailed(self.version)
        self.version += 1
        self.desired = {**self.desired, **merge_patch}
        return await self.get(device_id)

    async def history(self, device_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[TwinChange]:
        await self._devices.get(device_id)
        return Page(items=[TwinChange(version=self.version, at=NOW, by="anna", patch=self.desired)], total=1)


class Commands:
    def __init__(self, devices: Devices, bus: Bus) -> None:
        self._devices = devices
        self._bus = bus
        self.by_id: dict[str, Command] = {}
        self.created = asyncio.Event()

    async def create(
        self,
        actor: Actor,
        device_id: str,
        name: str,
        params: Any = None,
        ttl_s: float | None = None,
        delivery: Delivery | None = None,
    ) -> Command:
        await self._devices.get(device_id)
        id = f"CMD{len(self.by_id)}"
        self.by_id[id] = Command(
            id=id,
            device_id=device_id,
            name=name,
            params=params,
            status=CommandState.QUEUED,
            progress=None,
            result=None,
            error=None,
            attempts=0,
            created_at=NOW,
            sent_at=None,
            updated_at=NOW,
            finished_at=None,
            expires_at=NOW + timedelta(seconds=ttl_s or 3600),
            answer_by=None,
            delivery=delivery or Delivery.PARALLEL,
            waiting_for="device to connect",
            created_by=actor.id,
        )
        self.created.set()
        return self.by_id[id]

    def finish(self, id: str) -> None:
        self.by_id[id] = replace(self.by_id[id], status=CommandState.SUCCEEDED, result={"ok": True}, finished_at=NOW)
        self._bus.publish(Event(channel="commands", device_id=self.by_id[id].device_id, data=self.by_id[id].json()))

    async def get(self, id: str) -> Command:
        if id not in self.by_id:
            raise NotFound("command", id)
        return self.by_id[id]

    async def list(
        self,
        device_id: str | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        status: str = "",
        with_total: bool = True,
    ) -> Page[Command]:
        if device_id is not None:
            await self._devices.get(device_id)
        return Page(items=[one for one in self.by_id.values() if device_id in (None, one.device_id)][:limit])

    async def cancel(self, actor: Actor, id: str) -> Command:
        await self.get(id)
        self.by_id[id] = replace(self.by_id[id], status=CommandState.CANCELLED)
        return self.by_id[id]

    async def pending(self) -> int:
        return len(self.by_id)


class Artifacts:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.by_id: dict[str, Artifact] = {}
        self.largest_chunk = 0

    async def create(
        self,
        actor: Actor,
        *,
        version: str,
        name: str,
        chunks: AsyncIterator[bytes],
        sha256: str | None = None,
        description: str = "",
    ) -> Artifact:
        id, content = f"A{len(self.by_id)}", b""
        async for chunk in chunks:
            self.largest_chunk = max(self.largest_chunk, len(chunk))
            content += chunk
        if sha256 == "0" * 64:
            raise Invalid("sha256", "does not match the file")
        (self._directory / id).write_bytes(content)
        self.by_id[id] = Artifact(
            id=id,
            name=name,
            version=version,
            description=description,
            size=len(content),
            sha256=sha256 or "",
            created_at=NOW,
            created_by=actor.id,
        )
        return self.by_id[id]

    async def list(self, *, cursor: str | None = None, limit: int = 50, with_total: bool = True) -> Page[Artifact]:
        return Page(items=list(self.by_id.values()))

    async def get(self, id: str) -> Artifact:
        if id not in self.by_id:
            raise NotFound("artifact", id)
        return self.by_id[id]

    async def delete(self, actor: Actor, id: str) -> None:
        await self.get(id)
        del self.by_id[id]

    async def file(self, id: str) -> Path:
        await self.get(id)
        return self._directory / id


class Campaigns:
    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self.by_id: dict[str, Campaign] = {}

    async def create(
        self, actor: Actor, *, name: str, artifact_id: str, devices: Sequence[str], timeouts: StepTimeouts | None = None
    ) -> Campaign:
        artifact = await self._artifacts.get(artifact_id)
        id = f"K{len(self.by_id)}"
        self.by_id[id] = Campaign(
            id=id,
            name=name,
            status=CampaignState.DRAFT,
            artifact=artifact,
            counts={JobState.QUEUED: len(devices)},
            total=len(devices),
            timeouts=timeouts or StepTimeouts(),
            created_at=NOW,
            started_at=None,
            finished_at=None,
            created_by=actor.id,
        )
        return self.by_id[id]

    async def list(
        self, *, cursor: str | None = None, limit: int = 50, status: str = "", with_total: bool = True
    ) -> Page[Campaign]:
        return Page(items=list(self.by_id.values()))

    async def get(self, id: str) -> Campaign:
        if id not in self.by_id:
            raise NotFound("campaign", id)
        return self.by_id[id]

    async def jobs(
        self, id: str, *, cursor: str | None = None, limit: int = 50, status: str = "", with_total: bool = True
    ) -> Page[Job]:
        await self.get(id)
        job = Job(
            id="J1",
            campaign_id=id,
            device_id="pump-7",
            status=JobState.QUEUED,
            progress=None,
            error=None,
            attempt=1,
            from_version=None,
            to_version="1.1.0",
            created_at=NOW,
            updated_at=NOW,
            finished_at=None,
            deadline=None,
        )
        return Page(items=[job], total=1)

    async def _become(self, id: str, status: CampaignState) -> Campaign:
        campaign = await self.get(id)
        if campaign.status is status:
            raise Conflict(f"the campaign is {status} already")
        self.by_id[id] = replace(campaign, status=status)
        return self.by_id[id]

    async def start(self, actor: Actor, id: str) -> Campaign:
        return await self._become(id, CampaignState.RUNNING)

    async def abort(self, actor: Actor, id: str) -> Campaign:
        return await self._become(id, CampaignState.ABORTED)

    async def retry(self, actor: Actor, id: str) -> Campaign:
        return await self._become(id, CampaignState.RUNNING)

    async def running(self) -> int:
        return 0


class Timeline:
    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self.asked_for: Sequence[str] = ()

    async def list(
        self, device_id: str, *, cursor: str | None = None, limit: int = 50, kinds: Sequence[str] = ()
    ) -> Page[TimelineEntry]:
        await self._devices.get(device_id)
        self.asked_for = kinds
        entry = TimelineEntry(
            id="T1",
            device_id=device_id,
            at=NOW,
            kind=TimelineKind.MESSAGE_REFUSED,
            level=Level.WARNING,
            summary="invalid JSON",
        )
        return Page(items=[entry])


class Audit:
    def __init__(self) -> None:
        self.recorded: list[tuple[str, str]] = []

    async def record(
        self, actor: Actor, action: str, target_kind: str, target_id: str, before: Any = None, after: Any = None
    ) -> None:
        self.recorded.append((action, target_id))

    async def list(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        actor: str = "",
        action: str = "",
        target_kind: str = "",
        target_id: str = "",
    ) -> Page[AuditEntry]:
        entry = AuditEntry(
            id="E1",
            at=NOW,
            actor=SYSTEM,
            action="device.create",
            target_kind="device",
            target_id="pump-7",
            before=None,
            after={"id": "pump-7"},
        )
        return Page(items=[entry], total=1)

    async def head(self) -> Mark:
        return START

    async def anchor(self) -> Mark:
        return START

    async def verify(self, known: Mark | None = None) -> Report:
        return Report()

    async def export(self) -> AsyncGenerator[bytes, None]:
        yield b"{}\n"


class Profiles:
    def __init__(self) -> None:
        self.by_name: dict[str, StoredProfile] = {}

    def of(self, device_id: str) -> CompiledProfile | None:
        return next((CompiledProfile(one.profile) for one in self.by_name.values()), None)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[StoredProfile]:
        return Page(items=list(self.by_name.values()), next_cursor=None, total=len(self.by_name))

    async def get(self, name: str) -> StoredProfile:
        if name not in self.by_name:
            raise NotFound("profile", name)
        return self.by_name[name]

    async def create(self, actor: Actor, profile: Profile) -> StoredProfile:
        if profile.name in self.by_name:
            raise AlreadyExists("profile", profile.name)
        made = StoredProfile(profile=profile, devices=0, version=1, created_at=NOW, updated_at=NOW)
        self.by_name[profile.name] = made
        return made

    async def replace(self, actor: Actor, profile: Profile, *, if_version: int | None = None) -> StoredProfile:
        old = await self.get(profile.name)
        if if_version not in (None, old.version):
            raise PreconditionFailed(old.version)
        self.by_name[profile.name] = replace(old, profile=profile, version=old.version + 1)
        return self.by_name[profile.name]

    async def delete(self, actor: Actor, name: str, *, if_version: int | None = None, force: bool = False) -> None:
        await self.get(name)
        del self.by_name[name]


class TwinTemplates:
    def __init__(self) -> None:
        self.by_id = {"W0": self._made("W0", "fast", {"interval": 5}, Target(ids=("pump-7",)))}

    @staticmethod
    def _made(id: str, name: str, desired: dict[str, Any], target: Target) -> TwinTemplate:
        counts = {**dict.fromkeys(TemplateState, 0), TemplateState.OWED: 1}
        times = {"created_by": "anna", "created_at": NOW, "applied_at": NOW}
        return TwinTemplate(id=id, name=name, desired=desired, target=target, counts=counts, **times)

    async def create(self, actor: Actor, *, name: str, desired: dict[str, Any], target: Target) -> TwinTemplate:
        self.by_id["W1"] = self._made("W1", name, desired, target)
        return self.by_id["W1"]

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[TwinTemplate]:
        return Page(items=[*self.by_id.values()], total=len(self.by_id))

    async def get(self, id: str) -> TwinTemplate:
        if id not in self.by_id:
            raise NotFound("twin template", id)
        return self.by_id[id]

    async def apply(self, actor: Actor, id: str) -> TwinTemplate:
        return await self.get(id)

    async def delete(self, actor: Actor, id: str) -> None:
        await self.get(id)

    async def compliance(
        self, id: str, *, state: str = "", cursor: str | None = None, limit: int = 50
    ) -> Page[Compliance]:
        await self.get(id)
        device = {"device_id": "pump-7", "since": NOW, "delta": {"interval": 5}, "error": None}
        return Page(items=[Compliance(state=TemplateState(state or "pending"), **device)], total=1)


class Schedules:
    def __init__(self) -> None:
        made = {"at": None, "cron": "0 3 * * *", "time_zone": "UTC", "catch_up": CatchUp.ONCE, "paused": False}
        command = ScheduledCommand(name="reboot")
        self.by_id = {"S0": self._made("S0", name="nightly", command=command, device_ids=["pump-7"], **made)}

    @staticmethod
    def _made(id: str, *, device_ids: Sequence[str], **fields: Any) -> Schedule:
        rest = {"next_run_at": NOW, "last_run_at": None, "runs": 0, "skipped": 0, "version": 1, "created_by": "anna"}
        return Schedule(id=id, device_ids=tuple(device_ids), created_at=NOW, updated_at=NOW, **rest, **fields)

    async def create(self, actor: Actor, **fields: Any) -> Schedule:
        self.by_id["S1"] = self._made("S1", **fields)
        return self.by_id["S1"]

    async def update(self, actor: Actor, id: str, **changes: Any) -> Schedule:
        found = await self.get(id)
        self.by_id[id] = replace(found, **{name: value for name, value in changes.items() if value is not None})
        return self.by_id[id]

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[Schedule]:
        return Page(items=[*self.by_id.values()], total=len(self.by_id))

    async def get(self, id: str) -> Schedule:
        if id not in self.by_id:
            raise NotFound("schedule", id)
        return self.by_id[id]

    async def delete(self, actor: Actor, id: str) -> None:
        await self.get(id)

    async def runs(self, id: str, *, cursor: str | None = None, limit: int = 50) -> Page[ScheduleRun]:
        await self.get(id)
        return Page(items=[ScheduleRun(run=1, due_at=NOW, device_id="pump-7", command_id="CMD0", error=None)])


class ClaimKeys:
    def __init__(self) -> None:
        self.by_id = {"X0": self._made("X0", "pumps", ClaimMode.LISTED)}
        self.lists: dict[str, list[str]] = {"X0": []}

    @staticmethod
    def _made(id: str, name: str, mode: ClaimMode, **fields: Any) -> ClaimKey:
        rest = {"profile": None, "tags": (), "networks": (), "uses_limit": 1, "expires_at": NOW, **fields}
        return ClaimKey(
            id=id, name=name, hint="abcd", mode=mode, uses=0, created_by="anna", created_at=NOW, revoked_at=None, **rest
        )

    async def create(self, actor: Actor, *, name: str, mode: ClaimMode, **fields: Any) -> tuple[ClaimKey, str]:
        made = self.by_id["X1"] = self._made("X1", name, mode, **fields)
        return made, "mrc_secret"

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[ClaimKey]:
        return Page(items=list(self.by_id.values()), total=len(self.by_id))

    async def get(self, id: str) -> ClaimKey:
        if id not in self.by_id:
            raise NotFound("claim key", id)
        return self.by_id[id]

    async def revoke(self, actor: Actor, id: str) -> None:
        await self.get(id)

    async def expect(self, actor: Actor, id: str, device_ids: Sequence[str]) -> int:
        await self.get(id)
        self.lists[id].extend(device_ids)
        return len(device_ids)

    async def expected(self, id: str, *, cursor: str | None = None, limit: int = 50) -> Page[ExpectedDevice]:
        await self.get(id)
        return Page(items=[ExpectedDevice(device_id=one, claimed_at=None) for one in self.lists[id]])


class Authorities:
    def __init__(self) -> None:
        self.by_id = {"X0": self._made("X0", "factory")}

    @staticmethod
    def _made(id: str, name: str) -> CertificateAuthority:
        return CertificateAuthority(
            id=id,
            name=name,
            fingerprint="ab" * 32,
            certificate="-----BEGIN CERTIFICATE-----",
            revoked_serials=(),
            expires_at=NOW,
            created_by="anna",
            created_at=NOW,
        )

    async def list(self) -> list[CertificateAuthority]:
        return list(self.by_id.values())

    async def create(self, actor: Actor, *, name: str, certificate: str) -> CertificateAuthority:
        self.by_id["X1"] = self._made("X1", name)
        return self.by_id["X1"]

    async def get(self, id: str) -> CertificateAuthority:
        if id not in self.by_id:
            raise NotFound("certificate authority", id)
        return self.by_id[id]

    async def update(self, actor: Actor, id: str, **changes: Any) -> CertificateAuthority:
        return await self.get(id)

    async def delete(self, actor: Actor, id: str) -> None:
        await self.get(id)


class Groups:
    def __init__(self) -> None:
        self.by_id = {"G0": self._made("G0", name="south")}

    @staticmethod
    def _made(id: str, **fields: Any) -> Group:
        rest = {"description": "", "query": None, "parent": None, **fields}
        return Group(id=id, version=1, created_by="anna", created_at=NOW, updated_at=NOW, **rest)

    async def create(self, actor: Actor, **fields: Any) -> Group:
        made = self.by_id["G1"] = self._made("G1", **fields)
        return made

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[Group]:
        return Page(items=list(self.by_id.values()), total=len(self.by_id))

    async def get(self, id: str) -> Group:
        if id not in self.by_id:
            raise NotFound("group", id)
        return self.by_id[id]

    async def update(self, actor: Actor, id: str, *, if_version: int | None = None, **fields: Any) -> Group:
        return await self.get(id)

    async def delete(self, actor: Actor, id: str, *, if_version: int | None = None) -> None:
        await self.get(id)

    async def add(self, actor: Actor, id: str, devices: Sequence[str]) -> int:
        await self.get(id)
        return len(devices)

    async def remove(self, actor: Actor, id: str, device_id: str) -> None:
        await self.get(id)


class Bulk:
    """One job, "J0"."""

    def _job(self, id: str) -> BulkJob:
        if id != "J0":
            raise NotFound("bulk job", id)
        return BulkJob(
            id=id,
            status=BulkStatus.RUNNING,
            action=BulkAction(type=ActionType.DISABLE),
            selection={"ids": 1},
            total=1,
            counts={TargetStatus.PENDING: 1},
            created_by="anna",
            created_at=NOW,
            started_at=None,
            finished_at=None,
        )

    async def create(self, actor: Actor, selection: Selection, action: BulkAction) -> BulkJob:
        return self._job("J0")

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[BulkJob]:
        return Page(items=[self._job("J0")], total=1)

    async def get(self, id: str) -> BulkJob:
        return self._job(id)

    async def results(self, id: str, **page: Any) -> Page[BulkResult]:
        self._job(id)
        return Page(items=[BulkResult(device_id="pump-7", status=TargetStatus.PENDING, error=None)], total=1)

    async def cancel(self, actor: Actor, id: str) -> BulkJob:
        return self._job(id)


class Provisioning:
    def __init__(self) -> None:
        self.status = {"pump-7": ApplicationStatus.PENDING}

    def _view(self, device_id: str) -> Application:
        if device_id not in self.status:
            raise NotFound("application", device_id)
        return Application(
            device_id=device_id,
            status=self.status[device_id],
            claim_key_id=None,
            info={"serial": 7},
            address="192.0.2.7",
            link="http",
            decided_by=None,
            created_at=NOW,
            updated_at=NOW,
        )

    async def list(self, *, status: str = "", cursor: str | None = None, limit: int = 50) -> Page[Application]:
        return Page(items=[self._view(one) for one in self.status], total=len(self.status))

    async def accept(self, actor: Actor, device_id: str, **fields: Any) -> Application:
        self._view(device_id)
        self.status[device_id] = ApplicationStatus.ACCEPTED
        return self._view(device_id)

    async def reject(self, actor: Actor, device_id: str) -> Application:
        self._view(device_id)
        self.status[device_id] = ApplicationStatus.REJECTED
        return self._view(device_id)

    async def delete(self, actor: Actor, device_id: str) -> None:
        self._view(device_id)
        del self.status[device_id]


class Fleet:
    def __init__(self, directory: Path, bus: Bus) -> None:
        self.claim_keys = ClaimKeys()
        self.schedules = Schedules()
        self.twin_templates = TwinTemplates()
        self.authorities = Authorities()
        self.provisioning = Provisioning()
        self.devices = Devices()
        self.groups = Groups()
        self.bulk = Bulk()
        self.profiles = Profiles()
        self.people = People()
        self.twins = Twins(self.devices)
        self.commands = Commands(self.devices, bus)
        self.artifacts = Artifacts(directory)
        self.campaigns = Campaigns(self.artifacts)
        self.timeline = Timeline(self.devices)
        self.audit = Audit()
        self.api_keys = ApiKeys()


class History:
    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.values: dict[str, tuple[int, Value]] = {}
        self.failure: Exception | None = None

    async def query(self, query: Query) -> dict[str, Series]:
        if self.failure is not None:
            raise self.failure
        self.queries.append(query)
        return {metric: Series(t=[ts], v=[value]) for metric, (ts, value) in self.values.items()}

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        if self.failure is not None:
            raise self.failure
        return dict(self.values)


class Store:
    async def stats(self) -> StoreStats:
        return StoreStats(kind="memory", points=12, size_bytes=3456)


class Gateway:
    def __init__(self) -> None:
        self.bus = Bus()
        self.history = History()
        self.store = Store()
        self.links: list[object] = []
        self.journal_state = "ok"
        self.clocks = Clocks()
        self.dead_letters = DeadLetters(Path("unopened"))  # without a file it has none
        self.replays = Replays(self.dead_letters, lambda uplinks, done: None)

    def stats(self) -> Any:
        journal = SimpleNamespace(
            state=self.journal_state,
            detail="",
            bytes=100,
            limit_bytes=1000,
            batches=1,
            pending_bytes=0,
            commits=5,
            failed_commits=0,
            damaged_rows=0,
        )
        drain = SimpleNamespace(state="ok", detail="", lag_s=0.1, written=10, rejected=0, retries=0)
        return SimpleNamespace(
            messages=7,
            readings=11,
            refused={"invalid_json": 2},
            messages_per_s=1.0,
            readings_per_s=2.0,
            refused_per_s=0.0,
            recent_readings=0,
            control_queued=0,
            control_busy=0,
            dead_letters_dropped=0,
            clocks_off=0,
            journal=journal,
            drain=drain,
        )

    def readings(self, device_id: str, **values: Value) -> None:
        """Put readings on the bus, as ingestion does."""
        ts_ms = time.time_ns() // 1_000_000
        readings = [(metric, ts_ms, value) for metric, value in values.items()]
        self.bus.publish(Event(channel="telemetry", device_id=device_id, data={"readings": readings}))


class Sessions:
    def __init__(self) -> None:
        self.kicked: list[str] = []

    def sessions(self) -> list[SessionInfo]:
        return [
            SessionInfo(
                client_id=name,
                username=name,
                address="127.0.0.1:5000",
                protocol=4,
                connected=True,
                connected_at=NOW,
                keepalive_s=60,
                clean_start=True,
                subscriptions=(f"devices/{name}/#",),
                queued=0,
                inflight=0,
            )
            for name in ("pump-7", "pump-8", "pump-9")
        ]

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int:
        self.kicked.append(username)
        return 1 if username.startswith("pump") else 0


class Broker(Sessions):
    """An engine that tells more than its sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.topics = [Topic("devices/pump-7/telemetry", 5), Topic("devices/pump-7/status", 1), Topic("plant", 7)]
        self.disk_trouble: str | None = None

    async def kick_client(
        self, username: str, client_id: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION
    ) -> bool:
        self.kicked.append(client_id)
        return client_id == username and username.startswith("pump")

    async def topic_levels(self, prefix: str = "", *, after: str | None = None, limit: int = 200) -> TopicLevels:
        look = TopicLook(prefix, after=after, limit=limit)
        for _ in look.steps(
            self.topics, ["devices/pump-7/status"], is_counted=lambda name: True, subscribers=lambda name: 2
        ):
            pass
        return look.found()

    def listeners(self) -> dict[str, str]:
        return {"tcp": "127.0.0.1:1883"}

    def metrics(self) -> dict[str, int | float]:
        return {
            "uptime_s": 12.34,
            "connections_now": 4,
            "connections": 40,
            "sessions": 5,
            "sessions_away": 2,
            "dropped_queue": 3,
            "persistence_commits": 9,
            "nobody_knows_this_one": 1,
        }

    def bounds(self) -> dict[str, int]:
        return {"connections_now": 100}


@dataclass
class Topic:
    name: str
    messages: int

"""Device profiles: kept, changed, and held ready in memory for each message of a device that names one."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError
from tortoise.exceptions import IntegrityError

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import AlreadyExists, Conflict, NotFound, PreconditionFailed
from fleet.models import DeviceRow, ProfileRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile

logger = logging.getLogger(__name__)

PROFILES_LIMIT = 1000

_State = tuple[datetime, int]
"""When a profile was changed, and its version: one that was deleted and made again is at version 1 again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProfile:
    """A profile as it is kept; `version` grows with every change, `devices` is how many name it.

    Not `is_readable`: a newer Mooring wrote it, and `profile` is only what this one knows of it.
    """

    profile: Profile
    devices: int
    version: int
    created_at: datetime
    updated_at: datetime
    is_readable: bool = True


class Profiles:
    """The profiles, and by device what is in force. A change holds from the next message on."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._compiled: dict[str, CompiledProfile] = {}
        self._states: dict[str, _State] = {}
        self._profile_of: dict[str, str] = {}
        self._days_of: dict[str, int] = {}
        self._changes = 0

    async def load(self) -> None:
        """Read all of it from the database; not when it changes here meanwhile: then the next reading is the one."""
        changes = self._changes
        rows = await ProfileRow.all()
        devices = await DeviceRow.all().values_list("id", "profile", "retention_days")
        if changes != self._changes:
            return
        names = {row.name for row in rows}
        for name in self._states.keys() - names:
            self._drop(name)
        for row in rows:
            if self._states.get(row.name) != _state(row):
                self._put(row)
        self._profile_of = {str(id_): str(profile) for id_, profile, _ in devices if profile}
        self._days_of = {str(id_): int(days) for id_, _, days in devices if days is not None}

    # ---- by device, from memory

    def of(self, device_id: str) -> CompiledProfile | None:
        """The profile of a device, if it names one that there is."""
        name = self._profile_of.get(device_id)
        return None if name is None else self._compiled.get(name)

    def reader_of(self, device_id: str) -> CompiledProfile | None:
        """The same where the profile has anything to do with messages. Asked for each of them."""
        name = self._profile_of.get(device_id)
        if name is None:
            return None
        compiled = self._compiled.get(name)
        return compiled if compiled is not None and compiled.reads else None

    def retention_days_of(self, device_id: str) -> int | None:
        """How long a device's readings are kept: its own word, else its profile's; None: the server's."""
        days = self._days_of.get(device_id)
        if days is None and (compiled := self.of(device_id)) is not None:
            days = compiled.retention_days
        return days

    def stale_after_s(self, factor: float) -> dict[str, float]:
        """By profile, `factor` times the seconds within which its devices should be heard of; of those that say so."""
        return {
            name: compiled.expected_interval_s * factor
            for name, compiled in self._compiled.items()
            if compiled.expected_interval_s is not None
        }

    def put_device(self, device_id: str, profile: str, retention_days: int | None) -> None:
        """What the device's record says now."""
        self.remove_device(device_id)
        if profile:
            self._profile_of[device_id] = profile
        if retention_days is not None:
            self._days_of[device_id] = retention_days

    def remove_device(self, device_id: str) -> None:
        self._changes += 1
        self._profile_of.pop(device_id, None)
        self._days_of.pop(device_id, None)

    # ---- the documents

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[StoredProfile]:
        """By name."""
        limit = page_limit(limit)
        rows = ProfileRow.all()
        if cursor is not None:
            rows = rows.filter(name__gt=decode_cursor(cursor, str, str)[1])
        found = await rows.order_by("name").limit(limit + 1)
        page = found[:limit]
        return Page(
            items=[await _stored(row) for row in page],
            next_cursor=encode_cursor(page[-1].name, page[-1].name) if len(found) > limit else None,
            total=await ProfileRow.all().count(),
        )

    async def get(self, name: str) -> StoredProfile:
        """Raises NotFound."""
        return await _stored(await self._row(name))

    async def create(self, actor: Actor, profile: Profile) -> StoredProfile:
        """Raises AlreadyExists, and Conflict beyond 1,000 profiles."""
        now = self._clock.utc()
        document = profile.json_document()
        row = ProfileRow(
            name=profile.name, document=orjson.dumps(document).decode(), version=1, created_at=now, updated_at=now
        )
        try:
            async with self._database.transaction():
                if await ProfileRow.all().count() >= PROFILES_LIMIT:
                    raise Conflict(f"there are {PROFILES_LIMIT} profiles already")
                await row.save(force_create=True)
                await self._audit.record(actor, "profile.create", "profile", profile.name, None, document)
        except IntegrityError as error:
            raise AlreadyExists("profile", profile.name) from error
        self._changes += 1
        self._put(row)
        return await _stored(row)

    async def replace(self, actor: Actor, profile: Profile, *, if_version: int | None = None) -> StoredProfile:
        """Raises NotFound, PreconditionFailed when it is not the version that the change is based on, and Conflict
        where what is kept cannot be read here: what a newer Mooring wrote would be lost unseen."""
        document = profile.json_document()
        async with self._database.transaction():
            row = await self._row(profile.name)
            before = _document(row)
            news: dict[str, Any] = {
                "document": orjson.dumps(document).decode(),
                "version": row.version + 1,
                "updated_at": self._clock.utc(),
            }
            if if_version is not None and if_version != row.version:
                raise PreconditionFailed(row.version)
            if _read(row) is None:
                raise Conflict("a newer Mooring wrote it: change it there, or delete it")
            if not await ProfileRow.filter(name=row.name, version=row.version).update(**news):
                raise Conflict("somebody else changed it at the same time: try again")
            await self._audit.record(actor, "profile.update", "profile", row.name, before, document)
        row.update_from_dict(news)
        self._changes += 1
        self._put(row)
        return await _stored(row)

    async def delete(self, actor: Actor, name: str, *, if_version: int | None = None, force: bool = False) -> None:
        """Raises NotFound, PreconditionFailed, and Conflict while devices name it, unless `force`."""
        async with self._database.transaction():
            row = await self._row(name)
            if if_version is not None and if_version != row.version:
                raise PreconditionFailed(row.version)
            devices = await DeviceRow.filter(profile=name).count()
            if devices and not force:
                raise Conflict(f"{devices} {'device names' if devices == 1 else 'devices name'} this profile")
            await ProfileRow.filter(name=name).delete()
            await self._audit.record(actor, "profile.delete", "profile", name, _document(row), None)
        self._changes += 1
        self._drop(name)

    async def _row(self, name: str) -> ProfileRow:
        row = await ProfileRow.get_or_none(name=name)
        if row is None:
            raise NotFound("profile", name)
        return row

    def _put(self, row: ProfileRow) -> None:
        profile = _read(row)
        if profile is not None:
            self._compiled[row.name] = CompiledProfile(profile)
        else:
            # Written by a newer Mooring, on a node that shares the database: what was in force here stays.
            logger.error("profile %s cannot be read: a newer Mooring wrote it", row.name)
        self._states[row.name] = _state(row)

    def _drop(self, name: str) -> None:
        self._compiled.pop(name, None)
        self._states.pop(name, None)


def _state(row: ProfileRow) -> _State:
    return row.updated_at, row.version


def _read(row: ProfileRow) -> Profile | None:
    """None where it cannot be read here."""
    try:
        return Profile.model_validate_json(row.document)
    except ValidationError:
        return None


def _document(row: ProfileRow) -> Any:
    """What is kept, for the audit: the text itself where it is no JSON."""
    try:
        return orjson.loads(row.document)
    except orjson.JSONDecodeError:
        return row.document


def _known(row: ProfileRow) -> Profile:
    """What can be said of a profile that cannot be read: its name, and the fields that mean what they did."""
    document = _document(row)
    known: dict[str, Any] = {"name": row.name}
    for field in ("description", "retention_days", "expected_interval_s"):
        if isinstance(document, dict) and field in document:
            try:
                Profile.model_validate({**known, field: document[field]})
            except ValidationError:
                continue
            known[field] = document[field]
    return Profile.model_validate(known)


async def _stored(row: ProfileRow) -> StoredProfile:
    profile = _read(row)
    return StoredProfile(
        profile=profile or _known(row),
        devices=await DeviceRow.filter(profile=row.name).count(),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        is_readable=profile is not None,
    )

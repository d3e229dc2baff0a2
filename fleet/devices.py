"""Devices: their records, how lists of them are searched, sorted and paged, and the way to their credentials."""

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from tortoise.exceptions import IntegrityError
from tortoise.functions import Count

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.credentials import Credentials
from fleet.database import Database
from fleet.device_attributes import put_attributes
from fleet.directory import Directory
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound, PreconditionFailed
from fleet.forgetting import Forgetting
from fleet.limits import ATTRIBUTES_LIMIT_BYTES, checked_object, checked_text
from fleet.models import DeviceRow, DeviceTagRow, TwinRow
from fleet.new_credential import NewCredential
from fleet.page import Page, page_limit
from fleet.presence import Presence
from fleet.profiles import Profiles
from fleet.records import device_view
from fleet.selections import Selections, cursor_of
from fleet.timeline import Timeline
from fleet.views import Credential, Device, DeviceStatus, TimelineKind
from gateway.channels import CLAIMANT, is_device_id

TAGS_LIMIT = 32
TAG_LENGTH_LIMIT = 64
RETENTION_LIMIT_DAYS = 36_500
_TRIES = 10  # compare-and-swap losers; each loss means that somebody else got on


class Devices:
    """Create, find, change and delete devices; give out and revoke their tokens."""

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        presence: Presence,
        credentials: Credentials,
        audit: Audit,
        timeline: Timeline,
        forgetting: Forgetting,
        profiles: Profiles,
        clock: Clock,
    ) -> None:
        self._database = database
        self._directory = directory
        self._presence = presence
        self._credentials = credentials
        self._audit = audit
        self._timeline = timeline
        self._forgetting = forgetting
        self._profiles = profiles
        self._clock = clock
        self._selections = Selections(database=database, clock=clock)

    async def create(
        self,
        actor: Actor,
        *,
        id: str,  # noqa: A002
        name: str | None = None,
        profile: str | None = None,
        tags: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
        also: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Device, str]:
        """The new device and its token, which nobody can read again. Raises AlreadyExists, Invalid.

        `also` is done in the same transaction; when it raises there is no device.
        """
        if not is_device_id(id) or id == CLAIMANT:
            raise Invalid("id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
        now = self._clock.utc()
        checked_tags = _checked_tags(tags)
        row = DeviceRow(
            id=id,
            name=checked_text("name", name) if name else id,
            profile=checked_text("profile", profile or "", empty=True),
            tags=orjson.dumps(checked_tags).decode(),
            attributes=checked_object("attributes", attributes or {}, limit_bytes=ATTRIBUTES_LIMIT_BYTES),
            status=DeviceStatus.NEVER_SEEN,
            presence=DeviceStatus.NEVER_SEEN,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._database.transaction():
                await row.save(force_create=True)
                await DeviceTagRow.bulk_create([DeviceTagRow(device_id=id, tag=tag) for tag in checked_tags])
                await put_attributes(id, row.attributes, is_new=True)
                await TwinRow.create(device_id=id, updated_at=now)
                _, token = await self._credentials.issue(id)
                await self._audit.record(actor, "device.create", "device", id, None, _audited(row))
                if also is not None:
                    await also()
        except IntegrityError as error:
            raise AlreadyExists("device", id) from error
        elder = self._directory.owner_of(id)
        self._directory.put(id, disabled=False)
        self._profiles.put_device(id, row.profile, row.retention_days)
        if elder is not None:
            # "a:b" was one of a's client ids until now; such a connection must not stay under the new device's name.
            await self._credentials.expel(elder, f"client id {id} now belongs to a device of its own")
        self._timeline.note(id, TimelineKind.CHANGE, f"{actor.id} created the device")
        return device_view(row), token

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
        """`sort` is id, name, last_seen, status or firmware, with "-" before it for descending.

        `query` is of docs/queries.md, `group` a group's id. Raises Invalid, NotFound (the group).
        """
        limit = page_limit(limit)
        condition = await self._selections.condition(
            q=q, tag=tag, status=status, firmware=firmware, query=query, group=group
        )
        found, total = await self._selections.page(
            condition, sort=sort, cursor=cursor, limit=limit, with_total=with_total
        )
        page = found[:limit]
        return Page(
            items=[device_view(row, self._presence.heard_at(row.id)) for row in page],
            next_cursor=cursor_of(sort, page[-1]) if len(found) > limit else None,
            total=total,
        )

    async def get(self, id: str) -> Device:  # noqa: A002
        """Raises NotFound."""
        row = await DeviceRow.get_or_none(id=id)
        if row is None:
            raise NotFound("device", id)
        return device_view(row, self._presence.heard_at(id))

    async def update(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        *,
        name: str | None = None,
        profile: str | None = None,
        tags: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        disabled: bool | None = None,
        quarantined: bool | None = None,
        retention_days: int | None = None,
        if_version: int | None = None,
    ) -> Device:
        """Change what is not None: `tags` and `attributes` are replaced; an empty `profile` removes it, and without a
        name (an empty `name`) the device goes by its id again. 0 `retention_days` are as many as its profile says.

        Disabling drops the device's connections within a second; quarantine drops them too, and lets the device come
        again to touch nothing but its twin. Raises NotFound, Invalid, and PreconditionFailed when it is not of
        `if_version`.
        """
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = checked_text("name", name, empty=True) or id
        if profile is not None:
            changes["profile"] = checked_text("profile", profile, empty=True)
        if attributes is not None:
            changes["attributes"] = checked_object("attributes", attributes, limit_bytes=ATTRIBUTES_LIMIT_BYTES)
        if quarantined is not None:
            changes["quarantined"] = quarantined
        if retention_days is not None:
            if not 0 <= retention_days <= RETENTION_LIMIT_DAYS:
                raise Invalid("retention_days", f"must be 0 to {RETENTION_LIMIT_DAYS}")
            changes["retention_days"] = retention_days or None
        checked_tags = None if tags is None else _checked_tags(tags)
        if checked_tags is not None:
            changes["tags"] = orjson.dumps(checked_tags).decode()
        before, row = await self._write(actor, id, changes, checked_tags, disabled, if_version)
        after = _audited(row)
        changed = [key for key in after if after[key] != before[key]]
        if "profile" in changed or "retention_days" in changed:
            self._profiles.put_device(id, row.profile, row.retention_days)
        if "disabled" in changed or "quarantined" in changed:
            self._directory.put(id, disabled=row.disabled, quarantined=row.quarantined)
            if "quarantined" in changed and not row.disabled:
                await self._credentials.expel(id, "quarantined" if row.quarantined else "released from quarantine")
            elif row.disabled:
                self._credentials.forget_device(id)
                await self._credentials.expel(id, "device disabled")
            else:
                await self._credentials.release(id)
        if changed:
            summary = f"{actor.id} changed {', '.join(changed)}"
            if "disabled" in changed:
                summary = f"{actor.id} {'disabled' if row.disabled else 'enabled'} the device"
            elif "quarantined" in changed:
                doing = "put the device into" if row.quarantined else "released the device from"
                summary = f"{actor.id} {doing} quarantine"
            self._timeline.note(id, TimelineKind.CHANGE, summary, data={key: after[key] for key in changed})
        return device_view(row, self._presence.heard_at(id))

    async def delete(self, actor: Actor, id: str) -> None:  # noqa: A002
        """Forget the device, its connections and its readings. Raises NotFound."""
        async with self._database.transaction():
            row = await DeviceRow.get_or_none(id=id)
            if row is None or not await DeviceRow.filter(id=id).delete():
                raise NotFound("device", id)
            await TwinRow.filter(device_id=id).delete()
            await self._audit.record(actor, "device.delete", "device", id, _audited(row), None)
        self._directory.remove(id)
        self._profiles.remove_device(id)
        self._credentials.forget_device(id)
        await self._credentials.expel(id, "device deleted")
        await self._forgetting.forget(id)

    async def counts(self) -> dict[str, int]:
        """{"total", "online", "offline", "stale", "never_seen", "disabled"}"""
        counts = dict.fromkeys((status.value for status in DeviceStatus), 0)
        groups = await DeviceRow.annotate(number=Count("id")).group_by("status").values_list("status", "number")
        for status, number in groups:
            counts[str(status)] = number
        return {"total": sum(counts.values()), **counts}

    async def firmware_versions(self) -> dict[str, int]:
        """How many devices run each version, most first."""
        groups = (
            await DeviceRow.exclude(firmware="")
            .annotate(number=Count("id"))
            .group_by("firmware")
            .values_list("firmware", "number")
        )
        return {str(version): number for version, number in sorted(groups, key=lambda group: -group[1])}

    async def credentials(self, id: str) -> builtins.list[Credential]:  # noqa: A002
        """All of them, newest first, revoked ones too. Raises NotFound."""
        return await self._credentials.list(id)

    async def add_credential(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        wanted: NewCredential | None = None,
    ) -> tuple[Credential, str | None]:
        """A further credential, a random token if nothing else is wanted, and the token that was made.

        Raises NotFound, Invalid, and Conflict when two of its type are valid already.
        """
        return await self._credentials.add(actor, id, wanted)

    async def revoke_credential(self, actor: Actor, id: str, credential_id: str) -> None:  # noqa: A002
        """No login with it any more; connections made with it drop within a second. Raises NotFound."""
        await self._credentials.revoke(actor, id, credential_id)

    async def authenticate(self, device_id: str, token: str) -> bool:
        """Whether `token` is a valid one of this device, and the device is not disabled."""
        return await self._credentials.authenticate(device_id, token)

    async def authenticate_token(self, token: str, *, address: str = "") -> str | None:
        """The device whose token or JWT this is, if it is valid and the device is not disabled.

        Raises TooManyAttempts when too many from this address were wrong.
        """
        return await self._credentials.authenticate_token(token, address=address)

    async def _write(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        changes: dict[str, Any],
        tags: builtins.list[str] | None,
        disabled: bool | None,
        if_version: int | None,
    ) -> tuple[dict[str, Any], DeviceRow]:
        """Compare-and-swap until it holds; returns what was audited as before, and the new row."""
        for _ in range(_TRIES):
            async with self._database.transaction():
                row = await DeviceRow.get_or_none(id=id)
                if row is None:
                    raise NotFound("device", id)
                if if_version is not None and if_version != row.version:
                    raise PreconditionFailed(row.version)
                before = _audited(row)
                wanted = dict(changes)
                if disabled is not None:
                    wanted["disabled"] = disabled
                    wanted["status"] = DeviceStatus.DISABLED if disabled else row.presence
                news = {key: value for key, value in wanted.items() if getattr(row, key) != value}
                if not news:
                    return before, row
                news["updated_at"] = self._clock.utc()
                news["version"] = row.version + 1
                if not await DeviceRow.filter(id=id, version=row.version).update(**news):
                    continue
                row.update_from_dict(news)
                if tags is not None:
                    await DeviceTagRow.filter(device_id=id).delete()
                    await DeviceTagRow.bulk_create([DeviceTagRow(device_id=id, tag=tag) for tag in tags])
                if "attributes" in news:
                    await put_attributes(id, row.attributes)
                await self._audit.record(actor, "device.update", "device", id, before, _audited(row))
                return before, row
        raise Conflict("too many changes at once: try again")


def _checked_tags(tags: Sequence[str]) -> list[str]:
    checked = sorted({checked_text("tags", tag, limit=TAG_LENGTH_LIMIT) for tag in tags})
    if len(checked) > TAGS_LIMIT:
        raise Invalid("tags", f"are more than {TAGS_LIMIT}")
    return checked


def _audited(row: DeviceRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "profile": row.profile,
        "tags": orjson.loads(row.tags),
        "attributes": orjson.loads(row.attributes),
        "disabled": row.disabled,
        "quarantined": row.quarantined,
        "retention_days": row.retention_days,
    }

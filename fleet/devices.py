"""Devices: their records, how lists of them are searched, sorted and paged, and the way to their credentials."""

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from tortoise.exceptions import IntegrityError
from tortoise.expressions import Q
from tortoise.functions import Count

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import EPOCH, Clock
from fleet.credentials import Credentials
from fleet.database import Database
from fleet.directory import Directory
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound
from fleet.forgetting import Forgetting
from fleet.limits import ATTRIBUTES_LIMIT_BYTES, checked_object, checked_tags, checked_text
from fleet.models import DeviceRow, DeviceTagRow, TwinRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.presence import Presence
from fleet.profiles import Profiles
from fleet.records import device_view
from fleet.timeline import Timeline
from fleet.views import Credential, Device, DeviceStatus, TimelineKind
from gateway.channels import CLAIMANT, is_device_id

RETENTION_LIMIT_DAYS = 36_500
_TRIES = 10  # compare-and-swap losers; each loss means that somebody else got on

_SORTS = {"id": "id", "name": "name", "last_seen": "last_seen_at", "status": "status", "firmware": "firmware"}


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
        tag_list = checked_tags(tags)
        row = DeviceRow(
            id=id,
            name=checked_text("name", name) if name else id,
            profile=checked_text("profile", profile or "", empty=True),
            tags=orjson.dumps(tag_list).decode(),
            attributes=checked_object("attributes", attributes or {}, limit_bytes=ATTRIBUTES_LIMIT_BYTES),
            status=DeviceStatus.NEVER_SEEN,
            presence=DeviceStatus.NEVER_SEEN,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._database.transaction():
                await row.save(force_create=True)
                await DeviceTagRow.bulk_create([DeviceTagRow(device_id=id, tag=tag) for tag in tag_list])
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
        sort: str = "id",
        cursor: str | None = None,
        limit: int = 50,
        with_total: bool = True,
    ) -> Page[Device]:
        """`sort` is id, name, last_seen, status or firmware, with "-" before it for descending."""
        limit = page_limit(limit)
        descending, key = sort.startswith("-"), sort.removeprefix("-")
        if key not in _SORTS:
            raise Invalid("sort", f"must be one of {', '.join(_SORTS)}, perhaps with - before it")
        if status and status not in set(DeviceStatus):
            raise Invalid("status", f"must be one of {', '.join(DeviceStatus)}")
        rows = DeviceRow.all()
        if q:
            rows = rows.filter(Q(id__icontains=q[:128]) | Q(name__icontains=q[:128]))
        if tag:
            rows = rows.filter(tag_rows__tag=tag)
        if status:
            rows = rows.filter(status=status)
        if firmware:
            rows = rows.filter(firmware=firmware)
        total = await rows.count() if with_total else None
        column = _SORTS[key]
        if cursor is not None:
            rows = rows.filter(_after(column, descending, cursor))
        sign = "-" if descending else ""
        found = await rows.order_by(*dict.fromkeys((sign + column, sign + "id"))).limit(limit + 1)
        page = found[:limit]
        return Page(
            items=[device_view(row, self._presence.heard_at(row.id)) for row in page],
            next_cursor=_cursor(column, page[-1]) if len(found) > limit else None,
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
        retention_days: int | None = None,
    ) -> Device:
        """Change what is not None: `tags` and `attributes` are replaced; an empty `profile` removes it, and without a
        name (an empty `name`) the device goes by its id again. 0 `retention_days` are as many as its profile says.

        Disabling drops the device's connections within a second. Raises NotFound, Invalid.
        """
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = checked_text("name", name, empty=True) or id
        if profile is not None:
            changes["profile"] = checked_text("profile", profile, empty=True)
        if attributes is not None:
            changes["attributes"] = checked_object("attributes", attributes, limit_bytes=ATTRIBUTES_LIMIT_BYTES)
        if retention_days is not None:
            if not 0 <= retention_days <= RETENTION_LIMIT_DAYS:
                raise Invalid("retention_days", f"must be 0 to {RETENTION_LIMIT_DAYS}")
            changes["retention_days"] = retention_days or None
        tag_list = None if tags is None else checked_tags(tags)
        if tag_list is not None:
            changes["tags"] = orjson.dumps(tag_list).decode()
        before, row = await self._write(actor, id, changes, tag_list, disabled)
        after = _audited(row)
        changed = [key for key in after if after[key] != before[key]]
        if "profile" in changed or "retention_days" in changed:
            self._profiles.put_device(id, row.profile, row.retention_days)
        if "disabled" in changed:
            self._directory.put(id, disabled=row.disabled)
            if row.disabled:
                self._credentials.forget_device(id)
                await self._credentials.expel(id, "device disabled")
            else:
                await self._credentials.release(id)
        if changed:
            summary = f"{actor.id} changed {', '.join(changed)}"
            if "disabled" in changed:
                summary = f"{actor.id} {'disabled' if row.disabled else 'enabled'} the device"
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
        """{"total", "online", "offline", "never_seen", "disabled"}"""
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

    async def add_credential(self, actor: Actor, id: str) -> tuple[Credential, str]:  # noqa: A002
        """A further token. Raises NotFound, and Conflict when two are valid already."""
        return await self._credentials.add(actor, id)

    async def revoke_credential(self, actor: Actor, id: str, credential_id: str) -> None:  # noqa: A002
        """No login with it any more; connections made with it drop within a second. Raises NotFound."""
        await self._credentials.revoke(actor, id, credential_id)

    async def authenticate(self, device_id: str, token: str) -> bool:
        """Whether `token` is a valid one of this device, and the device is not disabled."""
        return await self._credentials.authenticate(device_id, token)

    async def authenticate_token(self, token: str) -> str | None:
        """The device whose token this is, if it is valid and the device is not disabled."""
        return await self._credentials.authenticate_token(token)

    async def _write(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        changes: dict[str, Any],
        tags: builtins.list[str] | None,
        disabled: bool | None,
    ) -> tuple[dict[str, Any], DeviceRow]:
        """Compare-and-swap until it holds; returns what was audited as before, and the new row."""
        for _ in range(_TRIES):
            async with self._database.transaction():
                row = await DeviceRow.get_or_none(id=id)
                if row is None:
                    raise NotFound("device", id)
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
                await self._audit.record(actor, "device.update", "device", id, before, _audited(row))
                return before, row
        raise Conflict("too many changes at once: try again")


def _audited(row: DeviceRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "profile": row.profile,
        "tags": orjson.loads(row.tags),
        "attributes": orjson.loads(row.attributes),
        "disabled": row.disabled,
        "retention_days": row.retention_days,
    }


def _cursor(column: str, row: DeviceRow) -> str:
    value = getattr(row, column)
    if isinstance(value, datetime):
        value = (value - EPOCH) // timedelta(microseconds=1)
    return encode_cursor(value, row.id)


def _after(column: str, descending: bool, cursor: str) -> Q:
    """The rows behind a cursor, in the order of `column` and then id."""
    operator = "lt" if descending else "gt"
    if column == "id":
        return Q(**{f"id__{operator}": decode_cursor(cursor, str, str)[1]})
    if column == "last_seen_at":
        micros, id_ = decode_cursor(cursor, int, str)
        try:
            value: object = EPOCH + timedelta(microseconds=micros)
        except OverflowError as error:
            raise Invalid("cursor", "is not one that this server gave out") from error
    else:
        value, id_ = decode_cursor(cursor, str, str)
    behind: dict[str, Any] = {f"{column}__{operator}": value}
    beside: dict[str, Any] = {column: value, f"id__{operator}": id_}
    return Q(**behind) | Q(**beside)

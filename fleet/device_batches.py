"""Devices created and changed many at a time, in one transaction of the caller's: what an import does.

`Devices` does the same to one; here a device costs some statements less, and no commit of its own. New devices have
no credential: their tokens are made when they are handed out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.credentials import Credentials
from fleet.device_attributes import put_attributes
from fleet.device_import_views import OnConflict, Outcome
from fleet.directory import Directory
from fleet.errors import Conflict, Invalid
from fleet.limits import ATTRIBUTES_LIMIT_BYTES, checked_object
from fleet.models import DeviceRow, DeviceTagRow, TwinRow
from fleet.profiles import Profiles
from fleet.timeline import Timeline
from fleet.views import DeviceStatus, TimelineKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a device, and why it was refused."""

    outcome: Outcome
    column: str = ""
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Batch:
    """What was written, to be told to the other parts once it is committed."""

    verdicts: list[Verdict] = field(default_factory=list)
    created: list[DeviceRow] = field(default_factory=list)
    updated: list[tuple[DeviceRow, list[str]]] = field(default_factory=list)


class DeviceBatches:
    """`write` inside a transaction, `tell` after it."""

    def __init__(
        self, *, directory: Directory, credentials: Credentials, audit: Audit, timeline: Timeline, profiles: Profiles
    ) -> None:
        self._directory = directory
        self._credentials = credentials
        self._audit = audit
        self._timeline = timeline
        self._profiles = profiles

    async def write(
        self,
        actor: Actor,
        wanted: Sequence[tuple[str, Mapping[str, Any]]],
        on_conflict: OnConflict,
        now: datetime,
        *,
        dry_run: bool,
    ) -> Batch:
        """A verdict for each of `wanted`: (id, what is given of name, profile, tags and attributes, all checked).

        Attributes that are not named stay. Raises Conflict, or IntegrityError, when somebody else writes the same
        devices: then it is as if nothing had been done, and may be tried again.
        """
        batch = Batch()
        there = {row.id: row for row in await DeviceRow.filter(id__in=[id_ for id_, _ in wanted])}
        for id_, fields in wanted:
            row = there.get(id_)
            if row is None:
                batch.created.append(_new_row(id_, fields, now))
                verdict = Verdict(outcome=Outcome.CREATED)
            elif on_conflict is OnConflict.UPDATE:
                verdict = await self._update(actor, row, fields, batch, now, dry_run=dry_run)
            elif on_conflict is OnConflict.SKIP:
                verdict = Verdict(outcome=Outcome.SKIPPED)
            else:
                verdict = Verdict(outcome=Outcome.REFUSED, column="id", reason="there is such a device already")
            batch.verdicts.append(verdict)
        if batch.created and not dry_run:
            await self._create(actor, batch.created, now)
        return batch

    async def tell(self, actor: Actor, batch: Batch) -> None:
        """The other parts learn of what is committed."""
        for row in batch.created:
            elder = self._directory.owner_of(row.id)
            self._directory.put(row.id, disabled=False)
            self._profiles.put_device(row.id, row.profile, row.retention_days)
            if elder is not None and elder != row.id:
                # As in Devices.create: a connection of the elder's must not stay under the new device's name.
                await self._credentials.expel(elder, f"client id {row.id} now belongs to a device of its own")
            self._timeline.note(row.id, TimelineKind.CHANGE, f"{actor.id} imported the device")
        for row, changed in batch.updated:
            self._profiles.put_device(row.id, row.profile, row.retention_days)
            self._timeline.note(row.id, TimelineKind.CHANGE, f"{actor.id} changed {', '.join(changed)} by an import")

    async def _create(self, actor: Actor, rows: Sequence[DeviceRow], now: datetime) -> None:
        await DeviceRow.bulk_create(rows)
        tags = [DeviceTagRow(device_id=row.id, tag=tag) for row in rows for tag in orjson.loads(row.tags)]
        await DeviceTagRow.bulk_create(tags)
        await TwinRow.bulk_create([TwinRow(device_id=row.id, updated_at=now) for row in rows])
        for row in rows:
            await put_attributes(row.id, row.attributes, is_new=True)
            await self._audit.record(actor, "device.create", "device", row.id, None, _audited(row))

    async def _update(
        self, actor: Actor, row: DeviceRow, fields: Mapping[str, Any], batch: Batch, now: datetime, *, dry_run: bool
    ) -> Verdict:
        news: dict[str, Any] = {}
        if "name" in fields:
            news["name"] = fields["name"] or row.id
        if "profile" in fields:
            news["profile"] = fields["profile"]
        if "tags" in fields:
            news["tags"] = orjson.dumps(fields["tags"]).decode()
        if "attributes" in fields:
            merged = {**orjson.loads(row.attributes), **fields["attributes"]}
            try:
                news["attributes"] = checked_object("attributes", merged, limit_bytes=ATTRIBUTES_LIMIT_BYTES)
            except Invalid as error:
                reason = f"{error.detail}, with those that are there"
                return Verdict(outcome=Outcome.REFUSED, column="attributes", reason=reason)
        news = {key: value for key, value in news.items() if getattr(row, key) != value}
        if not news:
            return Verdict(outcome=Outcome.UNCHANGED)
        if not dry_run:
            before, version = _audited(row), row.version
            changed = list(news)
            news |= {"updated_at": now, "version": version + 1}
            if not await DeviceRow.filter(id=row.id, version=version).update(**news):
                raise Conflict("somebody else changed the device at the same time")
            row.update_from_dict(news)
            if "tags" in news:
                await DeviceTagRow.filter(device_id=row.id).delete()
                await DeviceTagRow.bulk_create([DeviceTagRow(device_id=row.id, tag=tag) for tag in fields["tags"]])
            if "attributes" in news:
                await put_attributes(row.id, row.attributes)
            await self._audit.record(actor, "device.update", "device", row.id, before, _audited(row))
            batch.updated.append((row, changed))
        return Verdict(outcome=Outcome.UPDATED)


def _new_row(id_: str, fields: Mapping[str, Any], now: datetime) -> DeviceRow:
    return DeviceRow(
        id=id_,
        name=fields.get("name") or id_,
        profile=fields.get("profile") or "",
        tags=orjson.dumps(fields.get("tags", [])).decode(),
        attributes=orjson.dumps(fields.get("attributes", {})).decode(),
        status=DeviceStatus.NEVER_SEEN,
        presence=DeviceStatus.NEVER_SEEN,
        created_at=now,
        updated_at=now,
    )


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

"""Twin templates: one desired patch for many devices, and a report of who is as it asks, who is not, and since when.

The devices are those of the target at the time of applying; `apply` takes in those that came since. Each has a row:
it is owed the patch, pending until it reports what was asked for, converged, or refused (by its profile). Applying a
merge patch twice is applying it once, so a kill in the middle costs nothing. A row follows its twin within seconds:
the twins say what has changed, so that no report waits for this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from tortoise.functions import Count

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock, rfc3339
from fleet.database import Database
from fleet.documents import delta, merge_patch
from fleet.errors import Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.limits import TWIN_LIMIT_BYTES, checked_object, checked_text
from fleet.models import DeviceRow, DeviceTagRow, TwinRow, TwinTemplateDeviceRow, TwinTemplateRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.twins import Twins

TEMPLATES_LIMIT = 100
DEVICES_LIMIT = 10_000
IDS_LIMIT = 1_000
_PATCHES_A_TURN = 20  # 0.2 s on a busy machine: other timers wait meanwhile
_CHECKS_A_TURN = 500
_CHANGED_LIMIT = 10_000  # beyond it all rows are looked at, a turn's worth at a time


class TemplateState(StrEnum):
    """Of one device of a template."""

    OWED = "owed"
    PENDING = "pending"
    CONVERGED = "converged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The devices of these ids, or those with this tag; one of the two."""

    ids: tuple[str, ...] = ()
    tag: str | None = None

    def json(self) -> dict[str, Any]:
        return {"ids": list(self.ids)} if self.tag is None else {"tag": self.tag}


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinTemplate:
    """`counts` has one number a state; they add up to the devices."""

    id: str
    name: str
    desired: dict[str, Any]
    target: Target
    counts: dict[TemplateState, int]
    created_by: str
    created_at: datetime
    applied_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "desired": self.desired,
            "target": self.target.json(),
            "counts": {state.value: number for state, number in self.counts.items()},
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "applied_at": rfc3339(self.applied_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Compliance:
    """One device: its state since when, and of one that is pending what it does not report yet."""

    device_id: str
    state: TemplateState
    since: datetime
    delta: dict[str, Any]
    error: str | None

    def json(self) -> dict[str, Any]:
        return {
            "device": self.device_id,
            "state": self.state.value,
            "since": rfc3339(self.since),
            "delta": self.delta,
            "error": self.error,
        }


class TwinTemplates:
    """Made, applied and deleted by operators; `work` is for the timers, `twin_changed` for the twins."""

    def __init__(self, *, database: Database, twins: Twins, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._twins = twins
        self._audit = audit
        self._clock = clock
        self._changed: set[str] = set()
        self._looked_at: int | None = 0  # all rows up to this one; None: all. What changed before a kill is not known.

    async def create(self, actor: Actor, *, name: str, desired: dict[str, Any], target: Target) -> TwinTemplate:
        """Raises Invalid, and Conflict beyond 100 templates."""
        now = self._clock.utc()
        row = TwinTemplateRow(
            id=new_id(),
            name=checked_text("name", name),
            desired=checked_object("desired", desired, limit_bytes=TWIN_LIMIT_BYTES),
            target=orjson.dumps(target.json()).decode(),
            created_by=actor.id,
            created_at=now,
            applied_at=now,
        )
        async with self._database.transaction():
            if await TwinTemplateRow.all().count() >= TEMPLATES_LIMIT:
                raise Conflict(f"there are {TEMPLATES_LIMIT} twin templates already")
            device_ids = await _members(target)
            await row.save(force_create=True)
            await self._owe(row, device_ids, now)
            after = {"name": row.name, "desired": desired, "target": target.json(), "devices": len(device_ids)}
            await self._audit.record(actor, "twin_template.create", "twin_template", row.id, None, after)
        return (await _views([row]))[0]

    async def apply(self, actor: Actor, id: str) -> TwinTemplate:  # noqa: A002
        """To all devices that are its target now, once more to those that were. Raises NotFound, Invalid."""
        now = self._clock.utc()
        async with self._database.transaction():
            row = await self._row(id)
            device_ids = await _members(_target(row))
            await TwinTemplateDeviceRow.filter(template_id=id).delete()
            await self._owe(row, device_ids, now)
            await TwinTemplateRow.filter(id=id).update(applied_at=now)
            row.applied_at = now
            after = {"devices": len(device_ids)}
            await self._audit.record(actor, "twin_template.apply", "twin_template", id, None, after)
        return (await _views([row]))[0]

    async def delete(self, actor: Actor, id: str) -> None:  # noqa: A002
        """The devices' twins stay as they are. Raises NotFound."""
        async with self._database.transaction():
            row = await self._row(id)
            await TwinTemplateRow.filter(id=id).delete()
            await self._audit.record(actor, "twin_template.delete", "twin_template", id, {"name": row.name}, None)

    async def get(self, id: str) -> TwinTemplate:  # noqa: A002
        """Raises NotFound."""
        return (await _views([await self._row(id)]))[0]

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[TwinTemplate]:
        """Newest first."""
        limit = page_limit(limit)
        rows = TwinTemplateRow.all()
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=await _views(found[:limit]),
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=await TwinTemplateRow.all().count(),
        )

    async def compliance(
        self,
        id: str,  # noqa: A002
        *,
        state: str = "",
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Compliance]:
        """Its devices, by id. Raises NotFound."""
        template = await self._row(id)
        limit = page_limit(limit)
        rows = TwinTemplateDeviceRow.filter(template_id=id)
        if state:
            rows = rows.filter(state=state)
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(device_id__gt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("device_id").limit(limit + 1)
        page, wanted = found[:limit], _wanted(template)
        twins = {twin.device_id: twin for twin in await TwinRow.filter(device_id__in=[row.device_id for row in page])}
        items = [
            Compliance(
                device_id=row.device_id,
                state=TemplateState(row.state),
                since=row.since,
                delta=delta(wanted, orjson.loads(twins[row.device_id].reported)) if row.device_id in twins else {},
                error=row.error or None,
            )
            for row in page
        ]
        next_cursor = encode_cursor(page[-1].device_id) if len(found) > limit else None
        return Page(items=items, next_cursor=next_cursor, total=total)

    # ---- following the twins

    def twin_changed(self, device_id: str) -> None:
        """Look at its rows soon; never waits."""
        if len(self._changed) < _CHANGED_LIMIT:
            self._changed.add(device_id)
        else:
            self._looked_at = 0

    async def work(self) -> None:
        """For the timers: hand out what is owed, then look at what has changed; each a turn's worth."""
        owed = await TwinTemplateDeviceRow.filter(state=TemplateState.OWED).order_by("id").limit(_PATCHES_A_TURN)
        templates = await _templates_of(owed)
        for row in owed:
            if row.template_id in templates:  # else deleted in between
                await self._patch(row, templates[row.template_id])
        device_ids = [self._changed.pop() for _ in range(min(len(self._changed), _CHECKS_A_TURN))]
        try:
            if device_ids:
                await self._check(await TwinTemplateDeviceRow.filter(device_id__in=device_ids))
        except BaseException:
            self._changed.update(device_ids)
            raise
        if self._looked_at is not None:
            rows = await TwinTemplateDeviceRow.filter(id__gt=self._looked_at).order_by("id").limit(_CHECKS_A_TURN)
            await self._check(rows)
            self._looked_at = rows[-1].id if rows else None

    async def _patch(self, row: TwinTemplateDeviceRow, template: TwinTemplateRow) -> None:
        actor = Actor(kind="system", id=f"template {template.name}"[:128])
        news: dict[str, Any]
        try:
            twin = await self._twins.patch_desired(actor, row.device_id, orjson.loads(template.desired))
        except NotFound:
            return  # its device is being deleted, and the row with it
        except (Invalid, Conflict) as error:
            news = {"state": TemplateState.REFUSED, "since": self._clock.utc(), "error": str(error)[:300]}
        else:
            is_there = not delta(_wanted(template), twin.reported)
            news = {"state": TemplateState.CONVERGED if is_there else TemplateState.PENDING, "since": twin.updated_at}
        await TwinTemplateDeviceRow.filter(id=row.id, state=TemplateState.OWED).update(**news)

    async def _check(self, rows: Sequence[TwinTemplateDeviceRow]) -> None:
        rows = [row for row in rows if row.state in (TemplateState.PENDING, TemplateState.CONVERGED)]
        if not rows:
            return
        templates = await _templates_of(rows)
        twins = {twin.device_id: twin for twin in await TwinRow.filter(device_id__in={row.device_id for row in rows})}
        for row in rows:
            if (twin := twins.get(row.device_id)) is None or row.template_id not in templates:
                continue  # deleted in between
            is_there = not delta(_wanted(templates[row.template_id]), orjson.loads(twin.reported))
            state = TemplateState.CONVERGED if is_there else TemplateState.PENDING
            if state != row.state:
                same = TwinTemplateDeviceRow.filter(id=row.id, state=row.state)
                await same.update(state=state, since=twin.updated_at)

    async def _owe(self, row: TwinTemplateRow, device_ids: Sequence[str], now: datetime) -> None:
        columns = ("template_id", "device_id", "state", "since", "error")
        owed = [(row.id, device_id, TemplateState.OWED.value, now, "") for device_id in device_ids]
        await self._database.insert("twin_template_device", columns, owed)

    async def _row(self, id: str) -> TwinTemplateRow:  # noqa: A002
        row = await TwinTemplateRow.get_or_none(id=id)
        if row is None:
            raise NotFound("twin template", id)
        return row


async def _members(target: Target) -> list[str]:
    """The ids of the target's devices. Raises Invalid."""
    if (target.tag is None) == (not target.ids):
        raise Invalid("target", "give either ids or a tag")
    if target.tag is not None:
        tagged = DeviceTagRow.filter(tag=target.tag).limit(DEVICES_LIMIT + 1)
        found = [str(each) for each in await tagged.values_list("device_id", flat=True)]
        if len(found) > DEVICES_LIMIT:
            raise Invalid("target/tag", f"more than {DEVICES_LIMIT} devices have it")
        return sorted(found)
    wanted = sorted(set(target.ids))
    if len(wanted) > IDS_LIMIT:
        raise Invalid("target/ids", f"are more than {IDS_LIMIT}")
    here = {str(each) for each in await DeviceRow.filter(id__in=wanted).values_list("id", flat=True)}
    for device_id in wanted:
        if device_id not in here:
            raise Invalid("target/ids", f"there is no device {device_id[:80]!r}")
    return wanted


async def _templates_of(rows: Sequence[TwinTemplateDeviceRow]) -> dict[str, TwinTemplateRow]:
    ids = {row.template_id for row in rows}
    return {each.id: each for each in await TwinTemplateRow.filter(id__in=ids)} if ids else {}


async def _views(rows: Sequence[TwinTemplateRow]) -> list[TwinTemplate]:
    """With their counts: one query, however many they are."""
    if not rows:
        return []
    counts = {row.id: dict.fromkeys(TemplateState, 0) for row in rows}
    grouped: list[dict[str, Any]] = (
        await TwinTemplateDeviceRow.filter(template_id__in=list(counts))
        .annotate(number=Count("id"))
        .group_by("template_id", "state")
        .values("template_id", "state", "number")
    )
    for group in grouped:
        counts[group["template_id"]][TemplateState(group["state"])] = group["number"]
    return [
        TwinTemplate(
            id=row.id,
            name=row.name,
            desired=orjson.loads(row.desired),
            target=_target(row),
            counts=counts[row.id],
            created_by=row.created_by,
            created_at=row.created_at,
            applied_at=row.applied_at,
        )
        for row in rows
    ]


def _target(row: TwinTemplateRow) -> Target:
    said = orjson.loads(row.target)
    return Target(ids=tuple(said.get("ids", ())), tag=said.get("tag"))


def _wanted(row: TwinTemplateRow) -> dict[str, Any]:
    """What a device is to report; of what is to be removed nothing."""
    wanted: dict[str, Any] = merge_patch({}, orjson.loads(row.desired))
    return wanted

"""Groups of devices: listed by hand or found by a query, and groups below groups, such as sites and their halls.

A group's devices are its own and those of all groups below it. Deleting a group deletes no device.
"""

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tortoise.exceptions import IntegrityError

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock, rfc3339
from fleet.database import Database
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound, PreconditionFailed
from fleet.group_tree import DEPTH_LIMIT, QUERIES_LIMIT
from fleet.ids import new_id
from fleet.limits import checked_prose, checked_text
from fleet.models import DeviceRow, GroupMemberRow, GroupRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.selections import parsed

GROUPS_LIMIT = 1_000
DESCRIPTION_LIMIT = 1_000
MEMBERS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """With a `query` its devices are those that match; without, those that were added. `parent`: the group above."""

    id: str
    name: str
    description: str
    query: str | None
    parent: str | None
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "type": "static" if self.query is None else "dynamic",
            "query": self.query,
            "parent": self.parent,
            "version": self.version,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


class Groups:
    """Make, find, change and delete groups; say who is in those without a query."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[Group]:
        """By name."""
        limit = page_limit(limit)
        rows = GroupRow.all()
        if cursor is not None:
            rows = rows.filter(name__gt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("name").limit(limit + 1)
        return Page(
            items=[_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].name) if len(found) > limit else None,
            total=await GroupRow.all().count(),
        )

    async def get(self, id: str) -> Group:  # noqa: A002
        """Raises NotFound."""
        return _view(await _row(id))

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        description: str = "",
        query: str | None = None,
        parent: str | None = None,
    ) -> Group:
        """Raises AlreadyExists, Invalid, and Conflict beyond 1,000 groups, 8 levels or 50 queries in a tree."""
        now = self._clock.utc()
        row = GroupRow(
            id=new_id(),
            name=checked_text("name", name),
            description=checked_prose("description", description, limit=DESCRIPTION_LIMIT),
            query=_checked_query(query) if query is not None else "",
            parent_id=parent,
            version=1,
            created_by=actor.id,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._database.transaction():
                if await GroupRow.all().count() >= GROUPS_LIMIT:
                    raise Conflict(f"there are {GROUPS_LIMIT:,} groups already")
                await row.save(force_create=True)
                await _check_tree(row.id)
                await self._audit.record(actor, "group.create", "group", row.id, None, _audited(row))
        except IntegrityError as error:
            raise AlreadyExists("group", row.name) from error
        return _view(row)

    async def update(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        *,
        name: str | None = None,
        description: str | None = None,
        query: str | None = None,
        parent: str | None = None,
        if_version: int | None = None,
    ) -> Group:
        """Change what is not None; an empty `parent` takes the group to the top.

        Raises NotFound, AlreadyExists, Invalid, Conflict, and PreconditionFailed when it is not of `if_version`.
        """
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = checked_text("name", name)
        if description is not None:
            changes["description"] = checked_prose("description", description, limit=DESCRIPTION_LIMIT)
        if query is not None:
            changes["query"] = _checked_query(query)
        if parent is not None:
            changes["parent_id"] = parent or None
        try:
            async with self._database.transaction():
                row = await _row(id)
                before = _audited(row)
                if if_version is not None and if_version != row.version:
                    raise PreconditionFailed(row.version)
                if query is not None and not row.query:
                    raise Invalid("query", "this group has the devices that are added to it")
                if all(getattr(row, key) == value for key, value in changes.items()):
                    return _view(row)
                changes |= {"version": row.version + 1, "updated_at": self._clock.utc()}
                if not await GroupRow.filter(id=id, version=row.version).update(**changes):
                    raise Conflict("somebody else changed it at the same time: try again")
                row.update_from_dict(changes)
                await _check_tree(id)
                await self._audit.record(actor, "group.update", "group", id, before, _audited(row))
        except IntegrityError as error:
            raise AlreadyExists("group", str(name)) from error
        return _view(row)

    async def delete(self, actor: Actor, id: str, *, if_version: int | None = None) -> None:  # noqa: A002
        """Its devices stay. Raises NotFound, PreconditionFailed, and Conflict while there are groups below it."""
        async with self._database.transaction():
            row = await _row(id)
            if if_version is not None and if_version != row.version:
                raise PreconditionFailed(row.version)
            if below := await GroupRow.filter(parent_id=id).count():
                raise Conflict(f"there {'is a group' if below == 1 else f'are {below} groups'} below it")
            await GroupRow.filter(id=id).delete()
            await self._audit.record(actor, "group.delete", "group", id, _audited(row), None)

    async def add(self, actor: Actor, id: str, devices: Sequence[str]) -> int:  # noqa: A002
        """How many were not in it before; all or none. Raises NotFound (the group), Invalid, Conflict (a query)."""
        wanted = list(dict.fromkeys(devices))
        if len(wanted) > MEMBERS_AT_ONCE:
            raise Invalid("devices", f"are more than {MEMBERS_AT_ONCE:,}")
        async with self._database.transaction():
            await _listed(id)
            known = {row.id for row in await DeviceRow.filter(id__in=wanted).only("id")}
            if unknown := [each for each in wanted if each not in known]:
                raise Invalid("devices", f"there is no device {unknown[0]!r}")
            there = await GroupMemberRow.filter(group_id=id, device_id__in=wanted)
            news = [each for each in wanted if each not in {row.device_id for row in there}]
            rows = [(id, each) for each in news]
            await self._database.insert("group_member", ("group_id", "device_id"), rows)
            if news:
                await self._audit.record(actor, "group.add", "group", id, None, {"devices": news})
        return len(news)

    async def remove(self, actor: Actor, id: str, device_id: str) -> None:  # noqa: A002
        """Raises NotFound (the group, or the device in it), Conflict (a query)."""
        async with self._database.transaction():
            await _listed(id)
            if not await GroupMemberRow.filter(group_id=id, device_id=device_id).delete():
                raise NotFound("device in this group", device_id)
            await self._audit.record(actor, "group.remove", "group", id, {"devices": [device_id]}, None)


async def _row(id_: str) -> GroupRow:
    row = await GroupRow.get_or_none(id=id_)
    if row is None:
        raise NotFound("group", id_)
    return row


async def _listed(id_: str) -> None:
    if (await _row(id_)).query:
        raise Conflict("the devices of this group follow from its query")


async def _check_tree(id_: str) -> None:
    """The tree that the group is in now is none that goes round, or too deep, or too dear. In its transaction."""
    # Whoever else moves groups waits: two moves that are right each by itself can make a circle together.
    rows = await GroupRow.all().order_by("id").select_for_update()
    parents = {row.id: row.parent_id for row in rows}
    if parents[id_] is not None and parents[id_] not in parents:
        raise Invalid("parent", "there is no such group")
    above = _path(id_, parents)
    top, queries = above[-1], 0
    for row in rows:
        path = _path(row.id, parents)
        if path[-1] != top:
            continue
        if len(path) > DEPTH_LIMIT:
            raise Conflict(f"groups are at most {DEPTH_LIMIT} deep inside one another")
        queries += bool(row.query)
    if queries > QUERIES_LIMIT:
        raise Conflict(f"a group and those below it have at most {QUERIES_LIMIT} queries")


def _path(id_: str, parents: dict[str, str | None]) -> builtins.list[str]:
    """The group and all above it. Raises Conflict when that goes round."""
    path: builtins.list[str] = []
    at: str | None = id_
    while at is not None and at in parents:
        if at in path:
            raise Conflict("a group cannot be inside itself")
        path.append(at)
        at = parents[at]
    return path


def _checked_query(query: str) -> str:
    parsed(query)
    return query.strip()


def _audited(row: GroupRow) -> dict[str, Any]:
    return {"name": row.name, "description": row.description, "query": row.query or None, "parent": row.parent_id}


def _view(row: GroupRow) -> Group:
    return Group(
        id=row.id,
        name=row.name,
        description=row.description,
        query=row.query or None,
        parent=row.parent_id,
        version=row.version,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

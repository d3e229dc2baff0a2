"""Groups below groups: which belong to one, and what of the devices that means."""

from datetime import datetime

from fleet.errors import Conflict, NotFound
from fleet.models import GroupRow
from fleet.query import parse
from fleet.query.sql import Condition, any_of, condition_of

DEPTH_LIMIT = 8  # groups inside one another
QUERIES_LIMIT = 50  # queries in a tree: each is looked at whenever the tree's members are asked for


async def tree_below(group_id: str) -> list[tuple[str, str]]:
    """(id, query) of the group and of all below it. Raises NotFound."""
    rows = {str(row[0]): row for row in await GroupRow.all().values_list("id", "parent_id", "query")}
    if group_id not in rows:
        raise NotFound("group", group_id)
    children: dict[str, list[str]] = {}
    for id_, parent, _ in rows.values():
        if parent is not None:
            children.setdefault(str(parent), []).append(str(id_))
    found: dict[str, None] = {}
    waiting = [group_id]
    while waiting:
        id_ = waiting.pop()
        if id_ not in found:
            found[id_] = None
            waiting += children.get(id_, [])
    return [(id_, str(rows[id_][2])) for id_ in found]


async def group_condition(group_id: str, *, now: datetime, postgres: bool) -> Condition:
    """The devices of the group and of all below it. Raises NotFound, Conflict."""
    tree = await tree_below(group_id)
    lists = tuple(id_ for id_, query in tree if not query)
    queries = [query for _, query in tree if query]
    if len(queries) > QUERIES_LIMIT:
        raise Conflict(f"the group and those below it have more than {QUERIES_LIMIT} queries")
    conditions = [condition_of(parse(query), now=now, postgres=postgres) for query in queries]
    if lists:
        places = ", ".join("?" * len(lists))
        conditions.append(
            Condition(f"id IN (SELECT device_id FROM group_member WHERE group_id IN ({places}))", lists)  # noqa: S608
        )
    return any_of(conditions)

"""Which devices are meant: by filters, a query, a group; and pages of them in order.

The statements are written here and not by the models, which know neither row values nor GLOB. Every value is a
parameter.
"""

from datetime import datetime, timedelta

from fleet.clock import EPOCH, Clock
from fleet.database import Database
from fleet.errors import Invalid
from fleet.group_tree import group_condition
from fleet.models import DeviceRow
from fleet.page import decode_cursor, encode_cursor
from fleet.query import QueryError, Term, parse
from fleet.query.sql import Condition, all_of, any_of, condition_of
from fleet.views import DeviceStatus

SEARCH_LIMIT = 128  # characters of a search
_SORTS = {"id": "id", "name": "name", "last_seen": "last_seen_at", "status": "status", "firmware": "firmware"}
_SEARCHED = ("id", "name", "tags", "attributes")


def parsed(query: str, field: str = "query") -> Term:
    """Raises Invalid, which names the column."""
    try:
        return parse(query)
    except QueryError as error:
        raise Invalid(field, str(error)) from error


class Selections:
    """Conditions over the devices, and what they give."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def condition(
        self,
        *,
        q: str = "",
        tag: str = "",
        status: str = "",
        firmware: str = "",
        query: str = "",
        group: str = "",
    ) -> Condition:
        """All of what is given has to hold. Raises Invalid, NotFound (the group)."""
        now, postgres = self._clock.utc(), self._database.is_postgres
        if status and status not in set(DeviceStatus):
            raise Invalid("status", f"must be one of {', '.join(DeviceStatus)}")
        conditions = []
        if q:
            conditions.append(self._search(q[:SEARCH_LIMIT]))
        if tag:
            conditions.append(Condition("id IN (SELECT device_id FROM device_tag WHERE tag = ?)", (tag,)))
        if status:
            conditions.append(Condition("status = ?", (status,)))
        if firmware:
            conditions.append(Condition("firmware = ?", (firmware,)))
        if query:
            conditions.append(condition_of(parsed(query), now=now, postgres=postgres))
        if group:
            conditions.append(await group_condition(group, now=now, postgres=postgres))
        return all_of(conditions)

    async def count(self, condition: Condition) -> int:
        rows = await self._database.execute(
            f"SELECT COUNT(*) AS number FROM device WHERE {condition.sql}",  # noqa: S608
            condition.values,
        )
        return int(rows[0]["number"])

    async def page(
        self, condition: Condition, *, sort: str, cursor: str | None, limit: int, with_total: bool
    ) -> tuple[list[DeviceRow], int | None]:
        """At most `limit` + 1 devices behind the cursor, and how many there are in all. Raises Invalid."""
        column, descending = _order(sort)
        behind = condition if cursor is None else all_of([condition, _after(column, descending, cursor)])
        direction = "DESC" if descending else "ASC"
        order = ", ".join(f"{each} {direction}" for each in dict.fromkeys((column, "id")))
        found = await self._database.execute(
            f"SELECT id FROM device WHERE {behind.sql} ORDER BY {order} LIMIT {limit + 1:d}",  # noqa: S608
            behind.values,
        )
        total = None
        if with_total:
            # All that there are may be on the first page: then they are counted already.
            is_all = cursor is None and len(found) <= limit
            total = len(found) if is_all else await self.count(condition)
        ids = [str(row["id"]) for row in found]
        rows = {row.id: row for row in await DeviceRow.filter(id__in=ids)} if ids else {}
        # One that was deleted in between is gone.
        return [rows[id_] for id_ in ids if id_ in rows], total

    def _search(self, text: str) -> Condition:
        """Part of an id, a name, a tag or the attributes, whatever the capitals."""
        if "\0" in text:
            raise Invalid("q", "holds a control character")
        escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        like = "ILIKE" if self._database.is_postgres else "LIKE"
        return any_of([Condition(f"{column} {like} ? ESCAPE '\\'", (f"%{escaped}%",)) for column in _SEARCHED])


def cursor_of(sort: str, row: DeviceRow) -> str:
    """Where the page behind this device begins."""
    value = getattr(row, _order(sort)[0])
    if isinstance(value, datetime):
        value = (value - EPOCH) // timedelta(microseconds=1)
    return encode_cursor(value, row.id)


def _order(sort: str) -> tuple[str, bool]:
    descending, key = sort.startswith("-"), sort.removeprefix("-")
    if key not in _SORTS:
        raise Invalid("sort", f"must be one of {', '.join(_SORTS)}, perhaps with - before it")
    return _SORTS[key], descending


def _after(column: str, descending: bool, cursor: str) -> Condition:
    """The devices behind a cursor, in the order of `column` and then id."""
    sign = "<" if descending else ">"
    if column == "id":
        return Condition(f"id {sign} ?", (_storable(decode_cursor(cursor, str, str)[1]),))
    if column != "last_seen_at":
        value, id_ = decode_cursor(cursor, str, str)
        return Condition(f"({column}, id) {sign} (?, ?)", (_storable(value), _storable(id_)))
    micros, id_ = decode_cursor(cursor, int, str)
    try:
        instant = EPOCH + timedelta(microseconds=micros)
    except OverflowError as error:
        raise Invalid("cursor", "is not one that this server gave out") from error
    return Condition(f"({column}, id) {sign} (?, ?)", (instant, _storable(id_)))


def _storable(text: str) -> str:
    if "\0" in text:
        raise Invalid("cursor", "is not one that this server gave out")
    return text

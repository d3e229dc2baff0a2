"""The audit: who changed what, when and from where, written in the transaction of the change itself."""

from typing import Any

import orjson

from fleet.actor import Actor
from fleet.clock import Clock
from fleet.ids import new_id
from fleet.limits import peer_text
from fleet.models import ADDRESS, NAME, AuditRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.views import AuditEntry


class Audit:
    """Append only, but for the oldest entries beyond the limit."""

    def __init__(self, clock: Clock, *, limit: int) -> None:
        self._clock = clock
        self._limit = limit

    async def record(
        self,
        actor: Actor,
        action: str,
        target_kind: str,
        target_id: str,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        """Call it inside the change's transaction. `before` and `after` never hold secrets."""
        await AuditRow.create(
            id=new_id(),
            at=self._clock.utc(),
            actor_kind=actor.kind,
            actor_id=peer_text(actor.id, NAME),
            actor_address=peer_text(actor.address, ADDRESS),
            action=action,
            target_kind=target_kind,
            target_id=peer_text(target_id, NAME),
            before=None if before is None else orjson.dumps(before).decode(),
            after=None if after is None else orjson.dumps(after).decode(),
        )

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
        """Newest first. `action` may be a prefix such as "device."; `actor` is an actor's id."""
        limit = page_limit(limit)
        rows = AuditRow.all()
        if actor:
            rows = rows.filter(actor_id=actor)
        if action:
            rows = rows.filter(action__startswith=action)
        if target_kind:
            rows = rows.filter(target_kind=target_kind)
        if target_id:
            rows = rows.filter(target_id=target_id)
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=[_entry(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=total,
        )

    async def prune(self) -> None:
        """Drop the oldest entries beyond the limit."""
        oldest_kept = await AuditRow.all().order_by("-id").offset(self._limit).limit(1).values_list("id", flat=True)
        if oldest_kept:
            await AuditRow.filter(id__lte=oldest_kept[0]).delete()


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        actor=Actor(kind=row.actor_kind, id=row.actor_id, address=row.actor_address),  # type: ignore[arg-type]
        action=row.action,
        target_kind=row.target_kind,
        target_id=row.target_id,
        before=None if row.before is None else orjson.loads(row.before),
        after=None if row.after is None else orjson.loads(row.after),
    )

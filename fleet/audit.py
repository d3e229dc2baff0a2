"""The audit: who changed what, when and from where, written in the transaction of the change itself.

Entries are chained (audit_chain.py): each takes the chain's head, which is one row, so that two writers come one after
the other. The head is taken right before the commit and held no longer; with nothing locked after it, no two
transactions can wait for each other here.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import orjson
from tortoise.expressions import Q

from fleet.actor import SYSTEM, Actor
from fleet.audit_chain import COLUMNS, PRUNE, START, Link, Mark, Report, Walk, canonical_time, link_of, pruned
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import Conflict
from fleet.ids import new_id
from fleet.limits import peer_text
from fleet.models import ADDRESS, NAME, AuditChainRow, AuditRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.views import AuditEntry

logger = logging.getLogger(__name__)

_CHAIN = 1  # the id of the one row of audit_chain
_WALK_ROWS = 1_000
_WALK_TRIES = 3  # another node may drop the oldest entries meanwhile, as often as that in no time


class Audit:
    """Append only, but for the oldest entries beyond the limit."""

    def __init__(self, *, database: Database, clock: Clock, limit: int) -> None:
        self._database = database
        self._clock = clock
        self._limit = limit
        self._pruning = asyncio.Lock()

    async def record(
        self,
        actor: Actor,
        action: str,
        target_kind: str,
        target_id: str,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        """Call it inside the change's transaction: the entry is written with its commit, or not at all.

        `before` and `after` never hold secrets.
        """
        link = Link(
            seq=0,
            prev="",
            id=new_id(),
            at=canonical_time(self._clock.utc()),
            actor_kind=actor.kind,
            actor_id=peer_text(actor.id, NAME),
            actor_address=peer_text(actor.address, ADDRESS),
            action=action,
            target_kind=target_kind,
            target_id=peer_text(target_id, NAME),
            before=None if before is None else orjson.dumps(before).decode(),
            after=None if after is None else orjson.dumps(after).decode(),
        )
        if not self._database.before_commit(partial(self._append, link)):
            async with self._database.transaction():
                await self._append(link)

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
        """Newest first. `action` may be a prefix such as "device."; `actor` is an actor's id, its API keys included."""
        limit = page_limit(limit)
        rows = AuditRow.all()
        if actor:
            rows = rows.filter(Q(actor_id=actor) | Q(actor_id__startswith=f"{actor}/"))
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
        """Drop the oldest entries beyond the limit, and say so in the audit.

        A hundredth more than the limit is let stand: where nothing new comes, nothing is to be dropped either.
        """
        async with self._pruning:
            head, anchor = await self._ends()
            if not self._is_long(head, anchor):
                return
            async with self._database.transaction():
                # The chain is taken first, and looked at again: another node may prune as well.
                head, anchor = _ends_of(
                    await self._database.execute(
                        "UPDATE audit_chain SET anchor_seq = anchor_seq WHERE id = ? RETURNING *", (_CHAIN,)
                    )
                )
                if not self._is_long(head, anchor):
                    return
                row = await AuditRow.get_or_none(seq=head.seq - self._limit)
                if row is None or row.digest is None:
                    logger.error("the audit is not pruned: entry %d is missing", head.seq - self._limit)
                    return
                through = Mark(seq=head.seq - self._limit, digest=row.digest)
                await AuditRow.filter(seq__lte=through.seq).delete()
                await self._database.execute(
                    "UPDATE audit_chain SET anchor_seq = ?, anchor_digest = ? WHERE id = ? RETURNING id",
                    (through.seq, through.digest, _CHAIN),
                )
                await self.record(SYSTEM, PRUNE, "audit", str(through.seq), pruned(through), None)

    def _is_long(self, head: Mark, anchor: Mark) -> bool:
        return head.seq - anchor.seq > self._limit + self._limit // 100 + 1

    async def head(self) -> Mark:
        """The newest entry: kept elsewhere, it shows later whether the chain was cut off or written anew."""
        return (await self._ends())[0]

    async def anchor(self) -> Mark:
        """The newest entry that was dropped for its age."""
        return (await self._ends())[1]

    async def export(self) -> AsyncGenerator[bytes, None]:
        """All entries, oldest first, as lines of JSON that can be checked elsewhere; a thousand at a time."""
        head, anchor = await self._ends()
        async for rows in self.links(anchor, head):
            yield b"".join(_line(row) for row in rows)

    async def verify(self, known: Mark | None = None) -> Report:
        """Walk along the whole chain, while it grows. `known`: a head that was kept elsewhere.

        Raises Conflict while another one is under way.
        """
        if self._pruning.locked():
            raise Conflict("the audit is being checked or pruned: try again")
        async with self._pruning:
            for _ in range(_WALK_TRIES):
                head, anchor = await self._ends()
                report = await self._walk(head, anchor, known)
                if report.ok or (await self._ends())[1] == anchor:
                    break
            return report

    async def links(self, anchor: Mark, head: Mark | None = None) -> AsyncIterator[Sequence[dict[str, Any]]]:
        """The rows after `anchor` up to `head`, by number, a thousand at a time: as they are, for export and check."""
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        after = anchor.seq
        until = 2**63 - 1 if head is None else head.seq
        while True:
            rows = await self._database.execute(
                f"SELECT {names} FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {_WALK_ROWS}",  # noqa: S608
                (after, until),
            )
            if rows:
                yield rows
            if len(rows) < _WALK_ROWS or type(rows[-1]["seq"]) is not int:
                return
            after = rows[-1]["seq"]

    async def _walk(self, head: Mark, anchor: Mark, known: Mark | None) -> Report:
        walk = Walk(anchor, known=known)
        async for rows in self.links(anchor, head):
            for row in rows:
                walk.step(row)
            await asyncio.sleep(0)  # a thousand hashes take some ms
        report = walk.end(head)
        [stray] = await self._database.execute(
            "SELECT count(*) AS number FROM audit WHERE seq IS NULL OR seq <= ?"
            " OR seq > coalesce((SELECT head_seq FROM audit_chain WHERE id = ?), 0)",
            (anchor.seq, _CHAIN),
        )
        if stray["number"]:
            report.add(None, f"{stray['number']} entries are outside the chain: they were not written by the server")
        return report

    async def _ends(self) -> tuple[Mark, Mark]:
        return _ends_of(await self._database.execute("SELECT * FROM audit_chain WHERE id = ?", (_CHAIN,)))

    async def _append(self, link: Link) -> None:
        """Put an entry at the end. Inside a transaction, which holds the head from here to its commit."""
        taken = await self._database.execute(
            "UPDATE audit_chain SET head_seq = head_seq + 1 WHERE id = ? RETURNING head_seq, head_digest", (_CHAIN,)
        )
        if not taken:
            await self._begin_anew()
            return await self._append(link)
        [head] = taken
        row = link.json() | {"seq": head["head_seq"], "prev": head["head_digest"]}
        digest = link_of(row).computed()
        await AuditRow.create(**row | {"digest": digest, "at": datetime.fromisoformat(link.at)})
        await self._database.execute(
            "UPDATE audit_chain SET head_digest = ? WHERE id = ? RETURNING id", (digest, _CHAIN)
        )
        return None

    async def _begin_anew(self) -> None:
        """Somebody has taken the head away: go on after what is there, and leave the finding to `verify`."""
        logger.error("the audit's chain had lost its head: run `mooring audit verify`")
        newest = await AuditRow.filter(seq__not_isnull=True).order_by("-seq").first()
        head = START if newest is None else Mark(seq=newest.seq or 0, digest=newest.digest or "")
        await AuditChainRow.create(
            id=_CHAIN,
            head_seq=head.seq,
            head_digest=head.digest,
            anchor_seq=START.seq,
            anchor_digest=START.digest,
        )


def _ends_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Mark, Mark]:
    """(head, anchor)"""
    if not rows:
        return START, START  # who has taken the row away finds all entries called strays
    [row] = rows
    return (
        Mark(seq=row["head_seq"], digest=row["head_digest"]),
        Mark(seq=row["anchor_seq"], digest=row["anchor_digest"]),
    )


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(link_of(row).json(), option=orjson.OPT_APPEND_NEWLINE)
    except (ValueError, TypeError):  # somebody changed it: it is shown as it is, and no check will take it
        return orjson.dumps(dict(row), default=repr, option=orjson.OPT_APPEND_NEWLINE)


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

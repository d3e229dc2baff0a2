"""Imports of devices: a file is taken in whole, then worked off in turns, each of them one short transaction.

A turn writes its devices and what became of them together, so that one that is broken off, by kill -9 too, is done
again as if it had never begun. Tokens are made when they are handed out, and kept by nobody: what is at rest is
their hash. Nodes that share a database work on an import by turns.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import orjson
from tortoise.exceptions import IntegrityError

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.credentials import VALID_LIMIT, Credentials
from fleet.database import Database, log_failure
from fleet.device_batches import DeviceBatches, Verdict
from fleet.device_file import DeviceFile, Entry, FileForm
from fleet.device_import_views import DeviceImport, ImportedRow, ImportStatus, OnConflict, Outcome
from fleet.devices import Devices
from fleet.errors import Conflict, NotFound
from fleet.ids import new_id
from fleet.models import CredentialRow, DeviceImportEntryRow, DeviceImportRow, DeviceRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.presence import Presence
from fleet.views import DeviceStatus

logger = logging.getLogger(__name__)

UNFINISHED_LIMIT = 4
KEPT = 20  # ended imports; the oldest go, with what became of their devices
_TURN = 50  # devices a transaction: some 50 ms in which nobody else writes to SQLite
_KEPT_IN_HAND = 500  # devices read of a file and not written yet
_TRIES = 10  # others wrote the same devices
_LOOK_S = 5.0  # for imports of a node that died, and after trouble with the database
_RECEIVING = timedelta(hours=1)  # a file that takes longer than this to come has no sender any more


_AT_WORK = (ImportStatus.RUNNING.value, ImportStatus.UNDOING.value)


class Receiving:
    """A file on its way in: `feed` it, then `finish`; `abandon` when that did not come about. Raises Invalid."""

    def __init__(self, row: DeviceImportRow, form: FileForm, database: Database) -> None:
        self._row = row
        self._file = DeviceFile(form)
        self._database = database
        self._entries: list[Entry] = []
        self.is_done = False

    async def feed(self, chunk: bytes) -> None:
        self._entries += self._file.feed(chunk)
        if len(self._entries) >= _KEPT_IN_HAND:
            await self._put()

    async def finish(self) -> None:
        self._entries += self._file.finish()
        await self._put()

    async def abandon(self) -> None:
        """Nothing of it is left, if it was not taken over."""
        if not self.is_done:
            await DeviceImportRow.filter(id=self._row.id, status=ImportStatus.RECEIVING).delete()

    async def _put(self) -> None:
        entries, self._entries = self._entries, []
        columns = ("owner_id", "line", "device_id", "given", "outcome", "column", "reason", "is_handed_out")
        rows = [
            (
                self._row.id,
                each.line,
                each.id,
                orjson.dumps(each.fields).decode(),
                Outcome.REFUSED.value if each.reason else Outcome.PENDING.value,
                each.column,
                each.reason,
                False,
            )
            for each in entries
        ]
        if rows:
            await self._database.insert("device_import_entry", columns, rows)


class DeviceImports:
    """Take in, follow, cancel and undo imports; `start()` works on them until `stop()`."""

    def __init__(
        self,
        *,
        database: Database,
        batches: DeviceBatches,
        devices: Devices,
        credentials: Credentials,
        presence: Presence,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._database = database
        self._batches = batches
        self._devices = devices
        self._credentials = credentials
        self._presence = presence
        self._audit = audit
        self._clock = clock
        self._news = asyncio.Event()
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Files that were on their way when the server stopped are forgotten: nothing had been done of them."""
        broken_off = DeviceImportRow.filter(status=ImportStatus.RECEIVING)
        if self._database.is_shared:
            broken_off = broken_off.filter(created_at__lt=self._clock.utc() - _RECEIVING)
        await broken_off.delete()
        self._is_stopping = False
        self._news.set()
        self._task = asyncio.create_task(self._work(), name="device imports")

    async def stop(self) -> None:
        """The turn at hand is finished; the rest is gone on with at the next start."""
        self._is_stopping = True
        self._news.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def receive(self, actor: Actor, form: FileForm, *, on_conflict: OnConflict, dry_run: bool) -> Receiving:
        """Raises Conflict when too many are unfinished."""
        row = DeviceImportRow(
            id=new_id(),
            status=ImportStatus.RECEIVING,
            on_conflict=on_conflict,
            dry_run=dry_run,
            actor_kind=actor.kind,
            created_by=actor.id,
            address=actor.address,
            created_at=self._clock.utc(),
        )
        async with self._database.transaction():
            unfinished = DeviceImportRow.filter(status__in=(*_AT_WORK, ImportStatus.RECEIVING.value))
            if await unfinished.count() >= UNFINISHED_LIMIT:
                raise Conflict(f"{UNFINISHED_LIMIT} imports are unfinished: wait or cancel some")
            await row.save(force_create=True)
        return Receiving(row, form, self._database)

    async def begin(self, actor: Actor, receiving: Receiving) -> DeviceImport:
        """The file is whole: now it is worked off, whatever becomes of its sender."""
        row = receiving._row
        async with self._database.transaction():
            receiving_row = DeviceImportRow.filter(id=row.id, status=ImportStatus.RECEIVING)
            if not await receiving_row.update(status=ImportStatus.RUNNING):
                raise Conflict("the import was given up while it came")
            total = await DeviceImportEntryRow.filter(owner_id=row.id).count()
            after = {"devices": total, "on_conflict": row.on_conflict, "dry_run": row.dry_run}
            await self._audit.record(actor, "device_import.create", "device_import", row.id, None, after)
        receiving.is_done = True
        ended = (
            await DeviceImportRow.exclude(finished_at=None).exclude(status__in=_AT_WORK).order_by("-id").offset(KEPT)
        )
        for old in ended:
            await old.delete()
        self._news.set()
        return await self.get(row.id)

    async def get(self, id: str) -> DeviceImport:  # noqa: A002
        """Raises NotFound."""
        row = await _row(id)
        found = await self._database.execute(
            "SELECT outcome, COUNT(*) AS number FROM device_import_entry WHERE owner_id = ? GROUP BY outcome", (id,)
        )
        counts = dict.fromkeys(Outcome, 0) | {Outcome(each["outcome"]): int(each["number"]) for each in found}
        return DeviceImport(
            id=row.id,
            status=ImportStatus(row.status),
            on_conflict=OnConflict(row.on_conflict),
            dry_run=row.dry_run,
            total=sum(counts.values()),
            counts=counts,
            created_by=row.created_by,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )

    async def rows(
        self,
        id: str,  # noqa: A002
        *,
        outcome: str = "",
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[ImportedRow]:
        """In the order of the file. Raises NotFound, Invalid."""
        await _row(id)
        limit = page_limit(limit)
        rows = DeviceImportEntryRow.filter(owner_id=id)
        if outcome:
            rows = rows.filter(outcome=outcome)
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(id__gt=decode_cursor(cursor, int)[0])
        found = await rows.order_by("id").limit(limit + 1)
        return Page(
            items=[
                ImportedRow(
                    line=row.line,
                    device_id=row.device_id,
                    outcome=Outcome(row.outcome),
                    column=row.column,
                    reason=row.reason,
                )
                for row in found[:limit]
            ],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=total,
        )

    async def cancel(self, actor: Actor, id: str) -> DeviceImport:  # noqa: A002
        """What is done stays done, until it is undone. Raises NotFound, Conflict (it is not running)."""
        async with self._database.transaction():
            row = await _row(id)
            ended: dict[str, Any] = {"status": ImportStatus.CANCELLED, "finished_at": self._clock.utc()}
            if not await DeviceImportRow.filter(id=id, status=ImportStatus.RUNNING).update(**ended):
                raise Conflict(f"the import is {row.status}")
            entries = DeviceImportEntryRow.filter(owner_id=id, outcome=Outcome.PENDING)
            await entries.update(outcome=Outcome.CANCELLED)
            await self._audit.record(actor, "device_import.cancel", "device_import", id)
        return await self.get(id)

    async def undo(self, actor: Actor, id: str) -> DeviceImport:  # noqa: A002
        """Delete the devices that it created and that were never seen. Raises NotFound, Conflict."""
        async with self._database.transaction():
            row = await _row(id)
            if row.dry_run:
                raise Conflict("a dry run did nothing that could be undone")
            ended = DeviceImportRow.filter(
                id=id, status__in=(ImportStatus.FINISHED.value, ImportStatus.CANCELLED.value)
            )
            news = {"status": ImportStatus.UNDOING, "created_by": actor.id, "address": actor.address}
            if not await ended.update(**news, actor_kind=actor.kind):
                raise Conflict(f"the import is {row.status}")
            await self._audit.record(actor, "device_import.undo", "device_import", id)
        self._news.set()
        return await self.get(id)

    async def hand_out(self, actor: Actor, id: str, *, again: bool = False) -> AsyncIterator[tuple[str, str]]:  # noqa: A002
        """(device id, token) of each device that it created; a token is made now, and given out this once.

        `again` makes others in place of those that no device has used, for who never got the first answer.
        Raises NotFound, Conflict.
        """
        row = await _row(id)
        if row.dry_run or row.status not in (ImportStatus.FINISHED, ImportStatus.CANCELLED):
            raise Conflict("a dry run creates no devices" if row.dry_run else f"the import is {row.status}")
        await self._audit.record(actor, "device_import.credentials", "device_import", id, None, {"again": again})
        return self._tokens(id, again=again)

    async def _tokens(self, id_: str, *, again: bool) -> AsyncIterator[tuple[str, str]]:
        after = 0
        while True:
            given: list[tuple[str, str]] = []
            async with self._database.transaction():
                await self._take_turn(id_, (ImportStatus.FINISHED, ImportStatus.CANCELLED))
                entries = DeviceImportEntryRow.filter(owner_id=id_, outcome=Outcome.CREATED, id__gt=after)
                if not again:
                    entries = entries.filter(is_handed_out=False)
                found = await entries.order_by("id").limit(_TURN)
                for entry in found:
                    token = await self._token(entry.device_id, replace=entry.is_handed_out)
                    if token is not None:
                        given.append((entry.device_id, token))
                await DeviceImportEntryRow.filter(id__in=[entry.id for entry in found]).update(is_handed_out=True)
            if not found:
                return
            after = found[-1].id
            if again:
                for device_id, _ in given:
                    self._credentials.forget_device(device_id)
            for pair in given:
                yield pair

    async def _token(self, device_id: str, *, replace: bool) -> str | None:
        """None: the device is gone, has been here, or has as many tokens as it may."""
        if not await DeviceRow.exists(id=device_id):
            return None
        valid = CredentialRow.filter(device_id=device_id, revoked_at=None)
        if replace:
            if await self._why_kept(device_id) or await valid.exclude(last_used_at=None).exists():
                return None
            await valid.update(revoked_at=self._clock.utc())
        elif await valid.count() >= VALID_LIMIT:
            return None
        _, token = await self._credentials.issue(device_id)
        return token

    # ---- the work

    async def _work(self) -> None:
        while not self._is_stopping:
            self._news.clear()
            try:
                for row in await DeviceImportRow.filter(status__in=_AT_WORK).order_by("id"):
                    turn = self._undo_turn if row.status == ImportStatus.UNDOING else self._turn
                    while not self._is_stopping and await turn(row):
                        pass
            except Exception as error:
                log_failure(logger, error, "device imports: broke off; tried again in %.0f s", _LOOK_S)
            try:
                await asyncio.wait_for(self._news.wait(), _LOOK_S)
            except TimeoutError:
                continue

    async def _turn(self, row: DeviceImportRow) -> bool:
        """Whether there is more to do."""
        for _ in range(_TRIES):
            try:
                return await self._write(row)
            except _NotNow:
                return False
            except (IntegrityError, Conflict):
                continue  # somebody else wrote the same devices
        raise Conflict("others write the same devices all the time")

    async def _write(self, row: DeviceImportRow) -> bool:
        actor = _actor(row)
        async with self._database.transaction():
            await self._take_turn(row.id, (ImportStatus.RUNNING,))
            entries = DeviceImportEntryRow.filter(owner_id=row.id, outcome=Outcome.PENDING)
            found = await entries.order_by("id").limit(_TURN)
            if not found:
                ended = {"status": ImportStatus.FINISHED, "finished_at": self._clock.utc()}
                await DeviceImportRow.filter(id=row.id).update(**ended)
                return False
            wanted = [(entry.device_id, orjson.loads(entry.given)) for entry in found]
            on_conflict = OnConflict(row.on_conflict)
            batch = await self._batches.write(actor, wanted, on_conflict, self._clock.utc(), dry_run=row.dry_run)
            await _note(found, batch.verdicts)
        if not row.dry_run:
            await self._batches.tell(actor, batch)
        return True

    async def _undo_turn(self, row: DeviceImportRow) -> bool:
        entries = DeviceImportEntryRow.filter(owner_id=row.id, outcome=Outcome.CREATED)
        found = await entries.order_by("id").limit(_TURN)
        if not found:
            news = {"status": ImportStatus.UNDONE, "finished_at": self._clock.utc()}
            await DeviceImportRow.filter(id=row.id, status=ImportStatus.UNDOING).update(**news)
            return False
        for entry in found:
            why = await self._why_kept(entry.device_id, row)
            if not why:
                with suppress(NotFound):  # deleted already, perhaps by us before we were killed
                    await self._devices.delete(_actor(row), entry.device_id)
            outcome = Outcome.KEPT if why else Outcome.DELETED
            await DeviceImportEntryRow.filter(id=entry.id).update(outcome=outcome, reason=why)
        return not self._is_stopping

    async def _why_kept(self, device_id: str, row: DeviceImportRow | None = None) -> str:
        """Why undoing the import leaves a device; empty: it does not."""
        device = await DeviceRow.get_or_none(id=device_id)
        if device is None:
            return ""
        if row is not None and not row.created_at <= device.created_at <= (row.finished_at or device.created_at):
            return "it was deleted, and created anew since"
        if (
            device.presence != DeviceStatus.NEVER_SEEN
            or self._presence.is_connected(device_id)
            or self._presence.heard_at(device_id) is not None
        ):
            return "it has been seen since"
        return ""

    async def _take_turn(self, id_: str, statuses: Sequence[ImportStatus]) -> None:
        """Nobody else works on it until the end of the transaction. Raises when it is in another state."""
        rows = await self._database.execute(
            "UPDATE device_import SET turns = turns + 1 WHERE id = ? RETURNING status",
            (id_,),
        )
        if not rows or rows[0]["status"] not in statuses:
            raise _NotNow(f"the import is {rows[0]['status'] if rows else 'gone'}")


class _NotNow(Conflict):
    """The import was cancelled, or has ended."""


async def _note(entries: Sequence[DeviceImportEntryRow], verdicts: Sequence[Verdict]) -> None:
    ids: defaultdict[Verdict, list[int]] = defaultdict(list)
    for entry, verdict in zip(entries, verdicts, strict=True):
        ids[verdict].append(entry.id)
    for verdict, of_verdict in ids.items():
        await DeviceImportEntryRow.filter(id__in=of_verdict).update(
            outcome=verdict.outcome, column=verdict.column, reason=verdict.reason
        )


def _actor(row: DeviceImportRow) -> Actor:
    return Actor(kind=row.actor_kind, id=row.created_by, address=row.address)  # type: ignore[arg-type]


async def _row(id_: str) -> DeviceImportRow:
    row = await DeviceImportRow.get_or_none(id=id_)
    if row is None:
        raise NotFound("device import", id_)
    return row

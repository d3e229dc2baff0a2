"""What happened to a device, in words: connections, messages refused, commands, updates, changes, its own events.

Entries are written in batches and shown on the live bus once they are stored. Messages that the gateway refused are
not copied: they are read from its dead letters and laid between the entries.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from fleet.batcher import Batcher
from fleet.clock import Clock
from fleet.database import Database
from fleet.ids import new_id
from fleet.limits import peer_text
from fleet.models import TimelineRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.records import timeline_view
from fleet.views import Level, TimelineEntry, TimelineKind
from gateway.bus import Bus, Event

_QUEUE_LIMIT = 20_000  # a reconnect storm of 10,000 devices is two entries each
_BATCH = 500
_SLACK = 50  # entries beyond a device's limit before it is pruned: pruning at each entry would double the writes
_SUMMARY_LIMIT = 300


class Timeline:
    """`note` what may be lost when the queue is full, `record` what must be stored before going on."""

    def __init__(self, *, database: Database, bus: Bus, clock: Clock, limit: int) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._limit = limit
        self._batcher: Batcher[TimelineEntry] = Batcher(
            "timeline writer", self._write, limit=_QUEUE_LIMIT, batch=_BATCH
        )
        self._added: Counter[str] = Counter()
        self.refused: Refused | None = None
        """The gateway's dead letters, once there is a gateway."""

    def start(self) -> None:
        self._batcher.start()

    async def stop(self) -> None:
        await self._batcher.stop()

    @property
    def dropped(self) -> int:
        """Entries lost to a full queue or a failing database."""
        return self._batcher.dropped

    def note(
        self,
        device_id: str,
        kind: TimelineKind,
        summary: str,
        *,
        level: Level = Level.INFO,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry soon; never waits."""
        self._batcher.offer(self._entry(device_id, kind, summary, level, data))

    async def record(
        self,
        device_id: str,
        kind: TimelineKind,
        summary: str,
        *,
        level: Level = Level.INFO,
        data: dict[str, Any] | None = None,
        identity: str | None = None,
    ) -> None:
        """Add an entry and return once it is committed; not one whose `identity` (32 characters) is there already."""
        await self._batcher.put(self._entry(device_id, kind, summary, level, data, identity))

    def show(self, device_id: str, kind: TimelineKind, summary: str, data: dict[str, Any]) -> None:
        """Let those who watch see an entry that is not worth keeping."""
        if self._bus.watched("messages"):
            self._publish(self._entry(device_id, kind, summary, Level.INFO, data))

    async def flush(self) -> None:
        """Return once everything noted so far is written."""
        await self._batcher.flush()

    async def list(
        self, device_id: str, *, cursor: str | None = None, limit: int = 50, kinds: Sequence[str] = ()
    ) -> Page[TimelineEntry]:
        """Newest first, the gateway's dead letters among them (kind message_refused)."""
        limit = page_limit(limit)
        before_id, before_letter = decode_cursor(cursor, str, str) if cursor is not None else ("", "")
        rows = TimelineRow.filter(device_id=device_id)
        if kinds:
            rows = rows.filter(kind__in=[kind for kind in kinds if kind in set(TimelineKind)])
        if before_id:
            rows = rows.filter(id__lt=before_id)
        entries = [timeline_view(row) for row in await rows.order_by("-id").limit(limit + 1)]
        letters: list[tuple[str, TimelineEntry]] = []
        if self.refused is not None and (not kinds or TimelineKind.MESSAGE_REFUSED in kinds):
            letters = await self.refused.list(device_id, limit + 1, before_letter)
        return _merge(entries, letters, limit, before_id, before_letter)

    async def delete_device(self, device_id: str) -> None:
        self._added.pop(device_id, None)
        await TimelineRow.filter(device_id=device_id).delete()

    async def prune(self) -> None:
        """Cut the timelines that grew beyond the limit, the fastest ones first, a few at a turn."""
        for device_id, added in self._added.most_common(100):
            if added < _SLACK:
                break
            del self._added[device_id]
            beyond = (
                await TimelineRow.filter(device_id=device_id)
                .order_by("-id")
                .offset(self._limit)
                .limit(1)
                .values_list("id", flat=True)
            )
            if beyond:
                await TimelineRow.filter(device_id=device_id, id__lte=beyond[0]).delete()

    def _entry(
        self,
        device_id: str,
        kind: TimelineKind,
        summary: str,
        level: Level,
        data: dict[str, Any] | None,
        identity: str | None = None,
    ) -> TimelineEntry:
        return TimelineEntry(
            id=new_id(),
            device_id=device_id,
            at=self._clock.utc(),
            kind=kind,
            level=level,
            summary=peer_text(summary, _SUMMARY_LIMIT),
            data=data or {},
            identity=identity,
        )

    async def _write(self, entries: Sequence[TimelineEntry]) -> None:
        inserted = await self._database.insert(
            "timeline",
            ("id", "device_id", "at", "kind", "level", "summary", "data", "identity"),
            [
                (
                    entry.id,
                    entry.device_id,
                    entry.at,
                    entry.kind.value,
                    entry.level.value,
                    entry.summary,
                    orjson.dumps(entry.data).decode(),
                    entry.identity,
                )
                for entry in entries
            ],
            unless_same="identity",
        )
        entries = [entry for entry in entries if entry.id in inserted]
        self._added.update(entry.device_id for entry in entries)
        if self._bus.watched("messages"):
            for entry in entries:
                self._publish(entry)

    def _publish(self, entry: TimelineEntry) -> None:
        self._bus.publish(Event(channel="messages", device_id=entry.device_id, data=entry.json()))


class Refused(Protocol):
    """The gateway's dead letters, newest first, each with the cursor behind it."""

    async def list(self, device_id: str, limit: int, before: str) -> list[tuple[str, TimelineEntry]]:
        """At most `limit` that come after the cursor `before` ("": from the newest)."""
        ...


def _merge(
    entries: list[TimelineEntry],
    letters: list[tuple[str, TimelineEntry]],
    limit: int,
    before_id: str,
    before_letter: str,
) -> Page[TimelineEntry]:
    """One page out of two lists that are both newest first; the cursor remembers a place in each."""
    page: list[TimelineEntry] = []
    entry_at = letter_at = 0
    while len(page) < limit and (entry_at < len(entries) or letter_at < len(letters)):
        if letter_at >= len(letters) or (entry_at < len(entries) and entries[entry_at].at >= letters[letter_at][1].at):
            before_id = entries[entry_at].id
            page.append(entries[entry_at])
            entry_at += 1
        else:
            before_letter = letters[letter_at][0]
            page.append(letters[letter_at][1])
            letter_at += 1
    more = entry_at < len(entries) or letter_at < len(letters)
    return Page(items=page, next_cursor=encode_cursor(before_id, before_letter) if more else None)

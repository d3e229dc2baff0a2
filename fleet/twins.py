"""Twins: what a device should be (desired) and what it says it is (reported).

Each accepted change makes the version grow by one and is written by compare-and-swap, so two who change one twin at
once both count. A report that changes nothing, such as a redelivered one, writes nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from fleet import documents
from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import Conflict, Invalid, NotFound, PreconditionFailed
from fleet.limits import JSON_DEPTH, TWIN_LIMIT_BYTES, checked_object, peer_text
from fleet.models import TwinRow
from fleet.outbox import Greeting
from fleet.page import Page
from fleet.ports import Sender
from fleet.presence import Presence
from fleet.profiles import Profiles
from fleet.records import twin_view
from fleet.timeline import Timeline
from fleet.twin_history import TwinChange, changes_of, keep_change
from fleet.views import Level, TimelineKind, Twin
from gateway.bus import Bus
from gateway.channels import TWIN, TWIN_DESIRED

_TRIES = 10  # compare-and-swap losers; each loss means that somebody else got on


class Twins:
    """Read and change twins; the Outbox's part that tells devices of differences."""

    def __init__(
        self,
        *,
        database: Database,
        presence: Presence,
        sender: Sender,
        audit: Audit,
        timeline: Timeline,
        bus: Bus,
        clock: Clock,
        profiles: Profiles,
    ) -> None:
        self._database = database
        self._presence = presence
        self._sender = sender
        self._audit = audit
        self._timeline = timeline
        self._bus = bus
        self._clock = clock
        self._profiles = profiles
        self.nudge: Callable[..., None] = lambda device_id, *owed: None
        """Tells the outbox that a device is owed something."""
        self.on_changed: Callable[[str], None] = lambda device_id: None
        """Called with the id of each device whose twin was changed, after it is stored."""
        self.on_reported: Callable[[str, Mapping[str, Any]], Awaitable[None]] | None = None
        """Called with each reported patch, after it is stored; also with one that changed nothing."""

    async def get(self, device_id: str) -> Twin:
        """Raises NotFound."""
        return twin_view(await self._row(device_id))

    async def patch_desired(
        self, actor: Actor, device_id: str, merge_patch: Mapping[str, Any], if_version: int | None = None
    ) -> Twin:
        """Raises NotFound, Invalid (also: not as the device's profile has it), PreconditionFailed (when `if_version`
        is not the present version).
        """
        _check_patch(merge_patch)
        for _ in range(_TRIES):
            row = await self._row(device_id)
            if if_version is not None and if_version != row.version:
                raise PreconditionFailed(row.version)
            before = twin_view(row)
            desired = _merged("desired", before.desired, merge_patch)
            if desired == row.desired:
                return before
            self._check_desired(device_id, orjson.loads(desired))
            async with self._database.transaction():
                if not await self._swap(row, desired=desired):
                    continue
                await self._audit.record(
                    actor, "twin.update", "device", device_id, before.desired, orjson.loads(desired)
                )
                await keep_change(actor, device_id, row.version, row.updated_at, dict(merge_patch))
            after = twin_view(row)
            self._timeline.note(
                device_id,
                TimelineKind.CHANGE,
                f"{actor.id} changed the desired twin",
                data={"patch": dict(merge_patch)},
            )
            self._show(after, "the desired twin changed")
            if after.delta:
                await self._send_delta(after)
            return after
        raise Conflict("too many changes at once: try again")

    async def report(self, device_id: str, merge_patch: Mapping[str, Any]) -> Twin:
        """Take over what the device reports. Raises NotFound, Invalid."""
        _check_patch(merge_patch)
        for _ in range(_TRIES):
            row = await self._row(device_id)
            before = twin_view(row)
            reported = _merged("reported", before.reported, merge_patch)
            if reported != row.reported:
                fault = self._fault_of_reported(device_id, orjson.loads(reported))
                if not await self._swap(row, reported=reported, fault=fault):
                    continue
            after = twin_view(row)
            if self.on_reported is not None:
                await self.on_reported(device_id, merge_patch)
            if after.version != before.version:
                if after.fault and not before.fault:
                    self._timeline.note(
                        device_id,
                        TimelineKind.CHANGE,
                        f"reported what its profile has not: {after.fault}",
                        level=Level.WARNING,
                    )
                self._show(after, "the reported twin changed")
                # Only what is newly different: a device that cannot do as told would be told at each of its reports.
                if documents.has_news(after.delta, before.delta):
                    await self._send_delta(after)
            return after
        raise Conflict("too many changes at once: try again")

    async def history(self, device_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[TwinChange]:
        """The last 100 changes of the desired part, newest first. Raises NotFound."""
        await self._row(device_id)
        return await changes_of(device_id, cursor=cursor, limit=limit)

    async def send_whole(self, device_id: str) -> bool:
        """Answer a device that asks for its twin. Raises NotFound."""
        twin = await self.get(device_id)
        payload = {"desired": twin.desired, "reported": twin.reported, "version": twin.version}
        return await self._sender.send(device_id, TWIN, orjson.dumps(payload))

    async def serve(self, greetings: Sequence[Greeting]) -> None:
        """For the outbox: tell the devices of what is to be changed."""
        due = {greeting.device_id: greeting for greeting in greetings if greeting.again or TWIN in greeting.owed}
        if not due:
            return
        for row in await TwinRow.filter(device_id__in=list(due), differs=True):
            if not await self._send(twin_view(row)):
                due[row.device_id].left.add(TWIN)

    def _check_desired(self, device_id: str, desired: dict[str, Any]) -> None:
        profile = self._profiles.of(device_id)
        fault = None if profile is None else profile.twins.fault_of_desired(desired)
        if fault is not None:
            raise Invalid(f"desired{fault[0]}", fault[1])

    def _fault_of_reported(self, device_id: str, reported: dict[str, Any]) -> str:
        profile = self._profiles.of(device_id)
        fault = None if profile is None else profile.twins.fault_of_reported(reported)
        return "" if fault is None else peer_text(f"{fault[0] or '/'}: {fault[1]}", 300)

    async def _send_delta(self, twin: Twin) -> None:
        if self._presence.is_connected(twin.device_id) and not await self._send(twin):
            self.nudge(twin.device_id, TWIN)

    async def _send(self, twin: Twin) -> bool:
        payload = {"version": twin.version, "delta": twin.delta}
        return await self._sender.send(twin.device_id, TWIN_DESIRED, orjson.dumps(payload))

    async def _row(self, device_id: str) -> TwinRow:
        row = await TwinRow.get_or_none(device_id=device_id)
        if row is None:
            raise NotFound("device", device_id)
        return row

    async def _swap(self, row: TwinRow, **sections: str) -> bool:
        """Write `sections` if the row is still as it was read; `row` is then as written."""
        desired = orjson.loads(sections.get("desired", row.desired))
        reported = orjson.loads(sections.get("reported", row.reported))
        news = {
            **sections,
            "differs": bool(documents.delta(desired, reported)),
            "version": row.version + 1,
            "updated_at": self._clock.utc(),
        }
        if not await TwinRow.filter(device_id=row.device_id, version=row.version).update(**news):
            return False
        row.update_from_dict(news)
        self.on_changed(row.device_id)
        return True

    def _show(self, twin: Twin, summary: str) -> None:
        if self._bus.watched("messages"):
            self._timeline.show(twin.device_id, TimelineKind.CHANGE, summary, {"twin": twin.json()})


def _check_patch(patch: Mapping[str, Any]) -> None:
    # One level more: a patch may remove what lies at the deepest level.
    checked_object("patch", patch, limit_bytes=TWIN_LIMIT_BYTES, depth=JSON_DEPTH + 1)


def _merged(section: str, document: dict[str, Any], patch: Mapping[str, Any]) -> str:
    return checked_object(section, documents.merge_patch(document, patch), limit_bytes=TWIN_LIMIT_BYTES)

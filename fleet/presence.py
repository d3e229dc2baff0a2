"""Who is connected. Memory is first: it is told by the links, in the event loop's turn; the database follows.

Changes wait in a queue that holds one entry a device (the newest), so it is bounded by the number of devices and a
reconnect storm costs one statement per 500 of them. "Heard of" times are kept in memory and written every few
seconds. At start everything that the database calls online is set offline: nobody is connected to a new process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fleet.clock import Clock, rfc3339
from fleet.database import Database, log_failure
from fleet.directory import Directory
from fleet.flapping import Flapping
from fleet.limits import peer_text
from fleet.models import ADDRESS, DeviceRow
from fleet.timeline import Timeline
from fleet.views import DeviceStatus, Level, TimelineKind
from gateway.bus import Bus, Event

logger = logging.getLogger(__name__)

_BATCH = 500
_RETRY_S = 1.0
RESTARTED = "server restarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceChange:
    """One device's newest state. `arrived`: a connection was made since the last change that was written."""

    device_id: str
    online: bool
    at: datetime
    link: str
    address: str
    reason: str
    arrived: bool


@dataclass(slots=True)
class _Present:
    links: dict[str, str] = field(default_factory=dict)
    """Link name -> address."""
    first_at: datetime | None = None
    """When the oldest connection that may still be there was made."""
    connected_at: datetime | None = None
    """When the newest connection was made."""


class Presence:
    """`connected`, `disconnected` and `heard` are called by the gateway and never wait."""

    def __init__(self, *, database: Database, directory: Directory, timeline: Timeline, bus: Bus, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._timeline = timeline
        self._bus = bus
        self._clock = clock
        self._present: dict[str, _Present] = {}
        self._pending: dict[str, PresenceChange] = {}
        self._heard: dict[str, datetime] = {}
        self._work = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._task: asyncio.Task[None] | None = None
        self.on_written: Callable[[Sequence[PresenceChange]], None] = lambda changes: None
        """Called after the commit of a batch of changes."""
        self.on_heard: Callable[[Sequence[str]], Awaitable[None]] | None = None
        """Called with each batch of devices whose "last seen" was brought up to date."""
        self._flapping = Flapping()

    async def start(self) -> None:
        """Set everything offline, then begin to write."""
        online = DeviceRow.filter(presence=DeviceStatus.ONLINE)
        stale = [str(each) for each in await online.values_list("id", flat=True)]
        now = self._clock.utc()
        for device_id in stale:
            self._pending[device_id] = PresenceChange(
                device_id=device_id, online=False, at=now, link="", address="", reason=RESTARTED, arrived=False
            )
            self._timeline.note(device_id, TimelineKind.DISCONNECTED, f"disconnected: {RESTARTED}")
        await self._write_pending()
        self._task = asyncio.create_task(self._run(), name="presence writer")

    async def stop(self) -> None:
        """Write what is known, then end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._write_pending()
        await self.write_heard()

    def connected(self, device_id: str, link: str, address: str) -> None:
        """A connection was made over `link`; also when one takes over from another."""
        if not self._directory.is_active(device_id):
            return
        now = self._clock.utc()
        present = self._present.setdefault(device_id, _Present())
        again = bool(present.links)
        present.links[link] = address
        present.connected_at = now
        present.first_at = present.first_at or now
        self.heard(device_id)
        data = {"link": link, "address": peer_text(address, ADDRESS)}
        summary = f"connected once more over {link}" if again else f"connected over {link}"
        if self._flapping.is_told(device_id, self._clock.monotonic()):
            self._timeline.note(device_id, TimelineKind.CONNECTED, summary, data=data)
        self._change(device_id, online=True, at=now, link=link, address=address, reason="", arrived=True)

    def disconnected(self, device_id: str, link: str, reason: str) -> None:
        """The last connection over `link` is gone; the device is offline once none is left over any link."""
        present = self._present.get(device_id)
        if present is None or link not in present.links:
            return
        address = present.links.pop(link)
        self.heard(device_id)
        reason = peer_text(reason, 200)
        summary = f"disconnected: {reason}" if reason else "disconnected"
        level = Level.WARNING if "lost" in reason or "expired" in reason else Level.INFO
        if self._flapping.is_told(device_id, self._clock.monotonic()):
            self._timeline.note(
                device_id, TimelineKind.DISCONNECTED, summary, level=level, data={"link": link, "reason": reason}
            )
        if not present.links:
            del self._present[device_id]
            self._change(
                device_id, online=False, at=self._clock.utc(), link=link, address=address, reason=reason, arrived=False
            )

    def heard(self, device_id: str) -> None:
        """The device gave a sign of life."""
        self._heard[device_id] = self._clock.utc()

    def is_connected(self, device_id: str) -> bool:
        """Whether it has a connection to this process."""
        return device_id in self._present

    def connected_at(self, device_id: str) -> datetime | None:
        """When its newest connection was made; None while it has none."""
        present = self._present.get(device_id)
        return present.connected_at if present is not None else None

    def first_connected_at(self, device_id: str) -> datetime | None:
        """When the oldest of its connections was made, at the earliest; None while it has none."""
        present = self._present.get(device_id)
        return present.first_at if present is not None else None

    def heard_at(self, device_id: str) -> datetime | None:
        """When it was last heard of, if that is not in the database yet."""
        return self._heard.get(device_id)

    def forget(self, device_id: str) -> None:
        """The device was deleted."""
        self._present.pop(device_id, None)
        self._pending.pop(device_id, None)
        self._heard.pop(device_id, None)
        self._flapping.forget(device_id)

    def online(self) -> int:
        """How many devices are connected to this process."""
        return len(self._present)

    async def write_heard(self) -> None:
        """Bring the database's "last seen" up to date."""
        heard, self._heard = self._heard, {}
        ids = list(heard)
        try:
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                # One time for all of them, a few seconds late for some: one statement instead of 500.
                await DeviceRow.filter(id__in=batch).update(last_seen_at=max(heard[each] for each in batch))
                if self.on_heard is not None:
                    await self.on_heard(batch)
        except Exception:
            self._heard = {**heard, **self._heard}
            raise

    async def tell_flapping(self) -> None:
        """For the timers: one entry for all the changes of a minute that were not told one by one."""
        for device_id, untold in self._flapping.over(self._clock.monotonic()):
            summary = f"connected and disconnected again and again: {untold} more changes within a minute"
            kind = TimelineKind.CONNECTED if device_id in self._present else TimelineKind.DISCONNECTED
            self._timeline.note(device_id, kind, summary, level=Level.WARNING, data={"changes": untold})

    async def flush(self) -> None:
        """Return once every change so far is in the database."""
        await self._drained.wait()

    def _change(
        self, device_id: str, *, online: bool, at: datetime, link: str, address: str, reason: str, arrived: bool
    ) -> None:
        earlier = self._pending.pop(device_id, None)
        self._pending[device_id] = PresenceChange(
            device_id=device_id,
            online=online,
            at=at,
            link=link,
            address=peer_text(address, ADDRESS),
            reason=reason,
            arrived=online and (arrived or (earlier is not None and earlier.arrived)),
        )
        self._drained.clear()
        self._work.set()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._write_pending()
            except Exception as error:
                log_failure(logger, error, "presence: %d changes are not written yet; trying again", len(self._pending))
                await asyncio.sleep(_RETRY_S)
                self._work.set()

    async def _write_pending(self) -> None:
        while self._pending:
            batch = list(self._pending.values())[:_BATCH]
            for change in batch:
                del self._pending[change.device_id]
            try:
                await self._write(batch)
            except BaseException:
                # Back to the front of the queue, unless something newer has come meanwhile.
                self._pending = {change.device_id: change for change in batch} | self._pending
                raise
            self._announce(batch)
        self._drained.set()

    async def _write(self, batch: Sequence[PresenceChange]) -> None:
        """One statement: row by row, the SQLite thread would wait for the interpreter lock at each of them."""
        time = self._database.timestamp_type
        types = ("TEXT", "TEXT", time, time, "TEXT", "TEXT")
        row = f"({', '.join(f'CAST(? AS {each})' for each in types)})"
        values: list[object] = []
        for change in batch:
            restarted = change.reason == RESTARTED  # then nothing was seen of it, and where it was is still the news
            values += [
                change.device_id,
                DeviceStatus.ONLINE.value if change.online else DeviceStatus.OFFLINE.value,
                change.at,
                None if restarted else change.at,
                None if restarted else change.link,
                None if restarted else change.address,
            ]
        await self._database.execute(
            f"WITH changed(id, presence, at, seen_at, link, address) AS (VALUES {', '.join([row] * len(batch))})"  # noqa: S608
            " UPDATE device SET presence = changed.presence,"
            " status = CASE WHEN device.disabled THEN 'disabled' ELSE changed.presence END,"
            " since = changed.at, last_seen_at = COALESCE(changed.seen_at, device.last_seen_at),"
            " link = COALESCE(changed.link, device.link), address = COALESCE(changed.address, device.address)"
            " FROM changed WHERE device.id = changed.id",
            values,
        )

    def _announce(self, batch: Sequence[PresenceChange]) -> None:
        if self._bus.watched("presence"):
            for change in batch:
                data = {
                    "device": change.device_id,
                    "status": DeviceStatus.ONLINE if change.online else DeviceStatus.OFFLINE,
                    "at": rfc3339(change.at),
                    "reason": change.reason,
                }
                self._bus.publish(Event(channel="presence", device_id=change.device_id, data=data))
        self.on_written(batch)

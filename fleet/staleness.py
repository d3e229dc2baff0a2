"""Devices that are there and say nothing: stale, once they were not heard of for three times as long as their profile
expects. Those of MQTT while they are connected, those of HTTP always: they have no connection to lose.

The database is asked every few seconds which ones those are; who is heard of again is told by the presence's writer.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from tortoise.expressions import F, Q

from fleet.clock import Clock, rfc3339
from fleet.database import Database
from fleet.models import DeviceRow
from fleet.presence import Presence
from fleet.profiles import Profiles
from fleet.timeline import Timeline
from fleet.views import DeviceStatus, Level, TimelineKind
from gateway.bus import Bus, Event

FACTOR = 3
_TURN = 500  # devices a turn; the next ones at the next
_PROFILES_A_QUERY = 100
_THERE = Q(status=DeviceStatus.ONLINE) | Q(status=DeviceStatus.OFFLINE, link="http")


class Staleness:
    """`sweep` is for the timers, `heard_again` for the presence."""

    def __init__(
        self,
        *,
        database: Database,
        presence: Presence,
        profiles: Profiles,
        timeline: Timeline,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._database = database
        self._presence = presence
        self._profiles = profiles
        self._timeline = timeline
        self._bus = bus
        self._clock = clock

    async def sweep(self) -> None:
        """Mark who has become stale, and take the mark off where the profile no longer says so."""
        now = self._clock.utc()
        waits = self._profiles.stale_after_s(FACTOR)
        names = list(waits)
        for start in range(0, len(names), _PROFILES_A_QUERY):
            late, timely = Q(), Q()
            for name in names[start : start + _PROFILES_A_QUERY]:
                since = now - timedelta(seconds=waits[name])
                late |= Q(profile=name, last_seen_at__lt=since)
                timely |= Q(profile=name, last_seen_at__gte=since)
            await self._mark(await DeviceRow.filter(_THERE, late).limit(_TURN), late, waits, now)
            await self._unmark(await DeviceRow.filter(timely, status=DeviceStatus.STALE).limit(_TURN), now)
        without = DeviceRow.filter(status=DeviceStatus.STALE)
        if names:
            without = without.exclude(profile__in=names)
        await self._unmark(await without.limit(_TURN), now)

    async def heard_again(self, device_ids: Sequence[str]) -> None:
        """These were heard of, and the database knows it."""
        stale = await DeviceRow.filter(id__in=list(device_ids), status=DeviceStatus.STALE)
        await self._unmark(stale, self._clock.utc())

    async def _mark(self, rows: Sequence[DeviceRow], late: Q, waits: Mapping[str, float], now: datetime) -> None:
        """One statement for all of them: other timers wait meanwhile."""
        silent = [row for row in rows if not self._is_just_heard(row.id, waits[row.profile], now)]
        if not silent:
            return
        # Once more as they were found: one that has come or gone since is none of them.
        await DeviceRow.filter(_THERE, late, id__in=[row.id for row in silent]).update(status=DeviceStatus.STALE)
        for row in silent:
            silence_s, wait_s = (now - row.last_seen_at).total_seconds(), waits[row.profile]
            summary = f"stale: not heard of for {silence_s:.0f} s, every {wait_s / FACTOR:g} s was expected"
            self._timeline.note(row.id, TimelineKind.CHANGE, summary, level=Level.WARNING)
            self._show(row.id, DeviceStatus.STALE, now, summary)

    def _is_just_heard(self, device_id: str, wait_s: float, now: datetime) -> bool:
        """Whether it was heard of, and the database does not know it yet."""
        heard = self._presence.heard_at(device_id)
        return heard is not None and (now - heard).total_seconds() <= wait_s

    async def _unmark(self, rows: Sequence[DeviceRow], now: datetime) -> None:
        if not rows:
            return
        ids = [row.id for row in rows]
        await DeviceRow.filter(id__in=ids, status=DeviceStatus.STALE).update(status=F("presence"))
        for row in rows:
            self._timeline.note(row.id, TimelineKind.CHANGE, "no longer stale")
            self._show(row.id, DeviceStatus(row.presence), now, "no longer stale")

    def _show(self, device_id: str, status: DeviceStatus, at: datetime, reason: str) -> None:
        if self._bus.watched("presence"):
            data = {"device": device_id, "status": status, "at": rfc3339(at), "reason": reason}
            self._bus.publish(Event(channel="presence", device_id=device_id, data=data))

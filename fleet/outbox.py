"""What waits for devices, sent when they appear. The rows are the outbox; this is the hand that empties it.

A device that connects is greeted: its retained status, the difference between its twins, its unfinished commands, its
firmware offer. A link may have no taker yet (the device connects first and subscribes afterwards), so what was not
taken is tried again with back-off for as long as the device stays. Devices are greeted in batches: a reconnect storm
of thousands costs three queries per 200 of them.
"""

import asyncio
import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import orjson

from fleet.clock import Clock, unix_ms
from fleet.database import log_failure
from fleet.ports import Sender
from fleet.presence import Presence, PresenceChange
from gateway.channels import STATUS, TWIN

logger = logging.getLogger(__name__)

_BATCH = 200
_FIRST_RETRY_S = 0.25  # the time from CONNECT to SUBSCRIBE on a slow link
_RETRY_CAP_S = 60.0
_RESOLUTION_S = 0.1
_QUIET_S = 1.0  # after the start: who was cut off by a restart is said to be offline once the links are up
_PATIENCE = 8  # tries, some 30 s, for what a device may well not be interested in


@dataclass(slots=True)
class Greeting:
    """What is still owed to one device. `again` is True on the first try after a connect: everything once more."""

    device_id: str
    again: bool
    owed: set[str] = field(default_factory=set)
    """Ids and names of what nobody took the last time."""
    left: set[str] = field(default_factory=set)
    """What nobody took this time."""
    tries: int = 0


class Part(Protocol):
    """Something that sends: commands, twins, jobs."""

    async def serve(self, greetings: Sequence[Greeting]) -> None:
        """Send what is due to these devices; put into `left` what was not taken."""
        ...


class Outbox:
    """One task that serves devices, soonest due first."""

    def __init__(self, *, presence: Presence, sender: Sender, clock: Clock, parts: Sequence[Part]) -> None:
        self._presence = presence
        self._sender = sender
        self._clock = clock
        self._parts = parts
        self._waiting: dict[str, Greeting] = {}
        self._due: list[tuple[float, str]] = []
        self._statuses: dict[str, tuple[bool, datetime]] = {}
        self._work = asyncio.Event()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._quiet_until = 0.0

    def start(self) -> None:
        self._quiet_until = self._clock.monotonic() + _QUIET_S
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def presence_changed(self, changes: Sequence[PresenceChange]) -> None:
        """Greet those who came; publish everybody's retained status."""
        for change in changes:
            self._statuses[change.device_id] = (change.online, change.at)
            if change.arrived:
                self._schedule(Greeting(change.device_id, again=True), 0.0)
        self._work.set()

    def nudge(self, device_id: str, *owed: str) -> None:
        """Something new waits for a device: send it soon, if the device is connected."""
        if self._presence.is_connected(device_id):
            greeting = self._waiting.get(device_id) or Greeting(device_id, again=False)
            greeting.owed.update(owed)
            self._schedule(greeting, 0.0)
            self._work.set()

    async def settle(self) -> None:
        """Serve everything that is due now."""
        async with self._turn:
            await self._publish_statuses()
            while batch := self._take_due():
                await self._serve(batch)

    def _schedule(self, greeting: Greeting, delay_s: float) -> None:
        self._waiting[greeting.device_id] = greeting
        heapq.heappush(self._due, (self._clock.monotonic() + delay_s, greeting.device_id))

    def _take_due(self) -> list[Greeting]:
        now = self._clock.monotonic()
        batch: dict[str, Greeting] = {}
        while self._due and self._due[0][0] <= now and len(batch) < _BATCH:
            device_id = heapq.heappop(self._due)[1]
            greeting = self._waiting.pop(device_id, None)
            if greeting is not None and self._presence.is_connected(device_id):
                batch[device_id] = greeting
        return list(batch.values())

    async def _serve(self, batch: list[Greeting]) -> None:
        failed = False
        for part in self._parts:
            try:
                await part.serve(batch)
            except Exception as error:
                part_name = type(part).__name__
                log_failure(logger, error, "outbox: %s failed for %d devices; trying again", part_name, len(batch))
                failed = True
        for greeting in batch:
            greeting.owed, greeting.left = greeting.left, set()
            greeting.again = greeting.again and failed
            greeting.tries += 1
            if not (greeting.owed or failed) or (greeting.owed == {TWIN} and greeting.tries >= _PATIENCE):
                continue
            newer = self._waiting.get(greeting.device_id)
            if newer is not None:
                newer.owed |= greeting.owed
            else:
                self._schedule(greeting, min(_RETRY_CAP_S, _FIRST_RETRY_S * 2.0 ** (greeting.tries - 1)))

    async def _publish_statuses(self) -> None:
        if self._clock.monotonic() < self._quiet_until:
            return
        statuses, self._statuses = self._statuses, {}
        for device_id, (online, since) in statuses.items():
            payload = orjson.dumps({"online": online, "since": unix_ms(since)})
            await self._sender.send(device_id, STATUS, payload, retain=True)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_RESOLUTION_S if self._due or self._statuses else None):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            try:
                await self.settle()
            except Exception as error:
                log_failure(logger, error, "outbox: a turn failed; going on")

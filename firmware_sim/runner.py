"""Runs one device: gives it time and power, keeps its link up, and fetches what it wants to install.

Four things go on side by side while the power is on: the device's own clock, its link, its power switch, and whatever
cuts the link now and then. They end together when the power goes; then the device boots again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import NoReturn

import aiohttp

from firmware_sim.device import Device, Effect
from firmware_sim.errors import DeviceRefused, LinkLost, SimError
from firmware_sim.outbox import Message
from firmware_sim.tally import DeviceRow, State, Tally
from firmware_sim.together import race
from firmware_sim.transports.artifact import FetchBroken, FetchRefused, fetch
from firmware_sim.transports.wire import Transport
from firmware_sim.update import Fetch, Restart, StopFetch

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
"""An orderly restart waits this long for what the device still has to say."""
STABLE_S = 30.0
"""A connection that held this long was a good one: the next back-off starts small again."""
REFUSED_WAIT_S = 30.0
"""A credential that was refused will hardly be right a second later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all devices of a swarm share."""

    clock: Callable[[], float]
    session: aiohttp.ClientSession
    tally: Tally
    device_http_base: str
    bytes_per_s: int = 0
    drops_per_hour: float = 0.0
    renew: Callable[[str], Awaitable[str | None]] | None = None
    """Asked once for a new token, when one that was kept from an earlier run is refused."""


class Runner:
    """One running device; the Wire its transport sees."""

    def __init__(
        self, device: Device, transport: Transport, token: str, around: Surroundings, *, seed: int = 0
    ) -> None:
        self.device = device
        self.token = token
        self.state = State.WAITING
        self.error = ""
        self.acked = 0
        self.acked_readings = 0
        self._transport = transport
        self._around = around
        self._random = Random(f"{seed}/{device.spec.device_id}")  # noqa: S311
        self._wake = asyncio.Event()
        self._to_send = asyncio.Event()
        self._emptied = asyncio.Event()
        self._restart: asyncio.Future[Restart] | None = None
        self._downloads: set[asyncio.Task[None]] = set()
        self.connected_once = False
        self._may_renew = True

    @property
    def device_id(self) -> str:
        return self.device.spec.device_id

    async def run(self, start_after_s: float = 0.0) -> NoReturn:
        """Live until cancelled."""
        try:
            await asyncio.sleep(start_after_s)
            while True:
                self._restart = asyncio.get_running_loop().create_future()
                self._perform(self.device.boot(self._around.clock()))
                restart = await race(
                    ("sim-clock", self._keep_time()),
                    ("sim-link", self._keep_link()),
                    ("sim-power", self._watch_power(self._restart)),
                    ("sim-drops", self._drop_links()),
                )
                self.state = State.RESTARTING
                await self._stop_downloads()
                await asyncio.sleep(restart.down_s)
        finally:
            self.state = State.STOPPED
            await self._stop_downloads()

    def row(self) -> DeviceRow:
        """This device in a picture of the swarm."""
        agent = self.device.agent
        return DeviceRow(
            device_id=self.device_id,
            kind=self.device.spec.kind.value,
            transport=self._transport.name,
            state=self.state,
            firmware=self.device.firmware,
            target=agent.target,
            step=agent.step.value,
            progress=agent.progress,
            acked=self.acked,
            waiting=len(self.device.outbox),
            error=self.error,
        )

    # The Wire.

    def up(self) -> None:
        self.state, self.error = State.ONLINE, ""
        self.connected_once = True
        self._around.tally.connects += 1
        self._perform(self.device.connected(self._around.clock()))

    def deliver(self, channel: str, payload: bytes) -> None:
        self._around.tally.received += 1
        self._perform(self.device.receive(channel, payload, self._around.clock()))

    async def next(self) -> Message:
        while (message := self.device.outbox.head()) is None:
            self._emptied.set()
            self._to_send.clear()
            await self._to_send.wait()
        self._around.tally.sent += 1
        return message

    def acknowledged(self, message: Message) -> None:
        self.device.outbox.acknowledged()
        self.acked += 1
        self.acked_readings += message.readings
        self._around.tally.acked += 1
        self._around.tally.readings += message.readings

    def refused(self, message: Message, reason: str) -> None:
        self.device.outbox.acknowledged()
        self._around.tally.refused += 1
        self.error = f"{message.channel} refused: {reason}"
        logger.debug("%s: %s", self.device_id, self.error)

    # What goes on while the power is on.

    async def _keep_time(self) -> NoReturn:
        clock = self._around.clock
        while True:
            self._wake.clear()
            self._perform(self.device.tick(clock()), wake=False)
            try:
                async with asyncio.timeout(min(max(0.0, self.device.due - clock()), 3_600.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _keep_link(self) -> NoReturn:
        attempt = 0
        while True:
            self.state = State.CONNECTING
            began = self._around.clock()
            try:
                await self._transport.serve(self)
                raise LinkLost("the connection ended")
            except LinkLost as lost:
                if self._around.clock() - began > STABLE_S:
                    attempt = 0
                delay = lost.retry_after_s or retry_delay_s(attempt, self._random)
                self._note(State.RETRYING, lost.reason)
            except DeviceRefused as refused:
                delay = REFUSED_WAIT_S * (0.5 + self._random.random())
                self._note(State.REFUSED, f"refused: {refused.reason}")
                if not self.connected_once and self._may_renew and await self._renewed():
                    delay = 0.0
            finally:
                if self.device.online:
                    self._perform(self.device.disconnected(self._around.clock()))
            attempt += 1
            await asyncio.sleep(delay)

    async def _watch_power(self, wanted: "asyncio.Future[Restart]") -> Restart:
        restart = await wanted
        if restart.orderly:
            try:
                async with asyncio.timeout(FLUSH_S):
                    while len(self.device.outbox):
                        self._emptied.clear()
                        await self._emptied.wait()
            except TimeoutError:
                pass
        else:
            self._transport.cut()
        return restart

    async def _drop_links(self) -> NoReturn:
        rate_per_s = self._around.drops_per_hour / 3_600
        while True:
            await asyncio.sleep(self._random.expovariate(rate_per_s) if rate_per_s else 86_400)
            if rate_per_s:
                self._transport.cut()

    async def _download(self, wanted: Fetch) -> None:
        clock = self._around.clock
        try:
            await fetch(
                self._around.session,
                wanted,
                base_url=self._around.device_http_base,
                token=self.token,
                deliver=lambda offset, data: self._perform(self.device.fetched(wanted.job, offset, data, clock())),
                bytes_per_s=self._around.bytes_per_s,
            )
        except FetchBroken as broken:
            self._perform(self.device.fetch_ended(wanted.job, str(broken), clock()))
        except FetchRefused as refused:
            self._perform(self.device.fetch_ended(wanted.job, str(refused), clock(), for_good=True))

    def _perform(self, effects: list[Effect], *, wake: bool = True) -> None:
        """Do what the device wants done, and look whether it has something to say or is due sooner than thought."""
        for effect in effects:
            if isinstance(effect, Restart):
                if self._restart is not None and not self._restart.done():
                    self._restart.set_result(effect)
            elif isinstance(effect, StopFetch):
                for task in self._downloads:
                    task.cancel()
            else:
                task = asyncio.create_task(self._download(effect), name=f"sim-download-{self.device_id}")
                self._downloads.add(task)
                task.add_done_callback(self._downloads.discard)
        if len(self.device.outbox):
            self._to_send.set()
        if wake:
            self._wake.set()

    async def _stop_downloads(self) -> None:
        tasks = list(self._downloads)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _renewed(self) -> bool:
        renew, self._may_renew = self._around.renew, False  # one try
        try:
            token = await renew(self.device_id) if renew else None
        except SimError as error:
            self.error = str(error)
            return False
        self.token = token or self.token
        return token is not None

    def _note(self, state: State, reason: str) -> None:
        if self.state is State.ONLINE:
            self._around.tally.losses += 1
        self.state, self.error = state, reason
        self._around.tally.error(reason)
        logger.debug("%s: %s", self.device_id, reason)


def retry_delay_s(attempt: int, random: Random, *, base_s: float = 1.0, cap_s: float = 60.0) -> float:
    """Seconds before try number `attempt` (0 is the first retry): between half and all of base_s * 2**attempt, capped.

    Half of it is certain: with full jitter a fleet's first retries all fall into the server's restart.
    """
    ceiling = min(cap_s, base_s * float(1 << min(attempt, 16)))
    return ceiling * random.uniform(0.5, 1.0)

"""Who connects in the benchmarks: devices with tokens, made by the fleet's own services, and its own guard over them.

Native and amqtt check every token against the fleet's SQLite database and every topic against its rules; Mosquitto
gets the same bytes and lets anybody in.
"""

import asyncio
import multiprocessing
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker import ConnectRequest, ReasonCode, VersionedGuard

SERVICE = "service"
"""User names that begin so may do everything: what a gateway's own subscriber may."""


@dataclass(frozen=True, slots=True)
class Device:
    id: str
    token: str

    @property
    def topic(self) -> str:
        """All of one length, so that all messages are."""
        return f"devices/{self.id}/telemetry"


class ServiceGuard:
    """Lets the service users through and asks the real guard about everybody else."""

    def __init__(self, guard: VersionedGuard) -> None:
        self._guard = guard

    @property
    def rules_version(self) -> int:
        return self._guard.rules_version

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        if (request.username or "").startswith(SERVICE):
            return ReasonCode.SUCCESS
        return await self._guard.connect(request)

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        if username.startswith(SERVICE):
            return ReasonCode.SUCCESS
        return self._guard.publish(client_id, username, topic)

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        if username.startswith(SERVICE):
            return ReasonCode.SUCCESS
        return await self._guard.subscribe(client_id, username, topic_filter)


class _NoGateway:
    """A fleet needs one; here nobody is sent anything."""

    dead_letters: Any = None

    async def send(self, device_id: str, channel: str, payload: bytes, *, retain: bool = False) -> bool:
        return False

    async def kick(self, device_id: str, reason: str) -> int:
        return 0

    async def forget_device(self, device_id: str) -> None:
        pass


@asynccontextmanager
async def fleet_guard(data_dir: Path) -> AsyncIterator[ServiceGuard]:
    """The guard of a whole running fleet, timers and all."""
    async with _fleet(data_dir) as fleet:
        yield ServiceGuard(fleet.guard)


def make_devices(data_dir: Path, count: int) -> list[Device]:
    """A fleet in this directory, in a process of its own (some 600 devices a second)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    maker = context.Process(target=_make, args=(data_dir, count, theirs))
    maker.start()
    theirs.close()
    try:
        tokens: Mapping[str, str] = ours.recv()
    finally:
        maker.join()
    return [Device(*each) for each in tokens.items()]


def copy_fleet(source: Path, target: Path) -> Path:
    """A fresh copy: what a round writes into it is not there for the next one."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


@asynccontextmanager
async def _fleet(data_dir: Path) -> AsyncIterator[Any]:
    from fleet.fleet import Fleet
    from fleet.options import FleetOptions
    from gateway.bus import Bus

    fleet = Fleet(FleetOptions(data_dir=data_dir), bus=Bus())
    await fleet.start(_NoGateway())
    try:
        yield fleet
    finally:
        await fleet.stop()


def _make(data_dir: Path, count: int, answer: Any) -> None:
    async def main() -> dict[str, str]:
        from fleet.actor import Actor

        anna = Actor(kind="user", id="anna")
        async with _fleet(data_dir) as fleet:
            ids = [f"d{number:05}" for number in range(count)]
            return {device_id: (await fleet.devices.create(anna, id=device_id))[1] for device_id in ids}

    answer.send(asyncio.run(main()))

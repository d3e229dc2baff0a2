"""A fleet with a clock that tests move and a gateway that writes down what it is asked to do, on both databases."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.actor import Actor
from fleet.database import Database
from fleet.fleet import Fleet
from fleet.options import FleetOptions
from fleet.views import Device
from gateway.bus import Bus, Event
from gateway.link import Outcome, Uplink
from tests.servers import Server, postgresql

ANNA = Actor(kind="user", id="anna", address="192.0.2.1")


class MovableClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self._utc = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
        self._monotonic = 1000.0

    def utc(self) -> datetime:
        return self._utc

    def monotonic(self) -> float:
        return self._monotonic

    def move(self, seconds: float) -> None:
        self._utc += timedelta(seconds=seconds)
        self._monotonic += seconds


@dataclass(frozen=True)
class FakeLetter:
    id: int
    device_id: str
    at_ms: int

    def entry(self) -> dict[str, Any]:
        data = {"channel": "telemetry", "reason": "invalid_json", "detail": "", "payload": "{", "encoding": "text"}
        return {"id": f"letter-{self.id}", "summary": "telemetry: invalid_json", "data": data}


class FakeLetters:
    def __init__(self) -> None:
        self.letters: list[FakeLetter] = []

    async def list(self, device_id: str | None = None, limit: int = 50, before: int | None = None) -> list[FakeLetter]:
        found = [each for each in self.letters if each.device_id == device_id and (before is None or each.id < before)]
        return sorted(found, key=lambda each: -each.id)[:limit]


class FakeGateway:
    """Takes what is sent to devices whose `deaf` is not set; remembers sends and kicks."""

    def __init__(self) -> None:
        self.dead_letters = FakeLetters()
        self.sent: list[tuple[str, str, bytes]] = []
        self.retained: dict[tuple[str, str], bytes] = {}
        self.kicks: list[tuple[str, str]] = []
        self.forgotten: list[str] = []
        self.deaf: set[str] = set()
        self.failing = False

    async def send(self, device_id: str, channel: str, payload: bytes, *, retain: bool = False) -> bool:
        if self.failing:
            raise ConnectionError("the link is broken")
        if retain:
            self.retained[device_id, channel] = payload
            return True
        if device_id in self.deaf:
            return False
        self.sent.append((device_id, channel, payload))
        return True

    async def kick(self, device_id: str, reason: str) -> int:
        self.kicks.append((device_id, reason))
        return 1

    async def forget_device(self, device_id: str) -> None:
        self.forgotten.append(device_id)

    def messages(self, device_id: str, channel: str = "") -> list[dict[str, Any]]:
        """What a device was sent on channels that begin so, as JSON."""
        return [orjson.loads(each[2]) for each in self.sent if each[0] == device_id and each[1].startswith(channel)]


class Rig:
    """A running fleet and the handles that tests pull."""

    def __init__(self, fleet: Fleet, gateway: FakeGateway, clock: MovableClock, bus: Bus) -> None:
        self.fleet = fleet
        self.gateway = gateway
        self.clock = clock
        self.bus = bus
        self.watching = bus.subscribe({"presence", "commands", "campaigns", "messages"})

    async def device(self, device_id: str = "pump-7", **fields: Any) -> tuple[Device, str]:
        return await self.fleet.devices.create(ANNA, id=device_id, **fields)

    async def connect(self, device_id: str = "pump-7", *, link: str = "mqtt") -> None:
        """The device connects and is greeted."""
        self.fleet.inbox.connected(device_id, link, "127.0.0.1:50000")
        await self.settle()

    async def disconnect(
        self, device_id: str = "pump-7", *, link: str = "mqtt", reason: str = "connection lost"
    ) -> None:
        self.fleet.inbox.disconnected(device_id, link, reason)
        await self.settle()

    async def settle(self) -> None:
        """Everything that needs no clock is done."""
        await self.fleet.presence.flush()
        await self.fleet.outbox.settle()
        await self.fleet.timeline.flush()

    async def later(self, seconds: float) -> None:
        """Time passes; what is due is done."""
        self.clock.move(seconds)
        await self.fleet.timers.run_due()
        await self.settle()

    async def uplink(self, channel: str, message: object, device_id: str = "pump-7") -> Outcome:
        """A control message from a device."""
        payload = message if isinstance(message, bytes) else orjson.dumps(message)
        return await self.fleet.inbox.handle(
            Uplink(device_id=device_id, channel=channel, payload=payload, received_at_ms=0, link="mqtt")
        )

    async def summaries(self, device_id: str = "pump-7", *kinds: str) -> list[str]:
        await self.fleet.timeline.flush()
        return [entry.summary for entry in (await self.fleet.timeline.list(device_id, kinds=kinds)).items]

    def events(self, channel: str) -> list[Event]:
        """What the live bus has carried since the last time."""
        return [event for event in self.watching.drain() if event.channel == channel]

    async def artifact(self, version: str = "1.1.0", content: bytes = b"firmware" * 1000, **fields: Any) -> str:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 1000):
                yield content[start : start + 1000]

        artifact = await self.fleet.artifacts.create(
            ANNA, version=version, name=f"pump-{version}.bin", chunks=chunks(), **fields
        )
        return artifact.id


@asynccontextmanager
async def running(
    data_dir: Path, database_url: str, *, clock: MovableClock | None = None, **options: Any
) -> AsyncIterator[Rig]:
    """A fleet on this directory and database, for as long as the block lasts."""
    clock, gateway, bus = clock or MovableClock(), FakeGateway(), Bus()
    fleet = Fleet(FleetOptions(data_dir=data_dir, database_url=database_url, **options), bus=bus, clock=clock)
    await fleet.start(gateway)
    try:
        yield Rig(fleet, gateway, clock, bus)
    finally:
        await fleet.stop()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "fleet.db"

    async def migrate() -> None:
        await Database(f"sqlite://{path}").migrate()

    asyncio.run(migrate())
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with postgresql() as server:
        yield server


_numbers = iter(range(1_000_000))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        shutil.copy(migrated, tmp_path / "fleet.db")
        return f"sqlite://{tmp_path}/fleet.db"
    import asyncpg

    server: Server = request.getfixturevalue("postgres")
    connection = await asyncpg.connect(server.url)
    name = f"fleet_{next(_numbers)}"
    try:
        if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = 'fleet_template'") is None:
            await connection.execute("CREATE DATABASE fleet_template")
            await Database(server.url.rpartition("/")[0] + "/fleet_template").migrate()
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE fleet_template")
    finally:
        await connection.close()
    return server.url.rpartition("/")[0] + f"/{name}"


@pytest.fixture
async def sqlite_url(tmp_path: Path, migrated: Path) -> str:
    """A fresh SQLite database, for what has nothing to do with the kind of database."""
    shutil.copy(migrated, tmp_path / "fleet.db")
    return f"sqlite://{tmp_path}/fleet.db"


@pytest.fixture
async def rig(tmp_path: Path, database_url: str) -> AsyncIterator[Rig]:
    async with running(tmp_path, database_url) as rig:
        yield rig


@pytest.fixture
async def lite(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Rig]:
    """A fleet on SQLite alone."""
    async with running(tmp_path, sqlite_url) as rig:
        yield rig

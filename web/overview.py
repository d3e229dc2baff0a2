"""How the server does, gathered from all parts: for the overview, for readiness and for the metrics.

Gathering asks the database and the store, so one answer serves everybody for a second, and those who ask while
it is being made wait for the same one.
"""

import asyncio
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gateway.links.external import ExternalLink, LinkState
from gateway.store import StoreError, StoreStats
from web.parts import BrokerOperations, Parts, Sessions
from web.schemas.system import (
    DeadLetterCounts,
    DeviceCounts,
    Endpoints,
    JournalState,
    Overview,
    Part,
    PartState,
    PendingCommands,
    RunningCampaigns,
    StoreState,
)

if TYPE_CHECKING:
    from gateway.gateway import GatewayStats

logger = logging.getLogger(__name__)

FRESH_S = 1.0
STORE_FRESH_S = 15.0  # sizes move slowly, and a remote store counts them at a price
GATHER_S = 3.0

READY = frozenset({PartState.OK, PartState.WAITING})
"""While the store is waited for, the journal takes readings: nothing is lost and nobody is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleetwide:
    """What the database knows."""

    devices: dict[str, int]
    firmware: dict[str, int]
    commands_pending: int
    campaigns_running: int


class Overviews:
    """Gathers, at most once a second."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = asyncio.Lock()
        self._fleetwide: Fleetwide | None = None
        self._fleetwide_at = 0.0
        self._store = StoreStats(kind="")
        self._store_at: float | None = None
        self._letters: dict[str, int] = {}
        self._letters_at: float | None = None

    async def overview(self) -> Overview:
        """Everything on one page. Raises what the database raises."""
        fleet = await self.fleetwide()
        store = await self.store()
        letters = await self.letters()
        stats = self.gateway()
        return Overview(
            devices=DeviceCounts(**fleet.devices),
            firmware=fleet.firmware,
            messages_per_s=round(stats.messages_per_s, 2),
            readings_per_s=round(stats.readings_per_s, 2),
            refused_per_s=round(stats.refused_per_s, 2),
            journal=JournalState(
                lag_s=round(stats.drain.lag_s, 1),
                bytes=stats.journal.bytes,
                limit_bytes=stats.journal.limit_bytes,
                batches=stats.journal.batches,
            ),
            store=StoreState(
                kind=store.kind,
                state=stats.drain.state,
                detail=stats.drain.detail,
                points=store.points,
                size_bytes=store.size_bytes,
            ),
            dead_letters=DeadLetterCounts(total=sum(letters.values()), reasons=letters),
            commands=PendingCommands(pending=fleet.commands_pending),
            campaigns=RunningCampaigns(running=fleet.campaigns_running),
            parts=self._list(stats, None),
            endpoints=Endpoints(**asdict(self._parts.endpoints)),
            version=self._parts.version,
            uptime_s=round(self.uptime_s(), 1),
        )

    async def parts(self) -> list[Part]:
        """Each part with its state; never raises."""
        failure = None
        try:
            async with asyncio.timeout(GATHER_S):
                await self.fleetwide()
        except Exception as error:
            logger.warning("the database does not answer: %r", error)
            failure = "does not answer"
        return self._list(self.gateway(), failure)

    def gateway(self) -> "GatewayStats":
        return self._parts.gateway.stats()

    def uptime_s(self) -> float:
        return time.monotonic() - self._parts.started_at

    async def fleetwide(self) -> Fleetwide:
        """From the database, at most a second old."""
        async with self._lock:
            if self._fleetwide is None or time.monotonic() - self._fleetwide_at >= FRESH_S:
                fleet = self._parts.fleet
                self._fleetwide = Fleetwide(
                    devices=await fleet.devices.counts(),
                    firmware=await fleet.devices.firmware_versions(),
                    commands_pending=await fleet.commands.pending(),
                    campaigns_running=await fleet.campaigns.running(),
                )
                self._fleetwide_at = time.monotonic()
            return self._fleetwide

    async def letters(self) -> dict[str, int]:
        """Dead letters by reason, at most a second old."""
        async with self._lock:
            if self._letters_at is None or time.monotonic() - self._letters_at >= FRESH_S:
                self._letters = await self._parts.gateway.dead_letters.counts()
                self._letters_at = time.monotonic()
            return self._letters

    async def store(self) -> StoreStats:
        """What the store says of itself, or said last."""
        async with self._lock:
            if self._store_at is None or time.monotonic() - self._store_at >= STORE_FRESH_S:
                self._store_at = time.monotonic()
                try:
                    async with asyncio.timeout(GATHER_S):
                        self._store = await self._parts.gateway.store.stats()
                except (StoreError, TimeoutError) as error:
                    logger.debug("the store does not say how it does: %s", error)
            return self._store

    def _list(self, stats: "GatewayStats", database: str | None) -> list[Part]:
        return [
            self._broker(),
            Part(name="journal", state=PartState(stats.journal.state), detail=stats.journal.detail),
            Part(name="store", state=PartState(stats.drain.state), detail=stats.drain.detail),
            Part(name="database", state=PartState.OK if database is None else PartState.DOWN, detail=database or ""),
        ]

    def _broker(self) -> Part:
        """The embedded broker by its connections, an external one by the state of the link to it."""
        broker = self._parts.sessions
        if broker is not None:
            if isinstance(broker, BrokerOperations) and broker.disk_trouble is not None:
                return Part(name="broker", state=PartState.FAILING, detail=f"cannot write: {broker.disk_trouble}")
            return Part(name="broker", state=PartState.OK, detail=f"{count_sessions(broker)[0]} connected")
        for link in self._parts.gateway.links:
            if isinstance(link, ExternalLink) and link.state is not LinkState.CONNECTED:
                return Part(name="broker", state=PartState.WAITING, detail=f"external: {link.detail or link.state}")
        return Part(name="broker", state=PartState.OK, detail="external")


def count_sessions(broker: Sessions) -> tuple[int, int]:
    """How many are connected, and how many are kept for clients that are away."""
    if isinstance(broker, BrokerOperations):  # it counts as it goes: listing 10,000 sessions takes 20 ms
        metrics = broker.metrics()
        away = int(metrics["sessions_away"])
        return int(metrics["sessions"]) - away, away
    sessions = broker.sessions()
    connected = sum(session.connected for session in sessions)
    return connected, len(sessions) - connected

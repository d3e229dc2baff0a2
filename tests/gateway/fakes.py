"""Parts of the gateway that live in memory, for its tests: a store, a link, a fleet, a clock that is moved."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broker.reason import ReasonCode
from gateway.link import TAKEN, Downlink, Outcome, Receiver, Uplink
from gateway.readings import Reading, Value
from gateway.store import Aggregate, Query, Series, StoreStats

START_MS = 1_763_000_000_000


class Clock:
    """Wall clock and monotonic clock in one; both move together, and only when told."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.seconds += seconds


class MemoryStore:
    """A store in memory. `fail` is asked before each write and may raise; what is young is not seen by queries."""

    write_readings = 20_000

    def __init__(self, clock: Clock | None = None, visible_after_s: float = 0.0) -> None:
        self.visible_after_s = visible_after_s
        self.points: dict[tuple[str, str, int], tuple[Value, float]] = {}
        self.writes: list[list[Reading]] = []
        self.fail: Callable[[Sequence[Reading]], None] = lambda readings: None
        self.fail_open: Callable[[], None] = lambda: None
        self.opened = 0
        self.queries = 0
        self._clock = clock or Clock()

    async def open(self) -> None:
        self.fail_open()
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    async def write(self, readings: Sequence[Reading]) -> None:
        await asyncio.sleep(0)
        self.fail(readings)
        self.writes.append(list(readings))
        for reading in readings:
            self.points[reading.device_id, reading.metric, reading.ts_ms] = (reading.value, self._clock.seconds)

    async def query(self, query: Query) -> dict[str, Series]:
        await asyncio.sleep(0)
        self.queries += 1
        found: dict[str, list[tuple[int, Value]]] = {}
        for (device_id, metric, ts), (value, at) in sorted(self.points.items(), key=lambda item: item[0]):
            if device_id != query.device_id or (query.metrics and metric not in query.metrics):
                continue
            if query.start_ms <= ts < query.end_ms and at + self.visible_after_s <= self._clock.seconds:
                found.setdefault(metric, []).append((ts, value))
        if query.buckets is None:
            return {
                metric: Series([ts for ts, _ in points[-query.limit :]], [v for _, v in points[-query.limit :]])
                for metric, points in found.items()
            }
        return {metric: series for metric, points in found.items() if (series := bucketed(points, query)).t}

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        series = await self.query(Query(device_id=device_id, start_ms=0, end_ms=1 << 60))
        return {metric: (one.t[-1], one.v[-1]) for metric, one in series.items()}

    async def delete_device(self, device_id: str) -> None:
        self.fail(())
        self.points = {key: value for key, value in self.points.items() if key[0] != device_id}

    async def stats(self) -> StoreStats:
        return StoreStats(kind="memory", points=len(self.points))


def bucketed(points: list[tuple[int, Value]], query: Query) -> Series:
    """The plain way to do it, which every other way is compared with."""
    width = query.width_ms or 1
    cells: dict[int, list[Value]] = {}
    for ts, value in points:
        if isinstance(value, bool | str) and query.aggregate not in (Aggregate.FIRST, Aggregate.LAST, Aggregate.COUNT):
            continue
        cells.setdefault(query.start_ms + (ts - query.start_ms) // width * width, []).append(value)
    of: dict[Aggregate, Callable[[list], Value]] = {
        Aggregate.MEAN: lambda values: sum(values) / len(values),
        Aggregate.MIN: min,
        Aggregate.MAX: max,
        Aggregate.SUM: sum,
        Aggregate.COUNT: len,
        Aggregate.FIRST: lambda values: values[0],
        Aggregate.LAST: lambda values: values[-1],
        Aggregate.P50: lambda values: sorted(values)[max(0, math.floor(len(values) * 0.5 + 0.5) - 1)],
        Aggregate.P95: lambda values: sorted(values)[max(0, math.floor(len(values) * 0.95 + 0.5) - 1)],
    }
    return Series(sorted(cells), [of[query.aggregate](cells[start]) for start in sorted(cells)])


@dataclass
class Fleet:
    """Registry and Control: everybody is active but those in `disabled`."""

    disabled: set[str] = field(default_factory=set)
    quarantined: set[str] = field(default_factory=set)
    handled: list[Uplink] = field(default_factory=list)
    told: list[tuple[str, ...]] = field(default_factory=list)
    outcome: Outcome = TAKEN
    gate: asyncio.Event | None = None

    def is_active(self, device_id: str) -> bool:
        return device_id not in self.disabled

    def is_quarantined(self, device_id: str) -> bool:
        return device_id in self.quarantined

    async def handle(self, uplink: Uplink) -> Outcome:
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self.handled.append(uplink)
        if uplink.payload == b"boom":
            raise RuntimeError("boom")
        return self.outcome

    def connected(self, device_id: str, link: str, address: str) -> None:
        self.told.append(("connected", device_id, link, address))

    def disconnected(self, device_id: str, link: str, reason: str) -> None:
        self.told.append(("disconnected", device_id, link, reason))

    def refused(self, uplink: Uplink, outcome: Outcome) -> None:
        self.told.append(("refused", uplink.device_id, outcome.reason))


class FakeLink:
    """Remembers what it was asked."""

    def __init__(self, name: str = "fake", devices: Sequence[str] = ()) -> None:
        self.name = name
        self.devices = set(devices)
        self.sent: list[Downlink] = []
        self.receiver: Receiver | None = None
        self.running = False

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def send(self, downlink: Downlink) -> bool:
        self.sent.append(downlink)
        return downlink.device_id in self.devices

    async def kick(self, device_id: str, reason: str) -> int:
        return 1 if device_id in self.devices else 0


class Answers:
    """A `done` that keeps what it was called with."""

    def __init__(self) -> None:
        self.batches: list[list[Outcome]] = []
        self._called = asyncio.Event()

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        self.batches.append(list(outcomes))
        self._called.set()

    async def wait(self, count: int = 1) -> list[Outcome]:
        """The outcomes of all batches once `count` of them are answered."""
        while len(self.batches) < count:
            self._called.clear()
            await self._called.wait()
        return [outcome for batch in self.batches for outcome in batch]

    @property
    def codes(self) -> list[ReasonCode]:
        return [outcome.code for batch in self.batches for outcome in batch]


def uplink(device_id: str, payload: bytes, channel: str = "telemetry", content_type: str | None = None) -> Uplink:
    return Uplink(
        device_id=device_id, channel=channel, payload=payload, received_at_ms=START_MS, content_type=content_type
    )


async def until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    """Let the event loop turn until the claim holds: for what happens in threads, which no clock moves."""
    async with asyncio.timeout(seconds):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

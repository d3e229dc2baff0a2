"""A move between stores: whole, resumed, politely tried again, and counted in the end."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.readings import Reading
from gateway.store import Query, Store, StoreRejected, StoreUnavailable
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from gateway.stores.influxdb import InfluxOptions, InfluxStore
from gateway.stores.transfer_copy import DAY_MS, CheckpointError, Move
from gateway.stores.transfer_scan import PAGE, scan
from gateway.stores.victoriametrics import VictoriaOptions, VictoriaStore
from tests import servers

FIRST = 19_675
NOW_MS = (FIRST + 3) * DAY_MS
READINGS = [
    Reading(f"pump-{device}", metric, (FIRST + day) * DAY_MS + second * 1000, value)
    for day in range(3)
    for device in range(4)
    for second in range(20)
    for metric, value in (("t", second + 0.5), ("on", second % 2 == 0), ("door", "open"))
]


def embedded(directory: Path) -> EmbeddedStore:
    return EmbeddedStore(EmbeddedOptions(directory=directory, synchronous="normal"), now_ms=lambda: NOW_MS)


class Pauses:
    """Remembers how long was waited, and waits not at all."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Hindered:
    """A target that does something first at each write."""

    def __init__(self, store: Store, errors: list[Exception | None], refuses: str = "") -> None:
        self.store, self.errors, self.refuses, self.written = store, errors, refuses, 0
        self.visible_after_s = store.visible_after_s
        self.query = store.query

    async def write(self, readings: Sequence[Reading]) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        if any(reading.metric == self.refuses for reading in readings):
            raise StoreRejected("not this metric")
        await self.store.write(readings)
        self.written += len(readings)


def move(source: EmbeddedStore, target: object, checkpoint: Path, pauses: Pauses, name: str = "there") -> Move:
    return Move(
        source,
        target,  # type: ignore[arg-type]
        target_name=name,
        checkpoint=checkpoint,
        pause=pauses,
    )


@pytest.fixture
async def source(tmp_path: Path) -> EmbeddedStore:
    store = embedded(tmp_path / "source")
    await store.open()
    await store.write(READINGS)
    return store


@pytest.fixture
async def target(tmp_path: Path) -> EmbeddedStore:
    store = embedded(tmp_path / "target")
    await store.open()
    return store


@pytest.fixture(autouse=True)
async def _closed(source: EmbeddedStore, target: EmbeddedStore):  # type: ignore[no-untyped-def]
    yield
    await source.close()
    await target.close()


async def content(store: Store) -> list[Reading]:
    found = [
        reading
        for device in range(4)
        async for window in scan(store, f"pump-{device}", FIRST * DAY_MS, (FIRST + 3) * DAY_MS)
        for reading in window
    ]
    return sorted(found)


async def test_a_move_brings_every_reading_and_counts_them(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    report = await move(source, target, tmp_path / "c", Pauses()).run(
        FIRST, FIRST + 2, lambda done, total: told.append((done, total))
    )
    assert report.points == len(READINGS)
    assert not report.differences
    assert not report.rejected
    assert told[-1] == (12, 12)
    assert await content(target) == sorted(READINGS)


async def test_a_move_broken_off_goes_on_where_it_was(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    broken = Hindered(target, [None] * 5 + [RuntimeError("killed")])
    moving = move(source, broken, tmp_path / "c", Pauses())
    moving._monotonic = iter(range(10**6)).__next__  # every device's day is a checkpoint
    with pytest.raises(RuntimeError, match="killed"):
        await moving.run(FIRST, FIRST + 2, lambda done, total: None)
    rest = Hindered(target, [])
    report = await move(source, rest, tmp_path / "c", Pauses()).run(FIRST, FIRST + 2, lambda done, total: None)
    assert report.resumed
    assert broken.written + rest.written == len(READINGS)
    assert await content(target) == sorted(READINGS)


async def test_what_came_after_its_day_was_done_is_found_by_the_counts(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    await move(source, target, tmp_path / "c", Pauses()).run(FIRST, FIRST + 2, lambda done, total: None)
    late = Reading("pump-0", "late", FIRST * DAY_MS + 5, 1)
    await source.write([late])
    await target.delete_device("pump-3")
    report = await move(source, target, tmp_path / "c", Pauses()).run(FIRST, FIRST + 2, lambda done, total: None)
    assert not report.differences
    assert await content(target) == sorted([*READINGS, late])


async def test_a_target_that_is_away_is_tried_again_as_late_as_it_asks(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    pauses = Pauses()
    away = Hindered(target, [StoreUnavailable("429", retry_after_s=30), StoreUnavailable("503")])
    report = await move(source, away, tmp_path / "c", pauses).run(FIRST, FIRST + 2, lambda done, total: None)
    assert report.points == len(READINGS)
    assert pauses.seconds[0] >= 30
    assert len(pauses.seconds) == 2


async def test_a_target_that_stays_away_ends_the_move(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    moving = move(source, Hindered(target, [StoreUnavailable("no")] * 10_000), tmp_path / "c", Pauses())
    moving._monotonic = iter(range(10**6)).__next__
    with pytest.raises(StoreUnavailable):
        await moving.run(FIRST, FIRST + 2, lambda done, total: None)


async def test_what_the_target_never_takes_is_told_of_and_the_rest_is_moved(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    picky = Hindered(target, [], refuses="door")
    report = await move(source, picky, tmp_path / "c", Pauses()).run(FIRST, FIRST + 2, lambda done, total: None)
    assert report.rejected_points == len(READINGS) // 3
    assert {reading.metric for reading, _ in report.rejected} == {"door"}
    assert not report.differences
    assert len(await content(target)) == len(READINGS) * 2 // 3


async def test_a_target_that_loses_writes_is_found_out(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path
) -> None:
    class Lossy(Hindered):
        async def write(self, readings: Sequence[Reading]) -> None:
            await self.store.write([reading for reading in readings if reading.device_id != "pump-2"])

    report = await move(source, Lossy(target, []), tmp_path / "c", Pauses()).run(
        FIRST, FIRST + 2, lambda done, total: None
    )
    assert {(d.device, d.source, d.target) for d in report.differences} == {("pump-2", 60, 0)}
    assert len(report.differences) == 3


@pytest.mark.parametrize("text", ["", "{}", '{"target": "elsewhere", "day": 1, "device": "x"}'])
async def test_a_checkpoint_of_something_else_is_refused(
    source: EmbeddedStore, target: EmbeddedStore, tmp_path: Path, text: str
) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(CheckpointError):
        await move(source, target, tmp_path / "c", Pauses()).run(FIRST, FIRST, lambda done, total: None)


async def test_a_scan_gives_crowded_and_sparse_times_whole_in_order(target: EmbeddedStore) -> None:
    start = FIRST * DAY_MS
    crowded = [Reading("d", "m", start + DAY_MS + ms, ms) for ms in range(3 * PAGE)]
    readings = [Reading("d", "m", start + 5, 1), *crowded, Reading("d", "m", start + 3 * DAY_MS - 1, 2)]
    await target.write(readings)
    windows = [window async for window in scan(target, "d", start, start + 3 * DAY_MS)]
    assert [reading for window in windows for reading in window] == readings
    assert max(map(len, windows)) <= PAGE
    counted = await target.query(Query(device_id="d", start_ms=start, end_ms=start + 3 * DAY_MS, limit=10**6))
    assert len(counted["m"].t) == len(readings)


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["influxdb", "victoriametrics"])
async def test_a_server_killed_half_way_has_everything_once_in_the_end(
    source: EmbeddedStore, tmp_path: Path, kind: str
) -> None:
    with servers.influxdb() if kind == "influxdb" else servers.victoria_metrics() as server:
        store: InfluxStore | VictoriaStore
        if kind == "influxdb":
            store = InfluxStore(InfluxOptions(url=server.url, bucket="moved", api="v1"))
        else:
            store = VictoriaStore(VictoriaOptions(url=server.url))
        await store.open()
        killed: list[float] = []

        async def pause(seconds: float) -> None:
            if not server.running:
                killed.append(seconds)
                await asyncio.to_thread(server.start)
            elif seconds == store.visible_after_s:
                await asyncio.sleep(4)  # no query has asked for these series before: 2 s are enough

        def progress(done: int, total: int) -> None:
            if done == 6 and not killed:
                server.kill()

        try:
            moving = Move(source, store, target_name=kind, checkpoint=tmp_path / "c", pause=pause)
            report = await moving.run(FIRST, FIRST + 2, progress)
            assert killed
            assert not report.differences
            assert await content(store) == sorted(READINGS)
        finally:
            await store.close()

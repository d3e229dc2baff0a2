"""The embedded store gives what a dictionary of points would, whatever is loose, sealed, late, or written again."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.readings import Reading, Value
from gateway.store import Aggregate, Query, Series
from gateway.stores import EmbeddedOptions, EmbeddedStore, day_writer, sealing
from gateway.stores.chunk import DamagedChunk, decode, encode
from gateway.stores.day_file import DAY_MS
from gateway.stores.folding import rollup_for
from tests.gateway.fakes import bucketed

DAY = 19_675
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
START_MS = DAY * DAY_MS + 20 * HOUR_MS  # the data goes over midnight
SPAN_MS = 8 * HOUR_MS
KINDS = ("n", "f", "ok", "door", "mixed")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_writer, "CHUNK_READINGS", 400)
    monkeypatch.setattr(sealing, "CHUNK_READINGS", 400)
    monkeypatch.setattr(sealing, "WINDOW_READINGS", 1200)
    monkeypatch.setattr(sealing, "SMALL_READINGS", 300)
    monkeypatch.setattr(day_writer, "RIPE_READINGS", 300)
    monkeypatch.setattr(day_writer, "RIPE_SHELF_READINGS", 200)
    monkeypatch.setattr(day_writer, "RIPE_BLOCKS", 12)


def value_of(metric: str, chance: random.Random) -> Value:
    match metric:
        case "n":
            return chance.randint(-50, 50)
        case "f":
            return chance.choice([round(chance.gauss(20, 3), 1), chance.random(), -0.0, 0.0])
        case "ok":
            return chance.random() < 0.5
        case "door":
            return chance.choice(["open", "shut", "", "ä;,'\"[1]"])
        case _:
            return value_of(chance.choice(KINDS[:4]), chance)


class Model:
    """The plain way to do it."""

    def __init__(self) -> None:
        self.points: dict[str, dict[int, Value]] = {}

    def write(self, readings: list[Reading]) -> None:
        for _, metric, ts_ms, value in readings:
            self.points.setdefault(metric, {})[ts_ms] = value

    def query(self, query: Query) -> dict[str, Series]:
        found = {}
        for metric, points in self.points.items():
            rows = [(ts, points[ts]) for ts in sorted(points) if query.start_ms <= ts < query.end_ms]
            if query.buckets is None:
                rows = rows[-query.limit :]
                series = Series([ts for ts, _ in rows], [value for _, value in rows])
            else:
                series = bucketed(rows, query)
            if series.t:
                found[metric] = series
        return found


def batches(chance: random.Random) -> Iterator[list[Reading]]:
    """Dense in order, then late ones, repetitions and corrections all over."""
    at_ms = START_MS
    while at_ms < START_MS + SPAN_MS:
        batch = []
        for _ in range(chance.randint(1, 400)):
            at_ms += chance.choice([1000, 1000, 1000, 999, 5000, 1])
            batch += [
                Reading("d", metric, at_ms, value_of(metric, chance)) for metric in KINDS if chance.random() < 0.8
            ]
        yield batch
        if chance.random() < 0.4:
            yield [
                Reading("d", metric, chance.randrange(START_MS, at_ms + 1), value_of(metric, chance))
                for metric in chance.choices(KINDS, k=chance.randint(1, 20))
            ]
        if chance.random() < 0.2:
            yield chance.sample(batch, min(10, len(batch)))


def queries(chance: random.Random) -> Iterator[Query]:
    for aggregate in Aggregate:
        width_ms = chance.choice([MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS, 7_777_000])
        start = START_MS + chance.randrange(-HOUR_MS, SPAN_MS)
        if chance.random() < 0.7:
            start -= start % (HOUR_MS if width_ms % HOUR_MS == 0 else MINUTE_MS)
        buckets = chance.randint(1, 20)
        end = start + buckets * width_ms - chance.choice([0, 0, width_ms // 3])
        yield Query(device_id="d", start_ms=start, end_ms=end, buckets=buckets, aggregate=aggregate)
    start, end = sorted(START_MS + chance.randrange(SPAN_MS) for _ in range(2))
    yield Query(device_id="d", start_ms=start, end_ms=end + 1, limit=chance.choice([1, 50, 10_000]))
    yield Query(device_id="d", start_ms=0, end_ms=1 << 45, limit=1_000_000)


def same(found: dict[str, Series], expected: dict[str, Series], query: Query) -> None:
    assert {metric: series.t for metric, series in found.items()} == {m: series.t for m, series in expected.items()}
    for metric, series in found.items():
        wanted = expected[metric].v
        if query.aggregate in (Aggregate.MEAN, Aggregate.SUM) and query.buckets is not None:
            for one, other in zip(series.v, wanted, strict=True):  # floats are added in another order
                assert math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-9), (metric, query)
        elif query.buckets is None:
            assert list(map(repr, series.v)) == list(map(repr, wanted)), (metric, query)
        else:
            assert series.v == wanted, (metric, query)


@pytest.mark.parametrize("seed", range(4))
async def test_answers_are_those_of_a_dictionary_of_points(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    model = Model()

    def open_store() -> EmbeddedStore:
        options = EmbeddedOptions(directory=tmp_path / "readings", synchronous="normal")
        return EmbeddedStore(options, now_ms=lambda: START_MS + SPAN_MS)

    store = open_store()
    await store.open()
    for batch in batches(chance):
        await store.write(batch)
        model.write(batch)
        what = chance.random()
        if what < 0.1:
            await store.compact()
        elif what < 0.15:
            await store.close()
            store = open_store()
            await store.open()
        if chance.random() < 0.08:
            for query in queries(chance):
                same(await store.query(query), model.query(query), query)
            latest = await store.latest("d")
            assert latest == {metric: max(points.items()) for metric, points in model.points.items()}
    await store.compact()
    assert await store.verify() == []
    stats = await store.stats()
    assert (stats.points, stats.loose_points) == (sum(map(len, model.points.values())), 0)
    for _ in range(3):
        for query in queries(chance):
            same(await store.query(query), model.query(query), query)
    await store.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_fleet_of_series_on_shelves_is_answered_as_one_by_one(seed: int, tmp_path: Path) -> None:
    """Few readings of each of many devices in a write, now and then many of one: by themselves, on shelves, sealed."""
    chance = random.Random(seed)
    devices = [f"d{number}" for number in range(30)]
    models = {device: Model() for device in devices}
    options = EmbeddedOptions(directory=tmp_path / "readings", synchronous="normal")

    def open_store() -> EmbeddedStore:
        return EmbeddedStore(options, now_ms=lambda: START_MS + SPAN_MS)

    async def check(some: list[str]) -> None:
        for device in some:
            query = Query(device_id=device, start_ms=START_MS + chance.randrange(SPAN_MS // 2), end_ms=1 << 45)
            same(await store.query(query), models[device].query(query), query)
            newest = {metric: max(points.items()) for metric, points in models[device].points.items()}
            assert await store.latest(device) == newest

    store = open_store()
    await store.open()
    for at_ms in range(START_MS, START_MS + SPAN_MS, SPAN_MS // 100):
        batch: list[Reading] = []
        for device in chance.sample(devices, chance.randint(1, len(devices))):
            for _ in range(chance.choice([1, 1, 1, 2, 9])):
                when = at_ms if chance.random() < 0.8 else chance.randrange(START_MS, at_ms + 1)
                metrics = [metric for metric in ("n", "f", "mixed") if chance.random() < 0.8]
                batch += [Reading(device, metric, when, value_of(metric, chance)) for metric in metrics]
        await store.write(batch)
        for reading in batch:
            models[reading.device_id].write([reading])
        match chance.randrange(12):
            case 0:
                await check(chance.sample(devices, 3))
            case 1:
                await store.close()
                store = open_store()
                await store.open()
            case 2:
                gone = chance.choice(devices)
                await store.delete_device(gone)
                models[gone] = Model()
            case 3 if chance.random() < 0.3:
                await store.compact()
            case _:
                pass
    assert await store.verify() == []
    await check(devices)
    await store.compact()
    await check(devices)
    assert await store.verify() == []
    points = sum(len(points) for model in models.values() for points in model.points.values())
    stats = await store.stats()
    assert (stats.points, stats.loose_points) == (points, 0)
    assert await store.devices() == sorted(device for device, model in models.items() if model.points)
    await store.close()


def test_rollups_serve_only_queries_whose_buckets_they_fill() -> None:
    def asked(start_ms: int, width_ms: int, aggregate: Aggregate = Aggregate.MEAN) -> str | None:
        query = Query(device_id="d", start_ms=start_ms, end_ms=start_ms + 3 * width_ms, buckets=3, aggregate=aggregate)
        return rollup_for(query)

    assert asked(HOUR_MS, 2 * HOUR_MS) == "hours"
    assert asked(HOUR_MS, 90 * MINUTE_MS) == "minutes"
    assert asked(MINUTE_MS, HOUR_MS) == "minutes"
    assert asked(MINUTE_MS, MINUTE_MS) == "minutes"
    assert asked(MINUTE_MS + 1, MINUTE_MS) is None
    assert asked(MINUTE_MS, MINUTE_MS + 1) is None
    assert asked(HOUR_MS, HOUR_MS, Aggregate.P95) is None
    assert rollup_for(Query(device_id="d", start_ms=0, end_ms=HOUR_MS)) is None


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, -1])
def test_a_chunk_that_is_not_whole_is_refused(cut: int) -> None:
    chunk = encode([1, 2, 3], [1.5, 2.5, -0.0])
    with pytest.raises(DamagedChunk):
        decode(chunk[:cut])


def test_a_flipped_bit_in_a_chunk_is_noticed() -> None:
    times, values = list(range(500)), [value / 10 for value in range(500)]
    chunk = encode(times, values)
    refused = 0
    for at in range(len(chunk)):
        for bit in range(8):
            try:
                column = decode(chunk[:at] + bytes([chunk[at] ^ 1 << bit]) + chunk[at + 1 :])
            except DamagedChunk:
                refused += 1
            else:  # some bits of zlib's mean nothing
                assert (column.times.tolist(), column.values()) == (times, values)
    assert refused > 7 * len(chunk)

"""An acknowledged reading is in the next answer, whatever the store has seen of it."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.history import History
from gateway.readings import Reading, Value
from gateway.store import Aggregate, Query, StoreUnavailable
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from tests.gateway.fakes import START_MS, Clock, MemoryStore, bucketed
from tests.gateway.test_drain import Rig


class Reader(Rig):
    """A rig with a history."""

    def __init__(self, path: Path, clock: Clock, store: MemoryStore, **options: object) -> None:
        super().__init__(path, clock, store, **options)
        self.history = History(store, self.journal, self.recent)
        add = self.recent.add
        self.journal.on_commit = lambda row, fixed: (add(row), self.history.saw(row))  # type: ignore[assignment,func-returns-value]
        self.truth: dict[tuple[str, str, int], Value] = {}

    async def put(self, *readings: Reading) -> None:
        await super().put(*readings)
        for reading in readings:
            self.truth[reading[:3]] = reading.value

    def expected(self, query: Query) -> dict[str, tuple[list[int], list[Value]]]:
        series: dict[str, list[tuple[int, Value]]] = {}
        for (device_id, metric, ts), value in sorted(self.truth.items(), key=lambda item: item[0]):
            inside = device_id == query.device_id and query.start_ms <= ts < query.end_ms
            if inside and (not query.metrics or metric in query.metrics):
                series.setdefault(metric, []).append((ts, value))
        if query.buckets is None:
            cut = {metric: points[-query.limit :] for metric, points in series.items()}
            return {metric: ([t for t, _ in points], [v for _, v in points]) for metric, points in cut.items()}
        cells = {metric: bucketed(points, query) for metric, points in series.items()}
        return {metric: (one.t, one.v) for metric, one in cells.items() if one.t}

    async def check(self, query: Query) -> None:
        found = await self.history.query(query)
        expected = self.expected(query)
        assert {metric: series.t for metric, series in found.items()} == {m: t for m, (t, _) in expected.items()}
        for metric, (_, values) in expected.items():
            for got, wanted in zip(found[metric].v, values, strict=True):
                assert got == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)


@pytest.fixture
async def reader(tmp_path: Path, clock: Clock, memory_store: MemoryStore) -> AsyncIterator[Reader]:
    memory_store.visible_after_s = 5.0
    reader = Reader(tmp_path / "journal.db", clock, memory_store, linger_s=0.0, merge_readings=7)
    await reader.open()
    yield reader
    await reader.journal.close()


def one(number: int, value: Value | None = None, metric: str = "m", device_id: str = "d") -> Reading:
    return Reading(device_id, metric, number, number if value is None else value)


ALL = Query(device_id="d", start_ms=0, end_ms=1000)


async def test_a_reading_is_seen_in_the_journal_in_the_store_and_between(reader: Reader) -> None:
    await reader.put(one(1))
    await reader.check(ALL)  # only in the journal
    await reader.settle()
    await reader.check(ALL)  # in the store, which does not show it yet
    assert (await reader.store.query(ALL)) == {}
    reader.clock.move(5)
    await reader.check(ALL)  # both
    await reader.settle()
    assert reader.rows == 0
    await reader.check(ALL)  # only in the store


async def test_a_later_value_for_a_point_replaces_the_earlier_one_everywhere(reader: Reader) -> None:
    await reader.put(one(1, 10), one(2, 20))
    await reader.settle()
    reader.clock.move(5)
    await reader.settle()
    await reader.put(one(1, 11))
    await reader.put(one(1, 12))
    await reader.check(ALL)
    for aggregate in Aggregate:
        await reader.check(Query(device_id="d", start_ms=0, end_ms=10, buckets=1, aggregate=aggregate))
    assert (await reader.history.latest("d")) == {"m": (2, 20)}


async def test_redelivered_readings_are_not_counted_twice(reader: Reader) -> None:
    for _ in range(3):
        await reader.put(*(one(n) for n in range(50)))
        await reader.settle()
        reader.clock.move(2)
    for aggregate in (Aggregate.COUNT, Aggregate.SUM, Aggregate.MEAN):
        await reader.check(Query(device_id="d", start_ms=0, end_ms=100, buckets=3, aggregate=aggregate))
    await reader.check(ALL)


async def test_ranges_metrics_devices_and_limits_hold_for_recent_readings_too(reader: Reader) -> None:
    await reader.put(*(one(n) for n in range(0, 100, 2)), one(5, metric="n"), one(5, device_id="e"))
    await reader.settle()
    reader.clock.move(5)
    await reader.settle()
    await reader.put(*(one(n) for n in range(1, 100, 2)), one(6, metric="n"), one(6, device_id="e"))
    await reader.check(Query(device_id="d", start_ms=10, end_ms=20))
    await reader.check(Query(device_id="d", start_ms=0, end_ms=100, metrics=("n",)))
    await reader.check(Query(device_id="d", start_ms=0, end_ms=100, limit=7))
    await reader.check(Query(device_id="e", start_ms=0, end_ms=6))
    await reader.check(Query(device_id="nobody", start_ms=0, end_ms=100))


@pytest.mark.parametrize("aggregate", list(Aggregate))
async def test_text_and_booleans_have_only_their_count_and_their_last(reader: Reader, aggregate: Aggregate) -> None:
    await reader.put(one(1, "a", "text"), one(2, True, "flag"), one(1, 1))
    await reader.settle()
    reader.clock.move(5)
    await reader.settle()
    await reader.put(one(3, "b", "text"), one(4, False, "flag"), one(4, 2))
    await reader.check(Query(device_id="d", start_ms=0, end_ms=10, buckets=2, aggregate=aggregate))


@pytest.mark.parametrize("seed", range(12))
async def test_buckets_are_exact_wherever_each_reading_happens_to_be(reader: Reader, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(14):
        first = chance.randrange(1000)
        await reader.put(
            *(
                one(min(999, first + chance.randrange(40)), chance.choice([chance.randrange(100), chance.random()]), m)
                for m in ("a", "b", "c")
                for _ in range(chance.randrange(4))
            ),
            one(first, metric="a"),
        )
        if chance.random() < 0.7:
            await reader.settle()
        reader.clock.move(chance.random() * 3)
        if chance.random() < 0.5:
            await reader.settle()
        start = chance.randrange(-50, 300)
        end = start + chance.randrange(1, 900)
        buckets = chance.choice([None, 1, 2, 7, 60, 5000])
        metrics = chance.choice([(), ("a",), ("b", "c")])
        aggregate = chance.choice(list(Aggregate))
        await reader.check(
            Query(device_id="d", start_ms=start, end_ms=end, metrics=metrics, buckets=buckets, aggregate=aggregate)
        )


@pytest.mark.parametrize("seed", range(4))
async def test_buckets_are_exact_over_the_embedded_store(tmp_path: Path, clock: Clock, seed: int) -> None:
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "store"), now_ms=clock.now_ms)
    reader = Reader(tmp_path / "journal.db", clock, store, linger_s=0.0)  # type: ignore[arg-type]
    await reader.open()
    await reader.drain.open_store()
    chance = random.Random(seed)
    span = 3 * 3_600_000  # long enough for the store's own roll-ups to have a part in it
    for _ in range(12):
        ts = START_MS + chance.randrange(span)
        await reader.put(*(one(ts + n * chance.randrange(1, 20_000), chance.random(), "ab"[n % 2]) for n in range(60)))
        if chance.random() < 0.6:
            await reader.settle()
        start = START_MS + chance.randrange(span)
        query = Query(
            device_id="d",
            start_ms=start,
            end_ms=start + chance.randrange(1, span),
            buckets=chance.choice([None, 1, 3, 60, 500]),
            aggregate=chance.choice(list(Aggregate)),
        )
        await reader.check(query)
        latest = await reader.history.latest("d")
        newest = {metric: max(ts for _, m, ts in reader.truth if m == metric) for metric in "ab"}
        assert {metric: at for metric, (at, _) in latest.items()} == newest
    await reader.journal.close()
    await store.close()


async def test_a_bucket_with_more_raw_readings_than_a_page_is_exact(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.history._PAGE", 10)
    await reader.put(*(one(n) for n in range(100)), *(one(n, metric="n") for n in range(35)))
    await reader.settle()
    reader.clock.move(5)
    await reader.settle()
    await reader.put(one(1, 1000), one(98, 1000), one(30, 1000, "n"), one(2, 7, "n"))
    for aggregate in Aggregate:
        await reader.check(Query(device_id="d", start_ms=0, end_ms=100, buckets=1, aggregate=aggregate))


async def test_only_the_stretch_with_recent_readings_is_read_raw(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.put(*(one(n) for n in range(1000)))
    await reader.settle()
    reader.clock.move(5)
    await reader.settle()
    await reader.put(one(990), one(995))
    asked: list[Query] = []
    query = reader.store.query

    async def note(one_query: Query) -> object:
        asked.append(one_query)
        return await query(one_query)

    monkeypatch.setattr(reader.store, "query", note)
    await reader.check(Query(device_id="d", start_ms=0, end_ms=1000, buckets=2))
    assert [(q.start_ms, q.end_ms) for q in asked if q.buckets is None] == [(990, 996)]


async def test_rows_that_left_memory_are_found_on_disk(tmp_path: Path, clock: Clock, memory_store: MemoryStore) -> None:
    reader = Reader(tmp_path / "journal.db", clock, memory_store, recent_bytes=1000)
    await reader.open()
    for number in range(40):
        await reader.put(one(number), one(number, device_id=f"other{number}"))
    await reader.put(one(3, 333))
    await reader.check(ALL)
    await reader.check(Query(device_id="d", start_ms=5, end_ms=8))
    await reader.check(Query(device_id="d", start_ms=0, end_ms=100, buckets=3))
    await reader.check(Query(device_id="other7", start_ms=0, end_ms=100))
    assert await reader.history.latest("d") == {"m": (39, 39)}
    assert await reader.history.latest("other7") == {"m": (7, 7)}
    assert await reader.history.latest("nobody") == {}
    await reader.journal.close()


async def test_after_a_restart_acknowledged_readings_are_seen_at_once(
    reader: Reader, tmp_path: Path, clock: Clock
) -> None:
    await reader.put(*(one(n) for n in range(10)))
    await reader.settle()
    await reader.put(one(10))
    await reader.journal.close()
    again = Reader(tmp_path / "journal.db", clock, reader.store)
    await again.open()
    again.truth = reader.truth
    await again.check(ALL)
    assert await again.history.latest("d") == {"m": (10, 10)}
    await again.journal.close()


async def test_a_row_that_is_forgotten_while_the_store_is_asked_is_not_missed(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.put(one(1))
    await reader.settle()
    reader.clock.move(4.9)
    query = reader.store.query

    async def slow(one_query: Query) -> object:
        answer = await query(one_query)  # nothing to be seen yet
        reader.clock.move(1)
        await reader.settle()
        assert reader.rows == 0
        return answer

    monkeypatch.setattr(reader.store, "query", slow)
    assert (await reader.history.query(ALL))["m"].t == [1]


async def test_latest_is_asked_of_the_store_once_and_kept_current(reader: Reader) -> None:
    await reader.put(one(5), one(3, "x", "text"))
    await reader.settle()
    reader.clock.move(5)
    await reader.settle()
    assert await reader.history.latest("d") == {"m": (5, 5), "text": (3, "x")}
    asked = reader.store.queries
    await reader.put(one(7), one(6), one(2, "old", "text"), one(1, metric="new"))
    assert await reader.history.latest("d") == {"m": (7, 7), "text": (3, "x"), "new": (1, 1)}
    await reader.put(one(7, 77))
    assert (await reader.history.latest("d"))["m"] == (7, 77)
    assert reader.store.queries == asked


async def test_latest_holds_what_is_committed_while_it_is_loaded(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = reader.store.latest

    async def slow(device_id: str) -> object:
        answer = await latest(device_id)
        await reader.put(one(9))
        await reader.settle()
        reader.clock.move(6)
        await reader.settle()
        return answer

    monkeypatch.setattr(reader.store, "latest", slow)
    await reader.put(one(5))
    first, second = await asyncio.gather(reader.history.latest("d"), reader.history.latest("d"))
    assert first == second == await reader.history.latest("d") == {"m": (9, 9)}


async def test_the_latest_values_kept_are_bounded_and_not_the_caller_s_to_change(
    tmp_path: Path, clock: Clock, reader: Reader
) -> None:
    history = History(reader.store, reader.journal, reader.recent, devices_cached=3)
    for number in range(10):
        await history.latest(f"d{number}")
    assert list(history._latest) == ["d7", "d8", "d9"]
    (await history.latest("d9"))["m"] = (1, 1)
    assert await history.latest("d9") == {}
    history.forget_device("d9")
    assert list(history._latest) == ["d7", "d8"]


async def test_a_store_that_is_down_is_said_and_not_answered_with_half_the_truth(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> object:
        raise StoreUnavailable("down")

    await reader.put(one(1))
    assert await reader.history.latest("d") == {"m": (1, 1)}
    monkeypatch.setattr(reader.store, "query", refuse)
    monkeypatch.setattr(reader.store, "latest", refuse)
    with pytest.raises(StoreUnavailable):
        await reader.history.query(ALL)
    with pytest.raises(StoreUnavailable):
        await reader.history.latest("e")
    await reader.put(one(2))
    assert await reader.history.latest("d") == {"m": (2, 2)}  # known, and kept current without the store

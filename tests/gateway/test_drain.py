"""From the journal into the store: merging, back-off, poison, visibility, restarts, erasures. Steps are by hand."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.drain import Drain, DrainOptions, retry_delay_s
from gateway.frames import frames_of
from gateway.journal import Entry, Journal
from gateway.readings import Reading
from gateway.recent import Recent
from gateway.store import StoreRejected, StoreUnavailable
from tests.gateway.fakes import Clock, MemoryStore


class Rig:
    """A journal, what is recent, and a drain that nobody runs."""

    def __init__(self, path: Path, clock: Clock, store: MemoryStore, **options: object) -> None:
        recent_bytes = options.pop("recent_bytes", 1 << 20)
        self.clock = clock
        self.store = store
        self.recent = Recent(limit_bytes=recent_bytes)  # type: ignore[arg-type]
        self.journal = Journal(path, now_ms=clock.now_ms, monotonic=clock.monotonic)
        self.journal.on_commit = lambda row, fixed: self.recent.add(row)
        self.rejected: list[tuple[Reading, str]] = []
        self.drain = Drain(
            store,
            self.journal,
            self.recent,
            DrainOptions(**options),  # type: ignore[arg-type]
            now_ms=clock.now_ms,
            monotonic=clock.monotonic,
            chance=lambda: 0.5,
            rejected=lambda reading, detail: self.rejected.append((reading, detail)),
        )

    async def open(self) -> None:
        for summary in await self.journal.open():
            self.recent.add_stored(summary)

    async def put(self, *readings: Reading) -> None:
        """One row of the journal."""
        self.journal.append(Entry(frames_of(readings), lambda _: None, cost=200 * len(readings)))
        await self.journal.barrier()

    async def settle(self) -> None:
        """Step until the drain would wait."""
        while await self.drain.step() == 0.0:
            pass

    @property
    def rows(self) -> int:
        return self.journal.stats().batches


@pytest.fixture
async def rig(tmp_path: Path, clock: Clock, memory_store: MemoryStore) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, linger_s=0.0)
    await rig.open()
    yield rig
    await rig.journal.close()


def reading(number: int, metric: str = "m", device_id: str = "d") -> Reading:
    return Reading(device_id, metric, number, number)


@pytest.mark.parametrize(("attempt", "most"), [(0, 1), (1, 2), (3, 8), (6, 60), (7, 60), (10_000, 60)])
def test_retry_delays_grow_to_the_cap_with_full_jitter(attempt: int, most: float) -> None:
    assert retry_delay_s(attempt, chance=lambda: 0.0) == 0.0
    assert retry_delay_s(attempt, chance=lambda: 0.5) == most / 2
    chance = random.Random(1)
    delays = [retry_delay_s(attempt, chance=chance.random) for _ in range(200)]
    assert all(0 <= delay < most for delay in delays)
    assert max(delays) > most * 0.9


async def test_rows_are_merged_into_one_write_and_forgotten(rig: Rig) -> None:
    for number in range(10):
        await rig.put(reading(number))
    await rig.settle()
    assert [[r.ts_ms for r in write] for write in rig.store.writes] == [list(range(10))]
    assert rig.rows == 0
    assert rig.recent.readings == 0
    assert rig.drain.stats().written == 10
    assert await rig.drain.step() is None


async def test_a_write_has_a_largest_size_and_order_is_kept(
    tmp_path: Path, clock: Clock, memory_store: MemoryStore
) -> None:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, merge_readings=4, linger_s=0.0)
    await rig.open()
    for number in range(9):
        await rig.put(reading(number), reading(number, "n"))
    await rig.settle()
    assert {len(write) for write in rig.store.writes} == {4, 2}
    assert [r.ts_ms for write in rig.store.writes for r in write if r.metric == "m"] == list(range(9))
    await rig.journal.close()


async def test_a_trickle_is_written_once_a_linger(tmp_path: Path, clock: Clock, memory_store: MemoryStore) -> None:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, linger_s=0.1)
    await rig.open()
    for number in range(20):
        await rig.put(reading(number))
        await rig.settle()
        clock.move(0.01)
    assert 2 <= len(memory_store.writes) <= 3
    await rig.journal.close()


async def test_an_unavailable_store_is_asked_again_with_growing_delays(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def refuse(readings: Sequence[Reading]) -> None:
        nonlocal tries
        tries += 1
        raise StoreUnavailable("connection refused")

    rig.store.fail = refuse
    await rig.put(reading(1))
    delays = []
    for _ in range(9):
        delay = await rig.drain.step()
        assert delay
        delays.append(delay)
        rig.clock.move(delay / 2)
        await rig.put(reading(2))  # new rows do not shorten the wait
        assert await rig.drain.step() == pytest.approx(delay / 2, abs=0.002)
        rig.clock.move(delay / 2)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert tries == 9
    stats = rig.drain.stats()
    assert (stats.state, stats.detail, stats.retries) == ("waiting", "connection refused", 9)
    assert stats.lag_s == pytest.approx(sum(delays))
    rig.store.fail = lambda readings: None
    await rig.settle()
    assert rig.drain.stats().state == "ok"
    assert rig.drain.lag_s() == 0
    assert rig.rows == 0
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 2  # when it began, when it ended


async def test_the_store_s_own_retry_after_is_heeded(rig: Rig) -> None:
    def refuse(readings: Sequence[Reading]) -> None:
        raise StoreUnavailable("429", retry_after_s=17.0)

    rig.store.fail = refuse
    await rig.put(reading(1))
    assert await rig.drain.step() == 17.0


async def test_a_store_that_fails_in_another_way_is_waited_for_too(rig: Rig) -> None:
    def fail(readings: Sequence[Reading]) -> None:
        raise ZeroDivisionError

    rig.store.fail = fail
    await rig.put(reading(1))
    assert await rig.drain.step() == 0.5
    assert rig.rows == 1


async def test_a_store_that_never_answers_is_given_up_and_asked_again(
    tmp_path: Path, clock: Clock, memory_store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(readings: Sequence[Reading]) -> None:
        await asyncio.Event().wait()

    rig = Rig(tmp_path / "journal.db", clock, memory_store, write_limit_s=0.02)
    await rig.open()
    monkeypatch.setattr(memory_store, "write", hang)
    await rig.put(reading(1))
    assert await rig.drain.step() == 0.5
    assert "no answer" in rig.drain.stats().detail
    await rig.journal.close()


async def test_a_store_that_cannot_be_opened_yet_is_opened_later(rig: Rig) -> None:
    def refuse() -> None:
        raise StoreUnavailable("starting")

    rig.store.fail_open = refuse
    await rig.put(reading(1))
    delay = await rig.drain.step()
    assert delay
    rig.store.fail_open = lambda: None
    rig.clock.move(delay)
    await rig.settle()
    assert rig.store.opened == 1
    assert len(rig.store.points) == 1


def reject(*bad: int):
    def fail(readings: Sequence[Reading]) -> None:
        if any(r.value in bad for r in readings):
            raise StoreRejected("field type conflict")

    return fail


async def test_poison_is_searched_out_and_everything_else_is_stored(rig: Rig) -> None:
    bad = (3, 400, 401, 999)
    rig.store.fail = reject(*bad)
    await rig.put(*(reading(n, f"m{n % 50}") for n in range(1000)))
    await rig.settle()
    assert sorted(r.value for r, _ in rig.rejected) == list(bad)
    assert {detail for _, detail in rig.rejected} == {"field type conflict"}
    assert len(rig.store.points) == 996
    assert rig.rows == 0
    assert rig.drain.stats().rejected == 4
    assert rig.drain.stats().written == 996


async def test_poisonous_json_is_searched_out_too(rig: Rig) -> None:
    def fail(readings: Sequence[Reading]) -> None:
        if any(r.value == {"a": [3]} for r in readings):
            raise StoreRejected("not this one")

    rig.store.fail = fail
    await rig.put(*(Reading("d", "m", n, {"a": [n]}) for n in range(8)))
    await rig.settle()
    assert [r.value for r, _ in rig.rejected] == [{"a": [3]}]
    assert (len(rig.store.points), rig.rows) == (7, 0)


async def test_a_series_that_was_rejected_is_written_apart_until_it_is_taken(rig: Rig) -> None:
    tries = 0
    fail = reject(*range(0, 10_000, 100))

    def count(readings: Sequence[Reading]) -> None:
        nonlocal tries
        tries += 1
        fail(readings)

    rig.store.fail = count
    await rig.put(*(reading(n, f"m{n % 100}") for n in range(100)))
    await rig.settle()
    searching, tries = tries, 0
    await rig.put(*(reading(n, f"m{n % 100}") for n in range(100, 200)))
    await rig.settle()
    assert searching > 10
    assert tries == 2
    assert len(rig.rejected) == 2
    rig.store.fail = lambda readings: None
    await rig.put(reading(200, "m0"), reading(200, "m1"))
    await rig.settle()
    await rig.put(reading(300, "m0"), reading(300, "m1"))
    await rig.settle()
    assert len(rig.store.writes[-1]) == 2


async def test_an_outage_in_the_middle_of_the_search_makes_no_second_dead_letter(rig: Rig) -> None:
    fail = reject(5)
    tries = 0

    def flaky(readings: Sequence[Reading]) -> None:
        nonlocal tries
        tries += 1
        if tries % 6 == 0:
            raise StoreUnavailable("reset")
        fail(readings)

    rig.store.fail = flaky
    await rig.put(*(reading(n) for n in range(64)))
    for _ in range(30):
        rig.clock.move(60)
        await rig.settle()
    assert [r.value for r, _ in rig.rejected] == [5]
    assert len(rig.store.points) == 63
    assert rig.rows == 0


async def test_rows_stay_until_queries_see_them_in_the_store(rig: Rig) -> None:
    rig.store.visible_after_s = 5.0
    await rig.put(reading(1))
    await rig.settle()
    rig.clock.move(3)
    await rig.put(reading(2))
    await rig.settle()
    assert rig.rows == 2
    assert rig.drain.lag_s() == 0
    rig.clock.move(1.9)
    assert await rig.drain.step() == pytest.approx(0.1)
    assert rig.rows == 2
    rig.clock.move(0.1)
    await rig.settle()
    assert rig.rows == 1
    assert rig.recent.readings == 1
    rig.clock.move(3)
    await rig.settle()
    assert rig.rows == 0


async def test_a_restart_writes_what_is_left_in_the_journal_again(tmp_path: Path, clock: Clock, rig: Rig) -> None:
    rig.store.visible_after_s = 5.0
    for number in range(6):
        await rig.put(reading(number))
    await rig.settle()
    await rig.journal.close()
    again = Rig(tmp_path / "journal.db", clock, rig.store, merge_readings=4, linger_s=0.0)
    await again.open()
    await again.settle()
    assert [[r.ts_ms for r in write] for write in rig.store.writes] == [list(range(6)), [0, 1, 2, 3], [4, 5]]
    assert len(rig.store.points) == 6
    clock.move(5)
    await again.settle()
    assert again.rows == 0
    await again.journal.close()


async def test_rows_that_left_memory_are_read_back_from_the_file(
    tmp_path: Path, clock: Clock, memory_store: MemoryStore
) -> None:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, recent_bytes=600, merge_readings=5, linger_s=0.0)
    await rig.open()
    for number in range(23):
        await rig.put(reading(number))
    assert rig.recent.readings == 3
    clock.move(7)
    assert rig.drain.lag_s() == 7
    await rig.settle()
    assert [r.ts_ms for write in memory_store.writes for r in write] == list(range(23))
    assert rig.rows == 0
    await rig.journal.close()


async def test_a_damaged_row_is_stepped_over(tmp_path: Path, clock: Clock, memory_store: MemoryStore) -> None:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, recent_bytes=0, linger_s=0.0)
    await rig.open()
    for number in range(3):
        await rig.put(reading(number))
    rig.journal._opened._writer.execute("UPDATE row SET body = x'00' WHERE seq = 2")
    await rig.settle()
    assert sorted(r.ts_ms for write in memory_store.writes for r in write) == [0, 2]
    assert rig.rows == 0
    assert rig.journal.stats().damaged_rows == 1
    await rig.journal.close()


async def test_an_erased_device_is_forgotten_by_the_store_before_anything_newer_is_written(rig: Rig) -> None:
    await rig.put(reading(1), reading(1, device_id="other"))
    await rig.settle()
    await rig.put(reading(2))

    def refuse(readings: Sequence[Reading]) -> None:
        raise StoreUnavailable("down")

    rig.store.fail = refuse
    await rig.journal.erase("d")
    assert await rig.drain.erase_now() is False
    await rig.put(reading(3))  # of a new device with the same name
    rig.store.fail = lambda readings: None
    await rig.settle()
    assert {key for key in rig.store.points if key[0] == "d"} == {("d", "m", 3)}
    assert ("other", "m", 1) in rig.store.points
    assert rig.journal.waiting_erasures() == []


async def test_the_task_drains_by_itself_and_stop_drains_the_rest(rig: Rig) -> None:
    rig.drain.start(0)
    for number in range(5):
        await rig.put(reading(number))
        rig.drain.wake()
    await rig.drain.stop()
    assert len(rig.store.points) == 5
    await rig.drain.stop()


async def test_stop_does_not_wait_for_a_store_that_is_down(rig: Rig) -> None:
    def refuse(readings: Sequence[Reading]) -> None:
        raise StoreUnavailable("down")

    rig.store.fail = refuse
    rig.drain.start(0)
    await rig.put(reading(1))
    async with asyncio.timeout(2):
        await rig.drain.stop()
    assert rig.rows == 1


async def test_a_store_that_cannot_delete_holds_nothing_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(device_id: str) -> None:
        raise StoreRejected("it has no deletion")

    monkeypatch.setattr(rig.store, "delete_device", refuse)
    await rig.journal.erase("d")
    assert await rig.drain.erase_now() is True
    await rig.put(Reading("e", "x", 1_700_000_000_000, 1.0))
    await rig.settle()
    assert ("e", "x", 1_700_000_000_000) in rig.store.points
    assert "d: its readings stay in the store: it has no deletion" in caplog.text


async def test_series_that_are_written_apart_are_bounded(
    tmp_path: Path, clock: Clock, memory_store: MemoryStore
) -> None:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, suspects=10, linger_s=0.0)
    await rig.open()

    def refuse(readings: Sequence[Reading]) -> None:
        if any(reading.metric.startswith("bad") for reading in readings):
            raise StoreRejected("bad")

    rig.store.fail = refuse
    for number in range(40):
        await rig.put(reading(number, f"bad{number}"), reading(number, "good"))
        await rig.settle()
    assert len(rig.rejected) == 40
    assert len(rig.store.points) == 40
    assert len(rig.drain._suspects) == 10
    await rig.journal.close()


async def test_intake_is_paced_by_a_store_that_is_behind_and_not_by_one_that_is_away(
    tmp_path: Path, clock: Clock, memory_store: MemoryStore
) -> None:
    rig = Rig(tmp_path / "journal.db", clock, memory_store, merge_readings=100)
    await rig.open()
    write = memory_store.write

    async def slow(readings: Sequence[Reading]) -> None:
        clock.move(2.0)  # 50 a second
        await write(readings)

    memory_store.write = slow  # type: ignore[method-assign]
    for first in range(0, 400, 100):
        await rig.put(*map(reading, range(first, first + 100)))
    assert await rig.drain.step() == 0.0
    assert rig.drain.pace_s(45) == 0.0  # nothing is known of it yet
    for _ in range(2):
        assert await rig.drain.step() == 0.0  # without a pause in between: it is behind
    assert rig.drain.lag_s() > 3.0
    assert rig.drain.pace_s(45) == pytest.approx(1.0)
    fail = memory_store.fail

    def gone(readings: Sequence[Reading]) -> None:
        raise StoreUnavailable("gone")

    memory_store.fail = gone
    await rig.drain.step()
    assert rig.drain.pace_s(45) == 0.0
    memory_store.fail = fail
    clock.move(60)
    await rig.settle()
    assert rig.drain.lag_s() == 0.0
    assert rig.drain.pace_s(45) == 0.0
    await rig.journal.close()

"""Group commit, order, bounds, and what senders are told when there is no room."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from broker.reason import ReasonCode
from gateway.frames import Readings, frames_of
from gateway.journal import Entry, Journal, JournalOptions
from gateway.journal_file import JournalFile, JournalUnwritable
from gateway.kinds import Fixed
from gateway.link import Outcome
from gateway.readings import Kind, Reading
from gateway.recent import Row
from tests.gateway.fakes import Clock, until


def entry(number: int, told: list, *, text: str = "x", fixed: list[Fixed] | None = None) -> Entry:
    frames = frames_of([Reading("d", "m", number, f"{number}{text}")])
    return Entry(frames, lambda refusal: told.append((number, refusal)), fixed or [], cost=200 + len(text))


@pytest.fixture
async def open_journal(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable]:
    opened: list[Journal] = []

    async def make(path: Path = tmp_path / "journal.db", **options: object) -> Journal:
        journal = Journal(path, JournalOptions(**options), now_ms=clock.now_ms, monotonic=clock.monotonic)  # type: ignore[arg-type]
        opened.append(journal)
        await journal.open()
        return journal

    yield make
    for journal in opened:
        await journal.close()


class Brake:
    """Holds the writer's thread before each commit until let go; may make commits fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.groups: list[int] = []
        write = JournalFile.write

        def braked(file: JournalFile, seq: int, at_ms: int, frames: list, fixed: list) -> object:
            self.free.wait(10)
            if self.error is not None:
                raise self.error
            self.groups.append(len(frames))
            return write(file, seq, at_ms, frames, fixed)

        monkeypatch.setattr(JournalFile, "write", braked)


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brake]:
    brake = Brake(monkeypatch)
    yield brake
    brake.free.set()


async def test_an_entry_is_settled_after_its_commit_and_not_before(open_journal, brake: Brake, tmp_path: Path) -> None:
    journal = await open_journal()
    told: list = []
    brake.free.clear()
    journal.append(entry(1, told))
    await asyncio.sleep(0.02)
    assert told == []
    brake.free.set()
    await until(lambda: bool(told))
    assert told == [(1, None)]


async def test_what_comes_during_a_commit_is_one_group_in_order(open_journal, brake: Brake) -> None:
    journal = await open_journal()
    told: list = []
    rows: list[Row] = []
    journal.on_commit = lambda row, fixed: rows.append(row)
    brake.free.clear()
    for number in range(50):
        journal.append(entry(number, told))
    brake.free.set()
    await journal.barrier()
    assert brake.groups == [1, 49]
    assert told == [(number, None) for number in range(50)]
    assert [row.summary.seq for row in rows] == [1, 2]
    assert journal.last_seq == 2
    stored = await journal.read(0, 1000)
    assert [reading.ts_ms for row in stored for reading in Readings(row.frames)] == list(range(50))


async def test_groups_have_a_largest_size(open_journal, brake: Brake) -> None:
    journal = await open_journal(group_limit_bytes=2010)
    told: list = []
    brake.free.clear()
    for number in range(26):
        journal.append(entry(number, told))
    brake.free.set()
    await journal.barrier()
    assert brake.groups == [1, 10, 10, 5]
    assert [number for number, _ in told] == list(range(26))


async def test_an_entry_without_readings_is_settled_in_its_turn(open_journal, brake: Brake) -> None:
    journal = await open_journal()
    told: list = []
    journal.append(Entry([], lambda refusal: told.append((0, refusal))))
    assert told == [(0, None)]  # nobody is before it
    brake.free.clear()
    journal.append(entry(1, told))
    journal.append(Entry([], lambda refusal: told.append((2, refusal))))
    assert len(told) == 1
    brake.free.set()
    await journal.barrier()
    assert told == [(0, None), (1, None), (2, None)]
    assert journal.last_seq == 1


async def test_a_restart_finds_every_row_and_goes_on_counting(open_journal, tmp_path: Path, clock: Clock) -> None:
    journal = await open_journal()
    told: list = []
    for number in range(3):
        journal.append(entry(number, told))
        await journal.barrier()
    await journal.close()
    again = Journal(tmp_path / "journal.db", now_ms=clock.now_ms)
    found = await again.open()
    assert [summary.seq for summary in found] == [1, 2, 3]
    assert again.stats().batches == 3
    again.append(entry(9, told))
    await again.barrier()
    assert again.last_seq == 4
    await again.forget(4)
    assert again.stats().bytes == 0
    await again.close()


async def test_close_commits_what_is_pending(open_journal, brake: Brake) -> None:
    journal = await open_journal()
    told: list = []
    brake.free.clear()
    for number in range(5):
        journal.append(entry(number, told))
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    brake.free.set()
    await closing
    assert told == [(number, None) for number in range(5)]
    journal.append(entry(6, told))
    assert told[-1][1].code is ReasonCode.SERVER_SHUTTING_DOWN


async def test_pending_memory_is_bounded(open_journal, brake: Brake) -> None:
    journal = await open_journal(pending_limit_bytes=2000)
    told: list[tuple[int, Outcome | None]] = []
    brake.free.clear()
    for number in range(100):
        journal.append(entry(number, told))
    assert journal.stats().pending_bytes <= 2000
    assert 85 <= len(told) <= 95
    for _, refusal in told:
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (ReasonCode.QUOTA_EXCEEDED, "held_back")
        assert refusal.retry_after_s == journal.options.retry_after_s
    brake.free.set()
    await journal.barrier()
    assert sum(refusal is None for _, refusal in told) + sum(refusal is not None for _, refusal in told) == 100
    assert journal.stats().pending_bytes == 0


async def test_a_full_journal_makes_telemetry_wait_until_the_drain_makes_room(open_journal) -> None:
    journal = await open_journal(limit_bytes=1)
    told: list = []
    journal.append(entry(1, told))
    await journal.barrier()
    journal.append(entry(2, told))
    await asyncio.sleep(0.02)
    assert told == [(1, None)]
    assert journal.stats().state == "full"
    await journal.forget(1)
    await until(lambda: len(told) == 2)
    assert told == [(1, None), (2, None)]


async def test_a_journal_that_stays_full_refuses_and_keeps_what_it_has(open_journal) -> None:
    journal = await open_journal(limit_bytes=1, wait_limit_s=0.03)
    told: list = []
    journal.append(entry(1, told))
    await journal.barrier()
    journal.append(entry(2, told))
    await until(lambda: len(told) == 2)
    assert told[1][1].reason == "held_back"
    journal.append(entry(3, told))  # at once from now on
    assert told[2][1].reason == "held_back"
    assert [row.seq for row in await journal.read(0, 10)] == [1]
    await journal.forget(1)
    journal.append(entry(4, told))
    await journal.barrier()
    assert told[3] == (4, None)


async def test_a_journal_may_have_a_limit_in_age(open_journal, clock: Clock) -> None:
    journal = await open_journal(limit_age_s=60, wait_limit_s=0.03)
    told: list = []
    journal.append(entry(1, told))
    await journal.barrier()
    clock.move(59)
    journal.append(entry(2, told))
    await journal.barrier()
    clock.move(2)
    journal.append(entry(3, told))
    await until(lambda: len(told) == 3)
    assert [refusal and refusal.reason for _, refusal in told] == [None, None, "held_back"]
    assert journal.stats().state == "full"
    await journal.forget(1)
    journal.append(entry(4, told))
    await journal.barrier()
    assert told[-1] == (4, None)


async def test_a_failing_disk_refuses_the_group_and_all_that_waits_and_is_tried_again(
    open_journal, brake: Brake, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await open_journal()
    told: list = []
    abandoned: list[Fixed] = []
    journal.on_abandon = abandoned.extend
    fixed = Fixed("d", "m", Kind.TEXT)
    brake.error = JournalUnwritable("database or disk is full", disk_full=True)
    brake.free.clear()
    journal.append(entry(1, told, fixed=[fixed]))
    journal.append(entry(2, told))
    brake.free.set()
    await until(lambda: len(told) == 2)
    assert [refusal.reason for _, refusal in told] == ["store_full"] * 2
    assert abandoned == [fixed]
    for number in range(3, 50):  # within the second the disk is left alone
        journal.append(entry(number, told))
    assert journal.stats().failed_commits == 1
    for _ in range(30):
        clock.move(1.1)
        journal.append(entry(0, told))
        await journal.barrier()
    assert journal.stats().failed_commits == 31
    assert journal.stats().state == "failing"
    assert sum("refused until" in record.message for record in caplog.records) == 1
    clock.move(61)
    journal.append(entry(0, told))
    await journal.barrier()
    assert sum("refused until" in record.message for record in caplog.records) == 2
    brake.error = None
    clock.move(1.1)
    journal.append(entry(50, told))
    await journal.barrier()
    assert told[-1] == (50, None)
    assert journal.stats().state == "ok"
    assert caplog.records[-1].levelno == logging.WARNING


async def test_a_caller_that_fails_on_being_told_holds_nobody_up(
    open_journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await open_journal()
    told: list = []

    def fail(_: Outcome | None) -> None:
        raise RuntimeError("no")

    journal.append(Entry(frames_of([Reading("d", "m", 1, 1)]), fail))
    journal.append(entry(2, told))
    await journal.barrier()
    assert told == [(2, None)]
    assert "a caller failed" in caplog.text


async def test_erased_readings_are_not_read_back_not_even_after_a_restart(open_journal, clock: Clock, tmp_path) -> None:
    journal = await open_journal()
    journal.append(Entry(frames_of([Reading("d", "m", 1, 1), Reading("e", "m", 1, 1)]), lambda _: None))
    assert await journal.erase("d") == 1
    journal.append(Entry(frames_of([Reading("d", "m", 2, 2)]), lambda _: None))
    await journal.barrier()
    expected = [[Reading("e", "m", 1, 1)], [Reading("d", "m", 2, 2)]]
    assert [list(Readings(row.frames)) for row in await journal.read(0, 10)] == expected
    await journal.close()
    again = Journal(tmp_path / "journal.db", now_ms=clock.now_ms)
    await again.open()
    assert [list(Readings(row.frames)) for row in await again.read(0, 10)] == expected
    (waiting,) = again.waiting_erasures()
    await again.erased(waiting)
    assert again.waiting_erasures() == []
    assert [list(Readings(row.frames)) for row in await again.read(0, 10)] == expected
    await again.forget(1)
    assert again._waits == {}
    await again.close()


# ---- a disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("SKIPPED: a full disk is tried on a tmpfs, and only root on Linux can mount one")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"SKIPPED: no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


async def fill_up(journal: Journal, told: list, clock: Clock, start: int = 0) -> None:
    """Append until the disk refuses."""
    for number in range(start, start + 500):
        journal.append(entry(number, told, text=os.urandom(20_000).hex()))
        await journal.barrier()
        if told[-1][1] is not None:
            return
    raise AssertionError("the disk was never full")


async def test_a_full_disk_refuses_keeps_what_was_acknowledged_and_recovers_by_itself(
    small_disk: Path, open_journal, clock: Clock
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 400_000)
    journal = await open_journal(small_disk / "journal.db")
    told: list = []
    await fill_up(journal, told, clock)
    assert told[-1][1].code is ReasonCode.QUOTA_EXCEEDED
    assert told[-1][1].retry_after_s
    assert "full" in journal.stats().detail
    acknowledged = [number for number, refusal in told if refusal is None]
    assert acknowledged
    clock.move(2)
    ballast.unlink()
    journal.append(entry(1000, told, text=os.urandom(20_000).hex()))
    await journal.barrier()
    assert told[-1] == (1000, None)
    stored = [frame.times[0] for row in await journal.read(0, 1 << 60) for frame in row.frames]
    assert stored == [*acknowledged, 1000]


async def test_a_disk_full_of_the_journal_itself_is_emptied_by_the_drain(
    small_disk: Path, open_journal, clock: Clock
) -> None:
    journal = await open_journal(small_disk / "journal.db")
    told: list = []
    number = 0
    for _ in range(5):
        await fill_up(journal, told, clock, number)
        number = told[-1][0] + 1
        rows = await journal.read(0, 1 << 60)
        assert [frame.times[0] for row in rows for frame in row.frames] == [n for n, refusal in told if refusal is None]
        await journal.forget(rows[-1].seq)
        told.clear()
        clock.move(2)
        journal.append(entry(number, told, text=os.urandom(20_000).hex()))
        number += 1
        await journal.barrier()
        assert told[-1][1] is None


async def test_a_restart_on_a_full_disk_keeps_everything(small_disk: Path, open_journal, clock: Clock) -> None:
    journal = await open_journal(small_disk / "journal.db")
    told: list = []
    await fill_up(journal, told, clock)
    await journal.close()
    again = await open_journal(small_disk / "journal.db")
    rows = await again.read(0, 1 << 60)
    assert [frame.times[0] for row in rows for frame in row.frames] == [n for n, refusal in told if refusal is None]


async def test_a_commit_lasts_as_long_as_the_store_needs_and_order_is_kept(open_journal, clock: Clock) -> None:
    journal = await open_journal()
    told: list = []
    asked: list[int] = []

    def pace(readings: int) -> float:
        asked.append(readings)
        return 0.1 if len(asked) == 1 else 0.0

    journal.pace_s = pace
    loop = asyncio.get_running_loop()
    journal.append(entry(1, told))
    await until(lambda: len(told) == 1)
    began = loop.time()
    for number in (2, 3, 4):
        journal.append(entry(number, told))
    await until(lambda: len(told) == 4)
    assert loop.time() - began > 0.05
    assert [number for number, _ in told] == [1, 2, 3, 4]
    assert asked == [1, 3]


async def test_closing_does_not_wait_for_the_pace(open_journal, clock: Clock) -> None:
    journal = await open_journal()
    told: list = []
    journal.pace_s = lambda readings: 1000.0
    journal.append(entry(1, told))
    await until(lambda: len(told) == 1)
    journal.append(entry(2, told))
    async with asyncio.timeout(5):
        await journal.close()
    assert told == [(1, None), (2, None)]

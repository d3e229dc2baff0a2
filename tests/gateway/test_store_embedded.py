"""What only the embedded store promises: files a day, retention, damage, one process, kill -9, exact types."""

import logging
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.readings import Reading, Value
from gateway.store import Aggregate, Query, StoreError, StoreRejected, StoreUnavailable
from gateway.stores import EmbeddedOptions, EmbeddedStore
from gateway.stores.day_file import DAY_MS, DayReader, DayWriter
from gateway.stores.embedded import OPEN_READERS, OPEN_WRITERS, READER_THREADS

DAY = 19_675
NOON = DAY * DAY_MS + DAY_MS // 2
EVER = {"start_ms": 0, "end_ms": 2**45}


class Clock:
    def __init__(self) -> None:
        self.ms = NOON

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", retention_days=3), now_ms=clock)
    await store.open()
    yield store
    await store.close()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "readings").glob("*.db"))


async def values(store: EmbeddedStore, device: str = "d") -> list[Value]:
    answer = await store.query(Query(device_id=device, **EVER))
    return answer["m"].v if "m" in answer else []


async def test_each_day_has_a_file(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.write([Reading("d", "m", NOON + day * DAY_MS, day) for day in (-1, 0, 1)])
    assert files(tmp_path) == ["2023-11-13.db", "2023-11-14.db", "2023-11-15.db"]
    assert await values(store) == [-1, 0, 1]


async def test_days_past_retention_are_deleted_with_their_files(
    store: EmbeddedStore, clock: Clock, tmp_path: Path
) -> None:
    await store.write([Reading("d", "m", NOON + day * DAY_MS, day) for day in (-3, -2, -1, 0)])
    assert await values(store) == [-3, -2, -1, 0]
    clock.ms += 2 * DAY_MS
    await store.write([Reading("d", "m", clock.ms, 2)])
    assert await values(store) == [-1, 0, 2]
    assert len(files(tmp_path)) == 3
    assert not list((tmp_path / "readings").glob("2023-11-1[12]*"))


async def test_a_day_past_retention_is_gone_from_answers_before_its_file_is(store: EmbeddedStore, clock: Clock) -> None:
    await store.write([Reading("d", "m", NOON, 1)])
    clock.ms += 4 * DAY_MS
    assert await values(store) == []
    assert await store.latest("d") == {}


async def test_readings_older_than_retention_are_taken_and_forgotten(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.write([Reading("d", "m", NOON - 4 * DAY_MS, 1), Reading("d", "m", NOON, 2), Reading("d", "m", 1, 3)])
    assert await values(store) == [2]
    assert files(tmp_path) == ["2023-11-14.db"]


async def test_retention_holds_at_opening_too(tmp_path: Path, clock: Clock) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=3)
    for _ in range(2):
        store = EmbeddedStore(options, now_ms=clock)
        await store.open()
        await store.write([Reading("d", "m", clock.ms, 1)])
        await store.close()
        clock.ms += 10 * DAY_MS
    assert files(tmp_path) == ["2023-11-24.db"]


async def test_closing_leaves_no_log_behind(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.write([Reading("d", "m", NOON, 1)])
    await values(store)
    await store.close()
    assert sorted(path.name for path in (tmp_path / "readings").iterdir()) == ["2023-11-14.db", "lock"]


async def test_many_days_do_not_keep_many_files_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", retention_days=400), now_ms=Clock())
    await store.open()
    for day in range(120):
        await store.write([Reading("d", "m", NOON - day * DAY_MS, day)])
    assert len(await values(store)) == 120
    assert await store.latest("d") == {"m": (NOON, 0)}
    answer = await store.query(
        Query(device_id="d", start_ms=NOON - 119 * DAY_MS, end_ms=NOON + 1, buckets=2, aggregate=Aggregate.COUNT)
    )
    assert sum(answer["m"].v) == 120  # type: ignore[arg-type]
    for _ in range(10):
        await values(store)
    # a file, its log and its shared memory each; SQLite closes a file late while another connection has it locked
    most = 4 * (OPEN_READERS * READER_THREADS + OPEN_WRITERS)
    assert len(os.listdir("/proc/self/fd")) - before < most
    await store.close()


async def test_a_second_process_is_told_that_the_directory_is_in_use(store: EmbeddedStore, tmp_path: Path) -> None:
    second = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"))
    with pytest.raises(StoreError, match="in use by another process"):
        await second.open()
    await store.close()
    await second.open()
    await second.close()


@pytest.mark.parametrize("damage", ["header", "page", "empty text"])
@pytest.mark.parametrize("met_by", ["write", "query", "latest", "delete"])
async def test_a_damaged_file_is_set_aside_and_the_others_stay(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, damage: str, met_by: str
) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=3)
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", NOON - DAY_MS, -1.0)])
    await store.write([Reading("d", "m", NOON + n, float(n)) for n in range(5000)])
    await store.close()
    path = tmp_path / "readings" / "2023-11-14.db"
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:16] = b"not a database!!"
    elif damage == "page":
        content[4096:] = os.urandom(len(content) - 4096)
    else:
        content = bytearray(b"hello" * 1000)
    path.write_bytes(content)

    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    with caplog.at_level(logging.ERROR):
        if met_by == "write":
            await store.write([Reading("d", "m", NOON, 7.0)])
        elif met_by == "query":
            assert await values(store) == [-1]
        elif met_by == "latest":
            assert await store.latest("d") == {"m": (NOON - DAY_MS, -1)}
        else:
            await store.delete_device("other")
    assert "2023-11-14.db is damaged" in caplog.text
    assert "set aside as 2023-11-14.db.damaged-" in caplog.text
    asides = [path for path in (tmp_path / "readings").iterdir() if ".damaged-" in path.name]
    (aside,) = [path for path in asides if not path.name.endswith(("-wal", "-shm"))]
    assert aside.read_bytes() == content
    await store.write([Reading("d", "m", NOON, 7.0)])
    assert await values(store) == [-1, 7]
    await store.close()


async def test_a_file_that_vanishes_is_made_again(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.write([Reading("d", "m", NOON, 1)])
    await store.close()
    (tmp_path / "readings" / "2023-11-14.db").unlink()
    await store.open()
    assert await values(store) == []
    await store.write([Reading("d", "m", NOON, 2)])
    assert await values(store) == [2]


async def test_a_directory_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        await EmbeddedStore(EmbeddedOptions(directory=tmp_path / "file" / "readings")).open()


async def test_a_full_disk_is_unavailable_and_heals(store: EmbeddedStore, tmp_path: Path) -> None:
    await store.write([Reading("d", "m", NOON, 1)])
    writer = store._writers[DAY]
    pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
    writer._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "database or disk is full"
    with pytest.raises(StoreUnavailable, match="full"):
        await store.write([Reading("d", "m", NOON + n, n) for n in range(5000)])
    await store.write([Reading("d", "m", NOON + n, n) for n in range(5000)])
    assert len(await values(store)) == 5000


async def test_stats_count_points_and_bytes(store: EmbeddedStore) -> None:
    await store.write([Reading("d", "m", NOON + n, n) for n in range(100)] + [Reading("d", "m", NOON - DAY_MS, 1)])
    stats = await store.stats()
    assert (stats.kind, stats.points, stats.oldest_ms) == ("embedded", 101, (DAY - 1) * DAY_MS)
    assert stats.size_bytes is not None
    assert stats.size_bytes > 0


async def test_integers_stay_integers(store: EmbeddedStore) -> None:
    await store.write(
        [Reading("d", "m", NOON, 2**53), Reading("d", "m", NOON + 1, 1.0), Reading("d", "m", NOON + 2, 1)]
    )
    assert [(value, type(value)) for value in await values(store)] == [(2**53, int), (1.0, float), (1, int)]


async def test_an_integer_beyond_64_bits_is_rejected(store: EmbeddedStore) -> None:
    with pytest.raises(StoreRejected):
        await store.write([Reading("d", "m", NOON, 2**64)])


async def test_sums_beyond_the_range_of_floats_do_not_break_the_answer(store: EmbeddedStore) -> None:
    await store.write([Reading("d", "m", NOON + n, 1.7e308) for n in range(2)])
    query = Query(device_id="d", start_ms=NOON, end_ms=NOON + 2, buckets=1, aggregate=Aggregate.SUM)
    assert (await store.query(query))["m"].v == [math.inf]


anything = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(st.lists(anything, min_size=1, max_size=30))
@settings(max_examples=60)
def test_every_value_comes_back_the_same_and_of_the_same_type(written: list[Value]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "day.db"
        writer = DayWriter(path, "normal")
        writer.write([Reading("d", "m", n, value) for n, value in enumerate(written)])
        reader = DayReader(path)
        read = reader.raw(1, 0, 10**6, 100)
        assert [(value, type(value)) for _, value in reversed(read)] == [(value, type(value)) for value in written]
        latest = reader.latest("d")["m"]
        assert latest == (len(written) - 1, written[-1])
        reader.close()
        writer.close()


def test_a_file_of_a_later_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "day.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="99"):
        DayWriter(path, "full")


WRITING = """
import asyncio, sys
from pathlib import Path
from gateway.readings import Reading
from gateway.stores import EmbeddedOptions, EmbeddedStore

async def main():
    store = EmbeddedStore(EmbeddedOptions(directory=Path(sys.argv[1]), retention_days=36500))
    await store.open()
    n = 0
    while True:
        await store.write([Reading(f"d{i}", "m", 1699963200000 + n, n) for i in range(20)])
        n += 1
        print(n, flush=True)

asyncio.run(main())
"""


def write_until_killed(directory: Path, written: int) -> int:
    """Let another process write batches, kill -9 it after `written` of them; how many it said were written."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(directory)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    with process.stdout:
        acknowledged = 0
        while acknowledged < written:
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            acknowledged = int(line)
    process.wait()
    return acknowledged


@pytest.mark.slow
@pytest.mark.parametrize("written", [1, 40, 400])
async def test_kill_9_loses_nothing_written(tmp_path: Path, written: int) -> None:
    acknowledged = write_until_killed(tmp_path, written)
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path, retention_days=36_500))
    await store.open()
    for device in range(20):
        found = await values(store, f"d{device}")
        assert len(found) >= acknowledged
        assert found == list(range(len(found)))
    await store.close()


@pytest.mark.slow
async def test_a_busy_thread_beside_it_does_not_stop_the_writer(store: EmbeddedStore) -> None:
    """Row by row, the same took 44 s: sqlite3 asks for the GIL again at every row (5 ms each beside a busy thread)."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    busy = threading.Thread(target=spin)
    busy.start()
    try:
        started = time.monotonic()
        await store.write([Reading(f"d{n % 100}", "m", NOON + n, n / 10) for n in range(50_000)])
        answer = await store.query(Query(device_id="d1", **EVER))
        took_s = time.monotonic() - started
    finally:
        stop.set()
        busy.join()
    assert len(answer["m"].t) == 500
    assert took_s < 10

"""What only the embedded store promises: files a day, retention, damage, one process, kill -9, exact types."""

import asyncio
import logging
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.frames import Frame
from gateway.readings import Reading, Value
from gateway.store import Aggregate, Query, StoreError, StoreRejected, StoreUnavailable
from gateway.stores import EmbeddedOptions, EmbeddedStore, day_writer, days, embedded
from gateway.stores.chunk import encode
from gateway.stores.day_file import DAY_MS
from gateway.stores.day_reader import DayReader
from gateway.stores.day_writer import DayWriter
from gateway.stores.days import OPEN_WRITERS
from gateway.stores.embedded import OPEN_READERS, READER_THREADS
from gateway.stores.folding import raw

DAY = 19_675
NOON = DAY * DAY_MS + DAY_MS // 2
DAY_NAME_3 = f"{date.fromordinal(date(1970, 1, 1).toordinal() + DAY - 3)}.db"
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


async def test_latest_and_delete_open_only_days_that_may_hold_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=400, synchronous="normal")
    store = EmbeddedStore(options, now_ms=Clock())
    await store.open()
    for day in range(40):
        readings = [Reading("daily", "m", NOON - day * DAY_MS, day)]
        readings += [Reading("daily", "silent", NOON - day * DAY_MS, day)] if day == 30 else []
        readings += [Reading("rare", "m", NOON - day * DAY_MS, day)] if day in (7, 20) else []
        await store.write(readings)
    await store.close()
    store = EmbeddedStore(options, now_ms=Clock())
    await store.open()
    async with asyncio.timeout(10):
        while not store._days.holdings.knows(range(DAY - 39, DAY + 1)):  # noqa: ASYNC110 # the housekeeping's own pace
            await asyncio.sleep(0.01)
    asked: list[int] = []
    reader_of, delete, path_of = store._reader, DayWriter.delete_device, store._days.path
    day_of = {path_of(DAY - n): n for n in range(40)}

    def deleting(writer: DayWriter, device_id: str) -> None:
        asked.append(day_of[Path(writer._one("SELECT file FROM pragma_database_list"))])
        delete(writer, device_id)

    monkeypatch.setattr(store, "_reader", lambda day: asked.append(DAY - day) or reader_of(day))
    monkeypatch.setattr(DayWriter, "delete_device", deleting)

    async def asks(work: Awaitable[object]) -> tuple[object, list[int]]:
        asked.clear()
        return await work, sorted(asked)

    assert await asks(store.latest("nobody")) == ({}, [])
    assert await asks(store.latest("rare")) == ({"m": (NOON - 7 * DAY_MS, 7)}, [7])
    found = {"m": (NOON, 0), "silent": (NOON - 30 * DAY_MS, 30)}
    assert await asks(store.latest("daily")) == (found, [0, 30])
    assert await asks(store.delete_device("rare")) == (None, [7, 20])
    assert await asks(store.delete_device("rare")) == (None, [])
    assert await asks(store.latest("rare")) == ({}, [])
    await store.write([Reading("rare", "m", NOON - 20 * DAY_MS, -20)])  # to a day that knew it before
    assert await asks(store.latest("rare")) == ({"m": (NOON - 20 * DAY_MS, -20)}, [20])
    assert await values(store, "daily") == list(range(39, -1, -1))
    await store.close()


async def test_when_the_newest_day_of_a_device_is_damaged_its_latest_is_of_the_one_before(
    tmp_path: Path, clock: Clock
) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings")
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    await store.write([Reading("d", metric, NOON - n * DAY_MS, n) for n in range(3) for metric in ("m", "n")[: n + 1]])
    await store.compact()
    with sqlite3.connect(tmp_path / "readings" / files(tmp_path)[-1]) as database:
        database.execute("UPDATE chunk SET body = x'01'")
    database.close()
    async with asyncio.timeout(10):
        while not store._days.holdings.knows(store._days.kept()):  # noqa: ASYNC110 # the housekeeping's own pace
            await asyncio.sleep(0.01)
    assert await store.latest("d") == {"m": (NOON - DAY_MS, 1), "n": (NOON - DAY_MS, 1)}
    await store.close()


async def test_the_frames_whose_series_are_known_are_bounded(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_writer, "FRAMES_KNOWN", 5)
    metrics = [f"m{n}" for n in range(30)]
    for n in range(30):
        for _ in range(2):
            await store.write([Reading("d", metric, NOON + n, n) for metric in [*metrics[n:], "m"]])
            known = await store._writing(lambda: len(store._days._writers[DAY]._frame_sids))
            assert known <= 5
    assert await values(store) == list(range(30))


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
    writer = store._days._writers[DAY]
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


async def test_stats_by_day_add_up_to_those_of_all(store: EmbeddedStore) -> None:
    await store.write([Reading("d", "m", NOON - DAY_MS + n, n) for n in range(10)])
    await store.compact()
    await store.write([Reading("d", "m", NOON + n, n) for n in range(7)] + [Reading("e", "m", NOON - DAY_MS, 1)])
    by_day = await store.stats_by_day()
    assert [(each.day, each.loose_points, each.sealed_points) for each in by_day] == [
        ("2023-11-13", 1, 10),
        ("2023-11-14", 7, 0),
    ]
    stats = await store.stats()
    assert (stats.points, stats.loose_points) == (18, 8)
    assert stats.size_bytes == sum(each.size_bytes for each in by_day)


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
    st.integers(-(2**63), 2**64 - 1),  # as JSON does
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(st.lists(anything, min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)  # the machine may be busy
def test_every_value_comes_back_the_same_and_of_the_same_type(written: list[Value]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "day.db"
        writer = DayWriter(path, "normal")
        writer.write([Frame("d", ("m",), range(len(written)), [written])])
        reader = DayReader(path)
        for _ in ("loose", "sealed"):
            read = raw(reader.pieces("d", ("m",), 0, 10**6)["m"], 100)
            assert list(map(repr, read.v)) == list(map(repr, written))  # 1 is not 1.0, -0.0 is not 0.0
            assert reader.latest("d")["m"] == (len(written) - 1, written[-1])
            writer.seal_whole()
            assert writer.loose == {}
        reader.close()
        writer.close()


def test_a_file_of_a_later_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "day.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="99"):
        DayWriter(path, "full")


async def test_what_it_says_it_keeps_is_what_it_keeps(tmp_path: Path, clock: Clock) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=2)
    store = EmbeddedStore(options, now_ms=clock, retention_of={"long": 5}.get)
    await store.open()
    for device_id in ("short", "long"):
        since_ms = store.kept_since_ms(device_id)
        await store.write([Reading(device_id, "t", since_ms - 1, 0.0), Reading(device_id, "t", since_ms, 1.0)])
        answer = await store.query(Query(device_id=device_id, start_ms=0, end_ms=1 << 50))
        assert (answer["t"].t, answer["t"].v) == ([since_ms], [1.0])
    assert store.kept_since_ms("short") - store.kept_since_ms("long") == 3 * 86_400_000
    await store.close()


async def test_a_device_may_have_a_retention_of_its_own(tmp_path: Path, clock: Clock) -> None:
    days_of = {"short": 1, "long": 10}
    options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=3)
    store = EmbeddedStore(options, now_ms=clock, retention_of=days_of.get)
    await store.open()
    for device in ("short", "usual", "long"):
        await store.write([Reading(device, "m", NOON - n * DAY_MS, n) for n in range(6)])
    assert await values(store, "short") == [1, 0]
    assert await values(store, "usual") == [3, 2, 1, 0]
    assert await values(store, "long") == [5, 4, 3, 2, 1, 0]
    assert len(files(tmp_path)) == 6
    clock.ms += 4 * DAY_MS
    await store.write([Reading("usual", "m", clock.ms, -1)])
    assert (await values(store, "short"), await values(store, "usual")) == ([], [-1])
    assert await values(store, "long") == [5, 4, 3, 2, 1, 0]
    assert await store.devices() == ["long", "usual"]
    days_of["long"] = 2
    clock.ms += DAY_MS
    await store.write([Reading("usual", "m", clock.ms, -2)])
    assert await store.devices() == ["usual"]
    assert await values(store, "usual") == [-1, -2]
    assert len(files(tmp_path)) == 2
    await store.close()


async def test_over_the_limit_the_oldest_day_goes_first_and_says_so(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", limit_bytes=300_000)
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    noise = os.urandom(40_000).hex()
    for day in (3, 2, 1):
        await store.write([Reading("d", "m", NOON - day * DAY_MS, noise)])
    await store._writing(store._days.keep_within_limit)
    assert len(files(tmp_path)) < 3
    assert f"{DAY_NAME_3}: deleted before its retention ended" in caplog.text
    assert (await store.stats()).dropped_days == 3 - len(files(tmp_path))
    for n in range(5):
        await store.write([Reading("d", "m", NOON + n, noise)])
    await store._writing(store._days.keep_within_limit)
    assert len(files(tmp_path)) == 1  # today's never goes
    with pytest.raises(StoreUnavailable, match=r"today's readings alone .* store\.limit_mib"):
        await store.write([Reading("d", "m", NOON, 1)])
    assert len(await values(store)) == 5
    await store.close()


async def test_over_the_limit_files_set_aside_go_before_any_day_and_the_oldest_of_them_first(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", limit_bytes=2**30)
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", NOON - day * DAY_MS, day) for day in (2, 1, 0)])
    directory = tmp_path / "readings"
    # the day of a name is not when it was set aside: of the three, in the middle; with its log
    asides = [f"{DAY_NAME_3}.damaged-999", "2023-11-12.db.damaged-1700000000000", "2023-11-01.db.damaged-1700000000001"]
    for name in asides:
        (directory / name).write_bytes(b"x" * 60_000)
        (directory / f"{name}-wal").write_bytes(b"x" * 60_000)
    days_bytes = sum(store._days.size(DAY - day) for day in (2, 1, 0))
    stored = (await store.stats()).size_bytes
    assert stored is not None
    assert abs(stored - days_bytes - 360_000) < 60_000  # days that are over are being sealed meanwhile
    (directory / "2023-11-01.db.damaged-by-hand").write_bytes(b"x" * 400_000)  # not ours
    for n in range(len(asides)):
        assert [path.name for path in store._days.asides()] == asides[n:]
        store._days._limit_bytes = days_bytes + 120_000 * (3 - n) - 60_000
        await store._writing(store._days.keep_within_limit)
        assert f"{asides[n]}: deleted, to keep the store within its limit" in caplog.text
        assert not list(directory.glob(f"{asides[n]}*"))
    assert len(files(tmp_path)) == 3
    assert await values(store) == [2, 1, 0]
    assert (directory / "2023-11-01.db.damaged-by-hand").exists()
    assert (await store.stats()).dropped_days == 0
    await store.close()


async def test_a_day_that_was_dropped_may_come_back_and_holds_only_what_is_new(tmp_path: Path, clock: Clock) -> None:
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", limit_bytes=2**30), now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", NOON - 2 * DAY_MS, "old")])
    await asyncio.gather(*(values(store) for _ in range(8)))  # every reader has it open
    await store.write([Reading("d", "m", NOON, "today")])
    store._days._limit_bytes = store._days.size(DAY) + 10_000
    await store._writing(store._days.keep_within_limit)
    assert files(tmp_path) == ["2023-11-14.db"]
    await store.write([Reading("d", "m", NOON - 2 * DAY_MS + 1, "new")])
    yesterday = Query(device_id="d", start_ms=NOON - 2 * DAY_MS, end_ms=NOON)
    for answer in await asyncio.gather(*(store.query(yesterday) for _ in range(8))):
        assert answer["m"].v == ["new"]
    await store.close()


async def test_the_limit_holds_while_writing_not_only_now_and_then(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days, "LIMIT_CHECK_S", 0.0)
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", limit_bytes=500_000), now_ms=clock)
    await store.open()
    with pytest.raises(StoreUnavailable, match="today's readings alone"):
        for n in range(30):
            await store.write([Reading("d", "m", NOON + n, os.urandom(20_000).hex())])
    assert 5 < len(await values(store)) < 13  # of 40 KB each, once in the log and once in the file
    await store.close()


async def test_over_the_limit_today_is_sealed_before_writes_wait_for_tomorrow(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days, "LIMIT_CHECK_S", 0.0)
    monkeypatch.setattr(embedded, "HOUSEKEEPING_S", 0.01)
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", limit_bytes=900_000), now_ms=clock)
    await store.open()
    refused = False
    for n in range(400):
        try:
            await store.write([Reading(f"d{n % 7}", "m", NOON + n, "x" * 20_000)])
        except StoreUnavailable:
            refused = True
            break
    assert refused
    async with asyncio.timeout(10):
        while True:
            try:
                await store.write([Reading("d", "m", NOON, 1)])
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)
    await store.close()


async def test_a_query_that_meets_a_day_just_deleted_neither_fails_nor_makes_its_file(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write([Reading("d", "m", NOON - DAY_MS, 1), Reading("d", "m", NOON, 2)])
    both = store._days.kept()
    await store._writing(store._days._delete, both[0])
    seen: list[object] = []

    def kept(device_id: str | None = None) -> list[int]:
        seen.extend([device_id] if device_id else [])  # the housekeeping asks for all
        return both if seen == ["d"] else both[1:]

    monkeypatch.setattr(store._days, "kept", kept)
    assert await values(store) == [2]
    assert len(seen) == 2
    assert files(tmp_path) == ["2023-11-14.db"]


async def test_a_full_disk_stops_the_sealing_for_a_while_and_loses_nothing(
    store: EmbeddedStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_writer, "RIPE_BLOCKS", 10)
    await store.write([Reading("d", "m", NOON, 0)])
    insert = DayWriter._insert

    def full(self: DayWriter, target: str, rows: Sequence[tuple[object, ...]]) -> None:
        if target.startswith("chunk"):
            raise sqlite3.OperationalError("database or disk is full")
        insert(self, target, rows)

    monkeypatch.setattr(DayWriter, "_insert", full)
    for n in range(50):
        await store.write([Reading("d", "m", NOON + n, n)])
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await store.compact()
    assert await values(store) == list(range(50))
    assert caplog.text.count("could not be sealed, again in 60 s: database or disk is full") == 1
    monkeypatch.setattr(DayWriter, "_insert", insert)
    await store.compact()
    assert await values(store) == list(range(50))
    assert (await store.stats()).loose_points == 0
    assert await store.verify() == []


@pytest.mark.parametrize("day", [DAY, DAY - 2])  # that one is over: it may be the housekeeping that meets it first
async def test_verify_tells_of_a_file_that_cannot_be_read(tmp_path: Path, clock: Clock, day: int) -> None:
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"), now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", day * DAY_MS + n, n) for n in range(5000)])
    await store.close()
    (name,) = files(tmp_path)
    path = tmp_path / "readings" / name
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(40_000))
    await store.open()
    for _ in range(2):  # until it is taken away
        (finding,) = await store.verify()
        assert finding.file.startswith(f"{name}.damaged-")
        assert finding.problem == "damaged and set aside, not in answers"
    await store.close()


async def test_files_that_only_look_like_a_day_are_left_alone(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "readings").mkdir()
    (tmp_path / "readings" / "2023-13-99.db").write_text("not ours")
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"), now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", NOON, 1)])
    await store.close()
    assert (tmp_path / "readings" / "2023-13-99.db").read_text() == "not ours"


async def test_a_damaged_chunk_costs_itself_alone_and_is_found(
    store: EmbeddedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write([Reading(device, "m", NOON + n, n) for device in "de" for n in range(9)])
    await store.compact()
    assert await store.verify() == []
    name = files(tmp_path)[0]
    with sqlite3.connect(tmp_path / "readings" / name) as database:
        database.execute("UPDATE chunk SET body = x'01AABBCC' WHERE sid = 1")
    database.close()
    await store.write([Reading("d", "m", NOON + 4, -4), Reading("d", "m", NOON + 100, -100)])
    assert await values(store) == [-4, -100]
    assert await values(store, "e") == list(range(9))
    assert store.damaged_chunks == 1
    assert "a chunk of d m from" in caplog.text
    assert (await store.latest("d"))["m"] == (NOON + 100, -100)
    (finding,) = await store.verify()
    assert (finding.file, finding.series) == (name, "d m")
    assert "cannot be read" in finding.problem
    await store.compact()  # neither fails nor loses what lies over it
    assert await values(store) == [-4, -100]
    await store.close()


@pytest.mark.parametrize("rows", [1, 5], ids=["on a shelf", "of its own"])
@pytest.mark.parametrize("damage", ["[1,2],[", b"[17\xff\xfe],[1]", "", "[1],[1,2]", '["a"],[1]', "1,2", "a\nb", 7])
async def test_a_damaged_loose_block_costs_itself_alone_and_is_found(
    store: EmbeddedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes | str | int, rows: int
) -> None:
    for n in range(5):
        await store.write([Reading("d", "m", NOON + rows * n + at, n) for at in range(rows)])
    await store.write([Reading("e", "m", NOON, 7)])
    name = files(tmp_path)[0]
    with sqlite3.connect(tmp_path / "readings" / name) as database:
        body = damage.encode() if isinstance(damage, str) else damage
        changed = "CAST(? AS TEXT)" if isinstance(body, bytes) else "replace(body, '4', ?)"  # another value, as sound
        count = database.execute(f"UPDATE loose SET body = {changed} WHERE seq = 5", (body,)).rowcount
        assert count == 1
    database.close()
    sound = [n for n in range(4) for _ in range(rows)]
    for _ in range(3):
        assert await values(store) == sound
    assert (await store.latest("d"))["m"] == (NOON + 4 * rows - 1, 3)
    assert (await store.latest("e"))["m"] == (NOON, 7)
    assert caplog.text.count("in loose block 5 cannot be read") == 1
    assert store.damaged_chunks == 1
    (finding,) = await store.verify()
    assert finding.file == name
    assert finding.series == ("d m" if rows > 1 else "d m to e m")
    assert "the loose block 5 cannot be read" in finding.problem
    await store.compact()
    assert (await values(store), await values(store, "e")) == (sound, [7])
    assert len(await store.verify()) == 1
    await store.write([Reading("d", "m", NOON + 100, 9)])
    await store.compact()
    assert await values(store) == [*sound, 9]


async def test_a_device_that_is_deleted_leaves_its_neighbours_on_the_shelf(store: EmbeddedStore) -> None:
    await store.write([Reading(device, "m", NOON, 1) for device in "abc"])
    await store.compact()
    for n in (1, 2):
        await store.write([Reading(device, "m", NOON + n, n) for device in "abc"])
    await store.delete_device("b")
    assert [await values(store, device) for device in "abc"] == [[1, 1, 2], [], [1, 1, 2]]
    assert await store.devices() == ["a", "c"]
    await store.write([Reading("b", "m", NOON + 3, 3)])
    assert await values(store, "b") == [3]
    assert await store.verify() == []


async def test_a_series_that_lies_on_a_shelf_and_by_itself_is_sealed_in_the_order_of_its_writes(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_writer, "RIPE_READINGS", 10)
    options = EmbeddedOptions(directory=tmp_path / "readings")
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", NOON, "shelf"), Reading("e", "m", NOON, "shelf")])
    await store.write([Reading("e", "m", NOON + n % 5, "own") for n in range(9)])
    await store.write([Reading("d", "m", NOON, "shelf again")])
    await store.close()
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    await store.write([Reading("d", "m", NOON + n, "own") for n in range(10)])  # ripe, and takes the shelf with it
    async with asyncio.timeout(10):
        while await store._writing(lambda: store._days._writers[DAY].ripe):  # noqa: ASYNC110 # the sealing's own pace
            await asyncio.sleep(0.01)
    assert await store._writing(lambda: store._days._writers[DAY].loose) == {}
    assert await values(store) == ["own"] * 10
    assert await values(store, "e") == ["own"] * 5
    assert await store.verify() == []
    await store.close()


async def test_when_the_newest_chunk_is_damaged_the_latest_is_of_the_one_before(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    await store.write([Reading("d", "m", NOON + n, n) for n in range(10_000)])
    await store.compact()
    with sqlite3.connect(tmp_path / "readings" / files(tmp_path)[0]) as database:
        database.execute("UPDATE chunk SET body = x'01' WHERE first_ms > ?", (NOON,))
    database.close()
    assert (await store.latest("d"))["m"] == (NOON + 4999, 4999)


async def test_a_day_of_very_many_chunks_is_sealed_in_slices(store: EmbeddedStore) -> None:
    await store.write([Reading("d", "m", NOON, 0.5)])
    writer = store._days._writers[DAY]
    chunks = []
    for n in range(1500):
        times = list(range(NOON + 1000 * n + 1, NOON + 1000 * n + 101))
        chunks.append((1, times[0], times[-1], 100, None, None, encode(times, [n / 10 for n in range(100)])))
    await store._writing(writer._insert, "chunk(sid, first_ms, last_ms, readings, hours, minutes, body)", chunks)
    steps = 0
    while await store._writing(writer.seal_whole, lambda: True):
        steps += 1
    assert steps > 4
    assert await store._writing(writer._one, "SELECT count(*) FROM chunk") == 19
    assert len(await values(store)) == 10_000
    counted = Query(device_id="d", start_ms=NOON, end_ms=NOON + DAY_MS // 2, buckets=1, aggregate=Aggregate.COUNT)
    assert (await store.query(counted))["m"].v == [150_001]
    assert await store.verify() == []


async def test_a_backup_is_whole_while_writing_goes_on(store: EmbeddedStore, tmp_path: Path, clock: Clock) -> None:
    await store.write([Reading("d", "m", NOON - DAY_MS, -1)])
    told: list[tuple[int, int]] = []

    async def go_on() -> None:
        for n in range(50):
            await store.write([Reading("d", "m", NOON + n, n)])

    await store.write([Reading("d", "m", NOON, 0)])
    writing = asyncio.create_task(go_on())
    await store.backup(tmp_path / "backup", lambda done, total: told.append((done, total)))
    await writing
    assert told == [(0, 2), (1, 2), (2, 2)]
    copy = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "backup", retention_days=3), now_ms=clock)
    await copy.open()
    found = await values(copy)
    assert found == list(range(-1, len(found) - 1))
    assert len(found) >= 2
    await copy.close()
    with pytest.raises(FileExistsError, match="not empty"):
        await store.backup(tmp_path / "backup")


async def test_a_backup_holds_up_no_write(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write([Reading("d", "m", NOON, 0)])
    copy, written = DayReader.copy, threading.Event()

    def slow(self: DayReader, target: Path) -> None:
        assert written.wait(10)
        copy(self, target)

    monkeypatch.setattr(DayReader, "copy", slow)
    backup = asyncio.create_task(store.backup(tmp_path / "backup"))
    await asyncio.sleep(0)
    await store.write([Reading("d", "m", NOON + 1, 1)])
    assert await values(store) == [0, 1]
    written.set()
    await backup


async def test_a_day_that_is_over_is_sealed_whole_and_its_file_shrinks(tmp_path: Path, clock: Clock) -> None:
    options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=3)
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    for n in range(400):
        await store.write([Reading(f"d{m}", "m", NOON + 1000 * n, 20 + n % 7 / 10) for m in range(20)])
    await store.close()
    before = (tmp_path / "readings" / files(tmp_path)[0]).stat().st_size
    clock.ms += DAY_MS
    store = EmbeddedStore(options, now_ms=clock)
    await store.open()
    async with asyncio.timeout(10):
        while store._days.days_over():  # noqa: ASYNC110 # the housekeeping's own pace
            await asyncio.sleep(0.01)
    stats = await store.stats()
    assert (stats.points, stats.loose_points) == (8000, 0)
    assert len(await values(store, "d7")) == 400
    await store.close()
    after = (tmp_path / "readings" / files(tmp_path)[0]).stat().st_size
    assert after < before / 4


def first_layout(path: Path) -> dict[int, Value]:
    """A file as the first version wrote it, a row a reading; what it holds of d m."""
    points: dict[int, Value] = {NOON + n: [n, n / 4, n % 2 == 0, f"text {n}"][n % 4] for n in range(1000)}
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("""PRAGMA journal_mode = WAL;
        CREATE TABLE series (
            sid INTEGER PRIMARY KEY, device TEXT NOT NULL, metric TEXT NOT NULL, UNIQUE (device, metric));
        CREATE TABLE points (
            sid INTEGER NOT NULL, ts INTEGER NOT NULL, v NOT NULL, PRIMARY KEY (sid, ts)) WITHOUT ROWID;
        INSERT INTO series VALUES (1, 'd', 'm'), (2, 'e', 'm'); PRAGMA user_version = 1""")
    rows = [(1, ts, {True: b"\1", False: b"\0"}[v] if isinstance(v, bool) else v) for ts, v in points.items()]
    connection.executemany("INSERT INTO points VALUES (?, ?, ?)", [*rows, (2, NOON, -0.5)])
    connection.close()
    return points


async def test_files_of_the_first_layout_are_brought_to_this_one(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "readings").mkdir()
    path = tmp_path / "readings" / f"{date.fromordinal(date(1970, 1, 1).toordinal() + DAY)}.db"
    points = first_layout(path)
    path.with_name(path.name + ".new").write_bytes(b"left by a start that was killed in the middle")
    for _ in ("brought to it", "there already"):
        store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", retention_days=3), now_ms=clock)
        await store.open()
        assert list(map(repr, await values(store))) == list(map(repr, points.values()))
        assert await values(store, "e") == [-0.5]
        assert await store.verify() == []
        await store.close()
    assert sorted(file.name for file in (tmp_path / "readings").iterdir()) == [path.name, "lock"]


def second_layout(path: Path) -> None:
    """A file as the second version wrote it: loose blocks of one series each, without a checksum."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("""PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
        CREATE TABLE series (
            sid INTEGER PRIMARY KEY, device TEXT NOT NULL, metric TEXT NOT NULL, UNIQUE (device, metric));
        CREATE TABLE loose (
            sid INTEGER NOT NULL, first_ms INTEGER NOT NULL, seq INTEGER NOT NULL, last_ms INTEGER NOT NULL,
            readings INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (sid, first_ms, seq)) WITHOUT ROWID;
        CREATE TABLE chunk (
            sid INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, readings INTEGER NOT NULL,
            hours BLOB, minutes BLOB, body BLOB NOT NULL, PRIMARY KEY (sid, first_ms)) WITHOUT ROWID;
        INSERT INTO series VALUES (1, 'd', 'm'), (2, 'e', 'm'); PRAGMA user_version = 2""")
    chunk = (1, NOON, NOON + 1, 2, None, None, encode([NOON, NOON + 1], [0, 1]))
    connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", chunk)
    loose = [
        (1, NOON + 2, 3, NOON + 3, 2, f'[{NOON + 2},{NOON + 3}],["ü","\\n"]'),
        (1, NOON + 3, 4, NOON + 3, 1, f"[{NOON + 3}],[3.5]"),
        (2, NOON, 3, NOON, 1, f"[{NOON}],[true]"),
        (2, NOON, 4, NOON, 1, f"[{NOON}],[fal"),
    ]
    connection.executemany("INSERT INTO loose VALUES (?, ?, ?, ?, ?, ?)", loose)
    connection.close()


async def test_files_of_the_second_layout_are_brought_to_this_one(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "readings").mkdir()
    path = tmp_path / "readings" / f"{date.fromordinal(date(1970, 1, 1).toordinal() + DAY)}.db"
    second_layout(path)
    for again in range(2):
        store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", retention_days=3), now_ms=clock)
        await store.open()
        assert await values(store) == [0, 1, "ü", 3.5]
        assert await values(store, "e") == ([True] if not again else [True, "new"])
        (finding,) = await store.verify()  # what was damaged is so still
        assert finding.series == "e m"
        assert (await store.stats()).loose_points == 5 + again
        await store.write([Reading("e", "m", NOON + 9, "new")])
        await store.close()


WRITING = """
import asyncio, sys
from pathlib import Path
from gateway.readings import Reading
from gateway.stores import EmbeddedOptions, EmbeddedStore, day_writer

day_writer.RIPE_READINGS = 20

async def seal(store):
    while True:
        await store.compact()

async def main():
    store = EmbeddedStore(EmbeddedOptions(directory=Path(sys.argv[1]), retention_days=36500))
    await store.open()
    sealing = asyncio.create_task(seal(store))
    n = int(sys.argv[2])
    while True:
        # in order, and each time one from before once more, on a shelf; now and then some in blocks of their own
        some = range(max(0, n - 5), n + 1) if n % 7 == 0 else (n, n // 2)
        await store.write([Reading(f"d{i}", "m", 1699963200000 + at, at) for i in range(20) for at in some])
        n += 1
        print(n, flush=True)

asyncio.run(main())
"""


def write_until_killed(directory: Path, start: int, after_s: float) -> int:
    """Let another process write and seal, kill -9 it so long after its first write; how many it said were written."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(directory), str(start)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    with process.stdout:
        acknowledged = int(process.stdout.readline())
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            if line.endswith(b"\n"):
                acknowledged = int(line)
    process.wait()
    return acknowledged


@pytest.mark.slow
async def test_kill_9_at_random_moments_loses_nothing_written_and_seals_all_or_nothing(tmp_path: Path) -> None:
    chance = random.Random()
    acknowledged = 0
    for number in range(20):
        acknowledged = await asyncio.to_thread(write_until_killed, tmp_path, acknowledged, chance.random() / 5)
        if number % 4:
            continue  # the next one finds the file as the kill left it
        store = EmbeddedStore(EmbeddedOptions(directory=tmp_path, retention_days=36_500))
        await store.open()
        assert await store.verify() == []
        for device in range(20):
            found = await values(store, f"d{device}")
            assert len(found) >= acknowledged
            assert found == list(range(len(found)))
        await store.close()
    assert acknowledged >= 20


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

"""The native broker's persistence when things go wrong: kill -9, damage, a second process, a full disk."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import PersistenceError
from broker.native.store import Kept, Store
from tests.broker.storing_child import CLIENT, record_of

ROOT = Path(__file__).parents[2]


def start_child(directory: Path, first: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("storing_child.py")), str(directory), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def kill_a_child(directory: Path, first: int, lines: int, wait_s: float) -> list[int]:
    """Kill a storing child a moment after it said so many things; gives all of them: n was put, -n deleted."""
    with start_child(directory, first) as child:
        assert child.stdout is not None
        text = b"".join(child.stdout.readline() for _ in range(lines))
        time.sleep(wait_s)
        child.send_signal(signal.SIGKILL)
        text += child.stdout.read()
    assert child.returncode == -signal.SIGKILL
    return [int(line) for line in text[: text.rindex(b"\n")].split()]  # the last line may have been cut


async def kept_in(directory: Path) -> Kept:
    store = Store(directory)
    kept = store.open()
    await store.close()
    return kept


async def test_nothing_said_to_be_safe_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(3)
    acknowledged: dict[int, bool] = {}  # still there?
    for round_ in range(20):
        first = 1 + round_ * 10_000_000
        said = kill_a_child(tmp_path, first, chance.randrange(1, 1500), chance.random() * 0.01)
        acknowledged.update((abs(number), number > 0) for number in said)
        kept = await kept_in(tmp_path)
        found = dict(kept.deliveries[CLIENT])
        assert {number: record for number, record in found.items() if record != record_of(number)} == {}
        # an even one may have been deleted without anybody having been told
        assert [n for n, there in acknowledged.items() if n not in found and (there and n % 2)] == []
        assert [n for n, there in acknowledged.items() if n in found and not there] == []
        # a batch is there whole or not at all
        last = int(kept.sessions[CLIENT])
        assert last >= max(acknowledged)
        assert max(found) <= last
        assert [n for n in range(first, last + 1) if n % 2 and n not in found] == []
    assert len(acknowledged) > 5000


# ---- one process at a time


async def test_a_second_process_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    with start_child(tmp_path) as child:
        _, error = child.communicate(timeout=20)
    assert child.returncode == 1
    assert error.decode().strip() == f"{tmp_path}: is in use by another broker; stop it first, or name another"
    with pytest.raises(PersistenceError, match="in use"):
        Store(tmp_path).open()
    store.put_session("a", b"1")
    await store.close()
    assert (await kept_in(tmp_path)).sessions == {"a": b"1"}


async def test_a_file_held_by_another_program_is_said_so(tmp_path: Path) -> None:
    await kept_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / "broker.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PersistenceError, match="in use by another program"):
            Store(tmp_path).open()
    assert await kept_in(tmp_path) == Kept()


# ---- what is found at opening


async def test_directory_and_files_are_for_this_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "broker"
    store = Store(directory)
    store.open()
    store.put_session("a", b"1")
    told = asyncio.get_running_loop().create_future()
    store.when_safe(lambda: told.set_result(None))
    await told
    assert directory.stat().st_mode & 0o777 == 0o700
    names = {"broker.db", "broker.db-wal", "broker.db-shm", "broker.lock", "broker.reserve"}
    assert {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()} == dict.fromkeys(names, 0o600)
    await store.close()


def test_a_directory_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PersistenceError, match=r"cannot be used .*name a directory that this user can write to"):
        Store(tmp_path / "file" / "broker").open()


async def test_a_file_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "broker.db").mkdir()
    with pytest.raises(PersistenceError, match=r"broker\.db: cannot be read and written"):
        Store(tmp_path).open()


def spoil_nothing_left(path: Path) -> None:
    path.write_bytes(b"")


def spoil_text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


def spoil_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:512])


def spoil_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 12] = b"\xa5" * (4096 * 9)
    path.write_bytes(content)


def spoil_other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE x (y)")


def spoil_table_gone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE retained")


SPOILED = [value for name, value in globals().items() if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
async def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, spoil) -> None:
    store = Store(tmp_path)
    store.open()
    for n in range(300):
        store.put_delivery(f"client {n % 9}", n, b"x" * 500)
    await store.close()
    path = tmp_path / "broker.db"
    spoil(path)
    content = path.read_bytes()
    for _ in range(2):
        with pytest.raises(PersistenceError) as raised:
            Store(tmp_path).open()
        assert str(raised.value).startswith(f"{path}: is damaged (")
        assert "move it aside" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert path.read_bytes() == content
    path.rename(tmp_path / "aside")
    assert await kept_in(tmp_path) == Kept()


async def test_a_newer_version_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    await kept_in(tmp_path)
    path = tmp_path / "broker.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    content = path.read_bytes()
    names = sorted(os.listdir(tmp_path))
    with pytest.raises(
        PersistenceError, match=r"written by a newer version \(format 99, this one reads 2\); use that, or"
    ):
        Store(tmp_path).open()
    assert path.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == names


async def test_a_file_gone_from_beside_its_log_is_no_empty_one(tmp_path: Path) -> None:
    kill_a_child(tmp_path, 0, 10, 0)
    path = tmp_path / "broker.db"
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(PersistenceError, match=r"is not there, but broker\.db-wal is: put it back"):
        Store(tmp_path).open()
    (tmp_path / "elsewhere").rename(path)
    assert (await kept_in(tmp_path)).deliveries[CLIENT]


async def test_a_creation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    for name in ("broker.db.new", "broker.db.new-wal", "broker.db.new-journal"):
        (tmp_path / name).write_bytes(b"half a page")
    assert await kept_in(tmp_path) == Kept()
    assert sorted(os.listdir(tmp_path)) == ["broker.db", "broker.lock", "broker.reserve"]


# ---- a disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("SKIPPED: a full disk is tried on a tmpfs, and only root on Linux can mount one")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"SKIPPED: no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


async def fill_up(store: Store, client_id: str) -> tuple[list[int], list[int]]:
    """Put until the disk refuses; gives the seqs that were put, and those said to be safe (a list that may grow)."""
    put: list[int] = []
    told: list[int] = []
    for seq in range(2000):
        store.put_delivery(client_id, seq, b"x" * 4000)
        put.append(seq)
        store.when_safe(lambda seq=seq: told.append(seq))
        while seq not in told and store.failing is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if store.failing is not None:
            return put, told
    raise AssertionError("the disk was never full")


async def test_a_full_disk_holds_callbacks_back_and_goes_on_by_itself_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    store = Store(small_disk)
    store.open()
    put, told = await fill_up(store, "a")
    assert store.failing == "database or disk is full"
    store.put_session("a", b"of later")
    await asyncio.sleep(0.7)  # some tries
    assert told == put[:-1]
    assert store.pending_bytes > 4000
    ballast.unlink()
    async with asyncio.timeout(10):
        while not store.clean:  # noqa: ASYNC110 # what is waited for is the store's
            await asyncio.sleep(0.01)
    assert store.failing is None
    assert told == put
    await store.close()
    kept = await kept_in(small_disk)
    assert kept.sessions == {"a": b"of later"}
    assert kept.deliveries == {"a": [(seq, b"x" * 4000) for seq in put]}


async def test_a_disk_filled_by_the_store_itself_has_room_again_once_the_backlog_is_delivered(small_disk: Path) -> None:
    store = Store(small_disk)
    store.open()
    put, told = await fill_up(store, "a")
    for seq in put:
        store.delete_delivery("a", seq)
    async with asyncio.timeout(10):
        while not store.clean:  # noqa: ASYNC110 # what is waited for is the store's
            await asyncio.sleep(0.01)
    assert told == put
    again, _ = await fill_up(store, "b")
    assert len(again) > len(put) / 2
    store.delete_session("b")
    await store.close()
    assert await kept_in(small_disk) == Kept()


async def test_closing_on_a_full_disk_keeps_what_was_safe(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.native.store._CLOSE_S", 0.5)
    store = Store(small_disk)
    store.open()
    _, told = await fill_up(store, "a")
    safe = list(told)
    await store.close()
    assert told == safe
    assert [seq for seq, _ in (await kept_in(small_disk)).deliveries["a"]] == safe

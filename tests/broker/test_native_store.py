"""The native broker's persistence: what is put comes back, and nobody is told before it is on disk."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.errors import EngineStopped
from broker.native import store as store_module
from broker.native.store import ENTRY_BYTES, Kept, Store
from broker.native.store_file import Operation, StoreFile

ODD = [
    "",
    "plain",
    'quote " and \\',
    "'; DROP TABLE delivery; --",
    "\x01\x1f\x7f",
    "a\x00b",
    "é",
    "e\u0301",
    "😀\U0010ffff",
]
ODD += ["\u2028\ufeff", "%s$[0]", "\ufffe\uffff", "/" * 5000, "\ud800"]


async def safe(store: Store) -> None:
    """Until all that was put so far is on disk."""
    told = asyncio.get_running_loop().create_future()
    store.when_safe(lambda: told.set_result(None))
    await asyncio.wait_for(told, 20)


async def reopened(store: Store) -> Kept:
    """What is found on disk after closing."""
    directory = store._file.path.parent
    await store.close()
    again = Store(directory)
    kept = again.open()
    await again.close()
    return kept


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_RETRY_S", 0.01)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "kept")
    assert store.open() == Kept()
    yield store
    await store.close()


class Gate:
    """Stands before every commit: closed, open, or failing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[Operation]] = []
        self.error: Exception | None = None
        self.opened = threading.Event()
        self.opened.set()
        self.waiting = threading.Event()
        commit = StoreFile.commit

        def slow(file: StoreFile, operations: Callable[[], Iterable[Operation]]) -> None:
            batch = list(operations())
            self.batches.append(batch)
            self.waiting.set()
            assert self.opened.wait(10)
            if self.error is not None:
                raise self.error
            commit(file, operations)

        monkeypatch.setattr(StoreFile, "commit", slow)

    def close(self) -> None:
        self.opened.clear()
        self.waiting.clear()

    async def reached(self) -> None:
        """Until a commit waits."""
        await until(self.waiting.is_set)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 # what is waited for is the store's
            await asyncio.sleep(0.002)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def test_all_kinds_of_records_come_back_in_order(store: Store) -> None:
    store.put_session("a", b"session a")
    for seq in (5, 1, 2**40, 3):
        store.put_delivery("a", seq, b"d%d" % seq)
    store.put_delivery("b", 0, b"")
    store.put_retained("t/1", bytes(range(256)))
    await safe(store)
    assert await reopened(store) == Kept(
        sessions={"a": b"session a"},
        deliveries={"a": [(1, b"d1"), (3, b"d3"), (5, b"d5"), (2**40, b"d%d" % 2**40)], "b": [(0, b"")]},
        retained={"t/1": bytes(range(256))},
    )


@pytest.mark.parametrize("key", ODD, ids=ascii)
async def test_odd_keys_and_records_come_back_exactly(store: Store, key: str) -> None:
    record = key.encode("utf-8", "surrogatepass") + b"\x00\xff"
    store.put_session(key, record)
    store.put_delivery(key, 1, record)
    store.put_delivery(key, 2, record)
    store.put_retained(key, record)
    store.put_retained(key + "x", b"another")
    await safe(store)
    store.delete_delivery(key, 1)
    store.delete_retained(key + "x")
    await safe(store)
    assert await reopened(store) == Kept(
        sessions={key: record}, deliveries={key: [(2, record)]}, retained={key: record}
    )


async def test_deletions_and_replacements_of_what_is_on_disk(store: Store) -> None:
    for client in ("a", "b"):
        store.put_session(client, b"old")
        store.put_delivery(client, 1, b"1")
        store.put_delivery(client, 2, b"2")
    store.put_retained("t", b"old")
    await safe(store)
    store.put_session("a", b"new")
    store.put_delivery("a", 1, b"one")
    store.delete_delivery("a", 2)
    store.delete_session("b")
    store.delete_retained("t")
    assert await reopened(store) == Kept(sessions={"a": b"new"}, deliveries={"a": [(1, b"one")]})


async def test_what_was_kept_can_be_deleted_after_a_restart(store: Store) -> None:
    store.put_delivery("a", 7, b"x")
    directory = store._file.path.parent
    await store.close()
    again = Store(directory)
    again.open()
    again.delete_delivery("a", 7)
    assert await reopened(again) == Kept()


async def test_a_batch_holds_one_operation_a_key_and_none_for_what_came_and_went(store: Store, gate: Gate) -> None:
    for n in range(1000):
        store.put_delivery("a", n, b"x" * 1000)
        store.delete_delivery("a", n)
    assert store.clean
    for n in range(100):
        store.put_session("a", b"%d" % n)
        store.put_retained("t", b"%d" % n)
    store.delete_retained("t")
    await safe(store)
    assert [[op[1] for op in batch] for batch in gate.batches] == [["a", "t"]]
    assert await reopened(store) == Kept(sessions={"a": b"99"})


async def test_what_came_and_went_while_a_commit_runs_is_deleted_if_that_one_stores_it(
    store: Store, gate: Gate
) -> None:
    gate.close()
    store.put_delivery("a", 1, b"1")
    await gate.reached()
    store.put_delivery("a", 1, b"again")
    store.delete_delivery("a", 1)
    store.put_delivery("a", 2, b"2")
    store.delete_delivery("a", 2)
    gate.opened.set()
    await safe(store)
    assert [len(batch) for batch in gate.batches] == [1, 1]
    assert await reopened(store) == Kept()


async def test_forgetting_a_session_drops_its_deliveries_of_the_batch_and_of_the_disk(store: Store) -> None:
    store.put_session("a", b"1")
    store.put_delivery("a", 1, b"on disk")
    await safe(store)
    store.put_delivery("a", 2, b"of the batch")
    store.put_delivery("b", 2, b"another's")
    store.delete_session("a")
    store.put_delivery("a", 3, b"of the next session")
    store.put_session("a", b"2")
    assert await reopened(store) == Kept(
        sessions={"a": b"2"}, deliveries={"a": [(3, b"of the next session")], "b": [(2, b"another's")]}
    )


async def test_nobody_is_told_before_the_commit(store: Store, gate: Gate) -> None:
    told: list[str] = []
    gate.close()
    store.when_safe(lambda: told.append("nothing to wait for"))
    assert told == ["nothing to wait for"]
    store.put_session("a", b"1")
    store.when_safe(lambda: told.append("first"))
    await gate.reached()
    store.when_safe(lambda: told.append("also first"))
    store.put_session("a", b"2")
    store.when_safe(lambda: told.append("second"))
    await asyncio.sleep(0.05)
    assert len(told) == 1
    assert not store.clean
    gate.opened.set()
    await safe(store)
    assert told[1:] == ["first", "also first", "second"]
    assert store.clean
    assert store.commits == 2


async def test_callbacks_keep_their_order_whatever_they_do(store: Store) -> None:
    told: list[int] = []

    def again(number: int) -> None:
        told.append(number)
        if number < 30:
            store.when_safe(lambda: again(number + 10))
        if number % 10 == 3:
            store.put_session("a", b"%d" % number)
            store.when_safe(lambda: told.append(100 + number))
        if number == 5:
            raise ValueError("a callback's fault")

    store.put_session("a", b"")
    for number in range(10):
        store.when_safe(lambda number=number: again(number))
    await safe(store)
    await until(lambda: store.clean)
    assert told[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert sorted(told) == sorted([*range(40), 103, 113, 123, 133])
    assert told.index(103) > told.index(12)


async def test_who_waits_for_what_is_deleted_again_is_told_too(store: Store, gate: Gate) -> None:
    told: list[str] = []
    store.put_delivery("a", 1, b"x")
    store.when_safe(lambda: told.append("now"))
    store.delete_delivery("a", 1)
    assert not store.clean
    store.when_safe(lambda: told.append("then"))
    assert told == []
    await until(lambda: store.clean)
    assert told == ["now", "then"]
    assert gate.batches == []
    gate.close()
    store.put_session("a", b"1")
    await gate.reached()
    store.put_delivery("b", 1, b"x")
    store.when_safe(lambda: told.append("after the session"))
    store.delete_delivery("b", 1)
    assert told == ["now", "then"]
    gate.opened.set()
    await until(lambda: store.clean)
    assert told[2:] == ["after the session"]


async def test_pending_bytes_counts_all_that_is_not_on_disk(store: Store, gate: Gate) -> None:
    assert store.pending_bytes == 0
    gate.close()
    store.put_delivery("a", 1, b"x" * 1000)
    store.put_delivery("a", 1, b"x" * 600)
    assert store.pending_bytes == 600 + ENTRY_BYTES
    await gate.reached()
    store.put_session("a", b"x" * 50)
    store.delete_delivery("a", 1)
    store.put_retained("t", b"x" * 7)
    assert store.pending_bytes == 657 + 4 * ENTRY_BYTES
    store.delete_session("a")
    assert store.pending_bytes == 607 + 3 * ENTRY_BYTES
    gate.opened.set()
    await safe(store)
    assert store.pending_bytes == 0


async def test_a_failing_commit_is_tried_again_merged_with_what_came_since(
    store: Store, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[int] = []
    gate.error = sqlite3.OperationalError("disk I/O error")
    store.put_session("gone", b"1")
    store.put_delivery("gone", 1, b"1")
    store.put_delivery("a", 1, b"old")
    store.put_delivery("a", 2, b"2")
    store.put_retained("t", b"1")
    store.when_safe(lambda: told.append(1))
    await until(lambda: store.failing is not None)
    assert store.failing == "disk I/O error"
    store.delete_session("gone")
    store.put_delivery("gone", 3, b"3")
    store.put_delivery("a", 1, b"new")
    store.delete_delivery("a", 2)
    store.delete_retained("t")
    store.when_safe(lambda: told.append(2))
    tries = len(gate.batches)
    await until(lambda: len(gate.batches) > tries + 2)
    assert told == []
    assert store.commits == 0
    gate.error = None
    await until(lambda: store.clean)
    assert told == [1, 2]
    assert store.failing is None
    assert [record.levelname for record in caplog.records if record.name == store_module.__name__] == [
        "ERROR",
        "WARNING",
    ]
    assert await reopened(store) == Kept(deliveries={"a": [(1, b"new")], "gone": [(3, b"3")]})


async def test_after_an_io_error_the_file_is_opened_anew(store: Store) -> None:
    database: Any = store._file._database

    class Broken:
        def execute(self, sql: str, *args: Any) -> Any:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

    store._file._database = Broken()  # type: ignore[assignment]
    store.put_session("a", b"1")
    await until(lambda: store.failing is not None)
    await safe(store)
    assert store._file._database not in (None, database)
    assert await reopened(store) == Kept(sessions={"a": b"1"})


async def test_closing_commits_what_is_left_without_waiting_for_the_next_try(store: Store, gate: Gate) -> None:
    told: list[int] = []
    gate.error = sqlite3.OperationalError("database or disk is full")
    store.put_session("a", b"1")
    store.when_safe(lambda: told.append(1))
    await until(lambda: store.failing is not None)
    gate.error = None
    assert (await reopened(store)).sessions == {"a": b"1"}
    assert told == [1]
    with pytest.raises(EngineStopped):
        store.put_session("a", b"2")


async def test_closing_gives_up_in_the_end_and_says_so(
    store: Store, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "_CLOSE_S", 0.2)
    told: list[int] = []
    gate.error = sqlite3.OperationalError("database or disk is full")
    store.put_session("a", b"123")
    store.when_safe(lambda: told.append(1))
    await store.close()
    assert f"closed with {3 + ENTRY_BYTES} bytes not committed, which are lost: database or disk is full" in caplog.text
    assert told == []
    gate.error = None
    assert await reopened(store) == Kept()


async def test_a_hundred_thousand_deliveries_are_one_statement_beside_a_busy_loop(store: Store) -> None:
    calls: list[str] = []
    database: Any = store._file._database

    class Counting:
        """Each call into SQLite is a wait for the GIL; its own trace callback would be called for every row."""

        def execute(self, sql: str, *args: Any) -> Any:
            calls.append(sql.split()[0])
            return database.execute(sql, *args)

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

    store._file._database = Counting()  # type: ignore[assignment]
    for n in range(100_000):
        store.put_delivery(f"client {n % 1000}", n // 1000, b"%d" % n * 20)
    waiting = asyncio.ensure_future(safe(store))
    while not waiting.done():
        sum(range(20_000))
        await asyncio.sleep(0)
    await waiting
    assert calls == ["INSERT"]
    assert store.commits == 1
    kept = await reopened(store)
    assert len(kept.deliveries) == 1000
    for client in (0, 1, 999):
        assert kept.deliveries[f"client {client}"] == [(n, b"%d" % (1000 * n + client) * 20) for n in range(100)]


async def test_a_huge_batch_is_cut_into_statements_of_one_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.native.store_file._SLICE_BYTES", 100_000)
    for n in range(50):
        store.put_delivery("a", n, bytes([n]) * 9_000)
    assert len((await reopened(store)).deliveries["a"]) == 50
    assert store.commits == 1


async def test_the_file_shrinks_after_a_backlog(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_TIDY_EVERY_S", 0.01)
    path = store._file.path
    for n in range(2000):
        store.put_delivery("a", n, b"x" * 8000)
    await safe(store)
    for n in range(2000):
        store.delete_delivery("a", n)
    await safe(store)
    assert path.stat().st_size > 16_000_000
    await until(lambda: path.stat().st_size < 5_000_000)


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_operations_and_failures_ends_in_what_a_dictionary_would_hold(
    store: Store, gate: Gate, seed: int
) -> None:
    store._retry_s = 0.0001
    chance = random.Random(seed)
    sessions: dict[str, bytes] = {}
    deliveries: dict[tuple[str, int], bytes] = {}
    retained: dict[str, bytes] = {}
    touched: dict[tuple[str, int], int] = {}
    told: list[int] = []
    checks: list[bool] = []

    def check(registered: int, expected: dict[tuple[str, int], bytes]) -> None:
        told.append(registered)
        with closing(sqlite3.connect(store._file.path)) as database:
            rows = database.execute("SELECT client, seq, record FROM delivery").fetchall()
        found = {(client.decode(), seq): record for client, seq, record in rows}
        for client in "abc":
            for seq in range(6):
                if touched.get((client, seq), -1) <= registered:
                    checks.append(found.get((client, seq)) == expected.get((client, seq)))

    registered = []
    for step in range(400):
        client, seq, record = chance.choice("abc"), chance.randrange(6), b"%d" % step
        match chance.randrange(10):
            case 0:
                sessions[client] = record
                store.put_session(client, record)
            case 1 if chance.random() < 0.5:
                sessions.pop(client, None)
                for n in range(6):
                    deliveries.pop((client, n), None)
                    touched[client, n] = step
                store.delete_session(client)
            case 2 | 3 | 4 | 5:
                deliveries[client, seq] = record
                touched[client, seq] = step
                store.put_delivery(client, seq, record)
            case 6:
                deliveries.pop((client, seq), None)
                touched[client, seq] = step
                store.delete_delivery(client, seq)
            case 7:
                retained[client] = record
                store.put_retained(client, record)
            case 8:
                retained.pop(client, None)
                store.delete_retained(client)
            case _:
                registered.append(step)
                expected = dict(deliveries)
                store.when_safe(lambda step=step, expected=expected: check(step, expected))
        pending = store._pending
        records = [*pending.sessions.values(), *pending.retained.values()]
        records += [record for of_client in pending.deliveries.values() for record in of_client.values()]
        assert pending.bytes == sum(ENTRY_BYTES + len(one or b"") for one in records) + ENTRY_BYTES * len(
            pending.forgotten
        )
        if chance.random() < 0.2:
            gate.error = sqlite3.OperationalError("disk I/O error") if chance.random() < 0.5 else None
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(chance.choice((0, 0.0005)))
        elif chance.random() < 0.05:
            gate.error = None
            await until(lambda: store.clean)
    gate.error = None
    await until(lambda: store.clean)
    assert told == registered
    assert len(checks) > 100
    assert all(checks)
    kept = await reopened(store)
    assert kept.sessions == sessions
    assert kept.retained == retained
    assert {(c, seq): record for c, waiting in kept.deliveries.items() for seq, record in waiting} == deliveries

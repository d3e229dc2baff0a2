"""Single records of the broker that were damaged on disk: each costs itself, is said and counted, and no more."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import cbor2
import pytest

from broker.native.message import RichMessage
from broker.native.retained import Retained
from broker.native.store import Kept, Store
from broker.packets import Connack, Publish, Subscribe, Subscription
from tests.broker.blackbox import wire
from tests.broker.blackbox.native import native
from tests.broker.paper_network import paper_broker
from tests.broker.paper_store import PaperStore, keeper

KEPT: Any = {"session_expiry_interval": 1000}
SESSIONS = {"a": b"session of a", "b": b"session of b"}
DELIVERIES = {"a": [(1, b"one"), (2, b"two")], "b": [(1, b"three")]}
RETAINED = {"t/1": b"first", "t/2": b"second"}


async def fill(directory: Path) -> None:
    store = Store(directory)
    store.open()
    for client_id, record in SESSIONS.items():
        store.put_session(client_id, record)
    for client_id, waiting in DELIVERIES.items():
        for seq, record in waiting:
            store.put_delivery(client_id, seq, record)
    for topic, record in RETAINED.items():
        store.put_retained(topic, record)
    await store.close()


async def opened(directory: Path) -> Kept:
    store = Store(directory)
    kept = store.open()
    await store.close()
    return kept


def change(directory: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(directory / "broker.db", isolation_level=None)) as database:
        return [database.execute(statement).fetchall() for statement in statements][-1]


@pytest.mark.parametrize(
    ("table", "column", "key", "expected"),
    [
        ("session", "client", "a", ({"b": SESSIONS["b"]}, {"b": DELIVERIES["b"]}, RETAINED)),
        ("delivery", "client", "a", (SESSIONS, {"a": [(2, b"two")], "b": DELIVERIES["b"]}, RETAINED)),
        ("retained", "topic", "t/1", (SESSIONS, DELIVERIES, {"t/2": b"second"})),
    ],
)
async def test_a_flipped_bit_costs_its_record_and_what_hangs_on_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, table: str, column: str, key: str, expected: tuple[Any, Any, Any]
) -> None:
    await fill(tmp_path)
    where = f"WHERE {column} = x'{key.encode().hex()}'" + (" AND seq = 1" if table == "delivery" else "")
    ((record,),) = change(tmp_path, f"SELECT record FROM {table} {where}")
    for bit in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        change(tmp_path, f"UPDATE {table} SET record = x'{flipped.hex()}' {where}")
        if bit % 8:  # each is found; a byte's first one goes the whole way
            store = Store(tmp_path)
            assert store.open().damaged == 1
            await store.close()
            change(tmp_path, "DELETE FROM damaged")
        else:
            caplog.clear()
            kept = await opened(tmp_path)
            assert (kept.sessions, kept.deliveries, kept.retained, kept.damaged) == (*expected, 1)
            assert [each.levelno for each in caplog.records] == [logging.ERROR] * 2
            assert key in caplog.text
            assert change(tmp_path, "SELECT what, seq, record FROM damaged")[0] == (
                table, int(table == "delivery"), bytes(flipped),
            )  # fmt: skip
            assert await opened(tmp_path) == Kept(sessions=expected[0], deliveries=expected[1], retained=expected[2]), (
                "told once"
            )
        change(tmp_path, "DELETE FROM damaged")
        await fill(tmp_path)


async def test_a_record_under_another_key_is_damaged(tmp_path: Path) -> None:
    await fill(tmp_path)
    change(tmp_path, "UPDATE session SET client = x'62ff' WHERE client = x'62'")
    change(tmp_path, "UPDATE delivery SET seq = 7 WHERE client = x'62'")
    kept = await opened(tmp_path)
    assert (kept.sessions, kept.damaged) == ({"a": SESSIONS["a"]}, 2)


async def test_what_is_set_aside_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.native.store_file._ASIDE_LIMIT", 3)
    for _ in range(3):
        await fill(tmp_path)
        change(tmp_path, "UPDATE delivery SET record = x'00'")
        assert (await opened(tmp_path)).damaged == 3
    assert change(tmp_path, "SELECT count(*) FROM damaged") == [(3,)]


async def test_a_file_without_checksums_gets_them(tmp_path: Path) -> None:
    await fill(tmp_path)
    tables = ("session", "delivery", "retained")
    change(
        tmp_path,
        *(f"ALTER TABLE {table} DROP COLUMN checksum" for table in tables),
        "DROP TABLE damaged",
        "PRAGMA user_version = 1",
    )
    for _ in range(2):
        assert await opened(tmp_path) == Kept(sessions=SESSIONS, deliveries=DELIVERIES, retained=RETAINED)


# --- the broker


async def test_a_broker_starts_without_a_session_that_is_damaged(tmp_path: Path) -> None:
    kept = {"clean": False, "session_expiry_interval": 60}
    async with native(persistence=tmp_path) as broker:
        names = [broker.client_id(name) for name in ("lost", "kept")]
        for name in ("lost", "kept"):
            async with broker.client(name, **kept) as client:
                await client.subscribe("a", qos=1)
        async with broker.client("p") as publisher:
            await publisher.publish("a", qos=1)
    change(tmp_path, f"UPDATE session SET record = zeroblob(30) WHERE client = x'{names[0].encode().hex()}'")
    async with native(persistence=tmp_path) as broker:
        assert [each.client_id for each in broker.engine.sessions()] == [names[1]]
        assert broker.engine.metrics()["persistence_damaged"] == 1
        async with broker.raw() as client:
            client.send(wire.connect(names[1], clean=False))
            assert (await client.next()).head == b"\x01\0", "the session is not there"
            await client.gets("a", qos=1)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        b"\x80",
        cbor2.dumps(["u"]),
        cbor2.dumps({}),
        cbor2.dumps(["u", 5, 60, None, [["t"]], [], None, None]),
    ],
)
def test_a_sound_record_that_makes_no_sense_costs_its_session(record: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = PaperStore()
    with paper_broker(keeper=keeper(store)) as broker:
        for client_id in ("a", "b"):
            client = broker.client(5, client_id, properties=KEPT)
            asked = [Subscription(topic_filter="t", qos=1)]
            broker.send(client, Subscribe(packet_id=1, subscriptions=asked))
            broker.do(client.lose)
        broker.send(broker.client(4, "p"), Publish(topic="t", payload=b"x", qos=1, packet_id=1, retain=True))
        store.commit()
    after = PaperStore(store)
    after.sessions["a"] = record
    after.retained["other"] = record
    restored = keeper(after)
    with paper_broker(keeper=restored) as broker:
        broker.do(broker.hub.sessions.restore)
        assert [session.client_id for session in broker.hub.sessions] == ["b"]
        assert list(broker.hub.retained.topics()) == ["t"]
        assert restored.damaged == 2
        connack, publish = broker.client(5, "b", clean_start=False, properties=KEPT).received()
        assert isinstance(connack, Connack)
        assert connack.session_present
        assert isinstance(publish, Publish)
        after.commit()
        assert (list(after.sessions), list(after.retained)) == (["b"], ["t"])
    assert "cannot be read and is dropped" in caplog.text


@pytest.mark.parametrize(("moved_s", "left_s"), [(0, 60), (50, 10), (-86_400, 60), (100, -40)])
def test_a_clock_set_back_lets_no_message_live_longer(
    moved_s: float, left_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PaperStore()
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    monkeypatch.setattr("time.monotonic", lambda: 500.0)
    message = RichMessage(b"\0\1t", b"x", 1, expires_at=560.0, retain=True)
    keeper(store).put_retained("t", Retained(message))
    monkeypatch.setattr("time.time", lambda: 1_000_000.0 + moved_s)
    ((_, found),) = keeper(PaperStore(store)).retained(now=7.0)
    assert found.message.expires_at == pytest.approx(7.0 + left_s)

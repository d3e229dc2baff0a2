"""Clients of the native broker that come back again and again, and those that are gone without a word."""

import asyncio
import logging
import socket
import struct
import sys

import pytest

from broker.allowance import Allowances
from broker.native.flapping import Flapping
from broker.native.options import BrokerOptions
from broker.packets import Connack, Publish, Suback, Subscribe, Subscription
from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import levels
from tests.broker.blackbox.native import native
from tests.broker.clients import RecordingSink, until
from tests.broker.paper_network import paper_broker
from tests.broker.test_native_hooks import Gated

CONNECTION_RATE_EXCEEDED = 0x9F

# --- allowances


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    allowances = Allowances(10, burst=20)
    assert allowances.spend("a", 20, now=100.0) == 0
    assert allowances.spend("a", 5, now=100.0) == pytest.approx(0.5)
    assert allowances.wait_s("a", 100.2) == pytest.approx(0.4)  # for one more
    assert allowances.wait_s("b", 100.2) == 0
    assert allowances.spend("a", 0, now=110.0) == 0
    assert allowances.spend("a", 20, now=110.0) == 0


def test_a_client_that_rests_is_forgotten_when_there_is_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.allowance._LIMIT", 100)
    allowances = Allowances(1, burst=1)
    for number in range(1000):
        allowances.spend(f"client {number}", 1, now=number / 10)
        assert len(allowances) <= 100
    for number in range(1000):  # all at once: whoever has least to wait is forgotten
        allowances.spend(f"other {number}", 1 + number, now=200.0)
        assert len(allowances) <= 100
    assert allowances.wait_s("other 999", 200.0) > 900


def test_a_burst_is_not_had_again_by_another_connection() -> None:
    with paper_broker(BrokerOptions(max_publishes_per_s=50)) as broker:
        for _ in range(3):
            client = broker.client(4, "c")
            messages = [Publish(topic="a", payload=b"x") for _ in range(100)]
            broker.do(lambda client=client, messages=messages: client.send(*messages))
            broker.do(client.lose)
        assert broker.hub.counters.messages_received == 100
        assert broker.hub.counters.throttled == 3
        other = broker.client(4, "other")
        broker.do(lambda: other.send(Publish(topic="a", payload=b"x")))
        assert broker.hub.counters.messages_received == 101


@pytest.mark.parametrize(("username", "one_for_all"), [("u", True), ("", False)], ids=["user", "no user"])
def test_more_client_ids_give_a_user_no_more(username: str, one_for_all: bool) -> None:
    with paper_broker(BrokerOptions(max_publishes_per_s=50)) as broker:
        for number in range(3):
            client = broker.client(4, f"c{number}", username=username or None)
            broker.do(lambda client=client: client.send(*[Publish(topic="a", payload=b"x") for _ in range(100)]))
        assert broker.hub.counters.messages_received == (100 if one_for_all else 300)


def test_nobody_spends_the_allowance_of_a_user_by_a_client_id_that_reads_like_it() -> None:
    with paper_broker(BrokerOptions(max_publishes_per_s=50)) as broker:
        for client_id, username in (("alice", ""), ("pump", "alice")):
            client = broker.client(4, client_id, username=username or None)
            broker.do(lambda client=client: client.send(*[Publish(topic="a", payload=b"x") for _ in range(100)]))
        assert broker.hub.counters.messages_received == 200


# --- flapping


@levels
async def test_a_client_that_connects_too_often_is_refused_and_another_is_not(level: int) -> None:
    async with native(max_connects_per_min_per_client=5) as broker:
        for _ in range(5):
            async with broker.client("flaps", level=level):
                pass
        async with broker.raw(level=level) as client:
            client.send(wire.connect(broker.client_id("flaps"), level=level))
            assert (await client.next()).reason == (CONNECTION_RATE_EXCEEDED if level == 5 else 3)
            await client.expect_end()
        assert broker.engine.metrics()["flapping_refused"] == 1
        async with broker.client("calm", level=level):
            pass


def test_two_that_throw_each_other_out_are_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with paper_broker(BrokerOptions(max_connects_per_min_per_client=10)) as broker:
        let_in = 0
        with caplog.at_level(logging.WARNING, "broker.native.flapping"):
            for _ in range(6 * 60):
                client = broker.client(4, "twin")
                (answer,) = client.received()
                assert isinstance(answer, Connack)
                let_in += answer.reason == 0
                broker.now += 0.5
        assert let_in <= 10 + 30  # a burst, and ten in each of three minutes
        assert let_in >= 35
        assert [record.args[1] for record in caplog.records] == ["twin"] * 3
        assert "connects too often" in caplog.text


def test_who_is_told_of_is_bounded() -> None:
    flapping = Flapping(1)
    for number in range(5000):
        for _ in range(3):
            flapping.may_come(f"client {number}", "127.0.0.1", 100.0)
    assert len(flapping._refused) <= 1000


# --- gone without a word, while we do not read


@pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED: only Linux says whether a peer is gone")
@pytest.mark.parametrize("held_by", ["guard", "sink"])
@pytest.mark.parametrize("breaks", [True, False], ids=["reset", "closed"])
async def test_who_is_gone_while_a_hook_is_waited_for_is_noticed(held_by: str, breaks: bool) -> None:
    guard, sink = Gated(), RecordingSink(hold=True)
    async with native(guard=guard, sink=sink, max_undone=1) as broker:
        client, stays = await connected(broker.port, "goes"), await connected(broker.port, "stays")
        for each in (client, stays):
            if held_by == "guard":
                guard.subscribing.clear()
                each[1].write(wire.subscribe("a", level=4))
            else:
                each[1].write(wire.publish("a", qos=1, packet_id=1, level=4))
        await until(lambda: broker.engine.metrics()["held_back"] == 2 or guard.asked >= 4)
        if breaks:
            plug = client[1].get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client[1].transport.abort()
        await until(lambda: [each.client_id for each in broker.engine.sessions() if each.connected] == ["stays"])
        stays[1].transport.abort()


async def connected(port: int, client_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client with a keep-alive of a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire.connect(client_id, level=4, keepalive_s=1))
    assert await reader.readexactly(4) == b"\x20\x02\0\0"
    return reader, writer


# --- what waits for one that does not acknowledge


def test_subscribing_again_and_again_piles_nothing_up() -> None:
    with paper_broker(BrokerOptions(max_inflight=1)) as broker:
        publisher = broker.client(4, "p")
        for number in range(3):
            broker.send(publisher, Publish(topic=f"t/{number}", payload=b"x", qos=1, packet_id=1, retain=True))
        client = broker.client(4, "c")
        for number in range(200):
            asked = [Subscription(topic_filter=f"t/{number % 2}/#", qos=1)]
            packets = broker.send(client, Subscribe(packet_id=1, subscriptions=asked))
            assert any(isinstance(packet, Suback) for packet in packets)
        assert broker.hub.gauges()["feeds"] <= 2
        assert broker.hub.gauges()["inflight"] == 1

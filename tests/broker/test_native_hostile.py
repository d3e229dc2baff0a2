"""Peers that mean harm, or are many at once: how long they hold up the loop that all clients share."""

import asyncio
import contextlib
import logging
import random
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.native import native
from tests.broker.broker_child import BrokerChild, broker_child
from tests.broker.clients import HOST
from tests.broker.crowd import Crowd
from tests.broker.test_native_memory import client, flood

KEPT = {"clean": False, "session_expiry_interval": 60}
LAG_S = 0.25  # two busy cores; the faults found here held the loop up for seconds


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- one peer, and the loop that all share


@pytest.mark.parametrize(
    ("loop", "packets"),
    [
        ("asyncio", wire.publish("a", payload_format_indicator=0)),
        ("asyncio", wire.publish("a", b"", qos=2) + wire.pubrel(1)),
        ("uvloop", wire.publish("a", b"", retain=True)),
        ("uvloop", wire.publish("", b"", topic_alias=1)),
    ],
    ids=["properties", "qos 2", "retain", "alias"],
)
async def test_one_client_of_tiny_packets_does_not_hold_up_the_others(loop: str, packets: bytes) -> None:
    async with broker_child(loop=loop) as broker, client(broker, "reader") as reader:
        await broker.lag_s()
        reader.send(wire.publish("a", topic_alias=1), packets * (1_000_000 // len(packets)), wire.pingreq())
        async with asyncio.timeout(20):
            while wire.pingresp() not in await reader.reader.read(2**20):
                pass
        assert await broker.lag_s() < LAG_S


async def test_pings_and_acknowledgements_by_the_million_do_not_hold_up_the_others() -> None:
    async with broker_child() as broker, client(broker, "reader", level=4) as reader:
        await broker.lag_s()
        reader.send(wire.puback(7) * 250_000 + wire.publish("a", b"", level=4) * 150_000 + wire.pingreq() * 250_000)
        async with asyncio.timeout(20):
            await reader.reader.readexactly(2 * 250_000)
        assert await broker.lag_s() < LAG_S


async def test_wildcard_subscriptions_beside_many_topics_do_not_hold_up_the_others() -> None:
    async with broker_child() as broker, client(broker, "p", level=4) as publisher, client(broker, "s") as subscriber:
        for beginning in range(0, 40_000, 2000):
            publisher.send(*(wire.publish(f"t/{n}", level=4) for n in range(beginning, beginning + 2000)))
            await publisher.settled()
        await broker.lag_s()
        many = [f"$share/g{number}/#" for number in range(100)]
        await subscriber.subscribe(*many)
        await subscriber.unsubscribe(*many)
        assert await broker.lag_s() < LAG_S


@pytest.mark.parametrize("fields", [{}, {"payload_format_indicator": 1}], ids=["plain", "not plain"])
async def test_new_topics_below_many_deep_filters_do_not_hold_up_the_others(fields: dict[str, int]) -> None:
    """Each is looked up among all the ways in which the filters match it."""
    chance, levels = random.Random(1), 126
    async with broker_child() as broker, client(broker, "s") as deep:
        await deep.subscribe(*("/".join(chance.choices("+a", k=levels)) for _ in range(100)))
        await broker.lag_s()
        beginning = "/".join("a" * levels)
        deep.send(*(wire.publish(f"{beginning}/{number}", **fields) for number in range(400)), wire.pingreq())
        async with asyncio.timeout(60):
            while wire.pingresp() not in await deep.reader.read(2**20):
                pass
        assert await broker.lag_s() < 3 * LAG_S  # all of them in one turn: 2 s


async def test_10_000_user_properties_cost_next_to_nothing() -> None:
    many = wire.publish("a", user_property=[("", "")] * 10_000)
    connect = wire.connect("x", user_property=[("", "")] * 10_000)
    async with broker_child() as broker:
        await broker.lag_s()
        for _ in range(20):
            async with client(broker, "p") as publisher:
                publisher.send(many)
                assert (await publisher.next()).reason == 0x97
            await flood(broker.port, connect, seconds=0.01)
        assert await broker.lag_s() < 0.1


async def test_a_megabyte_of_filters_costs_next_to_nothing() -> None:
    async with broker_child() as broker:
        await broker.lag_s()
        for packet in (wire.subscribe(*["a"] * 200_000), wire.unsubscribe(*["a"] * 200_000)):
            async with client(broker, "s") as subscriber:
                subscriber.send(packet)
                await subscriber.closed(0x97)
        assert await broker.lag_s() < LAG_S


async def test_a_large_session_makes_qos_2_no_dearer(tmp_path: Path) -> None:
    async def seconds(name: str, filters: int, will: bytes) -> float:
        async with client(broker, name, will=wire.Will("w", will), **KEPT) as publisher:
            await publisher.subscribe(*(f"{number}/" + "x" * 4000 for number in range(filters)))
            began = time.monotonic()
            publisher.send((wire.publish("a", qos=2) + wire.pubrel(1)) * 4000, wire.pingreq())
            async with asyncio.timeout(20):
                while wire.pingresp() not in await publisher.reader.read(2**20):
                    pass
            return time.monotonic() - began

    async with broker_child(persistence=str(tmp_path)) as broker:
        small = await seconds("small", 1, b"")
        assert await seconds("large", 100, b"x" * 60_000) < 2.5 * small


async def test_stopping_a_large_shared_group_is_quick() -> None:
    async with native() as broker, contextlib.AsyncExitStack() as stack:
        for number in range(150):
            member = await stack.enter_async_context(broker.client(f"m{number}", level=4))
            await member.subscribe("$share/g/q", qos=1)
        async with broker.client("p", level=4) as publisher:
            for beginning in range(0, 60_000, 1000):
                numbers = range(beginning, beginning + 1000)
                publisher.send(*(wire.publish("q", qos=1, packet_id=1 + n, level=4) for n in numbers))
                await publisher.reader.readexactly(4 * 1000)
        assert sum(each.inflight for each in broker.engine.sessions()) == 60_000
        began = time.monotonic()
        await broker.engine.stop()
        assert time.monotonic() - began < 1.0


# --- many at once


async def test_without_a_file_descriptor_left_who_is_in_is_served_on() -> None:
    broker = BrokerChild(open_files=64)
    await broker.start()
    async with client(broker, "in") as inside:
        with contextlib.ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(socket.create_connection((HOST, broker.port)))
            await asyncio.sleep(1.5)
            await inside.publish("a", qos=1)
        await asyncio.sleep(1.5)
        async with client(broker, "later"):
            pass
    await broker.stop()
    assert broker.log.count("out of system resource") < 100


async def test_five_thousand_devices_are_back_within_a_minute_of_a_crash(tmp_path: Path) -> None:
    """With the broker's own bounds on how many may come at once, and messages that were under way when it died."""
    size, under_way = 5000, {b"1", b"2", b"3"}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < size + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (size + 200, max(hard, size + 200)))
    async with broker_child(persistence=str(tmp_path)) as broker, Crowd(broker.port, size, topic="all") as crowd:
        await asyncio.wait_for(crowd.all_in(), 60)
        crowd.acknowledging = False
        for payload in under_way:
            assert await broker.ask("publish", "all", payload.decode(), 1, False) == size
        await asyncio.wait_for(crowd.all_have(under_way), 30)
        await broker.until(lambda metrics: not metrics["persistence_pending_bytes"])
        await broker.kill()
        crowd.forget()
        crowd.acknowledging = True
        crowd.tries = 0
        await broker.start()
        before = await broker.mark()
        async with asyncio.timeout(60):
            await crowd.all_in()
            await crowd.all_have(under_way)
        assert crowd.tries < 10 * size
        assert await broker.peak() - before < 200_000_000
        assert await broker.lag_s() < 2.0
        async with client(broker, "neighbour") as neighbour:
            await neighbour.subscribe("own", qos=1)
            await neighbour.publish("elsewhere", qos=1)
            await broker.ask("publish", "own", "still served", 1, False)
            await neighbour.gets("own", b"still served", qos=1)
        assert (await broker.metrics())["connections_now"] >= size
        assert {device.visits for device in crowd.devices} == {2}  # nobody was let in, and lost again

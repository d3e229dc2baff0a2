"""Peers that mean harm, or are many at once: how long they hold the native broker's loop up, and what they break."""

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker import Broker, BrokerOptions
from tests.broker.blackbox import wire
from tests.broker.blackbox.native import Remembered, native
from tests.broker.broker_child import BrokerChild, broker_child
from tests.broker.certificates import Authority
from tests.broker.clients import HOST, until
from tests.broker.test_native_bounds import open_fault, wire_handshake
from tests.broker.test_native_memory import client, flood

KEPT = {"clean": False, "session_expiry_interval": 60}
LAG_S = 0.25  # two busy cores; the faults found here held the loop up for seconds


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- one peer, and the loop that all share


@open_fault("a read is worked off in one go, and uvloop reads on while there is something to read")
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


@open_fault("each wildcard filter that comes or goes marks every topic it matches, one by one")
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


@open_fault("the whole session is written down for each message of QoS 2 and each PUBREL")
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


@open_fault("each member's messages go to the next one, which is told to leave a moment later")
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


# --- WebSocket


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """As a client sends it, masked with zeros."""
    head, count = bytes([(0x80 if fin else 0) | opcode]), len(data)
    if count < 126:
        head += bytes([0x80 | count])
    elif count < 0x1_0000:
        head += bytes([0x80 | 126]) + count.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + count.to_bytes(8, "big")
    return head + b"\0\0\0\0" + data


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BINARY, CLOSE, PING = 2, 8, 9
GOODBYE = frame(CLOSE, b"\x03\xe8")


@contextlib.asynccontextmanager
async def websocket(
    port: int | None, *packets: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(wire_handshake())
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        if packets:
            writer.write(frame(BINARY, b"".join(packets)))
            await reader.readexactly(2)
    yield reader, writer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    "last",
    [
        b"",
        GOODBYE,
        frame(BINARY, wire.disconnect()) + GOODBYE,
        frame(BINARY, wire.publish("a") + wire.disconnect()) + GOODBYE,
        frame(BINARY, b"\xff\xff") + GOODBYE,
        frame(BINARY, b"\xe0", fin=False) + GOODBYE,
        frame(BINARY, wire.pingreq()) + frame(1, b"text") + frame(BINARY, wire.publish("a")),
        frame(BINARY, wire.publish("a")) + b"\xff\xff\xff\xff",
        frame(PING, b"x" * 126) + frame(BINARY, wire.publish("a")),
    ],
)
async def test_a_websocket_may_be_left_in_any_way(last: bytes) -> None:
    async with native(ws_port=0) as broker:
        hello = wire.connect("x", will=wire.Will("w")) + wire.subscribe("a")
        async with websocket(broker.engine.ws_port, hello) as (reader, writer):
            await until(lambda: broker.engine.metrics()["subscriptions"])
            writer.write(last)
            if last:
                async with asyncio.timeout(5):
                    while await reader.read(1000):
                        pass
        await until(lambda: not broker.engine.metrics()["connections_now"])
        assert broker.engine.sessions() == []


async def test_a_websocket_closed_while_it_is_written_to_starves_nobody() -> None:
    async with native(ws_port=0) as broker, broker.client("victim") as victim:
        await victim.subscribe("v")
        hello = wire.connect("x") + wire.subscribe("a")
        async with websocket(broker.engine.ws_port, hello) as (_, writer):
            await until(lambda: broker.engine.metrics()["subscriptions"] == 2)
            writer.write(frame(BINARY, wire.publish("a", b"x" * 100_000) + wire.publish("v", b"y")) + GOODBYE)
            await victim.gets("v", b"y")
            await victim.settled()


async def test_a_huge_websocket_handshake_is_cut_off() -> None:
    async with native(ws_port=0) as broker:
        reader, writer = await asyncio.open_connection(HOST, broker.engine.ws_port)
        writer.write(b"GET / HTTP/1.1\r\n" + (b"X-Y: " + b"z" * 8000 + b"\r\n") * 100)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await reader.read(1) == b""
        writer.close()
        await until(lambda: not broker.engine.metrics()["connections_now"])


# --- TLS


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    pair = Authority(tmp_path / "ca").sign("localhost", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


async def ends(peer: socket.socket, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return not await asyncio.get_running_loop().sock_recv(peer, 100)
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("port", ["tls_port", "wss_port"])
async def test_a_tls_handshake_that_is_never_finished_is_closed(tls: ssl.SSLContext, port: str) -> None:
    async with native(**{port: 0, "tls": tls, "connect_timeout_s": 0.5}) as broker:
        with socket.create_connection((HOST, getattr(broker.engine, port))) as peer:
            peer.setblocking(False)
            peer.send(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
            assert await ends(peer, 3)


@open_fault("what has not finished its TLS handshake is no connection yet, and stays when the broker stops")
async def test_stopping_closes_what_is_in_its_tls_handshake(tls: ssl.SSLContext) -> None:
    broker = Broker(BrokerOptions(port=0, tls_port=0, tls=tls, connect_timeout_s=2.0), guard=Remembered())
    await broker.start()
    with socket.create_connection((HOST, broker.tls_port)) as peer:
        peer.setblocking(False)
        await asyncio.sleep(0.1)
        await broker.stop()
        closed = await ends(peer, 0.5)
        await ends(peer, 4)
        assert closed


# --- many at once


@open_fault("asyncio tries 1,024 times, and logs each, when there are no more descriptors")
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
    assert broker.log.count("\n") < 100


async def test_two_thousand_clients_come_back_at_once_after_a_crash(tmp_path: Path) -> None:
    """Each with a session of its own, and ten messages waiting in it."""
    clients = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < clients + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (clients + 200, max(hard, clients + 200)))
    async with broker_child(persistence=str(tmp_path), max_connecting=clients) as broker:
        await storm(broker, clients, messages=0)
        for _ in range(10):
            await broker.ask("publish", "all", "x", 1, False)
        await broker.until(lambda metrics: not metrics["persistence_pending_bytes"])
        await broker.kill()
        await broker.start()
        before = await broker.mark()
        began = time.monotonic()
        await storm(broker, clients, messages=10)
        assert time.monotonic() - began < 30
        assert await broker.peak() - before < 100_000_000
        assert await broker.lag_s() < 2.0
        await broker.until(lambda metrics: metrics["sessions_away"] == clients)
        broker.log = ""


async def storm(broker: BrokerChild, clients: int, *, messages: int) -> None:
    """Connect all at once, with a subscription the first time, and take what waits."""

    async def one(number: int) -> None:
        async with client(broker, f"c{number}", level=4, clean=False, present=messages > 0) as inside:
            if not messages:
                await inside.subscribe("all", qos=1)
            for _ in range(messages):
                packet = await inside.next()
                assert packet.rest == b"x"
                await inside.acknowledge(packet.packet_id, qos=1)
            await inside.settled()
            inside.send(wire.disconnect())

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(clients)))

"""How much memory a peer of the native broker can make it take: the broker is a process of its own, and measured."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, Subject
from tests.broker.broker_child import BrokerChild, broker_child
from tests.broker.clients import HOST
from tests.broker.test_native_bounds import wire_handshake

MB = 1_000_000
loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
KEPT = {"clean": False, "session_expiry_interval": 60}


@contextlib.asynccontextmanager
async def client(broker: BrokerChild, name: str, *, level: int = 5, **fields: object) -> AsyncIterator[Client]:
    async with Subject("native", broker.port, "").client(name, level=level, **fields) as inside:
        yield inside


async def flood(port: int, *pieces: bytes, times: int = 1, seconds: float = 1.0) -> int:
    """Send, and read nothing, until all is sent or the peer takes no more. How much of the last piece went."""
    loop = asyncio.get_running_loop()
    sent = 0
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little hides in the network
        peer.setblocking(False)
        await loop.sock_connect(peer, (HOST, port))
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                for piece in pieces[:-1]:
                    await loop.sock_sendall(peer, piece)
                    await asyncio.sleep(0.05)  # in a read of its own
                for _ in range(times):
                    await loop.sock_sendall(peer, pieces[-1])
                    sent += len(pieces[-1])
                await asyncio.sleep(seconds)
    return sent


def publishes(topic: str, size: int, *, qos: int = 0, count: int = 1, first: int = 1, level: int = 4) -> bytes:
    payload = b"x" * size
    return b"".join(
        wire.publish(topic, payload, qos=qos, packet_id=number, level=level) for number in range(first, first + count)
    )


# --- before anybody has said who he is


@loops
async def test_64_mb_before_a_connect_cost_nothing(loop: str) -> None:
    """None of it gets far: closed at its first byte or header, or left in the network while the Guard thinks."""
    beginnings = [
        b"\x10\xff\xff\xff\x7f\x00\x04MQTT",  # declares 256 MB
        b"\x10\xe0\xd4\x03\x00\x04MQTT\x04\xff",  # declares 60,000 bytes
        wire.publish("a", b"x" * 60_000),
        b"\xff" * 100,
        wire.connect("slow"),  # for which the Guard has no answer
    ]
    async with broker_child(loop=loop, ws_port=0) as broker:
        await flood(broker.port, wire.connect("warm"), b"\x30\x03\x00\x01a" * 10_000, seconds=0.2)
        for beginning in beginnings:
            before = await broker.mark()
            await flood(broker.port, beginning, b"\0" * MB, times=64, seconds=0.5)
            assert await broker.peak() - before < MB, beginning[:20]
        for beginning in (b"", b"GET / HTTP/1.1\r\n" + b"X-Y: " + b"z" * 8000 + b"\r\n", wire_handshake()):
            before = await broker.mark()
            await flood(broker.ports["ws_port"], beginning, b"X-Z: " + b"z" * 8000 + b"\r\n", times=8000, seconds=0.5)
            assert await broker.peak() - before < MB, beginning[:20]


async def test_websocket_pings_before_a_connect_cost_nothing() -> None:
    pings = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 7000
    async with broker_child(ws_port=0, connect_timeout_s=1.0) as broker:
        before = await broker.mark()
        peers = [flood(broker.ports["ws_port"], wire_handshake(), pings, times=64, seconds=3.0) for _ in range(4)]
        waiting = asyncio.gather(*peers)
        await asyncio.sleep(2.2)
        assert (await broker.metrics())["connecting"] == 0
        await waiting
        assert await broker.peak() - before < 3 * MB


async def test_tls_handshakes_under_way_are_counted_and_bounded(certificates: str) -> None:
    async with broker_child(tls_port=0, tls=certificates, max_connecting=10, connect_timeout_s=5.0) as broker:
        before = await broker.mark()
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection((HOST, broker.ports["tls_port"])))
            await broker.until(lambda metrics: metrics["refused_connections"] == 90, seconds=2)
            assert await broker.peak() - before < 5 * MB


@pytest.fixture
def certificates(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with server.pem and server.key."""
    from tests.broker.certificates import Authority

    directory = tmp_path_factory.mktemp("tls")
    pair = Authority(directory / "ca").sign("localhost", server=True)
    (directory / "server.pem").write_bytes(pair.cert.read_bytes())
    (directory / "server.key").write_bytes(pair.key.read_bytes())
    return str(directory)


# --- clients that take less than they are given


@loops
@pytest.mark.parametrize("transport", ["port", "ws_port"])
@pytest.mark.parametrize(
    "qos",
    [0, 1],
)
async def test_a_subscriber_that_never_reads_costs_its_queue_and_no_more(loop: str, transport: str, qos: int) -> None:
    async with (
        broker_child(loop=loop, ws_port=0, write_timeout_s=60.0) as broker,
        client(broker, "watcher", level=4) as watcher,
    ):
        await watcher.subscribe("q")
        hello = wire.connect("stuck", level=4) + wire.subscribe("q", qos=qos, level=4)
        before = await broker.mark()
        if transport == "ws_port":
            hello = wire_handshake() + b"\x82" + bytes([0x80 | len(hello)]) + b"\0\0\0\0" + hello
        stuck = asyncio.create_task(flood(broker.ports[transport], hello, seconds=6.0))
        await broker.until(lambda metrics: metrics["subscriptions"] == 2)
        got = 0
        async with client(broker, "publisher", level=4) as publisher:
            for beginning in range(0, 1000, 10):  # 64 MB
                publisher.send(publishes("q", 64_000, qos=qos, count=10, first=beginning + 1))
                for _ in range(10):
                    got += len((await watcher.next()).rest)
                if qos:
                    await publisher.reader.readexactly(40)
        assert got == 64 * MB
        metrics = await broker.metrics()
        assert metrics["dropped_queue" if qos else "dropped_slow"] > 500
        assert metrics["queued_bytes"] <= 4 * 2**20
        assert await broker.peak() - before < 16 * MB
        stuck.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stuck


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_publisher_faster_than_the_sink_is_left_in_the_network(qos: int) -> None:
    async with broker_child(sink="never") as broker:
        before = await broker.mark()
        work = publishes("q", 16_000, qos=qos, count=60)
        await flood(broker.port, wire.connect("p", level=4), work, times=66, seconds=1.0)
        assert await broker.peak() - before < 16 * MB
        async with client(broker, "other") as other:
            await other.settled()


async def test_what_is_not_acknowledged_costs_no_more_than_itself() -> None:
    """Each time a thousand messages come, all but one are acknowledged."""
    async with broker_child() as broker, client(broker, "s", level=4) as subscriber, client(broker, "p", level=4) as p:
        await subscriber.subscribe("q", qos=1)
        before = await broker.mark()
        size = len(wire.publish("q", b"x" * 240, qos=1, level=4))
        for _ in range(300):
            p.send(publishes("q", 240, qos=1, count=600))
            await p.reader.readexactly(4 * 600)
            raw = await subscriber.reader.readexactly(size * 600)
            ids = [raw[at + 6 : at + 8] for at in range(0, len(raw), size)]
            subscriber.send(b"".join(b"\x40\x02" + wire_id for wire_id in ids[1:]))
        await subscriber.settled()
        assert (await broker.sessions())[0]["inflight"] == 300
        assert await broker.peak() - before < 16 * MB


# --- little that makes much


async def test_topic_aliases_do_not_multiply_what_waits() -> None:
    work = wire.publish("a/" + "x" * 4000, b"", topic_alias=1) + wire.publish("", b"", topic_alias=1) * 28_000
    async with broker_child() as broker:
        listeners = [
            asyncio.create_task(flood(broker.port, wire.connect(f"s{n}") + wire.subscribe("a/#"), seconds=4.0))
            for n in range(3)
        ]
        await broker.until(lambda metrics: metrics["subscriptions"] == 3)
        before = await broker.mark()
        await flood(broker.port, wire.connect("p") + work, seconds=2.0)
        await asyncio.gather(*listeners)
        assert await broker.peak() - before < 32 * MB


def filters(levels: int) -> Iterable[str]:
    """That all match r/x/x/… of so many levels."""
    for number in range(2 ** (levels - 1)):
        yield "/".join(["r", *("+" if number >> level & 1 else "x" for level in range(levels - 1))])


async def test_retained_messages_come_at_the_pace_of_their_subscriber() -> None:
    async with broker_child(max_retained_per_username=100) as broker:
        async with client(broker, "p") as publisher:
            for number in range(16):
                topic = f"r/x/x/x/x/{number}"
                await publisher.publish(topic, b"x" * MB, qos=1, retain=True)
        before = await broker.mark()
        asked = wire.connect("s", level=4) + wire.subscribe(*(f"{one}/+" for one in filters(5)), level=4)
        await flood(broker.port, asked, seconds=2.0)
        assert await broker.peak() - before < 32 * MB


@loops
async def test_random_topics_cost_their_bound(loop: str) -> None:
    async with broker_child(loop=loop, max_routes_bytes=8 * 2**20) as broker, client(broker, "p", level=4) as publisher:
        before = await broker.mark()
        for beginning in range(0, 100_000, 10_000):
            publisher.send(*(wire.publish(f"r/{n}", level=4) for n in range(beginning, beginning + 10_000)))
            await publisher.settled()
        for beginning in range(0, 1000, 100):
            deep = ("/".join(f"{n:x}{at:x}" for at in range(127)) for n in range(beginning, beginning + 100))
            publisher.send(*(wire.publish(topic, level=4) for topic in deep))
            await publisher.settled()
        assert (await broker.metrics())["routes_forgotten"] > 2
        assert await broker.peak() - before < 20 * MB


async def test_topics_of_connections_that_have_gone_quiet_are_forgotten_too() -> None:
    async with broker_child(max_routes_bytes=8 * 2**20) as broker, contextlib.AsyncExitStack() as stack:
        before = await broker.mark()
        for number in range(30):
            quiet = await stack.enter_async_context(client(broker, f"p{number}", level=4))
            quiet.send(*(wire.publish(f"{number}/{n}/" + "x" * 4000, level=4) for n in range(250)))
            await quiet.settled()
        assert await broker.peak() - before < 24 * MB


async def test_subscriptions_of_one_session_cost_little() -> None:
    deep = ["/".join([str(number), *["a"] * 126]) for number in range(100)]
    async with broker_child() as broker, client(broker, "s", level=4) as subscriber:
        before = await broker.mark()
        await subscriber.subscribe(*deep)
        assert await broker.peak() - before < 6 * MB

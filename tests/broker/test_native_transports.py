"""WebSocket and TLS connections of the native broker that are left, broken or begun in every way."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker import Broker, BrokerOptions
from tests.broker.blackbox import wire
from tests.broker.blackbox.native import Remembered, native
from tests.broker.certificates import Authority
from tests.broker.clients import HOST, until
from tests.broker.test_native_bounds import wire_handshake


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


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


async def test_reading_now_and_then_does_not_put_off_the_connect() -> None:
    pings, at = memoryview(frame(PING, b"p" * 125) * 5000), 0
    async with native(ws_port=0, connect_timeout_s=0.5) as broker:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect((HOST, broker.engine.ws_port))
            peer.setblocking(False)
            peer.send(wire_handshake())
            await asyncio.sleep(0.1)
            began = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while (passed := time.monotonic() - began) < 3:
                    with contextlib.suppress(BlockingIOError):
                        if passed % 0.4 < 0.2:  # so long only writing, so long only reading
                            at = (at + peer.send(pings[at:])) % len(pings)
                        elif not peer.recv(2**16):
                            break
                    await asyncio.sleep(0)
            assert passed < 2


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

"""A small `make fuzz`: thousands of damaged packets, and the broker is as before and has served others meanwhile."""

import asyncio
import base64
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import Broker, BrokerOptions, ReasonCode
from broker.native.session import Session
from broker.packets import Connect, Subscribe, Subscription, encode
from tests.broker.clients import (
    CONNACK_OK,
    HOST,
    OwnTopics,
    RawClient,
    connect,
    packet,
    publish,
    raw,
    subscribe,
    text,
    until,
)  # fmt: skip
from tests.broker.paper_network import paper_broker
from tests.fuzz import attack, codec

PACKETS = 20_000


@pytest.mark.parametrize("target", [("--loop=asyncio",), ("--loop=uvloop", "--persistence")], ids=" ".join)
async def test_damaged_packets_leave_no_trace_and_a_canary_misses_nothing(target: tuple[str, ...]) -> None:
    if "--loop=uvloop" in target:
        pytest.importorskip("uvloop")
    # So few packets do not fill the caches: 5 % is what `make fuzz` holds memory to.
    report = await attack.run(packets=PACKETS, seeds=[1, 2], more_than=1.1, target=target)
    assert report.faults == []
    assert report.packets >= PACKETS
    assert report.after["metrics"]["protocol_errors"] > report.sessions / 20
    assert report.canary["sent"] > 20


def test_damaged_packets_raise_nothing_but_malformed_packet() -> None:
    assert codec.run(examples=20_000, seed=1) == []


# --- what it found, in the fewest bytes


class Rules(OwnTopics):
    """OwnTopics whose answers to `publish` may be remembered."""

    rules_version = 0

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.SUCCESS if not self.rules_version else ReasonCode.NOT_AUTHORIZED


@contextlib.asynccontextmanager
async def native(guard: OwnTopics, **options: Any) -> AsyncIterator[Broker]:
    broker = Broker(BrokerOptions(port=0, ws_port=0, sys_interval_s=0, **options), guard=guard)
    await broker.start()
    yield broker
    await broker.stop()


def connect_5(client_id: str) -> bytes:
    properties: Any = {"session_expiry_interval": 60}
    fields: Any = {"client_id": client_id, "username": client_id, "password": b"right", "properties": properties}
    return encode(Connect(protocol=5, clean_start=False, **fields), 5)


def connack_5(data: bytes) -> int:
    """Its length."""
    assert data[0] == 0x20
    return 2 + data[1]


async def test_bytes_that_begin_no_packet_are_not_taken_for_the_last_one() -> None:
    """The last topic is remembered; two bytes of 0xFF stood for "nothing is", and a client could send them."""
    guard = Rules()
    async with native(guard) as broker, raw(broker) as device:
        await device.ask(connect("device"), CONNACK_OK)
        await device.ask(publish("devices/device/a", b"ab", qos=1), b"\x40\x02\x00\x01")
        heard: list[bytes] = []
        handle = broker.subscribe("#", lambda message: heard.append(message.payload))
        guard.rules_version = 1  # from now on it may not publish
        device.send(b"\xff\xff\0\1" + bytes(len(publish("devices/device/a", b"ab", qos=1)) - 4))
        await device.expect_end()
        handle.close()
        assert heard == []


async def test_bytes_of_0xff_as_the_first_packet_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with native(OwnTopics()) as broker, raw(broker) as device:
        await device.ask(connect("device"), CONNACK_OK)
        device.send(b"\xff" * 10)
        await device.expect_end()
        assert no_trouble(caplog)


async def test_second_connect_of_another_level_is_a_protocol_error(caplog: pytest.LogCaptureFixture) -> None:
    async with native(OwnTopics()) as broker, raw(broker) as device:
        device.send(connect_5("device"))
        head = await device.reader.readexactly(2)
        await device.reader.readexactly(connack_5(head) - 2)
        device.send(b"\x10\x0d\0\4MQTT\x09\2\0\0\0\0\0")
        assert (await device.reader.readexactly(3))[::2] == b"\xe0\x82"
        await until(lambda: not broker.metrics()["connections_now"])
        assert no_trouble(caplog)


async def test_client_that_takes_over_gets_no_answer_meant_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with native(OwnTopics(), persistence=tmp_path) as broker, raw(broker) as before, raw(broker) as after:
        before.send(connect_5("device"))
        head = await before.reader.readexactly(2)
        await before.reader.readexactly(connack_5(head) - 2)
        await before.ask(packet(0x82, b"\0\1\0" + text("devices/device/#") + b"\1"), b"\x90\x04\0\1\0\1")
        before.send(packet(0xA2, b"\0\2\0" + text("devices/device/#")))
        after.send(connect("device", clean=False))
        await after.expect(b"\x20\x02\x01\x00")
        await asyncio.sleep(0.05)  # the disk has had its time
        await after.settled()
        assert no_trouble(caplog)


async def test_nothing_is_left_of_a_session_that_is_over() -> None:
    """The subscribers of a topic are remembered, also after the last of them has gone."""
    async with native(OwnTopics()) as broker:
        async with raw(broker) as device:
            await device.ask(connect("device"), CONNACK_OK)
            await device.ask(subscribe("devices/device/#"), b"\x90\x03\0\1\0")
            await device.ask(publish("devices/device/a"), publish("devices/device/a"))
        await until(lambda: not broker.sessions())
        await until(lambda: not living(Session))


def living(cls: type) -> list[Any]:
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is cls]


# --- WebSocket


def frame(first: int, data: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    assert len(data) < 126
    return bytes((first, 0x80 | len(data))) + b"\0\0\0\0" + data


def upgrade() -> bytes:
    lines = (
        "GET /mqtt HTTP/1.1", f"Host: {HOST}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}", "Sec-WebSocket-Protocol: mqtt",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


CONNECT = connect("device")
CLOSE = frame(0x88, b"\x03\xe8")


@pytest.mark.parametrize(
    "sent",
    {
        "a close within a message": [upgrade(), frame(0x02, CONNECT[:5]) + CLOSE],
        "a close beside a message that is refused": [upgrade(), frame(0x82, b"\0\0") + CLOSE],
        "a close within a message that is refused": [upgrade(), frame(0x02, CONNECT + b"\0") + CLOSE],
        "a text among the rest": [upgrade(), frame(0x82, CONNECT) + frame(0x81, b"x") + frame(0x82, b"\xc0\0")],
        "a close at once": [upgrade() + CLOSE],
        "a message and a close at once": [upgrade() + frame(0x82, CONNECT) + CLOSE],
        "a refused message and a close at once": [upgrade() + frame(0x82, b"\0\0") + CLOSE],
        "a bad frame at once": [upgrade() + b"\xff\xff\xff"],
        "no frame but TLS at once": [upgrade() + b"\x16\x03\x01\x02"],
        "a refused handshake and a bad frame": [upgrade().replace(b"13", b"12") + b"\xff\xff\xff"],
        "half a handshake": [upgrade()[:40]],
        "a message at the end of which nobody is": [upgrade() + frame(0x82, CONNECT)],
    }.items(),
    ids=lambda item: item[0],
)
async def test_websocket_ends_without_a_trace(sent: tuple[str, list[bytes]], caplog: pytest.LogCaptureFixture) -> None:
    async with native(OwnTopics()) as broker:
        reader, writer = await asyncio.open_connection(HOST, broker.ws_port)
        client = RawClient(reader, writer)
        for chunk in sent[1]:
            client.send(chunk)
            await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await until(lambda: not broker.metrics()["connections_now"])
        assert no_trouble(caplog)


def no_trouble(caplog: pytest.LogCaptureFixture) -> bool:
    """Nothing escaped, as far as the log knows."""
    return not [each for each in caplog.records if each.exc_info or each.levelno >= logging.ERROR]


@pytest.mark.parametrize("level", [4, 5])
def test_what_ends_before_it_has_begun_is_no_warning(level: int, recwarn: pytest.WarningsRecorder) -> None:
    """A SUBSCRIBE, and in the same turn of the loop the connection is lost."""
    with paper_broker() as broker:
        client = broker.client(level, "c")

        def subscribe_and_go() -> None:
            client.send(Subscribe(packet_id=1, subscriptions=[Subscription(topic_filter="a", qos=1)]))
            client.connection.connection_lost(None)

        broker.do(subscribe_and_go)
        gc.collect()
    assert [str(each.message) for each in recwarn] == []

"""16: MQTT over WebSocket (MQTT 5, section 6; 3.1.1 the same)."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.broker.blackbox import wire
from tests.broker.blackbox.native import native
from tests.broker.clients import HOST

MQTT = Subprotocol("mqtt")


@contextlib.asynccontextmanager
async def socket(*offered: str) -> AsyncIterator[ClientConnection]:
    async with native(ws_port=0) as broker:
        url = f"ws://{HOST}:{broker.engine.ws_port}/mqtt"
        async with websockets.connect(url, subprotocols=[Subprotocol(name) for name in offered] or None) as open_socket:
            yield open_socket


async def heard(open_socket: ClientConnection, size: int) -> bytes:
    """That many bytes, in binary messages of any size."""
    got = b""
    while len(got) < size:
        message = await open_socket.recv()
        assert isinstance(message, bytes)
        got += message
    return got


async def test_the_server_chooses_mqtt() -> None:
    """[MQTT-6.0.0-4]; 3.1.1: [MQTT-6.0.0-4]"""
    async with socket("other", "mqtt") as client:
        assert client.subprotocol == "mqtt"


@pytest.mark.parametrize("offered", [(), ("other",)])
async def test_a_client_that_does_not_offer_mqtt_is_refused(offered: tuple[str, ...]) -> None:
    """[MQTT-6.0.0-3]; 3.1.1: [MQTT-6.0.0-3]"""
    with pytest.raises(websockets.InvalidStatus):
        async with socket(*offered):
            pass


@pytest.mark.parametrize("connected", [False, True])
async def test_a_text_frame_ends_the_connection(connected: bool) -> None:
    """[MQTT-6.0.0-1]; 3.1.1: [MQTT-6.0.0-1]"""
    async with socket("mqtt") as client:
        if connected:
            await client.send(wire.connect("c", level=4))
            assert await heard(client, 4) == wire.connack(level=4)
        await client.send("text")
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        assert client.close_code == 1003


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_packets_and_frames_need_not_begin_and_end_together(size: int) -> None:
    """[MQTT-6.0.0-2] [MQTT-6.0.0-1]; 3.1.1: [MQTT-6.0.0-2] [MQTT-6.0.0-1]"""
    packets = wire.connect("c", level=4) + b"".join(wire.publish("a", qos=1, packet_id=n, level=4) for n in (7, 8, 9))
    answers = wire.connack(level=4) + b"".join(wire.puback(n) for n in (7, 8, 9))
    async with socket("mqtt") as client:
        for start in range(0, len(packets), size):
            await client.send(packets[start : start + size])
        assert await heard(client, len(answers)) == answers


async def test_a_message_may_be_in_fragments() -> None:
    """[MQTT-6.0.0-2]; 3.1.1: [MQTT-6.0.0-2]"""
    connect = wire.connect("c", level=4)
    async with socket("mqtt") as client:
        await client.send([connect[:5], connect[5:9], connect[9:] + wire.pingreq()])
        assert await heard(client, 6) == wire.connack(level=4) + wire.pingresp()


async def test_an_unfinished_text_message_ends_the_connection() -> None:
    """[MQTT-6.0.0-1]; 3.1.1: [MQTT-6.0.0-1]"""
    connect = wire.connect("c", level=4)
    async with socket("mqtt") as client:
        await client.send([connect.decode("latin-1")[:1], connect.decode("latin-1")[1:]])
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()

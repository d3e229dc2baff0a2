"""What every engine does: mQTT over WebSocket, and what reaches the log."""

import asyncio

import aiomqtt
import pytest
import websockets
from websockets.typing import Subprotocol

from broker.engine import Engine, Publish
from tests.broker.clients import (
    CONNACK_OK,
    HOST,
    RecordingSink,
    answer,
    connect,
    device,
    mqtt,
    next_message,
    publish,
)
from tests.broker.conftest import StartEngine


async def test_a_client_over_websocket_does_the_same(start_engine: StartEngine, sink: RecordingSink) -> None:
    engine = await start_engine(ws_port=0)
    assert engine.ws_port
    async with mqtt(engine, "pump-7", port=engine.ws_port, transport="websockets") as client:
        await client.subscribe("devices/pump-7/commands/+", qos=1)
        await client.publish("devices/pump-7/telemetry", b"x" * 100_000, qos=1)
        await engine.publish(Publish(topic="devices/pump-7/commands/1", payload=b"go" * 50_000, qos=1))
        assert (await next_message(client)).payload == b"go" * 50_000
        assert len(sink.messages[0].payload) == 100_000
        assert engine.sessions()[0].address == HOST


async def test_a_wrong_password_over_websocket_is_told(start_engine: StartEngine) -> None:
    engine = await start_engine(ws_port=0)
    with pytest.raises(aiomqtt.MqttError):
        async with mqtt(engine, "pump-7", password="wrong", port=engine.ws_port, transport="websockets"):
            pass


async def test_a_kick_reaches_a_websocket(start_engine: StartEngine) -> None:
    engine = await start_engine(ws_port=0)
    with pytest.raises(aiomqtt.MqttError):
        async with mqtt(engine, "pump-7", port=engine.ws_port, transport="websockets") as client:
            assert await engine.kick("pump-7") == 1
            await next_message(client)


async def test_garbage_on_the_websocket_port_harms_nobody(
    start_engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await start_engine(ws_port=0)
    for garbage in (b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", connect("pump-7")):
        reader, writer = await asyncio.open_connection(HOST, engine.ws_port)
        writer.write(garbage)
        writer.write_eof()
        await reader.read()
        writer.close()
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR", "CRITICAL")] == []


async def test_nothing_is_logged_per_message(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with device(engine, "pump-7") as client:
        for i in range(1, 11):
            await client.ask(publish("devices/pump-7/x", qos=1, packet_id=i), answer(0x40, i))
        client.send(b"\xf0\x00")
        await client.expect_end()
    assert len([record for record in caplog.records if record.name.startswith(("amqtt", "broker"))]) <= 1


async def test_before_the_password_a_websocket_takes_no_large_message(start_engine: StartEngine) -> None:
    engine = await start_engine(ws_port=0)
    async with websockets.connect(f"ws://{HOST}:{engine.ws_port}/mqtt", subprotocols=[Subprotocol("mqtt")]) as socket:
        await socket.send(b"\x10" + b"x" * 70_000)
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
    assert socket.close_code == 1009


async def test_packets_may_be_cut_anywhere_into_websocket_messages(start_engine: StartEngine) -> None:
    engine = await start_engine(ws_port=0)
    async with websockets.connect(f"ws://{HOST}:{engine.ws_port}/mqtt", subprotocols=[Subprotocol("mqtt")]) as socket:
        data = connect("pump-7") + publish("devices/pump-7/x", qos=1, packet_id=5)
        for start in range(0, len(data), 7):
            await socket.send(data[start : start + 7])
        got = b""
        while len(got) < len(CONNACK_OK) + 4:
            got += await socket.recv()
        assert got == CONNACK_OK + answer(0x40, 5)

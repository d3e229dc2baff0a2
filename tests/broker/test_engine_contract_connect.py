"""What every engine does: who comes in, who does not, and who is shown out again."""

import asyncio

import aiomqtt
import pytest

from broker.engine import Engine
from broker.reason import ReasonCode
from tests.broker.clients import (
    CONNACK_OK,
    DISCONNECT,
    HOST,
    OwnTopics,
    RawClient,
    RecordingSink,
    RecordingTap,
    answer,
    connect,
    device,
    mqtt,
    publish,
    raw,
    until,
)
from tests.broker.conftest import StartEngine


async def drip(client: RawClient, data: bytes) -> None:
    """Send a byte now and then."""
    for byte in data:
        client.send(bytes([byte]))
        await asyncio.sleep(0.02)


async def test_without_a_guard_nobody_comes_in(start_engine: StartEngine, tap: RecordingTap) -> None:
    engine = await start_engine(guard=None)
    async with raw(engine) as client:
        await client.ask(connect("pump-7"), b"\x20\x02\x00\x05")
        await client.expect_end()
    assert tap.of("connected") == []
    assert tap.of("refused") == [("pump-7", "connect", HOST, ReasonCode.NOT_AUTHORIZED)]


async def test_a_wrong_password_is_answered_4(engine: Engine) -> None:
    async with raw(engine) as client:
        await client.ask(connect("pump-7", password=b"wrong"), b"\x20\x02\x00\x04")
        await client.expect_end()


async def test_another_devices_client_id_is_answered_5_and_disturbs_nobody(engine: Engine) -> None:
    async with device(engine, "pump-7") as victim:
        async with raw(engine) as client:
            await client.ask(connect("pump-7", username="pump-8"), b"\x20\x02\x00\x05")
        await victim.settled()


async def test_a_real_client_is_told_why(engine: Engine) -> None:
    with pytest.raises(aiomqtt.MqttError, match=r"[Bb]ad user ?name or password"):
        async with mqtt(engine, "pump-7", password="wrong"):
            pass


async def test_the_guard_sees_who_asks(engine: Engine, guard: OwnTopics) -> None:
    async with raw(engine) as client:
        await client.ask(connect("pump-7", password=b"\xff\x00", will=("devices/pump-7/x", b"")), b"\x20\x02\x00\x04")
    request = guard.requests[0]
    assert (request.client_id, request.username, request.password) == ("pump-7", "pump-7", b"\xff\x00")
    assert (request.address, request.protocol, request.will_topic) == (HOST, 4, "devices/pump-7/x")


async def test_a_guard_that_fails_lets_nobody_in(start_engine: StartEngine, guard: OwnTopics) -> None:
    class Failing(OwnTopics):
        async def connect(self, request: object) -> ReasonCode:
            raise OSError("the database is away")

    engine = await start_engine(guard=Failing())
    async with raw(engine) as client:
        await client.ask(connect("pump-7"), b"\x20\x02\x00\x03")


async def test_a_client_without_an_id_gets_one_under_its_user_name(engine: Engine) -> None:
    async with device(engine, "", username="pump-7"):
        assert engine.sessions()[0].client_id.startswith("pump-7:")


async def test_a_client_without_an_id_cannot_keep_a_session(engine: Engine) -> None:
    async with raw(engine) as client:
        await client.ask(connect("", username="pump-7", clean=False), b"\x20\x02\x00\x02")


async def test_the_first_packet_must_be_connect(engine: Engine) -> None:
    async with raw(engine) as client:
        client.send(publish("devices/pump-7/x"))
        await client.expect_end()


async def test_a_second_connect_ends_the_connection(engine: Engine) -> None:
    async with device(engine, "pump-7") as client:
        client.send(connect("pump-7"))
        await client.expect_end()


async def test_what_is_sent_right_behind_connect_is_not_lost(engine: Engine, sink: RecordingSink) -> None:
    async with raw(engine) as client:
        client.send(connect("pump-7"), publish("devices/pump-7/a", qos=1, packet_id=3), DISCONNECT)
        await client.expect(CONNACK_OK + answer(0x40, 3))
        await client.expect_end()
    assert [message.topic for message in sink.messages] == ["devices/pump-7/a"]


async def test_a_silent_connection_is_closed(start_engine: StartEngine) -> None:
    engine = await start_engine(connect_timeout_s=0.1)
    async with raw(engine) as client:
        await client.expect_end()


async def test_a_connect_that_drips_is_closed(start_engine: StartEngine) -> None:
    engine = await start_engine(connect_timeout_s=0.3)
    async with raw(engine) as client, asyncio.TaskGroup() as group:
        dripping = group.create_task(drip(client, connect("pump-7", password=b"x" * 10_000)), name="drip")
        await client.expect_end()
        dripping.cancel()


async def test_a_client_that_keeps_silent_is_closed_after_its_keep_alive(engine: Engine, tap: RecordingTap) -> None:
    async with device(engine, "pump-7", keepalive_s=1) as client:
        await client.expect_end()
    assert tap.of("disconnected") == [("pump-7", "keep-alive expired")]


async def test_a_client_that_drips_is_closed_after_its_keep_alive(engine: Engine, tap: RecordingTap) -> None:
    async with device(engine, "pump-7", keepalive_s=1) as client:
        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(drip(client, publish("devices/pump-7/x", b"x" * 10_000)), name="drip")
            await client.expect_end()
            dripping.cancel()
    assert tap.of("disconnected") == [("pump-7", "keep-alive expired")]


async def test_a_first_packet_that_declares_too_much_is_closed_on_its_header(engine: Engine) -> None:
    async with raw(engine) as client:
        client.send(b"\x10\xff\xff\xff\x7f")
        await client.expect_end()


async def test_a_packet_that_declares_too_much_is_closed_on_its_header(engine: Engine, tap: RecordingTap) -> None:
    async with device(engine, "pump-7") as client:
        client.send(b"\x30\x81\x80\x40")  # 1 MiB and one byte
        await client.expect_end()
    assert tap.of("disconnected") == [("pump-7", "packet too large")]


async def test_a_packet_of_the_largest_size_is_taken(engine: Engine, sink: RecordingSink) -> None:
    header_bytes = 1 + 3 + 2 + len("devices/pump-7/x")  # type and flags, remaining length, topic
    payload = b"x" * (2**20 - header_bytes)
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", payload))
        await client.settled()
    assert sink.messages[0].payload == payload


async def test_connections_over_the_limit_are_closed(start_engine: StartEngine) -> None:
    engine = await start_engine(max_connections=1)
    async with device(engine, "pump-7") as first:
        async with raw(engine) as second:
            await second.expect_end()
        await first.settled()


async def test_sessions_of_a_user_over_the_limit_push_out_those_without_a_connection(start_engine: StartEngine) -> None:
    engine = await start_engine(max_sessions_per_username=2)
    async with device(engine, "pump-7:1", clean=False):
        async with device(engine, "pump-7:2", clean=False):
            async with raw(engine) as third:
                await third.ask(connect("pump-7:3"), b"\x20\x02\x00\x03")
        await until(lambda: sum(session.connected for session in engine.sessions()) == 1)
        async with device(engine, "pump-7:3"):
            assert {session.client_id for session in engine.sessions()} == {"pump-7:1", "pump-7:3"}


async def test_two_hundred_clients_connect(engine: Engine, sink: RecordingSink) -> None:
    async def one(number: int) -> None:
        async with device(engine, f"pump-{number}") as client:
            await client.ask(publish(f"devices/pump-{number}/x", qos=1, packet_id=9), answer(0x40, 9))
            client.send(DISCONNECT)
            await client.expect_end()

    await asyncio.gather(*map(one, range(200)))
    assert len({message.username for message in sink.messages}) == 200
    assert engine.sessions() == []

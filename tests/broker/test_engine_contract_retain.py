"""What every engine does: retained messages and wills."""

import asyncio

import pytest

from broker.engine import Engine, Publish
from tests.broker.clients import (
    CONNACK_OK,
    DISCONNECT,
    SOON_S,
    RecordingSink,
    RecordingTap,
    connect,
    device,
    mqtt,
    next_message,
    publish,
    raw,
    subscribe,
)
from tests.broker.conftest import StartEngine


async def test_a_retained_message_waits_for_subscribers(engine: Engine) -> None:
    await engine.publish(Publish(topic="devices/pump-7/status", payload=b"on", qos=1, retain=True))
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#", qos=1), b"\x90\x03\x00\x01\x01")
        await client.expect(publish("devices/pump-7/status", b"on", qos=1, packet_id=1, retain=True))
        await engine.publish(Publish(topic="devices/pump-7/status", payload=b"off", retain=True))
        await client.expect(publish("devices/pump-7/status", b"off"))


async def test_an_empty_payload_clears_a_retained_message(engine: Engine) -> None:
    async with mqtt(engine, "pump-7") as client:
        await client.publish("devices/pump-7/a", b"x", qos=1, retain=True)
        await client.publish("devices/pump-7/a", b"", qos=1, retain=True)
        await client.publish("devices/pump-7/b", b"y", qos=1, retain=True)
        await client.subscribe("devices/pump-7/+")
        assert (await next_message(client)).topic.value == "devices/pump-7/b"


async def test_retained_messages_are_bounded_in_all_and_for_each_user(start_engine: StartEngine) -> None:
    engine = await start_engine(max_retained=4, max_retained_per_username=2)
    async with mqtt(engine, "pump-7") as client:
        for name in "abc":
            await client.publish(f"devices/pump-7/{name}", name, qos=1, retain=True)
    for name in "defg":
        await engine.publish(Publish(topic=f"devices/pump-7/{name}", payload=name.encode(), retain=True))
    async with mqtt(engine, "pump-7") as client:
        await client.subscribe("devices/pump-7/+")
        kept = [(await next_message(client)).payload for _ in range(4)]
    assert kept == [b"a", b"b", b"d", b"e"]


async def test_a_will_is_published_when_the_connection_is_lost(engine: Engine, sink: RecordingSink) -> None:
    async with mqtt(engine, "admin") as listener:
        await listener.subscribe("devices/pump-7/gone")
        async with device(engine, "pump-7", will=("devices/pump-7/gone", b"bye"), will_retain=True) as client:
            client.writer.transport.abort()
        assert (await next_message(listener)).payload == b"bye"
        await listener.subscribe("devices/+/gone")
        assert (await next_message(listener)).retain
    assert [(message.topic, message.username) for message in sink.messages] == [("devices/pump-7/gone", "pump-7")]


async def test_a_will_is_dropped_when_the_client_says_goodbye(engine: Engine, sink: RecordingSink) -> None:
    async with device(engine, "pump-7", will=("devices/pump-7/gone", b"bye")) as client:
        client.send(DISCONNECT)
        await client.expect_end()
    assert sink.messages == []


@pytest.mark.parametrize("topic", ["devices/pump-8/gone", "$SYS/gone"])
async def test_a_will_to_a_forbidden_topic_is_refused_at_connect(engine: Engine, tap: RecordingTap, topic: str) -> None:
    async with raw(engine) as client:
        await client.ask(connect("pump-7", will=(topic, b"bye")), b"\x20\x02\x00\x05")
        await client.expect_end()
    assert [event[1:3] for event in tap.of("refused")] == [("publish", topic)]
    assert engine.sessions() == []


async def test_a_will_to_a_wildcard_lets_nobody_in(engine: Engine) -> None:
    async with raw(engine) as client:
        client.send(connect("pump-7", will=("devices/pump-7/+", b"bye")))
        async with asyncio.timeout(SOON_S):
            assert not (await client.reader.read()).startswith(CONNACK_OK)
    assert engine.sessions() == []

"""06: wills (MQTT 5 and 3.1.1, sections 3.1.2.5 to 3.1.2.7, 3.1.3.2 and 3.14)."""

import pytest

from tests.broker.blackbox.brokers import Subject, kept, levels, mosquitto_differs
from tests.broker.blackbox.wire import Will

WITH_A_SINK = True


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_lost_connection_leaves_its_will(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-9] [MQTT-3.1.2-12]; 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-9]
    3.1.1: [MQTT-3.1.2-14]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic, qos=2)
        async with broker.client(level=level, will=Will(topic, b"gone", qos=qos)) as client:
            await client.settled()
        await watcher.gets(topic, b"gone", qos=qos)
        await watcher.settled()


@levels
async def test_a_disconnect_deletes_the_will(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.14.4-3] [MQTT-3.1.2-10]; 3.1.1: [MQTT-3.14.4-3] [MQTT-3.1.2-10]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, will=Will(topic)) as client:
            await client.leave()
        await watcher.settled()


async def test_a_disconnect_with_will_message_publishes_it(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-8]: reason 0x04 (section 3.14.2.1)."""
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic, qos=1)
        async with broker.client(will=Will(topic, b"gone", qos=1)) as client:
            await client.leave(0x04)
        await watcher.gets(topic, b"gone", qos=1)


@pytest.mark.parametrize("reason", [0x80, 0x82, 0x93, 0x98])
@mosquitto_differs("deletes it, but for 0x04")
async def test_a_disconnect_for_an_error_publishes_the_will(broker: Subject, topic: str, reason: int) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.14.4-3]: only 0x00 deletes it."""
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic)
        async with broker.client(will=Will(topic)) as client:
            await client.leave(reason)
        await watcher.gets(topic, b"gone")


@levels
async def test_a_protocol_error_leaves_the_will(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-8]; 3.1.1: [MQTT-3.1.2-8]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, will=Will(topic)) as client:
            client.send(b"\x00\x00")
            await client.ended()
        await watcher.gets(topic, b"gone")


@levels
async def test_a_will_is_published_once(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-10]; 3.1.1: [MQTT-3.1.2-10]: removed from the session once published."""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, **kept(level), will=Will(topic)):
            pass
        await watcher.gets(topic, b"gone")
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.settled()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.settled()
        await watcher.settled()


@levels
async def test_a_connect_without_a_will_has_none(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-10]; 3.1.1: [MQTT-3.1.2-12]: also where the session had one before."""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, **kept(level), will=Will(topic)) as client:
            await client.leave()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.settled()
        await watcher.settled()


@levels
async def test_a_takeover_publishes_the_will_of_the_first(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-8]; 3.1.1: [MQTT-3.1.2-8]: its connection is closed without DISCONNECT, its delay is 0."""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, will=Will(topic, b"of the first")) as first:
            async with broker.client(level=level, will=Will(topic, b"of the second")) as second:
                await first.ended()
                await watcher.gets(topic, b"of the first")
                await second.leave()
        await watcher.settled()


@levels
async def test_a_will_without_retain_is_not_retained(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-14]; 3.1.1: [MQTT-3.1.2-16]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, will=Will(topic)):
            pass
        await watcher.gets(topic, b"gone")
        await watcher.subscribe(topic)
        await watcher.settled()


@levels
async def test_a_will_with_retain_is_retained(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-15]; 3.1.1: [MQTT-3.1.2-17]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, will=Will(topic, retain=True)):
            pass
        await watcher.gets(topic, b"gone", retain=False)
        await watcher.subscribe(topic)
        await watcher.gets(topic, b"gone", retain=True)


@levels
async def test_an_empty_will_with_retain_clears_the_topic(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-15] [MQTT-3.3.1-6]; 3.1.1: [MQTT-3.1.2-17] [MQTT-3.3.1-10]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.publish(topic, b"here", retain=True)
        await watcher.subscribe(topic)
        await watcher.gets(topic, b"here", retain=True)
        async with broker.client(level=level, will=Will(topic, b"", retain=True)):
            pass
        await watcher.gets(topic, b"")
        await watcher.subscribe(topic)
        await watcher.settled()


@levels
async def test_a_will_waits_for_a_client_that_is_away(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.5.0-1]; 3.1.1: [MQTT-4.5.0-1]"""
    async with broker.client("two", level=level, **kept(level)) as watcher:
        await watcher.subscribe(topic, qos=1)
        await watcher.leave()
    async with broker.client("three", level=level) as other:
        await other.subscribe(topic)
        async with broker.client(level=level, will=Will(topic, qos=1)):
            pass
        await other.gets(topic, b"gone")
    async with broker.client("two", level=level, present=True, **kept(level)) as watcher:
        await watcher.gets(topic, b"gone", qos=1)


async def test_a_will_has_its_properties(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.3-10]"""
    said = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\x00\xff",
        "user_property": [("b", "1"), ("a", "2"), ("b", "1")],
    }
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic, qos=1)
        async with broker.client(will=Will(topic, b"gone", qos=1, properties=said)):
            pass
        await watcher.gets(topic, b"gone", qos=1, **said)


async def test_a_will_is_not_for_the_eyes_of_no_local(broker: Subject, topic: str) -> None:
    """[MQTT-3.8.3-3]: a client's own will is a message of its own."""
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic)
        async with broker.client(**kept(5), will=Will(topic, qos=1)) as client:
            await client.subscribe(topic, qos=1, no_local=True)
        await watcher.gets(topic, b"gone")
        async with broker.client(present=True, **kept(5)) as client:
            await client.settled()

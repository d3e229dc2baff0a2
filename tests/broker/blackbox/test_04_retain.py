"""04: retained messages (MQTT 5 and 3.1.1, section 3.3.1.3)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, before_5, levels

WITH_A_SINK = True


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_retained_message_waits_for_subscribers(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.3.1-5] [MQTT-3.3.1-9] [MQTT-3.8.4-8]; 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8]"""
    async with broker.client(level=level) as publisher:
        await publisher.publish(topic, b"p", qos=qos, retain=True)
    for granted in (0, 1, 2):
        async with broker.client("two", level=level) as subscriber:
            await subscriber.subscribe(topic, qos=granted)
            await subscriber.gets(topic, b"p", qos=min(qos, granted), retain=True)
            await subscriber.settled()


@levels
async def test_the_last_retained_message_replaces_the_one_before(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-5]; 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-7]"""
    async with broker.client(level=level) as client:
        for qos, payload in ((2, b"1"), (1, b"2"), (0, b"3")):
            await client.publish(topic, payload, qos=qos, retain=True)
        await client.subscribe(topic, qos=2)
        await client.gets(topic, b"3", retain=True)
        await client.settled()


@levels
async def test_a_message_without_retain_leaves_the_retained_one(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-8]; 3.1.1: [MQTT-3.3.1-12]"""
    async with broker.client(level=level) as client:
        await client.publish(topic, b"kept", retain=True)
        await client.publish(topic, b"passing")
        await client.publish(topic, b"")
        await client.subscribe(topic)
        await client.gets(topic, b"kept", retain=True)
        await client.settled()


@levels
async def test_a_message_without_retain_is_not_kept(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-8]; 3.1.1: [MQTT-3.3.1-12]"""
    async with broker.client(level=level) as client:
        await client.publish(topic, b"passing", qos=1)
        await client.subscribe(topic)
        await client.settled()


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_an_empty_retained_message_clears_the_topic(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.3.1-6] [MQTT-3.3.1-7]; 3.1.1: [MQTT-3.3.1-10] [MQTT-3.3.1-11]"""
    async with broker.client(level=level) as client:
        await client.publish(topic, b"p", qos=1, retain=True)
        await client.publish(topic, b"", qos=qos, retain=True)
        await client.subscribe(topic)
        await client.settled()


@levels
async def test_an_empty_retained_message_reaches_who_is_there(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-6]; 3.1.1: [MQTT-3.3.1-10]: as any message, without RETAIN."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"", qos=1, retain=True)
        await subscriber.gets(topic, b"", qos=1, retain=False)


@levels
async def test_clearing_one_topic_leaves_the_others(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-6]; 3.1.1: [MQTT-3.3.1-10]"""
    async with broker.client(level=level) as client:
        for name in ("a", "a/b", "a/b/c"):
            await client.publish(f"{topic}/{name}", b"p", retain=True)
        await client.publish(f"{topic}/a/b", b"", retain=True)
        await client.subscribe(f"{topic}/#")
        got = [packet.topic for packet in await client.all_before_pingresp()]
        assert sorted(got) == [f"{topic}/a", f"{topic}/a/b/c"]


@levels
async def test_who_is_there_already_gets_it_without_the_flag(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-12]; 3.1.1: [MQTT-3.3.1-9]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1, retain=True)
        await subscriber.gets(topic, b"p", qos=1, retain=False)


async def test_retain_as_published_keeps_the_flag(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.1-13]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1, as_published=True)
        for retain in (True, False):
            await publisher.publish(topic, b"p", qos=1, retain=retain)
            await subscriber.gets(topic, b"p", qos=1, retain=retain)
        await publisher.publish(topic, b"", retain=True)
        await subscriber.gets(topic, b"", retain=True)


@pytest.mark.parametrize("as_published", [False, True])
async def test_what_was_retained_has_the_flag_either_way(broker: Subject, topic: str, as_published: bool) -> None:
    """MQTT 5, section 3.3.1.3: sent because of a new subscription, RETAIN is 1."""
    async with broker.client() as client:
        await client.publish(topic, b"p", retain=True)
        await client.subscribe(topic, as_published=as_published)
        await client.gets(topic, b"p", retain=True)


async def test_retain_handling_0_sends_at_every_subscribe(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.1-9] [MQTT-3.8.4-4]"""
    async with broker.client() as client:
        await client.publish(topic, b"p", retain=True)
        for _ in range(3):
            await client.subscribe(topic, retain_handling=0)
            await client.gets(topic, b"p", retain=True)
        await client.settled()


async def test_retain_handling_1_sends_at_a_new_subscription_only(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.1-10]"""
    async with broker.client() as client:
        await client.publish(topic, b"p", retain=True)
        await client.subscribe(topic, retain_handling=1)
        await client.gets(topic, b"p", retain=True)
        await client.subscribe(topic, qos=2, retain_handling=1)
        await client.settled()
        await client.unsubscribe(topic)
        await client.subscribe(topic, retain_handling=1)
        await client.gets(topic, b"p", retain=True)


async def test_retain_handling_2_never_sends(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.1-11]"""
    async with broker.client() as client:
        await client.publish(topic, b"p", retain=True)
        await client.subscribe(topic, retain_handling=2)
        await client.settled()
        await client.subscribe(topic, retain_handling=2)
        await client.settled()


async def test_each_filter_has_its_own_retain_handling(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.1-9] [MQTT-3.3.1-11]"""
    async with broker.client() as client:
        for name in ("a", "b"):
            await client.publish(f"{topic}/{name}", b"p", retain=True)
        await client.subscribe((f"{topic}/a", wire.options(retain_handling=2)), (f"{topic}/b", 0))
        await client.gets(f"{topic}/b", b"p", retain=True)
        await client.settled()


@before_5
async def test_subscribing_again_sends_them_again(broker: Subject, topic: str, level: int) -> None:
    """3.1.1: [MQTT-3.8.4-3]"""
    async with broker.client(level=level) as client:
        await client.publish(topic, b"p", qos=1, retain=True)
        for granted in (0, 1):
            await client.subscribe(topic, qos=granted)
            await client.gets(topic, b"p", qos=granted, retain=True)


@levels
async def test_a_wildcard_gets_the_retained_message_of_each_topic(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.1-9]; 3.1.1: [MQTT-3.3.1-6]"""
    async with broker.client(level=level) as client:
        names = [topic, f"{topic}/a", f"{topic}/b", f"{topic}/a/c", f"{topic}/"]
        for name in names:
            await client.publish(name, name.encode(), retain=True)
        await client.subscribe(f"{topic}/#")
        got = sorted(packet.topic for packet in await client.all_before_pingresp())
        assert got == sorted(names)
        await client.subscribe(f"{topic}/+")
        got = sorted(packet.topic for packet in await client.all_before_pingresp())
        assert got == sorted([f"{topic}/", f"{topic}/a", f"{topic}/b"])


@levels
async def test_retained_messages_come_after_the_suback_of_their_filter(broker: Subject, topic: str, level: int) -> None:
    """Not demanded, but what both do; clients rely on it."""
    async with broker.client(level=level) as client:
        await client.publish(topic, b"p", qos=1, retain=True)
        client.send(wire.subscribe(topic, qos=1, packet_id=3, level=level))
        await client.expect(wire.suback(1, packet_id=3, level=level))
        await client.gets(topic, b"p", qos=1, retain=True)


async def test_a_retained_message_outlives_its_publishers_session(broker: Subject, topic: str) -> None:
    """3.1.1: [MQTT-3.1.2-7]"""
    async with broker.client(level=4, clean=True) as publisher:
        await publisher.publish(topic, b"p", retain=True)
        await publisher.leave()
    async with broker.client(level=4, clean=True) as client:
        await client.subscribe(topic)
        await client.gets(topic, b"p", retain=True)


async def test_a_retained_message_keeps_its_properties(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-4]"""
    said = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\x00\x01",
        "user_property": [("b", "1"), ("a", "2"), ("b", "3")],
    }
    async with broker.client() as client:
        await client.publish(topic, b"p", qos=1, retain=True, **said)
        await client.subscribe(topic, qos=1)
        await client.gets(topic, b"p", qos=1, retain=True, **said)


async def test_a_retained_message_goes_to_old_clients_without_properties(broker: Subject, topic: str) -> None:
    async with broker.client() as publisher, broker.client("two", level=4) as subscriber:
        await publisher.publish(topic, b"p", retain=True, content_type="text/plain")
        await subscriber.subscribe(topic)
        await subscriber.gets(topic, b"p", retain=True)

"""10: what a message says of itself reaches its subscribers (MQTT 5, sections 3.3.2.3 and 3.8.2.1)."""

from typing import Any

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, levels, mosquitto_differs

WITH_A_SINK = True

CASES: dict[str, dict[str, Any]] = {
    "bytes": {"payload_format_indicator": 0},
    "text": {"payload_format_indicator": 1},
    "content type": {"content_type": "application/json; charset=utf-8"},
    "empty content type": {"content_type": ""},
    "response topic": {"response_topic": "answers/ü/to me"},
    "correlation data": {"correlation_data": bytes(range(256))},
    "empty correlation data": {"correlation_data": b""},
    "user property": {"user_property": ("name", "value")},
    "empty user property": {"user_property": ("", "")},
    "user properties in order": {"user_property": [("z", "1"), ("a", "2"), ("z", "3"), ("a", "2"), ("ü", "日本")]},
    "all": {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\x00\xff",
        "user_property": [("b", "1"), ("a", "2")],
    },
}


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
async def test_a_property_is_passed_on_unaltered(broker: Subject, topic: str, case: str, qos: int) -> None:
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=qos)
        await publisher.publish(topic, b"p", qos=qos, **CASES[case])
        await subscriber.gets(topic, b"p", qos=qos, **CASES[case])


async def test_a_hundred_user_properties_keep_their_order(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-17] [MQTT-3.3.2-18]"""
    pairs = [(f"name {number % 7}", f"value {99 - number}") for number in range(100)]
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic)
        await publisher.publish(topic, b"p", user_property=pairs)
        await subscriber.gets(topic, b"p", user_property=pairs)


async def test_user_properties_between_others_keep_their_order(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-18]"""
    pieces = [
        wire.one_property("user_property", ("z", "1")),
        wire.one_property("content_type", "text/plain"),
        wire.one_property("user_property", ("a", "2")),
        wire.one_property("correlation_data", b"c"),
        wire.one_property("user_property", ("z", "3")),
    ]
    body = b"".join(pieces)
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic)
        publisher.send(wire.packet(wire.PUBLISH, wire.text(topic) + wire.varint(len(body)) + body + b"p"))
        await subscriber.gets(
            topic,
            b"p",
            content_type="text/plain",
            correlation_data=b"c",
            user_property=[("z", "1"), ("a", "2"), ("z", "3")],
        )


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"\xed\xa0\x80"])
async def test_a_payload_that_is_not_the_text_it_says_is_delivered_or_refused(
    broker: Subject, topic: str, payload: bytes
) -> None:
    """MQTT 5, section 3.3.2.3.2: a receiver may check the format; here nobody does."""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, payload, qos=1, payload_format_indicator=1)
        await subscriber.gets(topic, payload, qos=1, payload_format_indicator=1)


@pytest.mark.parametrize("wrong", ["+", "a/#"])
@mosquitto_differs("passes it on")
async def test_a_response_topic_with_a_wildcard_closes_the_connection(broker: Subject, topic: str, wrong: str) -> None:
    """[MQTT-3.3.2-14] [MQTT-4.13.1-1]"""
    async with broker.client() as client:
        await client.dies_of(wire.publish(topic, response_topic=wrong), 0x81, 0x82, 0x90)


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_older_clients_get_no_properties(broker: Subject, topic: str, level: int) -> None:
    async with broker.client("two", level=level) as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1, **CASES["all"])
        await subscriber.gets(topic, b"p", qos=1)


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_messages_of_older_clients_have_none(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-2.2.2-1]: said by a length of 0."""
    async with broker.client("two") as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic)
        await publisher.publish(topic, b"p")
        assert await subscriber.read_packet() == wire.packet(0x30, wire.text(topic) + b"\x00p")


async def test_properties_wait_with_their_message(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-17] [MQTT-4.5.0-1]"""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5)) as client:
            await client.subscribe(topic, qos=1, subscription_identifier=3)
        await publisher.publish(topic, b"p", qos=1, **CASES["all"])
        async with broker.client(present=True, **kept(5)) as client:
            await client.gets(topic, b"p", qos=1, subscription_identifier=3, **CASES["all"])


# --- subscription identifiers


@pytest.mark.parametrize("identifier", [1, 127, 128, 16_383, 16_384, 268_435_455])
async def test_a_message_has_the_identifier_of_its_subscription(broker: Subject, topic: str, identifier: int) -> None:
    """[MQTT-3.3.4-3]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1, subscription_identifier=identifier)
        await publisher.publish(topic, b"p", qos=1)
        await subscriber.gets(topic, b"p", qos=1, subscription_identifier=identifier)


async def test_all_filters_of_one_subscribe_have_its_identifier(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-3]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(f"{topic}/a", f"{topic}/b", subscription_identifier=5)
        for name in "ab":
            await publisher.publish(f"{topic}/{name}")
            await subscriber.gets(f"{topic}/{name}", subscription_identifier=5)


async def test_subscribing_again_replaces_the_identifier(broker: Subject, topic: str) -> None:
    """[MQTT-3.8.4-3]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        for identifier in (5, 6, None):
            await subscriber.subscribe(topic, subscription_identifier=identifier)
            await publisher.publish(topic)
            await subscriber.gets(topic, subscription_identifier=identifier)


@mosquitto_differs("sends a copy for each subscription")
async def test_one_copy_has_the_identifiers_of_all_its_subscriptions(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-4]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(f"{topic}/#", subscription_identifier=1)
        await subscriber.subscribe(f"{topic}/+", subscription_identifier=2)
        await subscriber.subscribe(f"{topic}/a")
        await publisher.publish(f"{topic}/a")
        packet = await subscriber.next()
        assert sorted(value for name, value in packet.properties if name == "subscription_identifier") == [1, 2]
        await subscriber.settled()


async def test_overlapping_subscriptions_all_have_their_identifiers(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-3]: whether in one copy or in several."""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(f"{topic}/#", subscription_identifier=1)
        await subscriber.subscribe(f"{topic}/+", subscription_identifier=2)
        await publisher.publish(f"{topic}/a")
        said = [pair[1] for packet in await subscriber.all_before_pingresp() for pair in packet.properties]
        assert sorted(said) == [1, 2]


async def test_a_retained_message_has_the_identifier_of_the_new_subscription(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-3]"""
    async with broker.client() as client:
        await client.publish(topic, b"p", retain=True)
        await client.subscribe(topic, subscription_identifier=9)
        await client.gets(topic, b"p", retain=True, subscription_identifier=9)


@mosquitto_differs("lets it pass")
async def test_a_client_may_not_publish_a_subscription_identifier(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-6] [MQTT-4.13.1-1]"""
    async with broker.client() as client:
        await client.dies_of(wire.publish(topic, subscription_identifier=1), 0x82)


@levels
async def test_an_identifier_is_for_its_own_client(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.4-3]"""
    async with broker.client("two") as one, broker.client("three") as other, broker.client(level=level) as publisher:
        await one.subscribe(topic, subscription_identifier=1)
        await other.subscribe(topic)
        await publisher.publish(topic)
        await one.gets(topic, subscription_identifier=1)
        await other.gets(topic)

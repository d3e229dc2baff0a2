"""02: subscribing and unsubscribing (MQTT 5 and 3.1.1, sections 3.8 to 3.11)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, before_5, kept, levels, mosquitto_differs

WITH_A_SINK = True


@levels
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
async def test_a_suback_has_the_packet_id_of_its_subscribe(
    broker: Subject, topic: str, level: int, packet_id: int
) -> None:
    """[MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.2.1-6]; 3.1.1: [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.3.1-7]"""
    async with broker.client(level=level) as client:
        await client.ask(
            wire.subscribe(topic, packet_id=packet_id, level=level),
            wire.suback(0, packet_id=packet_id, level=level),
        )


@levels
async def test_each_filter_gets_its_code_in_order(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]; 3.1.1: [MQTT-3.8.4-5] [MQTT-3.9.3-1]
    3.1.1: [MQTT-3.9.3-2]"""
    async with broker.client(level=level) as client:
        await client.ask(
            wire.subscribe(*[(f"{topic}/{number}", number % 3) for number in range(9)], level=level),
            wire.suback(0, 1, 2, 0, 1, 2, 0, 1, 2, level=level),
        )


@levels
async def test_many_filters_in_one_subscribe_all_hold(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.8.4-5]; 3.1.1: [MQTT-3.8.4-4]"""
    async with broker.client(level=level) as client:
        await client.subscribe(f"{topic}/a", f"{topic}/b", f"{topic}/c")
        for name in "abc":
            client.send(wire.publish(f"{topic}/{name}", level=level))
            await client.gets(f"{topic}/{name}")


@levels
@pytest.mark.parametrize("granted", [0, 1, 2])
async def test_a_message_comes_with_the_lower_qos_of_publish_and_subscription(
    broker: Subject, topic: str, level: int, granted: int
) -> None:
    """[MQTT-3.8.4-8]; 3.1.1: [MQTT-3.8.4-6]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=granted)
        for qos in (0, 1, 2):
            await publisher.publish(topic, b"p", qos=qos)
            await subscriber.gets(topic, b"p", qos=min(qos, granted))


@levels
async def test_subscribing_again_replaces_the_subscription(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.8.4-3]; 3.1.1: [MQTT-3.8.4-3]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        for granted in (2, 0, 1):
            await subscriber.subscribe(topic, qos=granted)
            await publisher.publish(topic, b"p", qos=2)
            await subscriber.gets(topic, b"p", qos=granted)
            await subscriber.settled()


@levels
async def test_replacing_a_subscription_loses_no_message(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.8.4-4]; 3.1.1: [MQTT-3.8.4-3]: the flow of publications is not interrupted."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"before", qos=1)
        subscriber.send(wire.subscribe(topic, qos=1, packet_id=9, level=level))
        await subscriber.gets(topic, b"before", qos=1)
        await subscriber.expect(wire.suback(1, packet_id=9, level=level))
        await publisher.publish(topic, b"after", qos=1)
        await subscriber.gets(topic, b"after", qos=1)


@levels
@mosquitto_differs("takes the QoS of the filter it finds first", level=(3, 4))
async def test_overlapping_subscriptions_give_the_highest_qos(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.4-2]; 3.1.1: [MQTT-3.3.5-1]: whether in one copy or in several."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe((f"{topic}/#", 0), (f"{topic}/+", 2), (f"{topic}/a", 1))
        await publisher.publish(f"{topic}/a", b"p", qos=2)
        got = await subscriber.all_before_pingresp()
        assert max(packet.first for packet in got) == wire.PUBLISH | 2 << 1


@levels
@mosquitto_differs("sends a copy for each subscription")
async def test_overlapping_subscriptions_give_one_copy(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.4-2]; 3.1.1: [MQTT-3.3.5-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe((f"{topic}/#", 0), (f"{topic}/+", 2), (f"{topic}/a", 1))
        await publisher.publish(f"{topic}/a", b"p", qos=2)
        await subscriber.gets(f"{topic}/a", b"p", qos=2)
        await subscriber.settled()


@levels
async def test_a_message_comes_on_the_topic_it_was_published_to(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.3.2-3]; 3.1.1: [MQTT-3.3.2-3]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(f"{topic}/+/c")
        await publisher.publish(f"{topic}/b/d")
        await publisher.publish(f"{topic}/b/c")
        await subscriber.gets(f"{topic}/b/c")
        await subscriber.settled()


@levels
async def test_a_client_gets_what_it_publishes_itself(broker: Subject, topic: str, level: int) -> None:
    async with broker.client(level=level) as client:
        await client.subscribe(topic)
        client.send(wire.publish(topic, b"mine", level=level))
        await client.gets(topic, b"mine")


async def test_with_no_local_a_client_does_not_get_what_it_publishes_itself(broker: Subject, topic: str) -> None:
    """[MQTT-3.8.3-3]"""
    async with broker.client() as client, broker.client("two") as other:
        await client.subscribe(topic, qos=1, no_local=True)
        await client.publish(topic, b"mine", qos=1)
        await other.publish(topic, b"theirs", qos=1)
        await client.gets(topic, b"theirs", qos=1)
        await client.settled()


async def test_no_local_is_of_one_subscription_only(broker: Subject, topic: str) -> None:
    """[MQTT-3.8.3-3]"""
    async with broker.client() as client:
        await client.subscribe((f"{topic}/a", wire.options(no_local=True)), (f"{topic}/b", 0))
        client.send(wire.publish(f"{topic}/a"), wire.publish(f"{topic}/b"))
        await client.gets(f"{topic}/b")
        await client.settled()


@levels
async def test_every_subscriber_gets_the_message(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.5.0-1]; 3.1.1: [MQTT-4.5.0-1]"""
    async with (
        broker.client("a", level=level) as first,
        broker.client("b", level=level) as second,
        broker.client(level=level) as publisher,
    ):
        await first.subscribe(topic, qos=1)
        await second.subscribe(f"{topic}/#")
        await publisher.publish(topic, b"p", qos=1)
        await first.gets(topic, b"p", qos=1)
        await second.gets(topic, b"p")


# --- unsubscribing


@levels
async def test_unsubscribing_ends_the_subscription(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4]; 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic)
        await subscriber.unsubscribe(topic)
        await publisher.publish(topic)
        await subscriber.settled()


@levels
@pytest.mark.parametrize("packet_id", [1, 256, 65535])
async def test_an_unsuback_has_the_packet_id_of_its_unsubscribe(
    broker: Subject, topic: str, level: int, packet_id: int
) -> None:
    """[MQTT-3.10.4-5] [MQTT-2.2.1-6]; 3.1.1: [MQTT-3.10.4-4] [MQTT-2.3.1-7]"""
    async with broker.client(level=level) as client:
        await client.subscribe(topic)
        await client.ask(
            wire.unsubscribe(topic, packet_id=packet_id, level=level),
            wire.unsuback(*[0] * (level == 5), packet_id=packet_id, level=level),
        )


@before_5
async def test_unsubscribing_from_nothing_is_acknowledged(broker: Subject, topic: str, level: int) -> None:
    """3.1.1: [MQTT-3.10.4-5]"""
    async with broker.client(level=level) as client:
        await client.ask(wire.unsubscribe(topic, level=level), wire.unsuback(level=level))


async def test_unsubscribing_from_nothing_is_said(broker: Subject, topic: str) -> None:
    """[MQTT-3.10.4-5] [MQTT-3.11.3-2]: 0x11, no subscription existed."""
    async with broker.client() as client:
        await client.ask(wire.unsubscribe(topic), wire.unsuback(0x11))


async def test_each_filter_of_an_unsubscribe_gets_its_code_in_order(broker: Subject, topic: str) -> None:
    """[MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]"""
    async with broker.client() as client:
        await client.subscribe(f"{topic}/a", f"{topic}/c")
        await client.ask(
            wire.unsubscribe(f"{topic}/a", f"{topic}/b", f"{topic}/c"),
            wire.unsuback(0, 0x11, 0),
        )


@levels
async def test_many_filters_in_one_unsubscribe_all_end(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.10.4-6]; 3.1.1: [MQTT-3.10.4-6]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(f"{topic}/a", f"{topic}/b", f"{topic}/c")
        await subscriber.unsubscribe(f"{topic}/a", f"{topic}/b")
        for name in "abc":
            await publisher.publish(f"{topic}/{name}")
        await subscriber.gets(f"{topic}/c")
        await subscriber.settled()


@levels
async def test_only_the_same_filter_is_unsubscribed(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.10.4-1]; 3.1.1: [MQTT-3.10.4-1]: compared character by character, not matched."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(f"{topic}/a")
        subscriber.send(wire.unsubscribe(f"{topic}/+", packet_id=9, level=level))
        await subscriber.expect(wire.unsuback(*[0x11] * (level == 5), packet_id=9, level=level))
        await publisher.publish(f"{topic}/a")
        await subscriber.gets(f"{topic}/a")


@levels
async def test_unsubscribing_from_a_wildcard_leaves_the_others(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.10.4-1]; 3.1.1: [MQTT-3.10.4-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe((f"{topic}/#", 2), (f"{topic}/a", 1))
        await subscriber.unsubscribe(f"{topic}/#")
        await publisher.publish(f"{topic}/a", qos=2)
        await subscriber.gets(f"{topic}/a", qos=1)
        await subscriber.settled()


@pytest.mark.parametrize("level", [4, 5], ids=["v311", "v5"])
async def test_a_delivery_begun_goes_on_after_unsubscribing(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.10.4-3]; 3.1.1: [MQTT-3.10.4-3]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as subscriber:
            await subscriber.subscribe(topic, qos=2)
            await publisher.publish(topic, b"p", qos=2)
            packet_id = await subscriber.gets(topic, b"p", qos=2, ack=False)
            await subscriber.unsubscribe(topic)
            await subscriber.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
        async with broker.client(level=level, present=True, **kept(level)) as subscriber:
            await subscriber.expect(wire.pubrel(packet_id))
            subscriber.send(wire.pubcomp(packet_id))
            await subscriber.settled()


async def test_a_subscription_of_another_client_is_its_own(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.3-2]; 3.1.1: [MQTT-3.1.3-2]"""
    async with broker.client() as client, broker.client("two") as other:
        await client.subscribe(topic)
        await other.subscribe(topic)
        await other.unsubscribe(topic)
        await other.publish(topic)
        await client.gets(topic)
        await other.settled()

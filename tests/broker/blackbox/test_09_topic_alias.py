"""09: topic aliases, both ways (MQTT 5, sections 3.1.2.11.5, 3.2.2.3.8 and 3.3.2.3.4)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, Subject, kept, mosquitto_differs

WITH_A_SINK = True

NATIVE = {"topic_alias_maximum": 10}  # as many as Mosquitto takes


class Aliases:
    """What a client learns of the server's aliases on one connection."""

    def __init__(self, client: Client, maximum: int) -> None:
        self.client, self.maximum = client, maximum
        self.known: dict[int, str] = {}

    async def next(self) -> tuple[str, bytes]:
        """Topic and payload of the next message, the alias resolved."""
        packet = await self.client.next()
        assert packet.first == wire.PUBLISH
        alias, topic = packet.get("topic_alias"), packet.topic
        if alias is None:
            return topic, packet.rest
        assert 1 <= alias <= self.maximum
        if topic:
            self.known[alias] = topic
        return self.known[alias], packet.rest


# --- from the client


async def test_the_server_says_how_many_aliases_it_takes(broker: Subject) -> None:
    """[MQTT-3.2.2-17]"""
    async with broker.client() as client:
        assert client.connack.get("topic_alias_maximum") == 10


@pytest.mark.parametrize("alias", [1, 2, 10])
async def test_an_alias_stands_for_its_topic(broker: Subject, topic: str, alias: int) -> None:
    """[MQTT-3.3.2-12]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic)
        publisher.send(
            wire.publish(topic, b"1", topic_alias=alias),
            wire.publish("", b"2", topic_alias=alias),
            wire.publish("", b"3", topic_alias=alias),
        )
        for payload in (b"1", b"2", b"3"):
            await subscriber.gets(topic, payload)


@pytest.mark.parametrize("qos", [1, 2])
async def test_an_alias_is_acknowledged_like_any_publish(broker: Subject, topic: str, qos: int) -> None:
    """[MQTT-3.3.2-12] [MQTT-3.3.4-1]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=qos)
        for name, payload in ((topic, b"1"), ("", b"2")):
            await publisher.publish(name, payload, qos=qos, topic_alias=1)
            await subscriber.gets(topic, payload, qos=qos)


async def test_an_alias_may_be_given_another_topic(broker: Subject, topic: str) -> None:
    """MQTT 5, section 3.3.2.3.4."""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(f"{topic}/#")
        publisher.send(
            wire.publish(f"{topic}/a", topic_alias=1),
            wire.publish(f"{topic}/b", topic_alias=2),
            wire.publish(f"{topic}/c", topic_alias=1),
            wire.publish("", topic_alias=1),
            wire.publish("", topic_alias=2),
        )
        for name in "abccb":
            await subscriber.gets(f"{topic}/{name}")


async def test_the_publishers_alias_is_not_passed_on(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-27]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1, topic_alias=1)
        await subscriber.gets(topic, b"p", qos=1)


async def test_a_retained_message_of_an_alias_has_its_topic(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-12] [MQTT-3.3.1-5]"""
    async with broker.client() as client:
        await client.publish(topic, b"1", topic_alias=1)
        await client.publish("", b"2", topic_alias=1, retain=True)
        await client.subscribe(topic)
        await client.gets(topic, b"2", retain=True)


async def test_an_alias_is_of_one_connection(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-7]"""
    async with broker.client(**kept(5)) as client:
        await client.publish(topic, topic_alias=1)
    async with broker.client(present=True, **kept(5)) as client:
        client.send(wire.publish("", topic_alias=1))
        await client.closed(0x82, 0x94)


async def test_an_alias_is_of_one_client(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-7]: mappings belong to a network connection."""
    async with broker.client() as client, broker.client("two") as other:
        await client.publish(topic, topic_alias=1)
        other.send(wire.publish("", topic_alias=1))
        await other.closed(0x82, 0x94)


@pytest.mark.parametrize("alias", [11, 65535])
async def test_an_alias_beyond_the_maximum_closes_the_connection(broker: Subject, topic: str, alias: int) -> None:
    """[MQTT-3.3.2-9] [MQTT-3.2.2-17]: 0x94, topic alias invalid."""
    async with broker.client() as client:
        client.send(wire.publish(topic, topic_alias=alias))
        await client.closed(0x94)


async def test_an_alias_of_0_closes_the_connection(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-8]"""
    async with broker.client() as client:
        client.send(wire.publish(topic, topic_alias=0))
        await client.closed(0x81, 0x82, 0x94)


async def test_an_alias_never_set_closes_the_connection(broker: Subject) -> None:
    """[MQTT-4.13.1-1]: a protocol error (section 3.3.4)."""
    async with broker.client() as client:
        client.send(wire.publish("", topic_alias=3))
        await client.closed(0x82, 0x94)


async def test_an_empty_topic_without_an_alias_closes_the_connection(broker: Subject) -> None:
    """[MQTT-4.7.3-1] [MQTT-4.13.1-1]"""
    async with broker.client() as client:
        client.send(wire.publish("", b"p"))
        await client.closed(0x82)


@mosquitto_differs("closes without a DISCONNECT")
async def test_an_alias_twice_in_one_packet_closes_the_connection(broker: Subject, topic: str) -> None:
    """[MQTT-4.13.1-1]: a protocol error (section 3.3.2.3.4)."""
    async with broker.client() as client:
        client.send(wire.publish(topic, topic_alias=[1, 1]))
        await client.closed(0x82)


# --- from the server


@pytest.mark.parametrize("maximum", [None, 0])
async def test_a_client_that_takes_no_alias_gets_none(broker: Subject, topic: str, maximum: int | None) -> None:
    """[MQTT-3.1.2-27]"""
    async with broker.client(topic_alias_maximum=maximum) as client, broker.client("two") as publisher:
        await client.subscribe(topic)
        for number in range(20):
            await publisher.publish(topic, bytes([number]))
            await client.gets(topic, bytes([number]))


@pytest.mark.parametrize("maximum", [1, 3])
async def test_a_client_gets_no_alias_beyond_its_maximum(broker: Subject, topic: str, maximum: int) -> None:
    """[MQTT-3.1.2-26] [MQTT-3.3.2-11]: and each alias is told before it is used."""
    async with broker.client(topic_alias_maximum=maximum) as client, broker.client("two") as publisher:
        await client.subscribe(f"{topic}/#")
        aliases = Aliases(client, maximum)
        for number in range(30):
            await publisher.publish(f"{topic}/{number % 5}", bytes([number]))
            assert await aliases.next() == (f"{topic}/{number % 5}", bytes([number]))


@mosquitto_differs("sends no aliases")
async def test_a_topic_that_comes_often_comes_as_an_alias(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-26]: sections 3.1.2.11.5 and 3.3.2.3.4."""
    async with broker.client(topic_alias_maximum=5) as client, broker.client("two") as publisher:
        await client.subscribe(topic)
        packets = []
        for number in range(20):
            await publisher.publish(topic, bytes([number]))
            packets.append(await client.next())
        assert packets[0].topic == topic
        assert packets[-1].topic == ""
        assert packets[-1].get("topic_alias") in range(1, 6)


async def test_a_message_sent_again_does_not_rely_on_an_old_alias(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-7]: mappings end with their connection."""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5), topic_alias_maximum=5) as client:
            await client.subscribe(topic, qos=1)
            for number in range(12):
                await publisher.publish(topic, bytes([number]), qos=1)
                assert (await client.next()).rest == bytes([number])
        async with broker.client(present=True, **kept(5), topic_alias_maximum=5) as client:
            assert (await client.next()).topic == topic
        async with broker.client(present=True, **kept(5)) as client:
            for number in range(12):
                await client.gets(topic, bytes([number]), qos=1, dup=True)


async def test_a_large_number_of_topics_stays_within_the_aliases(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-26]"""
    async with broker.client(topic_alias_maximum=2) as client, broker.client("two") as publisher:
        await client.subscribe(f"{topic}/#")
        aliases = Aliases(client, 2)
        for number in range(100):
            publisher.send(wire.publish(f"{topic}/{number}"), wire.publish(f"{topic}/{number // 10}"))
        await publisher.settled()
        for number in range(100):
            assert (await aliases.next())[0] == f"{topic}/{number}"
            assert (await aliases.next())[0] == f"{topic}/{number // 10}"

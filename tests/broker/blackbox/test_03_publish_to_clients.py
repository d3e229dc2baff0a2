"""03: messages from the broker to its clients at QoS 0, 1 and 2 (MQTT 5 and 3.1.1, sections 3.3 to 3.7 and 4.3)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, levels, mosquitto_differs

WITH_A_SINK = True


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_dup_is_not_passed_on(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.3.1-3] [MQTT-2.2.1-2] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-3.3.1-2]; 3.1.1: [MQTT-3.3.1-3]
    3.1.1: [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-3.3.1-2] [MQTT-2.3.1-5]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        await publisher.publish(topic, b"p", qos=qos, dup=qos > 0)
        await subscriber.gets(topic, b"p", qos=qos, dup=False)


@levels
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_is_in_flight_has_different_packet_ids(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]; 3.1.1: [MQTT-2.3.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=qos)
        for number in range(10):
            await publisher.publish(topic, bytes([number]), qos=qos)
        ids = [await subscriber.gets(topic, bytes([number]), qos=qos, ack=False) for number in range(10)]
        assert len(set(ids)) == 10


@levels
async def test_a_message_of_qos_1_is_not_sent_again_on_the_same_connection(
    broker: Subject, topic: str, level: int
) -> None:
    """[MQTT-4.4.0-1] [MQTT-4.3.2-3]; 3.1.1: [MQTT-4.4.0-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1)
        packet_id = await subscriber.gets(topic, b"p", qos=1, ack=False)
        await subscriber.settled()
        subscriber.send(wire.puback(packet_id))
        await subscriber.settled()


@levels
async def test_a_pubrec_is_answered_by_a_pubrel_of_the_same_packet_id(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-4] [MQTT-2.2.1-5] [MQTT-3.6.1-1]; 3.1.1: [MQTT-4.3.3-1] [MQTT-2.3.1-6] [MQTT-3.6.1-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        await publisher.publish(topic, b"p", qos=2)
        packet_id = await subscriber.gets(topic, b"p", qos=2, ack=False)
        await subscriber.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
        subscriber.send(wire.pubcomp(packet_id))
        await subscriber.settled()


@levels
async def test_a_pubrec_sent_twice_is_answered_twice(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-4]; 3.1.1: [MQTT-4.3.3-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        await publisher.publish(topic, b"p", qos=2)
        packet_id = await subscriber.gets(topic, b"p", qos=2, ack=False)
        for _ in range(2):
            await subscriber.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))


@mosquitto_differs("says success")
async def test_a_pubrec_for_nothing_is_told_so(broker: Subject) -> None:
    """[MQTT-3.6.2-1]: 0x92, packet identifier not found (section 4.3.3 leaves the server no other PUBREL)."""
    async with broker.client() as client:
        await client.ask(wire.pubrec(77), wire.pubrel(77, 0x92))


@levels
@pytest.mark.parametrize("first", [wire.PUBACK, wire.PUBCOMP])
async def test_an_acknowledgement_of_nothing_is_let_pass(broker: Subject, level: int, first: int) -> None:
    """MQTT 5, section 4.13: not an error that the specification names."""
    async with broker.client(level=level) as client:
        client.send(wire.packet(first, wire.u16(77)))
        await client.settled()


@pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
async def test_a_puback_with_an_error_ends_the_delivery(broker: Subject, topic: str, reason: int) -> None:
    """[MQTT-4.4.0-2]"""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5)) as subscriber:
            await subscriber.subscribe(topic, qos=1)
            await publisher.publish(topic, b"p", qos=1)
            packet_id = await subscriber.gets(topic, b"p", qos=1, ack=False)
            subscriber.send(wire.puback(packet_id, reason, reason_string="no"))
            await subscriber.settled()
        async with broker.client(present=True, **kept(5)) as subscriber:
            await subscriber.settled()


@pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
async def test_a_pubrec_with_an_error_ends_the_delivery(broker: Subject, topic: str, reason: int) -> None:
    """[MQTT-4.4.0-2] [MQTT-4.3.3-4]: no PUBREL, and nothing sent again."""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5)) as subscriber:
            await subscriber.subscribe(topic, qos=2)
            await publisher.publish(topic, b"p", qos=2)
            packet_id = await subscriber.gets(topic, b"p", qos=2, ack=False)
            subscriber.send(wire.pubrec(packet_id, reason, user_property=("a", "b")))
            await subscriber.settled()
        async with broker.client(present=True, **kept(5)) as subscriber:
            await subscriber.settled()


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_come_in_the_order_of_their_publisher(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-4]; 3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-4]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=qos)
        for start in range(0, 50, 10):
            batch = [bytes([number]) for number in range(start, start + 10)]
            for payload in batch:
                await publisher.publish(topic, payload, qos=qos)
            ids = [await subscriber.gets(topic, payload, qos=qos, ack=False) for payload in batch]
            await subscriber.acknowledge(*ids, qos=qos)


@levels
async def test_one_message_reaches_clients_of_every_protocol_level(broker: Subject, topic: str, level: int) -> None:
    async with (
        broker.client("a", level=3) as old,
        broker.client("b", level=4) as usual,
        broker.client("c", level=5) as new,
        broker.client(level=level) as publisher,
    ):
        for subscriber in (old, usual, new):
            await subscriber.subscribe(topic, qos=2)
        await publisher.publish(topic, b"p", qos=2)
        for subscriber in (old, usual, new):
            await subscriber.gets(topic, b"p", qos=2)


@levels
async def test_a_subscriber_that_does_not_acknowledge_holds_up_nobody_else(
    broker: Subject, topic: str, level: int
) -> None:
    """MQTT 5, section 4.9: the window is of one connection."""
    async with (
        broker.client("a", level=level) as silent,
        broker.client("b", level=level) as subscriber,
        broker.client(level=level) as publisher,
    ):
        await silent.subscribe(topic, qos=1)
        await subscriber.subscribe(topic, qos=1)
        for number in range(40):
            await publisher.publish(topic, bytes([number]), qos=1)
            await subscriber.gets(topic, bytes([number]), qos=1)

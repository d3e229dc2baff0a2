"""03: messages from a client to the broker at QoS 0, 1 and 2 (MQTT 5 and 3.1.1, sections 3.3 to 3.7 and 4.3)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, levels, mosquitto_differs

WITH_A_SINK = True


@levels
@pytest.mark.parametrize("payload", [b"", b"\0", b"x" * 127, b"x" * 128, b"x" * 16_384, bytes(range(256)) * 1000])
async def test_a_payload_arrives_as_it_was_sent(broker: Subject, topic: str, level: int, payload: bytes) -> None:
    """MQTT 5, section 3.3.3."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        for qos in (0, 1, 2):
            await publisher.publish(topic, payload, qos=qos)
            await subscriber.gets(topic, payload, qos=qos)


@levels
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
async def test_a_publish_of_qos_1_gets_a_puback_with_its_packet_id(
    broker: Subject, topic: str, level: int, packet_id: int
) -> None:
    """[MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-2.2.1-5]; 3.1.1: [MQTT-3.3.4-1] [MQTT-4.3.2-2] [MQTT-2.3.1-6]"""
    async with broker.client(level=level) as client:
        client.send(wire.publish(topic, qos=1, packet_id=packet_id, level=level))
        await client.accepted(wire.PUBACK, packet_id)


@levels
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
async def test_a_publish_of_qos_2_gets_pubrec_and_pubcomp_with_its_packet_id(
    broker: Subject, topic: str, level: int, packet_id: int
) -> None:
    """[MQTT-3.3.4-1] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-2.2.1-5]; 3.1.1: [MQTT-3.3.4-1] [MQTT-4.3.3-2]
    3.1.1: [MQTT-2.3.1-6]"""
    async with broker.client(level=level) as client:
        client.send(wire.publish(topic, qos=2, packet_id=packet_id, level=level))
        await client.accepted(wire.PUBREC, packet_id)
        await client.ask(wire.pubrel(packet_id), wire.pubcomp(packet_id))


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_publish_nobody_listens_to_is_acknowledged_alike(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1]: with success or 0x10."""
    async with broker.client(level=level) as client:
        await client.publish(topic, qos=qos)
        await client.settled()


@levels
async def test_after_its_puback_a_packet_id_means_a_new_message(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.2-5]; 3.1.1: [MQTT-4.3.2-2]: whatever DUP says."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic)
        for dup in (False, True, True):
            publisher.send(wire.publish(topic, b"p", qos=1, packet_id=7, dup=dup, level=level))
            await publisher.accepted(wire.PUBACK, 7)
            await subscriber.gets(topic, b"p")


@levels
async def test_until_its_pubrel_a_packet_id_means_the_same_message(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-10]; 3.1.1: [MQTT-4.3.3-2]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        for dup in (False, True):
            publisher.send(wire.publish(topic, b"p", qos=2, packet_id=7, dup=dup, level=level))
            await publisher.accepted(wire.PUBREC, 7)
        await publisher.ask(wire.pubrel(7), wire.pubcomp(7))
        await subscriber.gets(topic, b"p", qos=2)
        await subscriber.settled()


@levels
@mosquitto_differs("closes at the second duplicate")
async def test_a_message_of_qos_2_sent_many_times_is_delivered_once(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-10]; 3.1.1: [MQTT-4.3.3-2]; CVE-2023-28366"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        for attempt in range(5):
            publisher.send(wire.publish(topic, b"p", qos=2, packet_id=7, dup=attempt > 0, level=level))
            await publisher.accepted(wire.PUBREC, 7)
        await publisher.ask(wire.pubrel(7), wire.pubcomp(7))
        await subscriber.gets(topic, b"p", qos=2)
        await subscriber.settled()


@levels
async def test_after_its_pubcomp_a_packet_id_means_a_new_message(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-12]; 3.1.1: [MQTT-4.3.3-2]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic)
        for dup in (False, True):
            publisher.send(wire.publish(topic, b"p", qos=2, packet_id=7, dup=dup, level=level))
            await publisher.accepted(wire.PUBREC, 7)
            await publisher.ask(wire.pubrel(7), wire.pubcomp(7))
            await subscriber.gets(topic, b"p")


@levels
async def test_qos_1_and_2_share_their_packet_ids_with_subscribe_in_no_way(
    broker: Subject, topic: str, level: int
) -> None:
    """MQTT 5, section 2.2.1: a server's and a client's packet ids are independent of each other."""
    async with broker.client(level=level) as client:
        await client.subscribe(topic, qos=1)
        for number in range(3):
            client.send(wire.publish(topic, bytes([number]), qos=1, packet_id=1, level=level))
            got = sorted([await client.next(), await client.next()])
            assert [packet.first for packet in got] == [0x32, wire.PUBACK]
            client.send(wire.puback(got[0].packet_id))
        await client.settled()


@mosquitto_differs("says success")
async def test_a_pubrel_without_a_publish_is_told_so(broker: Subject) -> None:
    """[MQTT-4.3.3-11] [MQTT-3.7.2-1]: 0x92, packet identifier not found."""
    async with broker.client() as client:
        await client.ask(wire.pubrel(77), wire.pubcomp(77, 0x92))


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_a_pubrel_without_a_publish_is_completed(broker: Subject, level: int) -> None:
    """3.1.1: [MQTT-4.3.3-2]"""
    async with broker.client(level=level) as client:
        await client.ask(wire.pubrel(77), wire.pubcomp(77))


@levels
async def test_a_pubrel_sent_twice_is_completed_twice(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-11]; 3.1.1: [MQTT-4.3.3-2]"""
    async with broker.client(level=level) as client:
        await client.publish(topic, qos=2)
        client.send(wire.pubrel(1))
        again = await client.next()
        assert (again.first, again.packet_id) == (wire.PUBCOMP, 1)


async def test_a_pubrel_with_a_reason_code_and_properties_is_taken(broker: Subject, topic: str) -> None:
    """[MQTT-3.6.2-1]"""
    async with broker.client() as client:
        client.send(wire.publish(topic, qos=2, packet_id=5))
        await client.accepted(wire.PUBREC, 5)
        await client.ask(
            wire.pubrel(5, 0x92, reason_string="lost", user_property=("a", "b")),
            wire.pubcomp(5),
        )


@levels
async def test_pipelined_publishes_of_qos_1_are_acknowledged_in_order(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.2-4] [MQTT-4.6.0-2] [MQTT-4.6.0-5] [MQTT-4.6.0-6]
    3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-2]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=1)
        publisher.send(
            *[wire.publish(topic, bytes([number]), qos=1, packet_id=number, level=level) for number in range(1, 16)]
        )
        for number in range(1, 16):
            await publisher.accepted(wire.PUBACK, number)
            await subscriber.gets(topic, bytes([number]), qos=1)


@levels
async def test_pipelined_publishes_of_qos_2_are_received_in_order(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-8] [MQTT-4.6.0-3] [MQTT-4.6.0-5]; 3.1.1: [MQTT-4.6.0-6] [MQTT-4.6.0-3]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=2)
        numbers = range(1, 16)
        publisher.send(
            *[wire.publish(topic, bytes([number]), qos=2, packet_id=number, level=level) for number in numbers]
        )
        for number in numbers:
            await publisher.accepted(wire.PUBREC, number)
        publisher.send(*[wire.pubrel(number) for number in numbers])
        for number in numbers:
            await publisher.expect(wire.pubcomp(number))
        ids = [await subscriber.gets(topic, bytes([number]), qos=2, ack=False) for number in numbers]
        await subscriber.acknowledge(*ids, qos=2)


@levels
async def test_a_packet_may_come_in_pieces_and_many_at_once(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.2-1]; 3.1.1: [MQTT-7.1.1-1]"""
    async with broker.client(level=level) as client:
        await client.subscribe(topic)
        stream = b"".join(wire.publish(topic, bytes([number]), level=level) for number in range(20))
        for at in range(0, len(stream), 7):
            client.send(stream[at : at + 7])
            await client.writer.drain()
        for number in range(20):
            await client.gets(topic, bytes([number]))

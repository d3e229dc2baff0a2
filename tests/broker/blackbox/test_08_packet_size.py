"""08: how large a packet may be, both ways (MQTT 5, sections 3.1.2.11.4 and 3.2.2.3.6)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, levels, mosquitto_differs

WITH_A_SINK = True

LIMIT = 2_000
NATIVE = {"max_packet_bytes": LIMIT}
MOSQUITTO = f"max_packet_size {LIMIT}"


def message_of(topic: str, size: int, **fields: int) -> bytes:
    """A payload that makes a PUBLISH of exactly `size` bytes."""
    spare = size - len(wire.publish(topic, b"", **fields))
    payload = b"x" * spare
    while len(wire.publish(topic, payload, **fields)) > size:
        payload = payload[1:]
    assert len(wire.publish(topic, payload, **fields)) == size
    return payload


# --- to the client


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_much_larger_than_the_client_takes_is_not_sent(broker: Subject, topic: str, qos: int) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    async with broker.client(maximum_packet_size=100) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=qos)
        await publisher.publish(topic, b"x" * 110, qos=qos)
        await client.settled()
        await publisher.publish(topic, b"x" * 80, qos=qos)
        await client.gets(topic, b"x" * 80, qos=qos)


@pytest.mark.parametrize("qos", [0, 1, 2])
@mosquitto_differs("does not count all of the fixed header")
async def test_a_message_larger_than_the_client_takes_is_not_sent(broker: Subject, topic: str, qos: int) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    async with broker.client(maximum_packet_size=100) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=qos)
        await publisher.publish(topic, message_of(topic, 101, qos=qos), qos=qos)
        await client.settled()
        await publisher.publish(topic, message_of(topic, 100, qos=qos), qos=qos)
        await client.gets(topic, message_of(topic, 100, qos=qos), qos=qos)


@pytest.mark.parametrize("qos", [1, 2])
@mosquitto_differs("lets it block the window")
async def test_what_was_too_large_is_done_with(broker: Subject, topic: str, qos: int) -> None:
    """[MQTT-3.1.2-25]: it takes no room in the window and does not come after a reconnect."""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5), maximum_packet_size=100, receive_maximum=1) as client:
            await client.subscribe(topic, qos=qos)
            for _ in range(3):
                await publisher.publish(topic, b"x" * 200, qos=qos)
            await publisher.publish(topic, b"small", qos=qos)
            await client.gets(topic, b"small", qos=qos)
        async with broker.client(present=True, **kept(5)) as client:
            await client.settled()


async def test_others_get_what_is_too_large_for_one(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-24]"""
    async with (
        broker.client("a", maximum_packet_size=100) as small,
        broker.client("b") as large,
        broker.client() as publisher,
    ):
        await small.subscribe(topic, qos=1)
        await large.subscribe(topic, qos=1)
        await publisher.publish(topic, b"x" * 200, qos=1)
        await large.gets(topic, b"x" * 200, qos=1)
        await small.settled()


async def test_a_retained_message_too_large_is_not_sent(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-24]"""
    async with broker.client(maximum_packet_size=100) as client, broker.client("two") as publisher:
        await publisher.publish(topic, b"x" * 200, retain=True)
        await client.subscribe(topic)
        await client.settled()


async def test_what_waited_and_is_too_large_for_the_new_connection_is_not_sent(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5)) as client:
            await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"x" * 200, qos=1)
        await publisher.publish(topic, b"small", qos=1)
        async with broker.client(present=True, **kept(5), maximum_packet_size=100) as client:
            await client.gets(topic, b"small", qos=1)
            await client.settled()


async def test_properties_count(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-24]"""
    async with broker.client(maximum_packet_size=100) as client, broker.client("two") as publisher:
        await client.subscribe(topic)
        await publisher.publish(topic, b"", user_property=("a", "x" * 100))
        await client.settled()


async def test_a_reason_string_is_left_out_where_there_is_no_room(broker: Subject, topic: str) -> None:
    """[MQTT-3.11.2-1] [MQTT-3.9.2-1] [MQTT-3.14.2-3]"""
    async with broker.client(maximum_packet_size=20) as client:
        for wrong in (
            wire.unsubscribe(topic),
            wire.pubrel(77),
            wire.pubrec(78),
            wire.subscribe("a+"),
            wire.publish("a", topic_alias=0),
        ):
            client.send(wrong, wire.pingreq())
        sent = await client.everything()
        assert all(len(packet) <= 20 for packet in wire.packets(sent))


@pytest.mark.parametrize("size", [1, 2, 5, 10, 20])
async def test_a_connack_is_no_larger_than_the_client_takes(broker: Subject, size: int) -> None:
    """[MQTT-3.1.2-24]"""
    async with broker.raw() as client:
        client.send(wire.connect(client.client_id, maximum_packet_size=size), wire.pingreq())
        sent = await client.everything(stop=wire.pingresp())
        assert all(len(packet) <= size for packet in wire.packets(sent))


# --- to the server


async def test_the_server_says_how_large_a_packet_it_takes(broker: Subject) -> None:
    """[MQTT-3.2.2-15]"""
    async with broker.client() as client:
        assert client.connack.get("maximum_packet_size") == LIMIT


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_packet_of_the_greatest_size_is_taken(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.2.2-15]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=qos)
        payload = message_of(topic, LIMIT, qos=qos, level=level)
        await publisher.publish(topic, payload, qos=qos)
        await subscriber.gets(topic, payload, qos=qos)


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_much_larger_packet_closes_the_connection(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.2.2-15] [MQTT-4.13.1-1]: 0x95, packet too large."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic)
        publisher.send(wire.publish(topic, b"x" * LIMIT, qos=qos, level=level))
        await publisher.closed(0x95)
        await subscriber.settled()


@levels
@pytest.mark.parametrize("qos", [0, 1, 2])
@mosquitto_differs("does not count all of the fixed header")
async def test_a_larger_packet_closes_the_connection(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.2.2-15] [MQTT-4.13.1-1]: 0x95, packet too large."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic)
        payload = message_of(topic, LIMIT + 1, qos=qos, level=level)
        await publisher.dies_of(wire.publish(topic, payload, qos=qos, level=level), 0x95)
        await subscriber.settled()


@levels
@pytest.mark.parametrize("qos", [0, 1])
async def test_what_stands_before_a_larger_packet_is_delivered(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """MQTT 5, section 4.13.1."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=qos)
        sizes = [10, 10, 10, 1900, 1900, 100, LIMIT + 50, 10]
        publisher.send(
            *[
                wire.publish(topic, b"x" * size, qos=qos, packet_id=number, level=level)
                for number, size in enumerate(sizes, 1)
            ]
        )
        await publisher.everything()
        assert [len(packet.rest) for packet in await subscriber.all_before_pingresp()] == sizes[:6]


@pytest.mark.parametrize("first", [wire.PUBLISH, wire.SUBSCRIBE, wire.UNSUBSCRIBE])
async def test_a_larger_packet_is_refused_before_it_has_come(broker: Subject, first: int) -> None:
    """MQTT 5, section 4.13.1: on its fixed header."""
    async with broker.client() as client:
        client.send(bytes([first]) + wire.varint(268_435_455))
        await client.closed(0x95)


@levels
async def test_after_connect_a_connection_is_closed_for_a_length_never_sent(broker: Subject, level: int) -> None:
    """MQTT 5, section 2.1.4: 0xFF 0xFF 0xFF 0x7F is the greatest remaining length."""
    async with broker.client(level=level) as client:
        client.send(b"\x30\xff\xff\xff\x7f")
        await client.closed(0x95)

"""08: how many messages may be under way, both ways (MQTT 5, sections 3.1.2.11.3, 3.2.2.3.3 and 4.9)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, mosquitto_differs

WITH_A_SINK = True

NATIVE = {"max_undone": 20}
MOSQUITTO = "max_inflight_messages 20"


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("maximum", [1, 3])
async def test_a_client_gets_no_more_at_once_than_it_said(broker: Subject, topic: str, qos: int, maximum: int) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]"""
    async with broker.client(receive_maximum=maximum) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=qos)
        for number in range(6):
            await publisher.publish(topic, bytes([number]), qos=qos)
        for start in range(0, 6, maximum):
            numbers = range(start, start + maximum)
            ids = [await client.gets(topic, bytes([number]), qos=qos, ack=False) for number in numbers]
            await client.settled()
            await client.acknowledge(*ids, qos=qos)


async def test_each_acknowledgement_makes_room_for_one(broker: Subject, topic: str) -> None:
    """[MQTT-4.9.0-2]"""
    async with broker.client(receive_maximum=2) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=1)
        for number in range(5):
            await publisher.publish(topic, bytes([number]), qos=1)
        waiting = [await client.gets(topic, bytes([number]), qos=1, ack=False) for number in range(2)]
        for number in range(2, 5):
            await client.settled()
            await client.acknowledge(waiting.pop(), qos=1)
            waiting.append(await client.gets(topic, bytes([number]), qos=1, ack=False))


async def test_pubrec_makes_no_room_but_pubcomp_does(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-9]"""
    async with broker.client(receive_maximum=1) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=2)
        for number in range(2):
            await publisher.publish(topic, bytes([number]), qos=2)
        packet_id = await client.gets(topic, b"\x00", qos=2, ack=False)
        await client.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
        await client.settled()
        client.send(wire.pubcomp(packet_id))
        await client.gets(topic, b"\x01", qos=2)


async def test_a_pubrec_with_an_error_makes_room(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.4.0-2]"""
    async with broker.client(receive_maximum=1) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=2)
        for number in range(2):
            await publisher.publish(topic, bytes([number]), qos=2)
        packet_id = await client.gets(topic, b"\x00", qos=2, ack=False)
        client.send(wire.pubrec(packet_id, 0x83))
        await client.gets(topic, b"\x01", qos=2)


async def test_a_full_window_holds_up_nothing_else(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-10] [MQTT-4.9.0-3]"""
    async with broker.client(receive_maximum=1) as client, broker.client("two") as publisher:
        await client.subscribe(f"{topic}/one", qos=1)
        for number in range(3):
            await publisher.publish(f"{topic}/one", bytes([number]), qos=1)
        packet_id = await client.gets(f"{topic}/one", b"\x00", qos=1, ack=False)
        await client.subscribe(f"{topic}/none")
        await publisher.publish(f"{topic}/none")
        await client.gets(f"{topic}/none")
        await client.publish(f"{topic}/other", qos=1)
        await client.unsubscribe(f"{topic}/none")
        client.send(wire.puback(packet_id))
        await client.gets(f"{topic}/one", b"\x01", qos=1)


@mosquitto_differs("sends all at once")
async def test_what_is_sent_again_respects_the_new_connections_maximum(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.4.0-1]"""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5), receive_maximum=5) as client:
            await client.subscribe(topic, qos=1)
            for number in range(4):
                await publisher.publish(topic, bytes([number]), qos=1)
                await client.gets(topic, bytes([number]), qos=1, ack=False)
        async with broker.client(present=True, **kept(5), receive_maximum=2) as client:
            first = await client.gets(topic, b"\x00", qos=1, dup=True, ack=False)
            second = await client.gets(topic, b"\x01", qos=1, dup=True, ack=False)
            await client.settled()
            await client.acknowledge(first, second, qos=1)
            await client.gets(topic, b"\x02", qos=1, dup=True)
            await client.gets(topic, b"\x03", qos=1, dup=True)
            await client.settled()


async def test_without_a_receive_maximum_there_is_room(broker: Subject, topic: str) -> None:
    """MQTT 5, section 3.1.2.11.3: absent means 65,535; a server may send fewer."""
    async with broker.client() as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=1)
        for number in range(15):
            await publisher.publish(topic, bytes([number]), qos=1)
        for number in range(15):
            await client.gets(topic, bytes([number]), qos=1, ack=False)


# --- from the client


async def test_the_server_says_how_much_it_takes_at_once(broker: Subject) -> None:
    """[MQTT-4.9.0-1]"""
    async with broker.client() as client:
        assert client.connack.get("receive_maximum") == 20


async def test_as_many_as_the_server_said_are_taken(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-7]"""
    async with broker.client() as client:
        for packet_id in range(1, 21):
            client.send(wire.publish(topic, qos=2, packet_id=packet_id))
            await client.accepted(wire.PUBREC, packet_id)
        await client.settled()
        for packet_id in range(1, 21):
            await client.ask(wire.pubrel(packet_id), wire.pubcomp(packet_id))
        await client.publish(topic, qos=2)


@mosquitto_differs("refuses the message instead, with 0x97")
async def test_one_more_than_the_server_said_is_too_many(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-7] [MQTT-4.13.1-1]: 0x93, receive maximum exceeded."""
    async with broker.client() as client:
        for packet_id in range(1, 21):
            client.send(wire.publish(topic, qos=2, packet_id=packet_id))
            await client.accepted(wire.PUBREC, packet_id)
        client.send(wire.publish(topic, qos=2, packet_id=21))
        await client.closed(0x93)


@mosquitto_differs("refuses the message instead, with 0x97")
async def test_one_of_qos_1_more_than_the_server_said_is_too_many(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.4-7] [MQTT-4.13.1-1]"""
    async with broker.client() as client:
        for packet_id in range(1, 21):
            client.send(wire.publish(topic, qos=2, packet_id=packet_id))
            await client.accepted(wire.PUBREC, packet_id)
        client.send(wire.publish(topic, qos=1, packet_id=21))
        await client.closed(0x93)


async def test_qos_0_does_not_count(broker: Subject, topic: str) -> None:
    """[MQTT-4.9.0-3]"""
    async with broker.client() as client:
        for packet_id in range(1, 21):
            client.send(wire.publish(topic, qos=2, packet_id=packet_id))
            await client.accepted(wire.PUBREC, packet_id)
        for _ in range(5):
            await client.publish(topic)
        await client.subscribe(topic)


async def test_the_same_message_again_does_not_count_twice(broker: Subject, topic: str) -> None:
    """[MQTT-4.3.3-10]"""
    async with broker.client() as client:
        for packet_id in range(1, 21):
            client.send(wire.publish(topic, qos=2, packet_id=packet_id))
            await client.accepted(wire.PUBREC, packet_id)
        client.send(wire.publish(topic, qos=2, packet_id=20, dup=True))
        await client.accepted(wire.PUBREC, 20)


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_older_clients_may_send_more(broker: Subject, topic: str, level: int) -> None:
    """They know of no maximum: nothing is closed."""
    async with broker.client(level=level) as client:
        numbers = range(1, 61)
        client.send(*[wire.publish(topic, qos=1, packet_id=number, level=level) for number in numbers])
        for number in numbers:
            await client.accepted(wire.PUBACK, number)

"""05: what is sent again after a reconnect, and what is not (MQTT 5 and 3.1.1, sections 4.3 and 4.4)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, levels

WITH_A_SINK = True


@levels
@pytest.mark.parametrize("qos", [1, 2])
async def test_an_unacknowledged_message_comes_again_with_dup_and_its_packet_id(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3]; 3.1.1: [MQTT-4.4.0-1] [MQTT-3.3.1-1]
    3.1.1: [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-2.3.1-4]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=qos)
            await publisher.publish(topic, b"p", qos=qos)
            packet_id = await client.gets(topic, b"p", qos=qos, ack=False)
        for _ in range(2):
            async with broker.client(level=level, present=True, **kept(level)) as client:
                assert await client.gets(topic, b"p", qos=qos, dup=True, ack=False) == packet_id
                await client.settled()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.gets(topic, b"p", qos=qos, dup=True)
            await client.settled()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.settled()


@levels
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_comes_again_comes_in_its_order_before_anything_new(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """[MQTT-4.6.0-1] [MQTT-4.6.0-5] [MQTT-4.4.0-1]; 3.1.1: [MQTT-4.6.0-1] [MQTT-4.6.0-6]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=qos)
            for number in range(6):
                await publisher.publish(topic, bytes([number]), qos=qos)
            ids = [await client.gets(topic, bytes([number]), qos=qos, ack=False) for number in range(6)]
        for number in range(6, 9):
            await publisher.publish(topic, bytes([number]), qos=qos)
        async with broker.client(level=level, present=True, **kept(level)) as client:
            again = [await client.gets(topic, bytes([number]), qos=qos, dup=True, ack=False) for number in range(6)]
            assert again == ids
            new = [await client.gets(topic, bytes([number]), qos=qos, ack=False) for number in range(6, 9)]
            assert not set(new) & set(ids)
            await client.acknowledge(*again, *new, qos=qos)
            await client.settled()


@levels
async def test_after_pubrec_it_is_the_pubrel_that_comes_again(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.4.0-1] [MQTT-4.3.3-5] [MQTT-4.3.3-6]; 3.1.1: [MQTT-4.4.0-1] [MQTT-4.3.3-1]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=2)
            await publisher.publish(topic, b"p", qos=2)
            packet_id = await client.gets(topic, b"p", qos=2, ack=False)
            await client.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
        for _ in range(2):
            async with broker.client(level=level, present=True, **kept(level)) as client:
                await client.expect(wire.pubrel(packet_id))
                await client.settled()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.expect(wire.pubrel(packet_id))
            client.send(wire.pubcomp(packet_id))
            await client.settled()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.settled()


@levels
async def test_only_what_is_unfinished_comes_again(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.4.0-1]; 3.1.1: [MQTT-4.4.0-1]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=2)
            ids = []
            for number in range(4):
                await publisher.publish(topic, bytes([number]), qos=2)
                ids.append(await client.gets(topic, bytes([number]), qos=2, ack=False))
            await client.acknowledge(ids[1], qos=2)
            await client.ask(wire.pubrec(ids[2]), wire.pubrel(ids[2]))
        async with broker.client(level=level, present=True, **kept(level)) as client:
            got = sorted((packet.first, packet.packet_id) for packet in await client.all_before_pingresp())
            assert got == sorted([(0x3C, ids[0]), (wire.PUBREL, ids[2]), (0x3C, ids[3])])


@levels
async def test_a_message_of_qos_2_sent_again_after_a_reconnect_is_delivered_once(
    broker: Subject, topic: str, level: int
) -> None:
    """[MQTT-4.3.3-10]; 3.1.1: [MQTT-4.3.3-2] [MQTT-2.3.1-3]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, **kept(level)) as publisher:
            publisher.send(wire.publish(topic, b"p", qos=2, packet_id=9, level=level))
            await publisher.accepted(wire.PUBREC, 9)
        async with broker.client(level=level, present=True, **kept(level)) as publisher:
            publisher.send(wire.publish(topic, b"p", qos=2, packet_id=9, dup=True, level=level))
            await publisher.accepted(wire.PUBREC, 9)
            await publisher.ask(wire.pubrel(9), wire.pubcomp(9))
        await watcher.gets(topic, b"p")
        await watcher.settled()


@levels
async def test_a_pubrel_after_a_reconnect_completes_the_message(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.3-11]; 3.1.1: [MQTT-4.3.3-2]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, **kept(level)) as publisher:
            publisher.send(wire.publish(topic, b"p", qos=2, packet_id=9, level=level))
            await publisher.accepted(wire.PUBREC, 9)
        async with broker.client(level=level, present=True, **kept(level)) as publisher:
            await publisher.ask(wire.pubrel(9), wire.pubcomp(9))
        await watcher.gets(topic, b"p")
        await watcher.settled()


@levels
async def test_a_clean_start_forgets_what_was_received_of_qos_2(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-4]; 3.1.1: [MQTT-3.1.2-6]: the packet id means a new message."""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic)
        async with broker.client(level=level, **kept(level)) as publisher:
            await publisher.publish(topic, b"1", qos=2)
            publisher.send(wire.publish(topic, b"2", qos=2, packet_id=9, level=level))
            await publisher.accepted(wire.PUBREC, 9)
        async with broker.client(level=level, clean=True) as publisher:
            publisher.send(wire.publish(topic, b"3", qos=2, packet_id=9, level=level))
            await publisher.accepted(wire.PUBREC, 9)
            await publisher.ask(wire.pubrel(9), wire.pubcomp(9))
        got = [packet.rest for packet in await watcher.all_before_pingresp()]
        assert [payload for payload in got if payload != b"2"] == [b"1", b"3"]


async def test_a_message_is_sent_again_with_its_properties(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-17] [MQTT-3.3.2-20]"""
    said = {"content_type": "text/plain", "user_property": [("b", "1"), ("a", "2")]}
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5)) as client:
            await client.subscribe(topic, qos=1, subscription_identifier=7)
            await publisher.publish(topic, b"p", qos=1, **said)
            await client.gets(topic, b"p", qos=1, ack=False, subscription_identifier=7, **said)
        async with broker.client(present=True, **kept(5)) as client:
            await client.gets(topic, b"p", qos=1, dup=True, subscription_identifier=7, **said)


async def test_the_options_of_a_subscription_are_kept(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-5] [MQTT-3.8.3-3] [MQTT-3.3.1-13]"""
    async with broker.client("two") as publisher:
        async with broker.client(**kept(5)) as client:
            await client.subscribe(topic, qos=1, no_local=True, as_published=True, subscription_identifier=300)
        async with broker.client(present=True, **kept(5)) as client:
            await client.publish(topic, b"mine", qos=1)
            await publisher.publish(topic, b"theirs", qos=1, retain=True)
            await client.gets(topic, b"theirs", qos=1, retain=True, subscription_identifier=300)

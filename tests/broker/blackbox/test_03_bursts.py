"""03: many packets in one write, of many kinds: each is worked off as if it had come alone (MQTT 5, section 4.6)."""

import asyncio
import random
from collections import defaultdict
from typing import Any, NamedTuple

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, Subject, levels, together

WITH_A_SINK = True
MOSQUITTO = "max_inflight_messages 500"

pairs = pytest.mark.parametrize(("sent", "heard"), [(4, 4), (5, 5), (4, 5), (5, 4), (3, 5), (5, 3)])


class Said(NamedTuple):
    """A message of a burst."""

    topic: str
    payload: bytes
    qos: int = 0
    properties: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


async def all_arrive(subscriber: Client, messages: list[Said], qos: int = 2) -> None:
    """All messages arrive once, those of one topic and QoS in their order; they are acknowledged to the end."""
    wanted, got = defaultdict(list), defaultdict(list)
    for said in messages:
        values = wire.parse(wire.publish("", **said.properties)).properties if subscriber.level == 5 else ()
        wanted[said.topic, min(said.qos, qos)].append((said.payload, values))
    missing = len(messages)
    while missing or [key for key in got if key[1] == 2]:
        packet = await subscriber.next()
        if packet.first & 0xF0 == wire.PUBLISH:
            assert not packet.first & 0x09, "DUP or RETAIN"
            arrived = packet.first >> 1 & 3
            got[packet.topic, arrived].append((packet.rest, packet.properties))
            missing -= 1
            if arrived:
                subscriber.send((wire.puback if arrived == 1 else wire.pubrec)(packet.packet_id))
        else:
            assert packet.first == wire.PUBREL
            subscriber.send(wire.pubcomp(packet.packet_id))
        if not missing:
            break
    assert got == wanted
    subscriber.send(wire.pingreq())
    while (packet := await subscriber.next()).first != wire.PINGRESP:
        assert packet.first == wire.PUBREL
        subscriber.send(wire.pubcomp(packet.packet_id))


async def all_acknowledged(publisher: Client, messages: list[Said]) -> None:
    """Each message is acknowledged with its packet id, its place among those of QoS 1 and 2, in order."""
    kinds = [said.qos for said in messages if said.qos]
    expected = [(wire.PUBACK if qos == 1 else wire.PUBREC, number) for number, qos in enumerate(kinds, 1)]
    for first, packet_id in expected:
        while (packet := await publisher.next()).first == wire.PUBCOMP:
            pass
        assert (packet.first, packet.packet_id) == (first, packet_id)
        assert publisher.level < 5 or packet.reason in (0x00, 0x10)
        if first == wire.PUBREC:
            publisher.send(wire.pubrel(packet_id))


def packets_of(messages: list[Said], level: int) -> bytes:
    raw, packet_id = b"", 0
    for said in messages:
        packet_id += said.qos > 0
        values = said.properties if level == 5 else {}
        raw += wire.publish(said.topic, said.payload, qos=said.qos, packet_id=packet_id, level=level, **values)
    return raw


async def write(client: Client, raw: bytes, sizes: random.Random | None = None) -> None:
    """All at once, or in pieces of random sizes."""
    while raw:
        size = sizes.choice((1, 2, 3, 7, 50, 300, 2000)) if sizes else len(raw)
        client.send(raw[:size])
        raw = raw[size:]
        await client.writer.drain()
        await asyncio.sleep(0)


@pairs
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_run_of_like_messages_arrives(
    broker: Subject, topic: str, sent: int, heard: int, granted: int, qos: int
) -> None:
    """[MQTT-4.6.0-5] [MQTT-3.8.4-8] [MQTT-4.6.0-2] [MQTT-4.6.0-3]; 3.1.1: [MQTT-4.6.0-6] [MQTT-3.8.4-6]"""
    async with broker.client("two", level=heard) as subscriber, broker.client(level=sent) as publisher:
        await subscriber.subscribe(topic, qos=granted)
        messages = [Said(topic, b"%03d" % number, qos) for number in range(100)]
        await write(publisher, packets_of(messages, sent))
        await together(all_acknowledged(publisher, messages), all_arrive(subscriber, messages, granted))


@pairs
@pytest.mark.parametrize("seed", range(6))
async def test_a_mix_of_messages_arrives_however_it_is_cut(
    broker: Subject, topic: str, sent: int, heard: int, seed: int
) -> None:
    """[MQTT-4.6.0-5] [MQTT-4.2-1] [MQTT-3.3.2-18]; 3.1.1: [MQTT-4.6.0-6] [MQTT-7.1.1-1]"""
    chance = random.Random(seed)
    messages: list[Said] = []
    while len(messages) < 150:
        one = Said(
            topic=f"{topic}/{chance.choice('aab')}",
            payload=bytes([chance.randrange(256)]) * chance.choice((0, 1, 5, 5, 5, 110, 125, 130, 300)),
            qos=chance.choice((0, 0, 1, 1, 2)),
            properties={"user_property": [("n", "v")]} if sent == 5 and chance.random() < 0.1 else {},
        )
        messages += [one] * chance.choice((1, 1, 2, 10))
    async with broker.client("two", level=heard) as subscriber, broker.client(level=sent) as publisher:
        await subscriber.subscribe(f"{topic}/+", qos=2)
        await write(publisher, packets_of(messages, sent), chance if seed % 2 else None)
        await together(all_acknowledged(publisher, messages), all_arrive(subscriber, messages))


@levels
async def test_subscribing_between_messages_makes_a_difference_at_once(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.8.4-1] [MQTT-3.10.4-2]; 3.1.1: [MQTT-3.8.4-1] [MQTT-3.10.4-2]"""
    async with broker.client(level=level) as client:
        same = wire.publish(topic, b"p", level=level)
        client.send(same * 3, wire.subscribe(topic, packet_id=5, level=level), same * 3)
        client.send(wire.unsubscribe(topic, packet_id=6, level=level), same * 3, wire.pingreq())
        await client.expect(wire.suback(0, packet_id=5, level=level))
        for _ in range(3):
            await client.gets(topic, b"p")
        await client.expect(wire.unsuback(*[0] * (level == 5), packet_id=6, level=level))
        await client.expect(wire.pingresp())


@levels
@pytest.mark.parametrize("qos", [0, 1])
async def test_retain_among_like_messages_is_seen(broker: Subject, topic: str, level: int, qos: int) -> None:
    """[MQTT-3.3.1-5] [MQTT-3.3.1-8]; 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-12]"""
    async with broker.client(level=level) as client:
        for packet_id, (payload, retain) in enumerate([(b"1", False), (b"2", True), (b"3", False)], 1):
            client.send(wire.publish(topic, payload, qos=qos, packet_id=packet_id, retain=retain, level=level))
        for packet_id in range(1, 4) if qos else ():
            await client.accepted(wire.PUBACK, packet_id)
        await client.subscribe(topic)
        await client.gets(topic, b"2", retain=True)


@levels
@pytest.mark.parametrize("place", [0, 1, 9])
async def test_a_packet_id_of_0_in_a_run_ends_it_there(broker: Subject, topic: str, level: int, place: int) -> None:
    """[MQTT-2.2.1-3]; 3.1.1: [MQTT-2.3.1-1]: what came before is delivered."""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(topic, qos=1)
        ids = [0 if number == place else number + 1 for number in range(10)]
        publisher.send(*[wire.publish(topic, bytes([one]), qos=1, packet_id=one, level=level) for one in ids])
        await publisher.everything()
        got = [packet.rest for packet in await subscriber.all_before_pingresp()]
        assert got == [bytes([one]) for one in ids[:place]]


async def test_properties_in_a_run_are_seen(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-17]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1)
        plain = [Said(topic, b"12345", 1)] * 3
        rich = [Said(topic, b"", 1, {"content_type": "x"}), Said(topic, b"1", 1, {"content_type": "y"})]
        messages = [*plain, *rich, *plain]
        await write(publisher, packets_of(messages, 5))
        await together(all_acknowledged(publisher, messages), all_arrive(subscriber, messages))


@levels
async def test_a_run_reaches_every_kind_of_subscriber(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.5.0-1] [MQTT-3.3.4-3] [MQTT-3.3.1-13]; 3.1.1: [MQTT-4.5.0-1]"""
    async with (
        broker.client("a", level=3) as old,
        broker.client("b", level=4) as usual,
        broker.client("c", level=5) as new,
        broker.client("d", level=5, receive_maximum=2) as slow,
        broker.client("e", level=5) as member,
        broker.client(level=level) as publisher,
    ):
        await old.subscribe(topic, qos=0)
        await usual.subscribe(topic, qos=1)
        await new.subscribe(topic, qos=1)
        await slow.subscribe(topic, qos=1)
        await member.subscribe(f"$share/group/{topic}", qos=1)
        messages = [Said(topic, b"%03d" % number, 1) for number in range(40)]
        await write(publisher, packets_of(messages, level))
        await together(
            all_acknowledged(publisher, messages),
            all_arrive(old, messages, 0),
            all_arrive(usual, messages, 1),
            all_arrive(new, messages, 1),
            all_arrive(slow, messages, 1),
            all_arrive(member, messages, 1),
        )


@levels
@pytest.mark.parametrize("qos", [0, 1])
async def test_what_stands_before_a_malformed_packet_is_delivered(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """MQTT 5, section 4.13.1; [MQTT-1.5.4-1]; 3.1.1: [MQTT-1.5.3-1]"""
    async with broker.client("two", level=level) as subscriber, broker.client(level=level) as publisher:
        await subscriber.subscribe(f"{topic}/#", qos=qos)
        messages = [Said(f"{topic}/a", b"%03d" % number, qos) for number in range(20)]
        wrong = wire.publish(f"{topic}/".encode() + b"\xff", b"000", level=level)
        publisher.send(packets_of(messages, level) + wrong + packets_of(messages, level))
        await publisher.everything()
        got = [packet.rest for packet in await subscriber.all_before_pingresp()]
        assert got == [said.payload for said in messages]


@pairs
async def test_a_message_alone_in_its_read_reaches_who_is_there_now(
    broker: Subject, topic: str, sent: int, heard: int
) -> None:
    """[MQTT-4.5.0-1] [MQTT-3.10.4-2] [MQTT-3.8.4-3]; 3.1.1: [MQTT-4.5.0-1] [MQTT-3.10.4-2] [MQTT-3.8.4-3]"""
    async with broker.client("a", level=heard) as first, broker.client(level=sent) as publisher:

        async def reaches(*subscribers: Client, payload: bytes = b"12345") -> None:
            for _ in range(3):
                publisher.send(wire.publish(topic, payload, level=sent))
                for subscriber in subscribers:
                    await subscriber.gets(topic, payload)

        await first.subscribe(topic)
        await reaches(first)
        async with broker.client("b", level=heard) as second, broker.client("c", level=sent) as third:
            await second.subscribe(topic)
            await reaches(first, second)
            await third.subscribe(topic, qos=2)
            await reaches(first, second, third)
            await first.unsubscribe(topic)
            await reaches(second, third, payload=b"54321")
            await first.settled()
            await second.leave()
            await reaches(third)
            await first.subscribe(f"{topic}/#")
            await reaches(first, third)
        await reaches(first)
        await publisher.publish(topic, b"12345", retain=True)
        await first.gets(topic, b"12345")
        await reaches(first)


@levels
async def test_bursts_of_two_publishers_keep_each_ones_order(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.6.0-5]; 3.1.1: [MQTT-4.6.0-6]"""
    async with (
        broker.client("two", level=level) as subscriber,
        broker.client("a", level=level) as first,
        broker.client("b", level=level) as second,
    ):
        await subscriber.subscribe(topic, qos=1)
        for name, publisher in ((b"a", first), (b"b", second)):
            messages = [Said(topic, b"%s%03d" % (name, number), 1) for number in range(50)]
            publisher.send(packets_of(messages, level))
        got = []
        while len(got) < 100:
            packet = await subscriber.next()
            subscriber.send(wire.puback(packet.packet_id))
            got.append(packet.rest)
        for name in (b"a", b"b"):
            assert [one for one in got if one.startswith(name)] == [b"%s%03d" % (name, number) for number in range(50)]

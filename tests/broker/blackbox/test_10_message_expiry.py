"""10: messages that expire (MQTT 5, section 3.3.2.3.3)."""

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, mosquitto_differs, pause, together


async def test_an_expiry_interval_is_passed_on(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-6]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1)
        for expiry_s in (100, 0xFFFF_FFFF):
            await publisher.publish(topic, b"p", qos=1, message_expiry_interval=expiry_s)
            packet = await subscriber.next()
            subscriber.send(wire.puback(packet.packet_id))
            assert packet.get("message_expiry_interval") in (expiry_s, expiry_s - 1)


async def test_a_message_without_an_expiry_interval_gets_none(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-6]"""
    async with broker.client("two") as subscriber, broker.client() as publisher:
        await subscriber.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1)
        await subscriber.gets(topic, b"p", qos=1)


async def test_what_waits_expires_and_what_does_not_is_counted_down(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-5] [MQTT-3.3.2-6]"""

    async def in_a_queue() -> None:
        where = f"{topic}/queue"
        async with broker.client("a", **kept(5)) as client:
            await client.subscribe(where, qos=1)
        async with broker.client("b") as publisher:
            await publisher.publish(where, b"short", qos=1, message_expiry_interval=1)
            await publisher.publish(where, b"long", qos=1, message_expiry_interval=60)
            await publisher.publish(where, b"for ever", qos=1)
            await pause(1 + broker.late_s)
        async with broker.client("a", present=True, **kept(5)) as client:
            packet = await client.next()
            assert packet.rest == b"long"
            assert packet.get("message_expiry_interval") in (57, 58, 59)
            client.send(wire.puback(packet.packet_id))
            await client.gets(where, b"for ever", qos=1)
            await client.settled()

    async def retained() -> None:
        where = f"{topic}/retained"
        async with broker.client("c") as client:
            await client.publish(f"{where}/short", b"p", retain=True, message_expiry_interval=1)
            await client.publish(f"{where}/long", b"p", retain=True, message_expiry_interval=60)
            await pause(1 + broker.late_s)
            await client.subscribe(f"{where}/+")
            packet = await client.next()
            assert packet.topic == f"{where}/long"
            assert packet.get("message_expiry_interval") in (57, 58, 59)
            await client.settled()

    async def for_an_older_client() -> None:
        where = f"{topic}/older"
        async with broker.client("f", level=4, clean=False) as client:
            await client.subscribe(where, qos=1)
        async with broker.client("g") as publisher:
            await publisher.publish(where, b"short", qos=1, message_expiry_interval=1)
            await publisher.publish(where, b"long", qos=1, message_expiry_interval=60)
            await pause(1 + broker.late_s)
        async with broker.client("f", level=4, clean=False, present=True) as client:
            await client.gets(where, b"long", qos=1)
            await client.settled()

    await together(in_a_queue(), retained(), for_an_older_client())


@mosquitto_differs("sends nothing more")
async def test_what_waits_behind_a_full_window_expires_too(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-5] [MQTT-3.3.2-6]"""
    async with broker.client(receive_maximum=1) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"first", qos=1)
        packet_id = await client.gets(topic, b"first", qos=1, ack=False)
        await publisher.publish(topic, b"short", qos=1, message_expiry_interval=1)
        await publisher.publish(topic, b"long", qos=1, message_expiry_interval=60)
        await pause(1 + broker.late_s)
        client.send(wire.puback(packet_id))
        packet = await client.next()
        assert packet.rest == b"long"
        assert packet.get("message_expiry_interval") in (57, 58, 59)


@mosquitto_differs("forgets what has been sent")
async def test_what_has_been_sent_does_not_expire(broker: Subject, topic: str) -> None:
    """[MQTT-4.3.3-7]"""

    async def a_pubrel_is_sent_again(name: str) -> None:
        async with broker.client(name, **kept(5)) as client, broker.client(f"p{name}") as publisher:
            await client.subscribe(f"{topic}/{name}", qos=2)
            await publisher.publish(f"{topic}/{name}", b"p", qos=2, message_expiry_interval=1)
            packet_id = (await client.next()).packet_id
            await client.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
        await pause(1 + broker.late_s)
        async with broker.client(name, present=True, **kept(5)) as client:
            await client.expect(wire.pubrel(packet_id))
            client.send(wire.pubcomp(packet_id))
            await client.settled()

    async def a_publish_is_sent_again(name: str) -> None:
        async with broker.client(name, **kept(5)) as client, broker.client(f"p{name}") as publisher:
            await client.subscribe(f"{topic}/{name}", qos=2)
            await publisher.publish(f"{topic}/{name}", b"p", qos=2, message_expiry_interval=1)
            packet_id = (await client.next()).packet_id
        await pause(1 + broker.late_s)
        async with broker.client(name, present=True, **kept(5)) as client:
            assert (await client.next()).packet_id == packet_id
            await client.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))

    await together(a_pubrel_is_sent_again("a"), a_publish_is_sent_again("b"))


async def test_the_handshake_of_qos_2_goes_on_after_the_expiry(broker: Subject, topic: str) -> None:
    """[MQTT-4.3.3-7] [MQTT-4.3.3-13]"""

    async def what_was_received_is_completed() -> None:
        async with broker.client("a") as publisher:
            publisher.send(wire.publish(f"{topic}/c", qos=2, packet_id=7, message_expiry_interval=1))
            await publisher.accepted(wire.PUBREC, 7)
            await pause(1.2)
            await publisher.ask(wire.pubrel(7), wire.pubcomp(7))

    async def what_was_sent_is_completed() -> None:
        async with broker.client("b") as client, broker.client("c") as publisher:
            await client.subscribe(f"{topic}/d", qos=2)
            await publisher.publish(f"{topic}/d", b"p", qos=2, message_expiry_interval=1)
            packet_id = (await client.next()).packet_id
            await pause(1.2)
            await client.ask(wire.pubrec(packet_id), wire.pubrel(packet_id))
            client.send(wire.pubcomp(packet_id))
            await client.settled()

    await together(what_was_received_is_completed(), what_was_sent_is_completed())

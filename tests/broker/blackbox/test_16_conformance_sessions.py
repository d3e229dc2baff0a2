"""16: names and sessions, where the judge cannot be asked: who is who, and what goes where."""

import pytest

from broker.engine import Publish
from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import levels
from tests.broker.blackbox.native import native

ID_INVALID = 0x85


# --- names


@pytest.mark.parametrize("level", [4, 5])
async def test_a_client_id_of_control_characters_is_refused(level: int) -> None:
    """[MQTT-3.1.3-8]; 3.1.1: [MQTT-3.1.3-9]"""
    async with native() as broker, broker.raw(level=level) as client:
        client.send(wire.connect("a\x1bb", level=level))
        await client.expect(wire.connack(ID_INVALID if level == 5 else 2, level=level))
        await client.expect_end()


# --- sessions


async def test_a_session_lasts_while_its_connection_is_open() -> None:
    """[MQTT-4.1.0-1] [MQTT-4.1.0-2]; 3.1.1: [MQTT-4.1.0-1] [MQTT-4.1.0-2]"""
    async with native() as broker:
        async with broker.client(session_expiry_interval=0) as client:
            await client.subscribe("a")
            await client.publish("b")
            assert [session.subscriptions for session in broker.engine.sessions()] == [("a",)]
            await client.leave()
        assert broker.engine.sessions() == []


@levels
async def test_pubrels_go_in_the_order_of_the_pubrecs(level: int) -> None:
    """[MQTT-4.6.0-4]; 3.1.1: [MQTT-4.6.0-4]"""
    async with native() as broker, broker.client(level=level) as client:
        await client.subscribe("a", qos=2)
        for number in range(3):
            await broker.engine.publish(Publish(topic="a", payload=b"%d" % number, qos=2))
        ids = [await client.gets("a", b"%d" % number, qos=2, ack=False) for number in range(3)]
        order = [ids[1], ids[2], ids[0]]
        client.send(*map(wire.pubrec, order))
        for packet_id in order:
            await client.expect(wire.pubrel(packet_id))


async def test_a_shared_message_of_qos_2_ends_with_the_session_it_was_sent_to() -> None:
    """[MQTT-4.8.2-5]"""
    async with native() as broker, broker.client("two") as other:
        async with broker.client() as client:
            await client.subscribe("$share/g/a", qos=2)
            await broker.engine.publish(Publish(topic="a", payload=b"once", qos=2))
            await client.gets("a", b"once", qos=2, ack=False)
            await other.subscribe("$share/g/a", qos=2)
            await client.leave()
        await broker.engine.publish(Publish(topic="a", payload=b"next", qos=2))
        await other.gets("a", b"next", qos=2)


# --- no local


async def test_no_local_goes_by_the_client_id_for_retained_messages_too() -> None:
    """[MQTT-3.8.3-3]"""
    async with native() as broker:
        async with broker.client() as client:
            await client.publish("a", b"mine", qos=1, retain=True)
        async with broker.client() as client:
            await client.subscribe("a", no_local=True)
            await client.settled()
            await client.subscribe("a")
            await client.gets("a", b"mine", retain=True)


async def test_no_local_keeps_its_subscription_out_of_an_own_message() -> None:
    """[MQTT-3.8.3-3] [MQTT-3.3.4-2] [MQTT-3.3.4-4]"""
    async with native() as broker, broker.client() as client:
        await client.subscribe("a/#", qos=2, no_local=True, subscription_identifier=1)
        await client.subscribe("a/b", qos=0, subscription_identifier=2)
        client.send(wire.publish("a/b", b"mine", qos=1, packet_id=7))
        got = [await client.next() for _ in range(2)]
        message = next(each for each in got if each.first & 0xF0 == wire.PUBLISH)
        assert message == wire.parse(wire.publish("a/b", b"mine", subscription_identifier=2))

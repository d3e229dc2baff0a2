"""01: who is let in, and how (MQTT 5 and 3.1.1, sections 3.1 and 3.2)."""

import string

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, before_5, levels, mosquitto_differs, since_311
from tests.broker.blackbox.wire import Will


@levels
async def test_a_valid_connect_is_accepted_without_a_session_present(broker: Subject, level: int) -> None:
    """[MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.2-1] [MQTT-3.2.2-2]; 3.1.1: [MQTT-3.1.4-4] [MQTT-3.2.0-1]
    3.1.1: [MQTT-3.2.2-1]"""
    async with broker.raw(level=level) as client:
        await client.connect(clean=True, present=False)
        await client.settled()


@levels
async def test_without_a_kept_session_none_is_present(broker: Subject, level: int) -> None:
    """[MQTT-3.1.2-6] [MQTT-3.2.2-3]; 3.1.1: [MQTT-3.2.2-3]"""
    async with broker.raw(level=level) as client:
        await client.connect(clean=False, present=False)


@levels
@pytest.mark.parametrize(
    "client_id",
    ["a", *(string.digits + string.ascii_letters)[::23], "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ"],
)
async def test_an_ordinary_client_id_is_accepted(broker: Subject, level: int, client_id: str) -> None:
    """[MQTT-3.1.3-5]; 3.1.1: [MQTT-3.1.3-5]"""
    async with broker.raw(level=level) as client:
        client.client_id = client_id
        await client.connect()


@since_311
async def test_two_clients_without_a_client_id_do_not_meet(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.3-6] [MQTT-3.1.3-7]; 3.1.1: [MQTT-3.1.3-6]"""
    async with broker.raw(level=level) as first, broker.raw(level=level) as second:
        first.client_id = second.client_id = ""
        await first.connect()
        await first.subscribe(topic)
        await second.connect()
        await second.publish(topic, b"p")
        await first.gets(topic, b"p")


async def test_a_311_client_without_an_id_needs_a_clean_session(broker: Subject) -> None:
    """3.1.1: [MQTT-3.1.3-8] [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5]"""
    async with broker.raw(level=4) as client:
        await client.ask(wire.connect("", level=4, clean=False), wire.connack(2, level=4))
        await client.expect_end()


async def test_a_31_client_without_an_id_is_refused(broker: Subject) -> None:
    """MQTT 3.1, section 3.1: an identifier has 1 to 23 characters."""
    async with broker.raw(level=3) as client:
        await client.ask(wire.connect("", level=3), wire.connack(2, level=3))
        await client.expect_end()


@pytest.mark.parametrize("level", [0, 1, 2, 6, 7, 127])
async def test_an_unknown_protocol_level_is_named_and_closed(broker: Subject, level: int) -> None:
    """[MQTT-3.1.2-2]; 3.1.1: [MQTT-3.1.2-2]"""
    async with broker.raw() as client:
        client.send(wire.connect("c", level=4).replace(b"MQTT\x04", b"MQTT" + bytes([level])))
        answer = await client.read_packet()
        assert answer[0] == wire.CONNACK
        assert answer[2:4] in (b"\x00\x01", b"\x00\x84")
        await client.expect_end()


@pytest.mark.parametrize(
    ("name", "level"),
    [("MQT", 4), ("MQTTT", 4), ("mqtt", 4), ("", 4), ("MQIsdp", 4), ("MQIsdp", 5), ("HTTP", 5), ("MQTT", 3)],
)
async def test_another_protocol_name_is_not_served(broker: Subject, name: str, level: int) -> None:
    """[MQTT-3.1.2-1]; 3.1.1: [MQTT-3.1.2-1]"""
    async with broker.raw(level=4) as client:
        client.send(wire.connect("c", level=level, name=name), wire.pingreq())
        answer = await client.everything()
        assert answer == b"" or (answer[0] == wire.CONNACK and answer[3] in (0x01, 0x84))


@since_311
async def test_the_reserved_connect_flag_must_be_zero(broker: Subject, level: int) -> None:
    """[MQTT-3.1.2-3]; 3.1.1: [MQTT-3.1.2-3]"""
    async with broker.raw(level=level) as client:
        client.send(wire.connect(client.client_id, level=level, flags=0x03))
        await client.not_let_in()


@levels
@mosquitto_differs("closes without a DISCONNECT", level=5)
async def test_a_second_connect_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-4.13.1-1]; 3.1.1: [MQTT-3.1.0-2] [MQTT-4.8.0-1]"""
    async with broker.client(level=level) as client:
        client.send(wire.connect(client.client_id, level=level))
        await client.closed(0x82)


@levels
@mosquitto_differs("closes without a DISCONNECT", level=5)
async def test_a_second_connect_with_another_id_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-3.1.0-2]; 3.1.1: [MQTT-3.1.0-2]"""
    async with broker.client(level=level) as client:
        client.send(wire.connect(broker.client_id("two"), level=level))
        await client.closed(0x82)


@levels
async def test_a_user_name_and_a_password_are_taken(broker: Subject, level: int) -> None:
    """[MQTT-3.1.2-17] [MQTT-3.1.2-19]; 3.1.1: [MQTT-3.1.2-19] [MQTT-3.1.2-21]"""
    async with broker.client(level=level, username="ada", password=b"\x00\xff") as client:
        await client.settled()


@levels
async def test_a_user_name_needs_no_password(broker: Subject, level: int) -> None:
    """[MQTT-3.1.2-18]; 3.1.1: [MQTT-3.1.2-20]"""
    async with broker.client(level=level, username="ada") as client:
        await client.settled()


async def test_with_mqtt_5_a_password_needs_no_user_name(broker: Subject) -> None:
    """[MQTT-3.1.2-16]"""
    async with broker.client(password=b"secret") as client:
        await client.settled()


async def test_with_mqtt_311_a_password_needs_a_user_name(broker: Subject) -> None:
    """3.1.1: [MQTT-3.1.2-22] [MQTT-3.1.4-1]"""
    async with broker.raw(level=4) as client:
        client.send(wire.connect(client.client_id, level=4, password=b"secret"))
        await client.expect_end()


@levels
async def test_everything_in_a_connect_is_taken_in_its_order(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.2-9]; 3.1.1: [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.2-9]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe(topic, qos=1)
        async with broker.client(
            level=level, will=Will(topic, b"gone", qos=1), username="ada", password=b"secret"
        ) as client:
            await client.settled()
        await watcher.gets(topic, b"gone", qos=1)


async def test_every_property_of_a_connect_is_taken(broker: Subject) -> None:
    """MQTT 5, section 3.1.2.11."""
    async with broker.client(
        session_expiry_interval=10,
        receive_maximum=5,
        maximum_packet_size=1000,
        topic_alias_maximum=3,
        request_response_information=1,
        request_problem_information=1,
        user_property=[("a", "1"), ("a", "2")],
    ) as client:
        await client.settled()


async def test_nothing_is_said_to_be_unavailable(broker: Subject) -> None:
    """MQTT 5, section 3.2.2.3: absent means supported."""
    async with broker.client() as client:
        for name in (
            "retain_available",
            "wildcard_subscription_available",
            "subscription_identifier_available",
            "shared_subscription_available",
        ):
            assert client.connack.get(name, 1) == 1
        assert client.connack.get("maximum_qos", 2) == 2


@levels
async def test_what_follows_a_connect_at_once_is_worked_off_in_order(broker: Subject, topic: str, level: int) -> None:
    """MQTT 5, section 3.1.4: a client need not wait for CONNACK."""
    async with broker.raw(level=level) as client:
        client.send(
            wire.connect(client.client_id, level=level),
            wire.subscribe(topic, packet_id=1, level=level),
            wire.publish(topic, b"p", level=level),
            wire.pingreq(),
        )
        connack = await client.next()
        assert connack[:2] == (wire.CONNACK, b"\x00\x00")
        await client.expect(wire.suback(0, packet_id=1, level=level))
        await client.gets(topic, b"p")
        await client.expect(wire.pingresp())


async def test_what_follows_a_refused_connect_is_not_worked_off(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.4-6]; 3.1.1: [MQTT-3.1.4-5]"""
    async with broker.client("two", level=4) as watcher, broker.raw(level=4) as client:
        await watcher.subscribe(topic)
        client.send(wire.connect("", level=4, clean=False), wire.publish(topic, level=4))
        await client.expect(wire.connack(2, level=4))
        await client.expect_end()
        await watcher.settled()


@levels
async def test_a_connect_may_come_in_byte_by_byte(broker: Subject, level: int) -> None:
    """[MQTT-4.2-1]; 3.1.1: [MQTT-7.1.1-1]"""
    async with broker.raw(level=level) as client:
        for byte in wire.connect(client.client_id, level=level):
            client.send(bytes([byte]))
            await client.writer.drain()
        assert (await client.next())[:2] == (wire.CONNACK, b"\x00\x00")


@levels
async def test_a_ping_is_answered(broker: Subject, level: int) -> None:
    """[MQTT-3.12.4-1]; 3.1.1: [MQTT-3.12.4-1]"""
    async with broker.client(level=level) as client:
        await client.ask(b"\xc0\x00", b"\xd0\x00")


@levels
async def test_a_disconnect_is_answered_by_closing(broker: Subject, level: int) -> None:
    """MQTT 5, section 3.14.4: the server need not wait for the client to close."""
    async with broker.client(level=level) as client:
        await client.leave()


@levels
async def test_nothing_after_a_disconnect_is_worked_off(broker: Subject, topic: str, level: int) -> None:
    """MQTT 5, section 3.14.4: the client must not send any more."""
    async with broker.client("two", level=level) as watcher, broker.client(level=level) as client:
        await watcher.subscribe(topic)
        client.send(wire.disconnect(), wire.publish(topic, level=level))
        await client.expect_end()
        await watcher.settled()


@before_5
async def test_a_connack_before_mqtt_5_is_four_bytes(broker: Subject, level: int) -> None:
    """3.1.1: [MQTT-3.2.0-1]"""
    async with broker.raw(level=level) as client:
        client.send(wire.connect(client.client_id, level=level))
        assert await client.reader.readexactly(4) == b"\x20\x02\x00\x00"
        await client.settled()

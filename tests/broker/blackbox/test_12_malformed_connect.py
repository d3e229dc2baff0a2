"""12: what comes before a client has been let in and is wrong (MQTT 5 and 3.1.1, sections 2 and 3.1)."""

from typing import Any

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, levels, mosquitto_differs, since_311, together
from tests.broker.blackbox.wire import PROPERTY_IDS, Will

FIRST_PACKETS = {
    "CONNACK": wire.connack(),
    "PUBLISH": wire.publish("a"),
    "PUBLISH of QoS 1": wire.publish("a", qos=1),
    "PUBACK": wire.puback(),
    "PUBREC": wire.pubrec(),
    "PUBREL": wire.pubrel(),
    "PUBCOMP": wire.pubcomp(),
    "SUBSCRIBE": wire.subscribe("a"),
    "SUBACK": wire.suback(0),
    "UNSUBSCRIBE": wire.unsubscribe("a"),
    "UNSUBACK": wire.unsuback(0),
    "PINGREQ": wire.pingreq(),
    "PINGRESP": wire.pingresp(),
    "DISCONNECT": wire.disconnect(),
    "AUTH": wire.auth(0x18, authentication_method="m"),
    "type 0": b"\x00\x00",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
}

GOOD: dict[str, Any] = {"username": "ada", "password": b"secret", "will": Will("w", b"gone", qos=1)}
OF_CONNECT = {
    "session_expiry_interval",
    "receive_maximum",
    "maximum_packet_size",
    "topic_alias_maximum",
    "request_response_information",
    "request_problem_information",
    "user_property",
    "authentication_method",
    "authentication_data",
}
OF_WILL = {
    "will_delay_interval",
    "payload_format_indicator",
    "message_expiry_interval",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_property",
}


def some_value(name: str) -> Any:
    kind = PROPERTY_IDS[name][1]
    return {"text": "x", "pair": ("n", "v")}.get(str(kind), 1)


async def is_not_let_in(broker: Subject, raw: bytes, level: int = 5) -> None:
    async with broker.raw(level=level) as client:
        client.send(raw, wire.pingreq())
        await client.not_let_in()


# --- something else than CONNECT


@pytest.mark.parametrize("raw", FIRST_PACKETS.values(), ids=FIRST_PACKETS)
async def test_before_connect_nothing_else_is_answered(broker: Subject, raw: bytes) -> None:
    """[MQTT-3.1.0-1] [MQTT-3.14.0-1] [MQTT-3.2.0-1]; 3.1.1: [MQTT-3.1.0-1] [MQTT-3.2.0-1]"""
    async with broker.raw() as client:
        client.send(raw)
        assert await client.everything() == b""


async def test_a_first_packet_of_another_kind_is_not_waited_for(broker: Subject) -> None:
    """[MQTT-3.1.0-1]: closed on its first bytes, whatever length it declares [CVE-2023-0809]."""
    async with broker.raw() as client:
        client.send(b"\x30\xff\xff\xff\x7f")
        assert await client.everything() == b""


@mosquitto_differs("waits for all of it, for 90 s")
async def test_a_connect_that_declares_more_than_64_kib_is_not_waited_for(broker: Subject) -> None:
    """Our bound on what is buffered for who has not been let in [CVE-2017-7651]."""
    async with broker.raw() as client:
        client.send(b"\x10" + wire.varint(65_536))
        await client.not_let_in()


# --- the fixed header


@since_311
@pytest.mark.parametrize("flags", range(1, 16))
async def test_a_connect_has_no_flags(broker: Subject, level: int, flags: int) -> None:
    """[MQTT-2.1.3-1]; 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2]"""
    raw = wire.connect("c", level=level)
    await is_not_let_in(broker, bytes([raw[0] | flags]) + raw[1:], level)


@levels
async def test_a_remaining_length_of_five_bytes_is_too_long(broker: Subject, level: int) -> None:
    """MQTT 5, section 2.1.4; CVE-2026-21888"""
    await is_not_let_in(broker, b"\x10\xff\xff\xff\xff\x01", level)


@levels
@mosquitto_differs("lets it in")
async def test_a_remaining_length_longer_than_need_be_is_malformed(broker: Subject, level: int) -> None:
    """[MQTT-1.5.5-1]"""
    raw = wire.connect("c", level=level)
    await is_not_let_in(broker, bytes([raw[0], raw[1] | 0x80, 0]) + raw[2:], level)


# --- what is in it


@since_311
async def test_every_beginning_of_a_connect_is_malformed(broker: Subject, level: int) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.1.2-17] [MQTT-3.1.2-19]; 3.1.1: [MQTT-3.1.4-1] [MQTT-3.1.2-19] [MQTT-3.1.2-21]"""
    first, body = wire.split(wire.connect("client", level=level, **GOOD))
    await together(*[is_not_let_in(broker, wire.packet(first, body[:size]), level) for size in range(len(body))])


async def test_every_beginning_of_a_31_connect_is_malformed(broker: Subject) -> None:
    """MQTT 3.1, section 3.1: but that user name and password may be missing whatever the flags say."""
    first, body = wire.split(wire.connect("client", level=3, will=Will("w", b"gone")))
    await together(*[is_not_let_in(broker, wire.packet(first, body[:size]), 3) for size in range(len(body))])


@levels
@pytest.mark.parametrize("behind", [b"\0", b"\0\1x", wire.pingreq()])
async def test_a_connect_with_something_behind_is_malformed(broker: Subject, level: int, behind: bytes) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.1.2-16] [MQTT-3.1.2-18]; 3.1.1: [MQTT-3.1.4-1] [MQTT-3.1.2-18] [MQTT-3.1.2-20]"""
    first, body = wire.split(wire.connect("c", level=level))
    await is_not_let_in(broker, wire.packet(first, body + behind), level)


@since_311
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(0x03, id="reserved"),
        pytest.param(0x0A, id="will QoS 1 without a will"),
        pytest.param(0x12, id="will QoS 2 without a will"),
        pytest.param(0x1A, id="will QoS 3 without a will"),
        pytest.param(0x22, id="will retain without a will"),
        pytest.param(0x06, id="a will that is not there"),
        pytest.param(0x82, id="a user name that is not there"),
        pytest.param(0xC2, id="a user name and a password that are not there"),
        pytest.param(0x42, id="a password that is not there"),
    ],
)
async def test_flags_that_say_what_is_not_so_are_malformed(broker: Subject, level: int, flags: int) -> None:
    """[MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-9] [MQTT-3.1.2-17] [MQTT-3.1.2-19]
    3.1.1: [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15] [MQTT-3.1.2-22]"""
    await is_not_let_in(broker, wire.connect("c", level=level, flags=flags), level)


@since_311
@pytest.mark.parametrize("flags", [0x1E, 0x3E])
async def test_a_will_of_qos_3_is_malformed(broker: Subject, level: int, flags: int) -> None:
    """[MQTT-3.1.2-12]; 3.1.1: [MQTT-3.1.2-14]"""
    await is_not_let_in(broker, wire.connect("c", level=level, flags=flags, will=Will("w")), level)


@since_311
async def test_a_client_id_longer_than_its_packet_is_malformed(broker: Subject, level: int) -> None:
    """[MQTT-3.1.4-1]; 3.1.1: [MQTT-3.1.4-1]"""
    raw = wire.connect("c", level=level)
    await is_not_let_in(broker, raw[:-3] + b"\xff\xffc", level)


# --- its properties


def with_properties(raw: bytes, *, length: int | None = None) -> bytes:
    """A CONNECT with these bytes as its properties."""
    length = len(raw) if length is None else length
    head = wire.text("MQTT") + b"\x05\x02\x00\x3c"
    return wire.packet(wire.CONNECT, head + wire.varint(length) + raw + wire.text("c"))


def with_will_properties(raw: bytes) -> bytes:
    head = wire.text("MQTT") + b"\x05\x06\x00\x3c\x00"
    will = wire.varint(len(raw)) + raw + wire.text("w") + wire.text("gone")
    return wire.packet(wire.CONNECT, head + wire.text("c") + will)


@pytest.mark.parametrize("name", sorted(set(PROPERTY_IDS) - OF_CONNECT))
async def test_a_property_of_other_packets_is_malformed(broker: Subject, name: str) -> None:
    """[MQTT-3.1.4-1]: section 2.2.2.2."""
    await is_not_let_in(broker, with_properties(wire.one_property(name, some_value(name))))


@pytest.mark.parametrize("name", sorted(OF_CONNECT - {"user_property"}))
async def test_a_property_said_twice_is_a_protocol_error(broker: Subject, name: str) -> None:
    """[MQTT-3.1.4-1]: section 3.1.2.11."""
    method = wire.one_property("authentication_method", "m") if name == "authentication_data" else b""
    await is_not_let_in(broker, with_properties(method + wire.one_property(name, some_value(name)) * 2))


@pytest.mark.parametrize("name", sorted(set(PROPERTY_IDS) - OF_WILL))
async def test_a_will_property_of_other_packets_is_malformed(broker: Subject, name: str) -> None:
    """[MQTT-3.1.4-1]: section 2.2.2.2; CVE-2023-3592"""
    await is_not_let_in(broker, with_will_properties(wire.one_property(name, some_value(name))))


@pytest.mark.parametrize("name", sorted(OF_WILL - {"user_property"}))
async def test_a_will_property_said_twice_is_a_protocol_error(broker: Subject, name: str) -> None:
    """[MQTT-3.1.4-1]: section 3.1.3.2; CVE-2023-3592"""
    await is_not_let_in(broker, with_will_properties(wire.one_property(name, some_value(name)) * 2))


@pytest.mark.parametrize(
    "raw",
    [
        wire.one_property("receive_maximum", 0),
        wire.one_property("maximum_packet_size", 0),
        wire.one_property("request_problem_information", 2),
        wire.one_property("request_response_information", 2),
        pytest.param(wire.one_property("authentication_data", b"no method"), marks=mosquitto_differs("lets it in")),
        b"\x00",
        b"\x04\x00",
        b"\x7f\x00",
        b"\xff\xff\xff\xff",
        b"\x11",
        b"\x11\x00\x00\x00",
        b"\x26\x00\x01a",
        b"\x26\x00\x05a\x00\x01b",
        wire.one_property("user_property", (b"\xff", "v")),
        wire.one_property("user_property", ("n", b"\xed\xa0\x80")),
    ],
    ids=lambda raw: raw.hex(" ")[:30],
)
async def test_a_property_with_a_wrong_value_is_not_let_in(broker: Subject, raw: bytes) -> None:
    """[MQTT-3.1.4-1] [MQTT-1.5.7-1]: section 3.1.2.11."""
    await is_not_let_in(broker, with_properties(raw))


@pytest.mark.parametrize("length", [1, 4, 200, 268_435_455])
async def test_a_wrong_property_length_is_malformed(broker: Subject, length: int) -> None:
    """[MQTT-3.1.4-1] [MQTT-2.2.2-1]"""
    await is_not_let_in(broker, with_properties(wire.one_property("receive_maximum", 1), length=length))


async def test_a_connect_of_mqtt_5_without_a_property_length_is_malformed(broker: Subject) -> None:
    """[MQTT-2.2.2-1]"""
    await is_not_let_in(broker, wire.packet(wire.CONNECT, wire.text("MQTT") + b"\x05\x02\x00\x3c" + wire.text("c")))

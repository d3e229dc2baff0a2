"""16: what breaks the form of a packet, statement by statement: the connection ends, with the code MQTT has for it."""

from typing import Any

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import before_5
from tests.broker.blackbox.native import native
from tests.broker.blackbox.wire import Will, packet, text, u16

MALFORMED, ERROR, TOO_LARGE, ALIAS_INVALID = 0x81, 0x82, 0x95, 0x94
SURROGATE, OVERLONG, LATIN = b"\xed\xa0\x80", b"a\xc0\x80", b"\xff"  # none of them UTF-8

# Each line: the statement (of 5.0) that is broken, and how, in the arguments of wire.connect.
CONNECTS: list[tuple[str, dict[str, Any]]] = [
    ("[MQTT-1.5.4-1]", {"client_id": SURROGATE}),
    ("[MQTT-1.5.4-2]", {"client_id": "a\0"}),
    ("[MQTT-3.1.2-3]", {"flags": 0x03}),
    ("[MQTT-3.1.2-9]", {"flags": 0x06}),
    ("[MQTT-3.1.2-11]", {"flags": 0x0A}),
    ("[MQTT-3.1.2-12]", {"will": Will("w", qos=3)}),
    ("[MQTT-3.1.2-13]", {"flags": 0x22}),
    ("[MQTT-3.1.2-16]", {"username": "u", "flags": 0x02}),
    ("[MQTT-3.1.2-17]", {"flags": 0x82}),
    ("[MQTT-3.1.2-18]", {"username": "u", "password": b"p", "flags": 0x82}),
    ("[MQTT-3.1.2-19]", {"username": "u", "flags": 0xC2}),
    ("[MQTT-3.1.3-4]", {"client_id": LATIN}),
    ("[MQTT-3.1.3-11]", {"will": Will(OVERLONG)}),
    ("[MQTT-3.1.3-12]", {"username": LATIN}),
]
CONNECTS_5: list[tuple[str, bytes]] = [
    ("[MQTT-1.5.7-1]", wire.connect("c", user_property=("a", "\0"))),
    ("[MQTT-1.5.5-1]", packet(wire.CONNECT, text("MQTT") + b"\5\2\0\0" + b"\x80\0" + text("c"))),
    ("[MQTT-3.1.3-3]", packet(wire.CONNECT, text("MQTT") + b"\5\2\0\0" + b"\0")),
    ("[MQTT-3.1.4-1]", packet(wire.CONNECT, text("MQTT") + b"\5\2\0\0" + b"\0" + text("c") + b"and more")),
]

# Each line: the statement, the bytes at level 4 and at level 5 (None: not to be said there), the codes at level 5.
PACKETS: list[tuple[str, bytes | None, bytes | None, tuple[int, ...]]] = [
    ("[MQTT-1.5.4-1]", wire.publish(SURROGATE, level=4), wire.publish(SURROGATE), (MALFORMED,)),
    ("[MQTT-1.5.4-2]", wire.publish("a\0", level=4), wire.publish("a\0"), (MALFORMED, 0x90)),
    ("[MQTT-1.5.5-1]", None, packet(0x30, text("a") + b"\x80\0"), (MALFORMED,)),
    ("[MQTT-1.5.7-1]", None, wire.publish("a", user_property=(LATIN, "b")), (MALFORMED,)),
    ("[MQTT-2.1.3-1]", packet(0x41, u16(1)), packet(0x41, u16(1)), (MALFORMED,)),
    ("[MQTT-2.2.1-3]", wire.subscribe("a", packet_id=0, level=4), wire.subscribe("a", packet_id=0), (ERROR,)),
    ("[MQTT-2.2.1-3]", wire.unsubscribe("a", packet_id=0, level=4), wire.unsubscribe("a", packet_id=0), (ERROR,)),
    ("[MQTT-2.2.1-3]", wire.publish("a", qos=1, packet_id=0, level=4), wire.publish("a", qos=1, packet_id=0), (ERROR,)),
    ("[MQTT-2.2.1-3]", wire.publish("a", qos=2, packet_id=0, level=4), wire.publish("a", qos=2, packet_id=0), (ERROR,)),
    ("[MQTT-2.2.2-1]", None, packet(0x32, text("a") + u16(1)), (MALFORMED,)),
    ("[MQTT-3.1.0-2]", wire.connect("c", level=4), wire.connect("c"), (ERROR,)),
    ("[MQTT-3.1.0-2]", wire.connect("c", level=4, name="MQTX"), wire.connect("c", name="MQTX"), (ERROR,)),
    ("[MQTT-3.2.2-15]", b"\x30\xff\xff\x7f", b"\x30\xff\xff\x7f", (TOO_LARGE,)),
    ("[MQTT-3.3.1-2]", wire.publish("a", dup=True, level=4), wire.publish("a", dup=True), (MALFORMED, ERROR)),
    ("[MQTT-3.3.1-4]", wire.publish("a", qos=3, level=4), wire.publish("a", qos=3), (MALFORMED,)),
    ("[MQTT-3.3.2-1]", wire.publish(LATIN, level=4), wire.publish(LATIN), (MALFORMED,)),
    ("[MQTT-3.3.2-2]", wire.publish("a/+", level=4), wire.publish("a/+"), (MALFORMED, ERROR, 0x90)),
    ("[MQTT-3.3.2-8]", None, wire.publish("a", topic_alias=0), (ALIAS_INVALID,)),
    ("[MQTT-3.3.2-9]", None, wire.publish("a", topic_alias=65), (ALIAS_INVALID,)),
    ("[MQTT-3.3.2-13]", None, wire.publish("a", response_topic=LATIN), (MALFORMED,)),
    ("[MQTT-3.3.2-14]", None, wire.publish("a", response_topic="r/+"), (MALFORMED, ERROR)),
    ("[MQTT-3.3.2-19]", None, wire.publish("a", content_type=LATIN), (MALFORMED,)),
    ("[MQTT-3.3.4-6]", None, wire.publish("a", subscription_identifier=1), (ERROR,)),
    ("[MQTT-3.4.2-1]", None, wire.puback(1, 0x01), (MALFORMED, ERROR)),
    ("[MQTT-3.5.2-1]", None, wire.pubrec(1, 0x92), (MALFORMED, ERROR)),
    ("[MQTT-3.6.1-1]", packet(0x60, u16(1)), packet(0x60, u16(1)), (MALFORMED,)),
    ("[MQTT-3.6.2-1]", None, wire.pubrel(1, 0x10), (MALFORMED, ERROR)),
    ("[MQTT-3.7.2-1]", None, wire.pubcomp(1, 0x10), (MALFORMED, ERROR)),
    ("[MQTT-3.8.1-1]", packet(0x80, u16(1) + text("a") + b"\0"), packet(0x80, u16(1) + b"\0" + text("a") + b"\0"),
     (MALFORMED,)),
    ("[MQTT-3.8.3-1]", wire.subscribe(LATIN, level=4), wire.subscribe(LATIN), (MALFORMED,)),
    ("[MQTT-3.8.3-2]", packet(0x82, u16(1)), packet(0x82, u16(1) + b"\0"), (ERROR,)),
    ("[MQTT-3.8.3-4]", None, wire.subscribe("$share/g/a", no_local=True), (ERROR,)),
    ("[MQTT-3.8.3-5]", packet(0x82, u16(1) + text("a") + b"\4"), packet(0x82, u16(1) + b"\0" + text("a") + b"\x40"),
     (MALFORMED,)),
    ("[MQTT-3.10.1-1]", packet(0xA0, u16(1) + text("a")), packet(0xA0, u16(1) + b"\0" + text("a")), (MALFORMED,)),
    ("[MQTT-3.10.3-1]", wire.unsubscribe(LATIN, level=4), wire.unsubscribe(LATIN), (MALFORMED,)),
    ("[MQTT-3.10.3-2]", packet(0xA2, u16(1)), packet(0xA2, u16(1) + b"\0"), (ERROR,)),
    ("[MQTT-3.14.1-1]", packet(0xE1), packet(0xE1), (MALFORMED,)),
    ("[MQTT-3.14.2-1]", None, wire.disconnect(0x01), (MALFORMED, ERROR)),
    ("[MQTT-3.15.1-1]", packet(0xF1), packet(0xF1), (MALFORMED,)),
    ("[MQTT-4.7.0-1]", wire.publish("#", level=4), wire.publish("#"), (MALFORMED, ERROR, 0x90)),
    ("[MQTT-4.7.3-1]", wire.publish("", level=4), wire.publish(""), (ERROR,)),
    ("[MQTT-4.7.3-1]", wire.subscribe("", level=4), wire.subscribe(""), (ERROR, MALFORMED)),
    ("[MQTT-4.7.3-2]", wire.subscribe("a\0", level=4), wire.subscribe("a\0"), (MALFORMED,)),
    ("[MQTT-4.12.0-7]", packet(0xF0), wire.auth(0x18, authentication_method="m"), (ERROR,)),
    ("[MQTT-4.13.1-1]", wire.suback(0, level=4), wire.suback(0), (ERROR,)),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "fields"), CONNECTS, ids=[tag for tag, _ in CONNECTS])
async def test_a_malformed_connect_is_refused(statement: str, fields: dict[str, Any]) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] and each of CONNECTS"""
    async with native() as broker, broker.raw() as client:
        client.send(wire.connect(**{"client_id": "c", **fields}))
        await client.expect(wire.connack(MALFORMED))
        await client.expect_end()


@pytest.mark.parametrize(("statement", "raw"), CONNECTS_5, ids=[tag for tag, _ in CONNECTS_5])
async def test_a_malformed_connect_of_mqtt_5_is_refused(statement: str, raw: bytes) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.1.3-1] and each of CONNECTS_5"""
    async with native() as broker, broker.raw() as client:
        client.send(raw)
        await client.expect(wire.connack(MALFORMED))
        await client.expect_end()


@pytest.mark.parametrize(("statement", "fields"), CONNECTS, ids=[tag for tag, _ in CONNECTS])
async def test_a_malformed_connect_before_mqtt_5_is_closed_without_a_word(
    statement: str, fields: dict[str, Any]
) -> None:
    """3.1.1: [MQTT-3.1.4-1] [MQTT-3.2.2-6] [MQTT-3.1.2-11] [MQTT-1.5.3-1] [MQTT-1.5.3-2]"""
    async with native() as broker, broker.raw(level=4) as client:
        client.send(wire.connect(**{"client_id": "c", "level": 4, **fields}))
        await client.expect_end()


@pytest.mark.parametrize("fields", [{"flags": 0x42}, {"password": b"p"}], ids=["missing", "there"])
async def test_a_password_without_a_user_name_before_mqtt_5_is_closed(fields: dict[str, Any]) -> None:
    """3.1.1: [MQTT-3.1.2-22]"""
    async with native() as broker, broker.raw(level=4) as client:
        client.send(wire.connect("c", level=4, **fields))
        await client.expect_end()


async def test_another_protocol_name_before_mqtt_5_is_closed_without_a_word() -> None:
    """3.1.1: [MQTT-3.1.2-1] [MQTT-3.1.4-1]"""
    async with native() as broker, broker.raw(level=4) as client:
        client.send(wire.connect("c", level=4, name="MQTX"))
        await client.expect_end()


@pytest.mark.parametrize("raw", [wire.pingreq(), wire.publish("a"), wire.auth(0x18), wire.disconnect(), b"GET / HTTP"])
async def test_another_first_packet_than_connect_is_closed_without_a_word(raw: bytes) -> None:
    """[MQTT-3.1.0-1] [MQTT-3.14.0-1]; 3.1.1: [MQTT-3.1.0-1]"""
    async with native() as broker, broker.raw() as client:
        client.send(raw)
        await client.expect_end()


LINES = [
    pytest.param(level, raw, reasons, id=f"{level}-{statement}")
    for statement, before, after, reasons in PACKETS
    for level, raw in ((4, before), (5, after))
    if raw is not None
]


@pytest.mark.parametrize(("level", "raw", "reasons"), LINES)
async def test_a_malformed_packet_ends_the_connection(level: int, raw: bytes, reasons: tuple[int, ...]) -> None:
    """[MQTT-3.2.2-17] [MQTT-3.14.2-1] [MQTT-3.14.4-2] [MQTT-4.13.1-1]; 3.1.1: [MQTT-2.2.2-2] [MQTT-4.8.0-1]; PACKETS"""
    async with native() as broker, broker.client(level=level) as client:
        client.send(raw)
        await client.closed(*reasons)
        assert broker.engine.sessions() == []


@before_5
async def test_a_subscription_of_qos_3_before_mqtt_5_is_closed(level: int) -> None:
    """3.1.1: [MQTT-3.8.3-4]"""
    async with native() as broker, broker.client(level=level) as client:
        client.send(wire.subscribe("a", qos=3, level=level))
        await client.expect_end()

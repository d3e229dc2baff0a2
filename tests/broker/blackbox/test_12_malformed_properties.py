"""12: properties where they do not belong, said twice, unknown, out of range or cut off (MQTT 5, section 2.2.2)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, mosquitto_differs
from tests.broker.blackbox.wire import PROPERTY_IDS, one_property, packet, text, u16, varint

MALFORMED, ERROR = 0x81, 0x82
Build = Callable[[bytes], bytes]

PACKETS: dict[str, tuple[Build, set[str]]] = {
    "PUBLISH": (
        lambda raw: packet(0x30, text("a") + raw + b"x"),
        {
            "payload_format_indicator",
            "message_expiry_interval",
            "content_type",
            "response_topic",
            "correlation_data",
            "topic_alias",
            "user_property",
            "subscription_identifier",  # from a server only; tested with the others of theme 10
        },
    ),
    "PUBACK": (lambda raw: packet(0x40, u16(9) + b"\0" + raw), {"reason_string", "user_property"}),
    "PUBREC": (lambda raw: packet(0x50, u16(9) + b"\0" + raw), {"reason_string", "user_property"}),
    "PUBREL": (lambda raw: packet(0x62, u16(9) + b"\0" + raw), {"reason_string", "user_property"}),
    "PUBCOMP": (lambda raw: packet(0x70, u16(9) + b"\0" + raw), {"reason_string", "user_property"}),
    "SUBSCRIBE": (
        lambda raw: packet(0x82, u16(9) + raw + text("a") + b"\0"),
        {"subscription_identifier", "user_property"},
    ),
    "UNSUBSCRIBE": (lambda raw: packet(0xA2, u16(9) + raw + text("a")), {"user_property"}),
    "DISCONNECT": (
        lambda raw: packet(0xE0, b"\0" + raw),
        {"session_expiry_interval", "reason_string", "user_property", "server_reference"},
    ),
}
ACKNOWLEDGEMENTS = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP")
kinds = pytest.mark.parametrize("kind", PACKETS)


def some_value(name: str) -> Any:
    return {"text": "x", "pair": ("n", "v")}.get(str(PROPERTY_IDS[name][1]), 1)


def measured(raw: bytes) -> bytes:
    return varint(len(raw)) + raw


@kinds
async def test_a_property_of_other_packets_ends_the_connection(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1]: section 2.2.2.2."""
    build, allowed = PACKETS[kind]
    for name in set(PROPERTY_IDS) - allowed:
        async with broker.client() as client:
            await client.dies_of(build(measured(one_property(name, some_value(name)))))


@kinds
async def test_a_property_said_twice_ends_the_connection(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1]: a protocol error (sections 3.3.2.3 to 3.14.2.2)."""
    build, allowed = PACKETS[kind]
    for name in allowed - {"user_property"}:
        async with broker.client() as client:
            await client.dies_of(build(measured(one_property(name, some_value(name)) * 2)))


@kinds
async def test_an_unknown_property_ends_the_connection(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1]: section 2.2.2.2."""
    build, _ = PACKETS[kind]
    for number in (0x00, 0x04, 0x0A, 0x20, 0x2B, 0x7F, 0xFF):
        async with broker.client() as client:
            await client.dies_of(build(measured(bytes([number, 0, 0]))))


@kinds
async def test_a_property_cut_off_ends_the_connection(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1] [MQTT-2.2.2-1]"""
    build, allowed = PACKETS[kind]
    for name in allowed:
        whole = one_property(name, some_value(name))
        for size in range(1, len(whole)):
            async with broker.client() as client:
                await client.dies_of(build(measured(whole[:size])))


@kinds
async def test_properties_longer_than_their_packet_end_the_connection(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1] [MQTT-2.2.2-1]"""
    build, _ = PACKETS[kind]
    for length in (100, 127, 16_383, 268_435_455):
        async with broker.client() as client:
            await client.dies_of(build(varint(length)))


@kinds
async def test_a_user_property_that_is_not_utf_8_ends_the_connection(broker: Subject, kind: str) -> None:
    """[MQTT-1.5.7-1]"""
    build, _ = PACKETS[kind]
    for pair in ((b"\xff", b"v"), (b"n", b"\xc0\x80"), (b"n\0", b"v")):
        async with broker.client() as client:
            await client.dies_of(build(measured(one_property("user_property", pair))))


@kinds
@mosquitto_differs("closes without a DISCONNECT", kind=(*ACKNOWLEDGEMENTS, "DISCONNECT"))
async def test_a_disconnect_says_that_a_property_is_out_of_place(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1] [MQTT-3.14.2-1]: 0x81, malformed packet, or 0x82, protocol error."""
    build, _ = PACKETS[kind]
    async with broker.client() as client:
        await client.dies_of(build(measured(one_property("server_keep_alive", 1))), MALFORMED, ERROR)


@kinds
@mosquitto_differs("closes without a DISCONNECT", kind=("PUBLISH", "SUBSCRIBE", *ACKNOWLEDGEMENTS, "DISCONNECT"))
async def test_a_disconnect_says_that_a_property_is_there_twice(broker: Subject, kind: str) -> None:
    """[MQTT-4.13.1-1] [MQTT-3.14.2-1]: 0x82, protocol error."""
    build, allowed = PACKETS[kind]
    for name in allowed - {"user_property", "subscription_identifier" if kind == "PUBLISH" else ""}:
        async with broker.client() as client:
            await client.dies_of(build(measured(one_property(name, some_value(name)) * 2)), ERROR)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param("PUBLISH", one_property("payload_format_indicator", 2), marks=mosquitto_differs("passes it on")),
        ("PUBLISH", one_property("topic_alias", 0)),
        ("SUBSCRIBE", one_property("subscription_identifier", 0)),
        ("SUBSCRIBE", b"\x0b\x80\x80\x80\x80\x01"),
        ("SUBSCRIBE", b"\x0b\xff\xff\xff\xff"),
        ("SUBSCRIBE", b"\x0b\x80\x00"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.hex(" "),
)
async def test_a_value_out_of_range_ends_the_connection(broker: Subject, kind: str, raw: bytes) -> None:
    """[MQTT-4.13.1-1] [MQTT-3.3.2-8] [MQTT-1.5.5-1]"""
    async with broker.client() as client:
        await client.dies_of(PACKETS[kind][0](measured(raw)))


async def test_ten_thousand_user_properties_do_not_hold_up_others(broker: Subject, topic: str) -> None:
    """CVE-2021-41039: they are passed on or refused, and soon."""
    pairs = [("n", "v")] * 10_000
    async with broker.client("two") as other, broker.client() as client:
        client.send(wire.publish(topic, user_property=pairs))
        await other.settled()
        client.send(wire.pingreq())
        await client.everything(stop=wire.pingresp())

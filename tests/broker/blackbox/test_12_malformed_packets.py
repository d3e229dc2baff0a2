"""12: packets of a client that has been let in, and what is wrong with them (MQTT 5 and 3.1.1, sections 2 and 3)."""

from typing import NamedTuple

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, levels, mosquitto_differs, since_311
from tests.broker.blackbox.wire import packet, text, u16

MALFORMED, ERROR = 0x81, 0x82


class Wrong(NamedTuple):
    """A packet that ends the connection, at which levels, and what DISCONNECT may say of it at level 5."""

    name: str
    levels: tuple[int, ...]
    raw: bytes
    reasons: tuple[int, ...] = (MALFORMED, ERROR)


ALL, OLD, SINCE_311, NEW = (3, 4, 5), (3, 4), (4, 5), (5,)

WRONG = [
    # --- packet types
    Wrong("type 0", ALL, packet(0x00)),
    Wrong("type 0 with a body", ALL, packet(0x00, b"abc")),
    Wrong("type 15 before MQTT 5", OLD, packet(0xF0)),
    Wrong("type 15 with a body before MQTT 5", OLD, packet(0xF0, b"\x18\0")),
    Wrong("CONNACK", OLD, wire.connack(level=4)),
    Wrong("CONNACK of MQTT 5", NEW, wire.connack(), (ERROR,)),  # CVE-2021-28166
    Wrong("SUBACK", OLD, wire.suback(0, level=4)),
    Wrong("SUBACK of MQTT 5", NEW, wire.suback(0), (ERROR,)),
    Wrong("UNSUBACK", OLD, wire.unsuback(level=4)),
    Wrong("UNSUBACK of MQTT 5", NEW, wire.unsuback(0), (ERROR,)),
    Wrong("PINGRESP", ALL, wire.pingresp(), (ERROR,)),
    # --- PUBLISH
    Wrong("QoS 3", ALL, packet(0x36, text("a") + u16(1) + b"\0x"), (MALFORMED,)),
    Wrong("QoS 3 with DUP and RETAIN", ALL, packet(0x3F, text("a") + u16(1) + b"\0x"), (MALFORMED,)),
    Wrong("DUP at QoS 0", SINCE_311, packet(0x38, text("a") + b"\0x"), (MALFORMED,)),
    Wrong("packet id 0 at QoS 1", OLD, wire.publish("a", qos=1, packet_id=0, level=4)),
    Wrong("packet id 0 at QoS 2", OLD, wire.publish("a", qos=2, packet_id=0, level=4)),
    Wrong("packet id 0 at QoS 1 of MQTT 5", NEW, wire.publish("a", qos=1, packet_id=0)),
    Wrong("packet id 0 at QoS 2 of MQTT 5", NEW, wire.publish("a", qos=2, packet_id=0)),
    Wrong("nothing in a PUBLISH", ALL, packet(0x30)),
    Wrong("half a topic length", ALL, packet(0x30, b"\0")),
    Wrong("a topic longer than its packet", ALL, packet(0x30, b"\0\5abc")),
    Wrong("a topic and no packet id", ALL, packet(0x32, text("abc"))),
    Wrong("a topic and half a packet id", ALL, packet(0x34, text("abc") + b"\1")),
    Wrong("no property length", NEW, packet(0x30, text("abc"))),
    Wrong("no property length behind the packet id", NEW, packet(0x32, text("abc") + u16(1))),
    # --- acknowledgements
    *[
        Wrong(f"{name} {fault}", which, packet(first, body))
        for name, first in (("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70))
        for fault, which, body in (
            ("without packet id", ALL, b""),
            ("with half a packet id", ALL, b"\1"),
            ("of packet id 0", ALL, u16(0)),
            ("with more than a packet id", OLD, u16(1) + b"\0"),
            ("with more than properties", NEW, u16(1) + b"\0\0\0"),
            ("with less than its properties", NEW, u16(1) + b"\0\5"),
            ("with an unknown reason code", NEW, u16(1) + b"\x7f"),
            ("with a reason code of CONNACK", NEW, u16(1) + b"\x85\0"),
        )
    ],
    # --- SUBSCRIBE
    Wrong("SUBSCRIBE without packet id", ALL, packet(0x82)),
    Wrong("SUBSCRIBE with packet id 0", OLD, wire.subscribe("a", packet_id=0, level=4)),
    Wrong("SUBSCRIBE with packet id 0 in MQTT 5", NEW, wire.subscribe("a", packet_id=0)),
    Wrong("SUBSCRIBE without filters in MQTT 3.1", (3,), packet(0x82, u16(1))),
    Wrong("SUBSCRIBE without filters", (4,), packet(0x82, u16(1))),
    Wrong("SUBSCRIBE without filters in MQTT 5", NEW, packet(0x82, u16(1) + b"\0"), (ERROR,)),
    Wrong("SUBSCRIBE without property length", NEW, packet(0x82, u16(1))),
    Wrong("a filter without options", OLD, packet(0x82, u16(1) + text("a"))),
    Wrong("a filter without options in MQTT 5", NEW, packet(0x82, u16(1) + b"\0" + text("a"))),
    Wrong("a second filter without options", OLD, packet(0x82, u16(1) + text("a") + b"\0" + text("b"))),
    Wrong("a filter longer than its packet", OLD, packet(0x82, u16(1) + b"\0\5ab\0")),
    Wrong("a filter longer than its packet in MQTT 5", NEW, packet(0x82, u16(1) + b"\0\0\5ab\0")),
    Wrong("half a filter length", OLD, packet(0x82, u16(1) + b"\0")),
    Wrong("asking for QoS 3", OLD, wire.subscribe(("a", 3), level=4)),
    Wrong("asking for QoS 3 in MQTT 5", NEW, wire.subscribe(("a", 3))),
    *[Wrong(f"option 0x{bit:02X}", OLD, wire.subscribe(("a", bit), level=4)) for bit in (4, 8, 16, 32, 64, 128)],
    Wrong("option 0x40 in MQTT 5", NEW, wire.subscribe(("a", 0x40)), (MALFORMED,)),
    Wrong("option 0x80 in MQTT 5", NEW, wire.subscribe(("a", 0x80)), (MALFORMED,)),
    Wrong("retain handling 3", NEW, wire.subscribe("a", retain_handling=3)),
    Wrong("the second filter's option 0x40", NEW, wire.subscribe(("a", 0), ("b", 0x40)), (MALFORMED,)),
    # --- UNSUBSCRIBE
    Wrong("UNSUBSCRIBE without packet id", ALL, packet(0xA2)),
    Wrong("UNSUBSCRIBE with packet id 0", OLD, wire.unsubscribe("a", packet_id=0, level=4)),
    Wrong("UNSUBSCRIBE with packet id 0 in MQTT 5", NEW, wire.unsubscribe("a", packet_id=0)),
    Wrong("UNSUBSCRIBE without filters in MQTT 3.1", (3,), packet(0xA2, u16(1))),
    Wrong("UNSUBSCRIBE without filters", (4,), packet(0xA2, u16(1))),
    Wrong("UNSUBSCRIBE without filters in MQTT 5", NEW, packet(0xA2, u16(1) + b"\0"), (ERROR,)),
    Wrong("UNSUBSCRIBE without property length", NEW, packet(0xA2, u16(1))),
    Wrong("UNSUBSCRIBE from half a filter", ALL, packet(0xA2, u16(1) + b"\0\0\5ab")),
    Wrong("UNSUBSCRIBE and half a filter length", OLD, packet(0xA2, u16(1) + text("a") + b"\0")),
    # --- PINGREQ, DISCONNECT, AUTH
    Wrong("PINGREQ with a body", ALL, packet(0xC0, b"\0")),
    Wrong("DISCONNECT with a body", OLD, packet(0xE0, b"\0")),
    Wrong("DISCONNECT with less than its properties", NEW, packet(0xE0, b"\0\5")),
    Wrong("DISCONNECT with more than its properties", NEW, packet(0xE0, b"\0\0\0")),
    Wrong("DISCONNECT with an unknown reason code", NEW, packet(0xE0, b"\x7f")),
    # --- lengths
    Wrong("a remaining length of five bytes", ALL, b"\x30\xff\xff\xff\xff\x01", (MALFORMED,)),
    Wrong("a remaining length of 0 in two bytes", ALL, b"\xc0\x80\x00", (MALFORMED,)),
    Wrong("a remaining length in one byte too many", OLD, b"\x30\x84\x00\x00\x01ax"),
    Wrong("a property length in one byte too many", NEW, packet(0x30, text("a") + b"\x80\x00x"), (MALFORMED,)),
    Wrong("a property length of five bytes", NEW, packet(0x30, text("a") + b"\x80\x80\x80\x80\x01"), (MALFORMED,)),
]


_ACKNOWLEDGEMENTS = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP")
MOSQUITTO_LETS_PASS = {
    *("SUBACK", "SUBACK of MQTT 5", "UNSUBACK", "UNSUBACK of MQTT 5", "PINGRESP"),
    *("DUP at QoS 0", "PINGREQ with a body"),
    *(f"{name} with more than a packet id" for name in _ACKNOWLEDGEMENTS),
    *(f"{name} with more than properties" for name in _ACKNOWLEDGEMENTS),
    *(f"{name} with an unknown reason code" for name in _ACKNOWLEDGEMENTS),
    *(f"{name} with a reason code of CONNACK" for name in _ACKNOWLEDGEMENTS),
    *("SUBSCRIBE without filters in MQTT 3.1", "UNSUBSCRIBE without filters in MQTT 3.1"),
    *("a remaining length of 0 in two bytes", "a remaining length in one byte too many"),
}
MOSQUITTO_CLOSES_WITHOUT_A_WORD = {
    "CONNACK of MQTT 5",
    *(f"{name} without packet id" for name in _ACKNOWLEDGEMENTS),
    *(f"{name} with half a packet id" for name in _ACKNOWLEDGEMENTS),
    *(f"{name} of packet id 0" for name in _ACKNOWLEDGEMENTS),
    *(f"{name} with less than its properties" for name in _ACKNOWLEDGEMENTS),
    *("DISCONNECT with less than its properties", "DISCONNECT with more than its properties"),
    *("DISCONNECT with an unknown reason code", "a remaining length of five bytes"),
}
MOSQUITTO_SAYS_MALFORMED = {"SUBSCRIBE without filters in MQTT 5", "UNSUBSCRIBE without filters in MQTT 5"}


def lines(*, said: bool) -> list[object]:
    """WRONG, a line for each level; with `said` only where a DISCONNECT says what was wrong."""
    found = []
    for wrong in WRONG:
        instead = ""
        if wrong.name in MOSQUITTO_LETS_PASS:
            instead = "lets it pass"
        elif said and wrong.name in MOSQUITTO_CLOSES_WITHOUT_A_WORD:
            instead = "closes without a DISCONNECT"
        elif said and wrong.name in MOSQUITTO_SAYS_MALFORMED:
            instead = "says 0x81"
        marks = [mosquitto_differs(instead)] if instead else []
        for level in wrong.levels:
            if level == 5 or not said:
                found.append(pytest.param(level, wrong, marks=marks, id=f"{level}-{wrong.name}"))
    return found


@pytest.mark.parametrize(("level", "wrong"), lines(said=False))
async def test_a_malformed_packet_closes_the_connection(broker: Subject, level: int, wrong: Wrong) -> None:
    """[MQTT-4.13.1-1] [MQTT-2.2.1-3] [MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT-3.8.3-2] [MQTT-3.8.3-5] [MQTT-3.10.3-2]
    [MQTT-1.5.5-1] [MQTT-2.2.2-1]
    3.1.1: [MQTT-4.8.0-1] [MQTT-2.3.1-1] [MQTT-3.3.1-4] [MQTT-3.8.3-3] [MQTT-3.8.3-4] [MQTT-3.10.3-2]"""
    async with broker.client(level=level) as client:
        await client.dies_of(wrong.raw)


@pytest.mark.parametrize(("level", "wrong"), lines(said=True))
async def test_a_disconnect_says_what_was_malformed(broker: Subject, level: int, wrong: Wrong) -> None:
    """[MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-4.13.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2]"""
    async with broker.client(level=level) as client:
        await client.dies_of(wrong.raw, *wrong.reasons)


@since_311
@pytest.mark.parametrize(
    ("right", "body"),
    [
        (wire.PUBACK, u16(1)),
        (wire.PUBREC, u16(1)),
        (wire.PUBREL, u16(1)),
        (wire.PUBCOMP, u16(1)),
        (wire.SUBSCRIBE, None),
        (wire.UNSUBSCRIBE, None),
        (wire.PINGREQ, b""),
        (wire.DISCONNECT, b""),
        (wire.AUTH, b""),
    ],
    ids=["PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "UNSUBSCRIBE", "PINGREQ", "DISCONNECT", "AUTH"],
)
@mosquitto_differs("lets it pass", right=(wire.PUBACK, wire.PUBREC, wire.PUBCOMP, wire.PINGREQ))
async def test_reserved_flags_close_the_connection(broker: Subject, level: int, right: int, body: bytes | None) -> None:
    """[MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
    3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]"""
    if body is None:
        ask = wire.subscribe if right == wire.SUBSCRIBE else wire.unsubscribe
        body = wire.split(ask("a", level=level))[1]
    for flags in range(16):
        if flags != right & 0x0F:
            async with broker.client(level=level) as client:
                await client.dies_of(packet(right & 0xF0 | flags, body))


@levels
async def test_the_packets_before_a_malformed_one_are_worked_off(broker: Subject, topic: str, level: int) -> None:
    """MQTT 5, section 4.13.1."""
    async with broker.client("two", level=level) as watcher, broker.client(level=level) as client:
        await watcher.subscribe(topic)
        client.send(wire.publish(topic, b"before", level=level), packet(0x00), wire.publish(topic, level=level))
        await client.ended()
        await watcher.gets(topic, b"before")
        await watcher.settled()


@levels
async def test_after_a_malformed_packet_the_next_connection_is_served(broker: Subject, level: int) -> None:
    async with broker.client(level=level) as client:
        await client.dies_of(packet(0x00))
    async with broker.client(level=level) as client:
        await client.settled()

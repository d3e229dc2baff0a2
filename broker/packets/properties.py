"""The properties of MQTT 5 in one table, and what reads and writes them by it (section 2.2.2). No I/O, no clock.

Properties are a plain dict by name, as most packets have none and few have more than two. Their order is kept, so a
packet that is decoded and encoded again is the same bytes (unless one that may repeat was scattered among others).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict, cast

from broker.packets import primitives
from broker.packets.errors import MalformedPacket, Unencodable, malformed, protocol_error
from broker.packets.framing import PacketType
from broker.packets.primitives import Buffer, read_varint, write_varint
from broker.reason import ReasonCode

MAX_REPEATED = 1000
"""Values of one property that may repeat, in one packet: many thousands would hold up the loop [CVE-2021-41039]."""


class Properties(TypedDict, total=False):
    """The properties a packet has. Those that may repeat are lists, in the order of the wire."""

    payload_format_indicator: int
    message_expiry_interval: int
    content_type: str
    response_topic: str
    correlation_data: bytes
    subscription_identifier: list[int]
    session_expiry_interval: int
    assigned_client_identifier: str
    server_keep_alive: int
    authentication_method: str
    authentication_data: bytes
    request_problem_information: int
    will_delay_interval: int
    request_response_information: int
    response_information: str
    server_reference: str
    reason_string: str
    receive_maximum: int
    topic_alias_maximum: int
    topic_alias: int
    maximum_qos: int
    retain_available: int
    user_property: list[tuple[str, str]]
    maximum_packet_size: int
    wildcard_subscription_available: int
    subscription_identifier_available: int
    shared_subscription_available: int


class Wire(StrEnum):
    """How a property's value is written."""

    BYTE = "byte"
    U16 = "two-byte integer"
    U32 = "four-byte integer"
    VARINT = "variable byte integer"
    TEXT = "UTF-8 string"
    BINARY = "binary data"
    PAIR = "UTF-8 string pair"


WILL = 0
"""Where a will's properties stand. The other places are packet types, of which 0 is none."""

_ANYWHERE = frozenset({WILL, *PacketType}) - {PacketType.PINGREQ, PacketType.PINGRESP}
_MESSAGE = frozenset({PacketType.PUBLISH, WILL})
_HANDSHAKE = frozenset({PacketType.CONNECT, PacketType.CONNACK})
_CONNACK = frozenset({PacketType.CONNACK})
_NOWHERE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of table 2-4: `places` may have it, `many_in` may have it more than once."""

    id: int
    name: str
    wire: Wire
    places: frozenset[int]
    many_in: frozenset[int] = _NOWHERE
    low: int = 0
    high: int = 0xFFFF_FFFF


RULES = (
    Rule(0x01, "payload_format_indicator", Wire.BYTE, _MESSAGE, high=1),
    Rule(0x02, "message_expiry_interval", Wire.U32, _MESSAGE),
    Rule(0x03, "content_type", Wire.TEXT, _MESSAGE),  # [MQTT-3.3.2-19]
    Rule(0x08, "response_topic", Wire.TEXT, _MESSAGE),  # [MQTT-3.3.2-13]
    Rule(0x09, "correlation_data", Wire.BINARY, _MESSAGE),
    Rule(
        0x0B,
        "subscription_identifier",
        Wire.VARINT,
        frozenset({PacketType.PUBLISH, PacketType.SUBSCRIBE}),
        frozenset({PacketType.PUBLISH}),
        low=1,
    ),
    Rule(0x11, "session_expiry_interval", Wire.U32, _HANDSHAKE | {PacketType.DISCONNECT}),
    Rule(0x12, "assigned_client_identifier", Wire.TEXT, _CONNACK),
    Rule(0x13, "server_keep_alive", Wire.U16, _CONNACK),
    Rule(0x15, "authentication_method", Wire.TEXT, _HANDSHAKE | {PacketType.AUTH}),
    Rule(0x16, "authentication_data", Wire.BINARY, _HANDSHAKE | {PacketType.AUTH}),
    Rule(0x17, "request_problem_information", Wire.BYTE, frozenset({PacketType.CONNECT}), high=1),
    Rule(0x18, "will_delay_interval", Wire.U32, frozenset({WILL})),
    Rule(0x19, "request_response_information", Wire.BYTE, frozenset({PacketType.CONNECT}), high=1),
    Rule(0x1A, "response_information", Wire.TEXT, _CONNACK),
    Rule(0x1C, "server_reference", Wire.TEXT, frozenset({PacketType.CONNACK, PacketType.DISCONNECT})),
    Rule(
        0x1F,
        "reason_string",
        Wire.TEXT,
        _ANYWHERE - {WILL, PacketType.CONNECT, PacketType.PUBLISH, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE},
    ),
    Rule(0x21, "receive_maximum", Wire.U16, _HANDSHAKE, low=1),
    Rule(0x22, "topic_alias_maximum", Wire.U16, _HANDSHAKE),
    Rule(0x23, "topic_alias", Wire.U16, frozenset({PacketType.PUBLISH}), low=1),  # [MQTT-3.3.2-8]
    Rule(0x24, "maximum_qos", Wire.BYTE, _CONNACK, high=1),
    Rule(0x25, "retain_available", Wire.BYTE, _CONNACK, high=1),
    Rule(0x26, "user_property", Wire.PAIR, _ANYWHERE, _ANYWHERE),
    Rule(0x27, "maximum_packet_size", Wire.U32, _HANDSHAKE, low=1),
    Rule(0x28, "wildcard_subscription_available", Wire.BYTE, _CONNACK, high=1),
    Rule(0x29, "subscription_identifier_available", Wire.BYTE, _CONNACK, high=1),
    Rule(0x2A, "shared_subscription_available", Wire.BYTE, _CONNACK, high=1),
)
RULE_BY_ID = {rule.id: rule for rule in RULES}
RULE_BY_NAME = {rule.name: rule for rule in RULES}

_READERS: dict[Wire, Callable[[Buffer, int, int], tuple[Any, int]]] = {
    Wire.BYTE: primitives.read_u8,
    Wire.U16: primitives.read_u16,
    Wire.U32: primitives.read_u32,
    Wire.VARINT: primitives.read_varint,
    Wire.TEXT: primitives.read_text,
    Wire.BINARY: primitives.read_binary,
    Wire.PAIR: primitives.read_pair,
}
_WRITERS: dict[Wire, Callable[[Any], bytes]] = {
    Wire.BYTE: primitives.write_u8,
    Wire.U16: primitives.write_u16,
    Wire.U32: primitives.write_u32,
    Wire.VARINT: primitives.write_varint,
    Wire.TEXT: primitives.write_text,
    Wire.BINARY: primitives.write_binary,
    Wire.PAIR: primitives.write_pair,
}


def read_properties(buffer: Buffer, at: int, end: int, place: int) -> tuple[Properties, int]:
    """The properties at `at` of a packet of type `place` (0: of a will), and where what follows them begins."""
    length, at = read_varint(buffer, at, end)
    stop = at + length
    if stop > end:
        raise malformed("the properties go beyond the end of the packet")
    found: dict[str, Any] = {}
    while at < stop:
        rule = RULE_BY_ID.get(buffer[at])  # a variable byte integer, but none is above 0x2A
        if rule is None or place not in rule.places:
            raise malformed(f"property 0x{buffer[at]:02X} is not one of this packet")  # section 2.2.2.2
        value, at = _READERS[rule.wire](buffer, at + 1, stop)
        _check_value(rule, value)
        if not rule.many_in:
            if rule.name in found:
                raise protocol_error(f"{rule.name} is there twice")
            found[rule.name] = value
            continue
        values = found.setdefault(rule.name, [])
        if values and place not in rule.many_in:
            raise protocol_error(f"{rule.name} is there twice")
        if len(values) >= MAX_REPEATED:
            raise MalformedPacket(ReasonCode.QUOTA_EXCEEDED, f"more than {MAX_REPEATED} of {rule.name}")
        values.append(value)
    return cast(Properties, found), at


def write_properties(properties: Properties, place: int) -> bytes:
    """The properties of a packet of type `place` (0: of a will) with their length before them."""
    if not properties:
        return b"\0"  # [MQTT-2.2.2-1]
    out = []
    for name, value in properties.items():
        rule = RULE_BY_NAME.get(name)
        if rule is None or place not in rule.places:
            raise Unencodable(f"{name} is not a property of this packet")
        values = cast(list[Any], value) if rule.many_in else [value]
        if len(values) > 1 and place not in rule.many_in:
            raise Unencodable(f"{name} may be there only once")
        for each in values:
            _check_value(rule, each)
            out.append(bytes((rule.id,)) + _WRITERS[rule.wire](each))
    body = b"".join(out)
    return write_varint(len(body)) + body


def _check_value(rule: Rule, value: Any) -> None:
    if rule.wire in (Wire.BYTE, Wire.U16, Wire.U32, Wire.VARINT):
        if rule.name == "topic_alias" and not value:
            raise MalformedPacket(ReasonCode.TOPIC_ALIAS_INVALID, "a topic alias of 0")  # [MQTT-3.3.2-8]
        if not rule.low <= value <= rule.high:
            raise protocol_error(f"{rule.name} is out of its range")
    elif rule.name == "response_topic" and (not value or "+" in value or "#" in value):
        raise protocol_error("response_topic is no topic name")  # [MQTT-3.3.2-14], [MQTT-4.7.3-1]

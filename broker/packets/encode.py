"""Packets into bytes (MQTT 3.1, 3.1.1 and 5), always the shortest form. No I/O, no clock.

The mirror of `decode`, and held to the same `rules`: what is encoded here can be decoded there.
"""

from collections.abc import Callable
from typing import Any

from broker.packets import rules
from broker.packets.decode import PROTOCOL_NAMES
from broker.packets.errors import MalformedPacket, Unencodable
from broker.packets.framing import MQTT_5, PacketType, check_first_byte, first_byte
from broker.packets.primitives import write_binary, write_text, write_u8, write_u16, write_varint
from broker.packets.properties import WILL, Properties, write_properties
from broker.packets.types import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)


def encode(packet: Packet, protocol: int) -> bytes:
    """The bytes of a packet at protocol level 3, 4 or 5. Raises Unencodable (ours) for what the level cannot say."""
    kind, body_of = _BODIES[type(packet)]
    try:
        body = body_of(packet, protocol)
        first = _publish_first_byte(packet) if isinstance(packet, Publish) else first_byte(kind)
        check_first_byte(first, protocol)
    except MalformedPacket as error:
        raise Unencodable(f"{kind.name}: {error.detail}") from error
    return bytes((first,)) + write_varint(len(body)) + body


def _connect(packet: Connect, protocol: int) -> bytes:
    if packet.protocol != protocol or protocol not in PROTOCOL_NAMES:
        raise Unencodable(f"a CONNECT for level {packet.protocol} at level {protocol}")
    rules.check_connect(packet)
    will = packet.will
    flags = packet.clean_start << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
    parts = [
        write_text(PROTOCOL_NAMES[protocol]),
        bytes((protocol, flags)),
        write_u16(packet.keepalive_s),
        _properties(packet.properties, PacketType.CONNECT, protocol),
        write_text(packet.client_id),
    ]
    if will is not None:
        parts += [_properties(will.properties, WILL, protocol), write_text(will.topic), write_binary(will.payload)]
    if packet.username is not None:
        parts.append(write_text(packet.username))
    if packet.password is not None:
        parts.append(write_binary(packet.password))
    return b"".join(parts)


def _connack(packet: Connack, protocol: int) -> bytes:
    rules.check_connack(packet, protocol)
    properties = _properties(packet.properties, PacketType.CONNACK, protocol)
    return bytes((packet.session_present, packet.reason)) + properties


def _publish(packet: Publish, protocol: int) -> bytes:
    rules.check_publish(packet)
    packet_id = b"" if packet.packet_id is None else write_u16(packet.packet_id)
    properties = _properties(packet.properties, PacketType.PUBLISH, protocol)
    return b"".join((write_text(packet.topic), packet_id, properties, packet.payload))


def _publish_first_byte(packet: Publish) -> int:
    return PacketType.PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain


def _ack(packet: Ack, protocol: int) -> bytes:
    kind = _BODIES[type(packet)][0]
    rules.check_reason(packet.reason, kind, protocol)
    return _packet_id(packet.packet_id) + _reason_and_properties(packet.reason, packet.properties, kind, protocol)


def _subscribe(packet: Subscribe, protocol: int) -> bytes:
    if not packet.subscriptions:
        raise Unencodable("a SUBSCRIBE without topic filters")  # [MQTT-3.8.3-2]
    rules.check_count(len(packet.subscriptions), PacketType.SUBSCRIBE)
    parts = [_packet_id(packet.packet_id), _properties(packet.properties, PacketType.SUBSCRIBE, protocol)]
    for line in packet.subscriptions:
        rules.check_subscription(line, protocol)
        options = line.qos | line.no_local << 2 | line.retain_as_published << 3 | line.retain_handling << 4
        parts += [write_text(line.topic_filter), write_u8(options)]
    return b"".join(parts)


def _suback(packet: Suback | Unsuback, protocol: int) -> bytes:
    kind = _BODIES[type(packet)][0]
    rules.check_reasons(packet.reasons, kind, protocol)
    properties = _properties(packet.properties, kind, protocol)
    return _packet_id(packet.packet_id) + properties + bytes(packet.reasons)


def _unsubscribe(packet: Unsubscribe, protocol: int) -> bytes:
    if not packet.topic_filters:
        raise Unencodable("an UNSUBSCRIBE without topic filters")  # [MQTT-3.10.3-2]
    rules.check_count(len(packet.topic_filters), PacketType.UNSUBSCRIBE)
    parts = [_packet_id(packet.packet_id), _properties(packet.properties, PacketType.UNSUBSCRIBE, protocol)]
    for topic_filter in packet.topic_filters:
        rules.check_topic_filter(topic_filter)
        parts.append(write_text(topic_filter))
    return b"".join(parts)


def _ping(packet: Pingreq | Pingresp, protocol: int) -> bytes:
    return b""


def _disconnect(packet: Disconnect, protocol: int) -> bytes:
    rules.check_reason(packet.reason, PacketType.DISCONNECT, protocol)
    return _reason_and_properties(packet.reason, packet.properties, PacketType.DISCONNECT, protocol)


def _auth(packet: Auth, protocol: int) -> bytes:
    rules.check_auth(packet)
    if not packet.reason and not packet.properties:
        return b""
    return write_u8(packet.reason) + write_properties(packet.properties, PacketType.AUTH)


def _reason_and_properties(reason: int, properties: Properties, kind: PacketType, protocol: int) -> bytes:
    """The end of an acknowledgement or DISCONNECT, without what may be left out."""
    written = _properties(properties, kind, protocol)
    if properties:
        return write_u8(reason) + written
    return write_u8(reason) if reason else b""


def _properties(properties: Properties, place: int, protocol: int) -> bytes:
    if protocol == MQTT_5:
        return write_properties(properties, place)
    if properties:
        raise Unencodable(f"properties at protocol level {protocol}")
    return b""


def _packet_id(packet_id: int) -> bytes:
    rules.check_packet_id(packet_id)
    return write_u16(packet_id)


_BODIES: dict[type[Packet], tuple[PacketType, Callable[[Any, int], bytes]]] = {
    Connect: (PacketType.CONNECT, _connect),
    Connack: (PacketType.CONNACK, _connack),
    Publish: (PacketType.PUBLISH, _publish),
    Puback: (PacketType.PUBACK, _ack),
    Pubrec: (PacketType.PUBREC, _ack),
    Pubrel: (PacketType.PUBREL, _ack),
    Pubcomp: (PacketType.PUBCOMP, _ack),
    Subscribe: (PacketType.SUBSCRIBE, _subscribe),
    Suback: (PacketType.SUBACK, _suback),
    Unsubscribe: (PacketType.UNSUBSCRIBE, _unsubscribe),
    Unsuback: (PacketType.UNSUBACK, _suback),
    Pingreq: (PacketType.PINGREQ, _ping),
    Pingresp: (PacketType.PINGRESP, _ping),
    Disconnect: (PacketType.DISCONNECT, _disconnect),
    Auth: (PacketType.AUTH, _auth),
}

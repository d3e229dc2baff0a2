"""Bytes into packets (MQTT 3.1, 3.1.1 and 5). No I/O, no clock.

The body of a packet is read only once all of it is there, by one function per packet; each must use the body up
exactly. What a packet may say is in `rules`, what its first byte may be in `framing`.
"""

from collections.abc import Callable

from broker.packets import rules
from broker.packets.errors import MalformedPacket, malformed, protocol_error
from broker.packets.framing import MAX_PACKET_BYTES, MQTT_3_1, MQTT_3_1_1, MQTT_5, PacketType, check_first_byte, frame
from broker.packets.primitives import Buffer, read_binary, read_text, read_u8, read_u16
from broker.packets.properties import WILL, Properties, read_properties
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
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.reason import ReasonCode

PROTOCOL_NAMES = {MQTT_3_1: "MQIsdp", MQTT_3_1_1: "MQTT", MQTT_5: "MQTT"}


def decode(
    buffer: Buffer, offset: int = 0, *, protocol: int, max_packet_bytes: int = MAX_PACKET_BYTES
) -> tuple[Packet, int] | None:
    """The packet at `offset` and where the next one begins; None while it is not all there.

    `protocol` is the level agreed on (3, 4 or 5); a CONNECT says its own, so before one any will do.
    Raises MalformedPacket (the peer's fault; carries the reason code to send), from the first byte on.
    """
    if offset >= len(buffer):
        return None
    check_first_byte(buffer[offset], protocol)
    found = frame(buffer, offset, max_packet_bytes)
    if found is None:
        return None
    first, start, end = found
    return decode_body(first, buffer, start, end, protocol), end


def decode_body(first: int, buffer: Buffer, start: int, end: int, protocol: int) -> Packet:
    """What `frame` found, read. `first` must have passed `check_first_byte`."""
    return _BODIES[first >> 4](first, buffer, start, end, protocol)


def _connect(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Connect:
    name, at = read_text(buffer, at, end)
    protocol, at = read_u8(buffer, at, end)
    if name not in PROTOCOL_NAMES.values():  # another protocol: nothing of ours could be understood there
        raise protocol_error("a protocol name that is not ours")  # [MQTT-3.1.2-1]
    if PROTOCOL_NAMES.get(protocol) != name:  # [MQTT-3.1.2-1], [MQTT-3.1.2-2]
        raise MalformedPacket(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "a protocol name or level that is not ours")
    flags, at = read_u8(buffer, at, end)
    if flags & 0x01 and protocol != MQTT_3_1:  # 3.1 says only that it is not used
        raise malformed("the reserved connect flag is set")  # [MQTT-3.1.2-3]
    if not flags & 0x04 and flags & 0x38:
        raise malformed("a will QoS or retain without a will")  # [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    keepalive_s, at = read_u16(buffer, at, end)
    properties, at = _properties(buffer, at, end, PacketType.CONNECT, protocol)
    client_id, at = read_text(buffer, at, end)  # [MQTT-3.1.3-1], [MQTT-3.1.3-3], [MQTT-3.1.3-4]
    packet = Connect(
        protocol=protocol,
        client_id=client_id,
        clean_start=bool(flags & 0x02),
        keepalive_s=keepalive_s,
        properties=properties,
    )
    if flags & 0x04:  # [MQTT-3.1.2-9]
        will_properties, at = _properties(buffer, at, end, WILL, protocol)
        topic, at = read_text(buffer, at, end)  # [MQTT-3.1.3-11]
        payload, at = read_binary(buffer, at, end)
        packet.will = Will(
            topic=topic, payload=payload, qos=flags >> 3 & 3, retain=bool(flags & 0x20), properties=will_properties
        )
    if protocol < MQTT_5 and flags & 0xC0 == 0x40:
        raise malformed("a password without a user name")  # 3.1.1: [MQTT-3.1.2-22]
    # In 3.1 "the Remaining Length takes precedence": a user name and password announced may be missing (section 3.1).
    if flags & 0x80 and not (protocol == MQTT_3_1 and at == end):  # [MQTT-3.1.2-17]
        packet.username, at = read_text(buffer, at, end)  # [MQTT-3.1.3-12]
    if flags & 0x40 and not (protocol == MQTT_3_1 and at == end):  # [MQTT-3.1.2-19]
        packet.password, at = read_binary(buffer, at, end)
    _must_end(at, end)  # [MQTT-3.1.2-16], [MQTT-3.1.2-18]
    rules.check_connect(packet)
    return packet


def _connack(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Connack:
    flags, at = read_u8(buffer, at, end)
    if protocol == MQTT_3_1:
        flags = 0  # "reserved values, not used": nothing to hold a peer to
    if flags & 0xFE:
        raise malformed("reserved CONNACK flags")  # [MQTT-3.2.2-1]
    reason, at = read_u8(buffer, at, end)
    properties, at = _properties(buffer, at, end, PacketType.CONNACK, protocol)
    _must_end(at, end)
    packet = Connack(reason=reason, session_present=bool(flags), properties=properties)
    rules.check_connack(packet, protocol)
    return packet


def _publish(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Publish:
    topic, at = read_text(buffer, at, end)  # [MQTT-3.3.2-1]
    qos = first >> 1 & 3
    packet_id = None
    if qos:
        packet_id, at = read_u16(buffer, at, end)
    properties: Properties = {}
    if protocol == MQTT_5:
        properties, at = read_properties(buffer, at, end, PacketType.PUBLISH)
    packet = Publish(
        topic=topic,
        payload=bytes(buffer[at:end]),
        qos=qos,
        retain=first & 0x01 != 0,
        dup=first & 0x08 != 0,
        packet_id=packet_id,
        properties=properties,
    )
    rules.check_publish(packet)
    return packet


def _ack(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Ack:
    kind = PacketType(first >> 4)
    packet_id, at = _packet_id(buffer, at, end)
    if protocol < MQTT_5 or at == end:  # a reason of 0 and no properties may be left out (section 3.4.2.1)
        _must_end(at, end)
        return _ACKS[kind](packet_id=packet_id, properties={})
    reason, properties = _reason_and_properties(buffer, at, end, kind)
    return _ACKS[kind](packet_id=packet_id, reason=reason, properties=properties)


def _subscribe(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Subscribe:
    packet_id, at = _packet_id(buffer, at, end)
    properties, at = _properties(buffer, at, end, PacketType.SUBSCRIBE, protocol)
    if at == end:
        raise protocol_error("a SUBSCRIBE without topic filters")  # [MQTT-3.8.3-2]; 3.1.1: [MQTT-3.8.3-3]
    reserved = 0xC0 if protocol == MQTT_5 else 0xFC
    subscriptions = []
    while at < end:
        topic_filter, at = read_text(buffer, at, end)  # [MQTT-3.8.3-1]
        options, at = read_u8(buffer, at, end)
        if options & reserved:
            raise malformed("reserved subscription options")  # [MQTT-3.8.3-5]; 3.1.1: [MQTT-3.8.3-4]
        subscription = Subscription(
            topic_filter=topic_filter,
            qos=options & 0x03,
            no_local=options & 0x04 != 0,
            retain_as_published=options & 0x08 != 0,
            retain_handling=options >> 4,
        )
        rules.check_subscription(subscription, protocol)
        subscriptions.append(subscription)
        rules.check_count(len(subscriptions), PacketType.SUBSCRIBE)
    return Subscribe(packet_id=packet_id, subscriptions=subscriptions, properties=properties)


def _suback(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Suback:
    packet_id, at = _packet_id(buffer, at, end)
    properties, at = _properties(buffer, at, end, PacketType.SUBACK, protocol)
    rules.check_count(end - at, PacketType.SUBACK)
    reasons = list(buffer[at:end])
    rules.check_reasons(reasons, PacketType.SUBACK, protocol)
    return Suback(packet_id=packet_id, reasons=reasons, properties=properties)


def _unsubscribe(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Unsubscribe:
    packet_id, at = _packet_id(buffer, at, end)
    properties, at = _properties(buffer, at, end, PacketType.UNSUBSCRIBE, protocol)
    if at == end:
        raise protocol_error("an UNSUBSCRIBE without topic filters")  # [MQTT-3.10.3-2]
    topic_filters = []
    while at < end:
        topic_filter, at = read_text(buffer, at, end)  # [MQTT-3.10.3-1]
        rules.check_topic_filter(topic_filter)
        topic_filters.append(topic_filter)
        rules.check_count(len(topic_filters), PacketType.UNSUBSCRIBE)
    return Unsubscribe(packet_id=packet_id, topic_filters=topic_filters, properties=properties)


def _unsuback(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Unsuback:
    packet_id, at = _packet_id(buffer, at, end)
    properties, at = _properties(buffer, at, end, PacketType.UNSUBACK, protocol)
    rules.check_count(end - at, PacketType.UNSUBACK)
    reasons = list(buffer[at:end])
    rules.check_reasons(reasons, PacketType.UNSUBACK, protocol)
    return Unsuback(packet_id=packet_id, reasons=reasons, properties=properties)


def _pingreq(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Pingreq:
    _must_end(at, end)
    return Pingreq()


def _pingresp(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Pingresp:
    _must_end(at, end)
    return Pingresp()


def _disconnect(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Disconnect:
    if protocol < MQTT_5 or at == end:
        _must_end(at, end)
        return Disconnect()
    reason, properties = _reason_and_properties(buffer, at, end, PacketType.DISCONNECT)
    return Disconnect(reason=reason, properties=properties)


def _auth(first: int, buffer: Buffer, at: int, end: int, protocol: int) -> Auth:
    packet = Auth()
    if at < end:
        packet.reason, at = read_u8(buffer, at, end)
        packet.properties, at = read_properties(buffer, at, end, PacketType.AUTH)
        _must_end(at, end)
    rules.check_auth(packet)
    return packet


def _reason_and_properties(buffer: Buffer, at: int, end: int, kind: PacketType) -> tuple[int, Properties]:
    """The end of an acknowledgement or DISCONNECT at level 5: the properties may be left out altogether."""
    reason, at = read_u8(buffer, at, end)
    rules.check_reason(reason, kind, MQTT_5)
    properties: Properties = {}
    if at < end:
        properties, at = read_properties(buffer, at, end, kind)
    _must_end(at, end)
    return reason, properties


def _properties(buffer: Buffer, at: int, end: int, place: int, protocol: int) -> tuple[Properties, int]:
    return read_properties(buffer, at, end, place) if protocol == MQTT_5 else ({}, at)


def _packet_id(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    packet_id, at = read_u16(buffer, at, end)
    rules.check_packet_id(packet_id)
    return packet_id, at


def _must_end(at: int, end: int) -> None:
    if at != end:
        raise malformed("bytes after the end of a packet")


_ACKS: dict[PacketType, type[Puback] | type[Pubrec] | type[Pubrel] | type[Pubcomp]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBREL: Pubrel,
    PacketType.PUBCOMP: Pubcomp,
}
_BODIES: dict[int, Callable[[int, Buffer, int, int, int], Packet]] = {
    PacketType.CONNECT: _connect,
    PacketType.CONNACK: _connack,
    PacketType.PUBLISH: _publish,
    PacketType.PUBACK: _ack,
    PacketType.PUBREC: _ack,
    PacketType.PUBREL: _ack,
    PacketType.PUBCOMP: _ack,
    PacketType.SUBSCRIBE: _subscribe,
    PacketType.SUBACK: _suback,
    PacketType.UNSUBSCRIBE: _unsubscribe,
    PacketType.UNSUBACK: _unsuback,
    PacketType.PINGREQ: _pingreq,
    PacketType.PINGRESP: _pingresp,
    PacketType.DISCONNECT: _disconnect,
    PacketType.AUTH: _auth,
}

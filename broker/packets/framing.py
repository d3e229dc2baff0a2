"""Where a packet begins and ends, and what its first byte may be: the fixed header. No I/O, no clock.

All that is refused here is refused before the body is there (MQTT 5, section 2.1; 3.1.1, section 2.2).
"""

from enum import IntEnum
from typing import Final

from broker.packets.errors import MalformedPacket, malformed
from broker.packets.primitives import MAX_VARINT, Buffer
from broker.reason import ReasonCode

MQTT_3_1: Final = 3
MQTT_3_1_1: Final = 4
MQTT_5: Final = 5

MAX_PACKET_BYTES: Final = MAX_VARINT + 5
"""The largest packet MQTT can say; who reads from a socket sets a smaller limit."""


class PacketType(IntEnum):
    """The high four bits of a packet's first byte (MQTT 5, section 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


DUP = 0x08
_FLAGS_OF = {PacketType.PUBREL: 0x02, PacketType.SUBSCRIBE: 0x02, PacketType.UNSUBSCRIBE: 0x02}
"""The low four bits of the first byte; 0 for the rest, PUBLISH apart."""


def first_byte(kind: PacketType) -> int:
    """The first byte of every packet but PUBLISH, whose flags say something."""
    return kind << 4 | _FLAGS_OF.get(kind, 0)


def _first_bytes(protocol: int) -> frozenset[int]:
    """The first bytes a protocol level allows."""
    allowed = {first_byte(kind) for kind in PacketType if kind is not PacketType.PUBLISH}
    if protocol < MQTT_5:
        allowed.discard(first_byte(PacketType.AUTH))  # 3.1.1: [MQTT-4.8.0-1], table 2.1
    if protocol == MQTT_3_1:
        allowed |= {first_byte(kind) | DUP for kind in _FLAGS_OF}  # 3.1, section 2.1: these are sent again with DUP
    for flags in range(16):
        qos = flags >> 1 & 3
        if qos < 3 and not (flags & DUP and qos == 0):  # [MQTT-3.3.1-4], [MQTT-3.3.1-2]
            allowed.add(PacketType.PUBLISH << 4 | flags)
    return frozenset(allowed)


FIRST_BYTES = {protocol: _first_bytes(protocol) for protocol in (MQTT_3_1, MQTT_3_1_1, MQTT_5)}


def check_first_byte(first: int, protocol: int) -> None:
    """Raise MalformedPacket for a type or flags that are reserved at this protocol level."""
    if first in FIRST_BYTES[protocol]:
        return
    kind, flags = first >> 4, first & 0x0F
    if kind == 0 or (kind == PacketType.AUTH and protocol < MQTT_5):
        raise malformed(f"packet type {kind} is reserved")
    if kind != PacketType.PUBLISH:
        # [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]
        raise malformed(f"reserved flags 0x{flags:X} on {PacketType(kind).name}")  # [MQTT-2.1.3-1]
    if flags & 0x06 == 0x06:
        raise malformed("a PUBLISH of QoS 3")  # [MQTT-3.3.1-4]
    raise malformed("a PUBLISH of QoS 0 with DUP")  # [MQTT-3.3.1-2]


def frame(buffer: Buffer, offset: int = 0, max_packet_bytes: int = MAX_PACKET_BYTES) -> tuple[int, int, int] | None:
    """The first byte of the packet at `offset`, and where its body begins and ends; None while it is not all there.

    Raises MalformedPacket as soon as the length is known to be wrong or the packet, header and all, too large.
    The first byte is not looked at: that is `check_first_byte`.
    """
    have = len(buffer)
    if have - offset < 2:
        return None
    length = buffer[offset + 1]
    start = offset + 2
    if length > 0x7F:
        length &= 0x7F
        shift = 7
        while True:
            if start >= have:
                return None
            byte = buffer[start]
            start += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                if not byte:
                    raise malformed("the remaining length is longer than it needs to be")  # [MQTT-1.5.5-1]
                break
            shift += 7
            if shift == 28:
                raise malformed("a remaining length of more than four bytes")  # section 2.1.4
    end = start + length
    if end - offset > max_packet_bytes:
        raise MalformedPacket(ReasonCode.PACKET_TOO_LARGE, f"a packet of {end - offset} bytes")  # [MQTT-3.2.2-15]
    return (buffer[offset], start, end) if end <= have else None

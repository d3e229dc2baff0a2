"""From bytes to amqtt's packets, strictly (MQTT 3.1.1 sections 2 and 3). No I/O, no clock.

amqtt reads packets from a stream field by field and believes what it reads. Here whole frames are cut out of the
bytes first, within a limit; then amqtt decodes the frame, and a packet that does not encode to the same bytes again
(bad UTF-8, bytes left over, a length that lies) is malformed. Decoding is `async` only as amqtt's is: it never waits.
"""

import struct
from dataclasses import dataclass
from typing import Any

from amqtt.adapters import BufferReader
from amqtt.codecs_amqtt import decode_data_with_length, encode_data_with_length
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError
from amqtt.mqtt import packet_class
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload, ConnectVariableHeader
from amqtt.mqtt.packet import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    MQTTFixedHeader,
)

_MAX_LENGTH_BYTES = 4
_FLAGS = {
    CONNECT: 0,
    PUBACK: 0,
    PUBREC: 0,
    PUBREL: 2,
    PUBCOMP: 0,
    SUBSCRIBE: 2,
    UNSUBSCRIBE: 2,
    PINGREQ: 0,
    DISCONNECT: 0,
}
_EMPTY = frozenset({PINGREQ, DISCONNECT})


class PeerFault(Exception):
    """The client broke the protocol or a limit; its connection is closed for `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnsupportedProtocol(PeerFault):
    """The client speaks another version of MQTT; CONNACK 1 tells it so."""


@dataclass(slots=True, kw_only=True)
class Frame:
    """One packet as it came: type, flags, and the bytes after the fixed header."""

    kind: int
    flags: int
    body: bytes


class Frames:
    """Cuts frames out of what is read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self, limit: int) -> Frame | None:
        """The next whole frame, or None. Raises PeerFault when it is longer than `limit`, before it has arrived."""
        buffer = self._buffer
        length = shift = 0
        for position in range(1, _MAX_LENGTH_BYTES + 1):
            if position >= len(buffer):
                return None
            byte = buffer[position]
            length |= (byte & 0x7F) << shift
            shift += 7
            if length > limit:
                raise PeerFault("packet too large")
            if not byte & 0x80:
                break
        else:
            raise PeerFault("malformed packet: length of more than four bytes")
        if position > 1 and byte == 0:
            raise PeerFault("malformed packet: length not in its shortest form")
        end = position + 1 + length
        if len(buffer) < end:
            return None
        frame = Frame(kind=buffer[0] >> 4, flags=buffer[0] & 0x0F, body=bytes(buffer[position + 1 : end]))
        del buffer[:end]
        return frame

    @property
    def starts_with_connect(self) -> bool:
        """False as soon as the first byte shows that the first packet is no CONNECT."""
        return not self._buffer or self._buffer[0] == CONNECT << 4


async def decode(frame: Frame) -> Any:
    """amqtt's packet of a frame. Raises PeerFault (UnsupportedProtocol for a CONNECT of another version)."""
    if frame.kind == PUBLISH:
        if frame.flags & 0x06 == 0x06 or frame.flags & 0x0E == 0x08:  # [MQTT-3.3.1-4], [MQTT-3.3.1-2]
            raise PeerFault("malformed PUBLISH: flags")
    elif _FLAGS.get(frame.kind) != frame.flags:
        raise PeerFault("malformed packet: type or flags")  # [MQTT-2.2.2-2]
    if frame.kind in _EMPTY and frame.body:
        raise PeerFault("malformed packet: bytes left over")
    if frame.kind == CONNECT:
        _check_protocol(frame.body)
    header = MQTTFixedHeader(frame.kind, frame.flags, len(frame.body))
    packet_type = StrictConnect if frame.kind == CONNECT else packet_class(header)
    try:
        packet = await packet_type.from_stream(BufferReader(frame.body), fixed_header=header)
        faithful = _encodes_to(packet, frame)
    except (AMQTTError, CodecError, MQTTError, NoDataError, ValueError, struct.error, IndexError) as error:
        raise PeerFault(f"malformed {packet_type.__name__}") from error
    if not faithful:
        raise PeerFault(f"malformed {packet_type.__name__}")
    if frame.kind != CONNECT and frame.kind not in _EMPTY and packet.variable_header.packet_id == 0:
        raise PeerFault("malformed packet: packet id 0")  # [MQTT-2.3.1-1]
    if frame.kind in (SUBSCRIBE, UNSUBSCRIBE) and not packet.payload.topics:
        raise PeerFault("malformed packet: no topic filter")  # [MQTT-3.8.3-3]
    return packet


def _encodes_to(packet: Any, frame: Frame) -> bool:
    if packet.variable_header is None:
        return True
    head = bytes(packet.variable_header.to_bytes())
    if frame.kind == PUBLISH:  # a payload is taken as it is; comparing it would only copy it
        return frame.body.startswith(head) and len(head) + len(packet.payload.data) == len(frame.body)
    if packet.payload is not None:
        head += bytes(packet.payload.to_bytes(packet.fixed_header, packet.variable_header))
    return head == frame.body


def _check_protocol(body: bytes) -> None:
    if body[:7] == b"\x00\x04MQTT\x04":
        flags = body[7] if len(body) > 7 else 0
        will, will_qos, will_retain = flags & 0x04, flags & 0x18, flags & 0x20
        if flags & 0x01 or (not will and (will_qos or will_retain)) or will_qos == 0x18:
            raise PeerFault("malformed CONNECT: flags")  # [MQTT-3.1.2-3], -11 to -15
        if flags & 0x40 and not flags & 0x80:
            raise PeerFault("malformed CONNECT: a password without a user name")  # [MQTT-3.1.2-22]
        return
    if body.startswith((b"\x00\x04MQTT", b"\x00\x06MQIsdp")):
        raise UnsupportedProtocol("unsupported protocol version")  # [MQTT-3.1.2-2]
    raise PeerFault("malformed CONNECT: not MQTT")  # [MQTT-3.1.2-1]


class _StrictConnectPayload(ConnectPayload):  # type: ignore[misc]  # amqtt has no types
    """amqtt's, with the password as the bytes it is, and an empty client id left empty."""

    @classmethod
    async def from_stream(cls, reader: Any, fixed: Any, variable_header: ConnectVariableHeader) -> Any:
        without_password = ConnectVariableHeader(variable_header.flags & ~ConnectVariableHeader.PASSWORD_FLAG)
        payload = await super().from_stream(reader, fixed, without_password)
        if payload.client_id_is_random:
            payload.client_id = ""
        if variable_header.password_flag:
            payload.password = await decode_data_with_length(reader)
        return payload

    def to_bytes(self, fixed_header: Any = None, variable_header: Any = None) -> bytes:
        without_password = ConnectVariableHeader(variable_header.flags & ~ConnectVariableHeader.PASSWORD_FLAG)
        head = bytes(super().to_bytes(fixed_header, without_password))
        return head + encode_data_with_length(self.password) if variable_header.password_flag else head


class StrictConnect(ConnectPacket):  # type: ignore[misc]  # amqtt has no types
    """amqtt's CONNECT with the payload above."""

    PAYLOAD = _StrictConnectPayload

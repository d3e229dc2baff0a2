"""Packets that answer a client, no larger than it takes them. No I/O, no clock."""

from dataclasses import replace

from broker.packets import Auth, Connack, Disconnect, PacketType, Puback, Pubrec, Suback, Unsuback, encode
from broker.packets.rules import REASONS_5
from broker.reason import TRANSIENT, ReasonCode

Answer = Auth | Connack | Disconnect | Puback | Pubrec | Suback | Unsuback


def answer(packet: Answer, protocol: int, limit: int) -> bytes:
    """Its bytes; at most `limit` of them (0: any number).

    Where there is no room the reason string is left out [MQTT-3.2.2-19], [MQTT-3.4.2-2], [MQTT-3.5.2-2],
    [MQTT-3.9.2-1], [MQTT-3.11.2-1], [MQTT-3.14.2-3]; what is too large even so is not sent at all [MQTT-3.1.2-24].
    """
    data = encode(packet, protocol)
    if limit and len(data) > limit and "reason_string" in packet.properties:
        properties = packet.properties.copy()
        del properties["reason_string"]
        data = encode(replace(packet, properties=properties), protocol)
    return data if not limit or len(data) <= limit else b""


def nearest(code: ReasonCode, kind: PacketType) -> ReasonCode:
    """The code itself where a packet of this kind may carry it, else one that is as temporary or final.

    Hooks answer as they like: a Guard may call a client banned (0x8A), which only a CONNACK can say.
    """
    allowed = REASONS_5[kind]
    if code in allowed:
        return code
    if code in (ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.BANNED, ReasonCode.BAD_AUTHENTICATION_METHOD):
        return ReasonCode.NOT_AUTHORIZED
    if code in TRANSIENT and ReasonCode.QUOTA_EXCEEDED in allowed:
        return ReasonCode.QUOTA_EXCEEDED
    return ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR

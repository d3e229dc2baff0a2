"""Packets that answer a client, no larger than it takes them. No I/O, no clock."""

from dataclasses import replace

from broker.packets import Auth, Connack, Disconnect, Puback, Pubrec, Suback, Unsuback, encode

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

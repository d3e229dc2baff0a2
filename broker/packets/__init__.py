"""MQTT packets as values, and the bytes they are: protocol levels 3 (3.1), 4 (3.1.1) and 5. No I/O, no clock.

`frame` finds where a packet ends, `decode` reads one, `encode` writes one. One packet is judged by itself; what it
means in a session is the engine's.
"""

from broker.packets.decode import decode, decode_body
from broker.packets.encode import encode
from broker.packets.errors import MalformedPacket, Unencodable
from broker.packets.framing import MAX_PACKET_BYTES, MQTT_3_1, MQTT_3_1_1, MQTT_5, PacketType, check_first_byte, frame
from broker.packets.properties import Properties
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

__all__ = [
    "MAX_PACKET_BYTES",
    "MQTT_3_1",
    "MQTT_3_1_1",
    "MQTT_5",
    "Ack",
    "Auth",
    "Connack",
    "Connect",
    "Disconnect",
    "MalformedPacket",
    "Packet",
    "PacketType",
    "Pingreq",
    "Pingresp",
    "Properties",
    "Puback",
    "Pubcomp",
    "Publish",
    "Pubrec",
    "Pubrel",
    "Suback",
    "Subscribe",
    "Subscription",
    "Unencodable",
    "Unsuback",
    "Unsubscribe",
    "Will",
    "check_first_byte",
    "decode",
    "decode_body",
    "encode",
    "frame",
]

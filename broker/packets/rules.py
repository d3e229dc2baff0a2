"""What a packet may say, whichever way it goes: `decode` and `encode` both ask here. No I/O, no clock.

Only what one packet shows by itself; what depends on the session (limits agreed on, who sends what) is the engine's.
Each raises MalformedPacket.
"""

from collections.abc import Sequence

from broker.packets.errors import MalformedPacket, malformed, protocol_error
from broker.packets.framing import MQTT_3_1_1, MQTT_5, PacketType
from broker.packets.properties import Properties
from broker.packets.types import Auth, Connack, Connect, Publish, Subscription
from broker.reason import ReasonCode

MAX_FILTERS = 5_000
"""Filters in one SUBSCRIBE or UNSUBSCRIBE, and reasons in its answer: the 260,000 of a megabyte took 0.3 s to read."""

_ACCEPTED = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASED = frozenset({0x00, 0x92})
REASONS_5: dict[int, frozenset[int]] = {
    # [MQTT-3.2.2-8]
    PacketType.CONNACK: frozenset({0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F}),
    PacketType.PUBACK: _ACCEPTED,  # [MQTT-3.4.2-1]
    PacketType.PUBREC: _ACCEPTED,  # [MQTT-3.5.2-1]
    PacketType.PUBREL: _RELEASED,  # [MQTT-3.6.2-1]
    PacketType.PUBCOMP: _RELEASED,  # [MQTT-3.7.2-1]
    PacketType.SUBACK: frozenset({0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}),  # [MQTT-3.9.3-2]
    PacketType.UNSUBACK: frozenset({0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}),  # [MQTT-3.11.3-2]
    PacketType.DISCONNECT: frozenset(  # [MQTT-3.14.2-1]; 0x8C is in table 2-6 only
        {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, *range(0x8C, 0x91), *range(0x93, 0xA3)}
    ),
    PacketType.AUTH: frozenset({0x00, 0x18, 0x19}),  # [MQTT-3.15.2-1]
}
"""The reason codes of MQTT 5 by packet, either direction (section 2.4)."""

REASONS_3: dict[int, frozenset[int]] = {
    PacketType.CONNACK: frozenset(range(6)),
    PacketType.SUBACK: frozenset({0, 1, 2, 0x80}),  # [MQTT-3.9.3-2]; 3.1 knows no failure, but has to be told
}
"""The return codes of 3.1 and 3.1.1; the other packets have none, which is to say 0."""

_NO_REASON = frozenset({0})


def check_reason(reason: int, kind: PacketType, protocol: int) -> None:
    """The reason code must be one of this packet."""
    allowed = REASONS_5[kind] if protocol == MQTT_5 else REASONS_3.get(kind, _NO_REASON)
    if reason not in allowed:
        raise malformed(f"0x{reason:02X} is no reason code of {kind.name}")


def check_count(count: int, kind: PacketType) -> None:
    """How many filters or reasons a packet holds; `decode` asks before it keeps the next one."""
    if count > MAX_FILTERS:
        raise MalformedPacket(ReasonCode.QUOTA_EXCEEDED, f"a {kind.name} of more than {MAX_FILTERS} lines")


def check_reasons(reasons: Sequence[int], kind: PacketType, protocol: int) -> None:
    """SUBACK and UNSUBACK: at least one, each of this packet; an UNSUBACK before level 5 has none."""
    check_count(len(reasons), kind)
    if kind is PacketType.UNSUBACK and protocol < MQTT_5:
        if reasons:
            raise malformed("an UNSUBACK with a payload")
        return
    if not reasons:
        raise protocol_error(f"a {kind.name} without reason codes")  # [MQTT-3.8.4-6]
    for reason in reasons:
        check_reason(reason, kind, protocol)


def check_packet_id(packet_id: int) -> None:
    if not packet_id:
        raise protocol_error("a packet identifier of 0")  # [MQTT-2.2.1-3], [MQTT-2.2.1-4]; 3.1.1: [MQTT-2.3.1-1]


def check_topic_name(topic: str) -> None:
    if not topic:
        raise protocol_error("an empty topic name")  # [MQTT-4.7.3-1]
    if "+" in topic or "#" in topic:
        raise malformed("a topic name with a wildcard")  # [MQTT-3.3.2-2], [MQTT-4.7.0-1]


def check_connect(packet: Connect) -> None:
    if packet.password is not None and packet.username is None and packet.protocol < MQTT_5:
        raise malformed("a password without a user name")  # 3.1.1: [MQTT-3.1.2-22]; level 5 allows it
    if packet.will is not None:
        if not 0 <= packet.will.qos <= 2:
            raise malformed("a will of QoS 3")  # [MQTT-3.1.2-12]
        check_topic_name(packet.will.topic)
    if packet.properties:
        _check_authentication(packet.properties)


def check_connack(packet: Connack, protocol: int) -> None:
    check_reason(packet.reason, PacketType.CONNACK, protocol)
    if packet.session_present and (packet.reason or protocol < MQTT_3_1_1):
        raise protocol_error("a session present without a session")  # [MQTT-3.2.2-6]; 3.1.1: [MQTT-3.2.2-4]


def check_publish(packet: Publish) -> None:
    topic = packet.topic
    if not 0 <= packet.qos <= 2:
        raise malformed("a QoS of neither 0, 1 nor 2")  # [MQTT-3.3.1-4]
    if not topic and "topic_alias" not in packet.properties:
        raise protocol_error("an empty topic name and no topic alias")  # section 3.3.2.1, [MQTT-4.7.3-1]
    if "+" in topic or "#" in topic:
        raise malformed("a topic name with a wildcard")  # [MQTT-3.3.2-2]
    if packet.qos:
        if not packet.packet_id:
            raise protocol_error("a packet identifier of 0")  # [MQTT-2.2.1-3]; 3.1.1: [MQTT-2.3.1-1]
    elif packet.packet_id is not None:
        raise protocol_error("a packet identifier at QoS 0")  # [MQTT-2.2.1-2]; 3.1.1: [MQTT-2.3.1-5]


def check_subscription(subscription: Subscription, protocol: int) -> None:
    check_topic_filter(subscription.topic_filter)
    if not 0 <= subscription.qos <= 2:
        raise protocol_error("a subscription of QoS 3")  # section 3.8.3.1; 3.1.1: [MQTT-3.8.3-4]
    if subscription.retain_handling > 2:
        raise protocol_error("a retain handling of 3")  # section 3.8.3.1
    if subscription.no_local and subscription.topic_filter.startswith("$share/"):
        raise protocol_error("no local on a shared subscription")  # [MQTT-3.8.3-4]
    if protocol < MQTT_5 and (
        subscription.no_local or subscription.retain_as_published or subscription.retain_handling
    ):
        raise malformed("subscription options of level 5")  # 3.1.1: [MQTT-3.8.3-4]


def check_topic_filter(topic_filter: str) -> None:
    """Only that it is there: an engine answers a badly formed filter with 0x8F, and keeps the connection."""
    if not topic_filter:
        raise protocol_error("an empty topic filter")  # [MQTT-4.7.3-1]


def check_auth(packet: Auth) -> None:
    check_reason(packet.reason, PacketType.AUTH, MQTT_5)
    said = packet.reason or packet.properties  # both may be left out together (section 3.15.2.1)
    if said and "authentication_method" not in packet.properties:
        raise protocol_error("an AUTH without an authentication method")  # section 3.15.2.2.2


def _check_authentication(properties: Properties) -> None:
    if "authentication_data" in properties and "authentication_method" not in properties:
        raise protocol_error("authentication data without a method")  # section 3.1.2.11.10

"""Our MQTT 5 packets as those of ohmqtt (PyPI) and back. It reads what a server reads and what a client reads."""

from typing import Any

from ohmqtt import packet as theirs
from ohmqtt import property as their_properties
from ohmqtt.mqtt_spec import MQTTQoS, MQTTReasonCode

from broker.packets import (
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
)  # fmt: skip
from broker.packets.properties import RULES, Properties

TO_THEIR_NAME = {
    rule.name: "".join(map(str.capitalize, rule.name.split("_"))).replace("MaximumQos", "MaximumQoS") for rule in RULES
}
TO_OUR_NAME = {theirs: ours for ours, theirs in TO_THEIR_NAME.items()}
ACKS: dict[Any, Any] = {
    Puback: (theirs.MQTTPubAckPacket, their_properties.MQTTPubAckProps),
    Pubrec: (theirs.MQTTPubRecPacket, their_properties.MQTTPubRecProps),
    Pubrel: (theirs.MQTTPubRelPacket, their_properties.MQTTPubRelProps),
    Pubcomp: (theirs.MQTTPubCompPacket, their_properties.MQTTPubCompProps),
}
THEIR_ACKS = {name: ours for ours, (name, _) in ACKS.items()}


def to_ohmqtt(packet: Packet) -> theirs.MQTTPacket:
    code = MQTTReasonCode
    match packet:
        case Connect():
            will = packet.will
            of_will = {} if will is None else {
                "will_topic": will.topic, "will_payload": will.payload, "will_qos": will.qos,
                "will_retain": will.retain, "will_props": _theirs(will.properties, their_properties.MQTTWillProps),
            }  # fmt: skip
            return theirs.MQTTConnectPacket(
                packet.client_id, packet.keepalive_s, clean_start=packet.clean_start, username=packet.username,
                password=packet.password, properties=_theirs(packet.properties, their_properties.MQTTConnectProps),
                **of_will,
            )  # fmt: skip
        case Connack():
            properties = _theirs(packet.properties, their_properties.MQTTConnAckProps)
            return theirs.MQTTConnAckPacket(code(packet.reason), packet.session_present, properties)
        case Publish():
            return theirs.MQTTPublishPacket(
                packet.topic, packet.payload, MQTTQoS(packet.qos), packet.retain, packet.packet_id or 0,
                _theirs(packet.properties, their_properties.MQTTPublishProps), packet.dup,
            )  # fmt: skip
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            cls, props = ACKS[type(packet)]
            return cls(packet.packet_id, code(packet.reason), _theirs(packet.properties, props))  # type: ignore[no-any-return]
        case Subscribe():
            lines = tuple((line.topic_filter, _options(line)) for line in packet.subscriptions)
            properties = _theirs(packet.properties, their_properties.MQTTSubscribeProps)
            return theirs.MQTTSubscribePacket(lines, packet.packet_id, properties)
        case Unsubscribe():
            properties = _theirs(packet.properties, their_properties.MQTTUnsubscribeProps)
            return theirs.MQTTUnsubscribePacket(tuple(packet.topic_filters), packet.packet_id, properties)
        case Suback():
            properties = _theirs(packet.properties, their_properties.MQTTSubAckProps)
            return theirs.MQTTSubAckPacket(packet.packet_id, tuple(map(code, packet.reasons)), properties)
        case Unsuback():
            properties = _theirs(packet.properties, their_properties.MQTTUnsubAckProps)
            return theirs.MQTTUnsubAckPacket(packet.packet_id, tuple(map(code, packet.reasons)), properties)
        case Disconnect():
            properties = _theirs(packet.properties, their_properties.MQTTDisconnectProps)
            return theirs.MQTTDisconnectPacket(code(packet.reason), properties)
        case Auth():
            return theirs.MQTTAuthPacket(
                code(packet.reason), _theirs(packet.properties, their_properties.MQTTAuthProps)
            )
        case Pingreq():
            return theirs.MQTTPingReqPacket()
        case Pingresp():
            return theirs.MQTTPingRespPacket()


def from_ohmqtt(packet: Any) -> Packet:
    if type(packet) in THEIR_ACKS:
        ack = THEIR_ACKS[type(packet)]
        return ack(packet_id=packet.packet_id, reason=packet.reason_code, properties=_ours(packet))  # type: ignore[no-any-return]
    match packet:
        case theirs.MQTTConnectPacket():
            will = None
            if packet.will_topic:  # it has no other sign of a will
                will = Will(topic=packet.will_topic, payload=packet.will_payload, qos=packet.will_qos,
                            retain=packet.will_retain, properties=_ours(packet, "will_props"))  # fmt: skip
            return Connect(
                protocol=packet.protocol_version, client_id=packet.client_id, clean_start=packet.clean_start,
                keepalive_s=packet.keep_alive, username=packet.username, password=packet.password,
                properties=_ours(packet), will=will,
            )  # fmt: skip
        case theirs.MQTTConnAckPacket():
            return Connack(reason=packet.reason_code, session_present=packet.session_present, properties=_ours(packet))
        case theirs.MQTTPublishPacket():
            return Publish(
                topic=packet.topic, payload=packet.payload, qos=packet.qos.value, retain=packet.retain, dup=packet.dup,
                packet_id=packet.packet_id if packet.qos.value else None, properties=_ours(packet),
            )  # fmt: skip
        case theirs.MQTTSubscribePacket():
            lines = [
                Subscription(topic_filter=topic, qos=options & 3, no_local=bool(options & 4),
                             retain_as_published=bool(options & 8), retain_handling=options >> 4)
                for topic, options in packet.topics
            ]  # fmt: skip
            return Subscribe(packet_id=packet.packet_id, subscriptions=lines, properties=_ours(packet))
        case theirs.MQTTUnsubscribePacket():
            filters = list(packet.topics)
            return Unsubscribe(packet_id=packet.packet_id, topic_filters=filters, properties=_ours(packet))
        case theirs.MQTTSubAckPacket():
            reasons = [int(code) for code in packet.reason_codes]
            return Suback(packet_id=packet.packet_id, reasons=reasons, properties=_ours(packet))
        case theirs.MQTTUnsubAckPacket():
            reasons = [int(code) for code in packet.reason_codes]
            return Unsuback(packet_id=packet.packet_id, reasons=reasons, properties=_ours(packet))
        case theirs.MQTTDisconnectPacket():
            return Disconnect(reason=packet.reason_code, properties=_ours(packet))
        case theirs.MQTTAuthPacket():
            return Auth(reason=packet.reason_code, properties=_ours(packet))
        case theirs.MQTTPingReqPacket():
            return Pingreq()
        case _:
            assert isinstance(packet, theirs.MQTTPingRespPacket), packet
            return Pingresp()


def _options(line: Subscription) -> int:
    return line.qos | line.no_local << 2 | line.retain_as_published << 3 | line.retain_handling << 4


def _theirs(properties: Properties, cls: Any) -> Any:
    values = {TO_THEIR_NAME[name]: value for name, value in properties.items()}
    if "SubscriptionIdentifier" in values:
        values["SubscriptionIdentifier"] = set(properties["subscription_identifier"])
    return cls(**values)


def _ours(packet: Any, field: str = "properties") -> Properties:
    values: Any = {TO_OUR_NAME[name]: value for name, value in vars(getattr(packet, field)).items()}
    if "subscription_identifier" in values:
        values["subscription_identifier"] = sorted(values["subscription_identifier"])
    return values  # type: ignore[no-any-return]

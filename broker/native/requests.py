"""What clients send beside PUBLISH, PUBACK and PINGREQ once they are let in: subscriptions, QoS 2, DISCONNECT, AUTH."""

from typing import TYPE_CHECKING

from broker.native import admission
from broker.native.answers import answer, nearest
from broker.native.message import Grant, identifier_property
from broker.native.session import Session
from broker.native.shared import split_shared
from broker.packets import (
    Auth,
    Disconnect,
    MalformedPacket,
    PacketType,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    decode_body,
)
from broker.packets.properties import Properties
from broker.reason import ReasonCode
from broker.topics import is_filter

if TYPE_CHECKING:
    from broker.native.connection import Connection
    from broker.native.hub import Hub

_NOT_FROM_CLIENTS = frozenset(
    {PacketType.CONNECT, PacketType.CONNACK, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP}
)
"""Once they are let in."""
_FAILURE_3 = 0x80  # the one SUBACK failure before MQTT 5


def act(connection: "Connection", session: Session, first: int, data: bytes, start: int, end: int, now: float) -> None:
    """Act on one packet. Raises MalformedPacket for what a client may not send (now)."""
    if first >> 4 in _NOT_FROM_CLIENTS:  # [MQTT-3.1.0-2]
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet that no client may send here")
    packet = decode_body(first, data, start, end, session.protocol)
    if isinstance(packet, Puback):
        session.pubacks((packet.packet_id,))
    elif isinstance(packet, Pubrec):
        session.pubrec(packet.packet_id, packet.reason, now)
    elif isinstance(packet, Pubcomp):
        session.pubcomp(packet.packet_id, now)
    elif isinstance(packet, Pubrel):
        _pubrel(connection, session, packet)
    elif isinstance(packet, Subscribe):
        connection.run("mqtt subscribe", _subscribe, connection, session, packet)
    elif isinstance(packet, Unsubscribe):
        _unsubscribe(connection, session, packet)
    elif isinstance(packet, Disconnect):
        _disconnect(connection, session, packet)
    elif isinstance(packet, Auth):
        admission.reauthenticate(connection, session, packet)


def _pubrel(connection: "Connection", session: Session, packet: Pubrel) -> None:
    """The client knows that we have its message of QoS 2: the packet identifier is free again [MQTT-4.3.3-11]."""
    hub, wire_id = connection.hub, packet.packet_id.to_bytes(2, "big")
    if packet.packet_id in session.received:
        del session.received[packet.packet_id]  # [MQTT-4.3.3-12]
        hub.sessions.keep(session)
        hub.answer(connection, session, b"\x70\x02" + wire_id)
    elif session.mqtt5:
        session.emit(b"\x70\x03" + wire_id + b"\x92")  # PACKET_IDENTIFIER_NOT_FOUND
    else:
        session.emit(b"\x70\x02" + wire_id)


async def _subscribe(connection: "Connection", session: Session, packet: Subscribe) -> None:
    """Ask the Guard about each filter, subscribe, and answer [MQTT-3.8.4-1], [MQTT-3.8.4-5]."""
    hub = connection.hub
    identifiers = packet.properties.get("subscription_identifier", [])
    wire_identifier = identifier_property(identifiers[0]) if identifiers else b""
    reasons: list[int] = []
    taken: list[tuple[Subscription, Grant, bool]] = []
    for asked in packet.subscriptions:
        code = await _may_subscribe(hub, session, asked)
        if hub.sessions.get(session.client_id) is not session or connection.ended:
            return
        if code.is_error:
            hub.counters.refused_subscribes += 1
            hub.hooks.tell("refused", session.client_id, session.username, "subscribe", asked.topic_filter, code)
            reasons.append(nearest(code, PacketType.SUBACK) if session.mqtt5 else _FAILURE_3)
            continue
        grant = Grant(
            asked.qos,
            no_local=asked.no_local,
            retain_as_published=asked.retain_as_published,
            identifiers=wire_identifier,
        )
        is_new = asked.topic_filter not in session.subscriptions
        hub.sessions.subscribe(session, asked.topic_filter, grant)
        taken.append((asked, grant, is_new))
        reasons.append(asked.qos)  # [MQTT-3.9.3-2], [MQTT-3.8.4-7], [MQTT-3.9.3-1]
    if taken:
        hub.sessions.keep(session)
        await hub.safe_for(session)
        if connection.ended:
            return
    properties: Properties = {}
    refused = [ReasonCode(code) for code in reasons if code >= _FAILURE_3]
    if refused and session.mqtt5 and connection.tell_why:
        properties = {"reason_string": "; ".join(dict.fromkeys(code.words for code in refused))}
    # [MQTT-2.2.1-6], [MQTT-3.8.4-2], [MQTT-3.8.4-6]
    suback = Suback(packet_id=packet.packet_id, reasons=reasons, properties=properties)
    session.emit(answer(suback, session.protocol, session.maximum_packet_size))
    for asked, grant, is_new in taken:
        if session.subscriptions.get(asked.topic_filter) is grant:  # not replaced or removed meanwhile
            connection.feed.add(asked.topic_filter, grant, hub.sessions.retained(session, asked, grant, is_new=is_new))
            hub.hooks.tell("subscribed", session.client_id, session.username, asked.topic_filter)
    connection.feed.go_on()


async def _may_subscribe(hub: "Hub", session: Session, asked: Subscription) -> ReasonCode:
    options = hub.options
    shared = split_shared(asked.topic_filter)
    topic_filter = asked.topic_filter if shared is None else shared[1]
    if shared is not None and not (shared[0] and shared[1]):  # [MQTT-4.8.2-1]
        return ReasonCode.TOPIC_FILTER_INVALID
    if (
        not is_filter(topic_filter)
        or len(topic_filter.encode()) > options.max_topic_bytes
        or topic_filter.count("/") >= options.max_topic_levels
    ):
        return ReasonCode.TOPIC_FILTER_INVALID
    if topic_filter.startswith("$") and not topic_filter.startswith("$SYS/"):
        return ReasonCode.NOT_AUTHORIZED
    if asked.topic_filter not in session.subscriptions and len(session.subscriptions) >= options.max_subscriptions:
        return ReasonCode.QUOTA_EXCEEDED
    return await hub.hooks.may_subscribe(session.client_id, session.username, topic_filter)


def _unsubscribe(connection: "Connection", session: Session, packet: Unsubscribe) -> None:
    """Take subscriptions out; what is queued is still delivered [MQTT-3.10.4-3], [MQTT-3.10.4-6]."""
    hub = connection.hub
    reasons = []
    for topic_filter in packet.topic_filters:
        there = hub.sessions.unsubscribe(session, topic_filter)
        connection.feed.discard(topic_filter)
        reasons.append(int(ReasonCode.SUCCESS if there else ReasonCode.NO_SUBSCRIPTION_EXISTED))  # [MQTT-3.11.3-1]
    # [MQTT-2.2.1-6], [MQTT-3.10.4-4], [MQTT-3.10.4-5]
    unsuback = Unsuback(packet_id=packet.packet_id, reasons=reasons if session.mqtt5 else [])
    hub.sessions.keep(session)
    data = answer(unsuback, session.protocol, session.maximum_packet_size)
    if session.journal is None:
        session.emit(data)
    else:  # nothing else bounds how many there are while the disk is slow or full
        connection.run("mqtt unsubscribe", _answer_when_safe, connection, session, data)


async def _answer_when_safe(connection: "Connection", session: Session, data: bytes) -> None:
    await connection.hub.safe_for(session)
    if not connection.ended:
        session.emit(data)


def _disconnect(connection: "Connection", session: Session, packet: Disconnect) -> None:
    """The client says goodbye: no will [MQTT-3.1.2-10], unless it asks for it (0x04)."""
    expiry_s = packet.properties.get("session_expiry_interval")
    if expiry_s is not None:
        if expiry_s and not session.expiry_s:  # section 3.14.2.2.2
            raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a session expiry where there was none")
        session.expiry_s = min(expiry_s, connection.hub.options.session_expiry_s)
    if packet.reason == ReasonCode.SUCCESS:
        session.will = None  # [MQTT-3.14.4-3]
    connection.end("client disconnected", with_will=packet.reason != ReasonCode.SUCCESS)

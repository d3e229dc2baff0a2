"""What clients publish: whether they may, and where it goes.

`forward` is for runs of plain messages of QoS 0; `publish` for every message that is not plain.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from broker.engine import Publish
from broker.native.message import Message, RichMessage, application_properties, head_of, wire_topic
from broker.native.owed import refusal
from broker.native.retained import Retained
from broker.native.router import Route
from broker.native.session import Receipt, Session
from broker.packets import MalformedPacket, decode_body
from broker.packets import Publish as PublishPacket
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection
    from broker.native.hub import Hub

_PUBACK = b"\x40\x02"
_PUBREC = b"\x50\x02"


@dataclass(slots=True)
class Outcome:
    """What became of one message: the acknowledgement owed (empty at QoS 0), and what has to happen first."""

    entry: bytes
    message: Publish | None = None
    """For the sink; None when it is not asked."""
    receipt: Receipt | None = None
    """Of QoS 2: to be settled with what the sink says."""
    awaited: Receipt | None = None
    """Of a message that came again: the first one's."""


def open_lane(connection: "Connection", session: Session, wire: bytes) -> Route | None:
    """The route of a topic that the client may publish to; None when it may not. Raises MalformedPacket."""
    name = topic_name(wire, connection.hub)
    if connection.hub.hooks.ask_publish(session.client_id, session.username, name).is_error:
        return None  # `publish` will ask again, and tell
    return connection.hub.router.route(wire)


def topic_name(wire: bytes, hub: "Hub") -> str:
    """A topic as text, if it may be one. Raises MalformedPacket."""
    try:
        name = str(wire[2:], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPacket(ReasonCode.MALFORMED_PACKET, "a topic that is not UTF-8") from error  # [MQTT-1.5.4-1]
    if not name:
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "an empty topic name")  # [MQTT-4.7.3-1]
    if "\0" in name or "+" in name or "#" in name:  # [MQTT-1.5.4-2], [MQTT-3.3.2-2]
        raise MalformedPacket(ReasonCode.TOPIC_NAME_INVALID, "a topic name with a wildcard or U+0000")
    if len(wire) - 2 > hub.options.max_topic_bytes or name.count("/") >= hub.options.max_topic_levels:
        raise MalformedPacket(ReasonCode.TOPIC_NAME_INVALID, "a topic name that is too long or too deep")
    return name


def forward(hub: "Hub", sender: Session, route: Route, run: bytes, span: int, head_bytes: int, now: float) -> None:
    """Send a run of plain packets of QoS 0 on, each `span` bytes long, and all alike in the first `head_bytes`."""
    if not route.fresh:
        hub.router.refresh(route)
    count = len(run) // span
    route.messages += count
    same, other = (route.plain5, route.plain) if sender.mqtt5 else (route.plain, route.plain5)
    if same:
        push(hub, same, run, count)
    if other:
        push(hub, other, _translated(route, run, span, head_bytes, to_mqtt5=not sender.mqtt5), count)
    if route.others or route.groups or route.inline:
        for at in range(head_bytes, head_bytes + len(run), span):
            if not route.fresh:  # a callback has come or gone
                hub.router.refresh(route)
            message = Message(route.wire, run[at : at + span - head_bytes], 0, sender)
            reached = 0
            for session, grant in route.others:
                reached += session.deliver(message, grant, now)
            for group in route.groups:
                reached += group.deliver(message, now)
            hub.counters.messages_sent += reached
            if route.inline:
                hub.call_back(route, message)


def push(hub: "Hub", sessions: list[Session], run: bytes, count: int) -> None:
    """Give plain subscribers a run of `count` packets of QoS 0 as it is."""
    dirty = hub.dirty
    reached = dropped = 0
    for session in sessions:
        out = session.out
        if out is None:
            continue
        if session.congested:
            dropped += 1
            continue
        if not out:
            dirty.append(session)
        out.append(run)
        reached += 1
    counters = hub.counters
    counters.messages_sent += reached * count
    counters.dropped_slow += dropped * count


def _translated(route: Route, run: bytes, span: int, head_bytes: int, *, to_mqtt5: bool) -> bytes:
    """The same run for the other protocol versions: MQTT 5 has one byte more, for no properties."""
    body = span - head_bytes
    start = head_of(0x30, route.wire, body + to_mqtt5) + (b"\0" if to_mqtt5 else b"")
    return b"".join([start + run[at : at + body] for at in range(head_bytes, head_bytes + len(run), span)])


def publish(
    connection: "Connection", session: Session, first: int, data: bytes, start: int, end: int, now: float
) -> Outcome:
    """Act on one PUBLISH. Raises MalformedPacket."""
    packet = cast(PublishPacket, decode_body(first, data, start, end, session.protocol))
    hub = connection.hub
    packet_id = packet.packet_id or 0
    entry = b""
    if packet.qos:
        # [MQTT-2.2.1-5], [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8]
        entry = (_PUBACK if packet.qos == 1 else _PUBREC) + packet_id.to_bytes(2, "big")
    if "subscription_identifier" in packet.properties:  # [MQTT-3.3.4-6]
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a subscription identifier from a client")
    wire = _resolved(connection, packet)
    name = topic_name(wire, hub)
    asked = Publish(
        topic=name,
        payload=packet.payload,
        qos=packet.qos,
        retain=packet.retain,
        client_id=session.client_id,
        username=session.username,
        properties=packet.properties or None,
    )
    if packet.qos == 2 and (known := session.received.get(packet_id)) is not None:  # [MQTT-4.3.3-10]
        if not known.orphaned:
            return Outcome(entry, awaited=known)
        known.orphaned = False
        return Outcome(entry, message=asked if hub.sink is not None else None, receipt=known)
    code = hub.hooks.may_publish(session, name)
    if code.is_error:
        return Outcome(_refused(connection, entry, code))  # [MQTT-4.3.3-9]
    properties = application_properties(packet.properties) if packet.properties else b""
    expiry_s = packet.properties.get("message_expiry_interval")
    message: Message
    if properties or expiry_s is not None or packet.retain:
        message = RichMessage(
            wire,
            packet.payload,
            packet.qos,
            session,
            properties=properties,
            expires_at=None if expiry_s is None else now + expiry_s,
            retain=packet.retain,
        )
    else:
        message = Message(wire, packet.payload, packet.qos, session)  # [MQTT-4.3.2-5]
    if packet.qos == 2 and len(session.received) + connection.owing.unacked >= hub.options.max_undone:
        # [MQTT-3.3.4-7]
        raise MalformedPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "too many messages that are not released")
    kept = not packet.retain or hub.retain(name, Retained(message, session.client_id, session.username))
    if not kept and entry and connection.mqtt5:  # who can be told is told, and nothing was done [MQTT-3.3.1-8]
        return Outcome(_refused(connection, entry, ReasonCode.QUOTA_EXCEEDED))
    receipt = None
    if packet.qos == 2:
        receipt = session.received[packet_id] = Receipt()  # [MQTT-4.3.3-13]
        hub.sessions.keep(session)
    route = hub.router.route(wire)
    reached = hub.deliver(route, message, now)  # [MQTT-4.5.0-1]
    if connection.mqtt5 and not reached and packet.qos and hub.sink is None and route.is_empty:
        entry = bytes((entry[0], 3)) + entry[2:] + bytes((ReasonCode.NO_MATCHING_SUBSCRIBERS,))
    return Outcome(entry, message=asked if hub.sink is not None else None, receipt=receipt)


def _refused(connection: "Connection", entry: bytes, code: ReasonCode) -> bytes:
    """How a message is refused: MQTT 5 says so; before, it is acknowledged like any other (3.1.1: [MQTT-3.3.5-2])."""
    if not entry or not connection.mqtt5:
        return entry
    return refusal(entry, code, tell_why=connection.tell_why, limit=connection.maximum_packet_size)


def _resolved(connection: "Connection", packet: PublishPacket) -> bytes:
    """The topic of a PUBLISH as on the wire, through its alias if it has one (MQTT 5, section 3.3.2.3.4)."""
    alias = packet.properties.pop("topic_alias", None) if packet.properties else None
    if alias is None:
        return wire_topic(packet.topic)
    if alias > connection.hub.options.topic_alias_maximum:  # [MQTT-3.3.2-9], [MQTT-3.2.2-17], [MQTT-3.2.2-18]
        raise MalformedPacket(ReasonCode.TOPIC_ALIAS_INVALID, "a topic alias beyond the maximum")
    if packet.topic:
        wire = wire_topic(packet.topic)
        topic_name(wire, connection.hub)
        connection.aliases[alias] = wire  # [MQTT-3.3.2-12]
        return wire
    known = connection.aliases.get(alias)
    if known is None:
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a topic alias that was not given a topic")
    return known

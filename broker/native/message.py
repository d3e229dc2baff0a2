"""A message on its way to its subscribers, and the PUBLISH packets made of it. No I/O, no clock.

One message may go to many, so its bytes are made once: a PUBLISH is a head (first byte, length, topic), the packet
identifier at QoS 1 and 2, and a tail (properties, payload). What all subscribers of one kind share is remembered.
"""

from typing import TYPE_CHECKING, Any, cast

from broker.packets.framing import PacketType
from broker.packets.primitives import read_varint, write_varint
from broker.packets.properties import Properties, read_properties, write_properties

if TYPE_CHECKING:
    from broker.native.session import Session
    from broker.native.shared import SharedGroup

PUBLISH = 0x30
RETAIN = 0x01
DUP = 0x08
_EXPIRY = b"\x02"  # the property's identifier
_NOT_FORWARDED = ("topic_alias", "message_expiry_interval", "subscription_identifier")


class Message:
    """A PUBLISH without what belongs to one connection: packet identifier, DUP, alias, subscription identifiers.

    `topic` is as on the wire, its two bytes of length before it. `sender` is the publisher's session, None for a
    message of our own. Not frozen: one is made per message.
    """

    __slots__ = ("_form", "_head", "_tail", "payload", "qos", "sender", "size", "topic")

    properties = b""
    """The application's properties, encoded, without the message expiry."""
    expires_at: float | None = None
    """Monotonic seconds; then it is not delivered any more [MQTT-3.3.2-5]."""
    retain = False

    def __init__(
        self, topic: bytes, payload: bytes, qos: int, sender: "Session | None" = None, head: bytes = b""
    ) -> None:
        """`head` is that of the very packet it came in, when QoS 1, without DUP, RETAIN or properties (3.1.1)."""
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.sender = sender
        self.size = len(topic) + len(payload)
        """In bytes, as far as bounds count it."""
        self._form = 0x32 if head else 0
        self._head = head
        self._tail = payload

    @property
    def topic_name(self) -> str:
        return str(self.topic[2:], "utf-8")

    def form(self, first: int, *, mqtt5: bool) -> tuple[bytes, bytes]:
        """Head and tail of the packet with this first byte, without expiry and subscription identifiers."""
        key = first | 0x100 if mqtt5 else first
        if self._form != key:
            properties = self.properties
            tail = self.payload
            if mqtt5:
                tail = write_varint(len(properties)) + properties + tail
            self._form, self._head, self._tail = key, head_of(first, self.topic, len(tail)), tail
        return self._head, self._tail

    def form_for(self, first: int, topic: bytes, extra: bytes, now: float) -> tuple[bytes, bytes]:
        """The same at MQTT 5, with more properties (alias, identifiers) and what is left of the expiry."""
        properties = self.properties + extra
        if self.expires_at is not None:  # [MQTT-3.3.2-6]
            left_s = max(0, min(0xFFFF_FFFF, round(self.expires_at - now)))
            properties += _EXPIRY + left_s.to_bytes(4, "big")
        tail = write_varint(len(properties)) + properties + self.payload
        return head_of(first, topic, len(tail)), tail

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class RichMessage(Message):
    """A message with properties, an expiry, or the RETAIN flag."""

    __slots__ = ("expires_at", "properties", "retain")

    def __init__(
        self,
        topic: bytes,
        payload: bytes,
        qos: int,
        sender: "Session | None" = None,
        *,
        properties: bytes = b"",
        expires_at: float | None = None,
        retain: bool = False,
    ) -> None:
        super().__init__(topic, payload, qos, sender)
        self.size += len(properties)
        self.properties = properties
        self.expires_at = expires_at
        self.retain = retain


class Grant:
    """A subscription as its session has it, or several that match one topic, joined."""

    __slots__ = ("group", "identifiers", "no_local", "own", "plain", "qos", "retain_as_published")

    def __init__(
        self,
        qos: int,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        identifiers: bytes = b"",
        group: "SharedGroup | None" = None,
    ) -> None:
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.identifiers = identifiers
        """Encoded subscription identifiers, as they stand in a PUBLISH [MQTT-3.3.4-3]."""
        self.group = group
        self.own: Grant | None = None if no_local else self
        """What applies to messages of the subscriber itself [MQTT-3.8.3-3]."""
        self.plain = not (identifiers or no_local or retain_as_published or group)
        """Nothing but a QoS: what goes there is the same for all."""

    def joined(self, other: "Grant") -> "Grant":
        """Both, for a topic that both match: one copy, of the higher QoS, with all identifiers [MQTT-3.3.4-4]."""
        both = Grant(
            max(self.qos, other.qos),  # [MQTT-3.3.4-2]
            no_local=self.no_local or other.no_local,
            retain_as_published=self.retain_as_published or other.retain_as_published,
            identifiers=self.identifiers + other.identifiers,
        )
        if self.own is not None and other.own is not None:
            both.own = both if self.own is self and other.own is other else self.own.joined(other.own)
        else:
            both.own = self.own or other.own
        return both


class Delivery:
    """A message of QoS 1 or 2 on its way to one session. Nothing in here changes."""

    __slots__ = ("group", "identifiers", "message", "qos", "retain", "seq", "size")

    def __init__(
        self,
        message: Message,
        qos: int,
        *,
        retain: bool = False,
        identifiers: bytes = b"",
        group: "SharedGroup | None" = None,
        seq: int = 0,
    ) -> None:
        self.message = message
        self.size = message.size
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers
        self.group = group
        self.seq = seq
        """Its number in the session's journal; 0 when it is not kept on disk."""


class DeliveryRun:
    """Deliveries of QoS 1 that were sent in one piece: packets of `span` bytes, identifiers from `first_id` on.

    Stands for each of them while they are in flight, as an acknowledgement needs no more; `delivery` gives one of them.
    """

    __slots__ = ("_at", "_mqtt5", "_piece", "_span", "_topic_bytes", "first_id", "size")

    qos = 1
    seq = 0

    def __init__(self, piece: bytes, span: int, at: int, topic_bytes: int, first_id: int, *, mqtt5: bool) -> None:
        """`at` is where in a packet the identifier stands, `topic_bytes` how long the topic before it is."""
        self._piece = piece
        self._span = span
        self._at = at
        self._topic_bytes = topic_bytes
        self._mqtt5 = mqtt5
        self.first_id = first_id
        self.size = span

    def delivery(self, packet_id: int) -> Delivery:
        """The one with this identifier."""
        start = (packet_id - self.first_id) * self._span
        topic = self._piece[start + self._at - self._topic_bytes : start + self._at]
        payload = self._piece[start + self._at + 2 + self._mqtt5 : start + self._span]
        return Delivery(Message(topic, payload, 1), 1)


def head_of(first: int, topic: bytes, tail_bytes: int) -> bytes:
    """First byte, remaining length and topic of a PUBLISH whose tail is that long."""
    length = len(topic) + tail_bytes + (2 if first & 0x06 else 0)
    if length < 128:
        return bytes((first, length)) + topic
    return bytes((first,)) + write_varint(length) + topic


def wire_topic(topic: str) -> bytes:
    """A topic as it stands in a packet. Raises ValueError when it is too long for one."""
    raw = topic.encode()
    if len(raw) > 0xFFFF:
        raise ValueError("a topic of more than 65,535 bytes")
    return len(raw).to_bytes(2, "big") + raw


def identifier_property(identifier: int) -> bytes:
    """A subscription identifier as it stands in a PUBLISH."""
    return b"\x0b" + write_varint(identifier)


def application_properties(properties: Properties) -> bytes:
    """The properties that are the application's, encoded in their order [MQTT-3.3.2-17], [MQTT-3.3.2-18]."""
    # [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-20]
    forwarded = {name: value for name, value in properties.items() if name not in _NOT_FORWARDED}
    if not forwarded:
        return b""
    written = write_properties(cast(Properties, forwarded), PacketType.PUBLISH)
    _, start = read_varint(written, 0, len(written))
    return written[start:]


def decoded_properties(encoded: bytes) -> dict[str, Any]:
    """The reverse of `application_properties`."""
    whole = write_varint(len(encoded)) + encoded
    return dict(read_properties(whole, 0, len(whole), PacketType.PUBLISH)[0])

"""MQTT packets as bytes, made from keyword arguments, and taken apart to compare them: 3.1, 3.1.1 and 5.

Independent of broker.packets, which it judges. Builders write whatever they are told, wrong values too: a malformed
packet is `packet(first, body)`. Level 5 unless `level` says 3 (MQTT 3.1) or 4 (MQTT 3.1.1).
"""

from typing import Any, NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = (
    0x82,
    0x90,
    0xA2,
    0xB0,
    0xC0,
    0xD0,
    0xE0,
    0xF0,
)
"""First bytes, with the flags they must have (PUBLISH: QoS 0)."""

PROPERTY_IDS = {
    "payload_format_indicator": (0x01, 1),
    "message_expiry_interval": (0x02, 4),
    "content_type": (0x03, "text"),
    "response_topic": (0x08, "text"),
    "correlation_data": (0x09, "text"),
    "subscription_identifier": (0x0B, "varint"),
    "session_expiry_interval": (0x11, 4),
    "assigned_client_identifier": (0x12, "text"),
    "server_keep_alive": (0x13, 2),
    "authentication_method": (0x15, "text"),
    "authentication_data": (0x16, "text"),
    "request_problem_information": (0x17, 1),
    "will_delay_interval": (0x18, 4),
    "request_response_information": (0x19, 1),
    "response_information": (0x1A, "text"),
    "server_reference": (0x1C, "text"),
    "reason_string": (0x1F, "text"),
    "receive_maximum": (0x21, 2),
    "topic_alias_maximum": (0x22, 2),
    "topic_alias": (0x23, 2),
    "maximum_qos": (0x24, 1),
    "retain_available": (0x25, 1),
    "user_property": (0x26, "pair"),
    "maximum_packet_size": (0x27, 4),
    "wildcard_subscription_available": (0x28, 1),
    "subscription_identifier_available": (0x29, 1),
    "shared_subscription_available": (0x2A, 1),
}
"""Name to identifier and type: a number of bytes, "varint", "text" (also binary data) or "pair" (section 2.2.2.2)."""

_BY_ID = {number: (name, kind) for name, (number, kind) in PROPERTY_IDS.items()}
REASON_STRING = PROPERTY_IDS["reason_string"][0]


# --- pieces


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return u16(len(raw)) + raw


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + varint(len(body)) + body


def one_property(name: str, value: Any) -> bytes:
    """Identifier and value, without a length."""
    number, kind = PROPERTY_IDS[name]
    if kind == "text":
        raw = text(value)
    elif kind == "varint":
        raw = varint(value)
    elif kind == "pair":
        raw = text(value[0]) + text(value[1])
    else:
        raw = value.to_bytes(kind, "big")
    return bytes([number]) + raw


def properties(**values: Any) -> bytes:
    """With their length; a list repeats its property; None is left out."""
    out = b""
    for name, value in values.items():
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            out += one_property(name, one)
    return varint(len(out)) + out


def _properties(level: int, values: dict[str, Any]) -> bytes:
    assert level == 5 or not values, "only MQTT 5 has properties"
    return properties(**values) if level == 5 else b""


# --- packets


class Will(NamedTuple):
    """The will of a CONNECT; its properties at level 5."""

    topic: str | bytes
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    properties: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


def connect(
    client_id: str | bytes,
    *,
    level: int = 5,
    clean: bool = True,
    keepalive_s: int = 60,
    will: Will | None = None,
    username: str | bytes | None = None,
    password: bytes | None = None,
    flags: int | None = None,
    name: str | None = None,
    **values: Any,
) -> bytes:
    """A CONNECT. `flags` and `name` (of the protocol) replace what they would be."""
    right = (0x02 if clean else 0) | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = text(client_id)
    if will is not None:
        right |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        body += _properties(level, will.properties) + text(will.topic) + text(will.payload)
    for credential in (username, password):
        body += text(credential) if credential is not None else b""
    head = text(name if name is not None else "MQIsdp" if level == 3 else "MQTT")
    head += bytes([level, right if flags is None else flags]) + u16(keepalive_s)
    return packet(CONNECT, head + (_properties(level, values) if level >= 5 else b"") + body)


def connack(code: int = 0, *, present: bool = False, level: int = 5, **values: Any) -> bytes:
    return packet(CONNACK, bytes([present, code]) + _properties(level, values))


def publish(
    topic: str | bytes,
    payload: bytes = b"x",
    *,
    qos: int = 0,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
    level: int = 5,
    **values: Any,
) -> bytes:
    first = PUBLISH | (0x08 if dup else 0) | qos << 1 | int(retain)
    return packet(first, text(topic) + (u16(packet_id) if qos else b"") + _properties(level, values) + payload)


def _acknowledgement(first: int, packet_id: int, reason: int, values: dict[str, Any]) -> bytes:
    tail = bytes([reason]) + properties(**values) if values else bytes([reason]) if reason else b""
    return packet(first, u16(packet_id) + tail)


def puback(packet_id: int = 1, reason: int = 0, **values: Any) -> bytes:
    return _acknowledgement(PUBACK, packet_id, reason, values)


def pubrec(packet_id: int = 1, reason: int = 0, **values: Any) -> bytes:
    return _acknowledgement(PUBREC, packet_id, reason, values)


def pubrel(packet_id: int = 1, reason: int = 0, **values: Any) -> bytes:
    return _acknowledgement(PUBREL, packet_id, reason, values)


def pubcomp(packet_id: int = 1, reason: int = 0, **values: Any) -> bytes:
    return _acknowledgement(PUBCOMP, packet_id, reason, values)


def options(*, qos: int = 0, no_local: bool = False, as_published: bool = False, retain_handling: int = 0) -> int:
    """The byte after a filter in SUBSCRIBE (MQTT 5, section 3.8.3.1; before, the QoS alone)."""
    return qos | (0x04 if no_local else 0) | (0x08 if as_published else 0) | retain_handling << 4


def subscribe(
    *filters: str | bytes | tuple[str | bytes, int],
    packet_id: int = 1,
    qos: int = 0,
    no_local: bool = False,
    as_published: bool = False,
    retain_handling: int = 0,
    level: int = 5,
    **values: Any,
) -> bytes:
    """A filter may come with its own options, as a pair."""
    asked = options(qos=qos, no_local=no_local, as_published=as_published, retain_handling=retain_handling)
    pairs = [one if isinstance(one, tuple) else (one, asked) for one in filters]
    wanted = b"".join(text(topic_filter) + bytes([chosen]) for topic_filter, chosen in pairs)
    return packet(SUBSCRIBE, u16(packet_id) + _properties(level, values) + wanted)


def suback(*codes: int, packet_id: int = 1, level: int = 5, **values: Any) -> bytes:
    return packet(SUBACK, u16(packet_id) + _properties(level, values) + bytes(codes))


def unsubscribe(*filters: str | bytes, packet_id: int = 1, level: int = 5, **values: Any) -> bytes:
    return packet(UNSUBSCRIBE, u16(packet_id) + _properties(level, values) + b"".join(map(text, filters)))


def unsuback(*codes: int, packet_id: int = 1, level: int = 5, **values: Any) -> bytes:
    """`codes` at level 5 only."""
    return packet(UNSUBACK, u16(packet_id) + _properties(level, values) + bytes(codes))


def pingreq() -> bytes:
    return packet(PINGREQ)


def pingresp() -> bytes:
    return packet(PINGRESP)


def disconnect(reason: int = 0, **values: Any) -> bytes:
    return packet(DISCONNECT, bytes([reason]) + properties(**values) if values else bytes([reason]) if reason else b"")


def auth(reason: int, **values: Any) -> bytes:
    return packet(AUTH, bytes([reason]) + properties(**values))


# --- the way back, as far as comparing needs it


class Packet(NamedTuple):
    """A packet taken apart. Equal packets say the same: the order of properties does not matter but among equal ones
    (user properties), and acknowledgements, DISCONNECT and AUTH are as if they had been written in full."""

    first: int
    head: bytes
    properties: tuple[tuple[str, Any], ...] = ()
    rest: bytes = b""

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a property, the last one if it repeats."""
        return dict(self.properties).get(name, default)

    def without(self, *names: str) -> "Packet":
        return self._replace(properties=tuple(pair for pair in self.properties if pair[0] not in names))

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        return self.head[2 : 2 + int.from_bytes(self.head[:2], "big")].decode()

    @property
    def packet_id(self) -> int:
        """Of a PUBLISH (QoS 1 or 2) or of an acknowledgement."""
        at = 2 + int.from_bytes(self.head[:2], "big") if self.first >> 4 == PUBLISH >> 4 else 0
        return int.from_bytes(self.head[at : at + 2], "big")

    @property
    def reason(self) -> int:
        """Of CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT, AUTH."""
        return self.head[-1]


def split(raw: bytes) -> tuple[int, bytes]:
    """First byte and body of one whole packet."""
    length, at = read_varint(raw, 1)
    assert len(raw) == at + length
    return raw[0], raw[at:]


def packets(raw: bytes) -> list[bytes]:
    """The whole packets that `raw` consists of."""
    found = []
    while raw:
        length, at = read_varint(raw, 1)
        found.append(raw[: at + length])
        raw = raw[at + length :]
    return found


def read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends; it must be written in as few bytes as possible [MQTT-1.5.5-1]."""
    value, shift = 0, 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        if raw[at] < 0x80:
            assert raw[at] or not shift, "a variable byte integer longer than it needs to be"
            return value, at + 1
        at, shift = at + 1, shift + 7
        assert shift < 28


def parse(raw: bytes, level: int = 5) -> Packet:
    """Take a packet apart that a server sends."""
    first, body = split(raw)
    kind = first & 0xF0
    at = {CONNACK: 2, SUBACK: 2, UNSUBACK: 2, PUBLISH: 0}.get(kind, len(body))
    if kind == PUBLISH:
        at = 2 + int.from_bytes(body[:2], "big") + (2 if first & 0x06 else 0)
    elif level == 5 and kind in (PUBACK, PUBREC, PUBREL & 0xF0, PUBCOMP, DISCONNECT, AUTH):
        at = 1 if kind in (DISCONNECT, AUTH) else 3
        if len(body) < at:
            body += b"\0"  # the reason code left out is 0
        if len(body) == at:
            body += b"\0"  # so are the properties
    if level < 5 or at == len(body):
        return Packet(first, body[:at], (), body[at:])
    length, start = read_varint(body, at)
    values = tuple(_read_properties(body[start : start + length]))
    assert len(body) >= start + length
    return Packet(first, body[:at], tuple(sorted(values, key=lambda pair: pair[0])), body[start + length :])


def _read_properties(raw: bytes) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    at = 0
    while at < len(raw):
        name, kind = _BY_ID[raw[at]]
        at += 1
        value: Any
        if kind == "varint":
            value, at = read_varint(raw, at)
        elif kind == "text":
            value, at = _read_text(raw, at)
            value = value if name in ("correlation_data", "authentication_data") else value.decode()
        elif kind == "pair":
            key, at = _read_text(raw, at)
            value, at = _read_text(raw, at)
            value = (key.decode(), value.decode())
        else:
            assert isinstance(kind, int)
            value, at = int.from_bytes(raw[at : at + kind], "big"), at + kind
        assert at <= len(raw)
        found.append((name, value))
    return found


def _read_text(raw: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
    return raw[at + 2 : end], end

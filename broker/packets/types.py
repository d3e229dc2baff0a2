"""The fifteen MQTT packets as values, for levels 3 (3.1), 4 (3.1.1) and 5 (5.0). No I/O, no clock.

Slotted but not frozen: one is made per message, and freezing doubles the cost of that. Reason codes are plain `int`
on the wire side (a `ReasonCode` is one): levels 3 and 4 have return codes of their own in CONNACK and SUBACK.
What level 5 added (properties, most reasons) stays at its default at levels 3 and 4; `encode` refuses it there.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from broker.packets.properties import Properties


@dataclass(slots=True, kw_only=True)
class Will:
    """What the server publishes for a client that is gone."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Connect:
    """`protocol` is the level the client asks for; `keepalive_s` 0 means none."""

    protocol: int
    client_id: str = ""
    clean_start: bool = True
    keepalive_s: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Connack:
    """`reason` is a return code 0 to 5 at levels 3 and 4; level 3 has no `session_present`."""

    reason: int = 0
    session_present: bool = False
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Publish:
    """`packet_id` is None exactly when `qos` is 0; `topic` is empty only beside a topic alias."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Puback:
    packet_id: int
    reason: int = 0
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Pubrec:
    packet_id: int
    reason: int = 0
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Pubrel:
    packet_id: int
    reason: int = 0
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Pubcomp:
    packet_id: int
    reason: int = 0
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Subscription:
    """One line of a SUBSCRIBE. Whether the filter's wildcards are well placed is for `broker.topics` to say."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True, kw_only=True)
class Subscribe:
    packet_id: int
    subscriptions: list[Subscription]
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Suback:
    """One reason per subscription, in their order: the QoS granted, or an error."""

    packet_id: int
    reasons: list[int]
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Unsubscribe:
    packet_id: int
    topic_filters: list[str]
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Unsuback:
    """`reasons` is one per filter at level 5, and empty before."""

    packet_id: int
    reasons: list[int] = field(default_factory=list)
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Pingreq:
    pass


@dataclass(slots=True, kw_only=True)
class Pingresp:
    pass


@dataclass(slots=True, kw_only=True)
class Disconnect:
    reason: int = 0
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True, kw_only=True)
class Auth:
    """Level 5 only."""

    reason: int = 0
    properties: Properties = field(default_factory=Properties)


Ack: TypeAlias = Puback | Pubrec | Pubrel | Pubcomp
Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

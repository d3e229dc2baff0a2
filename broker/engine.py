"""What every broker engine does, and the hooks through which the outside decides, watches and listens.

An engine owns connections, sessions and routing. It knows nothing of devices: a `Guard` decides who may
connect, publish and subscribe; `Tap`s watch; one `Sink` takes what clients publish, in process, and
says when the engine may acknowledge it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from broker.packets.properties import Properties
from broker.reason import ReasonCode


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """A CONNECT as the Guard sees it. `protocol` is the protocol level: 3, 4 (3.1.1) or 5."""

    client_id: str
    username: str | None
    password: bytes | None
    address: str
    protocol: int = 4
    will_topic: str | None = None
    certificate: bytes | None = None
    """The client's TLS certificate in DER, when the listener asked for one."""
    authenticated_as: str | None = None
    """Who an enhanced authentication (MQTT 5, section 4.12) has proved the client to be; then there is no password."""


class Publish(NamedTuple):
    """A message on its way in (`client_id` and `username` of its publisher) or out (both empty).

    A NamedTuple because one is made per message.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    client_id: str = ""
    username: str = ""
    properties: Properties | None = None
    """What MQTT 5 says about the message (section 3.3.2.3), such as content_type; None for nothing."""

    @property
    def content_type(self) -> str | None:
        """The MIME type its publisher named, if any."""
        return self.properties.get("content_type") if self.properties else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """One session, connected or kept for a client that will be back."""

    client_id: str
    username: str
    address: str
    protocol: int
    connected: bool
    connected_at: datetime | None
    keepalive_s: int
    clean_start: bool
    subscriptions: tuple[str, ...]
    queued: int
    inflight: int
    slowed: bool = False
    """Whether it is not read from at the moment, because it has sent faster than it may."""


class Guard(Protocol):
    """Decides. There is one; without one everything is denied."""

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        """SUCCESS, or why this client may not connect. May ask a database."""
        ...

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        """SUCCESS, or why this client may not publish to `topic`. Per message, hence neither async nor slow."""
        ...

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        """SUCCESS, or why this client may not subscribe to `topic_filter`."""
        ...


@runtime_checkable
class VersionedGuard(Guard, Protocol):
    """A Guard whose answers to `publish` may be remembered, which saves asking for every message.

    They hold while `rules_version` stays the same. A Guard without it is asked each time.
    """

    @property
    def rules_version(self) -> int:
        """Another number after each change of the rules."""
        ...


class Tap(Protocol):
    """Watches. There may be many; none may block, and what one raises is logged and dropped."""

    def connected(self, session: SessionInfo) -> None: ...

    def disconnected(self, client_id: str, username: str, reason: str) -> None:
        """`reason` in words: "client disconnected", "connection lost", "keep-alive expired", "taken over"."""
        ...

    def refused(self, client_id: str, username: str, action: str, target: str, reason: ReasonCode) -> None:
        """The Guard said no: `action` is "connect", "publish" or "subscribe"; `target` the address, topic or filter."""
        ...


@runtime_checkable
class SubscriptionTap(Tap, Protocol):
    """A Tap that also hears of subscriptions: at `connected` a client without a kept session has none yet."""

    def subscribed(self, client_id: str, username: str, topic_filter: str) -> None:
        """Called once the client has its SUBACK: what is published to the filter from now on reaches it."""
        ...


Done = Callable[[Sequence[ReasonCode]], None]


class Sink(Protocol):
    """Takes over what clients publish, a batch at a time (what one read held)."""

    def __call__(self, batch: Sequence[Publish], done: Done) -> None:
        """Take the batch over; call `done` once, in the event loop's thread, with one code per message in order.

        The engine sends PUBACK and PUBREC only then; it stops reading from a client with too much outstanding.
        """
        ...


class Engine(Protocol):
    """An MQTT broker in this process."""

    async def start(self) -> None:
        """Listen. Raises ListenError."""
        ...

    async def stop(self) -> None:
        """Close every connection and listener; sessions of clients that asked for it may be kept."""
        ...

    @property
    def port(self) -> int:
        """The TCP port really listened on (the one asked for may be 0)."""
        ...

    @property
    def tls_port(self) -> int | None:
        """The TLS port really listened on, or None when there is no such listener."""
        ...

    @property
    def ws_port(self) -> int | None:
        """The WebSocket port really listened on, or None when there is no such listener."""
        ...

    async def publish(self, message: Publish) -> int:
        """Route a message of ours; returns to how many connected sessions it went. Does not wait for their PUBACK."""
        ...

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int:
        """Drop every connection and forget every session of a user name; returns how many there were."""
        ...

    def sessions(self) -> list[SessionInfo]:
        """All sessions, connected or kept."""
        ...


class DenyAll:
    """The Guard in force where none was given."""

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED

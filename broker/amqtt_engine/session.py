"""One client's session: amqtt's record of it, with what is on its way to the client. No I/O.

MQTT 3.1.1 sections 3.1.2.4 (clean session), 4.3 (QoS) and 4.4 (delivery retry).

At most `max_inflight` deliveries of QoS 1 and 2 are unacknowledged; the next ones wait in order, and beyond the
bounds the newest is dropped and counted. Nothing is sent twice on one connection; what is unacknowledged is sent
again when the client is back [MQTT-4.4.0-1].
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.pubrel import PubrelPacket
from amqtt.session import OutgoingApplicationMessage, Session

from broker.amqtt_engine.options import AmqttOptions
from broker.engine import SessionInfo

if TYPE_CHECKING:
    from broker.amqtt_engine.inbox import Slot


class Outgoing:
    """One message on its way to many clients; the packet of QoS 0 is the same for all and encoded once."""

    __slots__ = ("_packet", "payload", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.retain = retain
        self._packet: bytes | None = None

    def packet(self) -> bytes:
        """The PUBLISH of QoS 0."""
        if self._packet is None:
            self._packet = PublishPacket.build(self.topic, self.payload, None, False, 0, self.retain).to_bytes()
        return self._packet


class Route(Protocol):
    """The way to a connected client."""

    @property
    def buffered(self) -> int: ...

    def write(self, data: bytes) -> None: ...


class _State:
    """The part of amqtt's session state machine that its broker looks at."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = "new"

    def is_connected(self) -> bool:
        return self.state == "connected"


class ClientSession(Session):  # type: ignore[misc]  # amqtt has no types
    """What is known of a client, while it is connected and, when it asked for that, between its connections."""

    def __init__(self, client_id: str, username: str, *, clean: bool, options: AmqttOptions) -> None:
        super().__init__()
        self.client_id = client_id
        self.username = username
        self.clean_session = clean
        self.address = ""
        self.connected_at: datetime | None = None
        self.last_disconnect_time: int | None = None
        self.filters: dict[str, int] = {}
        self.received: dict[int, Slot] = {}
        """Packet ids of QoS 2 that were taken and not yet released by the client's PUBREL."""
        self.outbox = Outbox(self, options)

    def _init_states(self) -> None:
        self.transitions = _State()

    @property
    def connected(self) -> bool:
        return self.transitions.is_connected()

    def connect(self, route: Route, *, address: str, keepalive_s: int, at: datetime) -> None:
        self.transitions.state = "connected"
        self.address = address
        self.keep_alive = keepalive_s
        self.connected_at = at
        self.last_disconnect_time = None
        self.outbox.route = route

    def disconnect(self) -> None:
        self.transitions.state = "disconnected"
        self.last_disconnect_time = int(time.time())  # amqtt's expiry compares it with the wall clock
        self.outbox.route = None

    def info(self) -> SessionInfo:
        return SessionInfo(
            client_id=self.client_id,
            username=self.username,
            address=self.address,
            protocol=4,
            connected=self.connected,
            connected_at=self.connected_at,
            keepalive_s=self.keep_alive,
            clean_start=bool(self.clean_session),
            subscriptions=tuple(self.filters),
            queued=self.outbox.queued,
            inflight=len(self.inflight_out),
        )


class Outbox:
    """Deliveries to one client."""

    def __init__(self, session: ClientSession, options: AmqttOptions) -> None:
        self._session = session
        self._options = options
        self._waiting: deque[tuple[Outgoing, int]] = deque()
        self._waiting_bytes = 0
        self.route: Route | None = None
        self.on_drop: Callable[[], None] | None = None

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def offer(self, message: Outgoing, qos: int) -> bool:
        """Send it, or let it wait; False when it was dropped (or nobody is there and it is of QoS 0)."""
        route, options = self.route, self._options
        if qos == 0:
            if route is None:
                return False
            if route.buffered > options.max_outgoing_bytes:
                return self._drop()
            route.write(message.packet())
            return True
        self.pump()
        if route is not None and not self._waiting and self._may_send(route):
            self._send(route, message, qos)
            return True
        size = len(message.payload) + len(message.topic)
        if len(self._waiting) >= options.max_queued or self._waiting_bytes + size > options.max_queued_bytes:
            return self._drop()
        self._waiting.append((message, qos))
        self._waiting_bytes += size
        return True

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK or PUBCOMP came: the delivery is over, and the next one may go."""
        self._session.inflight_out.pop(packet_id, None)
        self.pump()

    def received(self, packet_id: int, packet: Any) -> None:
        """PUBREC came. PUBREL is the answer to an unknown one too, or the client would ask for ever."""
        message = self._session.inflight_out.get(packet_id)
        if message is not None:
            message.pubrec_packet = packet
        if self.route is not None:
            self.route.write(PubrelPacket.build(packet_id).to_bytes())

    def resume(self) -> None:
        """The client is back: send again what it has not acknowledged, in the first order, then what waited."""
        if self.route is None:
            return
        for packet_id, message in self._session.inflight_out.items():
            again = PubrelPacket.build(packet_id) if message.pubrec_packet else message.build_publish_packet(dup=True)
            self.route.write(again.to_bytes())
        self.pump()

    def pump(self) -> None:
        """Send what waits, as far as it may go."""
        while self._waiting and self.route is not None and self._may_send(self.route):
            message, qos = self._waiting.popleft()
            self._waiting_bytes -= len(message.payload) + len(message.topic)
            self._send(self.route, message, qos)

    def _may_send(self, route: Route) -> bool:
        options = self._options
        return len(self._session.inflight_out) < options.max_inflight and route.buffered <= options.max_outgoing_bytes

    def _send(self, route: Route, message: Outgoing, qos: int) -> None:
        packet_id = self._session.next_packet_id
        kept = OutgoingApplicationMessage(packet_id, message.topic, qos, message.payload, message.retain)
        self._session.inflight_out[packet_id] = kept
        route.write(kept.build_publish_packet().to_bytes())

    def _drop(self) -> bool:
        if self.on_drop is not None:
            self.on_drop()
        return False

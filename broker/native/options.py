"""What can be set on the native broker. Every bound says what happens when it is reached (docs/limits.md)."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Loopback, bounded, nothing kept on disk; a port of 0 is any free one, None no such listener."""

    host: str = "127.0.0.1"
    port: int | None = 1883
    tls_port: int | None = None
    ws_port: int | None = None
    wss_port: int | None = None
    unix_path: Path | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """For `tls_port` and `wss_port`. If it asks for client certificates, the Guard is shown them."""

    persistence: Path | None = None
    """A directory: sessions, what waits for them and retained messages are kept there and survive kill -9."""
    persistence_synchronous: Literal["full", "normal"] = "full"
    """`full` survives power failure; `normal` survives a crash, and its commits are cheaper."""

    # --- connections
    max_connections: int = 20_000
    """Beyond, a new connection is closed at once."""
    max_connections_per_address: int = 20_000
    """Beyond, a new connection from there is closed at once. Low values suit devices that do not share an address."""
    max_connecting: int = 2_000
    """Connections that have not been let in yet; beyond, a new one is closed at once."""
    max_connecting_per_address: int = 2_000
    """The same of one address. Low values suit devices that do not share one: then none takes all of that room."""
    max_connects_per_s: int = 0
    """CONNECTs a second, with bursts of as many; beyond, CONNACK 0x9F. 0: no bound."""
    max_connects_per_min_per_client: int = 50
    """Of one client id that the Guard lets in, with bursts of as many; beyond, CONNACK 0x9F. 0: no bound."""
    connect_timeout_s: float = 10.0
    """From the first byte to the CONNACK; then the connection is closed. Mosquitto waits 90 s, amqtt for ever."""
    max_connect_bytes: int = 64 * KIB
    """A first packet declaring more is refused on its fixed header."""
    max_packet_bytes: int = 1 * MIB
    """A later packet declaring more is refused on its fixed header: DISCONNECT 0x95."""
    keepalive_cap_s: int = 1200
    """The longest keep-alive, also of a client asking for none; after 1.5 times of it in silence it is closed."""
    max_outgoing_bytes: int = 1 * MIB
    """Written to one client and not taken by the network; beyond, QoS 0 is dropped and counted, QoS 1 and 2 wait."""
    write_timeout_s: float = 30.0
    """How long a client may leave `max_outgoing_bytes` unread before it is closed."""
    max_publishes_per_s: int = 0
    """Messages a second of one user name (without one: of one client), over all its connections; beyond, it is not read
    from. 0: no bound."""
    max_publishes_at_once: int = 0
    """How many it may send at once all the same, after a rest. 0: as many as in a second."""

    # --- sessions
    session_expiry_s: int = 7 * 24 * 3600
    """A session without a connection is forgotten after this, or sooner if its client asked for less."""
    max_sessions: int = 100_000
    """Connected or kept; beyond, the oldest session without a connection is forgotten, with none such CONNACK 0x97."""
    max_sessions_per_username: int = 64
    """The same for the sessions of one user name."""
    max_undone: int = 1_000
    """Messages of one client that are not acknowledged yet; then it is not read from. MQTT 5: Receive Maximum, 0x93."""
    max_undone_bytes: int = 4 * MIB
    max_inflight: int = 1_000
    """Deliveries of QoS 1 and 2 that one client has not acknowledged (or its Receive Maximum); the next ones wait."""
    max_queued: int = 1_000
    """Deliveries of QoS 1 and 2 waiting for one client, connected or not; at most 60,000. Beyond, see `queue_full`."""
    max_queued_bytes: int = 4 * MIB
    max_queued_bytes_per_username: int = 64 * MIB
    """Of all sessions of one user name together, so that no user takes all of the room. Beyond, as for one session."""
    max_queued_bytes_in_all: int = 256 * MIB
    """Of all sessions together. Beyond, as for one session."""
    queue_full: Literal["drop_oldest", "drop_newest", "disconnect"] = "drop_oldest"
    """What gives way at a full queue, counted; QoS 0 is never queued. `disconnect` sends 0x97 and ends the session."""

    # --- topics
    max_topic_bytes: int = 4 * KIB
    max_topic_levels: int = 128
    """A deeper or longer topic ends the connection (0x90); such a filter is refused (0x8F)."""
    max_subscriptions: int = 100
    """Of one session; beyond, SUBACK 0x97."""
    topic_alias_maximum: int = 64
    """Topic aliases a client may use; more is 0x94."""
    max_retained: int = 20_000
    """Retained messages; beyond, new topics are not retained, counted. MQTT 5 at QoS 1 and 2: 0x97, and not routed."""
    max_retained_bytes: int = 64 * MIB
    max_retained_per_username: int = 100
    max_routes_bytes: int = 64 * MIB
    """Estimated, of the topics whose subscribers are remembered; beyond, all are looked up again."""

    sys_interval_s: float = 10.0
    """How often the $SYS topics are published; 0 for never."""
    response_information: str = ""
    """What a client that asks for response information is told (MQTT 5, section 3.2.2.3.15); empty for nothing."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.max_inflight < 1 or self.max_undone < 1:
            raise ValueError("max_inflight and max_undone must be 1 at least")
        if self.max_queued + self.max_inflight > 65_000:  # the packet identifiers of one session
            raise ValueError("max_queued and max_inflight must not be more than 65,000 together")

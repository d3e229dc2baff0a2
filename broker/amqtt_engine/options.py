"""What can be set on the amqtt engine. Every bound says what happens when it is reached."""

import ssl
from dataclasses import dataclass, field

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqttOptions:
    """Loopback, bounded; a port of 0 is any free one, None no such listener."""

    host: str = "127.0.0.1"
    port: int = 1883
    ws_port: int | None = None
    tls_port: int | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    max_connections: int = 20_000
    """Beyond, a new connection is closed at once."""
    max_connecting: int = 2_000
    """Connections that have not been let in yet; beyond, a new one is closed at once."""
    max_sessions_per_username: int = 64
    """Beyond, the oldest session without a connection is forgotten; with none such, CONNACK 3."""
    connect_timeout_s: float = 10.0
    """From the first byte to the CONNACK; then the connection is closed."""
    max_connect_bytes: int = 64 * KIB
    """A first packet declaring more is refused on its fixed header."""
    max_packet_bytes: int = 1 * MIB
    """A later packet declaring more is refused on its fixed header."""
    keepalive_cap_s: int = 1200
    """The longest keep-alive, also of a client asking for none; after 1.5 times of it in silence it is closed."""
    write_timeout_s: float = 30.0
    """How long a client may leave our answers unread before it is closed."""

    max_undone: int = 1_000
    """Messages of one client that the sink has not settled; then that client is not read from."""
    max_undone_bytes: int = 4 * MIB
    max_inflight: int = 20
    """Deliveries of QoS 1 and 2 that one client has not acknowledged; the next ones wait."""
    max_queued: int = 1_000
    """Deliveries of QoS 1 and 2 waiting for one client, connected or not; beyond, the newest is dropped and counted."""
    max_queued_bytes: int = 4 * MIB
    max_outgoing_bytes: int = 1 * MIB
    """Written to one client and not taken by the network; beyond, QoS 0 is dropped and counted, QoS 1 and 2 wait."""
    max_subscriptions: int = 100
    """Of one session; beyond, SUBACK 0x80."""
    max_retained: int = 20_000
    """Retained messages; beyond, new topics are not retained, and counted."""
    max_retained_bytes: int = 64 * MIB
    max_retained_per_username: int = 100
    session_expiry_s: int = 7 * 24 * 3600
    """A session without a connection is forgotten after this."""

"""What each metric of the broker means: for the API, for Prometheus, and for whoever reads the console. No I/O.

A test holds this table to the metrics that the broker really has.
"""

from dataclasses import dataclass
from enum import StrEnum


class FigureKind(StrEnum):
    COUNTER = "counter"
    """Counts from the start of the broker and never falls."""
    GAUGE = "gauge"
    """How much there is now."""


class FigureUnit(StrEnum):
    NONE = ""
    BYTES = "bytes"
    SECONDS = "seconds"


class FigureGroup(StrEnum):
    CONNECTIONS = "connections"
    SESSIONS = "sessions"
    MESSAGES = "messages"
    REFUSED = "refused"
    DROPPED = "dropped"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of one metric. `about` is a line for people, and the help text of Prometheus."""

    group: FigureGroup
    kind: FigureKind
    about: str
    unit: FigureUnit = FigureUnit.NONE


_COUNTER, _GAUGE = FigureKind.COUNTER, FigureKind.GAUGE
_BYTES = FigureUnit.BYTES

MEANINGS: dict[str, Meaning] = {
    "uptime_s": Meaning(FigureGroup.CONNECTIONS, _GAUGE, "Since the broker started", FigureUnit.SECONDS),
    "connections_now": Meaning(FigureGroup.CONNECTIONS, _GAUGE, "Connections open now, let in or not"),
    "connecting": Meaning(FigureGroup.CONNECTIONS, _GAUGE, "Connections not let in yet"),
    "held_back": Meaning(
        FigureGroup.CONNECTIONS,
        _GAUGE,
        "Clients not read from for a while: too much not acknowledged, too fast, or not reading",
    ),
    "connections": Meaning(FigureGroup.CONNECTIONS, _COUNTER, "Connections accepted"),
    "connects": Meaning(FigureGroup.CONNECTIONS, _COUNTER, "Clients let in"),
    "takeovers": Meaning(FigureGroup.CONNECTIONS, _COUNTER, "Connections ended by a newer one of the same client id"),
    "throttled": Meaning(FigureGroup.CONNECTIONS, _COUNTER, "Times a client was slowed because it sent too fast"),
    "sessions": Meaning(FigureGroup.SESSIONS, _GAUGE, "MQTT sessions, connected or kept"),
    "sessions_away": Meaning(FigureGroup.SESSIONS, _GAUGE, "Sessions kept for clients that are away"),
    "subscriptions": Meaning(FigureGroup.SESSIONS, _GAUGE, "Subscriptions of all sessions"),
    "queued_bytes": Meaning(FigureGroup.SESSIONS, _GAUGE, "Messages waiting for their clients", _BYTES),
    "queued_bytes_of_one": Meaning(FigureGroup.SESSIONS, _GAUGE, "Those of the user name with the most", _BYTES),
    "inflight": Meaning(FigureGroup.SESSIONS, _GAUGE, "Deliveries that clients have not acknowledged"),
    "feeds": Meaning(FigureGroup.SESSIONS, _GAUGE, "New subscriptions still being sent what is retained"),
    "sessions_displaced": Meaning(
        FigureGroup.SESSIONS, _COUNTER, "Kept sessions that gave way to a new one at a bound"
    ),
    "messages_received": Meaning(FigureGroup.MESSAGES, _COUNTER, "Messages from clients"),
    "messages_sent": Meaning(FigureGroup.MESSAGES, _COUNTER, "Messages to clients, those sent again not counted"),
    "bytes_received": Meaning(FigureGroup.MESSAGES, _COUNTER, "Bytes from clients", _BYTES),
    "bytes_sent": Meaning(FigureGroup.MESSAGES, _COUNTER, "Bytes to clients", _BYTES),
    "undone": Meaning(FigureGroup.MESSAGES, _GAUGE, "Messages from clients that sink or disk have not taken yet"),
    "undone_bytes": Meaning(FigureGroup.MESSAGES, _GAUGE, "Their size", _BYTES),
    "undone_age_s": Meaning(FigureGroup.MESSAGES, _GAUGE, "How long the oldest of them has waited", FigureUnit.SECONDS),
    "wills": Meaning(FigureGroup.MESSAGES, _COUNTER, "Wills published"),
    "retained_messages": Meaning(
        FigureGroup.MESSAGES, _GAUGE, "Retained messages, those of the broker itself included"
    ),
    "retained_bytes": Meaning(FigureGroup.MESSAGES, _GAUGE, "Memory for retained messages, estimated", _BYTES),
    "routes": Meaning(FigureGroup.MESSAGES, _GAUGE, "Topics whose subscribers are remembered"),
    "routes_bytes": Meaning(FigureGroup.MESSAGES, _GAUGE, "Memory for these topics, estimated", _BYTES),
    "routes_forgotten": Meaning(
        FigureGroup.MESSAGES, _COUNTER, "Times that all of these were forgotten, to bound memory"
    ),
    "refused_connections": Meaning(
        FigureGroup.REFUSED, _COUNTER, "Connections closed before a CONNECT: at a bound, or none came in time"
    ),
    "refused_per_address": Meaning(FigureGroup.REFUSED, _COUNTER, "Those of them that were too many from one address"),
    "refused_connects": Meaning(FigureGroup.REFUSED, _COUNTER, "Clients not let in: wrong credentials, or at a bound"),
    "rate_refused": Meaning(FigureGroup.REFUSED, _COUNTER, "Those of them that came too fast, one after the other"),
    "flapping_refused": Meaning(FigureGroup.REFUSED, _COUNTER, "Those of them whose client connects over and over"),
    "refused_publishes": Meaning(
        FigureGroup.REFUSED, _COUNTER, "Messages to topics that their client may not publish to"
    ),
    "refused_subscribes": Meaning(FigureGroup.REFUSED, _COUNTER, "Subscriptions refused: not allowed, or at a bound"),
    "protocol_errors": Meaning(
        FigureGroup.REFUSED, _COUNTER, "Connections ended because the client broke the protocol"
    ),
    "dropped_slow": Meaning(FigureGroup.DROPPED, _COUNTER, "Deliveries of QoS 0 to clients that do not read"),
    "dropped_queue": Meaning(FigureGroup.DROPPED, _COUNTER, "Deliveries at a full queue"),
    "dropped_large": Meaning(FigureGroup.DROPPED, _COUNTER, "Deliveries larger than their client takes"),
    "dropped_retained": Meaning(FigureGroup.DROPPED, _COUNTER, "Messages not retained, at a bound"),
    "expired": Meaning(FigureGroup.DROPPED, _COUNTER, "Deliveries that came too late: the message had expired"),
    "slow_closed": Meaning(FigureGroup.DROPPED, _COUNTER, "Clients disconnected because they did not read"),
    "persistence_pending_bytes": Meaning(FigureGroup.DISK, _GAUGE, "State on its way to the disk", _BYTES),
    "persistence_commits": Meaning(FigureGroup.DISK, _COUNTER, "Commits to the disk"),
    "persistence_damaged": Meaning(FigureGroup.DISK, _COUNTER, "Records that could not be read at the start"),
    "persistence_failing": Meaning(FigureGroup.DISK, _GAUGE, "1 while the disk takes nothing; acknowledgements wait"),
}
"""By the names of `broker.Broker.metrics()`, in the order in which people read them."""


def prometheus_name(name: str) -> str:
    """Of a metric of the broker, as one would ask Prometheus for it."""
    if name in _SESSIONS:
        return _SESSIONS[name]
    if MEANINGS[name].kind is FigureKind.COUNTER:
        return f"mooring_broker_{name}_total"
    return f"mooring_broker_{name.removesuffix('_s')}{'_seconds' if name.endswith('_s') else ''}"


_SESSIONS = {
    "sessions": "sum(mooring_broker_sessions)",
    "sessions_away": 'mooring_broker_sessions{state="kept"}',
}
"""One family for the sessions of every engine, with a label for their state."""

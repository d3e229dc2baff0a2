"""The $SYS topics: what the broker says of itself, retained, every few seconds. No I/O, no clock."""

from collections.abc import Iterator, Mapping

PREFIX = "$SYS/broker/"

_NAMES = {
    "uptime_s": "uptime",
    "connections_now": "clients/connected",
    "sessions_away": "clients/disconnected",
    "sessions": "clients/total",
    "subscriptions": "subscriptions/count",
    "retained_messages": "retained messages/count",
    "retained_bytes": "retained messages/bytes",
    "queued_bytes": "store/queued/bytes",
    "messages_received": "publish/messages/received",
    "messages_sent": "publish/messages/sent",
    "bytes_received": "bytes/received",
    "bytes_sent": "bytes/sent",
    "dropped_slow": "publish/messages/dropped/slow",
    "dropped_queue": "publish/messages/dropped/queue",
    "expired": "publish/messages/expired",
    "refused_connects": "clients/refused",
    "refused_publishes": "publish/messages/refused",
    "refused_subscribes": "subscriptions/refused",
    "protocol_errors": "clients/protocol errors",
}
"""Metrics by the topic they are published on; where Mosquitto has one for the same, it is that."""


def system_messages(version: str, metrics: Mapping[str, int | float]) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of each."""
    yield PREFIX + "version", version.encode()
    for name, topic in _NAMES.items():
        yield PREFIX + topic, str(int(metrics.get(name, 0))).encode()

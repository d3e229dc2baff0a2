"""What the broker counts. No I/O, no clock."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counters:
    """Totals since the start; plain integers, as they are counted on the hottest paths."""

    bytes_received: int = 0
    bytes_sent: int = 0
    messages_received: int = 0
    """PUBLISH packets of clients."""
    messages_sent: int = 0
    """PUBLISH packets to clients, those sent again not counted."""
    connections: int = 0
    """Accepted by a listener."""
    connects: int = 0
    """Clients let in."""
    refused_connects: int = 0
    """CONNECTs refused, by the Guard or at a bound."""
    refused_connections: int = 0
    """Closed before a CONNECT: at a bound, or none came in time."""
    refused_per_address: int = 0
    """Those of them that were too many from one address."""
    refused_publishes: int = 0
    refused_subscribes: int = 0
    protocol_errors: int = 0
    """Connections ended for what their client sent."""
    dropped_slow: int = 0
    """Deliveries of QoS 0 to clients that do not read."""
    dropped_queue: int = 0
    """Deliveries at a full queue."""
    dropped_large: int = 0
    """Deliveries larger than the client takes."""
    dropped_retained: int = 0
    """Messages that were not retained, at a bound."""
    expired: int = 0
    """Deliveries whose message had expired."""
    slow_closed: int = 0
    """Clients closed because they did not read."""
    throttled: int = 0
    """Times that a client was not read from because it sent too fast."""
    rate_refused: int = 0
    """CONNECTs refused because too many came at once."""
    flapping_refused: int = 0
    """CONNECTs refused because their client comes too often."""
    wills: int = 0
    """Wills published."""
    takeovers: int = 0

    def as_dict(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

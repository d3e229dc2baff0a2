"""What can go wrong with a packet, by whose fault it is.

BrokerError
    MalformedPacket   the peer's: bytes that are not MQTT; carries the reason code to answer with
    Unencodable       ours: a packet that MQTT has no bytes for
"""

from broker.errors import BrokerError
from broker.reason import ReasonCode


class MalformedPacket(BrokerError):
    """The peer sent what MQTT forbids. `detail` is our words only, never the peer's bytes."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        super().__init__(f"{detail} (0x{reason:02X})")
        self.reason = reason
        self.detail = detail


class Unencodable(BrokerError):
    """We tried to send what this protocol level cannot say."""


def malformed(detail: str) -> MalformedPacket:
    """Bytes that cannot be parsed: 0x81."""
    return MalformedPacket(ReasonCode.MALFORMED_PACKET, detail)


def protocol_error(detail: str) -> MalformedPacket:
    """Bytes that parse, and say something not allowed: 0x82."""
    return MalformedPacket(ReasonCode.PROTOCOL_ERROR, detail)

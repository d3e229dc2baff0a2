"""Acknowledgements that a connection owes: sent in the order of their messages, each when its message is safe. No I/O.

[MQTT-4.6.0-2] PUBACKs go in the order of the PUBLISH packets, [MQTT-4.6.0-3] PUBRECs likewise. A message is safe
when the sink has taken it over and, if it waits for a session that outlives a crash, when that is on disk.
"""

from collections.abc import Sequence

from broker.native.answers import answer, nearest
from broker.native.session import Receipt
from broker.packets import MQTT_5, PacketType, Puback, Pubrec
from broker.packets.properties import Properties
from broker.reason import TRANSIENT, ReasonCode

_PUBREC = 0x50


class Batch:
    """What one read held. `entries` are the acknowledgements as if all went well, empty at QoS 0."""

    __slots__ = ("awaited", "bytes", "codes", "entries", "fixed", "receipts", "since", "unacked", "waits")

    def __init__(
        self, entries: list[bytes], fixed: frozenset[int] | None, size: int, unacked: int, since: float
    ) -> None:
        self.entries = entries
        self.since = since
        """When it was read, in monotonic seconds."""
        self.unacked = unacked
        """How many of them are of QoS 1."""
        self.fixed = fixed
        """Positions of the entries that the sink is not asked about; None when there is nothing it is asked about."""
        self.receipts: list[tuple[int, Receipt]] = []
        """Of QoS 2, by position."""
        self.awaited: dict[int, ReasonCode] = {}
        """By position: what became of messages that came again while the first one was not settled."""
        self.bytes = size
        self.waits = 0
        """How many have yet to say that all of this is safe."""
        self.codes: Sequence[ReasonCode] = ()
        """What the sink said, of those it was asked about."""

    def by_position(self) -> dict[int, ReasonCode]:
        """The sink's codes, by the place of what they are about."""
        if self.fixed is None:
            return self.awaited
        asked = [place for place in range(len(self.entries)) if place not in self.fixed]
        return dict(zip(asked, self.codes, strict=True)) | self.awaited

    def settle(self) -> list[int]:
        """Tell the receipts what became of their messages; the packet identifiers whose flow ends with that."""
        if not self.receipts:
            return []
        codes = self.by_position()
        ended = []
        for place, receipt in self.receipts:
            code = codes.get(place, ReasonCode.SUCCESS)
            if code.is_error:
                ended.append(int.from_bytes(self.entries[place][2:4], "big"))
            receipt.settle(code)
        return ended

    def acknowledgements(self, *, mqtt5: bool, tell_why: bool, limit: int) -> tuple[bytes, ReasonCode | None]:
        """The bytes to send; and the code for which a client before MQTT 5 must be disconnected after them, if any.

        Such a client cannot be told to send again later; without an acknowledgement it will. What is refused for
        good is acknowledged there like the rest, as sending the same again would not help.
        """
        if not any(self.codes) and not self.awaited:
            return b"".join(self.entries), None
        codes, out = self.by_position(), bytearray()
        for place, entry in enumerate(self.entries):
            code = codes.get(place, ReasonCode.SUCCESS)
            if not entry or not code.is_error:
                out += entry
            elif mqtt5:
                out += refusal(entry, code, tell_why=tell_why, limit=limit)
            elif code in TRANSIENT:  # 3.1.1: [MQTT-4.8.0-2]
                return bytes(out), code
            else:
                out += entry
        return bytes(out), None


def refusal(entry: bytes, code: ReasonCode, *, tell_why: bool, limit: int) -> bytes:
    """The PUBACK or PUBREC of MQTT 5 that refuses what `entry` would have acknowledged [MQTT-3.4.2-1]."""
    packet_id = int.from_bytes(entry[2:4], "big")
    kind = Pubrec if entry[0] == _PUBREC else Puback
    reason = nearest(code, PacketType(entry[0] >> 4))
    properties: Properties = {"reason_string": code.words} if tell_why else {}
    return answer(kind(packet_id=packet_id, reason=reason, properties=properties), MQTT_5, limit)

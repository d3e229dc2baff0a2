"""What one connection's client published and the sink has not settled, and the acknowledgements owed for it. No I/O.

Acknowledgements leave in the order the messages came [MQTT-4.6.0-2], each only when its message is settled. A code
that may be different the next time (the server is busy, a disk is full) is never acknowledged: MQTT 3.1.1 has no way
to say so but to close the connection, and the client sends again. Any other refusal is acknowledged, as sending the
same again would not help.
"""

from collections import deque
from collections.abc import Sequence

from broker.engine import Publish
from broker.reason import TRANSIENT, ReasonCode


class Slot:
    """One message's place in the order of acknowledgements. `ack` is the packet owed, None at QoS 0."""

    __slots__ = ("ack", "code", "packet_id", "size")

    def __init__(self, ack: bytes | None, size: int = 0, *, code: ReasonCode | None = None) -> None:
        self.ack = ack
        self.size = size
        self.code = code
        self.packet_id = 0
        """Of a message of QoS 2, which the session remembers until it is released."""


class Inbox:
    """The unsettled messages of one connection, bounded in number and bytes."""

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._slots: deque[Slot] = deque()
        self._bytes = 0
        self._batch: list[Publish] = []
        self._batch_slots: list[Slot] = []

    @property
    def full(self) -> bool:
        """Whether the client must not be read from until the sink has settled something."""
        return len(self._slots) >= self._limit or self._bytes >= self._limit_bytes

    def take(self, message: Publish, ack: bytes | None) -> Slot:
        """A message for the sink, in the next batch."""
        slot = self.owe(Slot(ack, len(message.payload)))
        self._batch.append(message)
        self._batch_slots.append(slot)
        return slot

    def owe(self, slot: Slot) -> Slot:
        """An acknowledgement in its turn, for a message that the sink does not get (or has already)."""
        self._slots.append(slot)
        self._bytes += slot.size
        return slot

    def batch(self) -> tuple[Sequence[Publish], Sequence[Slot]]:
        """What came since the last call."""
        batch = self._batch, self._batch_slots
        self._batch, self._batch_slots = [], []
        return batch

    def due(self) -> tuple[bytes, ReasonCode | None]:
        """The acknowledgements that may go now, and the transient code that stands behind them, if one does."""
        out = bytearray()
        while self._slots and self._slots[0].code is not None:
            slot = self._slots[0]
            if slot.ack is not None and slot.code in TRANSIENT:
                return bytes(out), slot.code
            self._slots.popleft()
            self._bytes -= slot.size
            if slot.ack is not None:
                out += slot.ack
        return bytes(out), None

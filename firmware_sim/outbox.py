"""What a device still has to say, in order, until it is acknowledged. No I/O, no clock.

Bounded: while the link is down samples pile up, and when the box is full the oldest sample goes (counted). What waited
is sent in arrays; a message stays at the head until it is acknowledged, so a lost link loses nothing and at worst sends
a sample twice, with the same timestamp.
"""

from collections import deque
from dataclasses import dataclass

import cbor2
import orjson

from firmware_sim.signals import Value

SAMPLES_PER_MESSAGE = 20
"""Five values each: 100 of the 256 that one message may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One uplink. `readings` counts the values in it."""

    channel: str
    payload: bytes
    readings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """All metrics of one moment."""

    ts_ms: int
    values: dict[str, Value]


class Outbox:
    """One device's outbox."""

    def __init__(self, *, limit: int = 500, cbor: bool = False) -> None:
        self.dropped = 0
        self._limit = limit
        self._cbor = cbor
        self._entries: deque[Message | Sample] = deque()
        self._head: Message | None = None

    def __len__(self) -> int:
        return len(self._entries) + (self._head is not None)

    def add(self, entry: Message | Sample) -> None:
        """Put it at the end."""
        if len(self._entries) >= self._limit:
            self._drop_one()
        self._entries.append(entry)

    def say(self, channel: str, fields: object) -> None:
        """Put a JSON message at the end."""
        self.add(Message(channel=channel, payload=orjson.dumps(fields)))

    def head(self) -> Message | None:
        """The message to send now; the same one until `acknowledged`."""
        if self._head is None and self._entries:
            first = self._entries.popleft()
            self._head = first if isinstance(first, Message) else self._joined(first)
        return self._head

    def acknowledged(self) -> None:
        """The head has arrived (or will never): go on to the next."""
        self._head = None

    def forget(self, channel: str) -> None:
        """Drop what was to be sent on a channel: it has lost its sense."""
        self._entries = deque(
            entry for entry in self._entries if not (isinstance(entry, Message) and entry.channel == channel)
        )
        if self._head is not None and self._head.channel == channel:
            self._head = None

    def _joined(self, first: Sample) -> Message:
        samples = [first]
        while self._entries and len(samples) < SAMPLES_PER_MESSAGE and isinstance(self._entries[0], Sample):
            samples.append(self._entries.popleft())  # type: ignore[arg-type]  # just looked at
        body = [{"ts": sample.ts_ms, "values": sample.values} for sample in samples]
        content = body if len(body) > 1 else body[0]
        return Message(
            channel="telemetry/cbor" if self._cbor else "telemetry",
            payload=cbor2.dumps(content) if self._cbor else orjson.dumps(content),
            readings=sum(len(sample.values) for sample in samples),
        )

    def _drop_one(self) -> None:
        self.dropped += 1
        for index, entry in enumerate(self._entries):
            if isinstance(entry, Sample):
                del self._entries[index]
                return
        self._entries.popleft()

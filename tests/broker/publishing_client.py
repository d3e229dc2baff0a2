"""For the model of the inbound path: what one client has published, and what it may be told of it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from broker.engine import Done
from broker.engine import Publish as EnginePublish
from broker.packets import Publish, encode
from broker.reason import TRANSIENT, ReasonCode
from tests.broker.paper_network import AllowAll

FORBIDDEN = "no/x"


class ChangingRules(AllowAll):
    """A Guard that forbids one topic always, and another one at times."""

    def __init__(self) -> None:
        self.denied = {FORBIDDEN}
        self.rules_version = 1

    def change(self) -> None:
        self.denied ^= {"t/1"}
        self.rules_version += 1

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED if topic in self.denied else ReasonCode.SUCCESS


def number_of(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big")


@dataclass(slots=True)
class Sent:
    """A PUBLISH that was sent; `end` is where it ends in the stream of its connection."""

    number: int
    topic: str
    qos: int
    size: int
    packet_id: int | None
    retain: bool = False
    rich: bool = False
    end: int = 0
    is_allowed: bool = True
    """As the rules were when the broker came to it."""
    unsafe: bool = False
    """Routed, and what that has put down is not on disk yet."""

    def encode(self, protocol: int, *, dup: bool = False) -> bytes:
        payload = self.number.to_bytes(4, "big") + b"." * (self.size - 4)
        packet = Publish(
            topic=self.topic, payload=payload, qos=self.qos, packet_id=self.packet_id, retain=self.retain, dup=dup
        )
        if self.rich:
            packet.properties["content_type"] = "x"
        return encode(packet, protocol)


@dataclass(slots=True)
class Offer:
    """A message given to the sink; `code` is what the sink has said."""

    number: int
    code: ReasonCode | None = None


class PaperSink:
    """Takes batches, and answers when it is told to: at once (`prompt`), later, or never as it breaks (`breaks`)."""

    def __init__(self) -> None:
        self.mood = "late"
        self.offers: list[Offer] = []
        self.waiting: list[tuple[list[Offer], Done]] = []

    def __call__(self, batch: Sequence[EnginePublish], done: Done) -> None:
        offers = [Offer(number_of(message.payload)) for message in batch]
        self.offers += offers
        if self.mood == "breaks":
            for offer in offers:
                offer.code = ReasonCode.UNSPECIFIED_ERROR
            raise RuntimeError("a sink that breaks")
        if self.mood == "prompt":
            self._answer(offers, done, ())
        else:
            self.waiting.append((offers, done))

    def answer(self, which: int, codes: Sequence[ReasonCode]) -> None:
        """Any of those that wait; `codes` are repeated over its messages, none is success."""
        offers, done = self.waiting.pop(which % len(self.waiting))
        self._answer(offers, done, codes)

    def of(self, number: int) -> list[Offer]:
        return [offer for offer in self.offers if offer.number == number]

    def _answer(self, offers: list[Offer], done: Done, codes: Sequence[ReasonCode]) -> None:
        for place, offer in enumerate(offers):
            offer.code = codes[place % len(codes)] if codes else ReasonCode.SUCCESS
        done([offer.code or ReasonCode.SUCCESS for offer in offers])


class Stream:
    """What a client sends on one connection: bytes, of which some have arrived, and the messages in them."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends: list[int] = [0]
        """Where packets end."""
        self.arrived = 0
        self.sent: list[Sent] = []
        self.parsed = 0
        """How many of them the broker has acted on."""
        self.owed: deque[Sent] = deque()
        """Those it has acted on and not acknowledged."""

    def write(self, data: bytes, sent: Sent | None = None) -> None:
        self._bytes += data
        self._ends.append(len(self._bytes))
        if sent is not None:
            sent.end = len(self._bytes)
            self.sent.append(sent)

    @property
    def waiting(self) -> int:
        """Bytes under way."""
        return len(self._bytes) - self.arrived

    @property
    def is_whole(self) -> bool:
        """What has arrived ends where a packet ends."""
        return self.arrived in self._ends

    def take(self, size: int) -> bytes:
        """The next bytes that arrive; with 0 up to the end of a packet."""
        end = self.arrived + size if size else next((end for end in self._ends if end > self.arrived), self.arrived)
        data = bytes(self._bytes[self.arrived : end])
        self.arrived += len(data)
        return data

    def whole(self) -> int:
        """How many messages have arrived as a whole."""
        return sum(sent.end <= self.arrived for sent in self.sent)


def closes_old_clients(code: ReasonCode | None) -> bool:
    """Whether a client before MQTT 5 is disconnected for what the sink has said."""
    return code in TRANSIENT

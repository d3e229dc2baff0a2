"""For the model of sessions: a client that behaves as MQTT says, and what is known of each message."""

from collections import Counter
from collections.abc import Callable

from broker.native.message import Message, RichMessage, wire_topic
from broker.native.session import Session
from broker.packets import Packet, Publish, Pubrel
from broker.reason import ReasonCode
from tests.broker.paper import packets_in

BIG = 200  # bytes of a payload that LIMIT does not let through
LIMIT = 150  # a client's maximum packet size
TOPICS = ["t/0", "t/1"]


def number_of(payload: bytes) -> int:
    return int(payload.split(b"|")[0])


class Ledger:
    """What was published, by number, and what became of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.count = 0
        self.order = 0
        self.ordered: dict[int, int] = {}
        """When each message was last published, as a number."""
        self.expires: dict[int, float] = {}
        self.sizes: dict[int, int] = {}
        self.large: set[int] = set()
        """What was too large for its client at a time."""
        self.shared: set[int] = set()
        """What went to the group."""
        self.owed: set[int] = set()
        """What must reach its client."""
        self.reached: Counter[int] = Counter()
        """How many times it did."""
        self.exact: dict[int, bool] = {}
        """Whether all of that was of QoS 2."""
        self.emitted: set[int] = set()
        self.known_sent: set[tuple[str, int]] = set()
        """What the broker knows to have sent, and to whom."""
        self.last: dict[tuple[str, int], int] = {}
        """The youngest message sent, by client and QoS."""

    def message(self, qos: int, topic: str, size: int, lives_s: int | None) -> Message:
        self.count += 1
        self.sizes[self.count] = size
        payload = b"%d|" % self.count
        payload += b"." * (size - len(payload))
        if lives_s is None:
            return Message(wire_topic(topic), payload, qos)
        self.expires[self.count] = self.now + lives_s
        return RichMessage(wire_topic(topic), payload, qos, expires_at=self.now + lives_s)

    def published(self, number: int) -> None:
        self.order += 1
        self.ordered[number] = self.order

    def is_expired(self, number: int) -> bool:
        return self.expires.get(number, self.now + 1) <= self.now

    def is_excused(self, number: int) -> bool:
        """Whether a message need not have arrived: it had expired before it was sent, or was too large."""
        return (number not in self.emitted and self.is_expired(number)) or number in self.large

    def check_exactly_once(self) -> None:
        for number, count in self.reached.items():
            assert count <= 1 or not self.exact[number], "twice at QoS 2"


class Subscriber:
    """A client, its session, and the network between them."""

    def __init__(self, client_id: str, protocol: int, ledger: Ledger) -> None:
        self.client_id = client_id
        self.protocol = protocol
        self.ledger = ledger
        self.session: Session
        self.held: dict[int, int] = {}
        """Messages of QoS 2 that were not released yet, by packet identifier."""
        self.acks: list[tuple[str, int]] = []
        """What it has yet to send, as names of methods of the session, with packet identifiers."""
        self.inbox: list[Packet] = []
        """On the way to it."""
        # Of the connection there is
        self.window = 0
        self.limit = 0
        self.unfinished: dict[int, int] = {}
        """Messages that it has carried and that are not acknowledged, by packet identifier."""
        self.carried: set[int] = set()
        self.releases: Counter[int] = Counter()
        """How many PUBREL it may carry yet, by packet identifier."""
        self.aliases: dict[int, str] = {}

    @property
    def connected(self) -> bool:
        return self.session.out is not None

    def waiting(self) -> list[int]:
        """What its session has for it."""
        return [number_of(delivery.message.payload) for delivery in self.session.waiting()]

    def attach(self, window: int, aliases: int, limit: int) -> None:
        session = self.session
        self.window, self.limit = window, limit
        self.aliases, self.unfinished, self.carried = {}, {}, set()
        self.releases = Counter(dict.fromkeys(session.released, 1))
        if limit:
            self.ledger.large.update(each for each in self.waiting() if self.ledger.sizes[each] >= BIG)
            flying = session.inflight | session._again
            self.releases.update(each for each in flying if flying[each].message.size >= BIG)
        connection: object = object()
        session.attach(connection, window=window, alias_maximum=aliases, maximum_packet_size=limit)  # type: ignore[arg-type]
        session.resume(self.ledger.now)

    # --- what comes

    def arrives(self, data: bytes) -> set[int]:
        """Bytes of the session, on their way; the numbers of the messages in them."""
        numbers = set()
        for packet in packets_in(data, self.protocol):
            if isinstance(packet, Publish):
                numbers.add(self._check(packet))
            elif isinstance(packet, Pubrel) and not packet.reason:
                assert self.releases[packet.packet_id] > 0, "a PUBREL nobody asked for"
                self.releases[packet.packet_id] -= 1
            self.inbox.append(packet)
        return numbers

    def _check(self, packet: Publish) -> int:
        ledger, number, properties = self.ledger, number_of(packet.payload), packet.properties
        if (alias := properties.get("topic_alias")) is not None:
            assert alias <= self.session.alias_maximum
            packet.topic = self.aliases[alias] = packet.topic or self.aliases[alias]
        assert packet.topic in TOPICS
        assert not self.limit or len(packet.payload) < BIG
        if packet.packet_id is None:
            assert not packet.dup
            return number
        assert number not in self.carried, "sent twice on one connection"
        assert packet.packet_id not in self.unfinished, "a packet identifier used twice at once"
        self.carried.add(number)
        self.unfinished[packet.packet_id] = number
        assert len(self.unfinished) <= self.window, "more than the window"
        assert packet.dup == ((self.client_id, number) in ledger.known_sent), "DUP is for what was sent before"
        if number not in ledger.emitted and number not in ledger.shared:
            line = (self.client_id, packet.qos)
            assert ledger.ordered[number] > ledger.last.get(line, 0), "out of order"
            ledger.last[line] = ledger.ordered[number]
        if not packet.dup and number in ledger.expires:
            assert not ledger.is_expired(number)
            if self.protocol == 5:
                assert properties["message_expiry_interval"] == round(ledger.expires[number] - ledger.now)
        ledger.emitted.add(number)
        ledger.known_sent.add((self.client_id, number))
        ledger.exact[number] = ledger.exact.get(number, True) and packet.qos == 2
        return number

    def read(self) -> None:
        """Take in one packet, and note what it has to be answered with."""
        packet = self.inbox.pop(0)
        if isinstance(packet, Publish) and packet.packet_id is not None:
            number = number_of(packet.payload)
            if packet.qos == 1:
                self.ledger.reached[number] += 1
                self.acks.append(("puback", packet.packet_id))
                return
            if packet.packet_id not in self.held:
                self.held[packet.packet_id] = number
                self.ledger.reached[number] += 1
            assert self.held[packet.packet_id] == number, "taken for another message"
            self.acks.append(("pubrec", packet.packet_id))
        elif isinstance(packet, Pubrel) and not packet.reason:
            self.held.pop(packet.packet_id, None)
            self.acks.append(("pubcomp", packet.packet_id))

    # --- what goes

    def acknowledge(self, which: int, *, refuse: bool = False) -> None:
        session, ledger = self.session, self.ledger
        kind, packet_id = self.acks.pop(which)
        if kind == "puback":
            self.unfinished.pop(packet_id, None)
            session.pubacks([packet_id])
        elif kind == "pubcomp":
            self.unfinished.pop(packet_id, None)
            session.pubcomp(packet_id, ledger.now)
        elif refuse and self.protocol == 5 and packet_id in session.inflight:
            number = self.held.pop(packet_id)
            ledger.owed.discard(number)
            ledger.reached[number] -= 1  # it was not taken, though it may be sent again after a crash
            self.unfinished.pop(packet_id, None)
            session.pubrec(packet_id, ReasonCode.QUOTA_EXCEEDED, ledger.now)
        else:
            self.releases[packet_id] += 1
            session.pubrec(packet_id, 0, ledger.now)

    def acknowledge_needlessly(self, kind: str, packet_id: int) -> Callable[[], None] | None:
        """An acknowledgement that changes nothing, or None; those of the wrong kind are for the caller to expect."""
        session, now = self.session, self.ledger.now
        if kind == "pubcomp":
            return None if packet_id in session.released else lambda: session.pubcomp(packet_id, now)
        delivery = session.inflight.get(packet_id)
        if delivery is not None and (kind == "puback") == (delivery.qos == 1):
            return None
        if kind == "puback":
            return lambda: session.pubacks([packet_id])
        self.releases[packet_id] += delivery is None
        return lambda: session.pubrec(packet_id, 0, now)

"""One publisher's way into the broker against what MQTT promises it, however its packets fall into reads.

The client behaves as MQTT says: it keeps to the Receive Maximum, sends again on the next connection what was not
acknowledged, and releases at QoS 2. Its bytes arrive in pieces of any size, many packets in a read or many reads in a
turn of the loop. The sink answers at once, late, in any order, refuses or breaks; the disk may be slow.
"""

import logging
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.native import reading
from broker.native.block import Block
from broker.native.connection import Connection
from broker.native.options import BrokerOptions
from broker.packets import (
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    encode,
)
from broker.reason import ReasonCode
from tests.broker.paper import bounded
from tests.broker.paper_network import AskEachTime, PaperBroker, PaperClient
from tests.broker.paper_store import PaperStore, keeper
from tests.broker.publishing_client import (
    FORBIDDEN,
    ChangingRules,
    PaperSink,
    Sent,
    Stream,
    closes_old_clients,
    number_of,
)

PINGREQ = b"\xc0\x00"
TOPIC = st.sampled_from(["t/0", "t/0", "t/0", "t/1", FORBIDDEN])
SIZE = st.sampled_from([4, 4, 4, 9, 150])
CODES = st.lists(
    st.sampled_from([ReasonCode.SUCCESS, ReasonCode.SUCCESS, ReasonCode.NOT_AUTHORIZED, ReasonCode.SERVER_BUSY]),
    max_size=3,
)
SUBSCRIBERS: dict[str, list[tuple[bool, int]]] = {
    "nobody": [],
    "one alike": [(True, 0)],
    "two alike": [(True, 0), (True, 0)],
    "one unlike": [(False, 0)],
    "one of QoS 1": [(True, 1)],
    "two of QoS 1": [(True, 1), (True, 1)],
    "all kinds": [(True, 0), (False, 1), (True, 2)],
}
"""Of the publisher's protocol version or not, and their QoS."""


class InboundModel(RuleBasedStateMachine):
    broker: PaperBroker | None = None

    @initialize(
        protocol=st.sampled_from([4, 5]),
        has_sink=st.sampled_from([False, False, True]),
        is_versioned=st.sampled_from([True, True, True, False]),
        subscribers=st.sampled_from(list(SUBSCRIBERS)),
        durable=st.booleans(),
        journaled=st.sampled_from([False, False, True]),
        max_undone=st.sampled_from([3, 1000, 1000]),
        max_inflight=st.sampled_from([2, 1000, 1000]),
        steps=st.sampled_from([3, 4000]),
    )
    def begin(
        self,
        *,
        protocol: int,
        has_sink: bool,
        is_versioned: bool,
        subscribers: str,
        durable: bool,
        journaled: bool,
        max_undone: int,
        max_inflight: int,
        steps: int,
    ) -> None:
        logging.getLogger("broker.native.owing").disabled = True  # sinks break on purpose
        self.steps_before, reading._STEPS = reading._STEPS, steps
        self.protocol, self.durable, self.max_undone = protocol, durable, max_undone
        self.rules = ChangingRules()
        self.sink = PaperSink() if has_sink else None
        self.store = PaperStore() if journaled else None
        self.broker = PaperBroker(
            BrokerOptions(max_undone=max_undone, max_inflight=max_inflight, session_expiry_s=10_000),
            guard=self.rules if is_versioned else AskEachTime(self.rules),
            sink=self.sink,
            keeper=keeper(self.store) if self.store is not None else None,
        )
        self.others: list[tuple[PaperClient, int]] = []
        self.heard: list[list[tuple[int, int]]] = []
        """What each subscriber got: QoS and number."""
        for alike, qos in SUBSCRIBERS[subscribers]:
            other = self._connect(f"s{len(self.others)}", protocol if alike else 9 - protocol, kept=journaled)
            asked = [Subscription(topic_filter="t/#", qos=qos)]
            self.broker.send(other, Subscribe(packet_id=1, subscriptions=asked))
            self.others.append((other, qos))
            self.heard.append([])
        self.keeps_others = journaled and any(qos for _, qos in self.others)
        self.numbers = 0
        self.last_id = 250  # soon its high byte changes
        self.routed: list[Sent] = []
        """What went to subscribers and sink, in order."""
        self.times: Counter[int] = Counter()
        """How many times each message did."""
        self.known: dict[int, Sent] = {}
        """Messages of QoS 2 that the broker has and the client has not released, by packet identifier."""
        self.unacked: dict[int, Sent] = {}
        """What the client has to send again, by packet identifier."""
        self.to_release: dict[int, Sent] = {}
        self.pings = self.subscribes = 0
        self.connected = False
        self.come()

    def _connect(self, client_id: str, protocol: int, *, kept: bool) -> PaperClient:
        properties: Any = {"session_expiry_interval": 1000} if kept and protocol == 5 else {}
        return self.broker.client(protocol, client_id, clean_start=not kept, properties=properties)

    # --- the network

    @rule()
    @precondition(lambda self: self.broker is not None and not self.connected)
    def come(self) -> None:
        """Connect; what was not acknowledged is sent again, what was not released is released."""
        if self.store is not None and self.store.hold:
            self.commit()  # a CONNACK may wait for it
        self.client = self._connect("p", self.protocol, kept=self.durable)
        (connack,) = self.client.received()
        assert isinstance(connack, Connack)
        assert connack.reason == 0
        self.connected, self.stream = True, Stream()
        self.counted = self.broker.hub.counters.messages_received
        again, self.unacked = list(self.unacked.values()), {}
        if not connack.session_present:
            self.known.clear()
            self.to_release.clear()
            return
        for sent in again:
            self._send(sent, dup=True)
        for packet_id in self.to_release:
            self.stream.write(encode(Pubrel(packet_id=packet_id), self.protocol))

    @rule()
    @precondition(lambda self: self.connected)
    def lose(self) -> None:
        """The connection is gone, with what had not arrived."""
        self._look()
        self._gone()

    def _gone(self) -> None:
        self.broker.do(self.client.lose)
        self.connected, self.pings, self.subscribes = False, 0, 0

    @rule(
        cuts=st.lists(st.sampled_from([0, 0, 1, 2, 5, 60, 400]), min_size=1, max_size=8),
        way=st.sampled_from(["one turn", "turns", "frames"]),
    )
    @precondition(lambda self: self.connected and self.stream.waiting)
    def arrive(self, cuts: list[int], way: str) -> None:
        """Some reads; 0 stands for one packet. Frames of one read of a WebSocket come whether we read on or not."""
        if way != "turns":
            self.broker.do(lambda: self._read(cuts, frames=way == "frames"))
        else:
            for cut in cuts:
                self.broker.do(lambda: self._read([cut]))  # noqa: B023

    @rule()
    @precondition(lambda self: self.connected and self.stream.waiting)
    def arrive_at_once(self) -> None:
        self.broker.do(lambda: self._read([self.stream.waiting]))

    @rule()
    @precondition(lambda self: self.connected and self.stream.waiting)
    def arrive_one_by_one(self) -> None:
        """A packet a read, all in one turn of the loop."""
        self.broker.do(lambda: self._read([0] * 50))

    def _read(self, cuts: list[int], *, frames: bool = False) -> None:
        paused = self.client.transport.paused
        for cut in cuts:
            if (paused if frames else self.client.transport.paused) or self.client.gone:
                return
            if data := self.stream.take(cut):
                self.client.send_bytes(data)

    # --- the client

    @rule(
        topic=TOPIC,
        qos=st.sampled_from([0, 0, 1, 1, 2]),
        sizes=st.lists(SIZE, min_size=2, max_size=9),
        alike=st.booleans(),
        arrives=st.sampled_from(["later", "at once", "one by one"]),
    )
    @precondition(lambda self: self.connected)
    def publish(self, topic: str, qos: int, sizes: list[int], alike: bool, arrives: str) -> None:
        for size in sizes:
            self._publish(topic, qos, sizes[0] if alike else size)
        if arrives == "at once":
            self.arrive_at_once()
        elif arrives == "one by one":
            self.arrive_one_by_one()

    @rule(topic=TOPIC, qos=st.integers(0, 2), retain=st.booleans())
    @precondition(lambda self: self.connected)
    def publish_what_is_not_plain(self, topic: str, qos: int, retain: bool) -> None:
        rich = self.protocol == 5
        self._publish(topic, qos, 4, retain=retain or not rich, rich=rich)

    def _publish(self, topic: str, qos: int, size: int, **more: bool) -> None:
        under_way = {*self.unacked, *self.to_release}
        if qos and len(under_way) >= self.max_undone:
            return
        self.numbers += 1
        packet_id = None
        while qos and (packet_id is None or packet_id in under_way):
            self.last_id = packet_id = self.last_id % 0xFFFF + 1
        self._send(Sent(self.numbers, topic, qos, size, packet_id, **more))

    def _send(self, sent: Sent, *, dup: bool = False) -> None:
        if sent.packet_id is not None:
            self.unacked[sent.packet_id] = sent
        self.stream.write(sent.encode(self.protocol, dup=dup), sent)

    @rule(many=st.integers(1, 9))
    @precondition(lambda self: self.connected and self.to_release)
    def release(self, many: int) -> None:
        for packet_id in list(self.to_release)[:many]:
            self.stream.write(encode(Pubrel(packet_id=packet_id), self.protocol))

    @rule()
    @precondition(lambda self: self.connected)
    def ping(self) -> None:
        self.stream.write(PINGREQ)
        self.pings += 1

    @rule()
    @precondition(lambda self: self.connected)
    def subscribe(self) -> None:
        """For which the Guard is asked: what comes behind it waits."""
        asked = [Subscription(topic_filter="elsewhere", qos=1)]
        self.stream.write(encode(Subscribe(packet_id=9, subscriptions=asked), self.protocol))
        self.subscribes += 1

    # --- guard, sink and disk

    @rule()
    @precondition(lambda self: self.broker is not None)
    def change_rules(self) -> None:
        self.rules.change()

    @rule(mood=st.sampled_from(["late", "late", "prompt", "breaks"]))
    @precondition(lambda self: self.broker is not None and self.sink is not None)
    def change_mood(self, mood: str) -> None:
        self.sink.mood = mood

    @rule(which=st.integers(0, 5), codes=CODES)
    @precondition(lambda self: self.broker is not None and self.sink is not None and self.sink.waiting)
    def sink_answers(self, which: int, codes: list[ReasonCode]) -> None:
        self.broker.do(lambda: self.sink.answer(which, codes))

    @rule()
    @precondition(lambda self: self.broker is not None and self.store is not None and not self.store.hold)
    def disk_is_slow(self) -> None:
        self.store.hold = True

    @rule()
    @precondition(lambda self: self.broker is not None and self.store is not None and self.store.hold)
    def commit(self) -> None:
        self.broker.do(self.store.commit)
        for sent in self.routed:
            sent.unsafe = False

    # --- what holds

    @invariant()
    def holds(self) -> None:
        if self.broker is None:
            return
        if self.connected:
            self._look()
        self._hear_subscribers()
        if self.sink is not None:
            assert [offer.number for offer in self.sink.offers] == [sent.number for sent in self.routed]

    def _look(self) -> None:
        """See what the broker has acted on, and hear what it says."""
        connection = self.client.connection
        held = self.store is not None and self.store.hold
        for _ in range(1000):
            waited = not connection.blocked & (Block.TURN if held else Block.TURN | Block.GUARD)
            self.broker.turn(3)
            if waited:
                break
        stream, counters = self.stream, self.broker.hub.counters
        parsed = counters.messages_received - self.counted
        assert parsed <= stream.whole()
        for sent in stream.sent[stream.parsed : parsed]:
            self._acted_on(sent)
        stream.parsed = parsed
        for packet in self.client.received():
            self._hear(packet)
        if self.client.gone:
            self._check_why()
            self._gone()
            return
        waits = held or bool(self.sink is not None and self.sink.waiting)
        if not self.client.transport.paused:
            assert parsed == stream.whole(), "a message that arrived was left lying"
        if not waits:
            assert not self.client.transport.paused, f"held back for nothing: {connection.blocked!r}"
            assert not stream.owed, "an acknowledgement is missing"
            if not stream.waiting:
                assert (self.pings, self.subscribes) == (0, 0)
        if self.sink is not None:
            assert connection.owing.undone <= self.max_undone

    def _acted_on(self, sent: Sent) -> None:
        """The broker has come to this message."""
        if sent.qos:
            self.stream.owed.append(sent)
        if sent.qos == 2 and self.known.get(sent.packet_id or 0) is sent:
            refused = self.sink is not None and any((offer.code or 0) >= 0x80 for offer in self.sink.of(sent.number))
            if not refused:
                return
            if len(self.sink.of(sent.number)) == self.times[sent.number]:
                sent.is_allowed = sent.topic not in self.rules.denied  # either it is refused by now, or will be soon
                return
        sent.is_allowed = sent.topic not in self.rules.denied
        if not sent.is_allowed:
            return
        if sent.qos == 2:
            self.known[sent.packet_id or 0] = sent
        self.routed.append(sent)
        self.times[sent.number] += 1
        if self.store is not None and self.store.hold:
            sent.unsafe = bool(sent.qos and self.keeps_others) or (sent.qos == 2 and self.durable)

    def _hear(self, packet: Packet) -> None:
        if isinstance(packet, Puback | Pubrec):
            self._acknowledged(packet)
        elif isinstance(packet, Pubcomp):
            self.to_release.pop(packet.packet_id, None)
            self.known.pop(packet.packet_id, None)
        elif isinstance(packet, Suback):
            self.subscribes -= 1
        elif isinstance(packet, Pingresp):
            self.pings -= 1
        else:
            assert not isinstance(packet, Disconnect), f"sent away: {packet}"
            raise AssertionError(packet)

    def _acknowledged(self, packet: Puback | Pubrec) -> None:
        assert self.stream.owed, f"nobody asked for {packet}"
        sent = self.stream.owed.popleft()
        assert (packet.packet_id, isinstance(packet, Pubrec)) == (sent.packet_id, sent.qos == 2), "out of order"
        assert not sent.unsafe, "acknowledged, and not on disk"
        code = ReasonCode.SUCCESS
        if not sent.is_allowed:
            code = ReasonCode.NOT_AUTHORIZED
        elif self.sink is not None:
            said = self.sink.of(sent.number)[-1].code
            assert said is not None, "acknowledged before the sink has taken it"
            assert self.protocol == 5 or not closes_old_clients(said)
            code = said
        if self.protocol == 5:
            assert (packet.reason >= 0x80) == code.is_error
        del self.unacked[packet.packet_id]
        if packet.reason >= 0x80:
            self.known.pop(packet.packet_id, None)
        elif sent.qos == 2:
            self.to_release[packet.packet_id] = sent

    def _check_why(self) -> None:
        """The broker has closed the connection: only for what it cannot say before MQTT 5."""
        assert self.protocol == 4, "closed for nothing"
        assert self.stream.owed, "closed for nothing"
        assert self.sink is not None
        assert closes_old_clients(self.sink.of(self.stream.owed[0].number)[-1].code)

    def _hear_subscribers(self) -> None:
        for place, (other, _) in enumerate(self.others):
            assert not other.gone
            while packets := other.received():
                answers: list[Packet] = []
                for packet in packets:
                    if isinstance(packet, Publish):
                        self.heard[place].append((packet.qos, number_of(packet.payload)))
                        kind = {1: Puback, 2: Pubrec}.get(packet.qos)
                        if kind is not None:
                            answers.append(kind(packet_id=packet.packet_id or 0))
                    elif isinstance(packet, Pubrel):
                        answers.append(Pubcomp(packet_id=packet.packet_id))
                self.broker.do(lambda: other.send(*answers))  # noqa: B023
        if self.store is not None and self.store.hold:
            return
        for (_, granted), heard in zip(self.others, self.heard, strict=True):
            for qos in range(granted + 1):
                expected = [sent.number for sent in self.routed if min(sent.qos, granted) == qos]
                assert [number for of, number in heard if of == qos] == expected

    def teardown(self) -> None:
        """In the end everything is acknowledged."""
        if self.broker is None:
            return
        try:
            if sys.exception() is None:
                self._finish()
        finally:
            self.broker.close()
            reading._STEPS = self.steps_before
            logging.getLogger("broker.native.owing").disabled = False

    def _finish(self) -> None:
        if self.store is not None and self.store.hold:
            self.commit()
        if self.sink is not None:
            self.sink.mood = "prompt"
            while self.sink.waiting:
                self.sink_answers(0, [])
        self.holds()
        if not self.connected:
            self.come()
        for _ in range(2 * self.numbers + 2):
            if self.stream.waiting:
                self.arrive_at_once()
            self.holds()
            if self.to_release:
                self.release(9)
        assert (self.unacked, self.to_release, self.stream.waiting) == ({}, {}, 0)


SHORT_WAYS = ("lone", "lone and taken", "runs of any size", "runs of QoS 1", "made to give way")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many times each short way through the hot path was taken."""
    counts: Counter[str] = Counter()
    lone, extended, run = reading.Reader.lone, reading._extended, reading.Reader._qos_1_run

    def counted_lone(self: reading.Reader, data: bytes) -> bool:
        was = lone(self, data)
        counts["lone"] += 1
        counts["lone and taken"] += was
        return was

    def counted_extended(*args: Any, **named: Any) -> tuple[int, int]:
        offset, count = extended(*args, **named)
        counts["runs of any size"] += count > 0
        return offset, count

    def counted_run(*args: Any) -> int:
        end = run(*args)
        counts["runs of QoS 1"] += end > 0
        return end

    def counted_give_way(self: Any) -> None:
        counts["made to give way"] += 1
        give_way(self)

    give_way = Connection.give_way
    monkeypatch.setattr(reading.Reader, "lone", counted_lone)
    monkeypatch.setattr(reading, "_extended", counted_extended)
    monkeypatch.setattr(reading.Reader, "_qos_1_run", counted_run)
    monkeypatch.setattr(Connection, "give_way", counted_give_way)
    return counts


def test_what_a_publisher_is_promised_holds_on_every_way_through_the_hot_path(taken: Counter[str]) -> None:
    run_state_machine_as_test(InboundModel, settings=bounded(400, 40))
    assert all(taken[way] >= 10 for way in SHORT_WAYS), taken

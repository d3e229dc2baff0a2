"""The session of one subscriber against what MQTT promises it, whatever its client, its network and the disk do.

The client here behaves as MQTT says: its half of QoS 2 outlives its connections, its acknowledgements may be late, in
another order, come twice or get lost. Two such clients are also the members of a shared subscription. The journal
forgets in a crash what it has not called safe yet; then publishers that have no acknowledgement send again.
"""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.native.counters import Counters
from broker.native.message import Delivery, Grant, Message, RichMessage, head_of, wire_topic
from broker.native.options import BrokerOptions
from broker.native.queue import Shared
from broker.native.session import Session
from broker.native.shared import SharedGroup
from broker.packets import MalformedPacket
from tests.broker.paper import PaperJournal, bounded
from tests.broker.subscribing import BIG, LIMIT, TOPICS, Ledger, Subscriber, number_of

PLACE = st.integers(0, 1)
TOPIC = st.sampled_from(TOPICS)
SIZE = st.sampled_from([5, 5, 5, 30, BIG])


class SessionModel(RuleBasedStateMachine):
    subscribers: list[Subscriber] | None = None

    @initialize(
        protocol=st.sampled_from([4, 5]),
        journaled=st.booleans(),
        group_qos=st.integers(1, 2),
        options=st.fixed_dictionaries(
            {
                "max_inflight": st.integers(1, 4),
                "max_queued": st.integers(1, 5),
                "max_queued_bytes": st.sampled_from([60, 250, 10_000]),
                "max_queued_bytes_in_all": st.sampled_from([100, 10_000]),
                "queue_full": st.sampled_from(["drop_oldest", "drop_newest", "disconnect"]),
            }
        ),
    )
    def begin(self, *, protocol: int, journaled: bool, group_qos: int, options: dict[str, Any]) -> None:
        self.options = BrokerOptions(**options)
        self.journal = PaperJournal() if journaled else None
        self.group_qos = group_qos
        self.ledger = Ledger()
        self.unsafe: list[tuple[int, Callable[[], None]]] = []
        """Messages not acknowledged to their publishers, with what would publish them again."""
        self.again: list[tuple[int, Callable[[], None]]] = []
        """Those of before a crash."""
        self.after_crash = False
        self.subscribers = [Subscriber(name, protocol, self.ledger) for name in ("a", "b")]
        self._start()

    def _start(self) -> None:
        self.counters = Counters()
        self.shared = Shared(self.options, self.counters, [])
        if self.journal is not None:
            self.journal.proceeding = lambda session, seq: session.proceed(seq, self.ledger.now)
        self.group = SharedGroup("g", "t/#")
        for subscriber in self.subscribers:
            self._new_session(subscriber)

    def _new_session(self, subscriber: Subscriber) -> None:
        session = subscriber.session = Session(subscriber.client_id, "", self.shared, self.journal)
        session.protocol, session.mqtt5 = subscriber.protocol, subscriber.protocol == 5
        session.expiry_s = 3600
        self.group.join(session, Grant(self.group_qos, group=self.group))

    def _one(self, place: int, fits: Callable[[Subscriber], object]) -> Subscriber:
        """The one at that place, or else another one that fits."""
        first = self.subscribers[place]
        return first if fits(first) else next(filter(fits, self.subscribers))

    # --- publishing

    @rule(
        place=PLACE,
        qos=st.integers(0, 2),
        granted=st.sampled_from([0, 1, 1, 2, 2, 2]),
        topic=TOPIC,
        size=SIZE,
        lives_s=st.sampled_from([None, None, None, 5, 50]),
        rich=st.booleans(),
    )
    def publish(
        self, place: int, qos: int, granted: int, topic: str, size: int, lives_s: int | None, rich: bool
    ) -> None:
        """To one of the clients."""
        message = self.ledger.message(qos, topic, size, lives_s)
        grant = Grant(granted, identifiers=b"\x0b\x07" if rich and self.subscribers[0].protocol == 5 else b"")
        self._publish_to(self.subscribers[place], message, grant)

    @rule(topic=TOPIC, qos=st.integers(0, 2), size=SIZE, many=st.integers(1, 3))
    def publish_shared(self, topic: str, qos: int, size: int, many: int) -> None:
        """To one of the two, whichever the group takes."""
        for _ in range(many):
            message = self.ledger.message(qos, topic, size, None)
            self.ledger.shared.add(number_of(message.payload))
            self._publish_to_group(message)

    @rule(place=PLACE, topic=TOPIC, size=st.sampled_from([5, 30]), many=st.integers(2, 4))
    @precondition(lambda self: any(each.session.run_room() > 1 for each in self.subscribers))
    def publish_run(self, place: int, topic: str, size: int, many: int) -> None:
        """Messages of QoS 1 in one piece."""
        subscriber = self._one(place, lambda each: each.session.run_room() > 1)
        session, wire = subscriber.session, wire_topic(topic)
        many = min(many, session.run_room())
        messages = [self.ledger.message(1, topic, size, None) for _ in range(many)]
        numbers = [number_of(message.payload) for message in messages]
        middle = b"\0" if session.mqtt5 else b""
        packets = [
            head_of(0x32, wire, len(middle) + size) + number.to_bytes(2, "big") + middle + message.payload
            for number, message in zip(numbers, messages, strict=True)
        ]
        for message in messages:
            self._published(message, lambda: None)
        span = len(packets[0])
        session.deliver_run(b"".join(packets), span, span - size - len(middle) - 2, many, len(wire))
        assert self._collect(subscriber) == set(numbers)
        self.ledger.owed.update(numbers)

    @rule()
    @precondition(lambda self: self.again)
    def publish_again(self) -> None:
        """A publisher that is without an acknowledgement since the crash."""
        number, again = self.again.pop(0)
        if not self.ledger.is_expired(number):
            again()

    def _publish_to(self, subscriber: Subscriber, message: Message, grant: Grant) -> None:
        session, number, qos = subscriber.session, number_of(message.payload), min(message.qos, grant.qos)
        self._published(message, lambda: self._publish_to(subscriber, _fresh(message), grant))
        before, queue = subscriber.waiting(), [each.size for each in session._queue]
        dropped = self.counters.dropped_queue
        free = self._is_free(subscriber, qos)
        too_large = self._is_too_large(subscriber, message)
        session.deliver(message, grant, self.ledger.now)
        after = subscriber.waiting()
        sent = number in self._collect(subscriber)
        if not qos:
            assert after == before
            assert sent == (subscriber.connected and not session.congested and not too_large)
            return
        if free:
            assert after == before + [number] * (not too_large), "not sent though it could be"
            assert sent != too_large
        else:
            assert not sent
            self._check_queue(session, before, after, queue, message, self.counters.dropped_queue - dropped)
        self.ledger.owed.difference_update(before)
        self.ledger.owed.update(after)
        self._overflow()

    def _is_free(self, subscriber: Subscriber, qos: int) -> bool:
        """Whether a delivery need not wait."""
        session = subscriber.session
        return (
            subscriber.connected
            and not session.congested
            and not session.queued
            and len(session.inflight) + len(session.released) < subscriber.window
            and sum(each.size for each in session.inflight.values()) < self.options.max_queued_bytes
            and not (qos == 2 and self.journal is not None)
        )

    def _is_too_large(self, subscriber: Subscriber, message: Message) -> bool:
        too_large = subscriber.connected and subscriber.limit > 0 and message.size >= BIG
        if too_large:
            self.ledger.large.add(number_of(message.payload))
        return too_large

    def _check_queue(
        self, session: Session, before: list[int], after: list[int], queue: list[int], message: Message, dropped: int
    ) -> None:
        """What gave way is what the policy says, and no more than needed."""
        number, options = number_of(message.payload), self.options
        if dropped == 0:
            assert after == [*before, number]
        elif options.queue_full == "drop_oldest" and number in after:
            flying = len(before) - len(queue)
            assert after == [*before[:flying], *before[flying + dropped :], number], "not the oldest gave way"
            one_less = queue[dropped - 1 :]
            others = self.shared.queued_bytes - session.queued_bytes
            assert (
                len(one_less) >= options.max_queued
                or sum(one_less) + message.size > options.max_queued_bytes
                or others + sum(one_less) + message.size > options.max_queued_bytes_in_all
            ), "more gave way than needed"
        else:
            assert after == before, "others gave way to what was dropped nevertheless"
            assert dropped == 1
            assert session.overflowed == (options.queue_full == "disconnect")

    def _publish_to_group(self, message: Message) -> None:
        number, qos = number_of(message.payload), min(message.qos, self.group_qos)
        self._published(message, lambda: self._publish_to_group(_fresh(message)))
        before = [subscriber.waiting() for subscriber in self.subscribers]
        dropped = self.counters.dropped_queue + self.counters.dropped_large
        free = [self._is_free(each, qos) for each in self.subscribers]
        for subscriber in self.subscribers:
            self._is_too_large(subscriber, message)
        self.group.deliver(message, self.ledger.now)
        after = [subscriber.waiting() for subscriber in self.subscribers]
        sent = sum([number in self._collect(subscriber) for subscriber in self.subscribers])
        dropped = self.counters.dropped_queue + self.counters.dropped_large - dropped
        for old, new in zip(before, after, strict=True):
            self.ledger.owed.difference_update(old)
            self.ledger.owed.update(new)
        assert sent <= 1
        if qos:
            takers = sum(number in each for each in after)
            assert takers <= 1
            assert takers or dropped, "dropped, and not counted"
            assert sent or dropped or not any(free)
        elif not dropped:
            assert sent == any(each.connected and not each.session.congested for each in self.subscribers)
        self._overflow()

    def _published(self, message: Message, again: Callable[[], None]) -> None:
        self.ledger.published(number_of(message.payload))
        if self.journal is not None and message.qos:
            entry = (number_of(message.payload), again)
            self.unsafe.append(entry)
            self.journal.turns[-1][1].append(lambda: self.unsafe.remove(entry))

    def _overflow(self) -> None:
        """What the hub does with a session whose queue is full, when the policy is to end it."""
        for subscriber in self.subscribers:
            session = subscriber.session
            if not session.overflowed:
                continue
            assert session in self.shared.dirty, "nobody knows that it is to end"
            if subscriber.connected:
                self._lose(subscriber)
            self.ledger.owed.difference_update(subscriber.waiting())
            self.group.leave(session)
            session.end()
            if self.journal is not None:
                self.journal.commit_all()
                self.journal.forget(session.client_id)
            subscriber.held.clear()
            self._new_session(subscriber)

    # --- the network

    @rule(place=PLACE, window=st.integers(1, 5), aliases=st.sampled_from([0, 2]), small=st.booleans())
    def come(self, place: int, window: int, aliases: int, small: bool) -> None:
        """A client connects, also where it is connected."""
        subscriber = self.subscribers[place]
        if subscriber.connected:
            self._lose(subscriber)
        if subscriber.protocol == 5:
            self._come(subscriber, window, aliases, LIMIT if small else 0)
        else:
            self._come(subscriber, 0xFFFF, 0, 0)

    def _come(self, subscriber: Subscriber, window: int, aliases: int, limit: int) -> None:
        subscriber.attach(min(window, self.options.max_inflight), aliases, limit)
        self._collect(subscriber)

    @rule(place=PLACE)
    @precondition(lambda self: any(each.connected for each in self.subscribers))
    def go(self, place: int) -> None:
        """A connection is lost, with what was on its way."""
        self._lose(self._one(place, lambda each: each.connected))

    def _lose(self, subscriber: Subscriber) -> None:
        self._collect(subscriber)
        subscriber.inbox, subscriber.acks = [], []
        subscriber.session.detach()
        before = subscriber.waiting()
        subscriber.session.hand_back(self.ledger.now)
        for number in set(before) - set(subscriber.waiting()):
            assert number in self.ledger.shared
            self.ledger.known_sent.discard((subscriber.client_id, number))  # it may be back, as another delivery
        for other in self.subscribers:
            self._collect(other)

    @rule(place=PLACE)
    @precondition(lambda self: any(each.connected for each in self.subscribers))
    def congest(self, place: int) -> None:
        """The network takes nothing more, or something again."""
        subscriber = self._one(place, lambda each: each.connected)
        subscriber.session.congested = not subscriber.session.congested
        self._pump(subscriber)

    def _pump(self, subscriber: Subscriber) -> None:
        subscriber.session.pump(self.ledger.now)
        self._collect(subscriber)

    def _collect(self, subscriber: Subscriber) -> set[int]:
        """Take what the session has to say, and put it on its way. The messages in it."""
        session, dirty = subscriber.session, self.shared.dirty
        if not session.out:
            return set()
        assert session in dirty, "nobody knows that it has something to send"
        data = b"".join(session.out)
        session.out.clear()
        dirty[:] = [each for each in dirty if each is not session or each.overflowed]
        return subscriber.arrives(data)

    # --- the clients

    @rule(place=PLACE, many=st.sampled_from([1, 2, 9]))
    @precondition(lambda self: any(each.inbox for each in self.subscribers))
    def read(self, place: int, many: int) -> None:
        subscriber = self._one(place, lambda each: each.inbox)
        for _ in range(min(many, len(subscriber.inbox))):
            subscriber.read()

    @rule(place=PLACE, which=st.integers(0, 5), refuse=st.integers(0, 5))
    @precondition(lambda self: any(each.acks for each in self.subscribers))
    def acknowledge(self, place: int, which: int, refuse: int) -> None:
        """In any order."""
        subscriber = self._one(place, lambda each: each.acks)
        self._acknowledge(subscriber, which % len(subscriber.acks), refuse=refuse == 5)

    def _acknowledge(self, subscriber: Subscriber, which: int, *, refuse: bool = False) -> None:
        subscriber.acknowledge(which, refuse=refuse)
        self._collect(subscriber)
        if subscriber.session.queued:
            self._pump(subscriber)

    @rule(place=PLACE, kind=st.sampled_from(["puback", "pubrec", "pubcomp"]), packet_id=st.integers(1, 9))
    @precondition(lambda self: any(each.connected for each in self.subscribers))
    def acknowledge_needlessly(self, place: int, kind: str, packet_id: int) -> None:
        """Twice, or what was never sent; it changes nothing. For what is in flight the wrong kind is a fault."""
        subscriber = self._one(place, lambda each: each.connected)
        session = subscriber.session
        before = (list(session.inflight), list(session.released), session.queued)
        act = subscriber.acknowledge_needlessly(kind, packet_id)
        if act is not None and kind != "pubcomp" and packet_id in session.inflight:
            with pytest.raises(MalformedPacket):
                act()
        elif act is not None:
            act()
        if kind != "pubcomp":  # which sends what may go by now
            assert before == (list(session.inflight), list(session.released), session.queued)
        self._collect(subscriber)

    # --- the broker

    @rule(place=PLACE, topic=TOPIC)
    @precondition(lambda self: any(not each.connected and each.waiting() for each in self.subscribers))
    def lose_the_right(self, place: int, topic: str) -> None:
        """To a topic; it is noticed when a client comes back, so it has no connection."""
        subscriber = self._one(place, lambda each: not each.connected and each.waiting())
        before = subscriber.waiting()
        subscriber.session.drop_unwanted(lambda name: name == topic)
        assert all(each.message.topic_name != topic for each in subscriber.session.waiting())
        self.ledger.owed -= set(before) - set(subscriber.waiting())

    @rule(place=PLACE)
    @precondition(lambda self: not self.after_crash)
    def many_later(self, place: int) -> None:
        """So many messages later that the packet identifiers begin again."""
        self.subscribers[place].session._last_id = 0xFFFF

    @rule(seconds=st.sampled_from([1, 10, 60]))
    def wait(self, seconds: int) -> None:
        self.ledger.now += seconds

    @rule(turns=st.sampled_from([1, 2, 99]))
    @precondition(lambda self: self.journal is not None and len(self.journal.turns) > 1)
    def commit(self, turns: int) -> None:
        self.journal.commit(turns)
        for subscriber in self.subscribers:
            self._collect(subscriber)

    @rule()
    @precondition(lambda self: self.journal is not None)
    def crash(self) -> None:
        """What is not on disk was never there; who has no acknowledgement will send again."""
        ledger, self.after_crash = self.ledger, True
        self.journal = self.journal.after_crash()
        self._start()
        self.again += self.unsafe
        unsafe, self.unsafe = {number for number, _ in self.unsafe}, []
        ledger.emitted -= unsafe
        ledger.known_sent.clear()
        ledger.last.clear()
        restored = set()
        for subscriber in self.subscribers:
            subscriber.inbox, subscriber.acks = [], []
            for seq, (packet_id, old, sent) in self.journal.kept(subscriber.client_id):
                if old is None:
                    subscriber.session.restore_released(packet_id, seq)
                    continue
                number = number_of(old.message.payload)
                delivery = Delivery(_fresh(old.message), old.qos, identifiers=old.identifiers, seq=seq)
                subscriber.session.restore(packet_id, delivery, sent=sent)
                restored.add(number)
                if sent:
                    ledger.known_sent.add((subscriber.client_id, number))
                else:
                    ledger.emitted.discard(number)
        assert not restored & unsafe
        ledger.owed -= unsafe
        for number in ledger.owed - restored:
            assert ledger.reached[number] or ledger.is_excused(number), "lost in a crash"

    # --- what holds

    @invariant()
    def holds(self) -> None:
        if self.subscribers is None:
            return
        self.ledger.check_exactly_once()
        for subscriber in self.subscribers:
            session = subscriber.session
            queue = [delivery.size for delivery in session._queue]
            assert session.queued == len(queue) + len(session._again)
            assert session.queued_bytes == sum(queue)
            assert not subscriber.connected or session._inflight_bytes == sum(
                each.size for each in session.inflight.values()
            )
            busy = [*session.inflight, *session.released, *session._again, *(session._queue._ids or ())]
            assert len(busy) == len(set(busy)), "a packet identifier used twice at once"
            assert len(busy) == len(session.inflight) + len(session.released) + session.queued
            if not self.after_crash:  # what was in flight may be queued after one
                assert len(queue) <= self.options.max_queued
                assert sum(queue) <= self.options.max_queued_bytes
                assert len(session.inflight) <= self.options.max_inflight
        assert self.shared.queued_bytes == sum(each.session.queued_bytes for each in self.subscribers)
        assert self.shared.queued_bytes <= self.options.max_queued_bytes_in_all or self.after_crash
        if self.journal is not None:
            self.journal.end_turn()

    def teardown(self) -> None:
        """In the end everything arrives, and nothing is left."""
        if self.subscribers is None or sys.exception() is not None:
            return
        while self.again:
            self.publish_again()
        for subscriber in self.subscribers:
            subscriber.session.congested = False
            if not subscriber.connected:
                self._come(subscriber, 0xFFFF, 0, 0)
            self._pump(subscriber)
        while self._exchange():
            pass
        for subscriber in self.subscribers:
            session = subscriber.session
            assert session.queued == len(session.inflight) == len(session.released) == 0, "stuck"
            assert session.queued_bytes == session._inflight_bytes == 0
            # What was sent and not known to be is dropped like all else; its identifier is far from being used again
            assert not subscriber.held or self.after_crash
        assert self.shared.queued_bytes == 0
        assert self.journal is None or not self.journal.disk
        for number in self.ledger.owed:
            assert self.ledger.reached[number] or self.ledger.is_excused(number), "never arrived"
        self.ledger.check_exactly_once()

    def _exchange(self) -> bool:
        """Let everybody read and answer; whether there was anything."""
        if self.journal is not None:
            self.journal.commit_all()
        busy = False
        for subscriber in self.subscribers:
            self._collect(subscriber)
            while subscriber.inbox or subscriber.acks:
                busy = True
                while subscriber.inbox:
                    subscriber.read()
                while subscriber.acks:
                    self._acknowledge(subscriber, 0)
        return busy


def _fresh(message: Message) -> Message:
    """The same message in another packet."""
    if message.expires_at is None:
        return Message(message.topic, message.payload, message.qos)
    return RichMessage(message.topic, message.payload, message.qos, expires_at=message.expires_at)


TestSessionModel = SessionModel.TestCase
TestSessionModel.settings = bounded(300, 40)

"""Shared subscriptions: each message once, to whoever can take it, in turn."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.native.counters import Counters
from broker.native.message import Grant, Message
from broker.native.options import BrokerOptions
from broker.native.queue import Shared
from broker.native.session import Session
from broker.native.shared import SharedGroup, split_shared

NOW = 0.0


class Group:
    """A group and its members, all connected at first."""

    def __init__(self, members: int, *, qos: int = 1, **options: Any) -> None:
        self.counters = Counters()
        self.shared = Shared(BrokerOptions(**{"max_inflight": 2, "max_queued": 2, **options}), self.counters, [])
        self.group = SharedGroup("g", "a")
        self.members = [Session(str(number), "", self.shared) for number in range(members)]
        for session in self.members:
            connect(session)
            self.group.join(session, Grant(qos, group=self.group))

    def publish(self, qos: int = 1) -> bool:
        return self.group.deliver(message(qos), NOW)

    def taken(self) -> list[int]:
        """How many messages each one has, sent or queued, of QoS 1 and 2."""
        return [len(session.inflight) + session.queued for session in self.members]


def connect(session: Session) -> None:
    connection: Any = object()
    session.attach(connection, window=100, alias_maximum=0, maximum_packet_size=0)
    session.resume(NOW)


def message(qos: int = 1) -> Message:
    return Message(b"\0\1a", b"x", qos)


@given(st.integers(1, 6), st.integers(0, 40))
def test_members_that_can_take_it_take_turns(members: int, messages: int) -> None:
    group = Group(members, max_inflight=100)
    assert all(group.publish() for _ in range(messages))
    assert max(group.taken()) - min(group.taken()) <= 1
    assert sum(group.taken()) == messages


@given(st.lists(st.sampled_from(["join", "leave", "publish", "publish", "publish"]), max_size=60), st.data())
def test_turns_stay_fair_as_members_come_and_go(steps: list[str], data: st.DataObject) -> None:
    group = Group(2, max_inflight=100)
    since: Counter[Session] = Counter()
    for step in steps:
        members = group.group.members
        if step == "join":
            session = Session(f"n{len(since)}", "", group.shared)
            connect(session)
            group.group.join(session, Grant(1))
            since.clear()
        elif step == "leave" and members:
            group.group.leave(data.draw(st.sampled_from(members)))
            since.clear()
        elif step == "publish" and members:
            before = {session: len(session.inflight) for session in members}
            assert group.publish()
            (taker,) = [session for session in members if len(session.inflight) > before[session]]
            since[taker] += 1
            counts = [since[session] for session in members]
            assert max(counts) - min(counts) <= 1


def test_a_full_member_is_passed_over() -> None:
    group = Group(2)
    group.members[0].window = 0
    assert [group.publish() for _ in range(2)] == [True, True]
    assert group.taken() == [0, 2]


def test_an_absent_member_is_passed_over_even_for_a_queue() -> None:
    group = Group(2)
    group.members[0].detach()
    for _ in range(4):  # two in flight, two queued
        group.publish()
    assert group.taken() == [0, 4]
    group.publish()
    assert group.taken() == [1, 4]


def test_where_all_are_full_the_queue_says_what_gives_way_and_it_is_counted() -> None:
    group = Group(2, queue_full="drop_oldest")
    for session in group.members:
        session.detach()
    for _ in range(4):
        group.publish()
    oldest = [next(session.waiting()) for session in group.members]
    for _ in range(2):
        assert group.publish()
    assert group.counters.dropped_queue == 2
    assert group.taken() == [2, 2]
    assert all(first not in session.waiting() for first, session in zip(oldest, group.members, strict=True))


def test_a_message_of_qos_0_goes_to_whoever_is_there_however_full() -> None:
    group = Group(3)
    group.members[0].detach()
    for _ in range(8):
        group.publish()
    group.members[1].congested = True
    assert group.publish(0)
    assert [session.out and len(session.out) for session in group.members] == [None, 6, 9]


def test_a_message_of_qos_0_is_dropped_when_nobody_is_there() -> None:
    group = Group(2)
    for session in group.members:
        session.detach()
    assert not group.publish(0)
    assert group.taken() == [0, 0]


def test_a_grant_of_qos_0_counts_like_a_message_of_qos_0() -> None:
    group = Group(2, qos=0)
    group.members[0].detach()
    for _ in range(5):
        assert group.publish(2)
    assert group.taken() == [0, 0]


def test_nobody_is_left() -> None:
    group = Group(1)
    group.group.leave(group.members[0])
    group.group.leave(group.members[0])
    assert not group.publish()
    assert group.counters.dropped_queue == 0


def test_joining_again_replaces_the_grant_and_makes_nobody_twice_a_member() -> None:
    group = Group(2)
    group.group.join(group.members[0], Grant(2))
    assert len(group.group.members) == 2
    group.publish(2)
    assert [each.qos for each in group.members[0].waiting()] == [2]


def test_what_is_handed_back_goes_to_a_connected_member_only() -> None:
    group = Group(3)
    for session in group.members:
        group.publish()
        session.detach()
    group.publish()
    giver = group.members[0]
    giver.hand_back(NOW)
    assert group.taken() == [2, 1, 1] or sum(group.taken()) == 4
    connect(group.members[2])
    giver.hand_back(NOW)
    assert len(giver.inflight) + giver.queued == 0
    assert sum(group.taken()) == 4


def test_what_is_of_qos_2_and_sent_is_not_handed_back() -> None:
    group = Group(2, qos=2)
    group.members[1].detach()
    group.publish(2)
    connect(group.members[1])
    group.members[0].detach()
    group.members[0].hand_back(NOW)
    assert group.taken() == [1, 0]


@pytest.mark.parametrize(
    ("topic_filter", "parts"),
    [
        ("a/b", None),
        ("$SYS/a", None),
        ("$shared/g/a", None),
        ("$share/g/a", ("g", "a")),
        ("$share/g/a/#", ("g", "a/#")),
        ("$share/g//a", ("g", "/a")),
        ("$share/g", ("g", "")),
        ("$share/g/", ("g", "")),
        ("$share//a", ("", "a")),
        ("$share/", ("", "")),
        ("$share/g+/a", ("", "a")),
        ("$share/#/a", ("", "a")),
    ],
)
def test_split_shared(topic_filter: str, parts: tuple[str, str] | None) -> None:
    assert split_shared(topic_filter) == parts

"""Retained messages: the last one of each topic, within bounds that are counted exactly."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.native.message import Message, RichMessage, wire_topic
from broker.native.options import BrokerOptions
from broker.native.retained import Retained, RetainedMessages
from broker.topics import matches
from tests.broker.paper import bounded

NOW = 0.0
TOPICS = ["a", "a/b", "a/b/c", "b", "/", "$x/y"]
FILTERS = ["#", "+", "a/#", "a/+", "+/b", "+/+", "a", "$x/#", "$x/+", "a/b/c", "/+", "none"]


def retained(topic: str, payload: bytes = b"x", username: str = "", expires_at: float | None = None) -> Retained:
    message = RichMessage(wire_topic(topic), payload, 1, expires_at=expires_at, retain=True)
    return Retained(message, username, username)


class Journal:
    def __init__(self) -> None:
        self.disk: dict[str, Retained] = {}

    def put_retained(self, topic: str, retained: Retained) -> None:
        self.disk[topic] = retained

    def delete_retained(self, topic: str) -> None:
        del self.disk[topic]


def store(journal: Journal | None = None, **options: Any) -> RetainedMessages:
    return RetainedMessages(BrokerOptions(**options), journal)


STEP = st.tuples(
    st.sampled_from(TOPICS),
    st.sampled_from([b"", b"x", b"y" * 400]),
    st.sampled_from(["", "u", "v"]),
    st.sampled_from([None, None, 5.0]),
)


@given(
    st.lists(STEP, max_size=40),
    st.integers(1, 4),
    st.sampled_from([1600, 100_000]),
    st.integers(1, 3),
    st.sampled_from(FILTERS),
)
@bounded(200)
def test_it_is_as_a_dictionary_with_bounds(
    steps: list[tuple[str, bytes, str, float | None]],
    max_retained: int,
    max_bytes: int,
    per_username: int,
    topic_filter: str,
) -> None:
    journal = Journal()
    kept = store(
        journal, max_retained=max_retained, max_retained_bytes=max_bytes, max_retained_per_username=per_username
    )
    model: dict[str, Retained] = {}
    for topic, payload, username, expires_at in steps:
        new = retained(topic, payload, username, expires_at)
        if kept.keep(topic, new):
            if payload:
                model[topic] = new
            else:
                model.pop(topic, None)
        else:
            assert not topic.startswith("$")
            others = {name: each for name, each in model.items() if name != topic}
            ours = [each for each in others.values() if each.username == username]
            assert (
                len([name for name in others if not name.startswith("$")]) >= max_retained
                or kept.bytes + 500 + 4 * 250 + new.message.size > max_bytes
                or (username and len(ours) >= per_username)
            )
        assert dict(kept._kept) == model
        assert {name for name in model if not name.startswith("$")} == set(journal.disk)
        assert kept.counted == len(journal.disk) <= max_retained
        assert Counter(each.username for each in model.values()) == kept._per_username
        assert all(count <= per_username for name, count in _counted(model).items() if name)
        assert kept.bytes <= max_bytes or any(name.startswith("$") for name in model)
    found = {each.message.topic_name for each in kept.matching(topic_filter, 1.0)}
    assert found == {topic for topic in model if matches(topic_filter, topic)}
    for topic in list(model):
        kept.discard(topic)
    assert kept.bytes == kept.counted == len(kept) == 0
    assert not kept._per_username
    assert not kept._topics.match("#")


def _counted(model: dict[str, Retained]) -> Counter[str]:
    return Counter(each.username for name, each in model.items() if not name.startswith("$"))


def test_an_empty_message_clears_its_topic() -> None:
    kept = store()
    assert kept.keep("a", retained("a"))
    assert kept.keep("a", retained("a", b""))
    assert kept.keep("never/there", retained("never/there", b""))
    assert "a" not in kept
    assert len(kept) == kept.bytes == 0


def test_at_the_bound_what_is_there_can_be_replaced_and_cleared() -> None:
    kept = store(max_retained=1)
    assert kept.keep("a", retained("a"))
    assert not kept.keep("b", retained("b"))
    assert kept.keep("a", retained("a", b"y"))
    assert kept.keep("a", retained("a", b""))
    assert kept.keep("b", retained("b"))


def test_beyond_the_bytes_the_old_one_stays() -> None:
    kept = store(max_retained_bytes=900)
    assert kept.keep("a", retained("a", b"old"))
    assert not kept.keep("a", retained("a", b"n" * 900))
    (still,) = kept.matching("a", NOW)
    assert still.message.payload == b"old"


def test_each_user_name_has_a_bound_and_ours_have_none() -> None:
    kept = store(max_retained_per_username=2)
    for topic in ("a", "b"):
        assert kept.keep(topic, retained(topic, username="u"))
    assert not kept.keep("c", retained("c", username="u"))
    assert kept.keep("c", retained("c", username="v"))
    assert not kept.keep("c", retained("c", username="u")), "taking another one's topic counts too"
    assert kept.keep("b", retained("b", b"again", username="u"))
    assert kept.keep("a", retained("a", username="v")), "whose topic is taken over has room again"
    assert kept.keep("c", retained("c", b""))
    assert kept.keep("c", retained("c", username="u"))
    for number in range(5):
        assert kept.keep(f"ours/{number}", retained(f"ours/{number}"))


def test_topics_of_our_own_are_kept_beyond_every_bound_and_not_on_disk() -> None:
    journal = Journal()
    kept = store(journal, max_retained=1, max_retained_bytes=1000)
    assert kept.keep("a", retained("a"))
    for number in range(5):
        assert kept.keep(f"$SYS/{number}", retained(f"$SYS/{number}"))
    assert kept.counted == 1
    assert list(journal.disk) == ["a"]
    kept.discard("$SYS/1")
    assert kept.counted == 1


def test_an_expired_message_is_forgotten_when_somebody_asks() -> None:
    journal = Journal()
    kept = store(journal)
    kept.keep("a", retained("a", expires_at=10.0))
    kept.keep("b", retained("b"))
    assert {each.message.topic_name for each in kept.matching("#", 9.9)} == {"a", "b"}
    assert {each.message.topic_name for each in kept.matching("#", 10.0)} == {"b"}
    assert "a" not in kept
    assert list(journal.disk) == ["b"]


def test_what_is_restored_is_kept_beyond_the_bounds_and_not_written_again() -> None:
    journal = Journal()
    kept = store(journal, max_retained=1)
    for topic in ("a", "b"):
        assert kept.keep(topic, retained(topic), restored=True)
    assert len(kept) == 2
    assert not journal.disk


def test_looking_through_them_bears_changes() -> None:
    kept = store()
    for topic in ("a", "b", "c"):
        kept.keep(topic, retained(topic))
    found = []
    for each in kept.matching("#", NOW):
        found.append(each.message.topic_name)
        for topic in ("a", "b", "c"):
            kept.discard(topic)
    assert len(found) == 1


@pytest.mark.parametrize("topic_filter", ["#", "+/#", "a/#", "+"])
def test_a_plain_message_of_ours_is_as_good(topic_filter: str) -> None:
    kept = store()
    kept.keep("a", Retained(Message(wire_topic("a"), b"x", 0)))
    assert [each.username for each in kept.matching(topic_filter, NOW)] == [""]

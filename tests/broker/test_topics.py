"""Topics and filters: what is valid, what matches, and that the tree agrees with the definition."""

import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.topics import MAX_LENGTH, MAX_LEVELS, FilterTree, TopicTree, highest_qos, is_filter, is_topic, matches

MATCHING = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/#", "sport", True),
    ("#", "a/b/c", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("a/+/c", "a/b/c", True),
    ("a/b", "a/B", False),
    ("#", "$SYS/x", False),
    ("+/x", "$SYS/x", False),
    ("$SYS/#", "$SYS/x", True),
    ("sport/#", "other/sport", False),
]


@pytest.mark.parametrize(("topic_filter", "topic", "expected"), MATCHING)
def test_matching_follows_section_4_7(topic_filter: str, topic: str, expected: bool) -> None:
    tree: FilterTree[str, int] = FilterTree()
    tree.add(topic_filter, "someone", 1)
    assert matches(topic_filter, topic) is expected
    assert bool(tree.match(topic)) is expected


@pytest.mark.parametrize("text", ["", "a+", "+/a#", "a/#/b", "a#", "a/b+/c", "a\0", "a/" * MAX_LEVELS, "a" * 5000])
def test_an_invalid_filter_is_refused(text: str) -> None:
    assert not is_filter(text)


@pytest.mark.parametrize("text", ["a", "/", "#", "+", "+/+/#", "a//b", "$SYS/#", "ä/ö", "a" * MAX_LENGTH])
def test_a_valid_filter_is_accepted(text: str) -> None:
    assert is_filter(text)


@pytest.mark.parametrize("text", ["", "a/+", "#", "a\0b", "a/" * MAX_LEVELS])
def test_an_invalid_topic_is_refused(text: str) -> None:
    assert not is_topic(text)


def test_the_highest_qos_of_overlapping_filters_counts() -> None:
    tree: FilterTree[str, int] = FilterTree()
    tree.add("a/#", "x", 0)
    tree.add("a/+", "x", 2)
    tree.add("a/b", "x", 1)
    assert highest_qos(tree.match("a/b")) == {"x": 2}


def test_subscribing_again_replaces_the_qos() -> None:
    tree: FilterTree[str, int] = FilterTree()
    tree.add("a", "x", 2)
    tree.add("a", "x", 0)
    assert highest_qos(tree.match("a")) == {"x": 0}


def test_a_tree_without_subscriptions_is_empty_again() -> None:
    tree: FilterTree[str, int] = FilterTree()
    for topic_filter in ("a/b/c", "a/b", "a/#", "+/x"):
        tree.add(topic_filter, "x", 1)
    for topic_filter in ("a/b/c", "a/b", "a/#", "+/x", "never/there"):
        tree.discard(topic_filter, "x")
    assert len(tree) == 0
    assert not tree._root.children


def test_a_tree_of_topics_is_empty_again() -> None:
    tree = TopicTree()
    for topic in ("a", "a/b", "a/b/c", "$x"):
        tree.add(topic)
    for topic in ("a/b/c", "a", "a/b", "$x", "never/there"):
        tree.discard(topic)
    assert tree.match("#") == []
    assert not tree._root.children


_LEVEL = st.sampled_from(["a", "b", "", "$x"])
_TOPICS = st.lists(_LEVEL, min_size=1, max_size=5).map("/".join).filter(is_topic)
_MARKS = st.sampled_from(["a", "b", "", "$x", "+", "#"])
_FILTERS = st.lists(_MARKS, min_size=1, max_size=5).map("/".join).filter(is_filter)


@given(st.lists(_FILTERS, max_size=6), _TOPICS)
def test_the_tree_finds_what_matches_says(filters: list[str], topic: str) -> None:
    tree: FilterTree[str, int] = FilterTree()
    for topic_filter in filters:
        tree.add(topic_filter, topic_filter, 0)
    assert set(highest_qos(tree.match(topic))) == {each for each in filters if matches(each, topic)}


@given(_FILTERS, st.lists(_TOPICS, max_size=6))
def test_the_tree_of_topics_finds_what_matches_says(topic_filter: str, topics: list[str]) -> None:
    tree = TopicTree()
    for topic in topics:
        tree.add(topic)
    assert sorted(tree.match(topic_filter)) == sorted({each for each in topics if matches(topic_filter, each)})


def c_calls(work: Callable[[], object]) -> int:
    """How many functions written in C the work calls: look-ups in dictionaries, mostly. The same on every machine."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("levels", [10, 128, 2000])
def test_no_level_of_a_filter_is_looked_at_twice_however_many_wildcards_there_are(levels: int) -> None:
    """A topic of one letter again and again, and filters that all match it in their own way up to the last level."""
    chance = random.Random(levels)
    filters = ["/".join(chance.choices("+a", k=levels)) + chance.choice(("", "/#", "/b")) for _ in range(50)]
    tree = FilterTree[int, int]()
    for number, topic_filter in enumerate(filters):
        tree.add(topic_filter, number, 0)
    topic = "/".join("a" * levels)
    assert sorted(subscriber for found in tree.match(topic) for subscriber in found) == [
        number for number, topic_filter in enumerate(filters) if not topic_filter.endswith("/b")
    ]
    nodes = [tree._root]
    for node in nodes:
        nodes.extend(node.children.values())
    assert c_calls(lambda: tree.match(topic)) <= 6 * len(nodes)

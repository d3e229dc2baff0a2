"""The topic tree, a level at a time: what is counted where, pages, and how long a step is with many topics."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from broker.native import topic_tree
from broker.native.topic_tree import TopicLevel, TopicLevels, TopicLook


@dataclass
class Topic:
    name: str
    messages: int = 1


def look(
    prefix: str,
    topics: Sequence[Topic],
    retained: Sequence[str] = (),
    *,
    after: str | None = None,
    limit: int = 100,
    subscribers: Callable[[str], int] = len,
) -> TopicLevels:
    found = TopicLook(prefix, after=after, limit=limit)
    known = {topic.name for topic in topics}
    for _ in found.steps(topics, retained, is_counted=known.__contains__, subscribers=subscribers):
        pass
    return found.found()


def level(topic: str, **fields: int | None) -> TopicLevel:
    own = {"below": 0, "messages": 0, "retained": 0, "subscribers": len(topic), **fields}
    return TopicLevel(level=topic.rpartition("/")[2], topic=topic, **own)  # type: ignore[arg-type]


TOPICS = [Topic("d/b/x", 5), Topic("d/a/x/y", 1), Topic("d/a/x", 2), Topic("d/a", 3), Topic("e", 7)]


def test_the_root_sums_up_what_lies_below() -> None:
    assert look("", TOPICS, ["d/b/x", "d/a/x"]).items == [
        level("d", below=4, messages=11, retained=2, subscribers=None),
        level("e", messages=7),
    ]


def test_a_topic_with_topics_below_it_counts_with_them() -> None:
    assert look("d/", TOPICS, ["d/a"]).items == [
        level("d/a", below=2, messages=6, retained=1),
        level("d/b", below=1, messages=5, subscribers=None),
    ]


def test_a_prefix_may_end_within_a_level() -> None:
    topics = [Topic("d/pump-7/x"), Topic("d/pump-8"), Topic("d/tank")]
    assert look("d/pu", topics).items == [
        level("d/pump-7", below=1, messages=1, subscribers=None),
        level("d/pump-8", messages=1),
    ]
    assert look("d/pump-8", topics).items == [level("d/pump-8", messages=1)]
    assert look("d/pump-8/", topics) == TopicLevels(items=[], total=0, more=False)


def test_what_is_only_retained_is_a_topic_too_and_counted_once() -> None:
    assert look("d/", TOPICS, ["d/a", "d/a/z", "d/c"]).items == [
        level("d/a", below=3, messages=6, retained=2),
        level("d/b", below=1, messages=5, subscribers=None),
        level("d/c", retained=1),
    ]


def test_empty_levels_are_levels() -> None:
    topics = [Topic("/a"), Topic("a//b"), Topic("a/")]
    assert [(item.level, item.topic, item.below) for item in look("", topics).items] == [("", "", 1), ("a", "a", 2)]
    assert [(item.level, item.topic, item.below) for item in look("a/", topics).items] == [("", "a/", 1)]
    assert [item.topic for item in look("a//", topics).items] == ["a//b"]
    assert [item.topic for item in look("/", topics).items] == ["/a"]


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_together_are_the_whole_in_order(limit: int) -> None:
    topics = [Topic(f"{number}/x") for number in range(50)] + [Topic("/x")]
    random.Random(7).shuffle(topics)
    got: list[str] = []
    after: str | None = None
    while True:
        page = look("", topics, after=after, limit=limit)
        got += [item.level for item in page.items]
        assert page.total == 51
        if not page.more:
            break
        assert len(page.items) == limit
        after = page.items[-1].level
    assert got == sorted({topic.name.partition("/")[0] for topic in topics})


def test_no_step_is_long_however_many_topics_there_are() -> None:
    """Medians: another process may take the core from any one step."""
    topics = [Topic(f"devices/sim-{number:05d}/{name}") for number in range(12_500) for name in "abcd"]
    for prefix in ("", "devices/", "devices/sim-1"):
        found = TopicLook(prefix, after=None, limit=500)
        steps = found.steps(topics, [], is_counted=lambda name: True, subscribers=len)
        spent = []
        while True:
            began = time.thread_time()
            if next(steps, steps) is steps:
                break
            spent.append(time.thread_time() - began)
        assert len(spent) >= 50
        assert sorted(spent)[len(spent) // 2] < 0.005
        assert len(found.found().items) == min(500, found.found().total)


def test_steps_go_through_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_tree, "_STEP", 2)
    monkeypatch.setattr(topic_tree, "_COUNT_STEP", 1)
    assert look("", TOPICS, ["d/b/x", "f", "d/a/x"]).items == [
        level("d", below=4, messages=11, retained=2, subscribers=None),
        level("e", messages=7),
        level("f", retained=1),
    ]

"""Topic names, topic filters, and which filters match a topic (MQTT 3.1.1 section 4.7). No I/O, no clock.

Matching walks a tree of levels, never a regular expression, so its cost is bounded by the filters that exist.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

Subscriber = TypeVar("Subscriber")
Grant = TypeVar("Grant")

MAX_LEVELS = 128
MAX_LENGTH = 4096
"""In characters. The protocol allows 65,535 bytes; no topic of ours comes near 300, and every level costs a node."""


def is_topic(text: str) -> bool:
    """Whether `text` may be published to: not empty, no wildcard, no NUL, not too long or deep."""
    return bool(text) and not any(mark in text for mark in "+#\0") and _is_small(text)


def is_filter(text: str) -> bool:
    """Whether `text` may be subscribed to: wildcards fill a whole level, `#` only the last one."""
    if not text or "\0" in text or not _is_small(text):
        return False
    levels = text.split("/")
    # [MQTT-4.7.1-1] and [MQTT-4.7.1-2]
    return all(level in ("+", "#") or not ("+" in level or "#" in level) for level in levels) and "#" not in levels[:-1]


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a valid topic; a leading wildcard does not match `$` topics [MQTT-4.7.2-1]."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        given = given[: len(wanted)]  # "a/#" matches "a" too, as given is then as long as wanted
    return len(wanted) == len(given) and all(level in ("+", other) for level, other in zip(wanted, given, strict=True))


def _is_small(text: str) -> bool:
    return len(text) <= MAX_LENGTH and text.count("/") < MAX_LEVELS


class _Node(Generic[Subscriber, Grant]):
    __slots__ = ("children", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Subscriber, Grant]] = {}
        self.subscribers: dict[Subscriber, Grant] = {}


class FilterTree(Generic[Subscriber, Grant]):
    """Who subscribed to what: filters with their subscribers, and what was granted to each (a QoS, for one)."""

    def __init__(self) -> None:
        self._root: _Node[Subscriber, Grant] = _Node()
        self.looked = 0
        """At how many levels of filters `match` has looked in all: what it costs."""

    def add(self, topic_filter: str, subscriber: Subscriber, grant: Grant) -> None:
        """Subscribe, or replace the subscription that is there [MQTT-3.8.4-3]."""
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.subscribers[subscriber] = grant

    def discard(self, topic_filter: str, subscriber: Subscriber) -> None:
        """Take a subscription out, and the levels nobody needs any more."""
        path = [self._root]
        levels = topic_filter.split("/")
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        path[-1].subscribers.pop(subscriber, None)
        for level, parent, child in zip(reversed(levels), reversed(path[:-1]), reversed(path), strict=False):
            if child.subscribers or child.children:
                return
            del parent.children[level]

    def match(self, topic: str) -> list[dict[Subscriber, Grant]]:
        """The subscribers of each filter that matches the topic."""
        found: list[dict[Subscriber, Grant]] = []
        reserved = topic.startswith("$")
        here = [self._root]
        for depth, level in enumerate(topic.split("/")):
            self.looked += len(here)
            below = []
            for node in here:
                if depth or not reserved:  # [MQTT-4.7.2-1]
                    if (rest := node.children.get("#")) is not None:
                        found.append(rest.subscribers)
                    if (one := node.children.get("+")) is not None:
                        below.append(one)
                if (same := node.children.get(level)) is not None:  # [MQTT-4.7.3-4]
                    below.append(same)
            here = below
        for node in here:
            if node.subscribers:
                found.append(node.subscribers)
            if (rest := node.children.get("#")) is not None:  # "sport/#" matches "sport" too
                found.append(rest.subscribers)
        return found

    def __len__(self) -> int:
        """How many subscriptions there are; counted, for tests and figures."""
        count, nodes = 0, [self._root]
        while nodes:
            node = nodes.pop()
            count += len(node.subscribers)
            nodes.extend(node.children.values())
        return count


class _Branch:
    __slots__ = ("children", "topic")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
        self.topic: str | None = None


class TopicTree:
    """Which topics there are, to find those of a filter without looking at all of them."""

    def __init__(self) -> None:
        self._root = _Branch()

    def add(self, topic: str) -> None:
        branch = self._root
        for level in topic.split("/"):
            branch = branch.children.setdefault(level, _Branch())
        branch.topic = topic

    def discard(self, topic: str) -> None:
        path = [self._root]
        levels = topic.split("/")
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        path[-1].topic = None
        for level, parent, child in zip(reversed(levels), reversed(path[:-1]), reversed(path), strict=False):
            if child.topic is not None or child.children:
                return
            del parent.children[level]

    def match(self, topic_filter: str) -> list[str]:
        """The topics that a filter matches."""
        here = [self._root]
        for depth, level in enumerate(topic_filter.split("/")):
            if level == "#":
                return _topics_below(here, reserved=depth > 0)
            if level == "+":
                here = [
                    child
                    for branch in here
                    for name, child in branch.children.items()
                    if depth or not name.startswith("$")  # [MQTT-4.7.2-1]
                ]
            else:
                here = [branch.children[level] for branch in here if level in branch.children]
        return [branch.topic for branch in here if branch.topic is not None]


def _topics_below(branches: list[_Branch], *, reserved: bool) -> list[str]:
    """The topics of these branches and of all below; those beginning with $ only when `reserved`."""
    found, waiting = [], list(branches)
    while waiting:
        branch = waiting.pop()
        if branch.topic is not None and (reserved or not branch.topic.startswith("$")):
            found.append(branch.topic)
        waiting.extend(branch.children.values())
    return found


def highest_qos(found: Iterable[dict[Subscriber, int]]) -> dict[Subscriber, int]:
    """Each subscriber once, with the highest QoS among its matching filters."""
    highest: dict[Subscriber, int] = {}
    for subscribers in found:
        for subscriber, qos in subscribers.items():
            if highest.get(subscriber, -1) < qos:
                highest[subscriber] = qos
    return highest

"""Retained messages, bounded in number, bytes, and number per publisher (MQTT 5, section 3.3.1.3). No I/O, no clock."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from broker.native.message import Message
from broker.native.options import BrokerOptions
from broker.topics import TopicTree

_ENTRY_BYTES = 500
_SWEEP_EVERY_S = 1.0  # at a bound, for what has expired: 20,000 take 2 ms
_LEVEL_BYTES = 250
"""Estimates of what an entry and a level of its topic cost beside their text."""


@dataclass(slots=True)
class Retained:
    """A message and who published it: empty names for ours."""

    message: Message
    client_id: str = ""
    username: str = ""


class RetainedJournal(Protocol):
    """Keeps what outlives a crash."""

    def put_retained(self, topic: str, retained: Retained) -> None: ...

    def delete_retained(self, topic: str) -> None: ...


class RetainedMessages:
    """The last retained message of each topic."""

    def __init__(self, options: BrokerOptions, journal: RetainedJournal | None = None) -> None:
        self._options = options
        self._journal = journal
        self._kept: dict[str, Retained] = {}  # 3.1.1: [MQTT-3.1.2-7]
        self._topics = TopicTree()
        self._per_username: Counter[str] = Counter()
        self.bytes = 0
        self._swept_at = 0.0
        self.counted = 0
        """How many there are that count towards the bound: our own $ topics do not."""

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, topic: str) -> bool:
        return topic in self._kept

    def keep(self, topic: str, retained: Retained, now: float = 0.0, *, restored: bool = False) -> bool:
        """Keep it in place of the one there [MQTT-3.3.1-5]; an empty one clears its topic [MQTT-3.3.1-6].

        False when a bound was reached; then the one there stays. Messages of ours count only towards the whole.
        """
        if not retained.message.payload:  # [MQTT-3.3.1-7]
            self.discard(topic)
            return True
        options, owner = self._options, retained.username
        old = self._kept.get(topic)
        bytes_after = self.bytes + _cost(topic, retained) - (_cost(topic, old) if old is not None else 0)
        full = not topic.startswith("$") and (
            (old is None and self.counted >= options.max_retained)
            or bytes_after > options.max_retained_bytes
            or (
                owner != ""
                and (old is None or old.username != owner)
                and self._per_username[owner] >= options.max_retained_per_username
            )
        )
        if full and not restored:
            if now < self._swept_at + _SWEEP_EVERY_S:
                return False
            self._swept_at = now
            for expired in [name for name, kept in self._kept.items() if kept.message.is_expired(now)]:
                self.discard(expired)
            return self.keep(topic, retained, now)
        if old is None:
            self._topics.add(topic)
            self.counted += not topic.startswith("$")
        else:
            self._leave(old)
        self._kept[topic] = retained
        self._per_username[owner] += 1
        self.bytes = bytes_after
        if self._journal is not None and not restored and not topic.startswith("$"):
            self._journal.put_retained(topic, retained)
        return True

    def discard(self, topic: str) -> None:
        old = self._kept.pop(topic, None)
        if old is None:
            return
        self._leave(old)
        self._topics.discard(topic)
        self.counted -= not topic.startswith("$")
        self.bytes -= _cost(topic, old)
        if self._journal is not None and not topic.startswith("$"):
            self._journal.delete_retained(topic)

    def matching(self, topic_filter: str, now: float) -> Iterator[Retained]:
        """The retained messages of a filter, as of now; expired ones are forgotten on the way."""
        for topic in self._topics.match(topic_filter):
            kept = self._kept.get(topic)
            if kept is None:
                continue
            if kept.message.is_expired(now):
                self.discard(topic)
            else:
                yield kept

    def topics(self) -> Iterator[str]:
        return iter(self._kept)

    def _leave(self, old: Retained) -> None:
        self._per_username[old.username] -= 1
        if not self._per_username[old.username]:
            del self._per_username[old.username]


def _cost(topic: str, retained: Retained) -> int:
    return _ENTRY_BYTES + retained.message.size + _LEVEL_BYTES * (topic.count("/") + 1)

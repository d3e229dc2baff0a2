"""Retained messages, bounded in number, bytes, and number per publisher (MQTT 3.1.1 section 3.3.1.3). No I/O."""

from collections import Counter
from collections.abc import Iterator

from amqtt.broker import RetainedApplicationMessage

from broker.amqtt_engine.options import AmqttOptions
from broker.amqtt_engine.session import Outgoing
from broker.engine import Publish
from broker.topics import TopicTree


class Retained:
    """The last retained message of each topic, in amqtt's own table."""

    def __init__(self, table: dict[str, RetainedApplicationMessage], options: AmqttOptions) -> None:
        self._table = table
        self._options = options
        self._topics = TopicTree()
        self._owners: dict[str, str] = {}
        self._per_owner: Counter[str] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._table)

    def keep(self, message: Publish) -> bool:
        """Keep it, or clear its topic when it is empty [MQTT-3.3.1-10]; False when a bound was reached.

        Messages of ours (without a user name) count only towards the bounds of the whole.
        """
        topic, options, owner = message.topic, self._options, message.username
        size = len(topic) + len(message.payload)
        if message.payload:
            bytes_without = self._bytes - self._size_of(topic)
            is_new = topic not in self._table
            if (
                (is_new and len(self._table) >= options.max_retained)
                or bytes_without + size > options.max_retained_bytes
                or (
                    owner
                    and self._owners.get(topic) != owner
                    and self._per_owner[owner] >= options.max_retained_per_username
                )
            ):
                return False
        self._forget(topic)
        if message.payload:
            self._table[topic] = RetainedApplicationMessage(None, topic, message.payload, message.qos)
            self._topics.add(topic)
            self._owners[topic] = owner
            self._per_owner[owner] += 1
            self._bytes += size
        return True

    def matching(self, topic_filter: str) -> Iterator[tuple[Outgoing, int]]:
        """The retained messages of a filter with their QoS, as of now."""
        for topic in self._topics.match(topic_filter):
            if (kept := self._table.get(topic)) is not None:
                yield Outgoing(topic, bytes(kept.data), retain=True), kept.qos or 0

    def _size_of(self, topic: str) -> int:
        kept = self._table.get(topic)
        return len(topic) + len(kept.data) if kept is not None else 0

    def _forget(self, topic: str) -> None:
        if topic in self._table:
            self._bytes -= self._size_of(topic)
            del self._table[topic]
            self._topics.discard(topic)
            owner = self._owners.pop(topic)
            self._per_owner[owner] -= 1
            if not self._per_owner[owner]:
                del self._per_owner[owner]

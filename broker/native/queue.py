"""The deliveries of QoS 1 and 2 that wait for one session, in order and bounded. No I/O, no clock."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.native.counters import Counters
from broker.native.message import Delivery, Message
from broker.native.options import BrokerOptions

if TYPE_CHECKING:
    from broker.native.session import Session


@dataclass(slots=True)
class Shared:
    """What all sessions have in common."""

    options: BrokerOptions
    counters: Counters
    dirty: "list[Session]"
    queued_bytes: int = 0
    """Of the deliveries queued in all sessions."""
    queued_bytes_of: Counter[str] = field(default_factory=Counter)
    """The same of each user name; users with nothing queued are not in it."""


class DeliveryQueue:
    """Deliveries with the packet identifiers they will have."""

    __slots__ = ("_ids", "_items", "_shared", "_username", "bytes")

    def __init__(self, shared: Shared, username: str) -> None:
        """An empty user name is no user's: what clients without one have queued counts only towards the whole."""
        self._shared = shared
        self._username = username
        # Most sessions never queue anything: nothing is made before it is needed
        self._items: deque[tuple[int, Delivery]] | None = None
        self._ids: set[int] | None = None
        self.bytes = 0
        """Of the messages; 0 only when there are none, as every message has a topic."""

    def __len__(self) -> int:
        return len(self._items) if self._items else 0

    def __iter__(self) -> Iterator[Delivery]:
        for _, delivery in self._items or ():
            yield delivery

    def __contains__(self, packet_id: int) -> bool:
        return self._ids is not None and packet_id in self._ids

    def has_room(self, message: Message) -> bool:
        """Whether it fits, without another one giving way."""
        options, size = self._shared.options, message.size
        return (
            len(self) < options.max_queued
            and self.bytes + size <= options.max_queued_bytes
            and self._shared.queued_bytes + size <= options.max_queued_bytes_in_all
            and self._of_user + size <= options.max_queued_bytes_per_username
        )

    def can_make_room(self, message: Message) -> bool:
        """Whether it would fit if all that is in here gave way."""
        options, size = self._shared.options, message.size
        others = self._shared.queued_bytes - self.bytes
        return (
            options.max_queued > 0
            and size <= options.max_queued_bytes
            and others + size <= options.max_queued_bytes_in_all
            and max(0, self._of_user - self.bytes) + size <= options.max_queued_bytes_per_username
        )

    @property
    def _of_user(self) -> int:
        """Bytes queued in all sessions of the same user."""
        return self._shared.queued_bytes_of.get(self._username, 0)

    def push(self, packet_id: int, delivery: Delivery) -> None:
        """Add one at the end. Whether there is room is for the caller to ask."""
        if self._items is None or self._ids is None:
            self._items, self._ids = deque(), set()
        self._items.append((packet_id, delivery))  # [MQTT-4.6.0-5], [MQTT-4.6.0-6]
        self._ids.add(packet_id)
        self._count(delivery.size)

    def first(self) -> tuple[int, Delivery] | None:
        return self._items[0] if self._items else None

    def pop(self) -> tuple[int, Delivery]:
        """Take the first one out. Raises IndexError when there is none."""
        if not self._items or self._ids is None:
            raise IndexError("an empty queue")
        packet_id, delivery = self._items.popleft()
        self._ids.discard(packet_id)
        self._count(-delivery.size)
        return packet_id, delivery

    def take(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out all that are wanted; the others keep their order."""
        if not self._items or self._ids is None:
            return []
        taken, kept = [], deque[tuple[int, Delivery]]()
        for packet_id, delivery in self._items:
            if wanted(delivery):
                taken.append(delivery)
                self._ids.discard(packet_id)
                self._count(-delivery.size)
            else:
                kept.append((packet_id, delivery))
        self._items = kept
        return taken

    def clear(self) -> None:
        self._count(-self.bytes)
        self._items = self._ids = None

    def _count(self, size: int) -> None:
        self.bytes += size
        shared, username = self._shared, self._username
        shared.queued_bytes += size
        if username:
            shared.queued_bytes_of[username] += size
            if not shared.queued_bytes_of[username]:
                del shared.queued_bytes_of[username]

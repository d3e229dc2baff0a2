"""One client's session: its subscriptions, what is on its way to it, and what it has sent of QoS 2. No I/O, no clock.

MQTT 5, sections 4.1 (session state), 4.3 (QoS flows), 4.4 (delivery retry), 4.6 (order) and 4.9 (flow control).

Deliveries of QoS 1 and 2 are either in flight (sent, not acknowledged; at most a window of them) or queued behind, in
the order in which they came. Nothing is sent twice on one connection; on the next one, what is in flight is sent
again with the packet identifier it had. Bytes for the client go into `out`, which is None while it is away; a session
that has something to send puts itself into `dirty`, the list of those that the broker flushes.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

from broker.native.message import DUP, PUBLISH, Delivery, DeliveryRun, Grant, Message
from broker.native.queue import DeliveryQueue, Shared
from broker.packets import MalformedPacket, Will
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection

_AHEAD = 4096
_PUBREL = b"\x62\x02"
_PUBREL_NOT_FOUND = b"\x62\x03"
_HIGH = bytes(packet_id >> 8 for packet_id in range(0x10000))
_LOW = bytes(packet_id & 0xFF for packet_id in range(0x10000))
"""The two bytes of each packet identifier, to write many at once."""


class Journal(Protocol):
    """Keeps the deliveries of sessions that outlive a crash."""

    def put(self, session: "Session", packet_id: int, delivery: Delivery, *, sent: bool) -> None: ...

    def release(self, session: "Session", packet_id: int, seq: int) -> None:
        """Keep only that the PUBREC of a delivery of QoS 2 has come."""
        ...

    def delete(self, session: "Session", seq: int) -> None: ...

    def when_safe(self, callback: Callable[[], None]) -> None:
        """Call back when all of the above is on disk."""
        ...

    def proceed(self, session: "Session", seq: int) -> None:
        """Call the session's `proceed` with `seq` when all of the above is on disk."""
        ...


class Receipt:
    """A message of QoS 2 that the client has sent and not released. `code` is what became of it, None while unknown."""

    __slots__ = ("_waiters", "code", "orphaned")

    def __init__(self) -> None:
        self.code: ReasonCode | None = None
        self.orphaned = False
        """Whoever was to settle it died with the broker: the message is routed, but the sink may not have it."""
        self._waiters: list[Callable[[ReasonCode], None]] = []

    def settle(self, code: ReasonCode) -> None:
        self.code = code
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter(code)

    def when_settled(self, waiter: Callable[[ReasonCode], None]) -> None:
        if self.code is None:
            self._waiters.append(waiter)
        else:
            waiter(self.code)


class Session:
    """What is known of a client, while it is connected and, when it asked for that, between its connections."""

    __slots__ = (
        "_again",
        "_aliases",
        "_free_to",
        "_inflight_bytes",
        "_last_id",
        "_limit_bytes",
        "_queue",
        "_releasing",
        "_safe_seq",
        "_shared",
        "address",
        "alias_maximum",
        "clean_start",
        "client_id",
        "congested",
        "connected_at",
        "connection",
        "expires_at",
        "expiry_s",
        "inflight",
        "journal",
        "keepalive_s",
        "last_seq",
        "maximum_packet_size",
        "mqtt5",
        "on_due",
        "out",
        "overflowed",
        "protocol",
        "received",
        "released",
        "slot",
        "special",
        "subscriptions",
        "username",
        "will",
        "will_at",
        "window",
    )

    def __init__(self, client_id: str, username: str, shared: Shared, journal: Journal | None = None) -> None:
        self.client_id = client_id
        self.username = username
        self.journal = journal
        self._shared = shared
        # The connection there is, or was
        self.connection: Connection | None = None
        self.out: list[bytes] | None = None
        self.congested = False
        self.protocol = 4
        self.mqtt5 = False
        self.clean_start = True
        self.keepalive_s = 0
        self.address = ""
        self.connected_at: datetime | None = None
        self.window = shared.options.max_inflight
        self.alias_maximum = 0
        self.maximum_packet_size = 0
        self.special = False
        """Needs packets made for it alone: a maximum packet size or topic aliases were agreed on."""
        # The session state
        self.subscriptions: dict[str, Grant] = {}
        self.inflight: dict[int, Delivery | DeliveryRun] = {}
        """Runs only while it is connected."""
        self.released: dict[int, int] = {}
        """Packet identifiers whose PUBREC has come and whose PUBCOMP has not, with their number in the journal."""
        self.received: dict[int, Receipt] = {}
        self.will: Will | None = None
        self.expiry_s = 0
        # Deadlines, when away
        self.on_due: Callable[[Session, float], float | None] | None = None
        self.slot = 0
        self.expires_at: float | None = None
        self.will_at: float | None = None
        self.overflowed = False
        self.last_seq = 0
        self._safe_seq = 0
        self._last_id = 0
        self._inflight_bytes = 0
        self._free_to = 0  # from the last identifier given out up to here, none is in use
        self._limit_bytes = shared.options.max_queued_bytes
        self._again: dict[int, Delivery] = {}  # sent on an earlier connection, to be sent again when the window allows
        self._releasing: set[int] = set()  # numbers of those in `released` of which the disk does not know yet
        self._queue = DeliveryQueue(shared, username)
        self._aliases: dict[bytes, bytes] = {}

    @property
    def queued(self) -> int:
        """How many deliveries wait to be sent, for the first time or again."""
        return len(self._again) + len(self._queue)

    @property
    def queued_bytes(self) -> int:
        return self._queue.bytes

    @property
    def durable(self) -> bool:
        """Whether it outlives its connection."""
        return self.expiry_s > 0

    @property
    def can_take(self) -> bool:
        """Whether a delivery would be sent at once."""
        return (
            self.out is not None
            and not self.congested
            and not self._queue.bytes
            and not self._again
            and len(self.inflight) + len(self.released) < self.window
            and self._inflight_bytes < self._limit_bytes
        )

    def has_room(self, message: Message) -> bool:
        """Whether a delivery would be kept without another one giving way."""
        return self._queue.has_room(message)

    def due(self, now: float) -> float | None:
        """The wheel's: see `broker.native.wheel.Timed`."""
        return self.on_due(self, now) if self.on_due is not None else None

    # --- the connection

    def attach(self, connection: "Connection", *, window: int, alias_maximum: int, maximum_packet_size: int) -> None:
        """The client is there, with what it and we agreed on. Call `resume` when it has its CONNACK."""
        self.connection = connection
        self.out = []
        self.congested = False
        self.window = max(1, min(window, self._shared.options.max_inflight))  # [MQTT-4.9.0-1]
        self.alias_maximum = alias_maximum
        self.maximum_packet_size = maximum_packet_size
        self.special = alias_maximum > 0 or maximum_packet_size > 0
        self._aliases = {}  # [MQTT-3.3.2-7]

    def detach(self) -> None:
        """The client is gone; what it was sent and did not acknowledge stays in flight."""
        self.connection = None
        self.out = None
        self.congested = False
        self._aliases = {}
        self.inflight.update(self._singly())

    def resume(self, now: float) -> None:
        """Send again what was not acknowledged, in the order it was first sent [MQTT-4.4.0-1], [MQTT-4.6.0-1]."""
        self._again = self._singly() | self._again
        self.inflight = {}
        self._inflight_bytes = 0
        for packet_id, seq in self.released.items():
            if seq not in self._releasing:
                self.emit(_PUBREL + packet_id.to_bytes(2, "big"))
        self.pump(now)

    def emit(self, data: bytes) -> None:
        """Bytes for the client, if it is there."""
        if self.out is not None:
            if not self.out:
                self._shared.dirty.append(self)
            self.out.append(data)  # [MQTT-3.3.4-10], [MQTT-4.9.0-3]

    # --- deliveries

    def deliver(self, message: Message, grant: Grant, now: float, *, retained: bool = False) -> bool:
        """Send a message or let it wait; False when it was dropped, or nobody is there and it is of QoS 0.

        `retained`: it was kept from before, so it goes with RETAIN set (3.1.1: [MQTT-3.3.1-8]).
        """
        if not grant.plain and message.sender is not None and message.sender.client_id == self.client_id:
            if grant.own is None:  # [MQTT-3.8.3-3]
                return False
            grant = grant.own
        qos = grant.qos if grant.qos < message.qos else message.qos  # [MQTT-3.8.4-8]
        retain = retained or (message.retain and grant.retain_as_published)  # [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        if not qos:
            if self.out is None:
                return False
            if self.congested:
                self._shared.counters.dropped_slow += 1
                return False
            return self._pack(message, PUBLISH | retain, b"", grant.identifiers, now)  # [MQTT-4.3.1-1]
        if qos == 1 and grant.plain and not retain and self.journal is None:
            delivery = Delivery(message, 1)
            # The hot path: `can_take`, `_next_id`, `_fly` and `_send` in one, as calling them costs more than they do
            out, inflight = self.out, self.inflight
            if (
                out is not None
                and not self.congested
                and not self.special
                and not self._queue.bytes
                and not self._again
                and not self.released
                and len(inflight) < self.window
                and self._inflight_bytes < self._limit_bytes
                and message.expires_at is None
            ):
                packet_id = self._last_id % 0xFFFF + 1
                if packet_id == 1 or packet_id in inflight:
                    packet_id = self._next_id()
                self._last_id = packet_id
                inflight[packet_id] = delivery
                self._inflight_bytes += message.size
                head, tail = message.form(0x32, mqtt5=self.mqtt5)
                if not out:
                    self._shared.dirty.append(self)
                out += (head, packet_id.to_bytes(2, "big"), tail)
                return True
        else:
            delivery = Delivery(message, qos, retain=retain, identifiers=grant.identifiers, group=grant.group)
            if self.journal is not None:
                self.last_seq += 1
                delivery.seq = self.last_seq
                if qos == 2:  # sent only when its packet identifier is on disk, or a crash could use that for another
                    return self._enqueue(delivery, now)
        if self.can_take:
            packet_id = self._next_id()
            self._fly(packet_id, delivery)
            if self.journal is not None:
                self.journal.put(self, packet_id, delivery, sent=True)
            return self._send(packet_id, delivery, now)
        return self._enqueue(delivery, now)

    def pump(self, now: float) -> None:
        """Send what is queued, as far as it may go."""
        queue = self._queue
        if self.out is None or self.congested:
            return
        while self._again and len(self.inflight) + len(self.released) < self.window:
            packet_id = next(iter(self._again))
            delivery = self._again.pop(packet_id)
            self._fly(packet_id, delivery)
            self._send(packet_id, delivery, now, dup=DUP)  # [MQTT-3.3.1-1], [MQTT-4.3.3-7]
        if self._again:
            return
        while (
            (first := queue.first()) is not None
            and len(self.inflight) + len(self.released) < self.window  # [MQTT-3.3.4-9], [MQTT-4.9.0-2]
            and self._inflight_bytes < self._limit_bytes
        ):
            packet_id, delivery = first
            if delivery.qos == 2 and delivery.seq > self._safe_seq:
                return
            queue.pop()
            if delivery.message.is_expired(now):
                self._shared.counters.expired += 1
                self._forget(delivery)
                continue
            self._fly(packet_id, delivery)
            if self.journal is not None:
                self.journal.put(self, packet_id, delivery, sent=True)
            self._send(packet_id, delivery, now)

    def proceed(self, seq: int, now: float) -> None:
        """Deliveries of QoS 2 up to this number are on disk: they may be sent."""
        self._safe_seq = max(self._safe_seq, seq)
        self.pump(now)

    def restore(self, packet_id: int, delivery: Delivery, *, sent: bool) -> None:
        """A delivery read from disk, in the order of its number."""
        self.last_seq = self._safe_seq = max(self.last_seq, delivery.seq)
        self._last_id, self._free_to = packet_id, 0
        if sent:
            self._fly(packet_id, delivery)
        else:
            self._queue.push(packet_id, delivery)  # 3.1.1: [MQTT-3.1.2-5]

    def restore_released(self, packet_id: int, seq: int) -> None:
        """A PUBREC read from disk."""
        self.last_seq = max(self.last_seq, seq)
        self.released[packet_id] = seq

    def run_room(self) -> int:
        """How many packets `deliver_run` may be given now."""
        if self.journal is not None or self.special or not self.can_take:
            return 0
        room = min(self.window - len(self.inflight) - len(self.released), 0xFFFF - self._last_id)
        if self._free_to <= self._last_id < 0xFFFF:
            # Identifiers ahead are in use only after 65,535 others: many are looked at together
            ahead = range(self._last_id + 1, min(self._last_id + _AHEAD, 0xFFFF) + 1)
            if not (self.inflight.keys().isdisjoint(ahead) and self.released.keys().isdisjoint(ahead)):
                return 0
            self._free_to = ahead[-1]
        return min(room, self._free_to - self._last_id)

    def deliver_run(self, piece: bytes, span: int, at: int, count: int, topic_bytes: int) -> None:
        """Send PUBLISH packets of QoS 1 on as they came, but for the packet identifiers, which stand `at` in each.

        The caller has asked `run_room`.
        """
        out = self.out
        if out is None:
            return
        first = self._last_id + 1
        self._last_id += count
        run = DeliveryRun(piece, span, at, topic_bytes, first, mqtt5=self.mqtt5)
        self.inflight.update(zip(range(first, first + count), repeat(run)))
        self._inflight_bytes += run.size * count
        sent = bytearray(piece)
        sent[at::span] = _HIGH[first : first + count]
        sent[at + 1 :: span] = _LOW[first : first + count]
        if not out:
            self._shared.dirty.append(self)
        out.append(bytes(sent))

    def pubacks(self, packet_ids: Iterable[int]) -> None:
        """Deliveries of QoS 1 are over, whatever their reason codes say; `pump` sends the next ones."""
        take, freed = self.inflight.pop, 0
        try:
            for packet_id in packet_ids:
                delivery = take(packet_id, None)
                if delivery is None:
                    if not packet_id:
                        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet identifier of 0")  # [MQTT-2.2.1-3]
                    continue
                if delivery.qos != 1:
                    self._put_back(packet_id, delivery)
                    raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a PUBACK for a PUBLISH of QoS 2")
                freed += delivery.size
                if delivery.seq:
                    self._forget(delivery)
        finally:
            self._inflight_bytes -= freed

    def pubrec(self, packet_id: int, reason: int, now: float) -> None:
        """The client has a message of QoS 2, or refuses it."""
        delivery = self.inflight.get(packet_id)
        if delivery is None:
            if packet_id in self.released:
                if self.released[packet_id] not in self._releasing:
                    self.emit(_PUBREL + packet_id.to_bytes(2, "big"))
            elif self.mqtt5:
                self.emit(_PUBREL_NOT_FOUND + packet_id.to_bytes(2, "big") + b"\x92")
            else:  # before MQTT 5 there is no other answer, and without one the client would ask for ever
                self.emit(_PUBREL + packet_id.to_bytes(2, "big"))
            return
        if delivery.qos != 2:
            raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a PUBREC for a PUBLISH of QoS 1")
        self._land(packet_id)  # [MQTT-4.3.2-3]
        if reason >= 0x80:  # [MQTT-4.4.0-2], [MQTT-4.8.2-6]
            self._forget(delivery)
            self.pump(now)
            return
        self._release(packet_id, delivery.seq)  # [MQTT-4.3.3-4], [MQTT-4.6.0-4]

    def pubcomp(self, packet_id: int, now: float) -> None:
        """A delivery of QoS 2 is over."""
        seq = self.released.pop(packet_id, None)
        if seq and self.journal is not None:
            self.journal.delete(self, seq)
        self.pump(now)

    def hand_back(self, now: float) -> None:
        """Give what came by a shared subscription to another member of it, if there is one."""

        def passed_on(delivery: Delivery) -> bool:
            return delivery.group is not None and delivery.group.pass_on(delivery.message, self, now)

        # [MQTT-4.8.2-4], [MQTT-4.8.2-5]
        self._take_back(lambda delivery: delivery.qos == 1 and passed_on(delivery), passed_on)

    def drop_unwanted(self, unwanted: Callable[[str], bool]) -> None:
        """Forget deliveries on topics that the client may not have any more."""

        def is_unwanted(delivery: Delivery) -> bool:
            return unwanted(delivery.message.topic_name)

        for packet_id, delivery in (self._singly() | self._again).items():
            if delivery.qos == 2 and is_unwanted(delivery):
                self._let_go(packet_id, delivery)
        self._take_back(is_unwanted, is_unwanted)

    def waiting(self) -> Iterator[Delivery]:
        """What the client has not acknowledged, and what is queued behind."""
        yield from self._again.values()
        yield from self._singly().values()
        yield from self._queue

    def end(self) -> None:
        """The session is over: nothing of it counts any more. What is on disk of it is for the caller to delete."""
        self._queue.clear()
        self.inflight, self.released, self._again = {}, {}, {}
        self._releasing.clear()
        self.subscriptions, self.received = {}, {}
        self._inflight_bytes = 0

    def _enqueue(self, delivery: Delivery, now: float) -> bool:
        if not self._make_room(delivery.message):
            return False
        packet_id = self._next_id()
        self._queue.push(packet_id, delivery)
        if self.journal is not None:
            self.journal.put(self, packet_id, delivery, sent=False)
            if delivery.qos == 2:
                self.journal.proceed(self, delivery.seq)
        return True

    def _make_room(self, message: Message) -> bool:
        """Whether there is room, after what `queue_full` says."""
        if self.has_room(message):
            return True
        shared, policy = self._shared, self._shared.options.queue_full
        if policy == "drop_oldest" and self._queue.can_make_room(message):
            while not self.has_room(message):
                self._forget(self._queue.pop()[1])
                shared.counters.dropped_queue += 1
            return True
        if policy == "disconnect" and not self.overflowed:
            self.overflowed = True
            shared.dirty.append(self)
        shared.counters.dropped_queue += 1
        return False

    def _fly(self, packet_id: int, delivery: Delivery) -> None:
        self.inflight[packet_id] = delivery
        self._inflight_bytes += delivery.size

    def _singly(self) -> dict[int, Delivery]:
        """What is in flight, each delivery by itself."""
        return {
            packet_id: delivery.delivery(packet_id) if isinstance(delivery, DeliveryRun) else delivery
            for packet_id, delivery in self.inflight.items()
        }

    def _put_back(self, packet_id: int, delivery: Delivery | DeliveryRun) -> None:
        """Into its place: they are sent again in the order of their identifiers, counted from the last one."""
        self.inflight[packet_id] = delivery
        self.inflight = dict(sorted(self.inflight.items(), key=lambda item: (item[0] - self._last_id - 1) % 0xFFFF))

    def _land(self, packet_id: int) -> None:
        self._inflight_bytes -= self.inflight.pop(packet_id).size

    def _release(self, packet_id: int, seq: int) -> None:
        """Send a PUBREL, but not before the disk knows: after a crash the message would go out as a new one.

        [MQTT-4.3.3-5]: the message itself is not needed any more.
        """
        self.released[packet_id] = seq
        if self.journal is None or not seq:
            self.emit(_PUBREL + packet_id.to_bytes(2, "big"))
            return
        self._releasing.add(seq)
        self.journal.release(self, packet_id, seq)
        self.journal.when_safe(partial(self._released_safely, packet_id, seq))

    def _released_safely(self, packet_id: int, seq: int) -> None:
        if seq in self._releasing:
            self._releasing.discard(seq)
            if self.released.get(packet_id) == seq:
                self.emit(_PUBREL + packet_id.to_bytes(2, "big"))

    def _let_go(self, packet_id: int, delivery: Delivery) -> None:
        """Give up a delivery that was sent. One of QoS 2 is released, as its identifier is in use at the client."""
        if packet_id in self.inflight:
            self._land(packet_id)
        else:
            del self._again[packet_id]
        if delivery.qos == 2:
            self._release(packet_id, delivery.seq)
        else:
            self._forget(delivery)

    def _take_back(self, flying: Callable[[Delivery], bool], queued: Callable[[Delivery], bool]) -> None:
        """Forget what is in flight, and what is queued, as the two say."""
        for packet_id, delivery in list(self._again.items()):
            if flying(delivery):
                del self._again[packet_id]
                self._forget(delivery)
        for packet_id, delivery in self._singly().items():
            if flying(delivery):
                self._land(packet_id)  # [MQTT-4.3.3-3], [MQTT-4.3.3-6]
                self._forget(delivery)
        for delivery in self._queue.take(queued):
            self._forget(delivery)

    def _forget(self, delivery: Delivery | DeliveryRun) -> None:
        if delivery.seq and self.journal is not None:
            self.journal.delete(self, delivery.seq)

    def _next_id(self) -> int:
        """A packet identifier not in use [MQTT-2.2.1-4]: windows and queues are bounded, so there is one."""
        packet_id, queue = self._last_id % 0xFFFF + 1, self._queue
        while (
            packet_id in self.inflight
            or packet_id in self.released
            or packet_id in self._again
            or (queue.bytes and packet_id in queue)
        ):
            packet_id = packet_id % 0xFFFF + 1
        if packet_id <= self._last_id:  # from the beginning again
            self._free_to = 0
        self._last_id = packet_id
        return packet_id  # [MQTT-4.3.2-1], [MQTT-4.3.3-1]

    def _send(self, packet_id: int, delivery: Delivery, now: float, *, dup: int = 0) -> bool:
        first = PUBLISH | dup | delivery.qos << 1 | delivery.retain  # [MQTT-3.3.1-3], [MQTT-4.3.2-2], [MQTT-4.3.3-2]
        wire_id = packet_id.to_bytes(2, "big")
        if self._pack(delivery.message, first, wire_id, delivery.identifiers, now):
            return True
        if dup:  # too large for the client: as if it had been delivered [MQTT-3.1.2-25]
            self._let_go(packet_id, delivery)
        else:
            self._land(packet_id)
            self._forget(delivery)
        return False

    def _pack(self, message: Message, first: int, wire_id: bytes, identifiers: bytes, now: float) -> bool:
        """Put a PUBLISH into `out`; False when it is larger than the client takes [MQTT-3.1.2-24]."""
        out = self.out
        if out is None:
            return False
        if not self.mqtt5 or not (self.special or identifiers or message.expires_at is not None):
            head, tail = message.form(first, mqtt5=self.mqtt5)
            if not out:
                self._shared.dirty.append(self)
            out += (head, wire_id, tail)
            return True
        topic, fresh = message.topic, b""
        if self.alias_maximum:  # [MQTT-3.1.2-27]
            alias = self._aliases.get(topic)
            if alias is not None:
                topic = b"\0\0"
            elif len(self._aliases) < self.alias_maximum:  # [MQTT-3.1.2-26], [MQTT-3.3.2-11]
                alias = fresh = b"\x23" + (len(self._aliases) + 1).to_bytes(2, "big")
            identifiers = (alias or b"") + identifiers
        head, tail = message.form_for(first, topic, identifiers, now)
        if self.maximum_packet_size and len(head) + len(wire_id) + len(tail) > self.maximum_packet_size:
            self._shared.counters.dropped_large += 1
            return False
        if fresh:
            self._aliases[message.topic] = fresh
        if not out:
            self._shared.dirty.append(self)
        out += (head, wire_id, tail)
        return True

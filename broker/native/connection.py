"""One client's connection: bytes in, packets acted on, bytes out.

This is the hot path, and what makes it fast is that nothing is done per message that can be done per read. A read
may hold hundreds of packets. The loop in `_parse` goes through all of them without a task, an await, a queue or a
log line; what they cause is gathered (bytes in the sessions' `out`, messages in one batch for the sink, one joined
acknowledgement) and goes out once. Within a read, publishers mostly repeat themselves: the same topic, the same
size. So the beginning of the last PUBLISH (header, length, topic: `_memo`) is kept and compared with the next one.
If it is the same, length, topic, permission and subscribers are known already; and a run of such packets of QoS 0
goes to plain subscribers as the one piece of bytes in which it came.

Whatever is rare (QoS 2, properties, RETAIN, SUBSCRIBE, AUTH …) leaves the loop for `broker.native.publishing` and
`broker.native.requests`; the CONNECT is in `broker.native.admission`. Where the Guard must be waited for, the client
is not read from meanwhile.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from enum import IntFlag
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from broker.engine import Publish
from broker.native import admission, publishing, requests
from broker.native.message import Message
from broker.native.owed import Batch
from broker.native.router import Route
from broker.native.session import Session
from broker.packets import MQTT_5, Connack, Connect, Disconnect, MalformedPacket, check_first_byte, encode, frame
from broker.packets.properties import Properties
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.hub import Hub

logger = logging.getLogger(__name__)

_NO_MEMO = b"\xff\xff"  # begins no packet
_PUBLISH = 0x30
_PLAIN = (0x30, 0x32)  # QoS 0 and 1, neither DUP nor RETAIN
_PINGREQ, _PINGRESP = b"\xc0\x00", b"\xd0\x00"
_PUBACK = b"\x40\x02"
_LANES_LIMIT = 256  # topics of one client whose routes are remembered
_KEEPALIVE_GRACE = 1.5  # [MQTT-3.1.2-22]; 3.1.1: [MQTT-3.1.2-24]
_CLOSING_S = 2.0  # for the last bytes to go out
NO_CONNECT = "no CONNECT in time"
LOST = "connection lost"


class Transport(Protocol):
    """What a connection needs of an asyncio transport; a WebSocket has one of its own."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Block(IntFlag):
    """Why a client is not read from."""

    GUARD = 1
    """The Guard is thinking."""
    UNDONE = 2
    """Too many of its messages are not acknowledged."""
    RATE = 4
    """It sends too fast."""
    UNREAD = 8
    """It does not read."""


class Connection(asyncio.Protocol):
    """A client's connection. `session` is set once it was let in; `username` as soon as it has said it."""

    __slots__ = (
        "_blocks",
        "_heard_at",
        "_keepalive_s",
        "_lanes",
        "_lanes_epoch",
        "_memo",
        "_need",
        "_owed",
        "_rest",
        "_route",
        "_rules_version",
        "_span",
        "_task",
        "_tokens",
        "_tokens_at",
        "_unacked",
        "_undone",
        "_undone_bytes",
        "_unread_since",
        "address",
        "aliases",
        "connect",
        "ended",
        "exchange",
        "hub",
        "mqtt5",
        "session",
        "slot",
        "tell_why",
        "transport",
        "username",
    )

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.transport: Transport | None = None
        self.address = ""
        self.username = ""
        self.session: Session | None = None
        self.connect: Connect | None = None
        """The CONNECT, until the client is let in."""
        self.exchange: admission.Exchange | None = None
        """An enhanced authentication under way, or the one that let the client in."""
        self.mqtt5 = False
        self.tell_why = True
        """Whether the client wants reason strings [MQTT-3.1.2-29]."""
        self.ended = ""
        """Why it ended, in words; empty while it lives."""
        self.slot = 0
        self._task: asyncio.Task[None] | None = None
        self._blocks = Block(0)
        self._rest: bytes | bytearray = b""
        self._need = 0  # bytes that `_rest` must have before it is looked at again
        self._heard_at = 0.0
        self._keepalive_s = 0.0
        self._unread_since = 0.0
        self._memo = _NO_MEMO
        self._span = 0
        self._route: Route | None = None
        self._lanes: dict[bytes, Route] = {}
        self._lanes_epoch = -1
        self._rules_version = -1
        self._owed: deque[Batch] | None = None
        self._undone = 0  # messages not acknowledged, as far as the sink or the disk has to say so
        self._unacked = 0  # those of QoS 1 and 2 among them
        self._undone_bytes = 0
        self._tokens = 0.0
        self._tokens_at = 0.0
        self.aliases: dict[int, bytes] = {}

    # --- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._heard_at = monotonic()
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "local"
        options = self.hub.options
        transport.set_write_buffer_limits(high=options.max_outgoing_bytes)
        if hasattr(transport, "max_size"):  # asyncio's own takes 256 KiB a read; before a CONNECT nobody gets that
            transport.max_size = min(transport.max_size, options.max_connect_bytes)
        if not self.hub.gate.enter(self):
            self.end("too many connections", cut=True)
            return
        self.hub.wheel.set(self, self._heard_at + options.connect_timeout_s)

    def data_received(self, data: bytes) -> None:
        hub = self.hub
        size = len(data)
        hub.counters.bytes_received += size
        if self._rest:
            if len(self._rest) + size < self._need:  # a large packet, in pieces: gathered without looking again
                if isinstance(self._rest, bytes):
                    self._rest = bytearray(self._rest)
                self._rest += data
                return
            data = bytes(self._rest + data)
            self._rest = b""
        if self._blocks or self.ended:
            self._rest = b"" if self.ended else data
            return
        self._work(data)
        hub.after_read(size)

    def eof_received(self) -> None:
        """The peer sends nothing more: the transport closes, and `connection_lost` follows."""

    def pause_writing(self) -> None:
        """The client does not read: QoS 0 is dropped, the rest waits, and what it sends is left in the network."""
        self._unread_since = monotonic()
        if self.session is not None:
            self.session.congested = True
        self._block(Block.UNREAD)
        self.hub.wheel.set(self, self._unread_since + self.hub.options.write_timeout_s)

    def resume_writing(self) -> None:
        self._unread_since = 0.0
        if self.session is not None and not self.ended:
            self.session.congested = False
            self.session.pump(monotonic())
            self.hub.wake()
        self._unblock(Block.UNREAD)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended:
            self.end(LOST)
        if self._task is not None:
            self._task.cancel()
        self.hub.wheel.clear(self)
        self.hub.gate.leave(self)
        self.hub.wake()

    # --- life

    def due(self, now: float) -> float | None:
        """The wheel's: the time for a CONNECT, the keep-alive, or the patience with a client that does not read."""
        options = self.hub.options
        if self.ended:
            self.abort()
            return None
        if self._unread_since:
            if now - self._unread_since >= options.write_timeout_s:
                self.hub.counters.slow_closed += 1
                self.end("not reading", cut=True)
                return None
            return self._unread_since + options.write_timeout_s
        if self.session is None:
            if now - self._heard_at < options.connect_timeout_s:
                return self._heard_at + options.connect_timeout_s
            self.hub.counters.refused_connections += 1
            self.end(NO_CONNECT)
            return None
        if self._blocks:  # we are what keeps it silent
            self._heard_at = now
        deadline = self._heard_at + self._keepalive_s
        if now < deadline:
            return deadline
        self.end("keep-alive expired", ReasonCode.KEEP_ALIVE_TIMEOUT)  # [MQTT-3.1.2-22]
        return None  # `end` has set the deadline for the last bytes

    def end(
        self,
        words: str,
        reason: ReasonCode | None = None,
        *,
        detail: str = "",
        with_will: bool = True,
        cut: bool = False,
    ) -> None:
        """End the connection, once, without waiting. MQTT 5 clients get `reason` in a DISCONNECT; `cut` says nothing.

        What is in `out` is written first; a peer that does not take it within 2 s is cut off.
        """
        if self.ended:
            return
        self.ended = words
        session, self.connect = self.session, None
        if session is not None and session.connection is self:
            if self.mqtt5 and reason is not None and not cut:
                self.hub.flush_session(session)
                self._write(self._disconnect(reason, detail))
            elif not cut:
                self.hub.flush_session(session)
        if session is not None:
            self.hub.sessions.detach(self, session, words, with_will=with_will)
        self._rest = b""
        if self.transport is not None:
            if cut:
                self.transport.abort()
            else:
                self.hub.wheel.set(self, monotonic() + _CLOSING_S)
                self.transport.close()
        self.hub.wake()

    def abort(self) -> None:
        """Cut it off, whatever is still to be written."""
        if self.transport is not None:
            self.transport.abort()

    def refuse(self, connack: Connack, words: str) -> None:
        """Answer a CONNECT with no. [MQTT-3.1.4-2]; 3.1.1: [MQTT-3.2.2-5]"""
        if self.ended:
            return
        self.hub.counters.refused_connects += 1
        self._write(encode(connack, MQTT_5 if self.mqtt5 else 4))
        self.end(words)

    def accept(self, session: Session, connack: Connack, *, keepalive_s: int) -> None:
        """The client is let in: from here on the session's `out` is this connection's."""
        self.session = session
        self.connect = None
        self._keepalive_s = keepalive_s * _KEEPALIVE_GRACE
        self._heard_at = monotonic()
        self.hub.wheel.set(self, self._heard_at + self._keepalive_s)
        transport = self.transport
        if transport is not None and hasattr(transport, "max_size"):
            transport.max_size = 256 * 1024
        session.emit(encode(connack, session.protocol))

    def send(self, data: bytes) -> None:
        """What the session had to say since the last flush."""
        self._write(data)

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do what must wait for the Guard; the client is not read from until it is done."""
        self._block(Block.GUARD)
        self._task = self.hub.loop.create_task(self._guarded(work), name=f"{name} {self.address}")

    def fault(self, fault: MalformedPacket) -> None:
        """The peer sent what MQTT forbids: say so where it can be said, and close [MQTT-4.13.1-1]."""
        self.hub.counters.protocol_errors += 1
        logger.debug("%s %.70r: %s", self.address, self.username, fault.detail)
        if self.session is None and self.connect is None:
            admission.answer_malformed(self, fault)
        self.end(fault.reason.words, fault.reason, detail=fault.detail)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except MalformedPacket as fault:
            self.fault(fault)
        except Exception:
            logger.exception("%s %.70r: the connection failed here", self.address, self.username)
            self.end("unspecified error", ReasonCode.UNSPECIFIED_ERROR)
        self._task = None
        self._unblock(Block.GUARD)
        self.hub.wake()

    def _disconnect(self, reason: ReasonCode, detail: str) -> bytes:
        properties: Properties = {}
        if self.tell_why and reason is not ReasonCode.SUCCESS:
            properties = {"reason_string": detail or reason.words}
        data = encode(Disconnect(reason=reason, properties=properties), MQTT_5)
        limit = self.session.maximum_packet_size if self.session is not None else 0
        if limit and len(data) > limit:  # [MQTT-3.14.2-3]
            data = encode(Disconnect(reason=reason), MQTT_5)
        return data

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.hub.counters.bytes_sent += len(data)
            self.transport.write(data)

    def _block(self, why: Block) -> None:
        if not self._blocks and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self._blocks |= why

    def _unblock(self, why: Block) -> None:
        if not self._blocks:
            return
        self._blocks &= ~why
        if self._blocks or self.ended or self.transport is None or self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self._rest:
            data, self._rest = bytes(self._rest), b""
            self._work(data)
        self.hub.wake()

    # --- reading

    def _work(self, data: bytes) -> None:
        """Act on what was read; every fault of the peer, and every bug of ours, stays in here."""
        try:
            if self.session is None:
                self._first(data)
                return
            while self._parse(data, self.session) and not self._blocks and not self.ended:
                data, self._rest = bytes(self._rest), b""
        except MalformedPacket as fault:
            self.fault(fault)
        except Exception:
            logger.exception("%s %.70r: the connection failed here", self.address, self.username)
            self.end("unspecified error", ReasonCode.UNSPECIFIED_ERROR)

    def _first(self, data: bytes) -> None:
        """Before the client is let in: one CONNECT, and what an enhanced authentication takes."""
        limit = self.hub.options.max_connect_bytes
        admission.check_first_packet(self, data)
        found = frame(data, 0, limit)
        if found is None:
            self._keep(data, 0)
            return
        first, start, end = found
        self._rest = data[end:]
        admission.first_packet(self, first, data, start, end)

    def _parse(self, data: bytes, session: Session) -> bool:
        """Act on every whole packet in `data`, keep the rest; whether there was no room for more messages.

        The hot path: see the top of this module.
        """
        hub = self.hub
        now = self._heard()
        sink = hub.sink
        mqtt5 = self.mqtt5
        memo, span, route = self._memo, self._span, self._route
        offset, size = 0, len(data)
        journaled = hub.journaled
        entries: list[bytes] = []  # the acknowledgements owed, empty ones for QoS 0 where there is a sink
        batch: list[Publish] = []  # for the sink
        rare: list[tuple[int, publishing.Outcome]] = []  # what is not as simple as the rest, by its place in `entries`
        messages = unacked = 0
        room = hub.options.max_undone - self._undone if sink is not None else size
        quota = hub.options.max_undone - self._unacked if mqtt5 else size
        full = False
        try:
            while size - offset >= 2:
                if data.startswith(memo, offset):
                    end = offset + span
                    if end > size:
                        break
                    first = data[offset]
                else:
                    if data.startswith(_PUBACK, offset):
                        if size - offset < 4:
                            break
                        session.puback(_packet_id(data[offset + 2 : offset + 4]))
                        offset += 4
                        continue
                    if data.startswith(_PINGREQ, offset):
                        session.emit(_PINGRESP)  # [MQTT-3.12.4-1]
                        offset += 2
                        continue
                    check_first_byte(data[offset], session.protocol)
                    found = frame(data, offset, hub.options.max_packet_bytes)
                    if found is None:
                        break
                    first, start, end = found
                    if first & 0xF0 != _PUBLISH:
                        offset = end
                        if entries:  # it may end the connection: what came before it is acknowledged first
                            self._owe(session, entries, rare, batch, unacked, journaled=journaled != hub.journaled)
                            entries, rare, batch = [], [], []
                            journaled, unacked = hub.journaled, 0
                            room = hub.options.max_undone - self._undone if sink is not None else size
                            quota = hub.options.max_undone - self._unacked if mqtt5 else size
                            if self.ended:
                                break
                        requests.act(self, session, first, data, start, end, now)
                        if self._blocks or self.ended:
                            break
                        continue
                    route = self._memorize(session, first, data, offset, start, end) if first in _PLAIN else None
                    if route is not None:
                        memo, span = self._memo, self._span
                if len(entries) >= room:
                    full = True
                    break
                if route is None:
                    memo = _NO_MEMO
                    if first & 0x06:
                        unacked += 1
                        if unacked > quota:
                            raise MalformedPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "beyond the Receive Maximum")
                    outcome = publishing.publish(self, session, first, data, start, end, now)
                    if outcome.message is not None and sink is not None:
                        batch.append(outcome.message)
                    rare.append((len(entries), outcome))
                    entries.append(outcome.entry)
                    messages += 1
                    offset = end
                    if self.ended:
                        break
                    continue
                at = offset + len(memo)
                if first == 0x30:
                    run = end
                    while data.startswith(memo, run) and run + span <= size:
                        run += span
                    if sink is not None:
                        run = min(run, offset + (room - len(entries)) * span)
                        for body in range(at, run, span):
                            batch.append(
                                Publish(
                                    topic=route.name,
                                    payload=data[body : body + end - at],
                                    client_id=session.client_id,
                                    username=session.username,
                                )
                            )
                            entries.append(b"")
                    messages += (run - offset) // span
                    publishing.forward(hub, session, route, data[offset:run], span, len(memo), now)
                    offset = run
                    if self.ended:
                        break
                    continue
                # QoS 1 without properties, RETAIN or DUP
                body = at + 2
                if mqtt5:
                    if data[body]:
                        self._memo = memo = _NO_MEMO
                        continue
                    body += 1
                    unacked += 1
                    if unacked > quota:
                        raise MalformedPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "beyond the Receive Maximum")
                wire_id = data[at : at + 2]
                if wire_id == b"\0\0":
                    raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet identifier of 0")  # [MQTT-2.2.1-3]
                payload = data[body:end]
                hub.deliver(route, Message(route.wire, payload, 1, session, b"" if mqtt5 else memo), now)
                entries.append(_PUBACK + wire_id)
                if sink is not None:
                    batch.append(
                        Publish(
                            topic=route.name,
                            payload=payload,
                            qos=1,
                            client_id=session.client_id,
                            username=session.username,
                        )
                    )
                messages += 1
                offset = end
                if self.ended:
                    break
        finally:
            if offset < size and not self.ended:
                self._keep(data, offset)
            if session.queued:
                session.pump(now)
            if messages:
                hub.counters.messages_received += messages
                if entries:
                    self._owe(session, entries, rare, batch, unacked, journaled=journaled != hub.journaled)
                if hub.options.max_publishes_per_s:
                    self._throttle(messages, now)
        return full

    def _heard(self) -> float:
        """Note the time, and drop what was learned under other rules."""
        hub = self.hub
        now = monotonic()
        version = hub.hooks.rules_version
        if self._rules_version != version or self._lanes_epoch != hub.router.epoch or version < 0:
            self._rules_version = version
            self._lanes_epoch = hub.router.epoch
            self._lanes.clear()
            self._memo = _NO_MEMO
        self._heard_at = now
        return now

    def _memorize(self, session: Session, first: int, data: bytes, offset: int, start: int, end: int) -> Route | None:
        """The route of a PUBLISH that looks plain so far, and its beginning for the next ones; None if it is not plain.

        Plain: the Guard allows it, and says for how long that holds; without properties.
        """
        at = start + 2 + (data[start] << 8 | data[start + 1]) if end - start >= 2 else end + 1
        after = at + 2 if first == 0x32 else at
        if after + self.mqtt5 > end or (self.mqtt5 and data[after]):
            return None
        wire = data[start:at]
        route = self._lanes.get(wire)
        if route is None:
            if self._rules_version < 0:
                return None
            route = publishing.open_lane(self, session, wire)
            if route is None:
                return None
            if len(self._lanes) >= _LANES_LIMIT:
                self._lanes.clear()
            self._lanes[wire] = route
        self._memo = data[offset : at + 1] if self.mqtt5 and first == 0x30 else data[offset:at]
        self._span = end - offset
        self._route = route
        return route

    def _keep(self, data: bytes, offset: int) -> None:
        """What is left of a read: the beginning of a packet, or packets that must wait."""
        self._rest = data[offset:]
        self._need = 0
        limit = self.hub.options.max_packet_bytes if self.session is not None else self.hub.options.max_connect_bytes
        if not self._blocks and len(self._rest) >= 5:
            self._need = _declared(self._rest, limit)

    # --- acknowledging

    def _owe(
        self,
        session: Session,
        entries: list[bytes],
        rare: list[tuple[int, publishing.Outcome]],
        batch: list[Publish],
        unacked: int,
        *,
        journaled: bool,
    ) -> None:
        """Acknowledge what one read held, now or when it is safe."""
        hub = self.hub
        if not batch and not journaled and not rare and not self._owed:
            session.emit(b"".join(entries))
            return
        fixed = frozenset(place for place, outcome in rare if outcome.message is None) if batch else None
        owed = Batch(entries, fixed, sum(len(each.payload) for each in batch), unacked)
        owed.waits = 1 + bool(batch) + journaled
        for place, outcome in rare:
            if outcome.receipt is not None:
                owed.receipts.append((place, outcome.receipt))
            if outcome.awaited is not None:
                owed.waits += 1
                outcome.awaited.when_settled(partial(self._came_again, owed, place))
        if self._owed is None:
            self._owed = deque()
        self._owed.append(owed)
        self._undone += len(entries)
        self._undone_bytes += owed.bytes
        self._unacked += unacked
        if batch and hub.sink is not None:
            try:
                hub.sink(batch, partial(self._taken, owed))
            except Exception:
                logger.exception("the sink failed on messages of %.70r", session.username)
                self._taken(owed, [ReasonCode.UNSPECIFIED_ERROR] * len(batch))
        if journaled:
            hub.when_safe(partial(self._safe, owed))
        self._safe(owed)
        if self._owed and not self.ended and (self._is_full() or hub.behind):
            self._block(Block.UNDONE)

    def _is_full(self) -> bool:
        options = self.hub.options
        return self._undone >= options.max_undone or self._undone_bytes >= options.max_undone_bytes

    def _came_again(self, owed: Batch, place: int, code: ReasonCode) -> None:
        owed.awaited[place] = code
        self._safe(owed)

    def _taken(self, owed: Batch, codes: Sequence[ReasonCode]) -> None:
        """The sink's `done`."""
        if owed.fixed is None or len(codes) != len(owed.entries) - len(owed.fixed):
            raise ValueError("one code per message, in their order")
        owed.codes = codes
        self._safe(owed)

    def _safe(self, owed: Batch) -> None:
        """One less to wait for. Settles the messages even when the connection is gone: the session may be back."""
        owed.waits -= 1
        if owed.waits:
            return
        ended = owed.settle()
        session = self.session
        if session is not None:
            for packet_id in ended:
                session.received.pop(packet_id, None)
            self._release(session)

    def _release(self, session: Session) -> None:
        """Send the acknowledgements whose turn has come."""
        queue = self._owed
        while queue and not queue[0].waits:
            owed = queue.popleft()
            self._undone -= len(owed.entries)
            self._undone_bytes -= owed.bytes
            self._unacked -= owed.unacked
            if self.ended:
                continue
            out, why = owed.acknowledgements(mqtt5=self.mqtt5, tell_why=self.tell_why)
            if out:
                session.emit(out)
            if why is not None:
                self.end(why.words)
        if self._blocks & Block.UNDONE and not self._is_full():
            self._unblock(Block.UNDONE)
        self.hub.wake()

    def _throttle(self, messages: int, now: float) -> None:
        """Stop reading from a client that sends faster than it may, until it is on time again."""
        rate = self.hub.options.max_publishes_per_s
        self._tokens = min(rate, self._tokens + (now - self._tokens_at) * rate) if self._tokens_at else float(rate)
        self._tokens_at = now
        self._tokens -= messages
        if self._tokens < 0 and not self.ended:
            self.hub.counters.throttled += 1
            self._block(Block.RATE)
            self.hub.loop.call_later(-self._tokens / rate, self._unblock, Block.RATE)


def _packet_id(wire_id: bytes) -> int:
    packet_id = wire_id[0] << 8 | wire_id[1]
    if not packet_id:
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet identifier of 0")  # [MQTT-2.2.1-3]
    return packet_id


def _declared(rest: bytes | bytearray, limit: int) -> int:
    """How many bytes the packet at the beginning has in all; 0 when that is not to be known or not to be waited for."""
    length, shift = 0, 0
    for at in range(1, 5):
        length |= (rest[at] & 0x7F) << shift
        shift += 7
        if rest[at] < 0x80:
            total = at + 1 + length
            return total if len(rest) < total <= limit else 0
    return 0

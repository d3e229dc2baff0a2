"""One client's connection, from its first byte to its last: coming, going, waiting, and being made to wait.

What its packets mean is elsewhere: `admission` (the CONNECT), `reading` (the hot path), `owing` (acknowledgements).
Whatever ends a connection calls `end`, once, at once and without waiting: taking over and kicking must not depend on
a peer that does not read.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVarTuple

from broker.native import admission
from broker.native.answers import answer, nearest
from broker.native.block import Block
from broker.native.feeding import Feed
from broker.native.owing import Owing
from broker.native.reading import Reader
from broker.native.session import Session
from broker.packets import MQTT_5, Connack, Connect, Disconnect, MalformedPacket, PacketType, frame
from broker.packets.properties import Properties
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.hub import Hub

logger = logging.getLogger(__name__)

Given = TypeVarTuple("Given")

_KEEPALIVE_GRACE = 1.5  # [MQTT-3.1.2-22]; 3.1.1: [MQTT-3.1.2-24]
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_CLOSING_S = 2.0  # for the last bytes to go out
_ESTABLISHED = 1  # the first byte of Linux' struct tcp_info
_PROBING = (
    ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)) if sys.platform == "linux" else ()
)
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


class Connection(asyncio.Protocol):
    """A client's connection. `session` is set once it was let in; `username` as soon as it has said it."""

    __slots__ = (
        "_keepalive_s",
        "_need",
        "_reader",
        "_rest",
        "_slowed",
        "_socket",
        "_task",
        "_unread_since",
        "address",
        "aliases",
        "blocked",
        "connect",
        "ended",
        "exchange",
        "feed",
        "heard_at",
        "hub",
        "maximum_packet_size",
        "mqtt5",
        "owing",
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
        self.maximum_packet_size = 0
        """The largest packet the client takes; 0 for any."""
        self.ended = ""
        """Why it ended, in words; empty while it lives."""
        self.slot = 0
        self._socket: Any = None
        self._task: asyncio.Task[None] | None = None
        self._slowed: asyncio.TimerHandle | None = None
        self.blocked = Block(0)
        self._rest: bytes | bytearray = b""
        self._need = 0  # bytes that `_rest` must have before it is looked at again
        self.heard_at = 0.0
        self._keepalive_s = 0.0
        self._unread_since = 0.0
        self.owing = Owing(self)
        self.feed = Feed(self)
        self._reader = Reader(self)
        self.aliases: dict[int, bytes] = {}

    # --- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._socket = transport.get_extra_info("socket")
        self.heard_at = monotonic()
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "local"
        options = self.hub.options
        transport.set_write_buffer_limits(high=min(options.max_connect_bytes, options.max_outgoing_bytes))
        if hasattr(transport, "max_size"):  # asyncio's own takes 256 KiB a read; before a CONNECT nobody gets that
            transport.max_size = min(transport.max_size, options.max_connect_bytes)
        if not self.hub.gate.enter(self):
            self.end("too many connections", cut=True)
            return
        self.hub.wheel.set(self, self.heard_at + options.connect_timeout_s)

    def data_received(self, data: bytes) -> None:
        hub = self.hub
        size = len(data)
        hub.counters.bytes_received += size
        if not (self._rest or self.blocked or self.ended) and self._reader.lone(data):
            hub.after_read(size)
            return
        if self._rest:
            if len(self._rest) + size < self._need:  # a large packet, in pieces: gathered without looking again
                if isinstance(self._rest, bytes):
                    self._rest = bytearray(self._rest)
                self._rest += data
                return
            data = bytes(self._rest + data)
            self._rest = b""
        if self.blocked or self.ended:
            self._rest = b"" if self.ended else data
            return
        self._work(data)
        hub.after_read(size)
        hub.wake()

    def eof_received(self) -> None:
        """The peer sends nothing more: the transport closes, and `connection_lost` follows."""

    def pause_writing(self) -> None:
        """The client does not read: QoS 0 is dropped, the rest waits, and what it sends is left in the network."""
        self._unread_since = monotonic()
        if self.session is not None:
            self.session.congested = True
            self.hub.wheel.set(self, self._unread_since + self.hub.options.write_timeout_s)
        self.block(Block.UNREAD)

    def resume_writing(self) -> None:
        self._unread_since = 0.0
        if self.session is not None and not self.ended:
            self.session.congested = False
            self.session.pump(monotonic())
            self.feed.go_on()
            self.heard_at = monotonic()  # we were what kept it silent
            self.hub.wheel.set(self, self.heard_at)  # `due` says until when to wait on
            self.hub.wake()
        self.unblock(Block.UNREAD)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended:
            self.end(LOST)
        if self._task is not None:
            self._task.cancel()
        if self._slowed is not None:
            self._slowed.cancel()
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
        if self.session is None:
            if now - self.heard_at < options.connect_timeout_s:
                return self.heard_at + options.connect_timeout_s
            self.hub.counters.refused_connections += 1
            self.end(NO_CONNECT, cut=self._unread_since > 0)
            return None
        if self._unread_since:
            if now - self._unread_since >= options.write_timeout_s:
                self.hub.counters.slow_closed += 1
                self.end("not reading", cut=True)
                return None
            return self._unread_since + options.write_timeout_s
        if self.blocked and now >= self.heard_at + self._keepalive_s:  # we are what keeps it silent
            if self._is_lost():
                self.end(LOST, cut=True)
                return None
            self.heard_at = now
        deadline = self.heard_at + self._keepalive_s
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
        if session is not None and session.connection is self:  # [MQTT-3.14.0-1]
            if self.mqtt5 and reason is not None and not cut:
                self.hub.flush_session(session)
                self._write(self._disconnect(reason, detail))  # [MQTT-3.14.4-1]
            elif not cut:
                self.hub.flush_session(session)
        if session is not None:
            if session.connection is self:
                self.feed.end()
            self.hub.sessions.detach(self, session, words, with_will=with_will)
        self._rest = b""  # [MQTT-3.1.4-6]
        if self.transport is not None:
            if cut:
                self.transport.abort()
            else:
                self.hub.wheel.set(self, monotonic() + _CLOSING_S)
                self.transport.close()  # [MQTT-3.14.4-2]
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
        self._write(answer(connack, MQTT_5 if self.mqtt5 else 4, self.maximum_packet_size))
        self.end(words)  # [MQTT-3.2.2-7], [MQTT-4.13.2-1]

    def accept(self, session: Session, connack: bytes, *, keepalive_s: int) -> None:
        """The client is let in: from here on the session's `out` is this connection's."""
        self.session = session
        self.connect = None
        self._keepalive_s = keepalive_s * _KEEPALIVE_GRACE
        self.heard_at = monotonic()
        self.hub.wheel.set(self, self.heard_at + self._keepalive_s)
        transport = self.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=self.hub.options.max_outgoing_bytes)
            if hasattr(transport, "max_size"):
                transport.max_size = 256 * 1024
        session.emit(connack)
        if self.hub.options.max_publishes_per_s:
            self._slow_down(self.hub.allowances.wait_s(_payer(session), self.heard_at))

    def send(self, data: bytes) -> None:
        """What the session had to say since the last flush."""
        self._write(data)

    def run(self, name: str, work: Callable[[*Given], Coroutine[Any, Any, None]], *given: *Given) -> None:
        """Do what must wait for the Guard; the client is not read from until it is done.

        It may come to an end before it has begun.
        """
        self.block(Block.GUARD)
        self._task = self.hub.loop.create_task(self._guarded(work, *given), name=f"{name} {self.address}")

    def fault(self, fault: MalformedPacket) -> None:
        """The peer sent what MQTT forbids: say so where it can be said, and close [MQTT-4.13.1-1]."""
        self.hub.counters.protocol_errors += 1
        logger.debug("%s %.70r: %s", self.address, self.username, fault.detail)
        if self.session is None:
            admission.answer_malformed(self, fault)
        self.end(fault.reason.words, fault.reason, detail=fault.detail)

    async def _guarded(self, work: Callable[[*Given], Coroutine[Any, Any, None]], *given: *Given) -> None:
        try:
            await work(*given)
        except MalformedPacket as fault:
            self.fault(fault)
        except Exception:
            logger.exception("%s %.70r: the connection failed here", self.address, self.username)
            self.end("unspecified error", ReasonCode.UNSPECIFIED_ERROR)
        self._task = None
        self.unblock(Block.GUARD)
        self.hub.wake()

    def _is_lost(self) -> bool:
        """Whether the kernel knows that the peer is gone: nobody else notices while nothing is read. Linux only.

        From the first time on it probes the peer, and gives one up that has vanished after two minutes.
        """
        if self._socket is None or sys.platform != "linux":
            return False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _PROBING:
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return True
            return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED)
        except OSError:  # no TCP
            return False

    def _disconnect(self, reason: ReasonCode, detail: str) -> bytes:
        properties: Properties = {}
        if self.tell_why and reason is not ReasonCode.SUCCESS:
            properties = {"reason_string": detail or reason.words}
        # [MQTT-3.14.2-1], [MQTT-3.14.2-2]: the session expiry is the client's to change
        packet = Disconnect(reason=nearest(reason, PacketType.DISCONNECT), properties=properties)
        return answer(packet, MQTT_5, self.maximum_packet_size)

    def _write(self, data: bytes) -> None:
        if data and self.transport is not None and not self.transport.is_closing():
            self.hub.counters.bytes_sent += len(data)
            self.transport.write(data)

    def block(self, why: Block) -> None:
        if not self.blocked and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self.blocked |= why

    def unblock(self, why: Block) -> None:
        if not self.blocked:
            return
        self.blocked &= ~why
        if self.blocked or self.ended or self.transport is None or self.transport.is_closing():
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
            while self._reader.parse(data, self.session) and not self.blocked and not self.ended:
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
            self.keep(data, 0)
            return
        first, start, end = found
        self._rest = data[end:]
        admission.first_packet(self, first, data, start, end)

    def keep(self, data: bytes, offset: int) -> None:
        """What is left of a read: the beginning of a packet, or packets that must wait."""
        self._rest = data[offset:]
        self._need = 0
        limit = self.hub.options.max_packet_bytes if self.session is not None else self.hub.options.max_connect_bytes
        if not self.blocked and len(self._rest) >= 5:
            self._need = _declared(self._rest, limit)

    def acknowledge_now(self) -> None:
        """Have the kernel acknowledge what was read, although we have nothing to send with it.

        It would wait 40 ms for that, and a client with Nagle's algorithm on (most have) waits with its next packet for
        as long: paho took 43 ms for each message that it acknowledged and answered. Linux only.
        """
        if self._socket is not None and _QUICKACK is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:  # no TCP, or gone
                self._socket = None

    def give_way(self) -> None:
        """Let the others have a turn of the loop."""
        self.block(Block.TURN)
        self.hub.loop.call_soon(self.unblock, Block.TURN)

    def throttle(self, messages: int, now: float) -> None:
        """Stop reading from a client that sends faster than it may, until it is on time again."""
        if self.session is not None:
            self._slow_down(self.hub.allowances.spend(_payer(self.session), messages, now))

    def _slow_down(self, wait_s: float) -> None:
        if wait_s > 0 and not self.ended:
            self.hub.counters.throttled += 1
            if self._slowed is None:
                logger.info("%s %.70r: sends faster than it may, and is read from slowly", self.address, self.username)
            self.block(Block.RATE)
            self._slowed = self.hub.loop.call_later(wait_s, self.unblock, Block.RATE)


def _payer(session: Session) -> str:
    """Whose allowance a session's messages come from: more client ids give a user no more. No user name has a NUL."""
    return session.username or "\0" + session.client_id


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

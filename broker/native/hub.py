"""What all connections of a broker share, and the way of a message from its publisher to the sessions it is for.

Everything in here happens in the event loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from broker.allowance import Allowances
from broker.engine import Guard, Publish, Sink, Tap
from broker.native.auth import AuthMethods
from broker.native.counters import Counters
from broker.native.flapping import Flapping
from broker.native.gate import Gate
from broker.native.hooks import Hooks
from broker.native.keeping import Keeper
from broker.native.message import Grant, Message, RichMessage, application_properties, decoded_properties, wire_topic
from broker.native.options import MIB, BrokerOptions
from broker.native.retained import Retained, RetainedMessages
from broker.native.router import Route, Router
from broker.native.session import Session
from broker.native.sessions import Sessions
from broker.native.wheel import SLOT_S, Wheel
from broker.packets.properties import Properties

if TYPE_CHECKING:
    from broker.native.connection import Connection

logger = logging.getLogger(__name__)

_FLUSH_BYTES = 64 * 1024  # read since the last flush: then it is not put off to the end of the loop's turn
_BEHIND_BYTES = 32 * MIB  # not yet on disk: then clients whose messages wait for it are not read from


class Hub:
    """The state of a running broker."""

    def __init__(
        self,
        options: BrokerOptions,
        *,
        guard: Guard | None,
        sink: Sink | None,
        taps: Sequence[Tap],
        auth_methods: AuthMethods,
        keeper: Keeper | None,
    ) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.sink = sink
        self.auth_methods = auth_methods
        self.counters = Counters()
        self.hooks = Hooks(options, self.counters, guard=guard, taps=taps)
        self.gate = Gate(options, self.counters, monotonic())
        at_once = options.max_publishes_at_once or options.max_publishes_per_s
        self.allowances = Allowances(options.max_publishes_per_s, at_once)
        self.flapping = Flapping(options.max_connects_per_min_per_client)
        self.wheel = Wheel(monotonic())
        self.router = Router(limit_bytes=options.max_routes_bytes)
        self.retained = RetainedMessages(options, keeper)
        self.dirty: list[Session] = []
        """Sessions with something to send."""
        self.sessions = Sessions(self, keeper)
        self._keeper = keeper
        self.now = 0.0
        """When this turn of the loop began to read, in monotonic seconds; see `look`."""
        self.stamp = 0
        """Stands for the rules and routes in force in this turn: another number after each change; 0 between turns."""
        self._stamps = 0
        self._rules = (-1, -1)
        self._reads = 0  # in this turn
        self._unflushed = 0  # bytes read since the last flush
        self._wake_scheduled = False
        self._turning: asyncio.TimerHandle | None = None
        if keeper is not None:
            keeper.woken = self.wake

    def start(self) -> None:
        """Begin to watch deadlines."""
        self._turning = self.loop.call_later(SLOT_S, self._turn)

    def stop(self) -> None:
        if self._turning is not None:
            self._turning.cancel()

    @property
    def journaled(self) -> int:
        """How many operations have been given to the disk; to see whether some were meanwhile."""
        return self._keeper.operations if self._keeper is not None else 0

    @property
    def behind(self) -> bool:
        return self._keeper is not None and self._keeper.pending_bytes > _BEHIND_BYTES

    def when_safe(self, callback: Callable[[], None]) -> None:
        """Call back when everything so far is on disk; at once where nothing is kept there."""
        if self._keeper is None:
            callback()
        else:
            self._keeper.when_safe(callback)

    def answer(self, connection: "Connection", session: Session, data: bytes) -> None:
        """Send a client an answer when what it says is on disk, if the session is kept there.

        Not to another connection that the session has by then.
        """
        if session.journal is None:
            session.emit(data)
        else:
            self.when_safe(lambda: session.emit(data) if session.connection is connection else None)

    async def safe_for(self, session: Session) -> None:
        if session.journal is not None:
            safe = self.loop.create_future()
            self.when_safe(lambda: None if safe.done() else safe.set_result(None))
            await safe

    # --- messages

    def deliver(self, route: Route, message: Message, now: float) -> int:
        """Send a message to all subscribers of its topic; to how many connected ones it went."""
        if not route.fresh:
            self.router.refresh(route)
        route.messages += 1
        reached = 0
        for session, grant in route.others:
            if session.deliver(message, grant, now) and session.out is not None:
                reached += 1
        if route.plain:
            reached += _at_qos_0(route.plain, message, self, mqtt5=False)
        if route.plain5:
            if message.expires_at is None:
                reached += _at_qos_0(route.plain5, message, self, mqtt5=True)
            else:
                grant = Grant(0)
                reached += sum(session.deliver(message, grant, now) for session in route.plain5)
        for group in route.groups:
            reached += group.deliver(message, now)
        self.counters.messages_sent += reached
        if route.inline:
            self.call_back(route, message)
        return reached

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool = False,
        properties: Properties | None = None,
        sender: Session | None = None,
        now: float,
    ) -> int:
        """Route a message that came in no PUBLISH packet; to how many connected sessions it went."""
        wire = wire_topic(topic)
        expiry_s = properties.get("message_expiry_interval") if properties else None
        application = {k: v for k, v in (properties or {}).items() if k != "will_delay_interval"}
        message: Message
        if retain or application:
            message = RichMessage(
                wire,
                payload,
                qos,
                sender,
                properties=application_properties(application),  # type: ignore[arg-type]
                expires_at=None if expiry_s is None else now + expiry_s,
                retain=retain,
            )
        else:
            message = Message(wire, payload, qos, sender)
        if retain:
            owner = ("", "") if sender is None else (sender.client_id, sender.username)
            self.retain(topic, Retained(message, *owner))
        reached = self.deliver(self.router.route(wire), message, now)
        self.wake()
        return reached

    def retain(self, topic: str, retained: Retained) -> bool:
        """Keep a retained message; False, and counted, at a bound."""
        if self.retained.keep(topic, retained, self.look()):
            return True
        self.counters.dropped_retained += 1
        return False

    def gauges(self) -> dict[str, int]:
        """How much there is of what has a bound."""
        return {
            "connections_now": len(self.gate.connections),
            "connecting": self.gate.waiting,
            "sessions": len(self.sessions),
            "sessions_away": self.sessions.away,
            "subscriptions": sum(len(session.subscriptions) for session in self.sessions),
            "queued_bytes": self.sessions.queued_bytes,
            "queued_bytes_of_one": self.sessions.queued_bytes_of_one,
            "retained_messages": len(self.retained),
            "retained_bytes": self.retained.bytes,
            "routes": len(self.router.routes),
            "routes_bytes": self.router.bytes,
            "inflight": sum(len(session.inflight) + len(session.released) for session in self.sessions),
            "undone": sum(connection.owing.undone for connection in self.gate.connections),
            "undone_bytes": sum(connection.owing.bytes for connection in self.gate.connections),
            "feeds": sum(len(connection.feed.waiting) for connection in self.gate.connections),
        }

    def call_back(self, route: Route, message: Message) -> None:
        """Tell the subscriptions of this process."""
        sender = message.sender
        shown = Publish(
            topic=route.name,
            payload=message.payload,
            qos=message.qos,
            retain=message.retain,
            client_id=sender.client_id if sender is not None else "",
            username=sender.username if sender is not None else "",
            properties=decoded_properties(message.properties) if message.properties else None,  # type: ignore[arg-type]
        )
        for subscription in list(route.inline):
            try:
                subscription.callback(shown)
            except Exception:
                logger.exception("a subscription of ours failed on %.200r", route.name)

    # --- sending

    def look(self) -> float:
        """The time. Clock and rules are read once in a turn of the loop, at whose end everything is flushed."""
        if not self.stamp:
            self.now = monotonic()
            rules = (self.hooks.rules_version, self.router.epoch)
            if rules != self._rules or not self.hooks.is_versioned:
                self._rules = rules
                self._stamps += 1
            self.stamp = self._stamps
            self._end_turn()
        return self.now

    def after_read(self, size: int) -> None:
        """A connection has worked through `size` bytes: what they caused goes out.

        At once after the first read of a turn, so that a lone message waits for nothing; what further reads cause waits
        for the end of the turn, so that a busy broker writes once for many of them.
        """
        self._reads += 1
        self._unflushed += size
        if self._reads == 1 or self._unflushed >= _FLUSH_BYTES:
            self.flush()

    def wake(self) -> None:
        """Flush at the end of this turn of the loop."""
        if self.dirty:
            self._end_turn()

    def _end_turn(self) -> None:
        if not self._wake_scheduled:
            self._wake_scheduled = True
            self.loop.call_soon(self._turn_ended)

    def _turn_ended(self) -> None:
        self._wake_scheduled = False
        self.stamp = 0
        self._reads = 0
        self.flush()

    def flush(self) -> None:
        """Write what all sessions have to send, one write each."""
        self._unflushed = 0
        dirty = self.dirty.copy()
        self.dirty.clear()
        for session in dirty:
            self.flush_session(session)
            if session.overflowed:
                self.sessions.overflow(session)

    def flush_session(self, session: Session) -> None:
        out = session.out
        if out and session.connection is not None:
            data = b"".join(out)
            out.clear()
            session.connection.send(data)

    def _turn(self) -> None:
        self._turning = self.loop.call_later(SLOT_S, self._turn)
        try:
            self.wheel.turn(monotonic())
        except Exception:
            logger.exception("a deadline failed")
        self.wake()


def _at_qos_0(sessions: list[Session], message: Message, hub: Hub, *, mqtt5: bool) -> int:
    """Send one message to plain subscribers of QoS 0."""
    head, tail = message.form(0x30, mqtt5=mqtt5)
    dirty = hub.dirty
    reached = 0
    for session in sessions:
        out = session.out
        if out is None:
            continue
        if session.congested:
            hub.counters.dropped_slow += 1
            continue
        if not out:
            dirty.append(session)
        out += (head, tail)
        reached += 1
    return reached

"""What all connections of a broker share: the sessions, who gets what, and what the hooks are asked and told.

Everything in here happens in the event loop's thread. Only the Guard is waited for; whatever was true before an await
is looked at again after it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from broker.engine import (
    ConnectRequest,
    DenyAll,
    Guard,
    Publish,
    SessionInfo,
    Sink,
    SubscriptionTap,
    Tap,
    VersionedGuard,
)
from broker.native.auth import AuthMethods
from broker.native.counters import Counters
from broker.native.keeping import Keeper
from broker.native.message import Grant, Message, RichMessage, application_properties, decoded_properties, wire_topic
from broker.native.options import MIB, BrokerOptions
from broker.native.retained import Retained, RetainedMessages
from broker.native.router import Route, Router
from broker.native.session import Session, Shared
from broker.native.shared import split_shared
from broker.native.wheel import SLOT_S, Wheel
from broker.packets import Subscription, Will
from broker.packets.properties import Properties
from broker.reason import ReasonCode
from broker.topics import is_topic

if TYPE_CHECKING:
    from broker.native.connection import Connection

logger = logging.getLogger(__name__)

_FLUSH_BYTES = 64 * 1024  # read since the last flush: then it is not put off to the end of the loop's turn
_BEHIND_BYTES = 32 * MIB  # not yet on disk: then clients whose messages wait for it are not read from
TAKEN_OVER = "taken over"


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
        self.guard: Guard = guard if guard is not None else DenyAll()
        self.sink = sink
        self.taps = tuple(taps)
        self.auth_methods = auth_methods
        self.counters = Counters()
        self.wheel = Wheel(monotonic())
        self.router = Router(limit_bytes=options.max_routes_bytes)
        self.retained = RetainedMessages(options, keeper)
        self.sessions: dict[str, Session] = {}
        """By client id, connected or kept."""
        self.dirty: list[Session] = []
        """Sessions with something to send."""
        self.connections: set[Connection] = set()
        self.draining = False
        self._shared = Shared(options, self.counters, self.dirty)
        self._keeper = keeper
        self._connecting: set[Connection] = set()
        self._per_address: dict[str, int] = {}
        self._per_username: dict[str, dict[str, None]] = {}  # client ids, oldest first
        self._away: dict[str, None] = {}  # client ids of sessions without a connection, longest away first
        self._versioned = guard if isinstance(guard, VersionedGuard) else None
        self._unflushed = 0
        self._wake_scheduled = False
        self._connect_tokens = float(options.max_connects_per_s)
        self._connect_tokens_at = monotonic()
        self._turning: asyncio.TimerHandle | None = None
        self._deserted: asyncio.Future[None] | None = None
        if keeper is not None:
            keeper.woken = self.wake

    def start(self) -> None:
        """Begin to watch deadlines."""
        self._turning = self.loop.call_later(SLOT_S, self._turn)

    def stop(self) -> None:
        if self._turning is not None:
            self._turning.cancel()

    @property
    def rules_version(self) -> int:
        """How long the Guard's answers about PUBLISH hold; below 0: not at all."""
        return self._versioned.rules_version if self._versioned is not None else -1

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

    def when_safe_for(self, session: Session, callback: Callable[[], None]) -> None:
        """The same, but only sessions that are kept on disk wait."""
        if session.journal is None:
            callback()
        else:
            self.when_safe(callback)

    async def safe_for(self, session: Session) -> None:
        if session.journal is not None:
            safe = self.loop.create_future()
            self.when_safe(lambda: None if safe.done() else safe.set_result(None))
            await safe

    # --- connections

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room for another connection."""
        options, counters, address = self.options, self.counters, connection.address
        counters.connections += 1
        mine = self._per_address.get(address, 0)
        if (
            self.draining
            or len(self.connections) >= options.max_connections
            or len(self._connecting) >= options.max_connecting
            or mine >= options.max_connections_per_address
        ):
            counters.refused_connections += 1
            return False
        self.connections.add(connection)
        self._connecting.add(connection)
        self._per_address[address] = mine + 1
        return True

    def leave(self, connection: "Connection") -> None:
        """The connection's transport is gone."""
        self._connecting.discard(connection)
        if connection in self.connections:
            self.connections.discard(connection)
            left = self._per_address[connection.address] - 1
            if left:
                self._per_address[connection.address] = left
            else:
                del self._per_address[connection.address]
        if not self.connections and self._deserted is not None and not self._deserted.done():
            self._deserted.set_result(None)

    async def deserted(self) -> None:
        """Wait until the last connection is gone."""
        if self.connections:
            self._deserted = self.loop.create_future()
            await self._deserted

    def connect_allowed(self, now: float) -> bool:
        """Whether another CONNECT may come now."""
        rate = self.options.max_connects_per_s
        if not rate:
            return True
        self._connect_tokens = min(rate, self._connect_tokens + (now - self._connect_tokens_at) * rate)
        self._connect_tokens_at = now
        if self._connect_tokens < 1:
            return False
        self._connect_tokens -= 1
        return True

    # --- sessions

    def make_room(self, client_id: str, username: str) -> bool:
        """Whether a session fits, after the one longest away has given way if need be."""
        if client_id in self.sessions:
            return True
        mine = self._per_username.get(username, {})
        if username and len(mine) >= self.options.max_sessions_per_username:
            oldest = next((each for each in mine if each in self._away), None)
            if oldest is None:
                return False
            self.forget(self.sessions[oldest])
        if len(self.sessions) >= self.options.max_sessions:
            oldest = next(iter(self._away), None)
            if oldest is None:
                return False
            self.forget(self.sessions[oldest])
        return True

    def take_over(self, client_id: str, username: str, *, clean: bool, unwanted: set[str]) -> tuple[Session, bool]:
        """The session for a client that was let in, and whether it was there before.

        Another connection of the client is ended first [MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2].
        """
        old = self.sessions.get(client_id)
        if old is not None and old.connection is not None:
            self.counters.takeovers += 1
            old.connection.end(TAKEN_OVER, ReasonCode.SESSION_TAKEN_OVER)
            old = self.sessions.get(client_id)  # gone now, if it ended with its connection
        if old is not None and (clean or old.username != username):  # nor does anybody inherit another's session
            self.forget(old)  # [MQTT-3.1.2-4]; 3.1.1: [MQTT-3.1.2-6]
            old = None
        if old is None:
            return self._add(client_id, username), False  # [MQTT-3.1.2-6]
        for topic_filter in [each for each in old.subscriptions if each in unwanted]:
            self.unsubscribe(old, topic_filter)
        if unwanted:
            allowed = set(self._topics_of(old))
            old.drop_queued(lambda topic: topic not in allowed)
        return old, True  # [MQTT-3.1.2-5]

    def attach(
        self,
        connection: "Connection",
        session: Session,
        *,
        expiry_s: int,
        window: int,
        alias_maximum: int,
        maximum_packet_size: int,
    ) -> None:
        """The session's client is there."""
        self._connecting.discard(connection)
        self._away.pop(session.client_id, None)
        self.wheel.clear(session)
        session.expires_at = session.will_at = None  # [MQTT-3.1.3-9]
        session.expiry_s = expiry_s
        session.connected_at = datetime.now(UTC)
        session.journal = self._keeper if session.durable else None
        session.attach(connection, window=window, alias_maximum=alias_maximum, maximum_packet_size=maximum_packet_size)
        for topic_filter in session.subscriptions:  # protocol version and limits may be others now
            self.router.touch(_inner(topic_filter))
        self.keep_session(session)

    def detach(self, connection: "Connection", session: Session, words: str, *, with_will: bool) -> None:
        """A connection has ended: its session waits for the client, or ends; its will is published, now or later."""
        if session.connection is not connection:
            return
        now = monotonic()
        session.detach()
        if not with_will:
            session.will = None
        if self.sessions.get(session.client_id) is session:
            session.hand_back(now)
            delay_s = session.will.properties.get("will_delay_interval", 0) if session.will is not None else 0
            if session.will is not None and (not delay_s or not session.durable):
                self._publish_will(session, now)
            elif session.will is not None:
                session.will_at = now + delay_s
            if session.durable:
                session.expires_at = now + session.expiry_s
                self._away[session.client_id] = None
                self.wheel.set(session, min(session.expires_at, session.will_at or session.expires_at))
                self.keep_session(session)
            else:
                self.forget(session)
        self.tell("disconnected", session.client_id, session.username, words)

    def forget(self, session: Session, *, with_will: bool = True) -> None:
        """End a session that has no connection, with all that waits for it; its will is due now."""
        if self.sessions.get(session.client_id) is not session:
            return
        del self.sessions[session.client_id]
        self._away.pop(session.client_id, None)
        mine = self._per_username[session.username]
        mine.pop(session.client_id, None)
        if not mine:
            del self._per_username[session.username]
        self.wheel.clear(session)
        for topic_filter in list(session.subscriptions):
            self.unsubscribe(session, topic_filter)
        if with_will and session.will is not None:
            self._publish_will(session, monotonic())
        session.end()
        if self._keeper is not None:
            self._keeper.delete_session(session.client_id)

    def kick(self, username: str, reason: ReasonCode) -> int:
        """End every connection of a user name, also those still asking to be let in, and forget its sessions."""
        client_ids = list(self._per_username.get(username, ()))
        asking = 0
        for connection in [other for other in self.connections if other.username == username and not other.ended]:
            asking += connection.session is None
            connection.end(reason.words, reason, with_will=False)
        for client_id in client_ids:
            if (session := self.sessions.get(client_id)) is not None:
                self.forget(session, with_will=False)
        return len(client_ids) + asking

    def info(self, session: Session) -> SessionInfo:
        return SessionInfo(
            client_id=session.client_id,
            username=session.username,
            address=session.address,
            protocol=session.protocol,
            connected=session.out is not None,
            connected_at=session.connected_at,
            keepalive_s=session.keepalive_s,
            clean_start=session.clean_start,
            subscriptions=tuple(session.subscriptions),
            queued=session.queued,
            inflight=len(session.inflight) + len(session.released),
        )

    def keep_session(self, session: Session) -> None:
        """Write down what has changed of a session that outlives a crash, or that it does so no longer."""
        if self._keeper is None:
            return
        if session.durable:
            self._keeper.put_session(session)
        elif session.journal is not None:
            session.journal = None
            self._keeper.delete_session(session.client_id)

    def restore(self) -> None:
        """Bring back what is on disk: sessions wait for their clients from now on."""
        if self._keeper is None:
            return
        now = monotonic()
        for client_id, username, fill in self._keeper.sessions():
            session = self._add(client_id, username)
            fill(session, now)
            session.journal = self._keeper
            for topic_filter, grant in list(session.subscriptions.items()):
                self._route_to(session, topic_filter, grant)
            self._away[client_id] = None
            deadlines = [each for each in (session.expires_at, session.will_at) if each is not None]
            self.wheel.set(session, min(deadlines))
        for topic, retained in self._keeper.retained(now):
            self.retained.keep(topic, retained, restored=True)

    def _add(self, client_id: str, username: str) -> Session:
        session = self.sessions[client_id] = Session(client_id, username, self._shared)
        session.on_due = self._session_due
        self._per_username.setdefault(username, {})[client_id] = None
        return session

    def _session_due(self, session: Session, now: float) -> float | None:
        """A session that is away: its will delay or its expiry may have come."""
        if session.out is not None or session.expires_at is None:
            return None
        if session.expires_at <= now:
            self.forget(session)
            self.wake()
            return None
        if session.will_at is not None and session.will_at <= now:
            session.will_at = None
            self._publish_will(session, now)
            self.keep_session(session)
            self.wake()
        return min(session.expires_at, session.will_at or session.expires_at)

    def _publish_will(self, session: Session, now: float) -> None:
        """[MQTT-3.1.2-8]. The Guard is asked again, as rules change."""
        will, session.will = session.will, None
        if will is None or self.may_publish(session, will.topic).is_error:
            return
        self.counters.wills += 1
        self.publish(
            will.topic,
            will.payload,
            will.qos,
            retain=will.retain,
            properties=will.properties or None,
            sender=session,
            now=now,
        )
        if self.sink is not None:
            try:
                self.sink([_will_message(session, will)], lambda codes: None)
            except Exception:
                logger.exception("the sink failed on a will of %.70r", session.username)

    # --- subscriptions

    def subscribe(self, session: Session, topic_filter: str, grant: Grant) -> None:
        """Add or replace a subscription [MQTT-3.8.4-3]."""
        session.subscriptions[topic_filter] = grant
        self._route_to(session, topic_filter, grant)

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Take a subscription out; whether it was there."""
        if session.subscriptions.pop(topic_filter, None) is None:
            return False
        shared = split_shared(topic_filter)
        if shared is None:
            self.router.remove(topic_filter, session)
        else:
            self.router.leave(*shared, session)
        return True

    def send_retained(self, session: Session, asked: Subscription, grant: Grant, *, is_new: bool) -> None:
        """What is retained on the topics of a new subscription [MQTT-3.3.1-9] to [MQTT-3.3.1-11]."""
        if grant.group is not None or asked.retain_handling == 2 or (asked.retain_handling == 1 and not is_new):
            return
        now = monotonic()
        for kept in self.retained.matching(asked.topic_filter, now):
            name = kept.message.topic_name
            if kept.username and self._ask_publish(kept.client_id, kept.username, name).is_error:
                self.retained.discard(name)  # its publisher has lost the right to it
                continue
            session.deliver(kept.message, grant, now, retained=True)
        self.wake()

    def _route_to(self, session: Session, topic_filter: str, grant: Grant) -> None:
        shared = split_shared(topic_filter)
        if shared is None:
            self.router.add(topic_filter, session, grant)
        else:
            self.router.join(*shared, session, grant)

    def _topics_of(self, session: Session) -> list[str]:
        """The topics of what waits for a session that its subscriptions still match."""
        waiting = {delivery.message.topic_name for delivery in session.waiting()}
        return [name for name in waiting if session in self.router.sessions(name)]

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
        if self.retained.keep(topic, retained):
            return True
        self.counters.dropped_retained += 1
        return False

    def gauges(self) -> dict[str, int]:
        """How much there is of what has a bound."""
        return {
            "connections_now": len(self.connections),
            "connecting": len(self._connecting),
            "sessions": len(self.sessions),
            "sessions_away": len(self._away),
            "subscriptions": sum(len(session.subscriptions) for session in self.sessions.values()),
            "queued_bytes": self._shared.queued_bytes,
            "retained_messages": len(self.retained),
            "retained_bytes": self.retained.bytes,
            "routes": len(self.router.routes),
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

    def after_read(self, size: int) -> None:
        """A connection has worked through `size` bytes: what they caused goes out soon."""
        if not self.dirty:
            return
        self._unflushed += size
        if self._unflushed >= _FLUSH_BYTES:
            self.flush()
        else:
            self.wake()

    def wake(self) -> None:
        """Flush at the end of this turn of the loop."""
        if self.dirty and not self._wake_scheduled:
            self._wake_scheduled = True
            self.loop.call_soon(self._woken)

    def _woken(self) -> None:
        self._wake_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write what all sessions have to send, one write each."""
        self._unflushed = 0
        dirty = self.dirty.copy()
        self.dirty.clear()
        for session in dirty:
            self.flush_session(session)
            if session.overflowed:
                self._overflow(session)

    def flush_session(self, session: Session) -> None:
        out = session.out
        if out and session.connection is not None:
            data = b"".join(out)
            out.clear()
            session.connection.send(data)

    def _overflow(self, session: Session) -> None:
        """Its queue is full, and the policy is to end it."""
        if session.connection is not None:
            session.connection.end("queue full", ReasonCode.QUOTA_EXCEEDED)
        self.forget(session)

    def _turn(self) -> None:
        self._turning = self.loop.call_later(SLOT_S, self._turn)
        try:
            self.wheel.turn(monotonic())
        except Exception:
            logger.exception("a deadline failed")
        self.wake()

    # --- asking and telling

    async def may_connect(self, request: ConnectRequest) -> ReasonCode:
        if not _is_plain(request.client_id) or not _is_plain(request.username or ""):
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        try:
            return await self.guard.connect(request)
        except Exception:
            logger.exception("the guard failed on a CONNECT")
            return ReasonCode.SERVER_UNAVAILABLE

    async def may_subscribe(self, session: Session, topic_filter: str) -> ReasonCode:
        return await self._ask_subscribe(session.client_id, session.username, topic_filter)

    async def revoked(self, client_id: str, username: str) -> set[str]:
        """The subscriptions of a kept session that the Guard does not allow any more."""
        kept = self.sessions.get(client_id)
        if kept is None or kept.username != username:
            return set()
        return {
            each
            for each in list(kept.subscriptions)
            if (await self._ask_subscribe(client_id, username, _inner(each))).is_error
        }

    def may_publish(self, session: Session, topic: str) -> ReasonCode:
        """Whether the Guard allows it now; the taps are told when not."""
        code = self._ask_publish(session.client_id, session.username, topic)
        if code.is_error:
            self.counters.refused_publishes += 1
            self.tell("refused", session.client_id, session.username, "publish", topic, code)
        return code

    def may_will(self, client_id: str, username: str, topic: str) -> ReasonCode:
        """Whether a client may have a will on this topic."""
        options = self.options
        if (
            not is_topic(topic)
            or len(topic.encode()) > options.max_topic_bytes
            or topic.count("/") >= options.max_topic_levels
        ):
            return ReasonCode.TOPIC_NAME_INVALID
        return self._ask_publish(client_id, username, topic)

    async def _ask_subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        try:
            return await self.guard.subscribe(client_id, username, topic_filter)
        except Exception:
            logger.exception("the guard failed on a SUBSCRIBE")
            return ReasonCode.NOT_AUTHORIZED

    def _ask_publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        if topic.startswith("$"):
            return ReasonCode.NOT_AUTHORIZED
        try:
            return self.guard.publish(client_id, username, topic)
        except Exception:
            logger.exception("the guard failed on a PUBLISH")
            return ReasonCode.NOT_AUTHORIZED

    def tell(self, what: str, *args: Any) -> None:
        """Tell the taps."""
        for tap in self.taps:
            if what == "subscribed" and not isinstance(tap, SubscriptionTap):
                continue
            try:
                getattr(tap, what)(*args)
            except Exception:
                logger.exception("a tap failed on %s", what)


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


def _inner(topic_filter: str) -> str:
    """The filter without what makes it shared."""
    shared = split_shared(topic_filter)
    return topic_filter if shared is None else shared[1]


def _is_plain(name: str) -> bool:
    """No control characters: such names break logs, and topics made of them [MQTT-1.5.4-2]."""
    return name.isprintable() or not any(ord(each) < 32 or ord(each) == 127 for each in name)


def _will_message(session: Session, will: Will) -> Publish:
    return Publish(
        topic=will.topic,
        payload=will.payload,
        qos=will.qos,
        retain=will.retain,
        client_id=session.client_id,
        username=session.username,
        properties=will.properties or None,
    )

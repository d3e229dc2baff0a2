"""amqtt's broker with every decision taken by our Guard, and routing without tasks or queues.

Kept of amqtt: the life cycle, the tables of sessions and retained messages, and the expiry of sessions. Its plugins
are not loaded (its default ones let anybody in and publish $SYS topics); its listeners are left unused.
"""

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from broker.amqtt_engine.connection import Connection
from broker.amqtt_engine.options import AmqttOptions
from broker.amqtt_engine.retained import Retained
from broker.amqtt_engine.session import ClientSession, Outgoing
from broker.engine import ConnectRequest, DenyAll, Guard, Publish, SessionInfo, Sink, SubscriptionTap, Tap
from broker.reason import ReasonCode
from broker.topics import FilterTree, highest_qos, is_filter, is_topic

logger = logging.getLogger(__name__)

# MQTT 3.1.1 table 3.1; everything else is 5, not authorized.
_RETURN_CODES = {
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: 1,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: 2,
    ReasonCode.SERVER_UNAVAILABLE: 3,
    ReasonCode.SERVER_BUSY: 3,
    ReasonCode.QUOTA_EXCEEDED: 3,
    ReasonCode.SERVER_SHUTTING_DOWN: 3,
    ReasonCode.UNSPECIFIED_ERROR: 3,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: 4,
}
_NOT_AUTHORIZED = 5


class GuardedBroker(Broker):  # type: ignore[misc]  # amqtt has no types
    """The sessions, and who gets what."""

    def __init__(self, options: AmqttOptions, *, guard: Guard | None, sink: Sink | None, taps: Sequence[Tap]) -> None:
        unused = ListenerConfig(type=ListenerType.EXTERNAL, bind="")
        expiry_s = options.session_expiry_s
        super().__init__(BrokerConfig(listeners={"default": unused}, plugins={}, session_expiry_interval=expiry_s))
        self.sink = sink
        self.connections: set[Connection] = set()
        self.retained = Retained(self._retained_messages, options)
        self.dropped = 0
        """Deliveries and retained messages dropped at a bound."""
        self._guard: Guard = guard if guard is not None else DenyAll()
        self._taps = tuple(taps)
        self._options = options
        self._asking: set[Connection] = set()  # connections not let in yet
        self._filters: FilterTree[str, int] = FilterTree()
        self._client_ids: dict[str, dict[str, None]] = {}  # of each user name, oldest first

    async def attend(self, connection: Connection) -> None:
        """Serve one connection to its end."""
        options = self._options
        if len(self.connections) >= options.max_connections or len(self._asking) >= options.max_connecting:
            connection.end("too many connections", cut=True)
        self.connections.add(connection)
        self._asking.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self._asking.discard(connection)

    # --- coming and going

    async def admit(self, connection: Connection, packet: Any) -> None:
        """Ask the Guard about a CONNECT, and let the client in or refuse it.

        The session that is there under its client id stays untouched until the Guard has said yes.
        """
        username = connection.username
        clean = bool(packet.clean_session_flag)
        if not (client_id := packet.client_id):
            if not clean:  # [MQTT-3.1.3-8]
                connection.refuse(2, "no client id")
                return
            client_id = f"{username or 'client'}:{secrets.token_hex(8)}"
        action, target = "connect", connection.wire.address
        code = await self._ask_connect(connection, packet, client_id)
        if not code.is_error and packet.will_flag:
            action, target = "publish", packet.will_topic
            is_valid = is_topic(target)
            code = self._ask_publish(client_id, username, target) if is_valid else ReasonCode.TOPIC_NAME_INVALID
        if code.is_error:
            self._tell("refused", client_id, username, action, target, code)
            connection.refuse(_RETURN_CODES.get(code, _NOT_AUTHORIZED), code.name.lower().replace("_", " "))
            return
        allowed = await self._still_allowed(client_id, username) if not clean else set()
        if connection.ended:  # kicked, or gone, while the Guard thought
            return
        if not self._make_room(client_id, username):
            self._tell("refused", client_id, username, "connect", connection.wire.address, ReasonCode.QUOTA_EXCEEDED)
            connection.refuse(3, "too many sessions")
            return
        self._enter(connection, packet, client_id, clean=clean, allowed=allowed)

    async def _ask_connect(self, connection: Connection, packet: Any, client_id: str) -> ReasonCode:
        if "\0" in client_id or "\0" in connection.username:
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        request = ConnectRequest(
            client_id=client_id,
            username=packet.username if packet.username_flag else None,
            password=packet.password if packet.password_flag else None,
            address=connection.wire.address,
            will_topic=packet.will_topic if packet.will_flag else None,
            certificate=connection.wire.certificate,
        )
        try:
            return await self._guard.connect(request)
        except Exception:
            logger.exception("the guard failed on a CONNECT")
            return ReasonCode.SERVER_UNAVAILABLE

    async def _still_allowed(self, client_id: str, username: str) -> set[str]:
        """The subscriptions of a kept session that the Guard allows today."""
        kept = self._session(client_id)
        if kept is None or kept.username != username:
            return set()
        filters = list(kept.filters)
        return {text for text in filters if not (await self._ask_subscribe(client_id, username, text)).is_error}

    def _make_room(self, client_id: str, username: str) -> bool:
        mine = self._client_ids.get(username, {})
        if not username or client_id in mine or len(mine) < self._options.max_sessions_per_username:
            return True
        for other in mine:
            if (session := self._session(other)) is not None and not session.connected:
                self._forget(session)
                return True
        return False

    def _enter(self, connection: Connection, packet: Any, client_id: str, *, clean: bool, allowed: set[str]) -> None:
        if (old := self._session(client_id)) is not None and (previous := self.connection_of(old)) is not None:
            previous.end("taken over", cut=True)  # [MQTT-3.1.4-2]
        kept = self._session(client_id)  # gone now, if it was a clean one
        if kept is not None and (clean or kept.username != connection.username):
            self._forget(kept)  # [MQTT-3.1.2-6]; nor does anybody inherit another's session
            kept = None
        session = kept or ClientSession(client_id, connection.username, clean=clean, options=self._options)
        session.outbox.on_drop = self._count_drop
        for topic_filter in [text for text in session.filters if text not in allowed]:
            self.unsubscribe(session, topic_filter)
        session.will_flag = bool(packet.will_flag)
        if packet.will_flag:
            session.will_topic, session.will_message = packet.will_topic, bytes(packet.will_message)
            session.will_qos, session.will_retain = packet.will_qos, bool(packet.will_retain_flag)
        cap_s = self._options.keepalive_cap_s
        keepalive_s = min(packet.keep_alive or cap_s, cap_s)
        session.connect(connection.wire, address=connection.wire.address, keepalive_s=keepalive_s, at=datetime.now(UTC))
        self._sessions[client_id] = (session, connection)
        self._client_ids.setdefault(session.username, {})[client_id] = None
        self._asking.discard(connection)
        connection.accept(session, session_present=kept is not None)
        self._tell("connected", session.info())
        session.outbox.resume()

    def leave(self, connection: Connection, session: ClientSession, reason: str, *, with_will: bool) -> None:
        """A connection has ended: its session waits for the client, or is forgotten; its will is published."""
        session.disconnect()
        if session.clean_session:
            self._forget(session)
        if with_will and session.will_flag:
            self._publish_will(session)
        session.will_flag = False
        self._tell("disconnected", session.client_id, session.username, reason)

    def kick(self, username: str, reason: ReasonCode) -> int:
        """End every connection of a user name, also those still asking to be let in, and forget its sessions."""
        client_ids = list(self._client_ids.get(username, ()))
        words = reason.name.lower().replace("_", " ")
        asking = 0
        for connection in [other for other in self.connections if other.username == username]:
            asking += connection.session is None and not connection.ended
            connection.end(words, with_will=False, cut=True)
        for client_id in client_ids:
            if (session := self._session(client_id)) is not None:
                self._forget(session)
        return len(client_ids) + asking

    def infos(self) -> list[SessionInfo]:
        return [session.info() for session, _ in self._sessions.values()]

    def connection_of(self, session: ClientSession) -> Connection | None:
        """The live connection of a session."""
        found, connection = self._sessions.get(session.client_id, (None, None))
        return cast("Connection", connection) if found is session and session.connected else None

    def _session(self, client_id: str) -> ClientSession | None:
        return cast("ClientSession | None", self._sessions.get(client_id, (None, None))[0])

    def _forget(self, session: ClientSession) -> None:
        for topic_filter in list(session.filters):
            self.unsubscribe(session, topic_filter)
        self._sessions.pop(session.client_id, None)
        if (mine := self._client_ids.get(session.username)) is not None:
            mine.pop(session.client_id, None)
            if not mine:
                del self._client_ids[session.username]

    async def _cleanup_session(self, client_id: str) -> None:
        """amqtt's: called at a session's expiry and at the end."""
        if (session := self._session(client_id)) is None:
            return
        if (connection := self.connection_of(session)) is not None:
            await connection.stop()
        self._forget(session)

    # --- subscriptions and messages

    async def subscribe(self, session: ClientSession, topic_filter: str, qos: int) -> bool:
        """Add or replace a subscription, if the Guard allows it."""
        full = len(session.filters) >= self._options.max_subscriptions and topic_filter not in session.filters
        if not is_filter(topic_filter):
            code = ReasonCode.TOPIC_FILTER_INVALID
        elif full:
            code = ReasonCode.QUOTA_EXCEEDED
        else:
            code = await self._ask_subscribe(session.client_id, session.username, topic_filter)
        if code.is_error:
            self._tell("refused", session.client_id, session.username, "subscribe", topic_filter, code)
            return False
        if self._session(session.client_id) is session:  # it may have gone while the Guard thought
            session.filters[topic_filter] = qos
            self._filters.add(topic_filter, session.client_id, qos)
        return True

    def tell_subscribed(self, session: ClientSession, topic_filter: str) -> None:
        """The client has its SUBACK and what was retained; what is published now reaches it."""
        for tap in self._taps:
            if isinstance(tap, SubscriptionTap):
                try:
                    tap.subscribed(session.client_id, session.username, topic_filter)
                except Exception:
                    logger.exception("a tap failed on subscribed")

    def unsubscribe(self, session: ClientSession, topic_filter: str) -> None:
        if session.filters.pop(topic_filter, None) is not None:
            self._filters.discard(topic_filter, session.client_id)

    def may_publish(self, session: ClientSession, topic: str) -> bool:
        """Whether the Guard allows it now; the taps are told when not."""
        code = self._ask_publish(session.client_id, session.username, topic)
        if code.is_error:
            self._tell("refused", session.client_id, session.username, "publish", topic, code)
        return not code.is_error

    def route(self, message: Publish) -> int:
        """Retain a message when it asks for that, and offer it to every subscriber; how many connected ones took it."""
        if message.retain and not self.retained.keep(message):
            self._count_drop()
        subscribers = highest_qos(self._filters.match(message.topic))
        if not subscribers:
            return 0
        reached = 0
        outgoing = Outgoing(message.topic, message.payload)
        for client_id, granted in subscribers.items():
            session = cast("ClientSession", self._sessions[client_id][0])
            if session.outbox.offer(outgoing, min(message.qos, granted)) and session.connected:
                reached += 1
        return reached

    def _publish_will(self, session: ClientSession) -> None:
        if not self.may_publish(session, session.will_topic):  # again, as rules change
            return
        will = Publish(
            topic=session.will_topic,
            payload=session.will_message,
            qos=session.will_qos,
            retain=session.will_retain,
            client_id=session.client_id,
            username=session.username,
        )
        self.route(will)
        if self.sink is not None:
            try:
                self.sink([will], lambda codes: None)
            except Exception:
                logger.exception("the sink failed on a will of %.70r", session.username)

    # --- asking and telling

    async def _ask_subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        if topic_filter.startswith("$"):  # nor shared subscriptions, which are MQTT 5's
            return ReasonCode.NOT_AUTHORIZED
        try:
            return await self._guard.subscribe(client_id, username, topic_filter)
        except Exception:
            logger.exception("the guard failed on a SUBSCRIBE")
            return ReasonCode.NOT_AUTHORIZED

    def _ask_publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        if topic.startswith("$"):
            return ReasonCode.NOT_AUTHORIZED
        try:
            return self._guard.publish(client_id, username, topic)
        except Exception:
            logger.exception("the guard failed on a PUBLISH")
            return ReasonCode.NOT_AUTHORIZED

    def _tell(self, what: str, *args: Any) -> None:
        for tap in self._taps:
            try:
                getattr(tap, what)(*args)
            except Exception:
                logger.exception("a tap failed on %s", what)

    def _count_drop(self) -> None:
        self.dropped += 1

    # --- amqtt's own delivery, unused: nothing may bypass `route`

    async def _broadcast_message(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    async def shutdown(self) -> None:
        """Close every connection, then amqtt's own tasks."""
        for connection in list(self.connections):
            await connection.stop()
        await super().shutdown()

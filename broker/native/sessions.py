"""The sessions of a broker: who is there, who is away and for how long, taking over, kicking, wills, subscriptions."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from broker.engine import Publish, SessionInfo
from broker.native.block import Block
from broker.native.keeping import Keeper
from broker.native.message import Grant, Message
from broker.native.queue import Shared
from broker.native.session import Session
from broker.native.shared import split_shared
from broker.packets import Subscription, Will
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection
    from broker.native.hub import Hub

logger = logging.getLogger(__name__)

TAKEN_OVER = "taken over"


class Sessions:
    """Sessions by client id, connected or kept."""

    def __init__(self, hub: "Hub", keeper: Keeper | None) -> None:
        self._hub = hub
        self._keeper = keeper
        self._shared = Shared(hub.options, hub.counters, hub.dirty)
        self._by_client_id: dict[str, Session] = {}  # [MQTT-3.1.3-2]
        self._per_username: dict[str, dict[str, None]] = {}  # client ids, oldest first
        self._away: dict[str, None] = {}  # client ids of sessions without a connection, longest away first
        self.displaced = 0
        """How many sessions without a connection gave way to another, at a bound."""

    def get(self, client_id: str) -> Session | None:
        return self._by_client_id.get(client_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_client_id.values())

    def __len__(self) -> int:
        return len(self._by_client_id)

    @property
    def away(self) -> int:
        """How many are without a connection."""
        return len(self._away)

    @property
    def queued_bytes(self) -> int:
        """Of the deliveries queued in all of them."""
        return self._shared.queued_bytes

    @property
    def queued_bytes_of_one(self) -> int:
        """Of the user name with the most."""
        return max(self._shared.queued_bytes_of.values(), default=0)

    def make_room(self, client_id: str, username: str) -> bool:
        """Whether a session fits, after the one longest away has given way if need be."""
        known = self._by_client_id.get(client_id)
        if known is not None and known.username == username:
            return True
        mine = self._per_username.get(username, {})
        if username and len(mine) >= self._hub.options.max_sessions_per_username:
            oldest = next((each for each in mine if each in self._away), None)
            if oldest is None:
                return False
            self.displaced += 1
            self.forget(self._by_client_id[oldest])
        if known is None and len(self._by_client_id) >= self._hub.options.max_sessions:
            oldest = next(iter(self._away), None)
            if oldest is None:
                return False
            self.displaced += 1
            self.forget(self._by_client_id[oldest])
        return True

    def take_over(self, client_id: str, username: str, *, clean: bool, unwanted: set[str]) -> tuple[Session, bool]:
        """The session for a client that was let in, and whether it was there before.

        Another connection of the client is ended first [MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2].
        """
        old = self._by_client_id.get(client_id)
        if old is not None and old.connection is not None:
            self._hub.counters.takeovers += 1
            old.connection.end(TAKEN_OVER, ReasonCode.SESSION_TAKEN_OVER)
            old = self._by_client_id.get(client_id)  # gone now, if it ended with its connection
        if old is not None and (clean or old.username != username):  # nor does anybody inherit another's session
            self.forget(old)  # [MQTT-3.1.2-4]; 3.1.1: [MQTT-3.1.2-6]
            old = None
        if old is None:
            return self._add(client_id, username), False  # [MQTT-3.1.2-6]
        for topic_filter in [each for each in old.subscriptions if each in unwanted]:
            self.unsubscribe(old, topic_filter)
        if unwanted:
            allowed = set(self._topics_of(old))
            old.drop_unwanted(lambda topic: topic not in allowed)
        return old, True  # [MQTT-3.1.2-5]

    async def discard(self, client_id: str, username: str, *, clean: bool) -> None:
        """End what a client does not want to go on with, and wait until it is off the disk.

        It will be told that there is no session: a crash must not bring the old one back.
        """
        while (old := self._by_client_id.get(client_id)) is not None and (clean or old.username != username):
            if old.connection is not None:
                self._hub.counters.takeovers += 1
                old.connection.end(TAKEN_OVER, ReasonCode.SESSION_TAKEN_OVER)
            self.forget(old)
            await self._hub.safe_for(old)

    async def revoked(self, client_id: str, username: str) -> set[str]:
        """The subscriptions of a kept session that the Guard does not allow any more."""
        kept = self._by_client_id.get(client_id)
        if kept is None or kept.username != username:
            return set()
        hooks = self._hub.hooks
        return {
            each
            for each in list(kept.subscriptions)
            if (await hooks.may_subscribe(client_id, username, _inner(each))).is_error
        }

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
        self._hub.gate.let_in(connection)
        self._away.pop(session.client_id, None)
        self._hub.wheel.clear(session)
        session.expires_at = session.will_at = None  # [MQTT-3.1.3-9]
        session.expiry_s = expiry_s
        session.connected_at = datetime.now(UTC)
        if session.durable:  # if it is not any more, `keep` takes it off the disk
            session.journal = self._keeper
        session.attach(connection, window=window, alias_maximum=alias_maximum, maximum_packet_size=maximum_packet_size)
        for topic_filter in session.subscriptions:  # protocol version and limits may be others now
            self._hub.router.touch(_inner(topic_filter))
        self.keep(session)

    def detach(self, connection: "Connection", session: Session, words: str, *, with_will: bool) -> None:
        """A connection has ended: its session waits for the client, or ends; its will is published, now or later."""
        if session.connection is not connection:
            return
        now = monotonic()
        session.detach()
        if not with_will:
            session.will = None
        if self._by_client_id.get(session.client_id) is session:
            if not self._hub.gate.closed:  # or the next to be told to leave gets it, and so on
                session.hand_back(now)
            delay_s = session.will.properties.get("will_delay_interval", 0) if session.will is not None else 0
            if session.will is not None and (not delay_s or not session.durable):
                self._publish_will(session, now)
            elif session.will is not None:
                session.will_at = now + delay_s
            if self._by_client_id.get(session.client_id) is not session:
                pass  # what its will has set off has ended it
            elif session.durable:  # [MQTT-3.1.2-23]
                session.expires_at = now + session.expiry_s
                self._away[session.client_id] = None
                self._hub.wheel.set(session, min(session.expires_at, session.will_at or session.expires_at))
                self.keep(session)
            else:
                self.forget(session)
        self._hub.hooks.tell("disconnected", session.client_id, session.username, words)

    def forget(self, session: Session, *, with_will: bool = True) -> None:
        """End a session that has no connection, with all that waits for it; its will is due now."""
        if self._by_client_id.get(session.client_id) is not session:
            return
        del self._by_client_id[session.client_id]
        self._away.pop(session.client_id, None)
        mine = self._per_username[session.username]
        mine.pop(session.client_id, None)
        if not mine:
            del self._per_username[session.username]
        self._hub.wheel.clear(session)
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
        for connection in [
            other for other in self._hub.gate.connections if other.username == username and not other.ended
        ]:
            asking += connection.session is None
            connection.end(reason.words, reason, with_will=False)
        for client_id in client_ids:
            if (session := self._by_client_id.get(client_id)) is not None:
                self.forget(session, with_will=False)
        return len(client_ids) + asking

    def kick_client(self, username: str, client_id: str, reason: ReasonCode) -> bool:
        """End one client's connection and forget its session; False when that user name has none such."""
        session = self._by_client_id.get(client_id)
        if session is None or session.username != username:
            return False
        if session.connection is not None:
            session.connection.end(reason.words, reason, with_will=False)
        self.forget(session, with_will=False)
        return True

    def info(self, session: Session) -> SessionInfo:
        connection = session.connection if session.out is not None else None
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
            slowed=connection is not None and bool(connection.blocked & Block.RATE),
        )

    def keep(self, session: Session) -> None:
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
            try:
                was_connected = fill(session, now)
            except Exception as error:  # whatever is on disk: it costs one session, not the start
                self._keeper.cannot_read("session", client_id, error)
                session.subscriptions, session.will = {}, None
                self.forget(session)
                continue
            session.journal = self._keeper
            for topic_filter, grant in list(session.subscriptions.items()):
                self._route_to(session, topic_filter, grant)
            self._away[client_id] = None
            if was_connected:  # another restart does not begin its expiry anew
                self.keep(session)
            deadlines = [each for each in (session.expires_at, session.will_at) if each is not None]
            self._hub.wheel.set(session, min(deadlines))
        for topic, retained in self._keeper.retained(now):
            self._hub.retained.keep(topic, retained, restored=True)
        self._keeper.forget_read()

    def _add(self, client_id: str, username: str) -> Session:
        session = self._by_client_id[client_id] = Session(client_id, username, self._shared)
        session.on_due = self._session_due
        self._per_username.setdefault(username, {})[client_id] = None
        return session

    def _session_due(self, session: Session, now: float) -> float | None:
        """A session that is away: its will delay or its expiry may have come."""
        if session.out is not None or session.expires_at is None:  # [MQTT-4.1.0-1]
            return None
        if session.expires_at <= now:  # [MQTT-4.1.0-2]
            self.forget(session)
            self._hub.wake()
            return None
        if session.will_at is not None and session.will_at <= now:
            session.will_at = None
            self._publish_will(session, now)
            self.keep(session)
            self._hub.wake()
        return min(session.expires_at, session.will_at or session.expires_at)

    def _publish_will(self, session: Session, now: float) -> None:
        """[MQTT-3.1.2-8]. The Guard is asked again, as rules change."""
        will, session.will = session.will, None
        if will is None or self._hub.hooks.may_publish(session, will.topic).is_error:  # 3.1.1: [MQTT-3.1.2-12]
            return
        self._hub.counters.wills += 1
        self._hub.publish(
            will.topic,
            will.payload,
            will.qos,
            retain=will.retain,  # [MQTT-3.1.2-14], [MQTT-3.1.2-15]
            properties=will.properties or None,  # [MQTT-3.1.3-10]
            sender=session,
            now=now,
        )
        if self._hub.sink is not None:
            try:
                self._hub.sink([_will_message(session, will)], lambda codes: None)
            except Exception:
                logger.exception("the sink failed on a will of %.70r", session.username)

    def overflow(self, session: Session) -> None:
        """Its queue is full, and the policy is to end it."""
        if session.connection is not None:
            session.connection.end("queue full", ReasonCode.QUOTA_EXCEEDED)
        self.forget(session)

    # --- subscriptions

    def subscribe(self, session: Session, topic_filter: str, grant: Grant) -> None:
        """Add or replace a subscription [MQTT-3.8.4-3]."""
        session.subscriptions[topic_filter] = grant
        self._route_to(session, topic_filter, grant)

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Take a subscription out; whether it was there."""
        if session.subscriptions.pop(topic_filter, None) is None:  # [MQTT-3.10.4-1]
            return False
        shared = split_shared(topic_filter)
        if shared is None:
            self._hub.router.remove(topic_filter, session)  # [MQTT-3.10.4-2]
        else:
            self._hub.router.leave(*shared, session)
        return True

    def retained(self, session: Session, asked: Subscription, grant: Grant, *, is_new: bool) -> Iterator[Message]:
        """What is retained on the topics of a new subscription."""
        # [MQTT-3.3.1-10], [MQTT-3.3.1-11]
        if grant.group is not None or asked.retain_handling == 2 or (asked.retain_handling == 1 and not is_new):
            return
        now = monotonic()
        for kept in self._hub.retained.matching(asked.topic_filter, now):  # [MQTT-3.3.1-9], [MQTT-3.8.4-4]
            name = kept.message.topic_name
            if kept.username and self._hub.hooks.ask_publish(kept.client_id, kept.username, name).is_error:
                self._hub.retained.discard(name)  # its publisher has lost the right to it
                continue
            if session.subscriptions.get(asked.topic_filter) is not grant:  # replaced or removed meanwhile
                return
            if not (grant.no_local and kept.client_id == session.client_id):
                yield kept.message

    def _route_to(self, session: Session, topic_filter: str, grant: Grant) -> None:
        shared = split_shared(topic_filter)
        if shared is None:
            self._hub.router.add(topic_filter, session, grant)
        else:
            self._hub.router.join(*shared, session, grant)

    def _topics_of(self, session: Session) -> list[str]:
        """The topics of what waits for a session that its subscriptions still match."""
        waiting = {delivery.message.topic_name for delivery in session.waiting()}
        return [name for name in waiting if session in self._hub.router.sessions(name)]


def _inner(topic_filter: str) -> str:
    """The filter without what makes it shared."""
    shared = split_shared(topic_filter)
    return topic_filter if shared is None else shared[1]


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

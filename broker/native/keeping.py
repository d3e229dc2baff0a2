"""What of the broker's state is on disk, and in which form: sessions, what waits for them, retained messages.

The store beneath knows only bytes; the records in here are CBOR arrays. Monotonic times become wall-clock times there
and back, so a clock that was moved shortens or lengthens an expiry, but never beyond what was left when it was written.
"""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cbor2

from broker.native.message import Delivery, Grant, Message, RichMessage
from broker.native.retained import Retained
from broker.native.session import Receipt, Session
from broker.native.store import Store
from broker.packets import Will
from broker.reason import ReasonCode

logger = logging.getLogger(__name__)

Fill = Callable[[Session, float], bool]
"""Gives a session its state; True when its client was connected at the time, so that its expiry begins now."""

_LONGEST_S = 0xFFFF_FFFF  # a message expiry of MQTT
_DELIVERY = 0
_RELEASED = 1  # of a delivery of QoS 2 only its packet identifier is left


class Keeper:
    """Writes down what changes, and reads it again at the start."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = store.open()
        self._changed: dict[str, Session] = {}
        store.before_commit = self._write_sessions
        self.damaged = self._kept.damaged
        """How many records could not be read at the start."""
        self.operations = 0
        """How many changes were given to the store."""
        self.woken: Callable[[], None] = lambda: None
        """Called after callbacks, which may have made sessions want to send."""

    @property
    def pending_bytes(self) -> int:
        return self._store.pending_bytes

    @property
    def failing(self) -> str | None:
        return self._store.failing

    @property
    def commits(self) -> int:
        return self._store.commits

    async def close(self) -> None:
        await self._store.close()

    def when_safe(self, callback: Callable[[], None]) -> None:
        """Call back when everything so far is on disk."""

        def safe() -> None:
            callback()
            self.woken()

        self._store.when_safe(safe)

    # --- sessions

    def put_session(self, session: Session) -> None:
        """Write it down; if it changes again before the next commit begins, again then."""
        self.operations += 1
        if session.client_id not in self._changed:
            self._write_session(session)
        self._changed[session.client_id] = session

    def _write_sessions(self) -> None:
        changed, self._changed = self._changed, {}
        for session in changed.values():
            self._write_session(session)

    def _write_session(self, session: Session) -> None:
        now, wall = time.monotonic(), time.time()
        will = session.will
        record = (
            session.username,
            session.protocol,
            session.expiry_s,
            _to_wall(session.expires_at, now, wall),
            [
                (name, grant.qos, grant.no_local, grant.retain_as_published, grant.identifiers)
                for name, grant in session.subscriptions.items()
            ],
            [packet_id if receipt.code is not None else -packet_id for packet_id, receipt in session.received.items()],
            None if will is None else (will.topic, will.payload, will.qos, will.retain, will.properties),
            _to_wall(session.will_at, now, wall),
        )
        self._store.put_session(session.client_id, cbor2.dumps(record))

    def delete_session(self, client_id: str) -> None:
        self.operations += 1
        self._changed.pop(client_id, None)
        self._store.delete_session(client_id)

    def sessions(self) -> Iterator[tuple[str, str, Fill]]:
        """Client id, user name, and what fills the session with the rest; that may raise anything."""
        for client_id, record in self._kept.sessions.items():
            try:
                fields = cbor2.loads(record)
                username = str(fields[0])
            except Exception as error:  # whatever is on disk: it costs one session, not the start
                self.cannot_read("session", client_id, error)
                self.delete_session(client_id)
                continue
            yield client_id, username, partial(_fill, fields, self._kept.deliveries.get(client_id, []))

    def cannot_read(self, what: str, name: str, error: Exception) -> None:
        """A record is sound, and yet not what we write."""
        self.damaged += 1
        logger.error("the record of the %s %.70r cannot be read and is dropped: %r", what, name, error)

    # --- deliveries

    def put(self, session: Session, packet_id: int, delivery: Delivery, *, sent: bool) -> None:
        self.operations += 1
        record = (
            _DELIVERY,
            packet_id,
            delivery.qos,
            delivery.retain,
            sent,
            delivery.identifiers,
            *_message(delivery.message),
        )
        self._store.put_delivery(session.client_id, delivery.seq, cbor2.dumps(record))

    def release(self, session: Session, packet_id: int, seq: int) -> None:
        self.operations += 1
        self._store.put_delivery(session.client_id, seq, cbor2.dumps((_RELEASED, packet_id)))

    def delete(self, session: Session, seq: int) -> None:
        self.operations += 1
        self._store.delete_delivery(session.client_id, seq)

    def proceed(self, session: Session, seq: int) -> None:
        self.when_safe(lambda: session.proceed(seq, time.monotonic()))

    # --- retained messages

    def put_retained(self, topic: str, retained: Retained) -> None:
        self.operations += 1
        record = (retained.client_id, retained.username, retained.message.qos, *_message(retained.message))
        self._store.put_retained(topic, cbor2.dumps(record))

    def delete_retained(self, topic: str) -> None:
        self.operations += 1
        self._store.delete_retained(topic)

    def retained(self, now: float) -> Iterator[tuple[str, Retained]]:
        wall = time.time()
        for topic, record in self._kept.retained.items():
            try:
                client_id, username, qos, *message = cbor2.loads(record)
                found = Retained(_read_message(message, qos, now, wall, retain=True), client_id, username)
            except Exception as error:
                self.cannot_read("message retained on", topic, error)
                self.delete_retained(topic)
                continue
            yield topic, found

    def forget_read(self) -> None:
        """What was read at the start is not needed any more."""
        self._kept.sessions.clear()
        self._kept.deliveries.clear()
        self._kept.retained.clear()


def _to_wall(at: float | None, now: float, wall: float) -> float | None:
    return None if at is None else wall + (at - now)


def _from_wall(at: float | None, now: float, wall: float, limit_s: float) -> float | None:
    return None if at is None else now + min(max(0.0, at - wall), limit_s)


def _message(message: Message) -> tuple[Any, ...]:
    if message.expires_at is None:
        return (message.topic, message.payload, message.properties, None)
    left_s = message.expires_at - time.monotonic()
    return (message.topic, message.payload, message.properties, time.time() + left_s, left_s)


def _read_message(fields: list[Any], qos: int, now: float, wall: float, *, retain: bool = False) -> Message:
    topic, payload, properties, expires_at, *left_s = fields
    if not properties and expires_at is None and not retain:
        return Message(topic, payload, qos)
    until = None if expires_at is None else now + min(expires_at - wall, *left_s, _LONGEST_S)
    return RichMessage(topic, payload, qos, properties=properties, expires_at=until, retain=retain)


def _fill(fields: Any, deliveries: list[tuple[int, bytes]], session: Session, now: float) -> bool:
    """A session as it was; one that was connected at the time waits its whole expiry from now."""
    wall = time.time()
    properties: Any
    _, session.protocol, session.expiry_s, expires_at, subscriptions, received, will, will_at = fields
    session.mqtt5 = session.protocol == 5
    session.clean_start = False
    session.expires_at = _from_wall(expires_at, now, wall, session.expiry_s) or now + session.expiry_s
    for name, qos, no_local, retain_as_published, identifiers in subscriptions:
        session.subscriptions[name] = Grant(
            qos, no_local=no_local, retain_as_published=retain_as_published, identifiers=identifiers
        )
    for packet_id in received:
        receipt = session.received[abs(packet_id)] = Receipt()
        if packet_id > 0:
            receipt.settle(ReasonCode.SUCCESS)
        else:  # the sink had not taken it: when it comes again it is offered again
            receipt.orphaned = True
    if will is not None:
        topic, payload, qos, retain, properties = will
        if "user_property" in properties:
            properties["user_property"] = [tuple(pair) for pair in properties["user_property"]]
        session.will = Will(topic=topic, payload=payload, qos=qos, retain=retain, properties=properties)
        # The server's end was the connection's: a will that was not due yet is from now on
        delay_s = properties.get("will_delay_interval", 0)
        session.will_at = _from_wall(will_at, now, wall, delay_s) or now + delay_s
    for seq, record in deliveries:
        kind, packet_id, *rest = cbor2.loads(record)
        if kind == _RELEASED:
            session.restore_released(packet_id, seq)
            continue
        qos, retain, sent, identifiers, *message = rest
        delivery = Delivery(
            _read_message(message, qos, now, wall), qos, retain=retain, identifiers=identifiers, seq=seq
        )
        session.restore(packet_id, delivery, sent=sent)
    return expires_at is None

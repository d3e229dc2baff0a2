"""A broker as MQTT describes it, in the simplest way: what the model of the native broker compares with. No time limits
but those of sessions, messages and wills; a connected client takes everything at once."""

from dataclasses import dataclass, field

from broker.topics import matches

NO_EXPIRY = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGrant:
    qos: int
    no_local: bool = False
    retain_as_published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMessage:
    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    sender: str = ""
    expires_at: float = NO_EXPIRY


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWill:
    message: ModelMessage
    delay_s: int


@dataclass(slots=True)
class ModelSession:
    client_id: str
    username: str
    connected: bool = False
    expiry_s: int = 0
    subscriptions: dict[str, ModelGrant] = field(default_factory=dict)
    queue: list[ModelMessage] = field(default_factory=list)
    will: ModelWill | None = None
    will_at: float | None = None
    expires_at: float | None = None
    got: list[tuple[str, bytes, int, bool]] = field(default_factory=list)
    """What its client is to be sent: topic, payload, QoS, RETAIN."""


class ModelBroker:
    """All of the state, and what each event does to it."""

    def __init__(self, *, max_queued: int, max_subscriptions: int) -> None:
        self.now = 0.0
        self.sessions: dict[str, ModelSession] = {}
        self.retained: dict[str, ModelMessage] = {}
        self._max_queued = max_queued
        self._max_subscriptions = max_subscriptions

    # --- connections

    def connect(self, client_id: str, username: str, *, clean: bool, expiry_s: int, will: ModelWill | None) -> bool:
        """Whether the session was there."""
        old = self.sessions.get(client_id)
        if old is not None and old.connected:
            self.lose(client_id)
            old = self.sessions.get(client_id)
        if old is not None and (clean or old.username != username):
            self._end(old)
            old = None
        session = old or ModelSession(client_id, username)
        self.sessions[client_id] = session
        session.connected, session.expiry_s, session.will = True, expiry_s, will
        session.will_at = session.expires_at = None
        session.got = []
        for message in session.queue:
            if message.expires_at > self.now:
                session.got.append((message.topic, message.payload, message.qos, message.retain))
        session.queue = []
        return old is not None

    def lose(self, client_id: str, *, with_will: bool = True) -> None:
        """The connection has ended."""
        session = self.sessions[client_id]
        session.connected = False
        if not with_will:
            session.will = None
        will = session.will
        if will is not None and (not will.delay_s or not session.expiry_s):
            session.will = None
            self.publish(will.message)
        elif will is not None:
            session.will_at = self.now + will.delay_s
        if session.expiry_s:
            session.expires_at = self.now + session.expiry_s
        else:
            self._end(session)

    def kick(self, username: str) -> int:
        """Every session of a user ends, without wills; how many there were."""
        mine = [session for session in self.sessions.values() if session.username == username]
        for session in mine:
            del self.sessions[session.client_id]
        return len(mine)

    def crash(self) -> None:
        """What does not outlive it was never there; who was connected is away from now on."""
        for session in list(self.sessions.values()):
            if not session.expiry_s:
                del self.sessions[session.client_id]
            elif session.connected:
                session.connected, session.expires_at = False, self.now + session.expiry_s
                session.will_at = None if session.will is None else self.now + session.will.delay_s

    def wait(self, seconds: float) -> None:
        """Wills and expiries come in the order of their times."""
        end = self.now + seconds
        while due := [(at, session) for session in self.sessions.values() if (at := _next(session)) <= end]:
            self.now, session = min(due, key=lambda item: item[0])
            if session.expires_at is not None and session.expires_at <= self.now:
                self._end(session)
            elif session.will is not None:
                will, session.will, session.will_at = session.will, None, None
                self.publish(will.message)
        self.now = end

    def _end(self, session: ModelSession) -> None:
        del self.sessions[session.client_id]
        if session.will is not None:
            self.publish(session.will.message)

    # --- messages

    def publish(self, message: ModelMessage) -> None:
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        for session in self.sessions.values():
            own = session.client_id == message.sender
            grants = [
                grant
                for topic_filter, grant in session.subscriptions.items()
                if matches(topic_filter, message.topic) and not (own and grant.no_local)
            ]
            if grants:
                retain = message.retain and any(grant.retain_as_published for grant in grants)
                self._deliver(session, message, min(message.qos, max(grant.qos for grant in grants)), retain=retain)

    def subscribe(self, client_id: str, topic_filter: str, grant: ModelGrant, *, retain_handling: int) -> bool:
        """Whether there was room for it."""
        session = self.sessions[client_id]
        is_new = topic_filter not in session.subscriptions
        if is_new and len(session.subscriptions) >= self._max_subscriptions:
            return False
        session.subscriptions[topic_filter] = grant
        if retain_handling == 2 or (retain_handling == 1 and not is_new):
            return True
        for message in self.alive().values():
            if matches(topic_filter, message.topic) and not (grant.no_local and message.sender == client_id):
                self._deliver(session, message, min(message.qos, grant.qos), retain=True)
        return True

    def unsubscribe(self, client_id: str, topic_filter: str) -> bool:
        return self.sessions[client_id].subscriptions.pop(topic_filter, None) is not None

    def alive(self) -> dict[str, ModelMessage]:
        """The retained messages that have not expired."""
        return {topic: message for topic, message in self.retained.items() if message.expires_at > self.now}

    def _deliver(self, session: ModelSession, message: ModelMessage, qos: int, *, retain: bool) -> None:
        if session.connected:
            session.got.append((message.topic, message.payload, qos, retain))
        elif qos:
            waits = ModelMessage(
                topic=message.topic, payload=message.payload, qos=qos, retain=retain, expires_at=message.expires_at
            )
            session.queue = [*session.queue, waits][-self._max_queued :]


def _next(session: ModelSession) -> float:
    """When something happens to it by itself."""
    return min((at for at in (session.will_at, session.expires_at) if at is not None), default=NO_EXPIRY)

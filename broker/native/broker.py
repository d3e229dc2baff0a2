"""Broker: broker.engine.Engine in MQTT 3.1, 3.1.1 and 5, in plain Python. See `broker.native.connection` for how."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from time import monotonic

from broker.engine import Guard, Publish, SessionInfo, Sink, Tap
from broker.errors import EngineStopped
from broker.native.auth import AuthMethod
from broker.native.block import Block
from broker.native.connection import Connection
from broker.native.hub import Hub
from broker.native.keeping import Keeper
from broker.native.listeners import Listeners
from broker.native.message import wire_topic
from broker.native.options import BrokerOptions
from broker.native.router import InlineSubscription
from broker.native.store import Store
from broker.native.system_topics import system_messages
from broker.native.topic_tree import TopicLevels, TopicLook
from broker.reason import ReasonCode
from broker.topics import is_filter, is_topic

logger = logging.getLogger(__name__)

VERSION = "mooring"
_STOP_S = 5.0  # for the last bytes of all connections to go out
_UNDONE_WARNING_S = 30.0
_NO_MORE_THAN_GUARD = int(Block.GUARD)  # a client let in waits for the Guard at times; the other bits hold it back


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic in use. `messages` counts since it was last looked up afresh; `subscribers` are sessions and groups."""

    topic: str
    messages: int
    subscribers: int
    retained: bool


class Broker:
    """An MQTT broker in this process.

    The Guard decides, the Taps watch, the Sink takes over what clients publish before it is acknowledged; all three
    are in `broker.engine`. Without a Guard nobody comes in.
    """

    def __init__(
        self,
        options: BrokerOptions | None = None,
        *,
        guard: Guard | None = None,
        sink: Sink | None = None,
        taps: Sequence[Tap] = (),
        auth_methods: Mapping[str, AuthMethod] | None = None,
    ) -> None:
        self.options = options or BrokerOptions()
        self._guard = guard
        self._sink = sink
        self._taps = tuple(taps)
        self._auth_methods = dict(auth_methods or {})
        self._hub: Hub | None = None
        self._listeners: Listeners | None = None
        self._keeper: Keeper | None = None
        self._started_at = 0.0
        self._system: asyncio.TimerHandle | None = None
        self._told_undone = False

    async def start(self) -> None:
        """Bring back what is on disk, and listen. Raises ListenError, PersistenceError."""
        options = self.options
        keeper = None
        if options.persistence is not None:
            keeper = Keeper(Store(options.persistence, synchronous=options.persistence_synchronous))
        try:
            hub = Hub(
                options,
                guard=self._guard,
                sink=self._sink,
                taps=self._taps,
                auth_methods=self._auth_methods,
                keeper=keeper,
            )
            hub.sessions.restore()
            listeners = Listeners(hub)
            await listeners.open()
        except BaseException:
            if keeper is not None:
                await keeper.close()
            raise
        self._hub, self._listeners, self._keeper = hub, listeners, keeper
        self._started_at = monotonic()
        hub.start()
        if options.sys_interval_s:
            self._publish_system_topics()

    async def stop(self) -> None:
        """Tell the clients (MQTT 5: 0x8B), close everything, and put what is kept on disk."""
        hub, listeners, keeper = self._hub, self._listeners, self._keeper
        self._hub = self._listeners = self._keeper = None
        if hub is None or listeners is None:
            return
        if self._system is not None:
            self._system.cancel()
        hub.gate.closed = True
        listeners.close()
        for connection in list(hub.gate.connections):
            connection.end("server shutting down", ReasonCode.SERVER_SHUTTING_DOWN)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hub.gate.deserted(), _STOP_S)
        finally:  # also when whoever stops us loses patience
            for connection in list(hub.gate.connections):
                connection.abort()
            hub.stop()
            if keeper is not None:
                await keeper.close()
        await asyncio.sleep(0)  # the transports' last callbacks

    @property
    def port(self) -> int:
        """The TCP port really listened on; 0 when there is none."""
        return self._running()[1].port("port") or 0

    @property
    def tls_port(self) -> int | None:
        return self._running()[1].port("tls_port")

    @property
    def ws_port(self) -> int | None:
        return self._running()[1].port("ws_port")

    @property
    def wss_port(self) -> int | None:
        return self._running()[1].port("wss_port")

    async def publish(self, message: Publish) -> int:
        """Route a message of ours; to how many connected sessions it went. Raises ValueError on an invalid topic."""
        if not is_topic(message.topic):
            raise ValueError(f"not a topic: {message.topic!r}")
        return self._running()[0].publish(
            message.topic,
            message.payload,
            message.qos,
            retain=message.retain,
            properties=message.properties,
            now=monotonic(),
        )

    def subscribe(self, topic_filter: str, callback: Callable[[Publish], None]) -> InlineSubscription:
        """Call back, in the event loop's thread, for each message that matches; `close()` what is returned to end it.

        The callback may not block. Retained messages are not repeated. Raises ValueError on an invalid filter.
        """
        if not is_filter(topic_filter):
            raise ValueError(f"not a topic filter: {topic_filter!r}")
        return self._running()[0].router.subscribe(topic_filter, callback)

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int:
        """Drop every connection and forget every session of a user name; returns how many there were."""
        return self._running()[0].sessions.kick(username, reason)

    async def kick_client(
        self, username: str, client_id: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION
    ) -> bool:
        """The same with one client's session; False when that user name has no such client."""
        return self._running()[0].sessions.kick_client(username, client_id, reason)

    def sessions(self) -> list[SessionInfo]:
        """All sessions, connected or kept."""
        hub = self._running()[0]
        return [hub.sessions.info(session) for session in hub.sessions]

    def topics(self, prefix: str = "", *, limit: int = 1000) -> list[TopicInfo]:
        """The topics in use that begin with `prefix`, in order: those published to lately and those retained."""
        hub = self._running()[0]
        routes = {route.name: route for route in hub.router.routes.values() if route.name.startswith(prefix)}
        names = {*routes, *(topic for topic in hub.retained.topics() if topic.startswith(prefix))}
        found = []
        for name in sorted(names)[:limit]:
            route = routes.get(name)
            found.append(
                TopicInfo(
                    topic=name,
                    messages=route.messages if route is not None else 0,
                    subscribers=hub.router.count(name),
                    retained=name in hub.retained,
                )
            )
        return found

    async def topic_levels(self, prefix: str = "", *, after: str | None = None, limit: int = 200) -> TopicLevels:
        """The topics in use as a tree: the levels that continue `prefix`, in order, those after `after`.

        The loop is never held up for more than about a millisecond, however many topics there are.
        """
        hub = self._running()[0]
        look = TopicLook(prefix, after=after, limit=limit)
        for _ in look.steps(
            hub.router.routes.values(),
            hub.retained.topics(),
            is_counted=lambda topic: wire_topic(topic) in hub.router.routes,
            subscribers=hub.router.count,
        ):
            await asyncio.sleep(0)
        return look.found()

    def listeners(self) -> dict[str, str]:
        """Where clients come in: host and port by "tcp", "tls", "ws" and "wss", a path by "unix"."""
        listeners, options = self._running()[1], self.options
        host = f"[{options.host}]" if ":" in options.host else options.host
        names = {"tcp": "port", "tls": "tls_port", "ws": "ws_port", "wss": "wss_port"}
        ports = {transport: listeners.port(name) for transport, name in names.items()}
        found = {transport: f"{host}:{port}" for transport, port in ports.items() if port is not None}
        return found if options.unix_path is None else {**found, "unix": str(options.unix_path)}

    @property
    def disk_trouble(self) -> str | None:
        """Why nothing can be kept on disk at present; None when it can, or when nothing is to be kept."""
        return self._keeper.failing if self._keeper is not None else None

    def bounds(self) -> dict[str, int]:
        """The most there may be, for those of the metrics that say how much there is."""
        options = self.options
        return {
            "connections_now": options.max_connections,
            "connecting": options.max_connecting,
            "routes_bytes": options.max_routes_bytes,
            "sessions": options.max_sessions,
            "queued_bytes": options.max_queued_bytes_in_all,
            "queued_bytes_of_one": options.max_queued_bytes_per_username,
            "retained_messages": options.max_retained,
            "retained_bytes": options.max_retained_bytes,
        }

    def metrics(self) -> dict[str, int | float]:
        """Totals since the start (broker.native.counters), and how much there is of everything that has a bound."""
        hub = self._running()[0]
        metrics: dict[str, int | float] = dict(hub.counters.as_dict())
        metrics |= hub.gauges()
        metrics["held_back"] = sum(each.blocked > _NO_MORE_THAN_GUARD for each in hub.gate.connections)
        metrics["undone_age_s"] = self._undone(hub)[0]
        metrics["sessions_displaced"] = hub.sessions.displaced
        metrics["routes_forgotten"] = hub.router.epoch
        metrics["uptime_s"] = monotonic() - self._started_at
        if self._keeper is not None:
            metrics["persistence_pending_bytes"] = self._keeper.pending_bytes
            metrics["persistence_commits"] = self._keeper.commits
            metrics["persistence_damaged"] = self._keeper.damaged
            metrics["persistence_failing"] = int(self._keeper.failing is not None)
        return metrics

    @staticmethod
    def _undone(hub: Hub) -> tuple[float, Connection | None]:
        """How long the oldest message waits that sink or disk have not taken, and whose it is."""
        waiting = ((since, each) for each in hub.gate.connections if (since := each.owing.since) is not None)
        since, oldest = min(waiting, key=itemgetter(0), default=(None, None))
        return (0.0, None) if since is None else (monotonic() - since, oldest)

    def _watch_undone(self, hub: Hub) -> None:
        """Tell once of a sink or disk that takes nothing any more. The client waits on: no acknowledgement may lie."""
        age_s, waiting = self._undone(hub)
        is_late = age_s >= _UNDONE_WARNING_S
        if is_late and not self._told_undone and waiting is not None:
            logger.warning(
                "%s %.70r: waits %.0f s for an acknowledgement: what it sent is not taken over",
                *(waiting.address, waiting.username, age_s),
            )
        self._told_undone = is_late

    def _publish_system_topics(self) -> None:
        hub = self._hub
        if hub is None:
            return
        self._watch_undone(hub)
        self._system = hub.loop.call_later(self.options.sys_interval_s, self._publish_system_topics)
        now = monotonic()
        for topic, payload in system_messages(VERSION, self.metrics()):
            hub.publish(topic, payload, 0, retain=True, now=now)

    def _running(self) -> tuple[Hub, Listeners]:
        if self._hub is None or self._listeners is None:
            raise EngineStopped("the broker is not running")
        return self._hub, self._listeners

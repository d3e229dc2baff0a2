"""AmqttEngine: broker.engine.Engine on the library amqtt."""

import logging
from collections.abc import Sequence

from broker.amqtt_engine.connection import Connection
from broker.amqtt_engine.guarded import GuardedBroker
from broker.amqtt_engine.listeners import Listeners
from broker.amqtt_engine.options import AmqttOptions
from broker.amqtt_engine.wire import Wire
from broker.engine import Guard, Publish, SessionInfo, Sink, Tap
from broker.errors import EngineStopped
from broker.reason import ReasonCode
from broker.topics import is_topic


class AmqttEngine:
    """An MQTT 3.1.1 broker in this process. Sessions and retained messages live in memory and end with it."""

    def __init__(
        self,
        options: AmqttOptions | None = None,
        *,
        guard: Guard | None = None,
        sink: Sink | None = None,
        taps: Sequence[Tap] = (),
    ) -> None:
        self._options = options or AmqttOptions()
        self._guard = guard
        self._sink = sink
        self._taps = tuple(taps)
        self._broker: GuardedBroker | None = None
        self._listeners: Listeners | None = None
        for name in ("amqtt", "transitions"):  # they tell of every packet at INFO
            logging.getLogger(name).setLevel(logging.WARNING)

    async def start(self) -> None:
        """Listen. Raises ListenError."""
        broker = GuardedBroker(self._options, guard=self._guard, sink=self._sink, taps=self._taps)

        async def attend(wire: Wire) -> None:
            await broker.attend(Connection(wire, broker, self._options))

        listeners = Listeners(self._options, attend)
        await broker.start()
        try:
            await listeners.open()
        except BaseException:
            await broker.shutdown()
            raise
        self._broker, self._listeners = broker, listeners

    async def stop(self) -> None:
        """Close every connection and listener; no session is kept."""
        broker, listeners = self._broker, self._listeners
        self._broker = self._listeners = None
        if broker is None or listeners is None:
            return
        listeners.refuse()
        await broker.shutdown()
        await listeners.close()

    @property
    def port(self) -> int:
        return self._running()[1].port()

    @property
    def tls_port(self) -> int | None:
        """The TLS port really listened on, or None."""
        return self._running()[1].tls_port()

    @property
    def ws_port(self) -> int | None:
        return self._running()[1].ws_port()

    @property
    def dropped(self) -> int:
        """Deliveries and retained messages dropped at a bound since the start."""
        return self._running()[0].dropped

    async def publish(self, message: Publish) -> int:
        """Route a message of ours. Raises ValueError on a topic that cannot be published to."""
        if not is_topic(message.topic):
            raise ValueError(f"not a topic: {message.topic!r}")
        return self._running()[0].route(message)

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int:
        return self._running()[0].kick(username, reason)

    def sessions(self) -> list[SessionInfo]:
        return self._running()[0].infos()

    def _running(self) -> tuple[GuardedBroker, Listeners]:
        if self._broker is None or self._listeners is None:
            raise EngineStopped("the broker is not running")
        return self._broker, self._listeners

"""The link to the broker in this process: its Sink for what devices publish, its Tap for who is connected.

The engine wants both at its making, so the link comes first and is given the engine afterwards:

    link = EmbeddedLink()
    link.engine = AmqttEngine(options, guard=guard, sink=link.sink, taps=[link])

The user name of a connection is the device id (the Guard has seen to that). A device may have several connections
at once, told apart by their client ids: it is connected from the first to the last. A client that takes over its own
old connection is reported connected once more, never disconnected: whatever waits for the device has to be sent to
the new connection.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence

from broker.engine import Done as EngineDone
from broker.engine import Engine, Publish, SessionInfo
from broker.errors import EngineStopped
from broker.reason import ReasonCode
from gateway.channels import CLAIMANT, PROVISION_ANSWER, topic_of
from gateway.link import Downlink, Outcome, Receiver, Uplink
from gateway.links.admission import FOREIGN_TOPIC, admit, puback_code, puback_codes

logger = logging.getLogger(__name__)

_make = tuple.__new__  # a NamedTuple's own constructor takes half as long again
TAKEN_OVER = "taken over"  # what Tap.disconnected says of a connection that its own client has replaced
TAKEOVER_GRACE_S = 5.0  # an engine may report the old connection's end first: the new one is there within this time


class EmbeddedLink:
    """Devices at the embedded broker. Set `engine` before `start`; the link starts and stops it."""

    def __init__(self, name: str = "mqtt") -> None:
        self.name = name
        self.engine: Engine | None = None
        self.refused_topics = 0
        """Messages on topics where devices do not publish."""
        self._receiver: Receiver | None = None
        self._connections: dict[str, Counter[str]] = {}  # device id -> client id -> open connections (2: a takeover)
        self._kicked: dict[str, str] = {}
        """Why the devices being dropped at this moment are."""
        self._leaving: dict[str, asyncio.TimerHandle] = {}  # taken over, and the new connection not yet seen

    async def start(self, receiver: Receiver) -> None:
        """Start the engine. Raises its ListenError."""
        if self.engine is None:
            raise RuntimeError("the link was given no engine")
        self._receiver = receiver
        await self.engine.start()

    async def stop(self) -> None:
        """Stop the engine; devices still connected are reported disconnected."""
        if self.engine is not None:
            await self.engine.stop()
        for device_id in list(self._leaving):
            self._left(device_id, TAKEN_OVER)
        for device_id in list(self._connections):
            del self._connections[device_id]
            self._left(device_id, "server shutting down")
        self._receiver = None

    async def send(self, downlink: Downlink) -> bool:
        """Publish at QoS 1; True when a live connection of the device has subscribed to it.

        For a device that is away only retained messages are published: the fleet sends everything else again when
        the device connects, and a session that had kept it too would deliver it twice.
        """
        is_for_device = downlink.channel != PROVISION_ANSWER  # else for a claimant, which is no device yet
        if self.engine is None or (
            is_for_device and downlink.device_id not in self._connections and not downlink.retain
        ):
            return False
        message = Publish(
            topic=topic_of(downlink.device_id, downlink.channel),
            payload=downlink.payload,
            qos=1,
            retain=downlink.retain,
            properties={"content_type": downlink.content_type} if downlink.content_type is not None else None,
        )
        try:
            return await self.engine.publish(message) > 0
        except EngineStopped:  # on the way down: nobody is there any more to send to
            return False

    async def kick(self, device_id: str, reason: str) -> int:
        if self.engine is None:
            return 0
        self._kicked[device_id] = reason  # what the engine tells is what it tells the client, and that is less
        try:
            count = await self.engine.kick(device_id)
        finally:
            self._kicked.pop(device_id, None)
        if count:
            logger.info("%s: dropped %d connection(s): %s", device_id, count, reason)
        return count

    # The engine's Sink

    def sink(self, batch: Sequence[Publish], done: EngineDone) -> None:
        """Hand a batch on, less what is on no uplink topic, and translate the outcomes back."""
        uplinks: list[Uplink] = []
        refused: dict[int, ReasonCode] = {}
        now_ms = time.time_ns() // 1_000_000
        topic = username = None
        admitted: tuple[str, str] | Outcome = FOREIGN_TOPIC
        for place, message in enumerate(batch):
            # What one read brought is mostly of one client on one topic: the texts are the same objects then.
            if message.topic is not topic or message.username is not username:
                topic, username = message.topic, message.username
                admitted = admit(topic, username)
            if isinstance(admitted, Outcome):
                self.refused_topics += 1
                refused[place] = puback_code(admitted)
                continue
            content_type = message.content_type if message.properties else None
            uplinks.append(_make(Uplink, (*admitted, message.payload, now_ms, content_type, self.name)))

        if self._receiver is not None and not refused:
            self._receiver.uplinks(uplinks, lambda outcomes: done(puback_codes(outcomes)))
            return

        def acknowledge(codes: list[ReasonCode]) -> None:
            for place, code in refused.items():  # in order of the places
                codes.insert(place, code)
            done(codes)

        if self._receiver is None or not uplinks:
            acknowledge([ReasonCode.UNSPECIFIED_ERROR] * len(uplinks))
        else:
            self._receiver.uplinks(uplinks, lambda outcomes: acknowledge(puback_codes(outcomes)))

    # The engine's Tap

    def connected(self, session: SessionInfo) -> None:
        device_id = session.username
        if device_id == CLAIMANT:
            return
        clients = self._connections.get(device_id)
        first = clients is None
        if clients is None:
            clients = self._connections[device_id] = Counter()
        clients[session.client_id] += 1
        timer = self._leaving.pop(device_id, None)
        if timer is not None:
            timer.cancel()
        if self._receiver is not None and (first or clients[session.client_id] > 1):
            self._receiver.connected(device_id, self.name, session.address)

    def disconnected(self, client_id: str, username: str, reason: str) -> None:
        clients = self._connections.get(username)
        if clients is None or client_id not in clients:
            return
        clients[client_id] -= 1
        if not clients[client_id]:
            del clients[client_id]
        if clients:
            return
        del self._connections[username]
        if reason != TAKEN_OVER:
            self._left(username, self._kicked.get(username, reason))
            return
        loop = asyncio.get_running_loop()
        self._leaving[username] = loop.call_later(TAKEOVER_GRACE_S, self._left, username, reason)

    def refused(self, client_id: str, username: str, action: str, target: str, reason: ReasonCode) -> None:
        logger.debug("%s: refused to %s %.200r: %s", client_id, action, target, reason.name)

    def _left(self, device_id: str, reason: str) -> None:
        timer = self._leaving.pop(device_id, None)
        if timer is not None:
            timer.cancel()
        if self._receiver is not None:
            self._receiver.disconnected(device_id, self.name, reason)

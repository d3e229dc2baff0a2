"""The link to an MQTT 5 broker elsewhere (Mosquitto, EMQX, HiveMQ, VerneMQ), through aiomqtt and the paho inside it.

Everything of aiomqtt is in this file. It is used for the connection alone. What it does with messages is not what is
needed here (a task per message, acknowledging by itself, a queue that discards QoS 1 when full), so `on_message` and
`on_publish` of its paho client are ours, and `manual_ack_set(True)` makes paho leave PUBACK to `ack(mid, qos)`, which
is called when the gateway has said that a batch is safe. These three, reached through `Client._client`, are the only
private spot; the contract tests hold paho to it against a real Mosquitto.

What that gives. The link consumes a shared subscription at QoS 1 in a session that the broker keeps for
`session_expiry_s`, so a message that this process did not acknowledge is delivered again after a reconnect or a
restart under the same client id. The broker, not the gateway, acknowledges the device: its own queue must be
persistent for that to mean more than "in the broker's memory". PUBACKs go out in the order of the messages
[MQTT-4.6.0-2]. A message that is refused because of us (journal full, busy) stays unacknowledged and is tried again.

Bounds. At most `inflight` messages are unacknowledged (MQTT 5 Receive Maximum): the broker holds the rest back. When it
does not, the link takes nothing more, waits until what it has is safe, and reconnects for the rest. QoS 0 knows no such
thing: beyond `inflight` outstanding ones they are dropped and counted. Mosquitto needs
`max_inflight_messages 0` (its default of 20 in flight limits the rate) and a `max_queued_messages` above its default of
1,000, beyond which it drops what waits for the gateway. It also goes on queueing for a member of the share that is
away: bring a node that is gone for good back once, or delete its session.

Rights. The broker decides who its devices are. For Mosquitto, with user name = device id:

    pattern readwrite devices/%u/#
    user gateway
    topic readwrite devices/#

The broker does not say who is connected: a device is connected while it has sent something in `silence_s`. It cannot
be thrown out from here either: `kick` only forgets its presence, and the gateway refuses what it sends afterwards.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS, MQTTMessage
from paho.mqtt.client import Client as Paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode as PahoReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.channels import ROOT, is_uplink, split_topic, topic_of
from gateway.link import Done, Downlink, Outcome, Receiver, Uplink
from gateway.links.activity import Activity
from gateway.links.backoff import retry_delay_s
from gateway.refusals import is_temporary

logger = logging.getLogger(__name__)

# What devices publish, filter by filter: `devices/+/#` would bring every downlink of ours back.
UPLINK_FILTERS = (
    "telemetry/#",
    "events",
    "twin/reported",
    "twin/get",
    "commands/+/status",
    "ota/status",
    "ota/chunk/get",
)
LINGER_S = 0.002  # paho reads one packet a turn of the loop: without a pause every batch would hold one message
BATCH = 256
PUBACK_TIMEOUT_S = 10.0
FENCE = "mooring/fence"  # a filter nobody has: any broker answers an UNSUBSCRIBE of it
FENCE_TIMEOUT_S = 2.0
OVERRUN = 100  # Mosquitto 2.0.11 sent up to 47 with a Receive Maximum of 10, and never more than it from 50 on
STEADY_S = 30.0  # a connection that lasted this long was a good one: back-off starts afresh after it


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalOptions:
    """Where the broker is and how much may be under way. Two gateways of one share need two client ids."""

    url: str = field(repr=False)
    """mqtt://user:password@host:1883, or mqtts:// for TLS."""
    share: str = "mooring"
    client_id: str = ""
    """Names the session at the broker, so it must stay the same over restarts; empty: mooring-{host name}."""
    ca_file: str | None = None
    """Certificates to trust for mqtts://; None: the system's."""
    keepalive_s: int = 30
    session_expiry_s: int = 86_400
    inflight: int = 2_000
    inflight_bytes: int = 64 * 1024 * 1024
    """Payloads of the messages not acknowledged, of both QoS."""
    downlinks: int = 1_000
    """Downlinks that may wait for their PUBACK; `send` is False beyond that."""
    silence_s: float = 90.0
    presence_limit: int = 200_000
    """Devices whose presence is kept."""
    drain_s: float = 5.0
    """How long `stop` waits for what was handed to the gateway."""


class LinkState(StrEnum):
    """Where the connection to the broker is."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    tls: bool


def _address(url: str) -> _Address:
    """The parts of a broker URL. Raises ValueError, which never shows the password."""
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError("the broker's URL must look like mqtt://user:password@host:1883 (mqtts:// for TLS)")
    tls = parts.scheme == "mqtts"
    return _Address(
        host=parts.hostname,
        port=parts.port or (8883 if tls else 1883),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
    )


class ExternalLink:
    """Devices at another broker. It connects, and reconnects, by itself: `start` does not wait for the broker."""

    def __init__(
        self, options: ExternalOptions, *, name: str = "mqtt", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.state = LinkState.STOPPED
        self.detail = ""
        """One line on the state for people: what went wrong last, when the next try is due."""
        self.dropped = 0
        """QoS 0 messages that found `inflight` others outstanding."""
        self.refused_topics = 0
        """Messages on topics where devices do not publish."""
        self._options = options
        self._address = _address(options.url)
        self._clock = clock
        self._activity = Activity(timeout_s=options.silence_s, limit=options.presence_limit)
        self._receiver: Receiver | None = None
        self._connection: _Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_connected = asyncio.Event()

    @property
    def where(self) -> str:
        """host:port of the broker."""
        return f"{self._address.host}:{self._address.port}"

    async def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._tasks = [
            asyncio.create_task(self._stay_connected(receiver), name=f"{self.name} link to {self.where}"),
            asyncio.create_task(self._watch_silence(), name=f"{self.name} link: presence"),
        ]

    async def stop(self) -> None:
        """Take nothing more, give the gateway `drain_s` to finish what it has, and disconnect.

        What is then still unacknowledged is delivered again at the next start.
        """
        if self._connection is not None:
            await self._connection.finish(self._options.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._receiver = None
        self._activity = Activity(timeout_s=self._options.silence_s, limit=self._options.presence_limit)
        self._say(LinkState.STOPPED, "")

    async def send(self, downlink: Downlink) -> bool:
        """Publish at QoS 1; True when the broker took it and says that somebody has subscribed to it.

        Brokers need not say that (MQTT 5, PUBACK code 0x10): with one that does not, True means "the broker has it".
        """
        if self._connection is None:
            return False
        return await self._connection.publish(downlink)

    async def kick(self, device_id: str, reason: str) -> int:
        """Forget the device's presence. Its connection is the broker's: always 0."""
        if self._activity.forget(device_id) and self._receiver is not None:
            self._receiver.disconnected(device_id, self.name, reason)
        return 0

    def expire_silent(self) -> None:
        """Report the devices that have not sent anything for `silence_s`; called by the link itself as time passes."""
        for device_id in self._activity.expire(self._clock()):
            if self._receiver is not None:
                self._receiver.disconnected(device_id, self.name, f"no message for {self._options.silence_s:.0f} s")

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(max(0.1, self._options.silence_s / 30))
            self.expire_silent()

    async def until_connected(self) -> None:
        """Return once the broker has granted the subscription; the link needs nobody to wait for that."""
        await self._is_connected.wait()

    def _say(self, state: LinkState, detail: str) -> None:
        self.state, self.detail = state, detail
        if state is LinkState.CONNECTED:
            self._is_connected.set()
        else:
            self._is_connected.clear()

    async def _stay_connected(self, receiver: Receiver) -> None:
        attempt = 0
        while True:
            self._say(LinkState.CONNECTING, f"connecting to {self.where}")
            began = self._clock()
            try:
                starts_over = await self._session(receiver)
            except (aiomqtt.MqttError, OSError) as error:
                problem = str(error) or type(error).__name__
            except Exception as error:  # a fault of ours or of the library must not end the link for good
                logger.exception("broker %s: the connection failed", self.where)
                problem = type(error).__name__
            else:
                if starts_over:
                    attempt = 0
                    continue
                problem = "the broker closed the connection"
            if self._clock() - began >= STEADY_S:
                attempt = 0
            delay_s = retry_delay_s(attempt)
            attempt += 1
            self._say(LinkState.WAITING, f"{problem}; next try in {delay_s:.1f} s")
            logger.warning("broker %s: %s; next try in %.1f s", self.where, problem, delay_s)
            await asyncio.sleep(delay_s)

    async def _session(self, receiver: Receiver) -> bool:
        """One connection, from its making to its end; True to begin another at once. Raises MqttError, OSError."""
        async with self._connected(receiver) as (client, connection):
            filters = [f"$share/{self._options.share}/{ROOT}/+/{part}" for part in UPLINK_FILTERS]
            codes = await client.subscribe([(each, SubscribeOptions(qos=1)) for each in filters])
            for topic_filter, code in zip(filters, codes, strict=False):
                if isinstance(code, PahoReasonCode) and code.is_failure:
                    raise aiomqtt.MqttError(f"the broker refused the subscription to {topic_filter}: {code}")
            self._say(LinkState.CONNECTED, f"connected to {self.where}")
            logger.info("broker %s: connected as %s, share %s", self.where, client.identifier, self._options.share)
            lost = asyncio.create_task(_until_lost(client), name=f"{self.name} link: connection")
            over = asyncio.create_task(connection.starts_over.wait(), name=f"{self.name} link: overrun")
            try:
                await asyncio.wait((lost, over), return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    lost.result()
                else:
                    await connection.finish(None)
                return over.done()
            finally:
                lost.cancel()
                over.cancel()
                await asyncio.gather(lost, over, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _connected(self, receiver: Receiver) -> AsyncIterator[tuple[aiomqtt.Client, "_Connection"]]:
        client = self._client()
        connection = _Connection(client, self, receiver, self._options)
        entering = asyncio.create_task(client.__aenter__(), name=f"{self.name} link: connect")
        try:
            try:
                await asyncio.shield(entering)
            except asyncio.CancelledError:
                # paho connects in a thread that cannot be cancelled: let it end, so that nothing is left behind.
                with contextlib.suppress(aiomqtt.MqttError, OSError):
                    await entering
                    await client.__aexit__(None, None, None)
                raise
            self._connection = connection
            try:
                yield client, connection
            finally:
                self._connection = None
                with contextlib.suppress(aiomqtt.MqttError, OSError):
                    await client.__aexit__(None, None, None)
        finally:
            connection.close()

    def _client(self) -> aiomqtt.Client:
        options = self._options
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = options.session_expiry_s
        properties.ReceiveMaximum = options.inflight
        return aiomqtt.Client(
            self._address.host,
            self._address.port,
            username=self._address.username,
            password=self._address.password,
            identifier=options.client_id or f"mooring-{socket.gethostname()}",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            keepalive=options.keepalive_s,
            properties=properties,
            tls_context=ssl.create_default_context(cafile=options.ca_file) if self._address.tls else None,
            timeout=PUBACK_TIMEOUT_S,
        )

    def arrived(self, device_id: str) -> None:
        """Note a sign of life of a device."""
        if self._activity.seen(device_id, self._clock()) and self._receiver is not None:
            self._receiver.connected(device_id, self.name, f"via {self.where}")


async def _until_lost(client: aiomqtt.Client) -> None:
    """Wait for the connection's end, which raises MqttError: no message ever comes this way."""
    async for _ in client.messages:
        pass


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Messages handed to the gateway together; `mids` are those that await a PUBACK."""

    mids: list[int]
    qos0: int
    size: int
    safe: bool = False


class _Connection:
    """The messages of one connection: in, acknowledged in order once safe, and out. Dead once closed."""

    def __init__(
        self, client: aiomqtt.Client, link: ExternalLink, receiver: Receiver, options: ExternalOptions
    ) -> None:
        self._client = client
        self._paho = client._client
        self._link = link
        self._receiver = receiver
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._arrived: list[MQTTMessage] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._batches: deque[_Batch] = deque()  # in order of arrival; bounded by `inflight` of each QoS
        self._outstanding = 0  # QoS 1, unacknowledged
        self._outstanding_qos0 = 0
        self._outstanding_bytes = 0
        self.starts_over = asyncio.Event()
        """Set when the connection is to end on purpose, and another to be made at once."""
        self._settled = asyncio.Event()
        self._taking = True
        self._open = True
        self._publishes: dict[int, asyncio.Future[bool]] = {}
        self._paho.manual_ack_set(True)
        self._paho.on_message = self._on_message
        self._paho.on_publish = self._on_publish

    async def finish(self, timeout_s: float | None) -> None:
        """Take nothing more, wait for the gateway to be done with what it has, and for the broker to know it.

        The end of a connection whose other side is still sending is a TCP reset, which takes PUBACKs along that the
        broker has not read yet. Packets are worked on in order, so the answer to one more tells that it has.
        """
        self._flush()
        self._taking = False
        with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
            async with asyncio.timeout(timeout_s):
                if self._outstanding or self._outstanding_qos0:
                    self._settled.clear()
                    await self._settled.wait()
            await self._client.unsubscribe(FENCE, timeout=FENCE_TIMEOUT_S)

    def close(self) -> None:
        """The connection is gone: nothing is acknowledged any more, and waiting downlinks were not delivered."""
        self._open = self._taking = False
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        for waiting in self._publishes.values():
            if not waiting.done():
                waiting.set_result(False)
        self._publishes.clear()

    # Up

    def _on_message(self, paho: Paho, userdata: Any, message: MQTTMessage) -> None:
        if not self._taking:
            return  # unacknowledged, hence delivered again
        over_bytes = self._outstanding_bytes > self._options.inflight_bytes
        if message.qos == 0:
            if self._outstanding_qos0 >= self._options.inflight or over_bytes:
                self._link.dropped += 1
                return
            self._outstanding_qos0 += 1
        elif self._outstanding >= self._options.inflight + OVERRUN or over_bytes:
            self._overrun()
            return
        else:
            self._outstanding += 1
        self._outstanding_bytes += len(message.payload)
        self._arrived.append(message)
        if len(self._arrived) >= BATCH:
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(LINGER_S, self._flush)

    def _overrun(self) -> None:
        """More than may be kept, Receive Maximum or not: take nothing more, and start over when what is here is safe.

        The new connection brings what was left unacknowledged, in order.
        """
        logger.info("broker %s: %d messages outstanding: starting over", self._link.where, self._outstanding)
        self._flush()
        self._taking = False
        self.starts_over.set()

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        messages, self._arrived = self._arrived, []
        if not messages:
            return
        now_ms = time.time_ns() // 1_000_000
        uplinks = []
        for message in messages:
            uplink = self._uplink(message, now_ms)
            if uplink is None:
                self._link.refused_topics += 1
            else:
                self._link.arrived(uplink.device_id)
                uplinks.append(uplink)
        mids = [message.mid for message in messages if message.qos]
        size = sum(len(message.payload) for message in messages)
        batch = _Batch(mids=mids, qos0=len(messages) - len(mids), size=size)
        self._batches.append(batch)
        self._hand_on(uplinks, batch)

    def _uplink(self, message: MQTTMessage, now_ms: int) -> Uplink | None:
        try:
            parts = split_topic(message.topic)
        except UnicodeDecodeError:
            return None
        if parts is None or not is_uplink(parts[1]):
            return None
        return Uplink(
            device_id=parts[0],
            channel=parts[1],
            payload=bytes(message.payload),
            received_at_ms=now_ms,
            content_type=getattr(message.properties, "ContentType", None),
            link=self._link.name,
        )

    def _hand_on(self, uplinks: list[Uplink], batch: _Batch) -> None:
        if not uplinks:
            self._safe(batch)
            return
        if self._open:
            self._receiver.uplinks(uplinks, self._done(uplinks, batch))

    def _done(self, uplinks: list[Uplink], batch: _Batch) -> Done:
        def done(outcomes: Sequence[Outcome]) -> None:
            again = [uplink for uplink, outcome in zip(uplinks, outcomes, strict=True) if is_temporary(outcome)]
            if not again:
                self._safe(batch)
                return
            pause_s = max((outcome.retry_after_s or 1.0) for outcome in outcomes if is_temporary(outcome))
            self._loop.call_later(pause_s, self._hand_on, again, batch)

        return done

    def _safe(self, batch: _Batch) -> None:
        """Acknowledge the batch, and those after it that were safe earlier, unless one before it is not safe yet."""
        batch.safe = True
        while self._batches and self._batches[0].safe:
            first = self._batches.popleft()
            self._outstanding -= len(first.mids)
            self._outstanding_qos0 -= first.qos0
            self._outstanding_bytes -= first.size
            if self._open:
                for mid in first.mids:
                    self._paho.ack(mid, 1)
        if not self._outstanding and not self._outstanding_qos0:
            self._settled.set()

    # Down

    async def publish(self, downlink: Downlink) -> bool:
        if len(self._publishes) >= self._options.downlinks:
            return False
        properties = None
        if downlink.content_type is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = downlink.content_type
        topic = topic_of(downlink.device_id, downlink.channel)
        info = self._paho.publish(topic, downlink.payload, qos=1, retain=downlink.retain, properties=properties)
        if info.rc != MQTT_ERR_SUCCESS:
            return False
        answer = self._publishes[info.mid] = self._loop.create_future()
        try:
            return await asyncio.wait_for(answer, PUBACK_TIMEOUT_S)
        except TimeoutError:
            return False
        finally:
            self._publishes.pop(info.mid, None)

    def _on_publish(
        self, paho: Paho, userdata: Any, mid: int, code: PahoReasonCode, properties: Properties | None
    ) -> None:
        answer = self._publishes.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(code == 0)  # 0x10: nobody has subscribed

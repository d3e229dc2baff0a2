"""One client's connection, from its first byte to its last: one task that reads, and answers that never wait.

The broker beside it decides and routes; this is the protocol's flow (MQTT 3.1.1 sections 3 and 4). Whatever ends it,
`end` is called once, at once and without waiting: take-over and kick must not depend on a peer that does not read.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from amqtt.mqtt import packet as mqtt
from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.pubcomp import PubcompPacket
from amqtt.mqtt.pubrec import PubrecPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.unsuback import UnsubackPacket

from broker.amqtt_engine.frames import Frame, Frames, PeerFault, UnsupportedProtocol, decode
from broker.amqtt_engine.inbox import Inbox, Slot
from broker.amqtt_engine.options import AmqttOptions
from broker.amqtt_engine.session import ClientSession
from broker.amqtt_engine.wire import Wire
from broker.engine import Publish
from broker.reason import TRANSIENT, ReasonCode
from broker.topics import is_topic

if TYPE_CHECKING:
    from broker.amqtt_engine.guarded import GuardedBroker

logger = logging.getLogger(__name__)

_PINGRESP = PingRespPacket.build().to_bytes()
_KEEPALIVE_GRACE = 1.5  # [MQTT-3.1.2-24]
_REFUSED = 0x80  # in a SUBACK
_UNACCEPTABLE_VERSION = 1  # in a CONNACK


class Connection:
    """A client's connection. `session` is set once it was let in; `username` as soon as it has said it."""

    def __init__(self, wire: Wire, broker: "GuardedBroker", options: AmqttOptions) -> None:
        self.wire = wire
        self.username = ""
        self.session: ClientSession | None = None
        self.ended = ""
        """Why it ended, in words; empty while it lives."""
        self._broker = broker
        self._options = options
        self._frames = Frames()
        self._inbox = Inbox(limit=options.max_undone, limit_bytes=options.max_undone_bytes)
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Serve the client until the connection ends; every fault of the peer stays in here."""
        try:
            await self._admit()
            if self.session is not None and not self.ended:
                await self._serve(self.session)
        except PeerFault as fault:
            self._hand_over()  # what came before the fault was in order
            self.end(fault.reason)
        except OSError:
            self.end("connection lost")
        except Exception:
            logger.exception("%s %.70r: the connection failed here", self.wire.address, self.username)
            self.end("internal error")
        finally:
            self.end("connection lost")
            await self.wire.finished()

    def end(self, reason: str, *, with_will: bool = True, cut: bool = False) -> None:
        """Close the connection and take it out of the broker, now. Only the first call does anything.

        With `cut` what was written and not sent is lost; without it the client gets a second to read it.
        """
        if self.ended:
            return
        self.ended = reason
        self._room.set()
        if cut:
            self.wire.abort()
        else:
            self.wire.close()
        if self.session is not None:
            self._broker.leave(self, self.session, reason, with_will=with_will)
        logger.debug("%s %.70r: %s", self.wire.address, self.username, reason)

    async def stop(self) -> None:
        """As amqtt's broker calls it."""
        self.end("server shutting down", with_will=False)

    def accept(self, session: ClientSession, *, session_present: bool) -> None:
        """Let the client in: the CONNACK goes out before anything else."""
        self.session = session
        self.wire.widen(self._options.max_packet_bytes)
        self.wire.write(ConnackPacket.build(int(session_present), 0).to_bytes())

    def refuse(self, return_code: int, reason: str) -> None:
        """Say no with a CONNACK [MQTT-3.2.2-4], and close."""
        self.wire.write(ConnackPacket.build(0, return_code).to_bytes())
        self.end(reason)

    # --- letting in

    async def _admit(self) -> None:
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                frame = await self._first_frame()
                if frame is None:
                    return
                packet = await decode(frame)
                self.username = packet.username or ""
                await self._broker.admit(self, packet)
        except TimeoutError:
            self.end("no CONNECT in time")
        except UnsupportedProtocol as fault:
            self.refuse(_UNACCEPTABLE_VERSION, fault.reason)

    async def _first_frame(self) -> Frame | None:
        while (data := await self.wire.read()) and not self.ended:
            self._frames.feed(data)
            if not self._frames.starts_with_connect:
                raise PeerFault("the first packet is not CONNECT")  # [MQTT-3.1.0-1]
            if (frame := self._frames.next(self._options.max_connect_bytes)) is not None:
                return frame
        return None

    # --- reading

    async def _serve(self, session: ClientSession) -> None:
        clock = asyncio.get_running_loop().time
        silence_s = session.keep_alive * _KEEPALIVE_GRACE
        deadline = clock() + silence_s
        while not self.ended:
            if (frame := self._frames.next(self._options.max_packet_bytes)) is not None:
                deadline = clock() + silence_s
                await self._handle(session, frame)
                if not self._inbox.full:
                    continue
            self._hand_over()
            deaf_since = clock()
            await self._wait_for_room()
            await self._drain()
            deadline += clock() - deaf_since  # the client is not to blame for the time we did not listen
            session.outbox.pump()  # what waited for the network and not for a PUBACK
            if frame is not None or self.ended:
                continue
            try:
                async with asyncio.timeout_at(deadline):
                    data = await self.wire.read()
            except TimeoutError:
                self.end("keep-alive expired")
                return
            if not data:
                return
            self._frames.feed(data)

    async def _wait_for_room(self) -> None:
        while self._inbox.full and not self.ended:
            self._room.clear()
            await self._room.wait()

    async def _drain(self) -> None:
        if self.ended or not self.wire.buffered:
            return
        try:
            async with asyncio.timeout(self._options.write_timeout_s):
                await self.wire.drain()
        except TimeoutError:
            self.end("does not read", cut=True)

    # --- packets

    async def _handle(self, session: ClientSession, frame: Frame) -> None:
        if frame.kind == mqtt.CONNECT:
            raise PeerFault("a second CONNECT")  # [MQTT-3.1.0-2]
        packet = await decode(frame)
        if frame.kind == mqtt.PUBLISH:
            self._on_publish(session, packet)
            return
        self._hand_over()
        match frame.kind:
            case mqtt.PUBACK | mqtt.PUBCOMP:
                session.outbox.acknowledged(packet.variable_header.packet_id)
            case mqtt.PUBREC:
                session.outbox.received(packet.variable_header.packet_id, packet)
            case mqtt.PUBREL:
                session.received.pop(packet.variable_header.packet_id, None)
                self.wire.write(PubcompPacket.build(packet.variable_header.packet_id).to_bytes())
            case mqtt.SUBSCRIBE:
                await self._on_subscribe(session, packet)
            case mqtt.UNSUBSCRIBE:
                for topic_filter in packet.payload.topics:
                    self._broker.unsubscribe(session, topic_filter)
                self.wire.write(UnsubackPacket.build(packet.variable_header.packet_id).to_bytes())
            case mqtt.PINGREQ:
                self.wire.write(_PINGRESP)
            case mqtt.DISCONNECT:
                self.end("client disconnected", with_will=False)  # [MQTT-3.14.4-3]

    def _on_publish(self, session: ClientSession, packet: Any) -> None:
        topic, packet_id, qos = packet.topic_name, packet.packet_id, packet.qos
        if not is_topic(topic):
            raise PeerFault("invalid topic name")  # [MQTT-3.3.2-2]
        ack = None if qos == 0 else (PubackPacket if qos == 1 else PubrecPacket).build(packet_id).to_bytes()
        if qos == 2 and (known := session.received.get(packet_id)) is not None:
            self._inbox.owe(known)  # sent again: acknowledged again once it is settled, delivered once [MQTT-4.3.3-2]
            self._acknowledge()
            return
        if not self._broker.may_publish(session, topic):
            self._inbox.owe(Slot(ack, code=ReasonCode.NOT_AUTHORIZED))  # as Mosquitto: acknowledged and dropped
            self._acknowledge()
            return
        message = Publish(
            topic=topic,
            payload=packet.data,
            qos=qos,
            retain=packet.retain_flag,
            client_id=session.client_id,
            username=session.username,
        )
        slot = self._inbox.take(message, ack)
        if qos == 2:
            if len(session.received) >= self._options.max_undone:
                raise PeerFault("too many messages of QoS 2 not released")
            slot.packet_id = packet_id
            session.received[packet_id] = slot
        self._broker.route(message)

    async def _on_subscribe(self, session: ClientSession, packet: Any) -> None:
        granted = []
        for topic_filter, qos in packet.payload.topics:
            if qos > 2:
                raise PeerFault("malformed SUBSCRIBE: QoS")  # [MQTT-3-8.3-4]
            allowed = await self._broker.subscribe(session, topic_filter, qos)
            if self.ended:
                return
            granted.append(qos if allowed else _REFUSED)
        self.wire.write(SubackPacket.build(packet.variable_header.packet_id, granted).to_bytes())
        for (topic_filter, _), qos in zip(packet.payload.topics, granted, strict=True):
            if qos == _REFUSED:
                continue
            for kept, kept_qos in self._broker.retained.matching(topic_filter):
                session.outbox.offer(kept, min(qos, kept_qos))
                if self.wire.buffered > self._options.max_outgoing_bytes // 2:
                    await self._drain()
                if self.ended:
                    return
        for (topic_filter, _), qos in zip(packet.payload.topics, granted, strict=True):
            if qos != _REFUSED:
                self._broker.tell_subscribed(session, topic_filter)

    # --- the sink

    def _hand_over(self) -> None:
        """Give the sink what came since the last time."""
        batch, slots = self._inbox.batch()
        if not batch:
            return
        done = partial(self._done, slots)
        if self._broker.sink is None:
            done([ReasonCode.SUCCESS] * len(batch))
            return
        try:
            self._broker.sink(batch, done)
        except Exception:
            logger.exception("the sink failed on %d messages of %.70r", len(batch), self.username)
            if slots[0].code is None:
                done([ReasonCode.UNSPECIFIED_ERROR] * len(batch))

    def _done(self, slots: Sequence[Slot], codes: Sequence[ReasonCode]) -> None:
        if len(codes) != len(slots):
            raise ValueError(f"{len(codes)} codes for {len(slots)} messages")
        if slots[0].code is not None:
            raise RuntimeError("done was called twice")
        session = self.session
        for slot, code in zip(slots, codes, strict=True):
            slot.code = code
            if slot.packet_id and code in TRANSIENT and session is not None:
                session.received.pop(slot.packet_id, None)  # not taken after all: sent again, it is new
        self._acknowledge()
        if self.ended and session is not None and (current := self._broker.connection_of(session)) is not None:
            current._acknowledge()  # a message of QoS 2 that the client has sent again on its next connection

    def _acknowledge(self) -> None:
        """Send the acknowledgements that are due."""
        if self.ended:
            return
        acks, transient = self._inbox.due()
        if acks:
            self.wire.write(acks)
        if transient is not None:
            self.end(transient.name.lower().replace("_", " "))
        elif not self._inbox.full:
            self._room.set()

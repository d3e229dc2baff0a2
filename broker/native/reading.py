"""The hot path: the packets that a read holds, acted on.

What makes it fast is that nothing is done per message that can be done per read. A read may hold hundreds of packets.
The loop in `Reader.parse` goes through all of them without a task, an await, a queue or a log line; what they cause is
gathered (bytes in the sessions' `out`, messages in one batch for the sink, one joined acknowledgement) and goes out
once. Within a read, publishers mostly repeat themselves: the same topic, the same size. So the beginning of the last
PUBLISH (header, length, topic: the memo) is kept and compared with the next one. If it is the same, length, topic,
permission and subscribers are known already; and a run of such packets of QoS 0 goes to plain subscribers as the one
piece of bytes in which it came.

Whatever is rare leaves the loop: a PUBLISH of QoS 2, with properties, RETAIN or DUP for `publishing`, the other packets
for `requests`.
"""

from time import monotonic
from typing import TYPE_CHECKING

from broker.engine import Publish
from broker.native import publishing, requests
from broker.native.message import Message
from broker.native.router import Route
from broker.native.session import Session
from broker.packets import MalformedPacket, check_first_byte, frame
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection

_NO_MEMO = b"\xff\xff"  # begins no packet
_PUBLISH = 0x30
_PLAIN = (0x30, 0x32)  # QoS 0 and 1, neither DUP nor RETAIN
_PINGREQ, _PINGRESP = b"\xc0\x00", b"\xd0\x00"
_PUBACK = b"\x40\x02"
_LANES_LIMIT = 256  # topics of one client whose routes are remembered


class Reader:
    """Reads the packets of one client, and remembers what it publishes."""

    __slots__ = ("_connection", "_epoch", "_hub", "_lanes", "_memo", "_route", "_rules_version", "_span")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._hub = connection.hub
        self._memo = _NO_MEMO
        self._span = 0
        self._route: Route | None = None
        self._lanes: dict[bytes, Route] = {}
        self._epoch = -1
        self._rules_version = -1

    def parse(self, data: bytes, session: Session) -> bool:
        """Act on every whole packet in `data`, keep the rest; whether there was no room for more messages.

        The hot path: see the top of this module.
        """
        connection, hub = self._connection, self._hub
        owing = connection.owing
        now = self._begin()
        sink = hub.sink
        mqtt5 = connection.mqtt5
        memo, span, route = self._memo, self._span, self._route
        offset, size = 0, len(data)
        journaled = hub.journaled
        entries: list[bytes] = []  # the acknowledgements owed, empty ones for QoS 0 where there is a sink
        batch: list[Publish] = []  # for the sink
        rare: list[tuple[int, publishing.Outcome]] = []  # what is not as simple as the rest, by its place in `entries`
        messages = unacked = 0
        room = hub.options.max_undone - owing.undone if sink is not None else size
        quota = hub.options.max_undone - owing.unacked - len(session.received) if mqtt5 else size
        full = False
        try:
            while size - offset >= 2:
                if data.startswith(memo, offset):
                    end = offset + span
                    if end > size:
                        break
                    first = data[offset]
                else:
                    if data.startswith(_PUBACK, offset):
                        if size - offset < 4:
                            break
                        session.puback(_packet_id(data[offset + 2 : offset + 4]))
                        offset += 4
                        continue
                    if data.startswith(_PINGREQ, offset):
                        session.emit(_PINGRESP)  # [MQTT-3.12.4-1]
                        offset += 2
                        continue
                    check_first_byte(data[offset], session.protocol)
                    found = frame(data, offset, hub.options.max_packet_bytes)
                    if found is None:
                        break
                    first, start, end = found
                    if first & 0xF0 != _PUBLISH:
                        offset = end
                        if entries:  # it may end the connection: what came before it is acknowledged first
                            owing.owe(session, entries, rare, batch, unacked, journaled=journaled != hub.journaled)
                            entries, rare, batch = [], [], []
                            journaled, unacked = hub.journaled, 0
                            room = hub.options.max_undone - owing.undone if sink is not None else size
                            quota = hub.options.max_undone - owing.unacked - len(session.received) if mqtt5 else size
                            if connection.ended:
                                break
                        requests.act(connection, session, first, data, start, end, now)
                        if connection.blocked or connection.ended:
                            break
                        continue
                    route = self._memorize(session, first, data, offset, start, end) if first in _PLAIN else None
                    if route is not None:
                        memo, span = self._memo, self._span
                if len(entries) >= room:
                    full = True
                    break
                if route is None:
                    memo = _NO_MEMO
                    if first & 0x06 == 0x02:
                        unacked += 1
                        if unacked > quota:
                            raise MalformedPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "beyond the Receive Maximum")
                    outcome = publishing.publish(connection, session, first, data, start, end, now)
                    if outcome.message is not None and sink is not None:
                        batch.append(outcome.message)
                    rare.append((len(entries), outcome))
                    entries.append(outcome.entry)
                    messages += 1
                    offset = end
                    if connection.ended:
                        break
                    continue
                at = offset + len(memo)
                if first == 0x30:
                    run = end
                    while data.startswith(memo, run) and run + span <= size:
                        run += span
                    if sink is not None:
                        run = min(run, offset + (room - len(entries)) * span)
                        for body in range(at, run, span):
                            batch.append(
                                Publish(
                                    topic=route.name,
                                    payload=data[body : body + end - at],
                                    client_id=session.client_id,
                                    username=session.username,
                                )
                            )
                            entries.append(b"")
                    messages += (run - offset) // span
                    publishing.forward(hub, session, route, data[offset:run], span, len(memo), now)
                    offset = run
                    if connection.ended:
                        break
                    continue
                # QoS 1 without properties, RETAIN or DUP
                body = at + 2
                if mqtt5:
                    if data[body]:
                        self._memo = memo = _NO_MEMO
                        continue
                    body += 1
                    unacked += 1
                    if unacked > quota:
                        raise MalformedPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "beyond the Receive Maximum")
                wire_id = data[at : at + 2]
                if wire_id == b"\0\0":
                    raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet identifier of 0")  # [MQTT-2.2.1-3]
                payload = data[body:end]
                hub.deliver(route, Message(route.wire, payload, 1, session, b"" if mqtt5 else memo), now)
                entries.append(_PUBACK + wire_id)
                if sink is not None:
                    batch.append(
                        Publish(
                            topic=route.name,
                            payload=payload,
                            qos=1,
                            client_id=session.client_id,
                            username=session.username,
                        )
                    )
                messages += 1
                offset = end
                if connection.ended:
                    break
        finally:
            if offset < size and not connection.ended:
                connection.keep(data, offset)
            if session.queued:
                session.pump(now)
            if messages:
                hub.counters.messages_received += messages
                if entries:
                    owing.owe(session, entries, rare, batch, unacked, journaled=journaled != hub.journaled)
                if hub.options.max_publishes_per_s:
                    connection.throttle(messages, now)
        return full

    def _begin(self) -> float:
        """Note the time, and drop what was learned under other rules."""
        hub = self._hub
        now = monotonic()
        version = hub.hooks.rules_version
        if self._rules_version != version or self._epoch != hub.router.epoch or version < 0:
            self._rules_version = version
            self._epoch = hub.router.epoch
            self._lanes.clear()
            self._memo = _NO_MEMO
        self._connection.heard_at = now
        return now

    def _memorize(self, session: Session, first: int, data: bytes, offset: int, start: int, end: int) -> Route | None:
        """The route of a PUBLISH that looks plain so far, and its beginning for the next ones; None if it is not plain.

        Plain: the Guard allows it, and says for how long that holds; without properties.
        """
        at = start + 2 + (data[start] << 8 | data[start + 1]) if end - start >= 2 else end + 1
        after = at + 2 if first == 0x32 else at
        if after + session.mqtt5 > end or (session.mqtt5 and data[after]):
            return None
        wire = data[start:at]
        route = self._lanes.get(wire)
        if route is None:
            if self._rules_version < 0:
                return None
            route = publishing.open_lane(self._connection, session, wire)
            if route is None:
                return None
            if len(self._lanes) >= _LANES_LIMIT:
                self._lanes.clear()
            self._lanes[wire] = route
        self._memo = data[offset : at + 1] if session.mqtt5 and first == 0x30 else data[offset:at]
        self._span = end - offset
        self._route = route
        return route


def _packet_id(wire_id: bytes) -> int:
    packet_id = wire_id[0] << 8 | wire_id[1]
    if not packet_id:
        raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet identifier of 0")  # [MQTT-2.2.1-3]
    return packet_id

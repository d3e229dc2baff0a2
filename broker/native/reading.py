"""The hot path: the packets that a read holds, acted on.

What makes it fast is that nothing is done per message that can be done per read. A read may hold hundreds of packets.
The loop in `Reader._walk` goes through all of them without a task, an await, a queue or a log line; what they cause is
gathered (bytes in the sessions' `out`, messages in one batch for the sink, one joined acknowledgement) and goes out
once. Within a read, publishers mostly repeat themselves: the same topic, often the same size. So the beginning of the
last PUBLISH (header, length, topic: the memo) is kept and compared with the next one. If it is the same, length, topic,
permission and subscribers are known already. Where nobody needs the messages one at a time, a run of them is passed on
as the one piece of bytes in which it came: at QoS 0 always, at QoS 1 with other packet identifiers written over it.

Whatever is rare leaves the loop: a PUBLISH of QoS 2, with properties, RETAIN or DUP for `publishing`, the other packets
for `requests`.
"""

import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.engine import Publish
from broker.native import publishing, requests
from broker.native.message import Message
from broker.native.router import Route
from broker.native.session import Session
from broker.packets import MalformedPacket, PacketType, check_first_byte, frame
from broker.reason import ReasonCode

if TYPE_CHECKING:
    from broker.native.connection import Connection

_PUBLISH = 0x30
_QOS_1 = 0x32
_PLAIN = (_PUBLISH, _QOS_1)  # neither DUP nor RETAIN
_PINGREQ, _PINGRESP = b"\xc0\x00", b"\xd0\x00"
_PUBACK = b"\x40\x02"
_ACKNOWLEDGEMENTS = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP)
_LANES_LIMIT = 256  # topics of one client whose routes are remembered
_LANE_BYTES = 128  # the longest of them: a client that has gone quiet holds on to what it remembers
_STEPS = 4000  # of one client in one turn of the loop: 10 to 20 ms
_RARE_STEPS = 8  # what is not plain takes as long as so many that are
_LOOKS_A_STEP = 4  # levels of filters that a topic is held against: few, but for who has many deep filters
_make = tuple.__new__  # a NamedTuple's own constructor takes half as long again
_PIECE_BYTES = 4096  # of a run of QoS 1: each piece is held on to until the last of its messages is acknowledged


class Haul:
    """What one read has brought so far."""

    __slots__ = (
        "acknowledged",
        "batch",
        "counted",
        "entries",
        "full",
        "journaled",
        "messages",
        "rare",
        "room",
        "size",
        "steps",
        "unacked",
    )

    def __init__(self, journaled: int, room: int, steps: int) -> None:
        self.journaled = journaled
        self.room = room
        """How many more messages may be taken before some are settled, where there is a sink."""
        self.acknowledged = False
        """The client has acknowledged something."""
        self.full = False
        """There was no room for the next message."""
        self.messages = 0
        self.counted = 0
        """Those of them that the counters know of."""
        self.entries: list[bytes] = []
        """The acknowledgements owed; where there is a sink, empty ones for QoS 0."""
        self.batch: list[Publish] = []
        """For the sink."""
        self.rare: list[tuple[int, publishing.Outcome]] = []
        """What is not as simple as the rest, by its place in `entries`."""
        self.unacked = 0
        """Messages of QoS 1."""
        self.size = 0
        """In bytes, of what `entries` are for."""
        self.steps = steps
        """How much more may be done before the others have their turn."""


class Reader:
    """Reads the packets of one client, and remembers what it publishes."""

    __slots__ = ("_connection", "_hub", "_lanes", "_lone", "_memo", "_route", "_span", "_stamp", "_steps", "_turn")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._hub = connection.hub
        self._memo = b""
        self._span = 0
        self._route: Route | None = None
        """Of the memo; None when there is no memo."""
        self._lanes: dict[bytes, Route] = {}
        self._stamp = 0
        self._steps = 0
        self._turn = 0.0
        """The turn of the loop that `_steps` are of: uvloop reads from one client many times in a turn."""
        self._lone = False

    def lone(self, data: bytes) -> bool:
        """Whether a read was one plain message like the one before it, and is done with: the shortest way there is.

        Many devices send one message at a time, so that a read holds no more.
        """
        hub, route = self._hub, self._route
        if (
            not self._lone
            or len(data) != self._span
            or self._stamp != hub.stamp
            or route is None
            or not route.fresh
            or not data.startswith(self._memo)
        ):
            return False
        if self._connection.mqtt5:
            if not route.only_plain5:
                return False
            sessions = route.plain5
        else:
            if not route.only_plain:
                return False
            sessions = route.plain
        self._connection.heard_at = hub.now
        route.messages += 1
        hub.counters.messages_received += 1
        publishing.push(hub, sessions, data, 1)
        return True

    def parse(self, data: bytes, session: Session) -> bool:
        """Act on every whole packet in `data`, keep the rest; whether there was no room for more messages."""
        connection, hub = self._connection, self._hub
        now = hub.look()
        if self._stamp != hub.stamp:  # what was learned holds no more
            self._stamp = hub.stamp
            self._lanes.clear()
            self._route = None
        connection.heard_at = now
        room = hub.options.max_undone - connection.owing.undone if hub.sink is not None else len(data)
        if self._turn != now:
            self._turn, self._steps = now, _STEPS
        haul = Haul(hub.journaled, room, self._steps)
        try:
            offset = self._walk(data, session, haul, now)
            if offset < len(data) and not connection.ended:
                if haul.steps <= 0 and not connection.blocked:
                    connection.give_way()
                connection.keep(data, offset)
        finally:
            self._steps = haul.steps
            if session.queued:
                session.pump(now)
            if connection.feed.waiting:
                connection.feed.go_on()
            self._settle(session, haul)
            if haul.messages and hub.options.max_publishes_per_s:
                connection.throttle(haul.messages, now)
            if haul.acknowledged and not session.out:
                connection.acknowledge_now()
        return haul.full

    def _walk(self, data: bytes, session: Session, haul: Haul, now: float) -> int:
        """Act on the packets; where those begin that must wait."""
        connection, hub = self._connection, self._hub
        memo, span, route = self._memo, self._span, self._route
        offset, size = 0, len(data)
        while size - offset >= 2 and haul.steps > 0:
            haul.steps -= 1
            if route is not None and data.startswith(memo, offset):
                if offset + span > size:
                    break
                first = memo[0]
            else:
                if data.startswith(_PUBACK, offset) and size - offset >= 4:
                    offset = _pubacks(data, offset, session)
                    haul.acknowledged = True
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
                    if not self._other(session, haul, first, data, start, end, now):
                        break
                    continue
                if len(haul.entries) >= haul.room:
                    haul.full = True
                    break
                looked = hub.router.looked
                known = self._memorize(session, first, data, offset, start, end) if first in _PLAIN else None
                if known is None:
                    self._rare(session, haul, first, data, start, end, now)
                    offset = end
                haul.steps -= (hub.router.looked - looked) // _LOOKS_A_STEP
                if known is None:
                    if connection.ended:
                        break
                    continue
                memo, span, route = self._memo, self._span, known
            if len(haul.entries) >= haul.room:
                haul.full = True
                break
            if first == _PUBLISH:
                offset = self._qos_0(session, haul, route, data, offset, now)
            else:
                offset = self._qos_1(session, haul, route, data, offset, now)
                route = self._route
            if connection.ended:
                break
        return offset

    def _qos_0(self, session: Session, haul: Haul, route: Route, data: bytes, offset: int, now: float) -> int:
        """A run of plain messages of QoS 0 on one topic; where it ends."""
        hub, memo, span, size = self._hub, self._memo, self._span, len(data)
        run, count = offset + span, 1
        while data.startswith(memo, run) and run + span <= size:
            run += span
            count += 1
        if not route.fresh:
            hub.router.refresh(route)
        if hub.sink is not None:
            count = min(count, haul.room - len(haul.entries))
            run = offset + count * span
            body = offset + len(memo)
            bodies = range(body, body + count * span, span)
            self._for_the_sink(session, haul, route, data, bodies, span - len(memo), qos=0)
            publishing.forward(hub, session, route, data[offset:run], span, len(memo), now)
        elif route.only_plain5 if session.mqtt5 else route.only_plain:
            self._lone = count == 1 and not offset and run == size and not hub.options.max_publishes_per_s
            run, more = _extended(data, run, route.wire, hub.options.max_packet_bytes, mqtt5=session.mqtt5)
            count += more
            route.messages += count
            publishing.push(hub, route.plain5 if session.mqtt5 else route.plain, data[offset:run], count)
        else:
            publishing.forward(hub, session, route, data[offset:run], span, len(memo), now)
        haul.messages += count
        return run

    def _qos_1(self, session: Session, haul: Haul, route: Route, data: bytes, offset: int, now: float) -> int:
        """One message of QoS 1 without RETAIN or DUP, or a run of them; where it ends.

        With properties it is not plain, which the memo does not tell: then nothing is done, and the memo is dropped.
        """
        hub, memo, span = self._hub, self._memo, self._span
        at, body, end = offset + len(memo), offset + len(memo) + 2, offset + span
        if session.mqtt5:
            if data[body]:
                self._route = None
                return offset
            body += 1
        if not route.fresh:
            hub.router.refresh(route)
        if hub.sink is not None and route.is_empty:
            if run := self._qos_1_for_the_sink(session, haul, route, data, offset):
                return run
        elif hub.sink is None and route.same_qos_1(session) and data.startswith(memo, end):
            room = min([other.run_room() for other, _ in route.others])
            if room > 1 and (run := self._qos_1_run(session, haul, route, data, offset, room)):
                return run
        wire_id = data[at : at + 2]
        if wire_id == b"\0\0":
            raise MalformedPacket(ReasonCode.PROTOCOL_ERROR, "a packet identifier of 0")  # [MQTT-2.2.1-3]
        self._count_unacked(session, haul, 1)
        payload = data[body:end]
        hub.deliver(route, Message(route.wire, payload, 1, session, b"" if session.mqtt5 else memo), now)
        if hub.sink is not None:
            self._for_the_sink(session, haul, route, data, (body,), end - body, qos=1)
            haul.entries[-1] = _PUBACK + wire_id
        else:
            haul.entries.append(_PUBACK + wire_id)
        haul.messages += 1
        return end

    def _qos_1_run(self, session: Session, haul: Haul, route: Route, data: bytes, offset: int, room: int) -> int:
        """A run of at most `room` messages of QoS 1 that differ in payload only, passed on in one piece; where it ends.

        0 when it cannot go in one piece: then they go one by one.
        """
        memo, span = self._memo, self._span
        run, at, limit = offset + span, len(memo), min(len(data), offset + room * span)
        while data.startswith(memo, run) and run + span <= limit:
            run += span
        piece = data[offset:run]
        count = len(piece) // span
        high, low = piece[at::span], piece[at + 1 :: span]
        if 0 in low and 0 in high and any(not (one or other) for one, other in zip(high, low, strict=True)):
            return 0  # a packet identifier of 0: up to there all is well
        if session.mqtt5 and piece[at + 2 :: span].count(0) != count:
            return 0  # properties
        self._count_unacked(session, haul, count)
        step = max(1, _PIECE_BYTES // span)
        pieces = [piece]
        if count > step:
            pieces = [piece[begin : begin + step * span] for begin in range(0, len(piece), step * span)]
        for other, _ in route.others:
            for part in pieces:
                other.deliver_run(part, span, at, len(part) // span, len(route.wire))
        owed = bytearray(_PUBACK + b"\0\0") * count
        owed[2::4], owed[3::4] = high, low
        haul.entries.append(bytes(owed))
        haul.messages += count
        route.messages += count
        self._hub.counters.messages_sent += count * len(route.others)
        return run

    def _qos_1_for_the_sink(self, session: Session, haul: Haul, route: Route, data: bytes, offset: int) -> int:
        """A run of messages of QoS 1 on one topic, of any size, that nobody but the sink wants; where it ends.

        0 when already the first is not as simple as that. What is not simple ends the run: it has its turn next.
        """
        options, wire, mqtt5, size = self._hub.options, route.wire, session.mqtt5, len(data)
        head, limit, max_bytes = len(wire), haul.room - len(haul.entries), options.max_packet_bytes
        name, client_id, username = route.name, session.client_id, session.username
        batch: list[Publish] = []
        entries: list[bytes] = []
        began = offset
        while len(entries) < limit and size - offset > 4 and data[offset] == _QOS_1:
            length, start = data[offset + 1], offset + 2
            if length > 0x7F:
                high = data[start]
                if not 0 < high < 0x80:
                    break
                length += (high << 7) - 0x80
                start += 1
            end, at = start + length, start + head
            body = at + 2 + mqtt5
            if end > size or body > end or end - offset > max_bytes or not data.startswith(wire, start):
                break
            wire_id = data[at : at + 2]
            if wire_id == b"\0\0" or (mqtt5 and data[at + 2]):
                break
            entries.append(_PUBACK + wire_id)
            batch.append(_make(Publish, (name, data[body:end], 1, False, client_id, username, None)))
            offset = end
        if not entries:
            return 0
        count = len(entries)
        self._count_unacked(session, haul, count)
        haul.size += offset - began
        haul.batch += batch
        haul.entries += entries
        haul.messages += count
        route.messages += count
        return offset

    def _count_unacked(self, session: Session, haul: Haul, count: int) -> None:
        """Hold an MQTT 5 client to the Receive Maximum it was told [MQTT-3.3.4-7]."""
        haul.unacked += count
        if session.mqtt5:
            unacked = haul.unacked + self._connection.owing.unacked + len(session.received)
            if unacked > self._hub.options.max_undone:
                raise MalformedPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "beyond the Receive Maximum")

    def _for_the_sink(
        self, session: Session, haul: Haul, route: Route, data: bytes, starts: Sequence[int], size: int, *, qos: int
    ) -> None:
        """The messages whose payloads begin at `starts`, all of one size."""
        name, client_id, username = route.name, session.client_id, session.username
        haul.size += len(starts) * (size + len(route.wire))
        haul.batch += [
            _make(Publish, (name, data[at : at + size], qos, False, client_id, username, None)) for at in starts
        ]
        haul.entries += [b""] * len(starts)

    def _rare(self, session: Session, haul: Haul, first: int, data: bytes, start: int, end: int, now: float) -> None:
        """A PUBLISH that is not plain."""
        haul.steps -= _RARE_STEPS
        haul.size += end - start
        if first & 0x06 == 0x02:
            self._count_unacked(session, haul, 1)
        outcome = publishing.publish(self._connection, session, first, data, start, end, now)
        if outcome.message is not None and self._hub.sink is not None:
            haul.batch.append(outcome.message)
        haul.rare.append((len(haul.entries), outcome))
        haul.entries.append(outcome.entry)
        haul.messages += 1

    def _other(self, session: Session, haul: Haul, first: int, data: bytes, start: int, end: int, now: float) -> bool:
        """A packet that is no PUBLISH; whether those behind it may be looked at."""
        connection, hub = self._connection, self._hub
        haul.steps -= _RARE_STEPS
        if haul.entries:  # it may end the connection: what came before it is acknowledged first
            self._settle(session, haul)
            if hub.sink is not None:
                haul.room = hub.options.max_undone - connection.owing.undone
            if connection.ended:
                return False
        haul.acknowledged |= first >> 4 in _ACKNOWLEDGEMENTS
        requests.act(connection, session, first, data, start, end, now)
        return not (connection.blocked or connection.ended)

    def _settle(self, session: Session, haul: Haul) -> None:
        """Hand over what was brought so far, to be acknowledged."""
        hub = self._hub
        if haul.entries:
            entries, rare, batch, unacked = haul.entries, haul.rare, haul.batch, haul.unacked
            size, haul.size = haul.size, 0
            haul.entries, haul.rare, haul.batch, haul.unacked = [], [], [], 0
            journaled = haul.journaled != hub.journaled
            haul.journaled = hub.journaled
            self._connection.owing.owe(session, entries, rare, batch, unacked, size=size, journaled=journaled)
        hub.counters.messages_received += haul.messages - haul.counted
        haul.counted = haul.messages

    def _memorize(self, session: Session, first: int, data: bytes, offset: int, start: int, end: int) -> Route | None:
        """The route of a PUBLISH that looks plain so far, and its beginning for the next ones; None if it is not plain.

        Plain: the Guard allows it, and says for how long that holds; without properties.
        """
        at = start + 2 + (data[start] << 8 | data[start + 1]) if end - start >= 2 else end + 1
        after = at + 2 if first == _QOS_1 else at
        if after + session.mqtt5 > end or (session.mqtt5 and data[after]):
            return None
        wire = data[start:at]
        route = self._lanes.get(wire)
        if route is None:
            if not self._hub.hooks.is_versioned:
                return None
            route = publishing.open_lane(self._connection, session, wire)
            if route is None:
                return None
            if len(self._lanes) >= _LANES_LIMIT:
                self._lanes.clear()
            if len(wire) <= _LANE_BYTES:
                self._lanes[wire] = route
        self._memo = data[offset : at + 1] if session.mqtt5 and first == _PUBLISH else data[offset:at]
        self._span = end - offset
        self._route = route
        self._lone = False
        return route


def _pubacks(data: bytes, offset: int, session: Session) -> int:
    """PUBACKs in their short form, one behind the other; where they end."""
    count = len(data) - offset >> 2
    words = array("H", data[offset : offset + count * 4])
    if sys.byteorder == "little":
        words.byteswap()
    kinds, packet_ids = words[0::2], words[1::2]
    if kinds.count(0x4002) != count:
        count = next(place for place, kind in enumerate(kinds) if kind != 0x4002)
        packet_ids = packet_ids[:count]
    session.pubacks(packet_ids)
    return offset + count * 4


def _extended(data: bytes, offset: int, wire: bytes, max_bytes: int, *, mqtt5: bool) -> tuple[int, int]:
    """How far a run of plain messages of QoS 0 on one topic goes on, of any size; and how many more they are.

    Only looks: what is not simple (a longer length, another topic, properties) ends the run.
    """
    size, head, count = len(data), len(wire), 0
    while size - offset > 4 and data[offset] == _PUBLISH:
        length, start = data[offset + 1], offset + 2
        if length > 0x7F:
            high = data[start]
            if not 0 < high < 0x80:
                break
            length += (high << 7) - 0x80
            start += 1
        end = start + length
        if (
            end > size
            or end - offset > max_bytes
            or length < head + mqtt5
            or not data.startswith(wire, start)
            or (mqtt5 and data[start + head])
        ):
            break
        offset = end
        count += 1
    return offset, count

"""The two brokers that every test runs against, and a client that says and hears exact packets.

`native` is the one under test, `mosquitto` the judge of the tests. Where the judge errs, `mosquitto_differs` says how;
such a test still runs against it and must fail there, so that no excuse outlives its reason.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import pytest

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from tests.broker.blackbox import wire
from tests.broker.blackbox.wire import Packet
from tests.broker.clients import HOST, SOON_S, RawClient

DIFFERS_SOON_S = 0.15  # waiting in vain for what Mosquitto does not send: no need to be patient
PUBLISHED = (0x00, 0x10)  # success, and success with nobody listening

levels = pytest.mark.parametrize("level", [3, 4, 5], ids=["v31", "v311", "v5"])
before_5 = pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
since_311 = pytest.mark.parametrize("level", [4, 5], ids=["v311", "v5"])


def mosquitto_differs(instead: str, **when: Any) -> pytest.MarkDecorator:
    """Mosquitto 2.0.11 does `instead` of what the test asks for; in all cases, or `when` parameters are as given
    (a tuple: one of these).

    Also for `pytest.param(..., marks=...)`.
    """
    return pytest.mark.mosquitto_differs(instead, when)


def excuse(item: pytest.Item) -> str | None:
    """What Mosquitto does instead, if this test is marked so."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or callspec.params.get("broker") != "mosquitto":
        return None
    for mark in item.iter_markers("mosquitto_differs"):
        instead, when = mark.args
        given = ((callspec.params[name], wanted) for name, wanted in when.items())
        if all(value in wanted if isinstance(wanted, tuple) else value == wanted for value, wanted in given):
            return str(instead)
    return None


def kept(level: int) -> dict[str, Any]:
    """How a client of this level says that its session shall last."""
    return {"clean": False, "session_expiry_interval": 60} if level == 5 else {"clean": False}


class AllowAll:
    """A Guard, to be asked each time."""

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.SUCCESS


class Client(RawClient):
    """One connection of one protocol level. Whatever it expects must be the very next packet."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, level: int, soon_s: float, client_id: str
    ) -> None:
        super().__init__(reader, writer)
        self.level, self.soon_s, self.client_id = level, soon_s, client_id
        self.connack = Packet(0, b"")
        """The CONNACK received, if any."""
        self._packet_id = 0

    # --- any packet

    async def read_packet(self) -> bytes:
        async with asyncio.timeout(self.soon_s):
            raw = await self.reader.readexactly(2)
            while raw[-1] & 0x80:
                raw += await self.reader.readexactly(1)
            length, _ = wire.read_varint(raw, 1)
            return raw + await self.reader.readexactly(length)

    async def next(self) -> Packet:
        try:
            return wire.parse(await self.read_packet(), self.level)
        except asyncio.IncompleteReadError as error:
            raise AssertionError("the connection ended instead") from error

    async def expect(self, expected: bytes) -> None:
        """The next packet is this one; it may have a reason string unless one is expected."""
        got, wanted = await self.next(), wire.parse(expected, self.level)
        assert (got if wanted.get("reason_string") else got.without("reason_string")) == wanted

    async def all_before_pingresp(self) -> list[Packet]:
        """Everything that comes until everything sent so far has been worked off."""
        self.send(wire.pingreq())
        got: list[Packet] = []
        while (packet := await self.next()).first != wire.PINGRESP:
            got.append(packet)
        return got

    async def expect_end(self) -> None:
        """The connection ends with nothing more."""
        async with asyncio.timeout(self.soon_s):
            with contextlib.suppress(ConnectionError):
                assert await self.reader.read(1) == b""

    async def closed(self, *reasons: int) -> None:
        """The server closes the connection, at level 5 after a DISCONNECT with one of these reason codes."""
        if self.level == 5:
            farewell = await self.next()
            assert farewell.first == wire.DISCONNECT
            assert farewell.reason in reasons, f"DISCONNECT 0x{farewell.reason:02X}"
            assert farewell.get("session_expiry_interval") is None  # [MQTT-3.14.2-2]
        await self.expect_end()

    async def ended(self) -> None:
        """The server closes the connection, at level 5 perhaps after a DISCONNECT."""
        raw = await self.everything()
        assert raw == b"" or (self.level == 5 and wire.parse(raw).first == wire.DISCONNECT)

    async def dies_of(self, raw: bytes, *reasons: int) -> None:
        """These bytes end the connection; at level 5 a DISCONNECT says why if reason codes are given, else perhaps."""
        self.send(raw, wire.pingreq())
        heard = [wire.parse(one, self.level) for one in wire.packets(await self.everything(stop=wire.pingresp()))]
        assert all(packet.first == wire.DISCONNECT and self.level == 5 for packet in heard), "it lives"
        if reasons and self.level == 5:
            assert len(heard) == 1, "not a word"
            assert heard[0].reason in reasons, f"DISCONNECT 0x{heard[0].reason:02X}"
            assert heard[0].get("session_expiry_interval") is None  # [MQTT-3.14.2-2]

    async def not_let_in(self) -> None:
        """The server closes the connection, perhaps after a CONNACK with an error, and no other packet.

        [MQTT-3.14.0-1]; before MQTT 5 such a CONNACK can only say 2, 4 or 5 (client id, user name, not authorised).
        """
        raw = await self.everything(stop=wire.pingresp())
        if raw:
            answer = wire.parse(raw, self.level)
            assert answer[:2] == (wire.CONNACK, bytes([0, answer.reason]))
            assert answer.reason >= 0x80 if self.level == 5 else answer.reason in (2, 4, 5)

    async def everything(self, *, stop: bytes | None = None) -> bytes:
        """What the server sends until it closes the connection, or until `stop`."""
        raw = b""
        async with asyncio.timeout(self.soon_s):
            with contextlib.suppress(ConnectionError):
                while more := await self.reader.read(1000):
                    raw += more
                    if stop and raw.endswith(stop):
                        break
        return raw

    # --- one exchange each

    async def connect(self, *, present: bool = False, **fields: Any) -> Packet:
        """CONNECT, let in."""
        self.send(wire.connect(self.client_id, level=self.level, **fields))
        self.connack = await self.next()
        # MQTT 3.1 has no session present flag: there the byte is reserved
        assert self.connack[:2] == (wire.CONNACK, bytes([present and self.level > 3, 0]))
        return self.connack

    async def subscribe(
        self, *filters: str | tuple[str, int], qos: int = 0, granted: tuple[int, ...] = (), **fields: Any
    ) -> None:
        """SUBSCRIBE, granted as asked or as said; retained messages come after it."""
        packet_id = self.new_packet_id()
        self.send(wire.subscribe(*filters, qos=qos, packet_id=packet_id, level=self.level, **fields))
        codes = granted or tuple(one[1] & 3 if isinstance(one, tuple) else qos for one in filters)
        await self.expect(wire.suback(*codes, packet_id=packet_id, level=self.level))

    async def refused_filter(self, topic_filter: str | bytes) -> None:
        """SUBSCRIBE is answered by an error code, or by closing the connection."""
        self.send(wire.subscribe(topic_filter, packet_id=77, level=self.level), wire.pingreq())
        raw = await self.everything(stop=wire.pingresp())
        if raw.endswith(wire.pingresp()):
            answer = wire.parse(raw.removesuffix(wire.pingresp()), self.level)
            assert answer[:2] == (wire.SUBACK, wire.u16(77))
            assert answer.rest in ((b"\x80", b"\x8f") if self.level == 5 else (b"\x80",))
        else:
            assert raw == b"" or wire.parse(raw, self.level).first == wire.DISCONNECT

    async def unsubscribe(self, *filters: str) -> None:
        """UNSUBSCRIBE from filters subscribed to."""
        packet_id = self.new_packet_id()
        self.send(wire.unsubscribe(*filters, packet_id=packet_id, level=self.level))
        codes = (0,) * len(filters) if self.level == 5 else ()
        await self.expect(wire.unsuback(*codes, packet_id=packet_id, level=self.level))

    async def publish(self, topic: str, payload: bytes = b"x", *, qos: int = 0, **fields: Any) -> None:
        """PUBLISH and all that follows until it is done; at QoS 0 until the server has worked it off."""
        packet_id = self.new_packet_id()
        self.send(wire.publish(topic, payload, qos=qos, packet_id=packet_id, level=self.level, **fields))
        if qos == 0:
            await self.settled()
        if qos == 1:
            await self.accepted(wire.PUBACK, packet_id)
        if qos == 2:
            await self.accepted(wire.PUBREC, packet_id)
            await self.ask(wire.pubrel(packet_id), wire.pubcomp(packet_id))

    async def accepted(self, first: int, packet_id: int) -> None:
        """PUBACK or PUBREC saying yes."""
        got = await self.next()
        assert (got.first, got.packet_id) == (first, packet_id)
        assert self.level < 5 or got.reason in PUBLISHED, f"reason 0x{got.reason:02X}"

    async def gets(
        self,
        topic: str,
        payload: bytes = b"x",
        *,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        ack: bool = True,
        **values: Any,
    ) -> int:
        """The next packet is this message; it is acknowledged to the end unless told not to. Returns its packet id."""
        raw = await self.read_packet()
        got = wire.parse(raw, self.level)
        packet_id = got.packet_id if qos else 0
        assert got == wire.parse(
            wire.publish(
                topic, payload, qos=qos, packet_id=packet_id, retain=retain, dup=dup, level=self.level, **values
            ),
            self.level,
        )
        assert bool(packet_id) == bool(qos), "a packet id of 0"  # [MQTT-2.2.1-4]
        if ack:
            await self.acknowledge(packet_id, qos=qos)
        return packet_id

    async def acknowledge(self, *packet_ids: int, qos: int) -> None:
        """Acknowledge deliveries to the end, those of QoS 2 step by step together."""
        if qos == 1:
            self.send(*map(wire.puback, packet_ids))
        if qos == 2:
            self.send(*map(wire.pubrec, packet_ids))
            for packet_id in packet_ids:
                await self.expect(wire.pubrel(packet_id))
            self.send(*map(wire.pubcomp, packet_ids))

    async def leave(self, reason: int = 0, **values: Any) -> None:
        """DISCONNECT; the server closes."""
        self.send(wire.disconnect(reason, **values))
        await self.expect_end()

    async def vanish(self) -> None:
        """End the connection without a word."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def new_packet_id(self) -> int:
        self._packet_id += 1
        return self._packet_id


@dataclass
class Subject:
    """A running broker; the clients of one test have names of their own on it."""

    name: str
    port: int
    prefix: str
    soon_s: float = SOON_S
    late_s: float = 0.2
    """By how much what is due after a second may be late: Mosquitto looks once a second only."""

    def client_id(self, name: str) -> str:
        """At most 23 letters and digits, which is what every server has to accept."""
        return self.prefix + name

    @contextlib.asynccontextmanager
    async def raw(self, name: str = "raw", *, level: int = 5) -> AsyncIterator[Client]:
        """A connection that has said nothing yet."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        client = Client(reader, writer, level=level, soon_s=self.soon_s, client_id=self.client_id(name))
        try:
            yield client
        finally:
            await client.vanish()

    @contextlib.asynccontextmanager
    async def client(self, name: str = "one", *, level: int = 5, **fields: Any) -> AsyncIterator[Client]:
        """A client that has been let in."""
        async with self.raw(name, level=level) as client:
            await client.connect(**fields)
            yield client


async def together(*sentences: Awaitable[None]) -> None:
    """Run what takes time at the same time; the first failure is the test's."""
    await asyncio.gather(*sentences)


async def pause(seconds: float) -> None:
    """Let time pass where nothing but time makes the difference."""
    await asyncio.sleep(seconds)

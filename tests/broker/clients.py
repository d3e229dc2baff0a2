"""What the broker's tests have in common: a Guard, Sink and Tap that remember, a client of exact bytes, aiomqtt."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiomqtt

from broker.engine import ConnectRequest, Done, Engine, Publish, SessionInfo
from broker.reason import ReasonCode

HOST = "127.0.0.1"
PASSWORD = b"right"
CONNACK_OK = b"\x20\x02\x00\x00"
CONNACK_PRESENT = b"\x20\x02\x01\x00"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
DISCONNECT = b"\xe0\x00"
SOON_S = 5.0  # for what must happen; two busy cores are slow, so this is no measure of anything
QUIET_S = 0.05  # for what must not happen


class OwnTopics:
    """A Guard: the right password, and each user its own topics below devices/{username}/."""

    def __init__(self) -> None:
        self.requests: list[ConnectRequest] = []
        self.revoked_filters: set[str] = set()
        self.gate: asyncio.Event | None = None
        """When set, connect() waits for it."""

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if request.password != PASSWORD:
            return ReasonCode.BAD_USER_NAME_OR_PASSWORD
        if request.client_id.partition(":")[0] != request.username:
            return ReasonCode.NOT_AUTHORIZED
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return self._own(username, topic)

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        if topic_filter in self.revoked_filters:
            return ReasonCode.NOT_AUTHORIZED
        return self._own(username, topic_filter)

    @staticmethod
    def _own(username: str, topic: str) -> ReasonCode:
        own = topic.startswith(f"devices/{username}/") or username == "admin"
        return ReasonCode.SUCCESS if own else ReasonCode.NOT_AUTHORIZED


@dataclass
class RecordingSink:
    """A Sink that settles at once, or when told to."""

    hold: bool = False
    code: ReasonCode = ReasonCode.SUCCESS
    messages: list[Publish] = field(default_factory=list)
    held: list[tuple[int, Done]] = field(default_factory=list)

    def __call__(self, batch: Sequence[Publish], done: Done) -> None:
        self.messages += batch
        if self.hold:
            self.held.append((len(batch), done))
        else:
            done([self.code] * len(batch))

    def release(self, index: int = 0) -> None:
        count, done = self.held.pop(index)
        done([self.code] * count)


@dataclass
class RecordingTap:
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def connected(self, session: SessionInfo) -> None:
        self.events.append(("connected", session.client_id))

    def disconnected(self, client_id: str, username: str, reason: str) -> None:
        self.events.append(("disconnected", client_id, reason))

    def refused(self, client_id: str, username: str, action: str, target: str, reason: ReasonCode) -> None:
        self.events.append(("refused", client_id, action, target, reason))

    def subscribed(self, client_id: str, username: str, topic_filter: str) -> None:
        self.events.append(("subscribed", client_id, topic_filter))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as it holds; fail when it does not in time."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - any condition, of parts that know nothing of tests
            await asyncio.sleep(0.002)


# --- exact bytes


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    length, out = len(body), bytearray([first])
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(out) + body


def connect(
    client_id: str,
    *,
    username: str | None = None,
    password: bytes | None = PASSWORD,
    clean: bool = True,
    keepalive_s: int = 60,
    will: tuple[str, bytes] | None = None,
    will_retain: bool = False,
) -> bytes:
    """A CONNECT; the user name is the client id unless given ("" for none)."""
    user = client_id.partition(":")[0] if username is None else username
    flags = (0x02 if clean else 0) | (0x80 if user else 0) | (0x40 if user and password is not None else 0)
    body = text(client_id)
    if will is not None:
        flags |= 0x04 | (0x20 if will_retain else 0)
        body += text(will[0]) + text(will[1])
    if user:
        body += text(user) + (text(password) if password is not None else b"")
    return packet(0x10, text("MQTT") + bytes([4, flags]) + keepalive_s.to_bytes(2, "big") + body)


def publish(
    topic: str | bytes,
    payload: bytes = b"x",
    *,
    qos: int = 0,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    first = 0x30 | (0x08 if dup else 0) | (qos << 1) | int(retain)
    return packet(first, text(topic) + (packet_id.to_bytes(2, "big") if qos else b"") + payload)


def subscribe(*filters: str, qos: int = 0, packet_id: int = 1) -> bytes:
    return packet(0x82, packet_id.to_bytes(2, "big") + b"".join(text(name) + bytes([qos]) for name in filters))


def unsubscribe(*filters: str, packet_id: int = 1) -> bytes:
    return packet(0xA2, packet_id.to_bytes(2, "big") + b"".join(map(text, filters)))


def answer(first: int, packet_id: int) -> bytes:
    """PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70, UNSUBACK 0xB0."""
    return bytes([first, 2]) + packet_id.to_bytes(2, "big")


class RawClient:
    """Sends bytes, expects bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *packets: bytes) -> None:
        self.writer.write(b"".join(packets))

    async def expect(self, expected: bytes) -> None:
        async with asyncio.timeout(SOON_S):
            got = await self.reader.readexactly(len(expected))
        assert got == expected

    async def expect_nothing(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                raise AssertionError(f"got {await self.reader.read(100)!r}")

    async def expect_end(self) -> None:
        """The connection ends with nothing more."""
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(ConnectionError):
                assert await self.reader.read(1) == b""

    async def ask(self, sent: bytes, expected: bytes) -> None:
        self.send(sent)
        await self.expect(expected)

    async def settled(self) -> None:
        """Everything sent so far has been worked off."""
        await self.ask(PINGREQ, PINGRESP)


@contextlib.asynccontextmanager
async def raw(engine: Engine) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection(HOST, engine.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def device(engine: Engine, client_id: str, **fields: Any) -> AsyncIterator[RawClient]:
    """A raw client that has been let in."""
    async with raw(engine) as client:
        await client.ask(connect(client_id, **fields), CONNACK_OK)
        yield client


def mqtt(engine: Engine, client_id: str, **fields: Any) -> aiomqtt.Client:
    """A real client."""
    fields.setdefault("port", engine.port)
    fields.setdefault("username", client_id.partition(":")[0])
    fields.setdefault("password", PASSWORD.decode())
    return aiomqtt.Client(HOST, identifier=client_id, timeout=SOON_S, **fields)


async def next_message(client: aiomqtt.Client) -> aiomqtt.Message:
    async with asyncio.timeout(SOON_S):
        return await anext(aiter(client.messages))

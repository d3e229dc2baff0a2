"""The broker without a network: connections whose transports are paper, clients that see their bytes as packets."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from broker.engine import ConnectRequest, Guard, Sink
from broker.native import keeping
from broker.native.connection import Connection
from broker.native.hub import Hub
from broker.native.options import BrokerOptions
from broker.packets import Connect, Packet, decode, encode
from broker.reason import ReasonCode


class AllowAll:
    """A Guard that says yes, and for how long that holds: for ever, or (`versioned` False) not at all."""

    rules_version = 1

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED if topic.startswith("no/") else ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.NOT_AUTHORIZED if topic_filter.startswith("no/") else ReasonCode.SUCCESS


class AskEachTime:
    """The same, to be asked for every message."""

    def __init__(self, inner: Guard | None = None) -> None:
        inner = inner if inner is not None else AllowAll()
        self.connect, self.publish, self.subscribe = inner.connect, inner.publish, inner.subscribe


class PaperTransport:
    """Takes what is written. Closing tells the connection in the loop's next turn, as asyncio does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._loop, self._connection = loop, connection
        self.written = bytearray()
        self.paused = False
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing, "written after it was closed"
        self.written += data

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self._connection.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        assert not self.paused, "paused twice"
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused, "resumed twice"
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


class PaperClient:
    """The other end of a connection."""

    def __init__(self, hub: Hub, protocol: int) -> None:
        self.protocol = protocol
        self.connection = Connection(hub)
        self.transport = PaperTransport(hub.loop, self.connection)
        self.connection.connection_made(self.transport)

    @property
    def gone(self) -> bool:
        return self.transport.closing

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(packet, self.protocol) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        if not self.gone:
            self.connection.data_received(data)

    def received(self) -> list[Packet]:
        """What came since this was asked last, packet by packet."""
        data, packets, offset = bytes(self.transport.written), [], 0
        while (found := decode(data, offset, protocol=self.protocol)) is not None:
            packet, offset = found
            packets.append(packet)
        assert offset == len(data), "half a packet"
        self.transport.written.clear()
        return packets

    def lose(self) -> None:
        """The network is gone, with what was on its way."""
        self.transport.written.clear()
        self.transport.close()


class PaperBroker:
    """A Hub in a loop of its own, with a clock of its own."""

    def __init__(
        self,
        options: BrokerOptions | None = None,
        *,
        guard: Guard | None = None,
        sink: Sink | None = None,
        keeper: Any = None,
        now: float = 1000.0,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = now
        self._keeper = keeper
        self._restore = [(module, module.monotonic) for module in _modules_with_a_clock()]
        for module, _ in self._restore:
            module.monotonic = lambda: self.now
        self._keeping_time = keeping.time
        keeping.time = SimpleNamespace(monotonic=lambda: self.now, time=lambda: 1_000_000 + self.now)  # type: ignore
        self.hub = self.do(
            lambda: Hub(
                options or BrokerOptions(),
                guard=guard or AllowAll(),
                sink=sink,
                taps=(),
                auth_methods={},
                keeper=keeper,
            )
        )

    def close(self) -> None:
        for connection in list(self.hub.gate.connections):
            connection.end("the test is over", cut=True)
        self.turn(5)
        for module, clock in self._restore:
            module.monotonic = clock
        keeping.time = self._keeping_time  # type: ignore
        self.loop.close()

    def do(self, act: Callable[[], Any]) -> Any:
        """Something in the loop, and what it leads to."""

        async def acted() -> Any:
            return act()

        result = self.loop.run_until_complete(acted())
        self.turn(12)
        return result

    def turn(self, times: int) -> None:
        async def turns() -> None:
            for _ in range(times):
                self.now += 1e-6  # no two turns are at the same time
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps, as deadlines wait for the wheel to turn."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + max(0.3, seconds / 50))
            self.do(lambda: self.hub.wheel.turn(self.now))

    def client(self, protocol: int, client_id: str, **fields: Any) -> PaperClient:
        """A connection, and its CONNECT sent."""

        def come() -> PaperClient:
            client = PaperClient(self.hub, protocol)
            client.send(Connect(protocol=protocol, client_id=client_id, **fields))
            return client

        return self.do(come)  # type: ignore[no-any-return]

    def send(self, client: PaperClient, *packets: Packet) -> list[Packet]:
        """Send, and what came back by then."""
        self.do(lambda: client.send(*packets))
        return client.received()


@contextmanager
def paper_broker(options: BrokerOptions | None = None, **parts: Any) -> Iterator[PaperBroker]:
    broker = PaperBroker(options, **parts)
    try:
        yield broker
    finally:
        broker.close()


def _modules_with_a_clock() -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("broker.native") and getattr(module, "monotonic", None) is time.monotonic
    ]

"""Many devices that stay connected, and come back by themselves when they have lost the broker, each when it likes.

    async with Crowd(port, 5_000, topic="all") as crowd:
        await crowd.all_in()

Each has a session that lasts, and subscribes once. After a loss, or a refusal, it waits longer and longer, by chance.
"""

import asyncio
import contextlib
import random
from types import TracebackType

from broker.packets import frame
from tests.broker.blackbox import wire
from tests.broker.clients import HOST

LEVEL = 4
BASE_S, CAP_S = 0.25, 4.0
_CONNACK, _PUBLISH = 0x20, 0x30


class Crowd:
    """Its devices are called device-0 and so on."""

    def __init__(self, port: int, size: int, *, topic: str) -> None:
        self.port, self.topic = port, topic
        self.acknowledging = True
        """Whether messages of QoS 1 are acknowledged."""
        self.tries = 0
        """Connections begun, by all of them."""
        self.devices = [Device(self, f"device-{number}") for number in range(size)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Crowd":
        self._tasks = [asyncio.create_task(device.run(), name=device.name) for device in self.devices]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports' last callbacks

    async def all_in(self) -> None:
        """Until every one of them is connected and subscribed."""
        for device in self.devices:
            await device.inside.wait()

    async def all_have(self, payloads: set[bytes]) -> None:
        """Until every one of them has been given just these since `forget`."""
        for device in self.devices:
            while device.got < payloads:
                device.more.clear()
                await device.more.wait()
            assert device.got == payloads, device.name

    def forget(self) -> None:
        """What they have been given."""
        for device in self.devices:
            device.got = set()


class Device(asyncio.Protocol):
    """One of them: `run` until cancelled."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self._crowd = crowd
        self.name = name
        self.inside, self.more = asyncio.Event(), asyncio.Event()
        self.got: set[bytes] = set()
        self.visits = 0
        """How often it was let in."""
        self._lost = asyncio.Event()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    async def run(self) -> None:
        attempt = 0
        while True:
            self._crowd.tries += 1
            self._buffer = b""
            self._lost.clear()
            visits = self.visits
            with contextlib.suppress(OSError):  # nobody listens
                try:
                    await asyncio.get_running_loop().create_connection(lambda: self, HOST, self._crowd.port)
                    await self._lost.wait()
                finally:
                    if self._transport is not None:
                        self._transport.abort()
            attempt = 0 if self.visits > visits else attempt + 1
            await asyncio.sleep(random.uniform(0, min(CAP_S, BASE_S * 2**attempt)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(wire.connect(self.name, level=LEVEL, clean=False))

    def connection_lost(self, error: Exception | None) -> None:
        self.inside.clear()
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while (found := frame(self._buffer)) is not None:
            first, start, end = found
            body, self._buffer = self._buffer[start:end], self._buffer[end:]
            if first == _CONNACK and body[1] == 0:
                self.visits += 1
                if body[0]:  # its session is there still
                    self.inside.set()
                else:
                    self._transport.write(wire.subscribe(self._crowd.topic, qos=1, level=LEVEL))
            elif first == wire.SUBACK:
                self.inside.set()
            elif first & 0xF0 == _PUBLISH:
                at = 2 + int.from_bytes(body[:2], "big")
                self.got.add(body[at + 2 :])
                self.more.set()
                if self._crowd.acknowledging:
                    self._transport.write(wire.puback(int.from_bytes(body[at : at + 2], "big")))

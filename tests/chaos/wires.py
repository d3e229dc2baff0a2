"""A stretch of network that can be cut, held and slowed: a TCP proxy in the test's own event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.servers import HOST

_PIECE = 16 * 1024


class Wire:
    """From a port of its own to the port that `target` names at each new connection."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._clear = asyncio.Event()
        self._clear.set()
        self.delay_s = 0.0
        """Before each piece of at most 16 KiB, either way."""
        self.port = 0

    def cut(self) -> None:
        """Reset every connection, both ends."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Nothing gets through, and nobody is told."""
        self._clear.clear()

    def release(self) -> None:
        self._clear.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            there, onward = await asyncio.open_connection(HOST, self._target())
            self._writers.add(onward)
            await asyncio.gather(self._carry(reader, onward), self._carry(there, writer), return_exceptions=True)
            self._writers.discard(onward)
            onward.transport.abort()
        self._writers.discard(writer)
        writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(_PIECE):
                await self._clear.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def wire(target: Callable[[], int]) -> AsyncIterator[Wire]:
    made = Wire(target)
    server = await asyncio.start_server(made.serve, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.release()
        made.cut()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

"""One client's bytes, over TCP (with or without TLS) or over WebSocket (MQTT 3.1.1 section 6).

Reading waits; writing never does: `buffered` says how much the network has not taken, and the owner keeps it bounded.
"""

import asyncio
import contextlib
from typing import Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

READ_BYTES = 16 * 1024  # 2,300 messages of the smallest kind: what may be worked off between two turns of the loop
FRAME_BYTES = 1024  # that a WebSocket message may have beyond the longest packet, as it may hold several
_CLOSE_GRACE_S = 1.0  # for the last bytes to a client that reads; then the connection is cut


class Wire(Protocol):
    """What a connection needs of its transport."""

    address: str
    certificate: bytes | None

    async def read(self) -> bytes:
        """Some bytes, or none at the end."""
        ...

    def write(self, data: bytes) -> None: ...

    def widen(self, limit: int) -> None:
        """Take units of up to `limit` bytes from now on: the client has been let in."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written. Raises ConnectionError."""
        ...

    @property
    def buffered(self) -> int:
        """Bytes written that the network has not taken."""
        ...

    def close(self) -> None:
        """Close once the bytes written are out, or after a second."""
        ...

    def abort(self) -> None:
        """Cut."""
        ...

    async def finished(self) -> None:
        """Wait until it is closed."""
        ...


class StreamWire:
    """A TCP or TLS connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        self._grace: asyncio.TimerHandle | None = None
        self.address = _host(writer.get_extra_info("peername"))
        tls = writer.get_extra_info("ssl_object")
        self.certificate: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None

    async def read(self) -> bytes:
        return await self._reader.read(READ_BYTES)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def widen(self, limit: int) -> None:
        """A stream has no units; its owner counts."""

    async def drain(self) -> None:
        await self._writer.drain()

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        self._transport.close()
        if self._grace is None:
            self._grace = asyncio.get_running_loop().call_later(_CLOSE_GRACE_S, self._transport.abort)

    def abort(self) -> None:
        self._transport.abort()

    async def finished(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if self._grace is not None:
            self._grace.cancel()


class WebSocketWire:
    """A WebSocket connection. Its writes go through one task, as the library's `send` waits for the network."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self._pending = bytearray()  # bounded by its owner through `buffered`
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._closing = False
        self._grace: asyncio.TimerHandle | None = None
        self.address = _host(socket.remote_address)
        tls = socket.transport.get_extra_info("ssl_object")
        self.certificate: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None
        self._pump = asyncio.create_task(self._write_on(), name=f"websocket writer {self.address}")

    async def read(self) -> bytes:
        try:
            while True:
                message = await self._socket.recv()
                if isinstance(message, str):  # [MQTT-6.0.0-1]
                    return b""
                if message:
                    return message
        except ConnectionClosed:
            return b""

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._pending += data
            self._taken.clear()
            self._wake.set()

    def widen(self, limit: int) -> None:
        self._socket.protocol.max_size = limit + FRAME_BYTES

    async def drain(self) -> None:
        if self._pending:
            await self._taken.wait()

    @property
    def buffered(self) -> int:
        return len(self._pending) + self._socket.transport.get_write_buffer_size()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._grace is None:
            self._grace = asyncio.get_running_loop().call_later(_CLOSE_GRACE_S, self._socket.transport.abort)

    def abort(self) -> None:
        self._closing = True
        self._pending.clear()
        self._wake.set()
        self._socket.transport.abort()

    async def finished(self) -> None:
        self.close()
        await self._pump
        await self._socket.wait_closed()
        if self._grace is not None:
            self._grace.cancel()

    async def _write_on(self) -> None:
        try:
            while self._pending or not self._closing:
                self._wake.clear()
                if self._pending:
                    data = bytes(self._pending)
                    await self._socket.send(data)
                    del self._pending[: len(data)]
                if not self._pending:
                    self._taken.set()
                    if not self._closing:
                        await self._wake.wait()
            await self._socket.close()
        except ConnectionClosed:
            pass
        finally:
            self._closing = True
            self._pending.clear()
            self._taken.set()


def _host(peer: object) -> str:
    return str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"

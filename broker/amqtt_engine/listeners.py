"""The listening sockets: TCP, TLS, WebSocket. Each new connection becomes a Wire and goes to `attend`."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from broker.amqtt_engine.options import KIB, AmqttOptions
from broker.amqtt_engine.wire import FRAME_BYTES, StreamWire, WebSocketWire, Wire
from broker.errors import ListenError

_BACKLOG = 1024  # a fleet comes back at once after a restart
_STREAM_LIMIT = 64 * KIB  # asyncio stops reading at twice this while we do not
_STOP_S = 2.0

# A failed WebSocket handshake is the peer's fault; the library would log it as an error with its traceback.
_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.CRITICAL)

Attend = Callable[[Wire], Awaitable[None]]


class Listeners:
    """Opens what the options ask for, all or nothing."""

    def __init__(self, options: AmqttOptions, attend: Attend) -> None:
        self._options = options
        self._attend = attend
        self._tcp: asyncio.Server | None = None
        self._tls: asyncio.Server | None = None
        self._ws: WebSocketServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Raises ListenError."""
        options = self._options
        try:
            self._tcp = await self._listen(options.port, None)
            if options.tls_port is not None:
                if options.tls is None:
                    raise ListenError(options.host, options.tls_port, "no certificate is set")
                self._tls = await self._listen(options.tls_port, options.tls)
            if options.ws_port is not None:
                self._ws = await self._listen_websocket(options.ws_port)
        except ListenError:
            await self.close()
            raise

    def refuse(self) -> None:
        """Accept nothing more."""
        self._closed = True
        for server in (self._tcp, self._tls):
            if server is not None:
                server.close()
        if self._ws is not None:
            self._ws.close(close_connections=False)

    async def close(self) -> None:
        """Accept nothing more, and wait until the connections, which the broker has ended, are closed."""
        self.refuse()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=_STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._ws is not None:
            await self._ws.wait_closed()

    def port(self) -> int:
        return _port(self._tcp) or self._options.port

    def tls_port(self) -> int | None:
        return _port(self._tls)

    def ws_port(self) -> int | None:
        return _port(self._ws)

    async def _listen(self, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        host = self._options.host
        try:
            return await asyncio.start_server(
                self._on_stream,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=self._options.connect_timeout_s if tls is not None else None,
                backlog=_BACKLOG,
                limit=_STREAM_LIMIT,
            )
        except (OSError, OverflowError) as error:
            raise ListenError(host, port, _words(error)) from error

    async def _listen_websocket(self, port: int) -> WebSocketServer:
        options = self._options
        try:
            return await serve(
                self._on_websocket,
                options.host,
                port,
                backlog=_BACKLOG,
                subprotocols=[Subprotocol("mqtt")],  # [MQTT-6.0.0-3]
                compression=None,  # costs 64 KiB a connection, and bombs
                max_size=options.max_connect_bytes + FRAME_BYTES,  # until the client is let in
                max_queue=2,
                open_timeout=options.connect_timeout_s,
                close_timeout=1,
                ping_interval=None,  # MQTT has its own
                server_header=None,
                logger=_quiet,
            )
        except (OSError, OverflowError) as error:
            raise ListenError(options.host, port, _words(error)) from error

    async def _on_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._run(StreamWire(reader, writer))

    async def _on_websocket(self, socket: ServerConnection) -> None:
        await self._run(WebSocketWire(socket))

    async def _run(self, wire: Wire) -> None:
        task = asyncio.current_task()
        if task is None or self._closed:
            wire.abort()
            await wire.finished()
            return
        task.set_name(f"mqtt client {wire.address}")
        self._tasks.add(task)
        try:
            await self._attend(wire)
        finally:
            self._tasks.discard(task)


def _port(server: asyncio.Server | WebSocketServer | None) -> int | None:
    sockets = list(server.sockets) if server is not None else []
    return int(sockets[0].getsockname()[1]) if sockets else None


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

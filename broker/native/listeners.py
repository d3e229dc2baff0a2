"""The listening sockets: TCP, TLS, WebSocket with and without TLS, and a Unix socket."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from broker.errors import ListenError
from broker.native.connection import Connection
from broker.native.hub import Hub
from broker.native.secure import SecureListener
from broker.native.websocket import WebSocketTransport

_BACKLOG = 1024  # a fleet comes back at once after a restart
_ACCEPTS = 16  # so many asyncio takes at once; with no file descriptor left it logs as many errors a second


class Listeners:
    """Opens what the options ask for, all or nothing."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._servers: dict[str, asyncio.Server] = {}
        self._secure: list[SecureListener] = []

    async def open(self) -> None:
        """Raises ListenError."""
        options = self._hub.options
        wanted = (
            ("port", options.port, Connection, False),
            ("tls_port", options.tls_port, Connection, True),
            ("ws_port", options.ws_port, WebSocketTransport, False),
            ("wss_port", options.wss_port, WebSocketTransport, True),
        )
        try:
            for name, port, protocol, secure in wanted:  # [MQTT-4.2-1]
                if port is None:
                    continue
                if secure and options.tls is None:
                    raise ListenError(options.host, port, "no certificate is set")
                self._servers[name] = await self._listen(port, protocol, options.tls if secure else None)
            if options.unix_path is not None:
                self._servers["unix_path"] = await self._listen_unix(options.unix_path)
        except ListenError:
            self.close()
            raise

    def close(self) -> None:
        """Accept nothing more. Connections are the hub's to end."""
        for secure in self._secure:
            secure.close()
        for server in self._servers.values():
            server.close()
        if "unix_path" in self._servers and self._hub.options.unix_path is not None:
            self._hub.options.unix_path.unlink(missing_ok=True)

    def port(self, name: str) -> int | None:
        """The port really listened on, or None when there is no such listener."""
        server = self._servers.get(name)
        sockets = server.sockets if server is not None else ()
        return int(sockets[0].getsockname()[1]) if sockets else None

    async def _listen(
        self, port: int, protocol: Callable[[Hub], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> asyncio.Server:
        options, hub = self._hub.options, self._hub
        try:
            server = await hub.loop.create_server(
                lambda: protocol(hub), options.host, port, backlog=_ACCEPTS, start_serving=tls is None
            )
            for bound in server.sockets:
                listening = socket.socket(fileno=os.dup(bound.fileno()))
                listening.listen(_BACKLOG)
                if tls is None:
                    listening.close()
                else:
                    listening.setblocking(False)
                    self._secure.append(SecureListener(hub, listening, tls, lambda: protocol(hub)))
            return server
        except (OSError, OverflowError) as error:
            raise ListenError(options.host, port, _words(error)) from error

    async def _listen_unix(self, path: Path) -> asyncio.Server:
        hub = self._hub
        _remove_stale(path)
        try:
            return await hub.loop.create_unix_server(lambda: Connection(hub), str(path), backlog=_BACKLOG)
        except OSError as error:
            raise ListenError(str(path), 0, _words(error)) from error


def _remove_stale(path: Path) -> None:
    """Remove a socket that a killed broker left behind, but nothing else, and none that somebody listens on."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError:
            return  # no socket: listening there will say so
        else:
            raise ListenError(str(path), 0, "another process listens there")


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

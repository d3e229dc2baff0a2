"""The link for devices that speak plain HTTP: one port, Bearer tokens, the device API of docs/device-http.md.

What a device posts becomes an uplink on the channel that MQTT has for it, and is answered when the gateway says that
it is safe. What is meant for a device waits in its mailbox (http_mailbox.py) until it asks, by long poll if it likes.
A device counts as connected while it has asked for anything in the last `silence_s`, or is waiting for an answer
(http_device.py). The handlers are in http_routes.py, the limits on connections in http_server.py.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from gateway.link import Downlink, Receiver
from gateway.links.http_artifact import Downloads
from gateway.links.http_desk import ArtifactFile, Desk
from gateway.links.http_device import Attendance, AttendanceOptions
from gateway.links.http_routes import RouteOptions, Routes
from gateway.links.http_server import DeviceConnection, Doors

__all__ = ["ArtifactFile", "AttendanceOptions", "Desk", "HttpLink", "HttpOptions", "RouteOptions"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Where to listen, and the bounds. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8081
    ssl_context: ssl.SSLContext | None = None
    connections_limit: int = 5_000
    connections_per_address: int = 1_000
    """Many devices may sit behind one address, so this only keeps one address from taking everything."""
    header_timeout_s: float = 10.0
    keepalive_s: float = 60.0
    downloads_limit: int = 100
    download_stall_s: float = 60.0
    """For 64 KiB: slower than 1 KiB/s is broken off, and the device resumes with Range."""
    stop_timeout_s: float = 5.0
    """How long `stop` waits for requests under way."""
    attendance: AttendanceOptions = field(default_factory=AttendanceOptions)
    routes: RouteOptions = field(default_factory=RouteOptions)


class HttpLink:
    """Devices over HTTP."""

    def __init__(
        self, options: HttpOptions, desk: Desk, *, name: str = "http", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._options = options
        self._desk = desk
        self._clock = clock
        self._doors = Doors(limit=options.connections_limit, limit_per_address=options.connections_per_address)
        self._attendance: Attendance | None = None
        self._downloads: Downloads | None = None
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._sweep: asyncio.Task[None] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port really listened on."""
        return self._port

    @property
    def connections(self) -> int:
        """Open TCP connections."""
        return self._doors.open

    async def start(self, receiver: Receiver) -> None:
        """Listen. Raises OSError."""
        options = self._options
        self._attendance = Attendance(options.attendance, receiver, link=self.name, clock=self._clock)
        self._downloads = Downloads(limit=options.downloads_limit, stall_s=options.download_stall_s)
        routes = Routes(
            options.routes,
            desk=self._desk,
            attendance=self._attendance,
            receiver=receiver,
            downloads=self._downloads,
            link=self.name,
        )
        # A device that hangs up ends its own poll, hence handler_cancellation.
        self._runner = web.AppRunner(
            routes.application(), handler_cancellation=True, shutdown_timeout=options.stop_timeout_s
        )
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, options.host, options.port, ssl=options.ssl_context, backlog=512
            )
        except OSError:
            await self._runner.cleanup()
            self._downloads.close()
            raise
        self._port = self._listener.sockets[0].getsockname()[1]
        self._sweep = asyncio.create_task(self._watch_silence(), name=f"{self.name} link: presence")
        logger.info("device HTTP API: listening on %s:%d", options.host, self._port)

    async def stop(self) -> None:
        """Take no new connection, let polls end and requests under way finish, close."""
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.gather(self._sweep, return_exceptions=True)
            self._sweep = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._attendance is not None:
            self._attendance.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._downloads is not None:
            self._downloads.close()
            self._downloads = None
        if self._attendance is not None:
            self._attendance.clear()
            self._attendance = None

    async def send(self, downlink: Downlink) -> bool:
        """Put a message into the device's mailbox; False when it is not there, has no room, or cannot ask for it."""
        return self._attendance is not None and self._attendance.deliver(downlink)

    async def kick(self, device_id: str, reason: str) -> int:
        """Withdraw the device's access: what it waits for ends with 401, its downloads break off."""
        return self._attendance.kick(device_id, reason) if self._attendance is not None else 0

    def expire_silent(self) -> None:
        """Report the devices that have fallen silent; called by the link itself as time passes."""
        if self._attendance is not None:
            self._attendance.expire_silent()

    def _connection(self) -> DeviceConnection:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("the link is not running")
        return DeviceConnection(
            self._runner.server,
            self._doors,
            header_timeout_s=self._options.header_timeout_s,
            keepalive_s=self._options.keepalive_s,
        )

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(max(0.1, self._options.attendance.silence_s / 30))
            self.expire_silent()

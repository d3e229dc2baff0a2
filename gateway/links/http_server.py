"""The listener of the device HTTP API: aiohttp's protocol with the limits that aiohttp leaves out.

aiohttp 3.14 bounds a header's size and closes idle connections, but it counts no connections, waits for the rest of a
header as long as for the next request, and answers what it cannot parse in plain text with a stack trace in the log.
`web.RequestHandler` is subclassed for these three; only its public methods are overridden. The application has to call
`request_started` and `request_finished`.
"""

import asyncio
import logging
from collections import Counter
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway.links.http_problem import Problem

logger = logging.getLogger(__name__)


class Doors:
    """How many connections are open, in all and by address, and how many may be."""

    def __init__(self, *, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._by_address: Counter[str] = Counter()
        self.open = 0
        self.turned_away = 0

    def enter(self, address: str) -> bool:
        """Count a connection in, or turn it away."""
        if self.open >= self._limit or self._by_address[address] >= self._limit_per_address:
            self.turned_away += 1
            return False
        self.open += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class DeviceConnection(web.RequestHandler):
    """One TCP connection of a device."""

    def __init__(self, server: web.Server, doors: Doors, *, header_timeout_s: float, keepalive_s: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=keepalive_s,
            access_log=cast(Any, None),  # one line a request is too much; the gateway counts
            auto_decompress=False,
            lingering_time=2.0,  # for the rest of a body that was refused
        )
        self._doors = doors
        self._header_timeout_s = header_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._address: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if not self._doors.enter(address):
            cast(asyncio.Transport, transport).abort()
            return
        self._address = address
        super().connection_made(transport)
        self._expect_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._address is None:
            return  # turned away: aiohttp has never heard of it
        self._doors.leave(self._address)
        self._header_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._busy and self._header_timer is None:
            self._expect_header()
        super().data_received(data)

    def request_started(self) -> None:
        """A whole header is there and being worked on."""
        self._busy = True
        self._header_arrived()

    def request_finished(self) -> None:
        self._busy = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request of the application, or broke it."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of the answer is out already")
        if status >= 500:
            logger.error("%s: the request failed", self._address, exc_info=exc)
            return Problem(status, "the server failed at this request", close=True).response()
        logger.debug("%s: not HTTP: %s", self._address, type(exc).__name__)
        if isinstance(exc, LineTooLong):
            return Problem(431, "the request line or a header is too long", close=True).response()
        return Problem(status, "the request could not be read as HTTP", close=True).response()

    def _expect_header(self) -> None:
        loop = asyncio.get_running_loop()
        self._header_timer = loop.call_later(self._header_timeout_s, self._header_overdue)

    def _header_arrived(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_overdue(self) -> None:
        self._header_timer = None
        if not self._busy:
            self.force_close()

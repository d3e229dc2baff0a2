"""The web server: one aiohttp application with the API, the live views and the console, and its start and stop."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from aiohttp import web

from broker.watchdog import Watchdog
from web.access import open_call
from web.api.idempotency import Replays
from web.api.layer import install
from web.api.problem import problems
from web.audit_lines import AUDIT_EXPORTS, MAX_AT_ONCE
from web.connection import Connection
from web.console_files import ConsoleFiles
from web.docs import docs_file
from web.errors import ListenError
from web.faults import problem_of
from web.imports import Imports
from web.keys import DOCUMENT, EXPORTS, IMPORTS, METRICS, OVERVIEWS, STORE_JOBS
from web.live import LiveViews
from web.metrics import Metrics
from web.openapi import openapi_json
from web.options import WebOptions
from web.overview import Overviews
from web.parts import PARTS, DeviceEndpoints, Parts, Sessions
from web.readings_csv import Exports
from web.routes import SUBJECTS
from web.security_headers import security_headers
from web.store_jobs import StoreJobs

if TYPE_CHECKING:
    from fleet.fleet import Fleet
    from gateway.gateway import Gateway

logger = logging.getLogger(__name__)

LIVE_PATH = "/api/v1/live"


class WebServer:
    """Serves operators. Start it last of all parts, and stop it first."""

    def __init__(
        self,
        options: WebOptions,
        *,
        fleet: "Fleet",
        gateway: "Gateway",
        sessions: Sessions | None,
        endpoints: DeviceEndpoints,
        version: str,
        watchdog: Watchdog | None = None,
    ) -> None:
        """`sessions`: the embedded broker's engine; None with an external broker. `watchdog`: of the event loop."""
        self._options = options
        self._parts = Parts(
            options=options,
            fleet=fleet,
            gateway=gateway,
            sessions=sessions,
            endpoints=endpoints,
            version=version,
            watchdog=watchdog,
        )
        self._overviews = Overviews(self._parts)
        self._live = LiveViews(self._parts, self._overviews)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port really listened on (the one asked for may be 0)."""
        assert self._listener is not None, "not started"  # noqa: S101
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen. Raises ListenError."""
        options = self._options
        self._runner = web.AppRunner(self._application(), shutdown_timeout=options.stop_timeout_s)
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, options.host, options.port, backlog=1024
            )
        except OSError as error:
            await self.stop()
            raise ListenError(options.host, options.port, error.strerror or str(error)) from error
        logger.info("the console and the API are at http://%s:%d", options.host, self.port)

    async def stop(self) -> None:
        """Stop listening, close the live views, let requests at work finish for a moment."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _connection(self) -> Connection:
        assert self._runner is not None  # noqa: S101
        assert self._runner.server is not None  # noqa: S101
        return Connection(
            self._runner.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._options.idle_timeout_s,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
        )

    def _application(self) -> web.Application:
        metrics = Metrics(self._parts, self._overviews, self._live)
        app = web.Application(
            middlewares=[problems(problem_of, metrics.observe)], client_max_size=self._options.body_limit_bytes
        )
        app[PARTS] = self._parts
        app[OVERVIEWS] = self._overviews
        app[METRICS] = metrics
        app[EXPORTS] = Exports()
        app[IMPORTS] = Imports()
        app[AUDIT_EXPORTS] = asyncio.Semaphore(MAX_AT_ONCE)
        app[STORE_JOBS] = jobs = StoreJobs()
        app[DOCUMENT] = openapi_json(self._parts.version)
        app.on_response_prepare.append(security_headers(https=self._options.is_https))
        app.on_startup.append(self._start_live)
        # At shutdown, not at clean-up: open WebSockets are requests at work, and would be waited for first.
        app.on_shutdown.append(self._stop_live)
        app.on_shutdown.append(lambda _: jobs.stop())
        replays = Replays(time.monotonic)
        for subject in SUBJECTS:
            install(app, subject, open_call, replays)
        app.router.add_get(LIVE_PATH, self._live.serve)
        app.router.add_get("/api/docs.js", docs_file)
        app.router.add_get("/api/docs.css", docs_file)
        # Everything outside the API belongs to the console; inside, an unknown address is a 404 for every method.
        app.router.add_get(r"/{path:(?!api/|api$).*}", ConsoleFiles(self._options.console_dir).serve)
        return app

    async def _start_live(self, app: web.Application) -> None:
        await self._live.start()

    async def _stop_live(self, app: web.Application) -> None:
        await self._live.stop()

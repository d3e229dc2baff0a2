"""The composition root: builds the parts, starts them in order, stops them in the opposite one.

store and links -> gateway -> fleet -> web. What keeps a part from starting becomes a StartError of one line.
"""

import asyncio
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from broker.engine import Engine
from broker.errors import ListenError as BrokerListenError
from broker.errors import PersistenceError
from broker.process import calm_collector, raise_open_files_limit
from broker.watchdog import Watchdog
from fleet.errors import SetupError
from fleet.fleet import Fleet
from fleet.options import FleetOptions
from fleet.views import Level, TimelineKind
from gateway.ages import Ages
from gateway.bus import Bus
from gateway.dead_letters import LetterBounds
from gateway.gateway import Gateway, GatewayOptions
from gateway.journal import JournalOptions
from gateway.journal_file import JournalError
from gateway.link import Link
from gateway.links.embedded import EmbeddedLink
from gateway.links.external import ExternalLink, ExternalOptions
from gateway.links.http import HttpLink, HttpOptions, RouteOptions
from gateway.stores.embedded import EmbeddedStore
from mooring import __version__
from mooring.engine import make_engine
from mooring.errors import StartError
from mooring.settings import Settings
from mooring.signals import stop_on_signals
from mooring.store import open_store
from web.app import WebServer
from web.errors import ListenError as WebListenError
from web.options import WebOptions
from web.parts import DeviceEndpoints

logger = logging.getLogger(__name__)

_OTHER_FILES = 7_000  # HTTP connections, databases, downloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where a running server is reached; kept in data_dir/endpoints.json while it runs."""

    pid: int
    web_port: int
    device_http_port: int
    mqtt_port: int | None
    mqtt_ws_port: int | None


class Server:
    """One Mooring process: `start`, then `stop`. Raises StartError, and then nothing of it runs."""

    fleet: Fleet
    gateway: Gateway

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._engine: Engine | None = None
        self._web: WebServer | None = None
        self._watchdog = Watchdog()
        self._device_http_port = settings.device_http.port or _free_port(settings.device_http.host)

    async def start(self) -> None:
        settings = self._settings
        _make_data_dir(settings.data_dir)
        async with AsyncExitStack() as stack:
            with _told_in_one_line(settings):
                self._compose()
                stack.push_async_callback(self.fleet.stop)
                await self.fleet.start(self.gateway)
                await self._make_first_administrator()
                stack.push_async_callback(self.gateway.stop)
                await self.gateway.start(self.fleet, self.fleet.inbox)
                self._web = WebServer(
                    WebOptions(host=settings.web.host, port=settings.web.port, public_url=settings.web.public_url),
                    fleet=self.fleet,
                    gateway=self.gateway,
                    sessions=self._engine,
                    endpoints=self._device_endpoints(),
                    version=__version__,
                    watchdog=self._watchdog,
                )
                stack.push_async_callback(self._web.stop)
                await self._web.start()
            self._watchdog.start()
            stack.callback(self._watchdog.stop)
            self._write_endpoints()
            stack.callback(self._endpoints_file.unlink, missing_ok=True)
            self._stack = stack.pop_all()
        await self._tell()

    async def stop(self) -> None:
        """Stop taking in, acknowledge what is on disk, close. Safe to call more than once."""
        await self._stack.aclose()

    def _compose(self) -> None:
        """Make the parts. The guard and the desk come from the fleet, which needs the gateway, which needs the links:
        so the fleet is made first and given its gateway at its start, and the links get the fleet's guard and desk.
        """
        settings, bus = self._settings, Bus()
        self.fleet = Fleet(self._fleet_options(), bus=bus)
        ages = Ages(last_ran_ms=_last_ran_ms(settings.data_dir), file=settings.data_dir / "believed_time")
        store = open_store(settings, retention_of=self.fleet.retention_days_of, now_ms=ages.now_ms)
        self.gateway = Gateway(
            GatewayOptions(
                data_dir=settings.data_dir,
                journal=_journal_options(settings),
                letters=_letter_bounds(settings),
                clock_skew_ms=round(settings.ingest.clock_skew_s * 1000),
            ),
            store=store,
            links=self._links(),
            bus=bus,
            # The other stores have a retention of their own, and say themselves what is too old for it.
            kept_since_ms=store.kept_since_ms if isinstance(store, EmbeddedStore) else None,
            profile_of=self.fleet.profiles.reader_of,
            age_now_ms=ages.now_ms,
        )
        self.gateway.clocks.on_change = self._note_clock

    def _note_clock(self, device_id: str, skew_ms: int, is_off: bool) -> None:
        """A device's clock was found off, or right again: an entry of its timeline."""
        which = "ahead" if skew_ms > 0 else "behind"
        summary = f"its clock is {abs(skew_ms) / 1000:.0f} s {which}" if is_off else "its clock is right again"
        level = Level.WARNING if is_off else Level.INFO
        self.fleet.timeline.note(device_id, TimelineKind.EVENT, summary, level=level, data={"clock_skew_ms": skew_ms})

    @property
    def web_url(self) -> str:
        """Where people reach the console."""
        port = self._web.port if self._web else self._settings.web.port
        return self._settings.web.public_url or f"http://{_reachable(self._settings.web.host)}:{port}"

    @property
    def device_http_url(self) -> str:
        """Where devices reach the HTTP API."""
        http = self._settings.device_http
        return http.public_url or f"http://{_reachable(http.host)}:{self._device_http_port}"

    @property
    def mqtt_url(self) -> str:
        """Where devices reach the embedded broker."""
        port = self._engine.port if self._engine else self._settings.broker.port
        return f"mqtt://{_reachable(self._settings.broker.host)}:{port}"

    def _device_endpoints(self) -> DeviceEndpoints:
        """What the console tells people to connect devices to; listeners on all addresses stay 0.0.0.0 here."""
        broker, http, engine = self._settings.broker, self._settings.device_http, self._engine
        device_http = http.public_url or f"http://{_in_url(http.host)}:{self._device_http_port}"
        if engine is None:
            external = broker.url.get_secret_value() if broker.url else None
            return DeviceEndpoints(device_http=device_http, mqtt=external and without_credentials(external))
        host = _in_url(broker.host)
        return DeviceEndpoints(
            device_http=device_http,
            mqtt=f"mqtt://{host}:{engine.port}",
            mqtt_ws=None if engine.ws_port is None else f"ws://{host}:{engine.ws_port}/mqtt",
            mqtt_tls=None if engine.tls_port is None else f"mqtts://{host}:{engine.tls_port}",
        )

    @property
    def _endpoints_file(self) -> Path:
        return self._settings.data_dir / "endpoints.json"

    def _fleet_options(self) -> FleetOptions:
        return FleetOptions(
            data_dir=self._settings.data_dir,
            database_url=self._settings.database_url,
            device_http_url=self.device_http_url,
            device_jwt_audience=self._settings.device_jwt.audience,
            require_second_factor=self._settings.admin.require_second_factor,
            ask_about_unknown=self._settings.provisioning.unknown_devices == "ask",
        )

    def _links(self) -> list[Link]:
        broker, http = self._settings.broker, self._settings.device_http
        routes = RouteOptions(messages_per_s=http.max_messages_per_s, messages_at_once=http.max_messages_at_once)
        device_api = HttpLink(
            HttpOptions(host=http.host, port=self._device_http_port, routes=routes), desk=self.fleet.desk
        )
        if broker.engine == "external" and broker.url is not None:
            return [
                ExternalLink(
                    ExternalOptions(url=broker.url.get_secret_value(), share=broker.share, client_id=broker.client_id)
                ),
                device_api,
            ]
        link = EmbeddedLink()
        self._engine = link.engine = make_engine(
            self._settings, guard=self.fleet.guard, link=link, trust=self.fleet.trust
        )
        return [link, device_api]

    async def _make_first_administrator(self) -> None:
        admin = self._settings.admin
        if admin.username is not None and admin.password is not None:
            await self.fleet.people.ensure_admin(admin.username, admin.password.get_secret_value())

    def _write_endpoints(self) -> None:
        """Whole or not at all: whoever waits for the file reads a complete one."""
        endpoints = Endpoints(
            pid=os.getpid(),
            web_port=self._web.port if self._web else 0,
            device_http_port=self._device_http_port,
            mqtt_port=self._engine.port if self._engine else None,
            mqtt_ws_port=self._engine.ws_port if self._engine else None,
        )
        fresh = self._endpoints_file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(endpoints)), encoding="utf-8")
        fresh.replace(self._endpoints_file)

    async def _tell(self) -> None:
        if self._engine is not None:
            logger.info("MQTT broker at %s", self.mqtt_url)
        if await self.fleet.people.setup_needed():
            token = await self.fleet.people.setup_token()
            logger.warning(
                "nobody can log in yet; make the first administrator at %s/setup?token=%s", self.web_url, token
            )


async def serve(settings: Settings, *, stop: asyncio.Event) -> None:
    """Run a server until `stop` is set or a signal comes; one that comes during the start is heeded after it."""
    server = Server(settings)
    with stop_on_signals(stop):
        await server.start()
        raise_open_files_limit(settings.broker.max_connections + _OTHER_FILES)
        calm_collector()
        try:
            await stop.wait()
        finally:
            logger.info("stopping")
            await server.stop()
            logger.info("stopped")


async def migrate(settings: Settings) -> list[str]:
    """Bring the database to this version's schema; one line per step taken."""
    _make_data_dir(settings.data_dir)
    from fleet.database import Database

    with _told_in_one_line(settings):
        applied = await Database(settings.database_url).migrate()
    return [f"applied {name}" for name in applied] or ["the database is up to date"]


def _last_ran_ms(data_dir: Path) -> int | None:
    """When a server last ran on this directory, by the clock of that time; None if none has."""
    with suppress(OSError):
        return int((data_dir / "journal.db").stat().st_mtime * 1000)
    return None


def _make_data_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = path / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"data_dir {path} cannot be written: {reason}; set MOORING_DATA_DIR") from error


@contextmanager
def _told_in_one_line(settings: Settings) -> Iterator[None]:
    """What keeps a part from starting, as one line that names the setting to change."""
    try:
        yield
    except BrokerListenError as error:
        name = {settings.broker.port: "PORT", settings.broker.ws_port: "WS_PORT", settings.broker.tls_port: "TLS_PORT"}
        raise StartError(f"{error}; set MOORING_BROKER__{name.get(error.port, 'PORT')}") from error
    except WebListenError as error:
        raise StartError(f"{error}; set MOORING_WEB__PORT") from error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        http = settings.device_http
        reason = os.strerror(error.errno).lower()
        message = f"cannot listen on {http.host}:{http.port}: {reason}; set MOORING_DEVICE_HTTP__PORT"
        raise StartError(message) from error
    except (SetupError, JournalError, PersistenceError) as error:
        raise StartError(str(error)) from error


def _journal_options(settings: Settings) -> JournalOptions:
    return JournalOptions(
        synchronous="FULL" if settings.journal.synchronous == "full" else "NORMAL",
        limit_bytes=settings.journal.limit_mib * 1024 * 1024,
        limit_age_s=None if settings.journal.limit_hours is None else settings.journal.limit_hours * 3600,
    )


def _letter_bounds(settings: Settings) -> LetterBounds:
    letters = settings.dead_letters
    return LetterBounds(payload_bytes=letters.limit_mib * 1024 * 1024, age_ms=letters.keep_days * 86_400_000)


def _reachable(host: str) -> str:
    """An address to print for a listener: this machine's name where it listens on all."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname()
    return _in_url(host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def without_credentials(url: str) -> str:
    """A broker's URL as it may be shown: scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _free_port(host: str) -> int:
    """A port of 0 is settled here, since update offers name the URL before the listener is open."""
    with suppress(OSError), socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
    return 0

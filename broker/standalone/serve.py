"""Runs the broker from start to stop: signals, reloads, and one line for whoever has to mend something."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from broker import Broker, BrokerError, BrokerOptions
from broker.process import calm_collector, raise_open_files_limit
from broker.scram import METHOD, ScramCredential, ScramSha256
from broker.standalone import logs
from broker.standalone.backoff import LoginBackoff
from broker.standalone.guard import StaticGuard
from broker.standalone.settings import Settings, SettingsError
from broker.standalone.tls import ReplaceableContext, expiry_warning, utc_now
from broker.standalone.users import Users
from broker.watchdog import Watchdog

logger = logging.getLogger(__name__)

_OTHER_FILES = 100  # files of our own, beside the connections

HOW_TO_LET_IN = """\
Nobody can connect: there are no users, and anonymous clients are not allowed. Either try it out with
    python -m broker --allow-anonymous
or write a user into a file for --config; `python -m broker hash-password` makes the second line:
    [[users]]
    name = "alice"
    password_hash = "$argon2id$..."
    publish = ["devices/%u/#"]
    subscribe = ["devices/%u/#"]"""

Load = Callable[[], Settings]
Say = Callable[[str], None]


class StartFailed(Exception):
    """The broker could not start; the message is one line and says what to do."""


async def serve(settings: Settings, load: Load, say: Say) -> None:
    """Run until SIGTERM or SIGINT; a second one hastens the stop. `load` reads the settings again at SIGHUP.

    Raises StartFailed.
    """
    running, watchdog = Running(settings, load), Watchdog()
    stopping, hastened = asyncio.Event(), asyncio.Event()
    with _signals(stopping, hastened, running.reload_soon):
        await running.start()
        raise_open_files_limit(settings.options.max_connections + _OTHER_FILES)
        calm_collector()
        watchdog.start()
        try:
            for line in running.lines():
                say(line)
            await stopping.wait()
        finally:
            watchdog.stop()
        logger.info("stopping; a second signal hastens it")
        stop = asyncio.create_task(running.stop(), name="stop")
        hasten = asyncio.create_task(hastened.wait(), name="hasten")
        await asyncio.wait({stop, hasten}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stop, hasten):
            if not task.done():
                task.cancel()
        await asyncio.gather(stop, hasten, return_exceptions=True)
        if stop.cancelled():
            logger.warning("stopped in haste")
        elif (error := stop.exception()) is not None:
            raise error
        logger.info("stopped")


class Running:
    """The broker with the parts that a reload replaces."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self._settings = settings
        self._load = load
        backoff = LoginBackoff()
        self._guard = StaticGuard(settings.users, backoff=backoff)
        self._scram = ScramSha256(_credentials(settings.users), secret=settings.scram_secret, backoff=backoff)
        self._tls = None if settings.context is None else ReplaceableContext(settings.context)
        self._reload: asyncio.Task[None] | None = None
        self._reload_again = False
        self._started = False
        self.broker = Broker(
            _options(settings, self._tls),
            guard=self._guard,
            taps=(logs.ClientLog(),),
            auth_methods={METHOD: self._scram},
        )

    async def start(self) -> None:
        """Raises StartFailed."""
        try:
            await self.broker.start()
        except BrokerError as error:
            self._guard.close()
            raise StartFailed(f"{error}{_advice(error)}") from error
        _warn_of_files(self._settings)
        await self._end_sessions(lambda username: self._guard.users.rules_of(username) is None)
        self._started = True
        if self._reload_again:
            self.reload_soon()

    async def stop(self) -> None:
        """DISCONNECT to everybody, sessions saved."""
        self._started = False
        if self._reload is not None:
            self._reload.cancel()
            await asyncio.gather(self._reload, return_exceptions=True)
        try:
            await self.broker.stop()
        finally:
            self._guard.close()

    def lines(self) -> list[str]:
        """Where it listens, and whether anybody may come."""
        options, found = self._settings.options, []
        host = f"[{options.host}]" if ":" in options.host else options.host
        for scheme, port in (
            ("mqtt", self.broker.port),
            ("mqtts", self.broker.tls_port),
            ("ws", self.broker.ws_port),
            ("wss", self.broker.wss_port),
        ):
            if port:
                found.append(f"listening on {scheme}://{host}:{port}")
        if options.unix_path is not None:
            found.append(f"listening on unix:{options.unix_path}")
        if self._settings.users.lets_nobody_in:
            found.append(HOW_TO_LET_IN)
        elif self._settings.users.lets_anybody_in:
            found.append("Anybody may connect, without a password.")
        return found

    def reload_soon(self) -> None:
        """For SIGHUP: reload now, or once more when a start or a reload is under way."""
        if not self._started or (self._reload is not None and not self._reload.done()):
            self._reload_again = True
            return
        self._reload = asyncio.get_running_loop().create_task(self._reload_all(), name="reload")

    async def _reload_all(self) -> None:
        self._reload_again = True
        while self._reload_again:
            self._reload_again = False
            try:
                await self.reload()
            except SettingsError as error:
                for mistake in error.mistakes:
                    logger.error("not reloaded, all stays as it was: %s", mistake)
            except Exception:
                logger.exception("the reload failed half-way")

    async def reload(self) -> None:
        """Users, rules and certificates from the file, all or nothing. Raises SettingsError."""
        new = await asyncio.to_thread(self._load)
        if (new.context is None) != (self._tls is None):
            raise SettingsError(["turning TLS on or off needs a restart"])
        if new.context is not None and self._tls is not None:
            if (fault := self._tls.fault_of(new.context)) is not None:
                raise SettingsError([fault])
            self._tls.replace(new.context)
        old, self._settings = self._settings, new
        self._guard.replace(new.users)
        self._scram.replace(_credentials(new.users))
        await self._end_sessions(lambda username: old.users.must_end(username, new.users))
        for name in _changed(old, new):
            logger.warning("%s has changed in the file, which needs a restart; it stays as it was", name)
        _warn_of_files(new)
        logger.info("reloaded: %d users", len(new.users.named))

    async def _end_sessions(self, must_end: Callable[[str], bool]) -> None:
        for username in {session.username for session in self.broker.sessions()}:
            if must_end(username):
                count = await self.broker.kick(username)
                logger.info("%.70r has lost rights: %d connections and sessions ended", username, count)


def _options(settings: Settings, tls: ReplaceableContext | None) -> BrokerOptions:
    return replace(settings.options, tls=None if tls is None else tls.front)


def _credentials(users: Users) -> dict[str, ScramCredential]:
    return {user.name: user.scram for user in users.named.values() if user.scram is not None}


def _changed(old: Settings, new: Settings) -> list[str]:
    """The settings that a reload cannot replace."""
    names = [
        one.name for one in fields(BrokerOptions) if getattr(old.options, one.name) != getattr(new.options, one.name)
    ]
    return names + [name for name in ("scram_secret", "log_level") if getattr(old, name) != getattr(new, name)]


def _warn_of_files(settings: Settings) -> None:
    """What is wrong, but no reason not to run."""
    files = settings.tls_files
    if files is not None:
        if (warning := expiry_warning(files.cert, utc_now())) is not None:
            logger.warning("%s", warning)
        _warn_if_public(files.key)
    if settings.file is not None and settings.users.named:
        _warn_if_public(settings.file)


def _warn_if_public(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o004:
            logger.warning("%s can be read by every user of this machine: chmod o-r %s", path, path)


def _advice(error: BrokerError) -> str:
    """What to do, where that can be known from the operating system's answer."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:
        return {
            "EADDRINUSE": "; another program is there: stop it, or choose another port",
            "EACCES": "; ports below 1024 need the right to bind them: choose another, or grant CAP_NET_BIND_SERVICE",
            "EADDRNOTAVAIL": "; this machine does not have that address: see --host",
        }.get(errno.errorcode.get(cause.errno, ""), "")
    return ""


@contextlib.contextmanager
def _signals(stopping: asyncio.Event, hastened: asyncio.Event, reload: Callable[[], None]) -> Iterator[None]:
    """The first SIGTERM or SIGINT stops, the second hastens, the third has its usual effect; SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    stops = (signal.SIGTERM, signal.SIGINT)

    def asked() -> None:
        if not stopping.is_set():
            stopping.set()
            return
        hastened.set()
        for number in stops:
            loop.remove_signal_handler(number)

    for number in stops:
        loop.add_signal_handler(number, asked)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for number in (*stops, signal.SIGHUP):
            loop.remove_signal_handler(number)


def run(settings: Settings, load: Load, say: Say) -> None:
    """`serve` in an event loop of its own: uvloop's where that is installed. Raises StartFailed."""
    os.umask(0o077)  # what the broker keeps is nobody else's business; nor is its Unix socket
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, load, say))

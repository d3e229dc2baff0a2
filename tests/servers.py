"""Real servers for the tests: started on free loopback ports with a directory of their own, ended by process id.

    with mosquitto("max_packet_size 100000") as broker: connect(broker.host, broker.port)

Each yields a `Server`, ready for connections, which can be stopped, killed and started again on the same port and
directory. A server that is not installed skips the test by name; with CI=true it fails it.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

HOST = "127.0.0.1"
#: Where Debian puts what is not in PATH.
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/*/bin")
READY_TIMEOUT_S = 30.0  # cold starts on two busy cores took up to 6 s
STOP_TIMEOUT_S = 10.0


class Server:
    """One server process, its port and its directory."""

    def __init__(
        self,
        name: str,
        directory: Path,
        port: int,
        command: Sequence[str],
        ready: Callable[["Server"], bool],
        *,
        scheme: str = "http",
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.host = HOST
        self.port = port
        self.url = f"{scheme}://{HOST}:{port}"
        self._command = list(command)
        self._ready = ready
        self._stop_signal = stop_signal
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What the server has printed, of all its starts."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the process and wait until it answers."""
        assert not self.running
        with (self.directory / "server.log").open("ab") as log:
            # a session of its own: Ctrl-C at the terminal must not end it before the test's own clean-up
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._ready(self):
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log()[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it the way it likes; by force after 10 s."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """kill -9."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None


@contextlib.contextmanager
def mosquitto(config: str = "", *, anonymous: bool = True) -> Iterator[Server]:
    """Mosquitto on one TCP listener; `config` is added to its configuration file."""
    binary = find_binary("mosquitto", package="mosquitto")
    with _directory() as directory:
        port = free_port()
        lines = [
            f"listener {port} {HOST}",
            f"allow_anonymous {'true' if anonymous else 'false'}",
            *(["user root"] if os.geteuid() == 0 else []),  # else it becomes `mosquitto` and cannot read our files
            config,
        ]
        (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        command = [binary, "-c", str(directory / "mosquitto.conf")]
        yield from _run(Server("mosquitto", directory, port, command, _accepts, scheme="mqtt"))


@contextlib.contextmanager
def victoria_metrics(*arguments: str) -> Iterator[Server]:
    """VictoriaMetrics, single node; `arguments` are more of its flags."""
    binary = find_binary("victoria-metrics", package="victoria-metrics")
    with _directory() as directory:
        port = free_port()
        command = [
            binary,
            f"-storageDataPath={directory / 'data'}",
            f"-httpListenAddr={HOST}:{port}",
            "-retentionPeriod=100y",
            "-memory.allowedBytes=128MiB",
            *arguments,
        ]
        yield from _run(Server("victoria-metrics", directory, port, command, _answers("/health")))


@contextlib.contextmanager
def influxdb() -> Iterator[Server]:
    """InfluxDB 1.x without authentication and without databases."""
    binary = find_binary("influxd", package="influxdb")
    with _directory() as directory:
        port = free_port()
        (directory / "influxdb.conf").write_text(f"""
reporting-disabled = true
bind-address = "{HOST}:{free_port()}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
[http]
  bind-address = "{HOST}:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
[continuous_queries]
  enabled = false
""")
        command = [binary, "run", "-config", str(directory / "influxdb.conf")]
        yield from _run(Server("influxdb", directory, port, command, _answers("/ping")))


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """PostgreSQL with user and database `postgres`, no password. `url` is postgres://postgres@127.0.0.1:port/postgres."""
    binary = find_binary("postgres", package="postgresql")
    initdb = find_binary("initdb", package="postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    with _directory() as directory:
        if user:
            shutil.chown(directory, user, user)
        made = subprocess.run(
            [initdb, "-D", str(directory / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}\n{made.stderr}")
        port = free_port()
        # fsync off: the tests' data need not outlive a power failure
        command = [binary, "-D", str(directory / "data"), "-h", HOST, "-p", str(port), "-k", str(directory), "-F"]
        ready = _log_says("ready to accept connections")
        server = Server(
            "postgresql", directory, port, command, ready, scheme="postgres", stop_signal=signal.SIGINT, user=user
        )
        server.url = f"postgres://postgres@{HOST}:{port}/postgres"
        yield from _run(server)


def find_binary(name: str, *, package: str) -> str:
    """The path of a server's program. Not installed: skips the test, or fails it where CI=true."""
    found = shutil.which(name)
    if found:
        return os.path.realpath(found)
    for place in PLACES:
        root, star, rest = place.partition("*")
        folders = sorted(Path(root).glob(star + rest), reverse=True) if star else [Path(place)]
        for folder in folders:
            if os.access(folder / name, os.X_OK):
                return str(folder / name)
    return _missing(f"{name} is not installed: nothing was tested against it (Debian: apt-get install {package})")


def free_port() -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; with CI=true that is a failure", pytrace=False)
    pytest.skip(reason)


def _run(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A directory below the system's, since pytest's own are closed to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="mooring-server-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _accepts(server: Server) -> bool:
    try:
        with socket.create_connection((server.host, server.port), timeout=1):
            return True
    except OSError:
        return False


def _answers(path: str) -> Callable[[Server], bool]:
    def ready(server: Server) -> bool:
        try:
            with urllib.request.urlopen(server.url + path, timeout=1) as response:
                return bool(200 <= response.status < 300)
        except (OSError, urllib.error.URLError):
            return False

    return ready


def _log_says(text: str) -> Callable[[Server], bool]:
    """Ready once the log says so again since the start (a listening PostgreSQL may still be recovering)."""
    seen = 0

    def ready(server: Server) -> bool:
        nonlocal seen
        count = server.log().count(text)
        if count <= seen:
            return False
        seen = count
        return _accepts(server)

    return ready

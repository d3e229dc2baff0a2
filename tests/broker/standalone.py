"""`python -m broker` as a process of its own, for the tests, and mosquitto's clients to talk to it."""

import asyncio
import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from broker.packets import MQTT_5, Auth, Connack, Connect, Disconnect, Packet, decode, encode
from tests.broker.clients import HOST, SOON_S
from tests.servers import find_binary

ROOT = Path(__file__).parents[2]
START_S = 30.0  # cold, on two busy cores


def run_broker(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-m", "broker", *arguments],
        cwd=ROOT,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
    )


class Standalone:
    """A broker process that listens; `ports` by scheme."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.file = directory / "broker.toml"
        self.ports: dict[str, int] = {}
        self.printed = ""
        self._log = directory / "stderr.log"

    def wait_ready(self) -> None:
        """Read what it prints until that has been said."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_S
        while "listening on" not in self.printed or select.select([self.process.stdout], [], [], 0.3)[0]:
            assert time.monotonic() < deadline, self.log()
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                raw = os.read(self.process.stdout.fileno(), 65_536).decode()
                assert raw, f"the broker ended with {self.process.wait(5)}: {self.log()}"
                self.printed += raw
        self.ports = {
            scheme: int(port) for scheme, port in re.findall(r"listening on (\w+)://127\.0\.0\.1:(\d+)", self.printed)
        }

    @property
    def port(self) -> int:
        return self.ports["mqtt"]

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def logged(self, text: str, times: int = 1) -> None:
        """Wait until its log says so."""
        async with asyncio.timeout(START_S):
            while self.log().count(text) < times:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)

    async def reload(self, toml: str, expected: str = "reloaded: ") -> None:
        """Write the file, send SIGHUP, and wait for what it says to that."""
        before = self.log().count(expected)
        self.file.write_text(toml)
        self.process.send_signal(signal.SIGHUP)
        await self.logged(expected, before + 1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def standalone(directory: Path, *arguments: str, toml: str | None = None) -> Iterator[Standalone]:
    """Started on any free port unless told otherwise, and ended."""
    command = [sys.executable, "-m", "broker"]
    if "--port" not in arguments:
        command += ["--port", "0"]
    if toml is not None:
        (directory / "broker.toml").write_text(toml)
        command += ["--config", str(directory / "broker.toml")]
    with (directory / "stderr.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    broker = Standalone(process, directory)
    try:
        broker.wait_ready()
        yield broker
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def mosquitto_pub(port: int, topic: str, message: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Exit code 0: published, as far as MQTT before 5 says."""
    command = [find_binary("mosquitto_pub", package="mosquitto-clients"), "-h", HOST, "-p", str(port)]
    return subprocess.run(
        [*command, "-t", topic, "-m", message, "-q", "1", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


class Subscriber:
    """mosquitto_sub at a terminal of its own, as it keeps what it has for a pipe to itself."""

    def __init__(self, command: Sequence[str]) -> None:
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self._printed = ""

    def read_until(self, text: str) -> None:
        """Until it has printed that, or has ended."""
        while text not in self._printed:
            try:
                raw = os.read(self._terminal, 65_536)
            except OSError:  # the other end is closed
                return
            self._printed += raw.decode()

    def output(self) -> str:
        """All it prints to its end."""
        self.read_until("\0")
        return self._printed

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(20)
        os.close(self._terminal)


@contextlib.contextmanager
def mosquitto_sub(port: int, *arguments: str, count: int = 1) -> Iterator[Subscriber]:
    """Subscribed when this is entered; ends by itself after `count` messages, or 20 s."""
    command = [find_binary("mosquitto_sub", package="mosquitto-clients"), "-h", HOST, "-p", str(port), "-d"]
    subscriber = Subscriber([*command, "-C", str(count), "-W", "20", *arguments])
    try:
        subscriber.read_until("Subscribed")
        yield subscriber
    finally:
        subscriber.close()


# --- a client of MQTT 5 that says what it is told to


class Client:
    """Packets out, packets in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._rest = b""

    def send(self, packet: Packet) -> None:
        self.writer.write(encode(packet, MQTT_5))

    async def receive(self) -> Packet | None:
        """The next packet; None at the end of the connection."""
        async with asyncio.timeout(SOON_S * 2):
            while True:
                found = decode(self._rest, protocol=MQTT_5)
                if found is not None:
                    packet, end = found
                    self._rest = self._rest[end:]
                    return packet
                try:
                    data = await self._reader.read(65_536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._rest += data

    async def connack(self, **fields: object) -> int:
        """Send a CONNECT; the reason of the answer."""
        connect = {"protocol": MQTT_5, "client_id": "c1", **fields}
        self.send(Connect(**connect))  # type: ignore[arg-type]
        answer = await self.receive()
        assert isinstance(answer, Connack)
        return answer.reason

    async def disconnected(self) -> int | None:
        """The reason of the DISCONNECT that comes, None when the connection just ends."""
        packet = await self.receive()
        if packet is None:
            return None
        assert isinstance(packet, Disconnect), packet
        return packet.reason

    async def authenticate(self, data: bytes, reason: int = 0x18) -> Packet | None:
        """Send an AUTH of SCRAM-SHA-256; the answer."""
        properties = {"authentication_method": "SCRAM-SHA-256", "authentication_data": data}
        self.send(Auth(reason=reason, properties=properties))  # type: ignore[arg-type]
        return await self.receive()


@contextlib.asynccontextmanager
async def connected(port: int, **fields: object) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(HOST, port, **fields)  # type: ignore[arg-type]
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

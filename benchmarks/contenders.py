"""The brokers that are compared, each in a process of its own and started afresh for each measurement."""

import asyncio
import multiprocessing
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.identities import Device, copy_fleet, fleet_guard, make_devices
from broker.process import calm_collector, raise_open_files_limit
from tests.servers import HOST, find_binary, free_port

READY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A broker that takes connections, and the devices it knows."""

    name: str
    port: int
    pid: int
    devices: list[Device]
    clients_limit: int = 20_000
    """More would take it minutes."""


class Contenders:
    """Makes the devices once; `start(name)` starts a broker that knows them."""

    NAMES = ("native", "amqtt", "Mosquitto")

    def __init__(self, directory: Path, device_count: int) -> None:
        raise_open_files_limit(0)  # brokers inherit it
        self._directory = directory
        self._fleet = directory / "fleet"
        self.devices = make_devices(self._fleet, device_count)

    def copy(self, data_dir: Path) -> Path:
        """A data directory of its own with the fleet in it."""
        return copy_fleet(self._fleet, data_dir)

    def start(self, name: str) -> AbstractContextManager[Running]:
        if name == "Mosquitto":
            return self.mosquitto(self.devices)
        serve, clients_limit = {"native": (_serve_native, 20_000), "amqtt": (_serve_amqtt, 1_000)}[name]
        return self._python(name, serve, clients_limit)

    @contextmanager
    def _python(self, name: str, serve: Callable[..., None], clients_limit: int) -> Iterator[Running]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        data_dir = copy_fleet(self._fleet, self._directory / name)
        process = context.Process(target=serve, args=(data_dir, theirs), name=name)
        process.start()
        theirs.close()  # so that we see its end, should it end
        try:
            if not ours.poll(READY_TIMEOUT_S):
                raise RuntimeError(f"{name} did not start")
            port: int = ours.recv()
            assert process.pid is not None
            yield Running(name=name, port=port, pid=process.pid, devices=self.devices, clients_limit=clients_limit)
        finally:
            process.kill()  # nothing it keeps is needed, and closing 10,000 connections takes a while
            process.join()
            ours.close()

    @staticmethod
    @contextmanager
    def mosquitto(devices: list[Device]) -> Iterator[Running]:
        """Debian's defaults and anonymous, but for the length of its queues.

        2.0.11 forgets to count down what leaves them: after 1,000 messages that had to wait it drops all that have to.
        """
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
            config = Path(directory) / "mosquitto.conf"
            config.write_text(
                f"listener {port} {HOST}\nallow_anonymous true\npersistence false\nmax_queued_messages 100000000\n"
            )
            command = [find_binary("mosquitto", package="mosquitto"), "-c", str(config)]
            process = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                _wait_for(port)
                yield Running(name="Mosquitto", port=port, pid=process.pid, devices=devices)
            finally:
                process.kill()
                process.wait()


def versions() -> dict[str, str]:
    """Of what is compared."""
    from importlib.metadata import version

    binary = find_binary("mosquitto", package="mosquitto")
    said = subprocess.run([binary, "-h"], capture_output=True, text=True, check=False).stdout
    return {
        "native": f"{version('mooring')} on uvloop {version('uvloop')}",
        "amqtt": f"{version('amqtt')} on uvloop {version('uvloop')}",
        "Mosquitto": said.partition("\n")[0].removeprefix("mosquitto version "),
    }


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _serve_native(data_dir: Path, answer: Any) -> None:
    from broker import Broker, BrokerOptions

    _serve(data_dir, answer, lambda guard: Broker(BrokerOptions(port=0), guard=guard))


def _serve_amqtt(data_dir: Path, answer: Any) -> None:
    from broker.amqtt_engine import AmqttEngine, AmqttOptions

    _serve(data_dir, answer, lambda guard: AmqttEngine(AmqttOptions(port=0), guard=guard))


def _serve(data_dir: Path, answer: Any, make: Callable[[Any], Any]) -> None:
    """Serve until killed."""
    import uvloop

    async def main() -> None:
        async with fleet_guard(data_dir) as guard:
            engine = make(guard)
            await engine.start()
            calm_collector()  # as `mooring serve` does
            answer.send(engine.port)
            await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

"""A native broker in a process of its own, whose memory can be measured, whose loop can be watched, and which can die.

    async with broker_child(max_queued=10) as broker:
        reader, writer = await asyncio.open_connection(HOST, broker.port)

Run as a program it is that process: it takes BrokerOptions as JSON, prints its ports, and answers one question a line.
"""

import asyncio
import contextlib
import gc
import json
import resource
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker import Broker, BrokerOptions, ConnectRequest, Done, Publish, ReasonCode

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
READY_S = 30.0
STOP_S = 20.0
_LAG_EVERY_S = 0.002


class BrokerChild:
    """The process, seen from outside. Its ports stay the same over `kill` or `stop` and `start`."""

    def __init__(self, *, loop: str = "asyncio", sink: str = "none", open_files: int = 0, **options: Any) -> None:
        """`sink`: none, instant, or never (takes messages and never says `done`). `open_files`: a limit on them."""
        self.options = {"port": 0, "sys_interval_s": 0, **options}
        self.settings = {"loop": loop, "sink": sink, "open_files": open_files}
        self._process: asyncio.subprocess.Process | None = None
        self.ports: dict[str, int] = {}
        self.log = ""
        """What it has written to stderr, of the runs that are over."""

    @property
    def port(self) -> int:
        return self.ports["port"]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it listens."""
        arguments = json.dumps({**self.settings, "options": {**self.options, **self.ports}}, default=str)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.broker.broker_child",
            arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        async with asyncio.timeout(READY_S):
            self.ports = await self._answer()

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM: it stops the broker and leaves."""
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_S):
                _, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            _, errors = await process.communicate()
            raise
        finally:
            self._process = None
        self.log += errors.decode(errors="replace")

    async def ask(self, question: str, *arguments: Any) -> Any:
        """One of the questions in `_main`."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([question, *arguments]).encode() + b"\n")
        async with asyncio.timeout(READY_S):
            return await self._answer()

    async def metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("metrics")
        return found

    async def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.ask("sessions")
        return found

    async def until(self, condition: Callable[[dict[str, Any]], object], *, seconds: float = 10.0) -> dict[str, Any]:
        """Its metrics, as soon as they are as they should be."""
        async with asyncio.timeout(seconds):
            while not condition(metrics := await self.metrics()):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)
        return metrics

    async def lag_s(self) -> float:
        """The longest that its loop was held up since the last time this was asked."""
        found: float = await self.ask("lag")
        return found

    async def mark(self) -> int:
        """The memory it has now, in bytes; from here on the most it has is watched."""
        found: int = await self.ask("mark")
        return found

    async def peak(self) -> int:
        """The most memory it has had since `mark`, in bytes."""
        await self.ask("tasks")  # a turn of its loop at least
        return _status_bytes(self.pid, "VmHWM")

    async def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            _, errors = await self._process.communicate()
            self.log += errors.decode(errors="replace")
            raise AssertionError(f"the broker's process ended with {self._process.returncode}:\n{self.log[-4000:]}")
        return json.loads(line)


@contextlib.asynccontextmanager
async def broker_child(**fields: Any) -> AsyncIterator[BrokerChild]:
    """One that runs; at the end it must stop when told to, without a word on stderr."""
    child = BrokerChild(**fields)
    await child.start()
    try:
        yield child
    except BaseException:
        await child.kill()
        raise
    await child.stop()
    assert child.log == ""


def _status_bytes(pid: int | str, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")


# --- the process itself


class AllowAll:
    """A Guard. Its answers hold for good, as on the hot path."""

    rules_version = 1

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        if request.client_id.startswith("slow"):
            await asyncio.sleep(3600)
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.SUCCESS


_TAKEN: list[Publish] = []


def _instant(batch: Sequence[Publish], done: Done) -> None:
    _TAKEN.extend(batch)
    done([ReasonCode.SUCCESS] * len(batch))


def _never(batch: Sequence[Publish], done: Done) -> None:
    _TAKEN.extend(batch)


_SINKS: dict[str, Any] = {"none": None, "instant": _instant, "never": _never}


class _Lag:
    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_LAG_EVERY_S)
            self.longest_s = max(self.longest_s, loop.time() - before - _LAG_EVERY_S)


def _mark() -> int:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return _status_bytes("self", "VmRSS")


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what, default=str) + "\n")
    sys.stdout.flush()


async def _main(settings: dict[str, Any]) -> None:
    options = settings["options"]
    for name in ("persistence", "unix_path"):
        if options.get(name):
            options[name] = Path(options[name])
    if settings["open_files"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (settings["open_files"],) * 2)
    if certificates := options.pop("tls", None):
        options["tls"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options["tls"].load_cert_chain(Path(certificates, "server.pem"), Path(certificates, "server.key"))
    broker = Broker(BrokerOptions(**options), guard=AllowAll(), sink=_SINKS[settings["sink"]])
    await broker.start()
    lag = _Lag()
    watching = asyncio.create_task(lag.watch())
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    def longest() -> float:
        found, lag.longest_s = lag.longest_s, 0.0
        return found

    async def publish(topic: str, payload: str, qos: int, retain: bool, **properties: Any) -> int:
        return await broker.publish(
            Publish(topic=topic, payload=payload.encode(), qos=qos, retain=retain, properties=properties or None)  # type: ignore[arg-type]
        )

    questions: dict[str, Callable[..., Any]] = {
        "metrics": broker.metrics,
        "sessions": lambda: [asdict(session) for session in broker.sessions()],
        "lag": longest,
        "mark": _mark,
        "tasks": lambda: len(asyncio.all_tasks()),
        "taken": lambda: [message.payload.decode() for message in _TAKEN],
        "publish": publish,
        "kick": broker.kick,
    }
    reader = asyncio.StreamReader(limit=2**24)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def answering() -> None:
        while line := await reader.readline():
            question, *arguments = json.loads(line)
            found = questions[question](*arguments)
            _say(await found if isinstance(found, Coroutine) else found)
        stopped.set()  # whoever started us is gone

    ports = {name: getattr(broker, name) for name in ("port", "tls_port", "ws_port", "wss_port")}
    _say({name: port for name, port in ports.items() if port})
    answers = asyncio.create_task(answering())
    await stopped.wait()
    await broker.stop()
    for task in (watching, answers):
        task.cancel()
    await asyncio.gather(watching, answers, return_exceptions=True)
    transport.close()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["loop"] == "uvloop":
        import uvloop

        uvloop.run(_main(given))
    else:
        asyncio.run(_main(given))

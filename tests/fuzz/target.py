"""The broker under fire, in a process of its own: it says how it is when asked, and at once when something is wrong.

JSON lines out: {"ports": …}, {"fault": …} and the answers to the lines in: "measure" (once it is quiet) and "stop".
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from broker import AuthStep, Broker, BrokerOptions, ConnectRequest, Done, Publish, ReasonCode, SessionInfo
from tests.fuzz import canary

MIB = 1024 * 1024
QUIET_TIMEOUT_S = 20.0
SESSION_EXPIRY_S = 1  # so that nothing is left when it is quiet
OWN_WORK_S = 0.05
REFUSALS = (ReasonCode.QUOTA_EXCEEDED, ReasonCode.PAYLOAD_FORMAT_INVALID, ReasonCode.UNSPECIFIED_ERROR)


class Door:
    """A Guard that lets nearly everything in, often takes its time, and changes its rules now and then."""

    def __init__(self) -> None:
        self.rules_version = 0

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        if canary.NAME in (request.client_id, request.username):
            own = request.client_id == request.username and request.password is not None
            return ReasonCode.SUCCESS if own else ReasonCode.NOT_AUTHORIZED
        await self._think()
        return ReasonCode.NOT_AUTHORIZED if request.username == "refused" else ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        if topic.startswith(canary.NAME) and username != canary.NAME:
            return ReasonCode.NOT_AUTHORIZED
        return ReasonCode.NOT_AUTHORIZED if topic.startswith("denied") else ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        if username != canary.NAME:
            await self._think()
        return ReasonCode.NOT_AUTHORIZED if topic_filter.startswith("denied") else ReasonCode.SUCCESS

    @staticmethod
    async def _think() -> None:
        if random.random() < 0.3:
            await asyncio.sleep(random.choice((0, 0.001, 0.01)))


class SlowSink:
    """A Sink that takes some batches at once, some later, and refuses one in thirty messages; none of the canary's."""

    def __call__(self, batch: Sequence[Publish], done: Done) -> None:
        codes = [self._code(each) for each in batch]
        if random.random() < 0.5 or batch[0].username == canary.NAME:
            done(codes)
        else:
            asyncio.get_running_loop().call_later(random.choice((0, 0.001, 0.01)), done, codes)

    @staticmethod
    def _code(message: Publish) -> ReasonCode:
        if message.username != canary.NAME and random.random() < 0.03:
            return random.choice(REFUSALS)
        return ReasonCode.SUCCESS


class Watching:
    """A Tap that counts."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def connected(self, session: SessionInfo) -> None:
        self.seen["connected"] += 1

    def disconnected(self, client_id: str, username: str, reason: str) -> None:
        self.seen["disconnected"] += 1
        self.seen[f"ended: {reason}"] += 1

    def refused(self, client_id: str, username: str, action: str, target: str, reason: ReasonCode) -> None:
        self.seen[f"refused: {action}"] += 1


class Riddle:
    """Enhanced authentication: "yes" is right, "more" asks again, the rest is wrong."""

    def begin(self, request: ConnectRequest) -> "Riddle":
        return self

    async def step(self, data: bytes | None) -> AuthStep:
        await asyncio.sleep(0)
        if data == b"yes":
            return AuthStep(reason=ReasonCode.SUCCESS, username="u")
        if data == b"more":
            return AuthStep(reason=ReasonCode.CONTINUE_AUTHENTICATION, data=b"more?")
        return AuthStep(reason=ReasonCode.NOT_AUTHORIZED)


class Alarm(logging.Handler):
    """Cries at everything that says an exception escaped; counts the other warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR or record.name == "asyncio":
            say(fault=self.format(record))
        else:
            self.warnings[f"{record.name}: {record.msg}"] += 1


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def own_work(broker: Broker, door: Door) -> None:
    """What the process around a broker does meanwhile: publishes, asks, kicks."""
    while True:
        await asyncio.sleep(OWN_WORK_S)
        await broker.publish(
            Publish(topic="t/1", payload=b"ours", qos=random.randrange(3), retain=random.random() < 0.1)
        )
        broker.sessions()
        broker.topics("t", limit=20)
        if random.random() < 0.05:
            await broker.kick(random.choice("uv"))
            door.rules_version += 1


async def quiet(broker: Broker) -> bool:
    """Wait until the canary is the only client, connected or kept; whether that came to be."""
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while time.monotonic() < deadline:
        metrics = broker.metrics()
        if metrics["sessions"] <= 1 and metrics["connections_now"] <= 1:
            await asyncio.sleep(0.3)  # what has been closed goes
            return True
        await asyncio.sleep(0.05)
    return False


async def measure(broker: Broker, watching: Watching, alarm: Alarm) -> dict[str, Any]:
    is_quiet = await quiet(broker)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what glibc holds back is not the broker's
    process = psutil.Process()
    return {
        "quiet": is_quiet,
        "rss": process.memory_info().rss,
        "fds": process.num_fds(),
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
        "metrics": broker.metrics(),
        "seen": dict(watching.seen),
        "warnings": dict(alarm.warnings),
    }


async def serve(persistence: Path | None) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: cry(context))
    alarm, door, watching = Alarm(), Door(), Watching()
    logging.getLogger().addHandler(alarm)
    options = BrokerOptions(
        port=0, ws_port=0, persistence=persistence, persistence_synchronous="normal", connect_timeout_s=1.0,
        session_expiry_s=SESSION_EXPIRY_S, max_sessions=500, max_connecting=500, max_connections=1000,
        max_outgoing_bytes=MIB // 4, write_timeout_s=1.0, max_queued=100, max_queued_bytes=MIB // 4, max_undone=50,
        max_inflight=20, max_retained=300, max_retained_per_username=200, max_routes_bytes=MIB, sys_interval_s=0.5,
        max_publishes_per_s=20_000, max_connects_per_min_per_client=0,
    )  # fmt: skip
    broker = Broker(options, guard=door, sink=SlowSink(), taps=(watching,), auth_methods={"FUZZ": Riddle()})
    await broker.start()
    say(ports={"tcp": broker.port, "ws": broker.ws_port})
    work = asyncio.create_task(own_work(broker, door), name="own work")
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while (command := (await commands.readline()).strip()) == b"measure":
        say(measured=await measure(broker, watching, alarm))
        if work.done():
            work.result()
    work.cancel()
    await asyncio.wait([work])
    await broker.stop()
    say(stopped=command.decode(), tasks=[task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}])


def cry(context: dict[str, Any]) -> None:
    """The event loop's exception handler."""
    if error := context.get("exception"):
        logging.getLogger("asyncio").error(context["message"], exc_info=error)
    else:
        say(fault=f"{context['message']}: {context}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--persistence", action="store_true")
    arguments = parser.parse_args()
    factory = None
    if arguments.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    sys.unraisablehook = lambda args: say(fault=f"unraisable: {args.exc_value!r} in {args.object!r}")
    with tempfile.TemporaryDirectory(prefix="mooring-fuzz-", ignore_cleanup_errors=True) as directory:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve(Path(directory) if arguments.persistence else None))


if __name__ == "__main__":
    main()

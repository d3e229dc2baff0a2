"""The run: a broker and a canary, each in a process of its own, and sessions from `grammar` sent to it many at once."""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

from tests.fuzz.children import Canary, Target
from tests.fuzz.grammar import Grammar, Session

HOST = "127.0.0.1"
QUIET_S = 0.03  # a session is over when nothing has come for so long; the Guard thinks for up to 10 ms at a time
UNREAD_S = 1.5  # a client that takes nothing stays for so long: the broker's patience is 1 s
GIVE_UP_S = 3.0  # on one session
WARM_UP = 0.25  # of all packets, before the base line: until then caches fill
MORE_THAN = 1.05
PAST_THE_DOOR = 0.5  # of the sessions, at least, are to be let in


@dataclass
class Report:
    """What happened. `faults` is empty when all is well."""

    sessions: int = 0
    packets: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    canary: dict[str, Any] = field(default_factory=dict)


async def run(
    *,
    packets: int,
    seeds: Sequence[int],
    seconds: float = math.inf,
    at_once: int = 48,
    more_than: float = MORE_THAN,
    target: tuple[str, ...] = (),
    progress: Callable[[int], None] = lambda packets: None,
) -> Report:
    """Send so many packets, of all seeds in turn, or for so long, and report.

    `target` is more arguments for tests.fuzz.target. At the end there may be `more_than` times as much memory, and so
    on, as after the warm-up, which is a quarter of it all.
    """
    report, sessions = Report(), _sessions(seeds)
    async with Target(*target) as broker, Canary(broker.ports["tcp"]) as canary:
        warm_up = _Until(int(packets * WARM_UP), monotonic() + seconds * WARM_UP)
        await _send(broker, sessions, warm_up, at_once, report, progress)
        report.before = await broker.measure()
        await _send(broker, sessions, _Until(packets, monotonic() + seconds * (1 - WARM_UP)), at_once, report, progress)
        report.after = await broker.measure()
        report.canary = await canary.stop()
        report.faults += [*broker.faults, *_compare(report, more_than)]
    report.faults += await broker.last_words()
    return report


class _Until(NamedTuple):
    packets: int
    """In all, those from before included."""
    time: float
    """In monotonic seconds."""


def _sessions(seeds: Sequence[int]) -> Iterator[Session]:
    grammars = [Grammar(seed) for seed in seeds]
    for number in count():
        for grammar in grammars:
            yield grammar.session(number)


async def run_one(*, seed: int, number: int, target: tuple[str, ...] = ()) -> tuple[Session, list[str]]:
    """Send one session alone; what went wrong."""
    session = Grammar(seed).session(number)
    async with Target(*target) as broker:
        await _attack(broker.ports, session)
        await broker.measure(quiet=False)
    return session, [*broker.faults, *await broker.last_words()]


async def _send(
    broker: Target,
    sessions: Iterator[Session],
    until: "_Until",
    at_once: int,
    report: Report,
    progress: Callable[[int], None],
) -> None:
    """Sessions until there have been so many packets in all, or it is time."""

    async def worker() -> None:
        while report.packets < until.packets and monotonic() < until.time and not broker.dead:
            session = next(sessions)
            report.sessions += 1
            report.packets += session.packets
            broker.under_way.add(session.name)
            sent = await _attack(broker.ports, session)
            report.bytes += sent
            broker.under_way.discard(session.name)
            progress(session.packets)

    async with asyncio.TaskGroup() as workers:
        for number in range(at_once):
            workers.create_task(worker(), name=f"worker {number}")


async def _attack(ports: dict[str, int], session: Session) -> int:
    """One session over one connection, however the broker takes it; the bytes sent."""
    loop = asyncio.get_running_loop()
    sent = 0
    try:
        port = ports["ws" if session.websocket else "tcp"]
        transport, client = await loop.create_connection(Client, sock=await _connected(port, session))
    except OSError:
        return 0
    if not session.reads:
        transport.pause_reading()
    try:
        async with asyncio.timeout(GIVE_UP_S):
            for chunk in session.chunks:
                if transport.is_closing():
                    break
                transport.write(chunk)
                sent += len(chunk)
                await asyncio.sleep(session.pause_s)
            if session.ending == "half" and transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
            if session.reads:
                await client.quiet()
            else:
                await asyncio.sleep(UNREAD_S)
            if session.ending in ("half", "wait"):
                await asyncio.wait_for(client.lost.wait(), 0.1)
    except (TimeoutError, OSError):
        pass
    finally:
        sock = transport.get_extra_info("socket")
        if session.ending == "reset" and sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return sent


async def _connected(port: int, session: Session) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    if not session.reads:  # so that it soon is the broker that has to keep what is not read
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


class Client(asyncio.Protocol):
    """Takes what comes, and knows when nothing does any more."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self._count = 0

    def data_received(self, data: bytes) -> None:
        self._count += 1

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()

    async def quiet(self) -> None:
        """Until nothing has come for a while, or the connection is gone."""
        seen = -1
        while seen != self._count and not self.lost.is_set():
            seen = self._count
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lost.wait(), QUIET_S)


def _compare(report: Report, more_than: float) -> list[str]:
    """What is more than it was, and what the canary missed."""
    before, after, canary = report.before, report.after, report.canary
    faults = [
        f"{name}: {before[name]:,} after the warm-up, {after[name]:,} at the end"
        for name in ("rss", "fds", "tasks", "objects")
        if before and after and after[name] > before[name] * more_than
    ]
    connects = after.get("metrics", {}).get("connects", 0)
    if connects < report.sessions * PAST_THE_DOOR:
        faults.append(f"only {connects:,} of {report.sessions:,} sessions got past the door: little was tried")
    if canary["lost"] or canary["unacknowledged"] or canary["ended"]:
        faults.append(f"the canary was not served: {canary}")
    return faults

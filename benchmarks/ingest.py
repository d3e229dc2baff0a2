"""End to end: devices send telemetry over MQTT (QoS 1) or HTTP; what is acknowledged counts.

Mooring decodes, journals and only then acknowledges, with the rules on and the drain into the embedded store running.
Mosquitto, the yardstick, acknowledges the same messages and forwards them at QoS 1 to one subscriber that acknowledges
whatever it reads; it stores nothing.
"""

import asyncio
import select
import socket
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import Contenders, Running
from benchmarks.load import QUIET_S, Packets, count, no_garbage_collection, sessions, subscribers
from benchmarks.telemetry import DAY_MS, DAYS, Telemetry, step_ms
from tests.e2e.running import MooringProcess, operator

FORWARDED_UNDER_WAY = 800  # through Mosquitto, in all: with more of them it is slower
WARM_UP_S = 1.0
EXPECTED_RATE = 250_000  # no contender is faster: what the messages' times are spread by
CATCH_UP_LIMIT_S = 300.0
LONG_S = 300.0
HTTP_CONNECTIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`window`: messages of one publisher without PUBACK; `metrics`: values in a message."""

    publishers: int = 100
    window: int = 50
    metrics: int = 3


DEFAULT_SHAPE = Shape()


@contextmanager
def mooring(contenders: Contenders) -> Iterator[tuple[Running, MooringProcess]]:
    """A whole server on its defaults, but that devices may send as fast as they can, with the fleet made beforehand."""
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        server = MooringProcess(contenders.copy(Path(directory) / "data"))
        server.start()
        assert server.process is not None
        try:
            yield (
                Running(name="Mooring", port=server.mqtt_port, pid=server.process.pid, devices=contenders.devices),
                server,
            )
        finally:
            server.stop()


def over_mqtt(
    broker: Running,
    seconds: float,
    shape: Shape = DEFAULT_SHAPE,
    *,
    forwarded: bool = False,
    watch: "Watch | None" = None,
    days_ago: int = DAYS,
    sent_by: dict[str, int] | None = None,
) -> dict[str, float]:
    """Acknowledged messages a second and how many there were; with `forwarded` those that arrived at a subscriber.

    The messages' times begin `days_ago` and go on for DAYS at most. `sent_by` is told how many each device sent.
    """
    publishers, window, metrics = shape.publishers, shape.window, shape.metrics
    devices = broker.devices[:publishers]
    step = step_ms(int((seconds + WARM_UP_S) * EXPECTED_RATE) // publishers)
    start_ms = int(time.time() * 1000) - days_ago * DAY_MS
    with ExitStack() as stack:
        writers = stack.enter_context(sessions(broker, devices))
        sources = {
            sock.fileno(): _Window(sock, Telemetry(device, start_ms=start_ms, step_ms=step, metrics=metrics), window)
            for sock, device in zip(writers, devices, strict=True)
        }
        poll = stack.enter_context(select.epoll())
        for fd in sources:
            poll.register(fd, select.EPOLLIN)
        packets = None
        if forwarded:
            (reader,) = stack.enter_context(subscribers(broker, qos=1))
            packets = Packets(reader, devices[0].topic, next(iter(sources.values())).telemetry.size)
            poll.register(reader.fileno(), select.EPOLLIN)
        stack.enter_context(no_garbage_collection())
        under_way_limit = FORWARDED_UNDER_WAY if forwarded else publishers * window
        turns = deque(sources.values())
        sent = done = base = 0
        began = time.perf_counter() + WARM_UP_S
        measuring = False
        while (now := time.perf_counter()) < began + seconds:
            if not measuring and now >= began:
                measuring, began, base = True, now, done
            if watch is not None:
                watch.look(now)
            while turns and sent - done <= under_way_limit - window:
                sent += turns.popleft().send()
            for fd, _ in poll.poll(QUIET_S):
                source = sources.get(fd)
                if source is None:
                    assert packets is not None
                    done += packets.receive()
                    packets.acknowledge()
                    continue
                acknowledged, has_room = source.acknowledged()
                if not forwarded:
                    done += acknowledged
                if has_room:
                    turns.append(source)
        rate = (done - base) / (now - began)
        while done < sent and (events := poll.poll(10 * QUIET_S)):
            for fd, _ in events:
                if fd in sources:
                    done += sources[fd].acknowledged()[0] * (not forwarded)
                elif packets is not None:
                    done += packets.receive()
                    packets.acknowledge()
    if sent_by is not None:
        for device, source in zip(devices, sources.values(), strict=True):
            sent_by[device.id] = sent_by.get(device.id, 0) + source.telemetry.sent
    return {"rate": rate, "lost": 1 - done / sent, "messages": done, "values": rate * metrics}


class _Window:
    """A publisher of QoS 1 that fills its window up again once half of it was acknowledged."""

    def __init__(self, sock: socket.socket, telemetry: Telemetry, window: int) -> None:
        self.telemetry = telemetry
        self._sock = sock
        self._window = window
        self._free = window
        self._waits = False
        self._ack_bytes = 0

    def send(self) -> int:
        number, self._free, self._waits = self._free, 0, True
        data = self.telemetry.packets(number)
        try:
            taken = self._sock.send(data)
        except BlockingIOError:
            taken = 0
        if taken < len(data):
            self._sock.setblocking(True)
            self._sock.sendall(data[taken:])
            self._sock.setblocking(False)
        return number

    def acknowledged(self) -> tuple[int, bool]:
        """Read PUBACKs; how many, and whether there has just come to be room for half a window."""
        acks, self._ack_bytes = divmod(self._ack_bytes + count(self._sock), 4)
        self._free += acks
        has_room = self._waits and 2 * self._free >= self._window
        if has_room:
            self._waits = False
        return acks, has_room


def over_http(server: MooringProcess, devices: Sequence, seconds: float) -> dict[str, float]:  # type: ignore[type-arg]
    """Requests a second answered 202, one message each, on connections that are kept alive."""
    host, port = "127.0.0.1", server.endpoints["device_http_port"]
    start_ms = int(time.time() * 1000) - DAYS * DAY_MS
    sources: dict[int, tuple[socket.socket, Telemetry, str]] = {}
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())

        def send(fd: int) -> None:
            sock, telemetry, token = sources[fd]
            body = telemetry.payload()
            sock.sendall(
                b"POST /device/v1/telemetry HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (host.encode(), token.encode(), len(body), body)
            )

        for device in devices[:HTTP_CONNECTIONS]:
            sock = stack.enter_context(socket.create_connection((host, port), timeout=30))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sources[sock.fileno()] = (sock, Telemetry(device, start_ms=start_ms, step_ms=1000), device.token)
            poll.register(sock.fileno(), select.EPOLLIN)
        for fd in sources:
            send(fd)
        done = base = 0
        began = time.perf_counter() + WARM_UP_S
        measuring = False
        while (now := time.perf_counter()) < began + seconds:
            if not measuring and now >= began:
                measuring, began, base = True, now, done
            for fd, _ in poll.poll(QUIET_S):
                answer = sources[fd][0].recv(65536)
                if not answer.startswith(b"HTTP/1.1 202 "):
                    raise ConnectionError(f"not taken: {answer[:200]!r}")
                done += 1
                send(fd)
    return {"rate": (done - base) / (now - began)}


class Watch:
    """Looks at the server every second: its memory."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._next = 0.0
        self.resident: list[int] = []
        """Bytes, once a second."""

    def look(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + 1.0
        lines = self._status.read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        self.resident.append(kib * 1024)


async def _caught_up(server: MooringProcess) -> dict[str, float]:
    """Wait until the store has all: the drain's lag at first, how long that took, and how many readings it has."""
    began = time.perf_counter()
    async with operator(server) as api:
        lag_s = first = (await api.get("overview"))["journal"]["lag_s"]
        while lag_s > 0 and time.perf_counter() - began < CATCH_UP_LIMIT_S:
            await asyncio.sleep(0.2)
            lag_s = (await api.get("overview"))["journal"]["lag_s"]
        took_s = time.perf_counter() - began
        async with api.session.get("/metrics") as answer:
            metrics = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#")
    stored = float(metrics["mooring_drain_written_total"])
    return {"lag_s": first, "catch_up_s": took_s, "stored": stored}


def one(contenders: Contenders, name: str, seconds: float, shape: Shape = DEFAULT_SHAPE) -> Mapping[str, float]:
    """One measurement with a server just started."""
    if name == "Mosquitto":
        with contenders.start(name) as broker:
            return over_mqtt(broker, seconds, shape, forwarded=True)
    with mooring(contenders) as (running, server):
        if name == "HTTP":
            return over_http(server, contenders.devices, seconds)
        watch = Watch(running.pid)
        found = over_mqtt(running, seconds, shape, watch=watch)
        resident = watch.resident
        return {
            **found,
            **asyncio.run(_caught_up(server)),
            "MiB_at_most": max(resident) / 2**20,
            "MiB_growth": (resident[-1] - resident[len(resident) // 2]) / 2**20,
        }


def run(rounds: int, *, docs: bool = False, seconds: float = 5.0) -> None:
    """Contenders alternate, each started afresh; then one long run of Mooring alone."""
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        contenders = Contenders(Path(directory), DEFAULT_SHAPE.publishers)
        figures: dict[str, list[Mapping[str, float]]] = {"Mooring": [], "Mosquitto": [], "HTTP": []}
        for number in range(rounds):
            for name, found in figures.items():
                found.append(_told(f"{number + 1}/{rounds} {name}", one(contenders, name, seconds)))
        long = _told("long", one(contenders, "Mooring", LONG_S if rounds > 1 else seconds))
    text = _table(figures, long)
    print(f"\n{text}")
    if docs:
        report.fill("ingest", f"{report.machine()}\n* medians of {rounds} rounds of {seconds:g} s\n\n{text}")


def _told(title: str, found: Mapping[str, float]) -> Mapping[str, float]:
    print(f"  {title:16}" + "".join(f" {key} {value:,.6g}" for key, value in found.items()), flush=True)
    return found


def _table(figures: Mapping[str, Sequence[Mapping[str, float]]], long: Mapping[str, float]) -> str:
    mqtt, peer, http = (statistics.median(one["rate"] for one in each) for each in figures.values())
    minutes = long["messages"] / long["rate"] / 60
    lines = [
        ("MQTT, QoS 1, three values a message (messages/s)", f"{mqtt:,.0f}", f"{peer:,.0f}", mqtt / peer, "≥ 2", None),
        ("the same against 40,000 messages/s", f"{mqtt:,.0f}", "40,000", mqtt / 40_000, "≥ 2", None),
        ("HTTP, keep-alive, a message a request (requests/s)", f"{http:,.0f}", "950", http / 950, "≥ 5", None),
        (f"MQTT over {minutes:.1f} minutes (messages/s)", f"{long['rate']:,.0f}", "", None, "", None),
        ("the store behind at its end (s)", f"{long['lag_s']:,.1f}", "", None, "≤ 5", long["lag_s"] <= 5),
        (
            "memory of the server at most (MiB)",
            f"{long['MiB_at_most']:,.0f}",
            "",
            None,
            "≤ 300",
            long["MiB_at_most"] <= 300,
        ),
        ("growth over its second half (MiB)", f"{long['MiB_growth']:,.1f}", "", None, "", None),
    ]
    rows = ["| work | Mooring | peer | ratio | must be | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for words, ours, theirs, ratio, target, reached in lines:
        if ratio is not None:
            reached = ratio >= float(target.removeprefix("≥ "))
        verdict = {True: "reached", False: "**missed**", None: ""}[reached]
        rows.append(
            f"| {words} | {ours} | {theirs} | {'' if ratio is None else f'{ratio:.2f}'} | {target} | {verdict} |"
        )
    return "\n".join(rows)

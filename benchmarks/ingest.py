"""End to end: devices pipeline QoS 1 messages of three values; what counts is acknowledged messages a second.

Mooring decodes, journals and only then acknowledges. Mosquitto, the yardstick, acknowledges and forwards to one
subscriber without storing anything.
"""

import asyncio
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import wire
from tests.e2e.running import MooringProcess, operator
from tests.servers import mosquitto

PUBLISHERS = 10
MESSAGES = 1_000  # each
WINDOW = 500  # messages a publisher has unacknowledged at most
PUBACK_BYTES = 4


def _round(port: int, tokens: dict[str, str], base_ms: int, *, subscribe: bool) -> float:
    """Acknowledged messages a second."""
    sink = None
    if subscribe:
        sink = wire.session(port, "sink")
        sink.sendall(wire.subscribe("devices/+/telemetry"))
        wire.receive(sink, 5)
        drain = threading.Thread(target=_drain, args=(sink,), daemon=True)
        drain.start()
    work = []
    for device_id, token in tokens.items():
        messages = [
            wire.publish(
                f"devices/{device_id}/telemetry",
                b'{"ts":%d,"values":{"temperature":21.5,"humidity":40,"pressure":1013.2}}' % (base_ms + number),
                qos=1,
                packet_id=number % 60_000 + 1,
            )
            for number in range(MESSAGES)
        ]
        work.append((wire.session(port, device_id, device_id, token), messages))

    def publish(sock: socket.socket, messages: list[bytes]) -> None:
        for at in range(0, MESSAGES, WINDOW):
            batch = messages[at : at + WINDOW]
            sock.sendall(b"".join(batch))
            wire.receive(sock, PUBACK_BYTES * len(batch))

    threads = [threading.Thread(target=publish, args=each) for each in work]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    for sock, _ in work:
        sock.close()
    if sink is not None:
        sink.close()
    return PUBLISHERS * MESSAGES / taken


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 20):
            pass
    except OSError:
        pass


async def _add_devices(server: MooringProcess) -> dict[str, str]:
    async with operator(server) as api:
        return {f"load-{n}": await api.add_device(f"load-{n}") for n in range(PUBLISHERS)}


def run(rounds: int) -> None:
    """Contenders alternate, each started once."""
    with tempfile.TemporaryDirectory() as directory, mosquitto() as peer:
        server = MooringProcess(Path(directory) / "data")
        server.start()
        try:
            tokens = asyncio.run(_add_devices(server))
            base_ms = int(time.time() * 1000) - 3_600_000
            figures: dict[str, list[float]] = {"Mooring": [], "Mosquitto": []}
            for number in range(rounds):
                at_ms = base_ms + number * MESSAGES
                figures["Mooring"].append(_round(server.mqtt_port, tokens, at_ms, subscribe=False))
                figures["Mosquitto"].append(_round(peer.port, tokens, at_ms, subscribe=True))
        finally:
            server.stop()
    print(f"ingest: {PUBLISHERS} devices, QoS 1, three values a message, up to {WINDOW} in flight (messages/s)")
    base = statistics.median(figures["Mosquitto"])
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"  {name:14} {median:12,.0f}   {median / base:5.2f} of Mosquitto")

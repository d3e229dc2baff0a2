"""Fan-in: publishers send 166-byte QoS 0 messages as fast as they are taken, one subscriber counts the bytes."""

import asyncio
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import wire
from broker import ConnectRequest, ReasonCode
from tests.servers import free_port, mosquitto

PUBLISHERS = 10
MESSAGES = 2_000  # each: amqtt's queue of broadcasts is what bounds it
PAYLOAD = b"x" * 140


class AllowAll:
    async def connect(self, request: ConnectRequest) -> ReasonCode:
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return ReasonCode.SUCCESS


def _serve_amqtt(port: int) -> None:
    from broker.amqtt_engine import AmqttEngine, AmqttOptions

    async def main() -> None:
        await AmqttEngine(AmqttOptions(port=port), guard=AllowAll()).start()
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def _amqtt() -> Iterator[int]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve_amqtt, args=(port,))
    process.start()
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.join()


@contextmanager
def _mosquitto() -> Iterator[int]:
    with mosquitto() as server:
        yield server.port


def _round(port: int) -> float:
    """Messages per second, from the first byte sent to the last byte received (or the stream running dry)."""
    subscriber = wire.session(port, "counter")
    subscriber.sendall(wire.subscribe("load/+"))
    wire.receive(subscriber, 5)
    message = wire.publish("load/1", PAYLOAD)
    expected = PUBLISHERS * MESSAGES * len(message)
    block = message * 100
    publishers = [wire.session(port, f"load-{n}", "load", "x") for n in range(PUBLISHERS)]

    def send(sock: socket.socket) -> None:
        for _ in range(MESSAGES // 100):
            sock.sendall(block)

    subscriber.settimeout(3)
    began = time.perf_counter()
    threads = [threading.Thread(target=send, args=(sock,)) for sock in publishers]
    for thread in threads:
        thread.start()
    got, last = 0, began
    try:
        while got < expected:
            got += len(subscriber.recv(1 << 20))
            last = time.perf_counter()
    except TimeoutError:
        pass  # dropped at a bound: what arrived counts
    for thread in threads:
        thread.join()
    for sock in (*publishers, subscriber):
        sock.close()
    return got / len(message) / (last - began)


def run(rounds: int) -> None:
    """Contenders alternate; a broker is started once."""
    with _amqtt() as own, _mosquitto() as peer:
        ports = {"amqtt engine": own, "Mosquitto": peer}
        figures: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(rounds):
            for name, port in ports.items():
                figures[name].append(_round(port))
    print(f"routing: {PUBLISHERS} publishers, one subscriber, QoS 0, {len(PAYLOAD)}-byte payloads (messages/s)")
    base = statistics.median(figures["Mosquitto"])
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"  {name:14} {median:12,.0f}   {median / base:5.2f} of Mosquitto")

"""Connections: how many are accepted a second, and what an idle one costs."""

import time

import psutil

from benchmarks import wire
from benchmarks.contenders import Running
from benchmarks.load import no_garbage_collection, opened

AT_ONCE = 64  # below every broker's backlog of connections to accept
SETTLE_S = 1.0


def connections(broker: Running, number: int = 5_000) -> dict[str, float]:
    """From the first connect to the last CONNACK, AT_ONCE of them waiting at a time; each device shows its own token.

    The broker was started for this: none of the clients has been there before.
    """
    packets = _connects(broker, number)
    with no_garbage_collection():
        began = time.perf_counter()
        with opened(broker, packets, AT_ONCE):
            return {"rate": len(packets) / (time.perf_counter() - began)}


def memory(broker: Running, number: int = 10_000) -> dict[str, float]:
    """What the broker's resident memory grew by, a connection; whatever its guard remembers of them included."""
    packets = _connects(broker, number)
    process = psutil.Process(broker.pid)
    with opened(broker, packets[:50], AT_ONCE):  # what is loaded at the first connection is not theirs
        pass
    time.sleep(SETTLE_S)
    before = process.memory_info().rss
    with opened(broker, packets, AT_ONCE):
        time.sleep(SETTLE_S)
        return {"bytes": (process.memory_info().rss - before) / len(packets)}


def _connects(broker: Running, number: int) -> list[bytes]:
    devices = broker.devices[: min(number, broker.clients_limit)]
    return [wire.connect(device.id, device.id, device.token) for device in devices]

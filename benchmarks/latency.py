"""How long a message takes: an open loop, so that a broker that falls behind is not asked less.

Messages are due at fixed times, whatever became of those before. Each carries the time it was due at, not the time
it was sent at, so a late generator or a broker that does not read counts against the broker's time. The generator
spins instead of sleeping: a sleep's end is a matter of chance, and it has a core of its own.
"""

import select
import struct
import time

from benchmarks import wire
from benchmarks.contenders import Running
from benchmarks.load import (
    SIZE,
    Packets,
    after_topic,
    count,
    no_garbage_collection,
    sessions,
    subscribers,
)

WARM_UP_S = 1.0
PATIENCE_S = 2.0  # nothing has come for so long: the rest was dropped
_STAMP = struct.Struct("!d")
_HEAD = struct.Struct("!Hd")  # packet identifier and stamp


def latency(broker: Running, seconds: float = 5.0, *, publishers: int = 1_000, rate: int = 5_000) -> dict[str, float]:
    """p50 and p99 in ms from when a QoS 1 message was due to when the one subscriber, also at QoS 1, had it."""
    devices = broker.devices[:publishers]
    with subscribers(broker, qos=1) as (reader,), sessions(broker, devices) as writers:
        packets = Packets(reader, devices[0].topic)
        id_at = after_topic(devices[0].topic)
        stamp_at = id_at + 2
        messages = [bytearray(wire.sized(device.topic, SIZE, qos=1)) for device in devices]
        by_fd = {sock.fileno(): sock for sock in writers}
        poll = select.epoll()
        for fd in (reader.fileno(), *by_fd):
            poll.register(fd, select.EPOLLIN)
        total = int((WARM_UP_S + seconds) * rate)
        arrived: list[tuple[float, float]] = []  # when it was due, how long it took
        sent = 0
        with poll, no_garbage_collection():
            last = began = time.perf_counter()
            while len(arrived) < total and (now := time.perf_counter()) < max(last, began + sent / rate) + PATIENCE_S:
                while sent < total and (due := began + sent / rate) <= now:
                    turn, publisher = divmod(sent, publishers)
                    _HEAD.pack_into(messages[publisher], id_at, turn % 0xFFFF + 1, due)
                    writers[publisher].send(messages[publisher])
                    sent += 1
                for fd, _ in poll.poll(0):
                    if fd != reader.fileno():
                        count(by_fd[fd])
                        continue
                    packets.receive()
                    last = time.perf_counter()
                    packets.acknowledge()
                    for (due,) in map(_STAMP.unpack, packets.each(stamp_at, _STAMP.size)):
                        arrived.append((due, last - due))
    taken = sorted(took * 1000 for due, took in arrived if due >= began + WARM_UP_S)
    return {
        "p50": taken[len(taken) // 2],
        "p99": taken[len(taken) * 99 // 100],
        "lost": 1 - len(arrived) / total,
    }

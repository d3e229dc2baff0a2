"""How many messages a second: fan-in at QoS 0 and 1, sparse, fan-out. What arrives at the subscribers counts.

How much is under way (sent, not yet seen at the subscribers) is bounded in each, so low that no broker has to drop
with its defaults: all three queue 1,000 messages of QoS 1 a client, native and amqtt write 1 MiB ahead.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Sequence

from benchmarks import wire
from benchmarks.contenders import Running
from benchmarks.load import (
    QUIET_S,
    SIZE,
    Packets,
    after_topic,
    count,
    no_garbage_collection,
    sessions,
    subscribers,
)

WARM_UP_S = 0.3
UNDER_WAY_BYTES = 1_000_000  # fan-in: some 6,000 messages of 166 bytes; with eight times as many nothing changed
FAN_OUT_UNDER_WAY = 800  # messages to each subscriber
QOS1_UNDER_WAY = 800  # messages in all
SPARSE_UNDER_WAY = 500  # messages in all, one of a publisher at most
QOS1_WINDOW = 16  # messages of one publisher without PUBACK
BLOCK_BYTES = 64 * 1024


def fan_in(broker: Running, seconds: float = 2.0, *, publishers: int = 50, size: int = SIZE) -> dict[str, float]:
    """Publishers pipeline QoS 0, each on its topic; one subscriber on a wildcard."""
    return _fan_in(broker, seconds, publishers, [size])


def fan_in_mixed(broker: Running, seconds: float = 2.0, *, publishers: int = 50) -> dict[str, float]:
    """The same, but no message is as long as the one before it: 100 to 232 bytes, 166 in the mean."""
    return _fan_in(broker, seconds, publishers, [SIZE - 66 + 11 * (5 * number % 13) for number in range(13)])


def _fan_in(broker: Running, seconds: float, publishers: int, sizes: Sequence[int]) -> dict[str, float]:
    devices = broker.devices[:publishers]
    most = min(BLOCK_BYTES, UNDER_WAY_BYTES // (2 * publishers)) // sum(sizes)
    with subscribers(broker) as readers, sessions(broker, devices) as writers:
        sources = [
            _Source(sock, device.topic, [*sizes] * most or [*sizes])
            for sock, device in zip(writers, devices, strict=True)
        ]
        return _stream(sources, readers, UNDER_WAY_BYTES, seconds)


def fan_out(broker: Running, seconds: float = 2.0, *, readers: int = 50) -> dict[str, float]:
    """One publisher pipelines QoS 0; each message goes to every subscriber, and each delivery counts."""
    device = broker.devices[0]
    with subscribers(broker, readers) as sockets, sessions(broker, [device]) as (writer,):
        source = _Source(writer, device.topic, [SIZE] * (FAN_OUT_UNDER_WAY // 4))
        return _stream([source], sockets, FAN_OUT_UNDER_WAY * SIZE, seconds)


class _Source:
    """Sends a block of packets, of these sizes on the wire, over and over."""

    def __init__(self, sock: socket.socket, topic: str, sizes: Sequence[int]) -> None:
        self.sock = sock
        block = b"".join(wire.sized(topic, size, head=b"%06d" % number) for number, size in enumerate(sizes))
        self.mean = len(block) / len(sizes)
        self.block_bytes = len(block)
        self._block = memoryview(block)
        self._at = 0
        self.sent = 0

    def send(self) -> int:
        """As much of the block as the kernel takes."""
        try:
            took = self.sock.send(self._block[self._at :])
        except BlockingIOError:
            return 0
        self._at = (self._at + took) % self.block_bytes
        self.sent += took
        return took

    def finish(self) -> None:
        """Send the rest of the block, so that the last packet is whole."""
        self.sock.settimeout(30)
        if self._at:
            self.sock.sendall(self._block[self._at :])
            self.sent += self.block_bytes - self._at


def _stream(
    sources: Sequence[_Source], readers: Sequence[socket.socket], under_way: int, seconds: float
) -> dict[str, float]:
    """Deliveries a second, and the share of them that never came, with `under_way` bytes to each reader at most."""
    copies = len(readers)
    bound = under_way * copies
    writing = {source.sock.fileno(): source for source in sources}
    reading = {sock.fileno(): sock for sock in readers}
    everyone, only_readers = select.epoll(), select.epoll()
    for fd in writing:
        everyone.register(fd, select.EPOLLOUT)
    for fd in reading:
        everyone.register(fd, select.EPOLLIN)
        only_readers.register(fd, select.EPOLLIN)
    received = base = 0
    room = bound  # in bytes of deliveries
    step = max(source.block_bytes for source in sources) * copies
    measuring = False
    with everyone, only_readers, no_garbage_collection():
        began = time.perf_counter() + WARM_UP_S
        while (now := time.perf_counter()) < began + seconds:
            if not measuring and now >= began:
                measuring, began, base = True, now, received
            events = (everyone if room >= step else only_readers).poll(QUIET_S)
            if not events:
                room = bound  # what is under way will not come any more
            for fd, _ in events:
                if fd in reading:
                    got = count(reading[fd])
                    received += got
                    room += got
                elif room >= step:
                    room -= writing[fd].send() * copies
        rate = (received - base) / sources[0].mean / (now - began)
        for source in sources:
            source.finish()
        expected = sum(source.sent for source in sources) * copies
        while received < expected and (events := only_readers.poll(QUIET_S)):
            received += sum(count(reading[fd]) for fd, _ in events)
    return {"rate": rate, "lost": 1 - received / expected}


def fan_in_qos1(broker: Running, seconds: float = 2.0, *, publishers: int = 50) -> dict[str, float]:
    """Publishers keep QOS1_WINDOW messages without PUBACK; the subscriber acknowledges whatever it reads."""
    devices = broker.devices[:publishers]
    with subscribers(broker, qos=1) as (reader,), sessions(broker, devices) as writers:
        packets = Packets(reader, devices[0].topic)
        sources = {sock.fileno(): _Window(sock, device.topic) for sock, device in zip(writers, devices, strict=True)}
        poll = select.epoll()
        for fd in (reader.fileno(), *sources):
            poll.register(fd, select.EPOLLIN)
        turns = deque(sources.values())  # who has room in its window, in the order it came to have it
        delivered = sent = base = 0
        measuring = False
        with poll, no_garbage_collection():
            began = time.perf_counter() + WARM_UP_S
            while (now := time.perf_counter()) < began + seconds:
                if not measuring and now >= began:
                    measuring, began, base = True, now, delivered
                while turns and sent - delivered <= QOS1_UNDER_WAY - QOS1_WINDOW:
                    sent += turns.popleft().send()
                for fd, _ in poll.poll(QUIET_S):
                    if fd == reader.fileno():
                        delivered += packets.receive()
                        packets.acknowledge()
                    elif sources[fd].acknowledged():
                        turns.append(sources[fd])
            rate = (delivered - base) / (now - began)
            while delivered < sent and (events := poll.poll(QUIET_S)):
                for fd, _ in events:
                    if fd == reader.fileno():
                        delivered += packets.receive()
                        packets.acknowledge()
                    else:
                        sources[fd].acknowledged()
    return {"rate": rate, "lost": max(0.0, 1 - delivered / sent)}


class _Window:
    """A publisher of QoS 1 that fills its window up again as soon as anything was acknowledged."""

    def __init__(self, sock: socket.socket, topic: str) -> None:
        self._sock = sock
        messages = [wire.sized(topic, SIZE, qos=1, packet_id=1 + number) for number in range(QOS1_WINDOW)]
        self._twice_round = memoryview(b"".join(messages * 2))  # a slice has any of them, going round
        self._next = 0
        self._free = QOS1_WINDOW
        self._ack_bytes = 0  # of a PUBACK that is not there as a whole

    def send(self) -> int:
        """Fill the window; with how many messages."""
        number, self._free = self._free, 0
        self._sock.sendall(self._twice_round[self._next * SIZE : (self._next + number) * SIZE])
        self._next = (self._next + number) % QOS1_WINDOW
        return number

    def acknowledged(self) -> bool:
        """Read PUBACKs, which come in order; whether the window has just come to have room."""
        acks, self._ack_bytes = divmod(self._ack_bytes + count(self._sock), 4)
        was_full = not self._free
        self._free += acks
        return was_full and acks > 0


def sparse(broker: Running, seconds: float = 2.0, *, publishers: int = 500) -> dict[str, float]:
    """One QoS 0 message a read: a publisher sends its next one only after its last was seen at the subscriber.

    So there never are two of one publisher under way, and the broker finds one message in each read. Each message
    carries its publisher's number; who has been seen goes to the end of the row, and the first in it sends.
    """
    devices = broker.devices[:publishers]
    with subscribers(broker) as (reader,), sessions(broker, devices) as writers:
        reader.settimeout(QUIET_S)
        packets = Packets(reader, devices[0].topic)
        number_at = after_topic(devices[0].topic)
        messages = [
            wire.sized(device.topic, SIZE, head=number.to_bytes(2, "big")) for number, device in enumerate(devices)
        ]
        sends = [sock.send for sock in writers]
        row = deque(range(len(devices)))
        for _ in range(under_way := min(SPARSE_UNDER_WAY, len(devices))):
            number = row.popleft()
            sends[number](messages[number])
        received = base = 0
        measuring = False
        with no_garbage_collection():
            began = time.perf_counter() + WARM_UP_S
            while (now := time.perf_counter()) < began + seconds:
                if not measuring and now >= began:
                    measuring, began, base = True, now, received
                received += packets.receive()
                for high, low in zip(packets.column(number_at), packets.column(number_at + 1), strict=True):
                    row.append(high << 8 | low)
                    number = row.popleft()
                    sends[number](messages[number])
            rate = (received - base) / (now - began)
            expected = received + under_way
            try:
                while received < expected:
                    received += packets.receive()
            except TimeoutError:
                pass
    return {"rate": rate, "lost": max(0.0, 1 - received / expected)}

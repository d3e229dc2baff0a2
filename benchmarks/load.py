"""The load generator's floor: sessions over raw sockets, bytes counted as they come, nothing parsed that need not be.

The generator is one process, each broker another. It sends prepared blocks of whole packets and counts bytes: on
Linux the kernel drops what is received instead of copying it. So it is far from being what is measured: against a
toy broker that only forwards bytes it sees more than ten times of what any broker here does.
"""

import gc
import select
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks import wire
from benchmarks.contenders import Running
from benchmarks.identities import SERVICE, Device

SIZE = 166  # bytes of a PUBLISH on the wire
TOPICS = "devices/+/telemetry"
QUIET_S = 0.5  # nothing has come for so long: nothing will

_DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0  # tcp(7): the data is dropped, not copied
_SCRATCH = bytearray(4 << 20)


def count(sock: socket.socket) -> int:
    """How many bytes were there to be read (0: none); now they are gone. Raises ConnectionError at the end."""
    try:
        got = sock.recv_into(_SCRATCH, 0, _DISCARD)
    except BlockingIOError:
        return 0
    if not got:
        raise ConnectionError("the broker closed the connection")
    return got


def after_topic(topic: str, size: int = SIZE) -> int:
    """Where the packet identifier is in a PUBLISH of this size, or without one the payload."""
    packet = wire.sized(topic, size)
    return packet.index(topic.encode()) + len(topic)


class Packets:
    """Reads PUBLISH packets that are all of one size, with topics of one length: what is where is known."""

    def __init__(self, sock: socket.socket, topic: str, size: int = SIZE) -> None:
        self.sock = sock
        self._size = size
        self._id_at = after_topic(topic, size)
        self._buffer = bytearray(size * 8192)
        self._view = memoryview(self._buffer)
        self._end = 0  # of the whole packets
        self._left = 0  # bytes after them

    def receive(self) -> int:
        """Read once; how many whole packets there are now."""
        left = self._left
        self._buffer[:left] = self._buffer[self._end : self._end + left]
        got = self.sock.recv_into(self._view[left:])
        if not got:
            raise ConnectionError("the broker closed the connection")
        packets, self._left = divmod(left + got, self._size)
        self._end = packets * self._size
        return packets

    def column(self, offset: int) -> bytearray:
        """The byte at `offset` of each packet just received."""
        return self._buffer[offset : self._end : self._size]

    def each(self, offset: int, length: int) -> list[bytes]:
        """`length` bytes at `offset` of each packet just received."""
        return [bytes(self._view[at : at + length]) for at in range(offset, self._end, self._size)]

    def acknowledge(self) -> None:
        """Send a PUBACK for each packet just received, all of QoS 1."""
        acks = bytearray(b"\x40\x02\0\0") * (self._end // self._size)
        acks[2::4] = self.column(self._id_at)
        acks[3::4] = self.column(self._id_at + 1)
        self.sock.sendall(acks)


@contextmanager
def sessions(broker: Running, devices: Sequence[Device]) -> Iterator[list[socket.socket]]:
    """One for each device, not blocking, closed at the end."""
    packets = [wire.connect(device.id, device.id, device.token) for device in devices]
    with opened(broker, packets) as sockets:
        yield sockets


@contextmanager
def subscribers(broker: Running, number: int = 1, qos: int = 0) -> Iterator[list[socket.socket]]:
    """Subscribed to what all devices send; not blocking, closed at the end."""
    packets = [wire.connect(f"{SERVICE}-{each}", SERVICE, SERVICE) for each in range(number)]
    with opened(broker, packets) as sockets:
        for sock in sockets:
            subscribe(sock, TOPICS, qos)
        yield sockets


def subscribe(sock: socket.socket, topic_filter: str, qos: int = 0) -> None:
    sock.setblocking(True)
    sock.sendall(wire.subscribe(topic_filter, qos))
    answer = wire.receive(sock, 5)
    if answer[0] != 0x90 or answer[4] != qos:
        raise ConnectionError(f"SUBACK {answer.hex()}")
    sock.setblocking(False)


@contextmanager
def opened(broker: Running, packets: Sequence[bytes], at_once: int = 64) -> Iterator[list[socket.socket]]:
    """A connection for each CONNECT, accepted; at most `at_once` wait for their CONNACK at a time."""
    sockets: list[socket.socket] = []
    waiting: dict[int, socket.socket] = {}
    poll = select.epoll()
    rest = iter(packets)
    address = ("127.0.0.1", broker.port)

    def open_next() -> None:
        packet = next(rest, None)
        if packet is None:
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sockets.append(sock)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(packet)
        sock.setblocking(False)
        fd = sock.fileno()
        waiting[fd] = sock
        poll.register(fd, select.EPOLLIN)

    try:
        for _ in range(at_once):
            open_next()
        while waiting:
            events = poll.poll(30)
            if not events:
                raise ConnectionError(f"{broker.name}: no CONNACK")
            for fd, _ in events:
                answer = waiting.pop(fd).recv(4)
                if answer != wire.CONNACK:
                    raise ConnectionError(f"{broker.name}: CONNACK {answer.hex()}")
                poll.unregister(fd)
                open_next()
        yield sockets
    finally:
        poll.close()
        for sock in sockets:
            sock.close()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Its pauses would be ours, not the broker's. Take the time inside: beginning collects once more."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

"""What the fuzzer sends: sessions of MQTT 3.1, 3.1.1 and 5 that begin as they should, then damaged. No I/O, no clock.

A session is fully told by a seed and its number, so one that did harm can be sent again alone.
"""

import base64
from dataclasses import dataclass
from random import Random

from broker.packets import Connect, Disconnect, Publish, Subscribe, Subscription, encode
from tests.fuzz import damage
from tests.fuzz.packets import CLIENTS, LEVELS, any_packet, connect

POOL = 1500  # packets of each level, made once


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """`chunks` are written one by one; `ending` is "close", "reset", "half" (write side only) or "wait"."""

    name: str
    """The run's seed and its number, as in "7:1234"."""
    websocket: bool
    chunks: list[bytes]
    packets: int
    pause_s: float
    """Between chunks."""
    ending: str
    reads: bool
    """Whether it takes what the broker sends."""


class Grammar:
    """Makes sessions by number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        rng = Random(f"pool {seed}")
        self._pools = {level: [any_packet(rng, level) for _ in range(POOL)] for level in LEVELS}

    def session(self, number: int) -> Session:
        rng = Random(f"{self._seed} {number}")
        name = f"{self._seed}:{number}"
        if rng.random() < 0.002:
            return _glutton(rng, name)
        level = rng.choice(LEVELS)
        packets = [connect(rng, level), *rng.choices(self._pools[level], k=rng.choice((1, 5, 10, 20, 20, 40)))]
        if rng.random() < 0.3:
            packets.append(encode(Disconnect(), level))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            rng.choice(damage.DAMAGES)(rng, packets)
        stream = b"".join(packets)
        websocket = rng.random() < 0.2
        chunks = _websocket(rng, stream) if websocket else _split(rng, stream)
        if rng.random() < 0.1:  # cut off, at whatever byte
            chunks = chunks[: rng.randint(1, len(chunks))]
            chunks[-1] = chunks[-1][: rng.randint(0, len(chunks[-1]))]
        return Session(
            name=name,
            websocket=websocket,
            chunks=chunks,
            packets=len(packets),
            pause_s=rng.choice((0, 0, 0, 0.001, 0.004)),
            ending=rng.choice(("close", "close", "reset", "half", "wait")),
            reads=True,
        )

    def packet(self, rng: Random) -> bytes:
        """One packet of any level, damaged once or twice."""
        level = rng.choice(LEVELS)
        packets = [connect(rng, level) if rng.random() < 0.2 else rng.choice(self._pools[level])]
        for _ in range(rng.randint(1, 2)):
            rng.choice(damage.PACKET_DAMAGES)(rng, packets)
        return packets[0]


def _glutton(rng: Random, name: str) -> Session:
    """A client that has 4 MB sent to it and takes nothing: more than sockets hold, so the broker must."""
    level = rng.choice(LEVELS)
    qos = rng.choice((0, 1))
    topic = rng.choice(("t/0", "t/1"))
    large = Publish(topic=topic, payload=bytes(70_000), qos=qos, packet_id=1 if qos else None)
    lines = [Subscription(topic_filter="t/#", qos=qos)]
    packets = [
        encode(Connect(protocol=level, client_id=rng.choice(CLIENTS), username="u"), level),
        encode(Subscribe(packet_id=1, subscriptions=lines), level),
        *[encode(large, level)] * 60,
    ]
    return Session(
        name=name, websocket=False, chunks=packets, packets=len(packets), pause_s=0, ending="close", reads=False
    )


# --- how it is sent


def _split(rng: Random, stream: bytes) -> list[bytes]:
    """The stream in pieces: all at once, in a few, or its beginning byte by byte."""
    how = rng.random()
    if how < 0.4 or len(stream) < 2:
        return [stream]
    if how < 0.9:
        cuts = sorted(rng.sample(range(1, len(stream)), min(rng.randint(1, 6), len(stream) - 1)))
    else:
        cuts = list(range(1, min(60, len(stream))))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def _websocket(rng: Random, stream: bytes) -> list[bytes]:
    """The stream in WebSocket frames that have nothing to do with its packets, perhaps damaged themselves."""
    key = base64.b64encode(rng.randbytes(16)).decode()
    lines = [
        "GET /mqtt HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: mqtt",
    ]  # fmt: skip
    if rng.random() < 0.05:
        lines[rng.randrange(len(lines))] = rng.choice(("x", "Sec-WebSocket-Protocol: chat", "A: " + "b" * 9000))
    frames = []
    for piece in _split(rng, stream):
        parts = [piece] if rng.random() < 0.7 else [piece[:3], piece[3:]]
        for place, part in enumerate(parts):
            frames.append(_frame(rng, part, opcode=2 if place == 0 else 0, last=place == len(parts) - 1))
        if rng.random() < 0.2:
            frames.append(_frame(rng, rng.randbytes(5), opcode=9))
    if rng.random() < 0.2:
        frames.append(_frame(rng, b"\x03\xe8", opcode=8))
    if rng.random() < 0.3:
        damage.PACKET_DAMAGES[rng.randrange(3)](rng, frames)
    return _split(rng, "\r\n".join(lines).encode() + b"\r\n\r\n") + _split(rng, b"".join(frames))


def _frame(rng: Random, data: bytes, *, opcode: int, last: bool = True) -> bytes:
    mask = rng.randbytes(4)
    if rng.random() < 0.01:
        opcode = rng.randrange(16)
    size = len(data)
    head = bytes((opcode | 0x80 if last else opcode,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 0x10000:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    if rng.random() < 0.01:
        return head[:1] + b"\xff" + rng.choice((size + 5, 1 << 40, 1 << 63)).to_bytes(8, "big") + mask + data
    stretched = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")
    return head + mask + masked.to_bytes(size, "big")

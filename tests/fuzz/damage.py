"""What is done to packets, and to the order of packets, each in place. No I/O, no clock."""

from random import Random

from broker.packets.primitives import write_varint


def _near_the_end(rng: Random, packets: list[bytes]) -> int:
    """The index of a packet, more often a late one: what comes after a fatal fault is not read."""
    return int(len(packets) * rng.random() ** 0.4)


def _flip(rng: Random, packets: list[bytes]) -> None:
    at, packet = _pick(rng, packets)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = min(rng.choice((rng.randrange(len(packet)), rng.randrange(4))), len(packet) - 1)
        packet[place] ^= 1 << rng.randrange(8)
    packets[at] = bytes(packet)


def _overwrite(rng: Random, packets: list[bytes]) -> None:
    at, packet = _pick(rng, packets)
    place = rng.randrange(len(packet))
    packet[place : place + rng.choice((1, 2, 4))] = rng.choice((b"\0", b"\xff", b"\0\0", b"\xff\xff", rng.randbytes(3)))
    packets[at] = bytes(packet)


def _wrong_length(rng: Random, packets: list[bytes]) -> None:
    """Another remaining length: a little off, huge, five bytes, or longer than it needs to be."""
    at, packet = _pick(rng, packets)
    body = _body(packet)
    other = rng.choice((len(body) + rng.choice((-2, -1, 1, 2, 200)), rng.randrange(300), 268_435_455, 2_000_000))
    length = write_varint(max(0, other))
    if rng.random() < 0.2:
        length = rng.choice((b"\xff\xff\xff\xff\x01", b"\x80\x00", b"\x80\x80\x80\x00"))
    packets[at] = bytes(packet[:1]) + length + body


def _resize(rng: Random, packets: list[bytes]) -> None:
    """Bytes put in or taken out, with a remaining length that fits again."""
    at, packet = _pick(rng, packets)
    body = bytearray(_body(packet))
    place = rng.randint(0, len(body))
    if rng.random() < 0.5:
        body[place:place] = rng.randbytes(rng.choice((1, 2, 5, 300)))
    else:
        del body[place : place + rng.choice((1, 2, 5))]
    packets[at] = bytes(packet[:1]) + write_varint(len(body)) + body


def _other_first_byte(rng: Random, packets: list[bytes]) -> None:
    at, packet = _pick(rng, packets)
    packet[0] = rng.randrange(256)
    packets[at] = bytes(packet)


def _splice(rng: Random, packets: list[bytes]) -> None:
    """The beginning of one packet and the end of another."""
    at, packet = _pick(rng, packets)
    other = rng.choice(packets)
    body = _body(packet)[: rng.randint(0, 20)] + _body(other)[rng.randint(0, 20) :]
    packets[at] = bytes(packet[:1]) + write_varint(len(body)) + body


def _double(rng: Random, packets: list[bytes]) -> None:
    at = min(_near_the_end(rng, packets), len(packets) - 1)
    packets[at:at] = [packets[at]] * rng.choice((1, 2, 30))


def _remove(rng: Random, packets: list[bytes]) -> None:
    if len(packets) > 1:
        del packets[min(_near_the_end(rng, packets), len(packets) - 1)]


def _swap(rng: Random, packets: list[bytes]) -> None:
    one, other = rng.randrange(len(packets)), rng.randrange(len(packets))
    packets[one], packets[other] = packets[other], packets[one]


def _shuffle(rng: Random, packets: list[bytes]) -> None:
    rest = packets[1:]
    rng.shuffle(rest)
    packets[1:] = rest


def _garbage(rng: Random, packets: list[bytes]) -> None:
    packets.insert(_near_the_end(rng, packets), rng.randbytes(rng.choice((1, 2, 10, 1000))))


PACKET_DAMAGES = (_flip, _flip, _overwrite, _wrong_length, _resize, _other_first_byte, _splice)
"""To one packet."""
DAMAGES = (*PACKET_DAMAGES, _double, _double, _remove, _swap, _shuffle, _garbage)
"""To a session: the same, and to its order."""


def _pick(rng: Random, packets: list[bytes]) -> tuple[int, bytearray]:
    at = min(_near_the_end(rng, packets), len(packets) - 1)
    return at, bytearray(packets[at] or b"\0\0")


def _body(packet: bytes | bytearray) -> bytes:
    start = 1
    while start < min(5, len(packet)) and packet[start] > 0x7F:
        start += 1
    return bytes(packet[start + 1 :])

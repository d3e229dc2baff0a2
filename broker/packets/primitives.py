"""The data types of the wire, read and written (MQTT 5, section 1.5). No I/O, no clock.

A reader takes the buffer, where to begin and where its surroundings end; it gives the value and where the next one
begins. It never looks past `end`, and never allocates by a length that is not there.
"""

from typing import TypeAlias

from broker.packets.errors import Unencodable, malformed

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_VARINT = 268_435_455
"""Four bytes of seven bits."""


def read_u8(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise malformed("the packet ends before a byte it must have")
    return buffer[at], at + 1


def read_u16(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    if at + 2 > end:
        raise malformed("the packet ends within a two-byte integer")
    return buffer[at] << 8 | buffer[at + 1], at + 2


def read_u32(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    if at + 4 > end:
        raise malformed("the packet ends within a four-byte integer")
    return int.from_bytes(buffer[at : at + 4], "big"), at + 4


def read_varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer: at most four bytes, and no more than needed."""
    value = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            raise malformed("the packet ends within a variable byte integer")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise malformed("a variable byte integer is longer than it needs to be")  # [MQTT-1.5.5-1]
            return value, at
    raise malformed("a variable byte integer of more than four bytes")


def read_binary(buffer: Buffer, at: int, end: int) -> tuple[bytes, int]:
    """Two bytes of length, then that many bytes; a copy, so that the buffer may be reused."""
    start = at + 2
    if start > end:
        raise malformed("the packet ends within a length")
    stop = start + (buffer[at] << 8 | buffer[at + 1])
    if stop > end:
        raise malformed("a length goes beyond the end of the packet")
    return bytes(buffer[start:stop]), stop


def read_text(buffer: Buffer, at: int, end: int) -> tuple[str, int]:
    """A UTF-8 string. Control and non-characters pass: the spec only advises against them (1.5.4)."""
    start = at + 2
    if start > end:
        raise malformed("the packet ends within a length")
    stop = start + (buffer[at] << 8 | buffer[at + 1])
    if stop > end:
        raise malformed("a length goes beyond the end of the packet")
    try:
        text = str(buffer[start:stop], "utf-8")  # strict: no surrogates, nothing overlong; U+FEFF stays [MQTT-1.5.4-3]
    except UnicodeDecodeError as error:
        raise malformed("a string is not UTF-8") from error  # [MQTT-1.5.4-1]
    if "\0" in text:
        raise malformed("a string holds U+0000")  # [MQTT-1.5.4-2], [MQTT-4.7.3-2]
    return text, stop


def read_pair(buffer: Buffer, at: int, end: int) -> tuple[tuple[str, str], int]:
    name, at = read_text(buffer, at, end)  # [MQTT-1.5.7-1]
    value, at = read_text(buffer, at, end)
    return (name, value), at


def write_u8(value: int) -> bytes:
    return _integer(value, 1)


def write_u16(value: int) -> bytes:
    return _integer(value, 2)


def write_u32(value: int) -> bytes:
    return _integer(value, 4)


def write_varint(value: int) -> bytes:
    if not 0 <= value <= MAX_VARINT:
        raise Unencodable(f"{value} does not fit a variable byte integer")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:  # [MQTT-4.7.3-3]
        raise Unencodable(f"{len(value)} bytes where MQTT allows 65,535")
    return len(value).to_bytes(2, "big") + value


def write_text(value: str) -> bytes:
    if "\0" in value:
        raise Unencodable("a string holds U+0000")  # [MQTT-1.5.4-2]
    try:
        return write_binary(value.encode())
    except UnicodeEncodeError as error:
        raise Unencodable("a string holds a surrogate") from error  # [MQTT-1.5.4-1]


def write_pair(value: tuple[str, str]) -> bytes:
    return write_text(value[0]) + write_text(value[1])


def _integer(value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "big")
    except OverflowError as error:
        raise Unencodable(f"{value} does not fit {size} bytes") from error

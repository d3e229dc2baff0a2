"""Compressed payloads: gzip (RFC 1952) and zlib (RFC 1950), known by their first bytes. No I/O, no clock.

Neither can be mistaken for what devices send otherwise: JSON begins with white space, a bracket or a brace, and in CBOR
the first byte of both, 0x1f or 0x08 to 0x78, is a number, bytes or text, never the array or map a message has to be.
What comes out is bounded while it is made, so that a bomb costs no more than the largest message.
"""

import zlib

from gateway.documents import Undecodable
from gateway.refusals import Refusal

_GZIP = b"\x1f\x8b"
FIRST_BYTES = frozenset(bytes([first]) for first in (0x1F, *range(0x08, 0x80, 0x10)))
"""What a compressed payload begins with; whether it is one, `is_compressed` says."""


def is_gzip(payload: bytes) -> bool:
    """Whether the payload has gzip's magic number."""
    return payload.startswith(_GZIP)


def is_zlib(payload: bytes) -> bool:
    """Whether the payload begins with a zlib header (what HTTP calls deflate): the method 8, and a check modulo 31."""
    return len(payload) > 1 and payload[0] & 0x8F == 8 and (payload[0] << 8 | payload[1]) % 31 == 0


def is_compressed(payload: bytes) -> bool:
    return is_gzip(payload) or is_zlib(payload)


def decompress(payload: bytes, limit_bytes: int) -> bytes:
    """What a gzip or zlib payload holds, at most `limit_bytes`. Raises Undecodable.

    One member and nothing after it: a second one would be content that other readers do not see.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whatever the header says
    try:
        content = inflater.decompress(payload, limit_bytes + 1)
    except zlib.error as error:
        raise Undecodable(Refusal.INVALID_COMPRESSION, f"not whole gzip or zlib: {error}"[:200]) from error
    if len(content) > limit_bytes:
        raise Undecodable(Refusal.TOO_LARGE, f"more than {limit_bytes} bytes when decompressed")
    if not inflater.eof:
        raise Undecodable(Refusal.INVALID_COMPRESSION, "the compressed data ends too early")
    if inflater.unused_data:
        raise Undecodable(Refusal.INVALID_COMPRESSION, "bytes after the end of the compressed data")
    return content

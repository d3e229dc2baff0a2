"""Imports over HTTP: the body taken as it comes, one import at a time, and what was broken off told to the next.

Nothing of a body is kept beyond the piece in hand, packed or not. The sender is held back by TCP while the store
writes and while live readings wait for it.
"""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp import web

from gateway.importing import Imported
from web.api.problem import Problem

logger = logging.getLogger(__name__)

LIMIT_BYTES = 16 << 30
"""Of a body, unpacked."""
_CHUNK_S = 60.0  # as for uploads: 1 KB/s is slower than any link worth waiting for
_PIECE = 16 * 1024  # is parsed in about 3 ms, then others have their turn
# Text packs 10 to 50 times; beyond this, and once it is worth speaking of, it is a bomb.
_MOST_PACKED = 300
_FREE_BYTES = 8 << 20


class _Pieces(Protocol):
    async def feed(self, chunk: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenOff:
    """An import that did not end: what it had stored, which stays, and why."""

    records: int
    stored: int
    reason: str


class Imports:
    """The imports since the start."""

    def __init__(self) -> None:
        self.broken_off: BrokenOff | None = None
        self._is_running = False

    def broke_off(self, so_far: Imported, reason: str) -> None:
        self.broken_off = BrokenOff(records=so_far.records, stored=so_far.points, reason=reason)
        logger.warning("an import broke off, with %d readings stored: %s", so_far.points, reason)

    def take_broken_off(self) -> BrokenOff | None:
        """To be told once."""
        found, self.broken_off = self.broken_off, None
        return found

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises Problem 409 while another one is at work."""
        if self._is_running:
            raise Problem(409, "another import is at work: wait for it")
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False


async def pour(request: web.Request, into: _Pieces) -> None:
    """The request's body, unpacked if it is gzip, piece by piece.

    Raises Problem 400 (broken off, or no gzip), 408, 413, and whatever `feed` raises.
    """
    async for piece in _unpacked(request):
        await into.feed(piece)
        await asyncio.sleep(0)


async def _unpacked(request: web.Request) -> AsyncIterator[bytes]:
    inflater = None
    packed = total = 0
    first = True
    async for chunk in _chunks(request):
        if first:
            first = False
            if chunk[:2] == b"\x1f\x8b":
                inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        packed += len(chunk)
        while chunk:
            if inflater is None:
                piece, chunk = chunk[:_PIECE], chunk[_PIECE:]
            else:
                if inflater.eof:
                    raise Problem(400, "bytes after the end of the compressed data")
                try:
                    piece = inflater.decompress(chunk, _PIECE)
                except zlib.error as error:
                    raise Problem(400, "the body is not whole gzip") from error
                chunk = inflater.unconsumed_tail or inflater.unused_data
            total += len(piece)
            if total > LIMIT_BYTES or (inflater is not None and total > _FREE_BYTES + packed * _MOST_PACKED):
                raise Problem(413, "too much when decompressed", headers={"Connection": "close"})
            yield piece
    while inflater is not None and not inflater.eof:
        piece = inflater.decompress(b"", _PIECE)
        if not piece:
            raise Problem(400, "the compressed data ends too early")
        yield piece


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(_CHUNK_S):
                chunk = await request.content.read(_PIECE)
        except TimeoutError as error:
            raise Problem(408, "the body did not come in time", headers={"Connection": "close"}) from error
        except (ConnectionError, aiohttp.ClientError, web.RequestPayloadError, asyncio.IncompleteReadError) as error:
            raise Problem(400, "the body breaks off", headers={"Connection": "close"}) from error
        if not chunk:
            return
        yield chunk

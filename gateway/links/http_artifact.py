"""Serving an artifact to a device: whole or one range of it (RFC 9110, section 14), as slowly as the device reads.

The ETag is the artifact's SHA-256, so a download begun before a restart or on another node is resumed only into the
same content. aiohttp's FileResponse is not used: it knows If-Range by date only, sends a `.gz` beside the file, and
sends whatever length the file has by now. Several ranges, other units and ranges that are wrong in form are ignored,
as the RFC allows: the answer is the whole file.
"""

import asyncio
import base64
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from aiohttp import web

from gateway.links.http_cut import cut
from gateway.links.http_desk import ArtifactFile
from gateway.links.http_problem import COMMON_HEADERS, Problem

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

CHUNK = 64 * 1024
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
_BEYOND_ANY_FILE = 10**18


class Unsatisfiable(Exception):
    """The range asked for lies outside the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(first byte, byte after the last) of a single range, or None where the whole file is to be sent.

    Raises Unsatisfiable.
    """
    match = _RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match.group(0) == "bytes=-":
        return None
    first_text, last_text = match.groups()
    if not first_text:
        length = min(_number(last_text), size)
        if length == 0:
            raise Unsatisfiable
        return size - length, size
    first = _number(first_text)
    last = _number(last_text) if last_text else _BEYOND_ANY_FILE
    if last < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return first, min(last + 1, size)


def _number(digits: str) -> int:
    # Python refuses to read more than 4,300 digits; a header line may have 8,190.
    return int(digits) if len(digits) <= 18 else _BEYOND_ANY_FILE


class Downloads:
    """The downloads under way, at most `limit` of them; one that takes no chunk for `stall_s` is broken off."""

    def __init__(self, *, limit: int, stall_s: float) -> None:
        self._limit = limit
        self._stall_s = stall_s
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="artifact")
        self.active = 0

    def close(self) -> None:
        """Call it once no request is left; files on their way to being closed still are."""
        self._threads.shutdown(wait=False)

    async def serve(
        self, request: web.Request, file: ArtifactFile, still_allowed: Callable[[], bool]
    ) -> web.StreamResponse:
        """Answer GET or HEAD. Raises Problem; a file that turns out too short ends the connection."""
        etag = f'"{file.sha256}"'
        headers = {
            **COMMON_HEADERS,
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-transform",
            "Content-Disposition": _disposition(file.name),
            "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
        }
        if etag in _etags(request.headers.get("If-None-Match", "")):
            return web.Response(status=304, headers=headers)
        # Range means nothing to HEAD [RFC 9110, 14.2]; nor once the file is not the one that If-Range names.
        wants_part = request.method == "GET" and request.headers.get("If-Range", etag).strip() == etag
        try:
            part = parse_range(request.headers.get("Range") if wants_part else None, file.size)
        except Unsatisfiable:
            content_range = {"Content-Range": f"bytes */{file.size}"}
            raise Problem(416, f"the file has {file.size} bytes", headers=content_range) from None
        first, end = part or (0, file.size)
        response = web.StreamResponse(status=206 if part else 200, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = end - first
        if part:
            response.headers["Content-Range"] = f"bytes {first}-{end - 1}/{file.size}"
        if self.active >= self._limit:
            raise Problem(503, "too many downloads at once", retry_after_s=10)
        self.active += 1
        try:
            opened = await self._open(file)
            try:
                await response.prepare(request)
                if request.method != "HEAD":
                    await self._send(request, response, opened, first, end, still_allowed)
                await response.write_eof()
            finally:
                self._close(opened)
        finally:
            self.active -= 1
        return response

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        opened: BinaryIO,
        first: int,
        end: int,
        still_allowed: Callable[[], bool],
    ) -> None:
        position = first
        while position < end:
            chunk = await self._in_thread(_read, opened, position, min(CHUNK, end - position))
            if not chunk or not still_allowed():
                _abort(request)
                raise ConnectionResetError("the download was broken off")
            try:
                async with asyncio.timeout(self._stall_s):
                    await response.write(chunk)
            except TimeoutError:
                _abort(request)
                raise ConnectionResetError("the device does not read") from None
            position += len(chunk)

    async def _open(self, file: ArtifactFile) -> BinaryIO:
        opening = self._threads.submit(_open, file)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)  # the thread goes on and opens it all the same
            raise

    def _close(self, opened: BinaryIO) -> None:
        """In a thread, since a read that was given up may still hold the file's lock."""
        try:
            self._threads.submit(opened.close)
        except RuntimeError:  # closed already: a request outlived its time to finish
            opened.close()

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _close_unwanted(opening: Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(file: ArtifactFile) -> BinaryIO:
    try:
        opened = file.path.open("rb")
    except OSError as error:
        logger.error("artifact %s: %s", file.name, error)
        raise Problem(503, "the artifact cannot be read at the moment", retry_after_s=60) from error
    found = os.fstat(opened.fileno()).st_size
    if found != file.size:
        opened.close()
        logger.error("artifact %s: the file has %d bytes, %d were recorded", file.name, found, file.size)
        raise Problem(503, "the artifact is damaged", retry_after_s=3600)
    return opened


def _read(opened: BinaryIO, position: int, count: int) -> bytes:
    opened.seek(position)
    return opened.read(count)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        cut(request.transport)


def _etags(header: str) -> set[str]:
    # Weak comparison [RFC 9110, 13.1.2]: W/ makes no difference.
    return {part.strip().removeprefix("W/") for part in header.split(",")}


def _disposition(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    return f'attachment; filename="{plain or "artifact"}"'

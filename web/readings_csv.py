"""A device's readings as a CSV file, sent as they are read: memory holds one window of them."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from gateway.readings import Reading
from gateway.store import StoreError
from gateway.stores.transfer_csv import Column, columns_of, encode_long, encode_wide, header_of
from gateway.stores.transfer_scan import Source, scan
from web.api.problem import Problem

logger = logging.getLogger(__name__)

MAX_AT_ONCE = 4
"""Each costs the store as much as a busy console."""
_WRITE_S = 60.0  # a browser that takes nothing for a minute is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to export."""

    device_id: str
    start_ms: int
    end_ms: int
    metrics: tuple[str, ...]
    wide: bool


class Exports:
    """The exports under way."""

    def __init__(self) -> None:
        self.at_work = 0

    async def send(self, request: web.Request, source: Source, asked: Asked) -> web.StreamResponse:
        """Raises Problem 503 while too many are at work, StoreError before the first byte; later it breaks off."""
        if self.at_work >= MAX_AT_ONCE:
            raise Problem(503, f"{MAX_AT_ONCE} exports are at work", headers={"Retry-After": "10"})
        self.at_work += 1
        try:
            return await _send(request, source, asked)
        finally:
            self.at_work -= 1


async def _send(request: web.Request, source: Source, asked: Asked) -> web.StreamResponse:
    columns: Sequence[Column] | None = None
    if asked.wide:
        found = columns_of([await source.latest(asked.device_id)])
        columns = [column for column in found if not asked.metrics or column[0] in asked.metrics]
    windows = scan(source, asked.device_id, asked.start_ms, asked.end_ms, asked.metrics)
    first: list[Reading] = await anext(windows, [])  # a store that is away is told of as usual
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{asked.device_id.replace(":", "_")}.csv"',
        }
    )
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await _write(response, header_of(columns))
        readings = first
        while readings:
            rows = encode_long(readings) if columns is None else encode_wide(readings, columns)
            await _write(response, rows)
            readings = await anext(windows, [])
        await response.write_eof()
    except (StoreError, KeyError, TimeoutError) as error:
        # Half a file must not look like a whole one: the last chunk is never sent.
        logger.warning("export of %s broken off: %r", asked.device_id, error)
        if request.transport is not None:
            request.transport.abort()
    finally:
        await windows.aclose()
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_S):
        await response.write(data)

"""A file of readings into a running server: sent as it is read, gzip as it is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO

from mooring.cli.client import Api

_CHUNK = 256 * 1024


async def import_online(
    api: Api, file: BinaryIO, *, media_type: str, query: dict[str, str], progress: Callable[[int], None]
) -> dict[str, Any]:
    """What the server answers. `progress` is told the bytes sent. Raises ApiError."""

    async def chunks() -> AsyncIterator[bytes]:
        sent = 0
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
            sent += len(chunk)
            progress(sent)

    answer: dict[str, Any] = await api.send("telemetry:import", chunks(), media_type, query)
    return answer

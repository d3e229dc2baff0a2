"""The audit as a file of JSON lines, sent as it is read: memory holds a thousand entries of it."""

import asyncio
import logging

from aiohttp import web

from fleet.audit import Audit
from web.api.problem import Problem

logger = logging.getLogger(__name__)

MAX_AT_ONCE = 2
_WRITE_S = 60.0  # who takes nothing for a minute is gone

AUDIT_EXPORTS = web.AppKey("AUDIT_EXPORTS", asyncio.Semaphore)


async def send_audit(request: web.Request, audit: Audit) -> web.StreamResponse:
    """Raises Problem 503 while too many are at work; after the first byte it breaks off instead."""
    at_work = request.app[AUDIT_EXPORTS]
    if at_work.locked():
        raise Problem(503, f"{MAX_AT_ONCE} exports of the audit are at work", headers={"Retry-After": "10"})
    async with at_work:
        return await _send(request, audit)


async def _send(request: web.Request, audit: Audit) -> web.StreamResponse:
    parts = audit.export()
    first = await anext(parts, b"")  # a database that is away is told of as usual
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/x-ndjson",
            "Content-Disposition": 'attachment; filename="audit.jsonl"',
        }
    )
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        part = first
        while part:
            async with asyncio.timeout(_WRITE_S):
                await response.write(part)
            part = await anext(parts, b"")
        await response.write_eof()
    except Exception as error:
        # Half a file must not look like a whole one: the last chunk is never sent.
        logger.warning("export of the audit broken off: %r", error)
        if request.transport is not None:
            request.transport.abort()
    finally:
        await parts.aclose()
    return response

"""A server that fails as InfluxDB 2.x and 3.x do on POST /api/v2/write, in a given order, and keeps what it stored."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One answer that is not the usual 204. `stores`: the lines are kept before it. `breaks`: cut off in mid-body."""

    status: int = 204
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    stores: bool = False
    breaks: bool = False
    hangs: bool = False


class StandIn:
    """`stored` holds values by line key (measurement, tags, time), `order` the times of each series as they came."""

    def __init__(self) -> None:
        self.url = ""
        self.troubles: deque[Trouble] = deque()
        self.requests = 0
        self.most_lines: int | None = None
        self.bad = ""  # lines that contain it are never stored
        self.dropped = 1  # as told in the answer; some versions say 0
        self.stored: dict[str, str] = {}
        self.order: dict[str, list[int]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        lines = (await request.text()).splitlines()
        if self.troubles:
            trouble = self.troubles.popleft()
            if trouble.stores:
                self._store(lines)
            if trouble.hangs:
                await asyncio.sleep(30)  # the client goes away long before
            if trouble.breaks:
                return await self._break_off(request)
            return web.Response(status=trouble.status, text=trouble.body, headers=trouble.headers)
        if self.most_lines is not None and len(lines) > self.most_lines:
            return web.Response(status=413, text="payload too large")
        good = [line for line in lines if not self.bad or self.bad not in line]
        self._store(good)
        if len(good) < len(lines):
            return web.json_response(
                {"code": "invalid", "message": f"partial write: field type conflict dropped={self.dropped}"}, status=400
            )
        return web.Response(status=204)

    def _store(self, lines: list[str]) -> None:
        for line in lines:
            series, value, time = line.rsplit(" ", 2)
            if f"{series} {time}" not in self.stored:
                self.order.setdefault(series, []).append(int(time))
            self.stored[f"{series} {time}"] = value

    async def _break_off(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500, headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        if request.transport is not None:
            request.transport.abort()
        return response


@asynccontextmanager
async def stand_in() -> AsyncIterator[StandIn]:
    server = StandIn()
    app = web.Application()
    app.router.add_post("/api/v2/write", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()

"""A time-series store on paper: speaks InfluxDB's way of writing, keeps what it is given, and misbehaves when told."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from aiohttp import web

from tests.chaos.ledger import Point
from tests.servers import HOST

_LINE = re.compile(rb"mooring_number,device=([^ ,]+),metric=([^ ,]+) value=(\S+) (\d+)")


class Mood(StrEnum):
    """What becomes of a write."""

    WELL = "written and answered"
    REFUSING = "503"
    CONFUSED = "400 that blames no reading"
    RESETTING = "the connection broken off in the middle of the body"
    SLOW = "written and answered, a second late"
    SILENT = "written, and the connection broken off instead of an answer"


class PaperStore:
    """`points` by (device, metric): time to value. `order`: the times of each series as they first came."""

    def __init__(self) -> None:
        self.mood = Mood.WELL
        self.points: dict[tuple[str, str], dict[int, float]] = {}
        self.order: dict[tuple[str, str], list[int]] = {}
        self.repeated = 0
        """Points that came once more."""
        self.changed = 0
        """Points that came once more with another value."""
        self.requests: list[float] = []
        """When each write came, on the monotonic clock."""
        self.url = ""

    @property
    def count(self) -> int:
        return sum(map(len, self.points.values()))

    def of_devices(self, metric: str = "n") -> dict[str, list[Point]]:
        return {device: sorted(points.items()) for (device, name), points in self.points.items() if name == metric}

    async def write(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(time.monotonic())
        mood = self.mood
        transport = request.transport
        if mood is Mood.RESETTING:
            await request.content.read(100)
            assert transport is not None
            transport.abort()
            return web.Response()
        body = await request.read()
        if mood is Mood.REFUSING:
            return web.json_response({"message": "timeout"}, status=503)
        if mood is Mood.CONFUSED:
            return web.json_response({"message": "no such organisation"}, status=400)
        if mood is Mood.SLOW:
            await asyncio.sleep(1.0)
        self._keep(body)
        if mood is Mood.SILENT:
            assert transport is not None
            transport.abort()
        return web.Response(status=204)

    def _keep(self, body: bytes) -> None:
        for line in body.splitlines():
            found = _LINE.fullmatch(line)
            assert found, line
            series = (found[1].decode(), found[2].decode())
            ts_ms, value = int(found[4]), float(found[3])
            points = self.points.setdefault(series, {})
            if ts_ms in points:
                self.repeated += 1
                self.changed += points[ts_ms] != value
            else:
                self.order.setdefault(series, []).append(ts_ms)
            points[ts_ms] = value


@asynccontextmanager
async def paper_store() -> AsyncIterator[PaperStore]:
    store = PaperStore()
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/api/v2/write", store.write)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    store.url = f"http://{HOST}:{runner.addresses[0][1]}"
    try:
        yield store
    finally:
        await runner.cleanup()

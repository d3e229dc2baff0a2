"""Readings as a file through the API: every one, whole or visibly broken off, few exports at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.readings import Reading
from gateway.store import Query, Series, StoreUnavailable
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from gateway.stores.transfer_scan import PAGE
from tests.web.conftest import Site
from web.readings_csv import MAX_AT_ONCE

START_MS = 1_700_000_000_000
SPAN = f"start={START_MS}&end={START_MS + 86_400_000}"
WHERE = f"/api/v1/devices/pump-7/telemetry/export?{SPAN}"
READINGS = [Reading("pump-7", "t", START_MS + n, n) for n in range(3 * PAGE)]
READINGS += [Reading("pump-7", "note", START_MS, "=1+1")]


@pytest.fixture
async def store(site: Site, tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    found = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"), now_ms=lambda: START_MS)
    await found.open()
    await found.write(READINGS)
    site.gateway.history = found  # type: ignore[assignment]
    yield found
    await found.close()


async def test_every_reading_is_in_the_file(site: Site, store: EmbeddedStore) -> None:
    answer = await site.ask("GET", WHERE, role="viewer")
    assert (answer.status, answer.media) == (200, "text/csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="pump-7.csv"'
    rows = answer.body.decode().splitlines()
    assert len(rows) == 1 + len(READINGS)
    assert rows[1] == f"pump-7,note,{START_MS},2023-11-14T22:13:20.000Z,text,'=1+1"


async def test_a_file_may_be_wide_and_of_some_metrics(site: Site, store: EmbeddedStore) -> None:
    rows = (await site.ask("GET", f"{WHERE}&wide=true")).body.decode().splitlines()
    assert rows[:2] == ["device,ts,time,note:text,t:number", f"pump-7,{START_MS},2023-11-14T22:13:20.000Z,'=1+1,0"]
    rows = (await site.ask("GET", f"{WHERE}&wide=true&metrics=t")).body.decode().splitlines()
    assert rows[0] == "device,ts,time,t:number"
    assert len(rows) == 1 + 3 * PAGE


async def test_a_device_without_readings_gives_the_header_alone(site: Site, store: EmbeddedStore) -> None:
    answer = await site.ask("GET", "/api/v1/devices/pump-7/telemetry/export?start=1&end=2")
    assert answer.body == b"device,metric,ts,time,type,value\r\n"


@pytest.mark.parametrize(
    ("where", "role", "status"),
    [
        (WHERE, None, 401),
        (WHERE.replace("pump-7", "nobody"), "viewer", 404),
        (f"{WHERE}&format=xlsx", "viewer", 422),
        (WHERE.replace(SPAN, "start=2&end=1"), "viewer", 422),
    ],
)
async def test_what_may_not_or_cannot_be_exported_is_refused(
    site: Site, store: EmbeddedStore, where: str, role: str | None, status: int
) -> None:
    assert (await site.ask("GET", where, role=role)).status == status


async def test_a_store_that_is_away_is_503(site: Site) -> None:
    site.gateway.history.failure = StoreUnavailable("refused", retry_after_s=7)
    assert (await site.ask("GET", WHERE)).status == 503


async def test_a_store_lost_half_way_leaves_no_file_that_looks_whole(site: Site, store: EmbeddedStore) -> None:
    class Lost:
        asked = 0

        async def query(self, query: Query) -> dict[str, Series]:
            self.asked += 1
            if self.asked > 3:
                raise StoreUnavailable("gone")
            return {"t": Series([query.start_ms], [1])}

    site.gateway.history = Lost()  # type: ignore[assignment]
    with pytest.raises(aiohttp.ClientPayloadError):
        await site.ask("GET", WHERE)


async def test_more_exports_than_may_be_at_once_are_asked_to_wait(site: Site, store: EmbeddedStore) -> None:
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    class Slow:
        async def query(self, query: Query) -> dict[str, Series]:
            begun.release()
            await go.wait()
            return {}

    site.gateway.history = Slow()  # type: ignore[assignment]
    at_work = [asyncio.create_task(site.ask("GET", WHERE)) for _ in range(MAX_AT_ONCE)]
    for _ in at_work:
        await begun.acquire()
    refused = await site.ask("GET", WHERE)
    go.set()
    assert {answer.status for answer in await asyncio.gather(*at_work)} == {200}
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert (await site.ask("GET", WHERE)).status == 200

"""Readings as a file through the API: every one, whole or visibly broken off, few exports at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fleet.actor import SYSTEM
from gateway.readings import Reading
from gateway.store import Query, Series, StoreUnavailable
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from gateway.stores.transfer_scan import PAGE
from mooring.cli.client import ApiError, connect
from mooring.export_online import export_online
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


async def test_the_command_line_exports_from_a_running_server(site: Site, store: EmbeddedStore, tmp_path: Path) -> None:
    await site.fleet.devices.create(SYSTEM, id="pump-8")
    await store.write([Reading("pump-8", "t", START_MS, 8)])
    out = tmp_path / "all.csv"
    async with connect(site.url, "viewer") as api:
        with out.open("wb") as file:
            count = await export_online(
                api, file, devices=(), tag="", query={"metrics": "t"}, progress=lambda done, total: None
            )
    rows = out.read_text().splitlines()
    assert (count, len(rows), rows[0]) == (2, 1 + 3 * PAGE + 1, "device,metric,ts,time,type,value")
    assert {row.split(",")[0] for row in rows[1:]} == {"pump-7", "pump-8"}
    async with connect(site.url, "viewer") as api:
        with pytest.raises(ApiError, match="nobody"), out.open("wb") as file:
            await export_online(api, file, devices=["nobody"], tag="", query={}, progress=lambda done, total: None)

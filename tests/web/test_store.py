"""The store in the API: what it tells, and work on its files."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.readings import Reading
from gateway.stores import EmbeddedOptions, EmbeddedStore
from gateway.stores.day_file import DAY_MS
from tests.web.conftest import Site


@pytest.fixture
async def embedded(site: Site, tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    """The real store in place of the fake one, with a reading in it."""
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings", retention_days=36_500))
    await store.open()
    today_ms = int(time.time() * 1000) // DAY_MS * DAY_MS  # a day that is over would be sealed by itself
    await store.write([Reading("d", "m", today_ms + n, n) for n in range(100)])
    site.gateway.store = store  # type: ignore[assignment]
    yield store
    await store.close()


async def ended(site: Site, answer: SimpleNamespace) -> dict[str, Any]:
    assert answer.status == 202, answer.json
    async with asyncio.timeout(10):
        while True:
            job: dict[str, Any] = (await site.ask("GET", f"/api/v1/store/jobs/{answer.json['id']}", role="viewer")).json
            if job["state"] != "running":
                return job
            await asyncio.sleep(0.01)


def files(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.glob("*.db"))


async def test_the_store_tells_how_it_does(site: Site, embedded: EmbeddedStore) -> None:
    found = (await site.ask("GET", "/api/v1/store", role="viewer")).json
    assert (found["kind"], found["points"], found["loose_points"], found["has_files"]) == ("embedded", 100, 100, True)
    assert found["size_bytes"] > 0


async def test_it_is_compacted_verified_and_backed_up(site: Site, embedded: EmbeddedStore, tmp_path: Path) -> None:
    job = await ended(site, await site.ask("POST", "/api/v1/store:compact"))
    assert (job["state"], job["done"], job["total"]) == ("succeeded", 1, 1)
    assert (await embedded.stats()).loose_points == 0
    job = await ended(site, await site.ask("POST", "/api/v1/store:verify"))
    assert (job["state"], job["findings"], job["found"]) == ("succeeded", [], 0)
    job = await ended(site, await site.ask("POST", "/api/v1/store:backup"))
    assert job["state"] == "succeeded"
    copy = Path(job["directory"])
    assert copy.parent == tmp_path / "backups"
    assert files(copy) == files(embedded.directory)
    actions = [action for action, _ in site.fleet.audit.recorded]
    assert actions == ["store.compact", "store.verify", "store.backup"]


async def test_one_job_at_a_time_and_admins_only(
    site: Site, embedded: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def slow(progress: object) -> None:
        await gate.wait()

    monkeypatch.setattr(embedded, "compact", slow)
    first = await site.ask("POST", "/api/v1/store:compact")
    busy = await site.ask("POST", "/api/v1/store:verify")
    assert (busy.status, "another job" in busy.json["detail"]) == (409, True)
    gate.set()
    assert (await ended(site, first))["state"] == "succeeded"
    assert (await site.ask("POST", "/api/v1/store:verify", role="operator")).status == 403
    assert (await site.ask("GET", "/api/v1/store/jobs/nothing")).status == 404


async def test_what_fails_says_why(site: Site, embedded: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    full = await site.ask("POST", "/api/v1/store:backup")
    assert (full.status, "10 left" in full.json["detail"]) == (507, True)
    await embedded.close()
    job = await ended(site, await site.ask("POST", "/api/v1/store:verify"))
    assert (job["state"], job["detail"]) == ("failed", "the store is closed")


async def test_a_server_looks_after_its_own_files(site: Site) -> None:
    assert (await site.ask("GET", "/api/v1/store")).json["has_files"] is False
    assert (await site.ask("POST", "/api/v1/store:compact")).status == 409

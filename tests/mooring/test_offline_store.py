"""A command that opens the store of a stopped server leaves in it what it finds."""

import time
from pathlib import Path

import pytest

from gateway.readings import Reading
from gateway.store import Query
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from mooring.offline_store import offline_store
from mooring.settings import Settings

DAY_MS = 86_400_000


@pytest.mark.parametrize("leap_days", [0, 3653], ids=["the clock is right", "the clock has leapt"])
async def test_what_a_server_keeps_for_longer_outlives_a_command(
    tmp_path: Path, leap_days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = time.time_ns() // 1_000_000
    days = (0, 10, 100, 390)
    retentions = {"archive": 400}
    server = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"), retention_of=retentions.get)
    await server.open()
    await server.write([Reading("archive", "t", now_ms - day * DAY_MS, float(day)) for day in days])
    await server.close()
    files = sorted(path.name for path in (tmp_path / "readings").glob("*-*-*.db"))
    assert len(files) == len(days)
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + leap_days * DAY_MS * 1_000_000)
    settings = Settings.model_validate({"data_dir": tmp_path})
    asked = Query(device_id="archive", metrics=("t",), start_ms=now_ms - 400 * DAY_MS, end_ms=now_ms + 1)
    async with offline_store(settings, online="") as store:
        assert (await store.query(asked))["t"].v == sorted(map(float, days), reverse=True)
    assert sorted(path.name for path in (tmp_path / "readings").glob("*-*-*.db")) == files

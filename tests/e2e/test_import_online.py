"""`mooring store import --url`: into a running server, and there after kill -9."""

import gzip
import time
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.running import PASSWORD, MooringProcess, operator
from tests.mooring.test_cli import mooring


@pytest.mark.slow
async def test_what_the_server_said_it_imported_outlives_kill_9_and_fixes_the_kind(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    now_ms = int(time.time() * 1000)
    text = "device,metric,ts,value\n" + "".join(f"pump-7,t,{now_ms - n * 1000},{n}\n" for n in range(200))
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(f"{text}valve-1,t,5,1\n".encode()))
    try:
        async with operator(server) as api:
            device_token = await api.add_device("pump-7")
        async with aiohttp.ClientSession(server.web) as session:
            answer = await session.post("/api/v1/auth/login", json={"username": "admin", "password": PASSWORD})
            token = (await answer.json())["access_token"]
        arguments = ("store", "import", "in.csv.gz", "--url", server.web)
        found = mooring(*arguments, cwd=tmp_path, MOORING_TOKEN=token)
        assert (found.returncode, "before 2000" in found.stdout) == (1, True), found.stderr
        assert "200 readings stored, 1 records left out" in found.stderr
        server.kill()
        server.start()
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            kept = await session.get(f"{server.web}/api/v1/devices/pump-7/telemetry?start={now_ms - 300_000}")
            assert len((await kept.json())["series"]["t"]["v"]) == 200
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {device_token}"}) as session:
            posted = await session.post(f"{server.device_http}/device/v1/telemetry", json={"t": "warm"})
            assert (posted.status, "type_changed" in await posted.text()) == (422, True)
    finally:
        server.stop()

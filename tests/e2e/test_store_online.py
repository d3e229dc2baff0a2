"""`mooring store` through a running server: what is there, verified, compacted and backed up while it goes on."""

import json
from pathlib import Path

import aiohttp
import pytest

from gateway.store import Query
from gateway.stores import EmbeddedOptions, EmbeddedStore
from tests.e2e.running import PASSWORD, MooringProcess, operator
from tests.mooring.test_cli import mooring


@pytest.mark.slow
async def test_the_store_of_a_running_server_is_looked_after_from_the_command_line(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    try:
        async with operator(server) as api:
            device_token = await api.add_device("pump-7")
        async with aiohttp.ClientSession(server.web) as session:
            answer = await session.post("/api/v1/auth/login", json={"username": "admin", "password": PASSWORD})
            token = (await answer.json())["access_token"]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {device_token}"}) as session:
            posted = await session.post(f"{server.device_http}/device/v1/telemetry", json={"t": 21.5})
            assert posted.status == 202

        def store(*arguments: str) -> tuple[int, str, str]:
            found = mooring("store", *arguments, "--url", server.web, cwd=tmp_path, MOORING_TOKEN=token)
            return found.returncode, found.stdout, found.stderr

        code, out, err = store("stats", "-o", "json")
        assert (code, json.loads(out)[0]["kind"]) == (0, "embedded"), err
        assert store("compact")[0] == 0
        code, _, err = store("verify")
        assert (code, "All files are well." in err) == (0, True)
        code, _, err = store("backup")
        assert code == 0, err
        assert store("backup", "elsewhere")[0] == 2
        (copy,) = (tmp_path / "data" / "backups").iterdir()  # a test
        backup = EmbeddedStore(EmbeddedOptions(directory=copy))
        await backup.open()
        assert (await backup.query(Query(device_id="pump-7", start_ms=0, end_ms=1 << 45)))["t"].v == [21.5]
        await backup.close()
    finally:
        server.stop()

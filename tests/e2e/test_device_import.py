"""kill -9 of the server in the middle of an import, by the command line: it goes on, and doubles nothing."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.running import MooringProcess, operator

DEVICES = 1_200


def mooring(server: MooringProcess, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**server.environ, "MOORING_URL": server.web, "MOORING_TOKEN": token, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mooring", "device", *arguments]
    return subprocess.run(command, env=environ, cwd=server.data_dir.parent, capture_output=True, text=True, timeout=120)


async def test_an_import_that_is_killed_goes_on_and_creates_each_device_once(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    try:
        body = "id,tags\n" + "".join(f"d-{n:05},t\n" for n in range(DEVICES))
        async with operator(server) as admin:
            headers = {"Content-Type": "text/csv"}
            async with admin.session.post("/api/v1/devices:import", data=body, headers=headers) as answer:
                found = await answer.json()
                assert answer.status == 202, found
            async with asyncio.timeout(60):
                while not found["counts"]["created"]:
                    found = await admin.get(f"device-imports/{found['id']}")
            assert found["status"] == "running", "it was over before it could be killed"
        server.kill()
        server.start()
        async with operator(server) as admin:
            token = admin.session.headers["Authorization"].removeprefix("Bearer ")
            async with asyncio.timeout(120):
                while found["status"] == "running":
                    await asyncio.sleep(0.1)
                    found = await admin.get(f"device-imports/{found['id']}")
            assert (found["status"], found["counts"]["created"]) == ("finished", DEVICES)
            assert (await admin.get("devices", limit=1, tag="t"))["total"] == DEVICES
            audit = await admin.get("audit", action="device.create", limit=1)
            assert audit["total"] == DEVICES

        (tmp_path / "more.csv").write_text("id,name\nd-00001,x\nnew-1,=1\n")
        arguments = ("import", "more.csv", "--credentials-to", "tokens.csv", "-o", "csv")
        done = await asyncio.to_thread(mooring, server, token, *arguments)
        assert (done.returncode, "1 created, 1 refused" in done.stderr) == (1, True), done.stderr
        assert done.stdout.splitlines()[1] == "2,d-00001,refused,id,there is such a device already"
        header, row = (tmp_path / "tokens.csv").read_text().splitlines()
        assert (header, row.startswith("new-1,mrd_")) == ("id,token", True)
        assert os.stat(tmp_path / "tokens.csv").st_mode & 0o077 == 0
        exported = await asyncio.to_thread(mooring, server, token, "export", "all.csv")
        assert exported.returncode == 0, exported.stderr
        assert "new-1,'=1,,\n" in (tmp_path / "all.csv").read_text()
        tried = await asyncio.to_thread(
            mooring, server, token, "import", "all.csv", "--dry-run", "--on-conflict", "update"
        )
        assert (tried.returncode, f"{DEVICES + 1} unchanged" in tried.stderr) == (0, True), tried.stderr
    finally:
        server.stop()

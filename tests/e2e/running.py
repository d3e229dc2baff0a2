"""A Mooring server as its user runs it: a process of its own, real ports, a data directory that outlives a kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PASSWORD = "correct horse battery"


class MooringProcess:
    """`mooring serve` on free ports; `start` may be called again after `kill`, on the same ports and data."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(data_dir.parent),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # the tree under test, where it is not the installed one
            "MOORING_DATA_DIR": str(data_dir),
            "MOORING_BROKER__PORT": "0",
            "MOORING_BROKER__WS_PORT": "",
            "MOORING_DEVICE_HTTP__PORT": "0",
            "MOORING_WEB__PORT": "0",
            "MOORING_BROKER__MAX_PUBLISHES_PER_S": "0",  # tests send as fast as they can
            "MOORING_DEVICE_HTTP__MAX_MESSAGES_PER_S": "0",
            "MOORING_ADMIN__USERNAME": "admin",
            "MOORING_ADMIN__PASSWORD": PASSWORD,
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoints: dict[str, Any] = {}

    def start(self, timeout_s: float = 90.0) -> None:
        ready = self.data_dir / "endpoints.json"
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mooring", "serve"],
                env=self.environ,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
            )
        deadline = time.monotonic() + timeout_s
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"mooring serve did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        self.endpoints = json.loads(ready.read_text())
        # From now on the ports stay, so that clients find the server again after a restart.
        self.environ["MOORING_BROKER__PORT"] = str(self.endpoints.get("mqtt_port") or 0)
        self.environ["MOORING_DEVICE_HTTP__PORT"] = str(self.endpoints["device_http_port"])
        self.environ["MOORING_WEB__PORT"] = str(self.endpoints["web_port"])

    def kill(self) -> None:
        """kill -9: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(timeout=20)

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.endpoints['web_port']}"

    @property
    def device_http(self) -> str:
        return f"http://127.0.0.1:{self.endpoints['device_http_port']}"

    @property
    def mqtt_port(self) -> int:
        return int(self.endpoints["mqtt_port"])


class Operator:
    """The admin API with an administrator's token."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, path: str, **query: Any) -> Any:
        async with self.session.get(f"/api/v1/{path}", params={k: str(v) for k, v in query.items()}) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            return body

    async def post(self, path: str, body: Any = None) -> Any:
        async with self.session.post(f"/api/v1/{path}", json=body) as answer:
            text = await answer.text()
            assert answer.ok, text
            return json.loads(text) if text else None

    async def delete(self, path: str) -> None:
        async with self.session.delete(f"/api/v1/{path}") as answer:
            assert answer.ok, await answer.text()

    async def add_device(self, device_id: str) -> str:
        """Add a device and give its token."""
        return str((await self.post("devices", {"id": device_id}))["credentials"]["token"])

    async def upload(self, version: str, content: bytes, **fields: str) -> dict[str, Any]:
        form = aiohttp.FormData()
        for name, value in {"version": version, "name": f"firmware-{version}", **fields}.items():
            form.add_field(name, value)
        form.add_field("file", content, filename="firmware.bin", content_type="application/octet-stream")
        async with self.session.post("/api/v1/artifacts", data=form) as answer:
            body = await answer.json()
            assert answer.ok, body
            return dict(body)


@asynccontextmanager
async def operator(server: MooringProcess) -> AsyncIterator[Operator]:
    async with aiohttp.ClientSession(server.web) as session:
        login = {"username": "admin", "password": PASSWORD}
        async with session.post("/api/v1/auth/login", json=login) as answer:
            token = (await answer.json())["access_token"]
    async with aiohttp.ClientSession(server.web, headers={"Authorization": f"Bearer {token}"}) as session:
        yield Operator(session)


async def until(claim: Any, timeout_s: float = 15.0, every_s: float = 0.05) -> Any:
    """Wait until the async `claim` gives something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = await claim()
        if value:
            return value
        assert time.monotonic() < deadline, f"not so within {timeout_s} s"
        await asyncio.sleep(every_s)

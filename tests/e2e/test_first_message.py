"""The README's two lines, as printed: a reading by mosquitto_pub and by curl is in the API's answer at once."""

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.running import MooringProcess, operator
from tests.servers import find_binary, influxdb, victoria_metrics

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("store", ["embedded", "victoriametrics", "influxdb"])
async def test_reading_is_in_the_answer_at_once(tmp_path: Path, store: str) -> None:
    pub = find_binary("mosquitto_pub", package="mosquitto-clients")
    curl = find_binary("curl", package="curl")
    if store == "embedded":
        await _round(tmp_path, pub, curl, {})
    elif store == "victoriametrics":
        with victoria_metrics() as server:
            await _round(tmp_path, pub, curl, {"MOORING_STORE__KIND": store, "MOORING_STORE__URL": server.url})
    else:
        with influxdb() as server:
            api = {"MOORING_STORE__KIND": store, "MOORING_STORE__URL": server.url, "MOORING_STORE__API": "v1"}
            await _round(tmp_path, pub, curl, api)


async def _round(tmp_path: Path, pub: str, curl: str, environ: dict[str, str]) -> None:
    server = MooringProcess(tmp_path / "data", **environ)
    server.start()
    try:
        async with operator(server) as api:
            token = await api.add_device("pump-7")
            # fmt: off
            mqtt = [
                pub, "-h", "127.0.0.1", "-p", str(server.mqtt_port), "-u", "pump-7", "-P", token, "-i", "pump-7",
                "-t", "devices/pump-7/telemetry", "-q", "1", "-m", '{"temperature": 21.5}',
            ]
            http = [
                curl, "-fsS", "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
                "-d", '{"temperature": 22.5, "door": "open", "ok": true}', f"{server.device_http}/device/v1/telemetry",
            ]
            # fmt: on
            for command, metric, value in ((mqtt, "temperature", 21.5), (http, "temperature", 22.5)):
                await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=10)
                now = int(time.time() * 1000)
                answer = await api.get("devices/pump-7/telemetry", start=now - 60_000, end=now + 1000)
                assert answer["series"][metric]["v"][-1] == value
            assert answer["series"]["door"]["v"] == ["open"]
            assert answer["series"]["ok"]["v"] == [True]
            latest = await api.get("devices/pump-7/latest")
            assert latest["temperature"]["value"] == 22.5
    finally:
        assert server.stop() == 0

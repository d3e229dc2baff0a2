"""Profiles in a running server: bytes over MQTT and HTTP become scaled values, a refused message says why, and a
mended profile takes the next one."""

import struct
from pathlib import Path

import aiohttp
import aiomqtt
import pytest

from tests.e2e.running import MooringProcess, operator, until

pytestmark = pytest.mark.slow

LAYOUT = {"fields": [{"type": "i16", "byte_order": "little", "metric": "temperature", "scale": 0.01}]}
METRICS = {"temperature": {"type": "number", "unit": "Cel"}}


def telemetry(limit: float) -> dict[str, object]:
    schema = {"type": "object", "properties": {"temperature": {"maximum": limit}}}
    return {"telemetry": {"metrics": METRICS, "binary": LAYOUT, "schema": schema}}


async def test_what_a_payload_means_is_said_by_a_profile(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    try:
        async with operator(server) as api:
            await api.post("profiles", {"name": "pump", **telemetry(50)})
            made = await api.post("devices", {"id": "pump-7", "profile": "pump"})
            token = made["credentials"]["token"]

            async def latest() -> object:
                found = (await api.get("devices/pump-7/latest")).get("temperature")
                return found and (found["value"], found["unit"])

            async with aiomqtt.Client(
                "127.0.0.1", port=server.mqtt_port, username="pump-7", password=token, identifier="pump-7"
            ) as device:
                await device.publish("devices/pump-7/telemetry/binary", struct.pack("<h", 2153), qos=1)
                assert await latest() == (21.53, "Cel")
                await device.publish("devices/pump-7/telemetry", b'{"temperature": 51}', qos=1)

                async def refused() -> object:
                    return (await api.get("devices/pump-7/dead-letters"))["items"]

                (letter,) = await until(refused)
                assert letter["data"]["reason"] == "schema_violation"
                assert letter["data"]["detail"] == "/temperature: 51 is greater than the maximum of 50"
                async with api.session.put("/api/v1/profiles/pump", json=telemetry(60)) as answer:
                    assert answer.status == 200
                await device.publish("devices/pump-7/telemetry", b'{"temperature": 51}', qos=1)
                assert await latest() == (51, "Cel")
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
            url = f"{server.device_http}/device/v1/telemetry"
            async with aiohttp.ClientSession() as http:
                async with http.post(url, data=struct.pack("<h", -5), headers=headers) as answer:
                    assert answer.status == 202
                assert await latest() == (-0.05, "Cel")
                async with http.post(url, data=b"\0", headers=headers) as answer:
                    assert (answer.status, (await answer.json())["reason"]) == (422, "binary_mismatch")
    finally:
        assert server.stop() == 0

"""No room: on the journal's disk MQTT 5 is told so; on the store's own disk nobody is, since the journal takes it all.

The journal's disk over MQTT 3.1.1 and HTTP is in tests/e2e/test_robustness.py. Only root can mount a small disk.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broker.reason import ReasonCode
from tests.broker.clients import packet, publish, text
from tests.e2e.running import MooringProcess, Operator, operator, until
from tests.e2e.test_robustness import acknowledged, assert_nothing_lost, loading, running

pytestmark = [pytest.mark.slow]


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk: none was filled")
    directory.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=False).returncode:
        pytest.skip("no disk can be mounted here: none was filled")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def reason_code(server: MooringProcess, device_id: str, token: str) -> int:
    """What MQTT 5 is told of one message at QoS 1."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.mqtt_port)
    head = text("MQTT") + b"\x05\xc2\x00\x3c\x00"
    writer.write(packet(0x10, head + text(f"{device_id}:probe") + text(device_id) + text(token)))
    async with asyncio.timeout(10):
        length = (await reader.readexactly(2))[1]
        assert (await reader.readexactly(length))[1] == 0
        writer.write(publish(f"devices/{device_id}/telemetry", b'\x00{"probe":1}', qos=1, packet_id=7))
        kind, length = await reader.readexactly(2)
        puback = await reader.readexactly(length)
    assert (kind, puback[:2]) == (0x40, b"\x00\x07")
    writer.close()
    return puback[2] if length > 2 else 0


async def part(api: Operator, name: str) -> str:
    async with api.session.get("/readyz") as answer:
        return str({one["name"]: one["state"] for one in (await answer.json())["parts"]}[name])


async def test_mqtt_5_is_told_that_the_journal_s_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk, running(disk / "data") as server:
        async with operator(server) as api:
            token = await api.add_device("pump")
        assert await reason_code(server, "pump", token) == 0
        fill(disk / "filler")

        async def told() -> bool:
            return await reason_code(server, "pump", token) == ReasonCode.QUOTA_EXCEEDED

        await until(told, timeout_s=20)
        (disk / "filler").unlink()

        async def taken() -> bool:
            return await reason_code(server, "pump", token) == 0

        await until(taken, timeout_s=20)


async def test_a_full_disk_of_the_store_holds_nobody_back_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data" / "readings", "4m") as disk, running(tmp_path / "data") as server:
        async with operator(server) as api:
            token = await api.add_device("load")
            with loading(server, "load", token) as loader:
                await acknowledged(loader, 200)
                fill(disk / "filler")

                async def waits() -> bool:
                    return await part(api, "store") != "ok"

                await until(waits, timeout_s=30)
                await acknowledged(loader, 1000)  # the journal takes it all
                newest = max(loader.acknowledged)

                async def seen() -> bool:
                    latest = await api.get("devices/load/latest")
                    return bool(latest["n"]["value"] >= newest)

                await until(seen)  # and answers for what the store has no room for
                server.kill()
                server.start()
                async with operator(server) as again:
                    await acknowledged(loader, 200)
                    (disk / "filler").unlink()

                    async def drained() -> bool:
                        return await part(again, "store") == "ok"

                    await until(drained, timeout_s=90)
                    await asyncio.to_thread(loader.stop)
                    await assert_nothing_lost(again, loader)
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()

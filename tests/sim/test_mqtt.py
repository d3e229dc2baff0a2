"""Devices over MQTT, against a real Mosquitto with a scripted fleet behind it."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from firmware_sim import SimOptions
from firmware_sim.luck import Fault
from firmware_sim.tally import State
from tests.servers import Server, mosquitto
from tests.sim.benches import offer
from tests.sim.fakes import FakeFleet, FakeServer, Watch, fake_fleet, fake_server, running

pytestmark = pytest.mark.servers


class Site:
    """An admin API, a broker, and a fleet."""

    def __init__(self, server: FakeServer, broker: Server, fleet: FakeFleet) -> None:
        self.server = server
        self.broker = broker
        self.fleet = fleet

    def options(self, **more: Any) -> SimOptions:
        values: dict[str, Any] = {
            "devices": 1,
            "url": self.server.url,
            "device_http_url": self.server.url,
            "mqtt_url": f"mqtt://127.0.0.1:{self.broker.port}",
            "transport": "mqtt",
            "token": "admin-token",
            "interval_s": 0.1,
            "pace": 20.0,
            "download_bytes_per_s": 0,
        }
        return SimOptions(**(values | more))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with mosquitto() as broker:
        async with fake_server() as server, fake_fleet(server, broker.port) as fleet:
            yield Site(server, broker, fleet)


@pytest.mark.parametrize("version", [4, 5])
async def test_telemetry_twin_and_events_arrive(site: Site, version: int) -> None:
    site.server.desired = {"led": "on"}
    async with running(site.options(devices=3, mqtt_version=version)) as report:
        await site.server.until(lambda: len(site.server.on("telemetry")) >= 30)
        await site.server.until(lambda: {"led": "on"} in site.server.on("twin/reported"))
    result = await report
    assert result.connected == 3
    assert result.ok
    assert result.acked >= 30
    assert result.errors == {}
    first = site.server.on("telemetry", "sim-0001")[0]
    assert first["ts"] > 1_600_000_000_000
    assert site.server.on("events", "sim-0002")[0]["message"] == "started with firmware 1.0.0"


async def test_commands_are_obeyed_in_order(site: Site) -> None:
    async with running(site.options()):
        await site.server.until(lambda: bool(site.server.on("telemetry")))
        await site.fleet.tell("sim-0001", "commands/C1", {"name": "self_test"})
        await site.server.until(lambda: "succeeded" in site.server.statuses("commands/C1/status"))
        await site.fleet.tell("sim-0001", "commands/C2", {"name": "dance"})
        await site.server.until(lambda: bool(site.server.on("commands/C2/status")))
    progress = [fields.get("progress") for fields in site.server.on("commands/C1/status")]
    assert progress == [None, 0, 20, 40, 60, 80, 100]
    assert site.server.statuses("commands/C2/status") == ["rejected"]


@pytest.mark.parametrize("chunk_share", [0.0, 1.0], ids=["http", "chunks"])
@pytest.mark.parametrize("fault", [None, Fault.POWER_CUT_DOWNLOADING])
async def test_update(site: Site, chunk_share: float, fault: Fault | None) -> None:
    trouble = {"fault_rate": 1.0, "faults": (fault,)} if fault else {}
    async with running(site.options(chunk_share=chunk_share, chunk_bytes=10_000, **trouble)) as report:
        await site.server.until(lambda: bool(site.server.on("telemetry")))
        await site.fleet.tell("sim-0001", "ota/offer", offer())
        await site.server.until(lambda: "succeeded" in site.server.statuses())
        await site.server.until(lambda: site.server.on("twin/reported")[-1].get("firmware") == {"version": "1.1.0"})
    assert (await report).firmware == {"1.1.0": 1}
    assert bool(site.server.ranges) is (chunk_share == 0.0)


async def test_chunks_fail_on_a_wrong_digest(site: Site) -> None:
    async with running(site.options(chunk_share=1.0)) as report:
        await site.server.until(lambda: bool(site.server.on("telemetry")))
        await site.fleet.tell("sim-0001", "ota/offer", offer(digest="0" * 64))
        await site.server.until(lambda: "failed" in site.server.statuses())
    assert (await report).firmware == {"1.0.0": 1}


async def test_a_broker_that_went_away_is_found_again_and_no_sample_is_missing(site: Site) -> None:
    async with running(site.options(interval_s=0.05)) as report:
        await site.server.until(lambda: len(site.server.on("telemetry")) >= 5)
        await asyncio.to_thread(site.broker.kill)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(site.broker.start)
        async with fake_fleet(site.server, site.broker.port):
            before = len(site.server.on("telemetry"))
            await site.server.until(lambda: len(site.server.on("telemetry")) >= before + 10)
    assert (await report).losses == 1
    assert (await report).connects == 2
    # The array with what was measured meanwhile goes out first after the reconnect.
    batches = [batch for batch in site.server.on("telemetry") if isinstance(batch, list)]
    assert batches or len(site.server.on("telemetry")) > 10


async def test_dropped_links_come_back(site: Site) -> None:
    watch = Watch()
    async with running(site.options(drops_per_hour=3_600.0 * 4), watch) as report:
        await watch.until(lambda picture: picture.losses >= 2 and picture.states == {State.ONLINE: 1})
    assert (await report).connects >= 3
    assert "sim-0001 closed its connection" in site.broker.log()


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(path), "fleet", "fleet"], check=True, capture_output=True)
    return path


async def test_a_wrong_token_is_a_refused_device(passwords: Path) -> None:
    async with fake_server() as server:
        with mosquitto(f"password_file {passwords}", anonymous=False) as broker:
            url = f"mqtt://127.0.0.1:{broker.port}"
            chosen = SimOptions(devices=1, url=server.url, mqtt_url=url, transport="mqtt", token="admin-token")
            watch = Watch()
            async with running(chosen, watch) as report:
                await watch.until(lambda picture: picture.states == {State.REFUSED: 1})
    assert (await report).errors == {"refused: Not authorized": 1}
    assert (await report).connected == 0


async def test_nothing_is_left_open_after_a_run(site: Site) -> None:
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(2):
        watch = Watch()
        async with running(site.options(devices=20, starts_per_s=1_000.0), watch) as report:
            await watch.until(lambda picture: picture.states == {State.ONLINE: 20})
        assert (await report).connected == 20
    await asyncio.sleep(0.1)
    assert process.num_fds() - before < 5
    assert {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("sim-")} == set()


async def test_a_run_that_is_stopped_while_connecting_leaves_nothing_behind(site: Site) -> None:
    before = psutil.Process().num_fds()
    watch = Watch()
    async with running(site.options(devices=50, starts_per_s=10_000.0), watch):
        await watch.until(lambda picture: State.CONNECTING in picture.states)
    await asyncio.sleep(0.2)
    assert psutil.Process().num_fds() - before < 5
    assert len([task for task in asyncio.all_tasks() if "_misc_loop" in repr(task)]) == 1  # the fleet's own

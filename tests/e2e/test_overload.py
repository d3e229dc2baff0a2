"""More than the server can take, for as long as the budget says: it holds senders back, stays small, loses nothing.

`CHAOS_SECONDS` makes each of these runs longer (`make chaos`); what is asserted stays the same.
"""

import asyncio
import os
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import ingest
from benchmarks.contenders import Running
from benchmarks.identities import Device
from broker.process import raise_open_files_limit
from tests.e2e.running import MooringProcess, operator, until
from tests.servers import influxdb

SECONDS = float(os.environ.get("CHAOS_SECONDS", "8"))
MIB = 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + 20 * SECONDS)]


async def fleet(server: MooringProcess, count: int) -> Running:
    async with operator(server) as api:
        devices = [Device(f"d{n:05}", await api.add_device(f"d{n:05}")) for n in range(count)]
    assert server.process is not None
    return Running(name="Mooring", port=server.mqtt_port, pid=server.process.pid, devices=devices)


class Health:
    """Asks /healthz all the time, as an orchestrator would, and notes how long each answer took."""

    def __init__(self, server: MooringProcess) -> None:
        self.took_s: list[float] = []
        self._url = f"{server.web}/healthz"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._stop.wait(0.1):
            began = time.monotonic()
            with urllib.request.urlopen(self._url, timeout=30) as answer:
                assert answer.status == 200
            self.took_s.append(time.monotonic() - began)

    def __enter__(self) -> "Health":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(40)


@contextmanager
def running(data_dir: Path, **environ: str) -> Iterator[MooringProcess]:
    raise_open_files_limit(0)
    server = MooringProcess(data_dir, **environ)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def metrics(server: MooringProcess) -> dict[str, float]:
    async with operator(server) as api, api.session.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def drained(server: MooringProcess) -> dict[str, float]:
    """Wait until the store has all that was acknowledged; the metrics then."""

    async def done() -> dict[str, float] | None:
        found = await metrics(server)
        return found if found["mooring_drain_lag_seconds"] == 0 and not found["mooring_journal_batches"] else None

    return await until(done, timeout_s=60 + 4 * SECONDS, every_s=0.2)


def flat(resident: list[int]) -> None:
    """Memory is bounded, and does not climb once it is busy."""
    assert max(resident) < 300 * MIB
    assert statistics.median(resident[-3:]) - statistics.median(resident[len(resident) // 2 :][:3]) < 64 * MIB


async def test_ten_times_the_load_is_held_back_and_nothing_is_lost(tmp_path: Path) -> None:
    """300 devices with 200 messages under way each are 60,000 more than any of them is acknowledged at once."""
    with running(tmp_path / "data") as server:
        broker = await fleet(server, 300)
        watch = ingest.Watch(broker.pid)
        with Health(server) as health:
            shape = ingest.Shape(publishers=300, window=200)
            found = await asyncio.to_thread(ingest.over_mqtt, broker, SECONDS, shape, watch=watch)
        assert found["lost"] == 0
        flat(watch.resident)
        assert statistics.median(health.took_s) < 1
        assert max(health.took_s) < 5
        assert (await drained(server))["mooring_drain_written_total"] == 3 * found["messages"]
        # it is over at once: the next message is taken as if nothing had been
        calm = await asyncio.to_thread(ingest.over_mqtt, broker, 0.2, ingest.Shape(publishers=1, window=1))
        assert calm["lost"] == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.servers
async def test_a_store_that_is_gone_while_data_comes_at_full_rate_gets_it_all_later(tmp_path: Path) -> None:
    shape = ingest.Shape(publishers=20, window=4)
    with (
        influxdb() as store,
        running(
            tmp_path / "data",
            MOORING_STORE__KIND="influxdb",
            MOORING_STORE__URL=store.url,
            MOORING_STORE__API="v1",
        ) as server,
    ):
        broker = await fleet(server, 20)
        sent: dict[str, int] = {}
        with_store = await asyncio.to_thread(ingest.over_mqtt, broker, SECONDS / 4, shape, days_ago=60, sent_by=sent)
        await drained(server)
        store.kill()
        watch = ingest.Watch(broker.pid)
        without = await asyncio.to_thread(
            ingest.over_mqtt, broker, SECONDS, shape, watch=watch, days_ago=40, sent_by=sent
        )
        flat(watch.resident)
        assert (with_store["lost"], without["lost"]) == (0, 0)
        behind = await metrics(server)
        assert behind["mooring_store_up"] == 0
        assert behind["mooring_journal_bytes"] > 0
        store.start()
        # while it catches up, what is live is taken on and waits for nobody
        slow = ingest.Shape(publishers=20, window=1)
        live = await asyncio.to_thread(ingest.over_mqtt, broker, 1.0, slow, days_ago=20, sent_by=sent)
        assert live["lost"] == 0
        assert live["rate"] > 100
        await drained(server)
        async with operator(server) as api:
            for device in broker.devices[::5]:
                path = f"devices/{device.id}/telemetry"
                answer = await api.get(path, metrics="temperature", start=0, agg="count", buckets=1)
                assert sum(answer["series"]["temperature"]["v"]) == sent[device.id]
        assert "Traceback" not in server.log.read_text()

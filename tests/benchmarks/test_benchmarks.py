"""The benchmarks run, and what they count is right: tiny numbers, no timing asserted."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks import connecting, ingest, latency, plots, report, scaling, store_size, stores, throughput
from benchmarks.contenders import Contenders, Running
from benchmarks.identities import Device
from benchmarks.report import Workload

pytestmark = pytest.mark.servers

WORKLOADS: dict[str, Workload] = {
    "fan-in": partial(throughput.fan_in, seconds=0.1, publishers=5),
    "fan-in-mixed": partial(throughput.fan_in_mixed, seconds=0.1, publishers=5),
    "fan-in-qos1": partial(throughput.fan_in_qos1, seconds=0.1, publishers=5),
    "sparse": partial(throughput.sparse, seconds=0.1, publishers=20),
    "fan-out": partial(throughput.fan_out, seconds=0.1, readers=5),
    "connections": partial(connecting.connections, number=100),
    "memory": partial(connecting.memory, number=100),
    "latency": partial(latency.latency, seconds=0.1, publishers=10, rate=100),
}
GROWTH: dict[str, Workload] = {
    "subscriptions": lambda broker: scaling.with_subscriptions(broker, 150, partial(throughput.sparse, publishers=20)),
    "payload": partial(scaling.fan_in_payload, payload=65536),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "WARM_UP_S", 0.02)
    monkeypatch.setattr(latency, "WARM_UP_S", 0.1)
    monkeypatch.setattr(connecting, "SETTLE_S", 0.01)
    monkeypatch.setattr(scaling, "SECONDS", 0.1)
    monkeypatch.setattr(ingest, "WARM_UP_S", 0.1)


@pytest.fixture(scope="module")
def broker() -> Iterator[Running]:
    devices = [Device(f"d{number:05}", "anything") for number in range(100)]
    with Contenders.mosquitto(devices) as running:
        yield running


def test_every_workload_is_tried_here() -> None:
    assert set(WORKLOADS) == set(report.WORKLOADS) == {figure.workload for figure in report.FIGURES}


@pytest.mark.parametrize("name", [*WORKLOADS, *GROWTH])
def test_workload_runs_and_loses_nothing(name: str, broker: Running) -> None:
    figures = (WORKLOADS | GROWTH)[name](broker)
    assert figures.get("lost", 0) == 0
    assert figures.keys() >= {figure.key for figure in report.FIGURES if figure.workload == name}
    assert all(value > 0 for key, value in figures.items() if key not in ("lost", "bytes"))


def test_native_knows_the_devices_and_a_guarded_broker_refuses_others(tmp_path: Path) -> None:
    contenders = Contenders(tmp_path, 5)
    with contenders.start("native") as native:
        assert throughput.fan_in(native, 0.1, publishers=5)["lost"] == 0
        stranger = Running(name="native", port=native.port, pid=native.pid, devices=[Device("d00001", "wrong")])
        with pytest.raises(ConnectionError, match="CONNACK 20020004"):
            connecting.connections(stranger)


@pytest.mark.parametrize("name", ["Mooring", "Mosquitto", "HTTP"])
def test_ingestion_runs_and_all_that_is_acknowledged_is_stored(name: str, tmp_path: Path) -> None:
    figures = ingest.one(Contenders(tmp_path, 60), name, 0.3, ingest.Shape(publishers=20))
    assert figures["rate"] > 0
    assert figures.get("lost", 0) == 0
    assert figures.get("stored", 0) == figures.get("messages", 0) * 3 * (name == "Mooring")


async def test_the_store_is_measured_while_it_is_written_and_as_it_grows() -> None:
    figures = await stores.sustained(0.5, devices=8, rows=50)
    assert figures["rate"] > 0
    assert 0 < figures["bytes"] < 100
    assert figures["hour_ms"] > 0
    found = await store_size.grow({30_000: "30k", 90_000: "90k"})
    assert list(found) == [30_000, 90_000]
    assert all(value > 0 for each in found.values() for value in each.values())


def test_table_says_what_was_reached() -> None:
    rounds = {"native": [{"rate": 500.0, "lost": 0.01}], "Mosquitto": [{"rate": 100.0}]}
    table = report.table({"fan-in": rounds, "fan-out": rounds})
    assert "| fan-in, QoS 0 (messages/s) | 500 (1.0% lost) | 100 | 5.00 | ≥ 4 | reached |" in table
    assert "| fan-out to 50 (deliveries/s) | 500 (1.0% lost) | 100 | 5.00 | ≥ 10 | **missed** |" in table


def test_chart_is_well_formed() -> None:
    from xml.etree import ElementTree

    lines = [plots.Line(name=name, points=[(10, 5.0), (1000, 7.5)]) for name in ("native", "a & b")]
    panels = [
        plots.Panel(title="messages/s", x_words="clients", x_ticks={10: "10", 1000: "1,000"}, lines=lines, log_y=log)
        for log in (False, True)
    ]
    assert ElementTree.fromstring(plots.draw(panels)).tag.endswith("svg")

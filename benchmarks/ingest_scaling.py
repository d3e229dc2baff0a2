"""How ingestion grows with devices, with what is under way of each, and with values a message; beside Mosquitto."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import ingest, report
from benchmarks.contenders import Contenders
from benchmarks.ingest import Shape
from benchmarks.plots import draw
from benchmarks.scaling import PICTURES, Points, panel, table

NAMES = ("Mooring", "Mosquitto")
SECONDS = 3.0
UNDER_WAY = 5_000  # messages of all devices together

DEVICES = {10: "10", 100: "100", 1_000: "1,000", 10_000: "10,000", 20_000: "20,000"}
WINDOWS = {1: "1", 10: "10", 50: "50", 200: "200"}
METRICS = {1: "1", 3: "3", 10: "10", 50: "50"}


def run(rounds: int, *, docs: bool) -> None:
    """Print what was found; with `docs` draw it and write it into the page as well."""
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        contenders = Contenders(Path(directory), max(DEVICES))

        def points(title: str, ticks: Mapping[int, str], shape: Callable[[int], Shape]) -> Points:
            found = {}
            for x, words in ticks.items():
                print(f"\n{title}, {words}:")
                found[x] = {
                    name: [dict(ingest.one(contenders, name, SECONDS, shape(x))) for _ in range(rounds)]
                    for name in NAMES
                }
                for name, each in found[x].items():
                    print(f"  {name:10} {report.median(each, 'rate'):12,.0f} messages/s")
            return found

        windows = points("under way of each device", WINDOWS, lambda x: Shape(window=x))
        devices = points("devices", DEVICES, lambda x: Shape(publishers=x, window=max(1, UNDER_WAY // x)))
        metrics = points("values a message", METRICS, lambda x: Shape(metrics=x))
    charts = {
        "ingest-batches": [panel("messages/s", windows, "messages under way of each device", WINDOWS, names=NAMES)],
        "ingest-devices": [panel("messages/s", devices, "devices", DEVICES, names=NAMES)],
        "ingest-values": [
            panel("messages/s", metrics, "values a message", METRICS, names=NAMES),
            panel("values/s", metrics, "values a message", METRICS, key="values", names=NAMES),
        ],
    }
    tables = "\n\n".join(table(panels) for panels in charts.values())
    print(f"\n{tables}")
    if docs:
        for name, panels in charts.items():
            (PICTURES / f"benchmark-{name}.svg").write_text(draw(panels), encoding="utf-8")
        report.fill("ingest-scaling", f"Medians of {rounds} rounds of {SECONDS:g} s.\n\n{tables}")

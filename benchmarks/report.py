"""What is measured and what native must reach, the table of it, and its place in docs/benchmarks.md."""

import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import connecting, latency, throughput
from benchmarks.contenders import Contenders, Running, versions

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
YARDSTICK = "Mosquitto"

Workload = Callable[[Running], dict[str, float]]
Rounds = Mapping[str, list[dict[str, float]]]
"""Contender -> what each round measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: a figure of a workload."""

    workload: str
    key: str
    words: str
    unit: str
    digits: int = 0
    at_least: float | None = None
    """Of Mosquitto's."""
    at_most: float | None = None
    """Of Mosquitto's."""
    ceiling: float | None = None
    """In its own unit."""

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≤ {self.ceiling:,.0f} {self.unit}" if self.ceiling is not None else ""

    def reached(self, native: float, yardstick: float) -> bool | None:
        """None where there is no target."""
        if self.at_least is not None:
            return native >= self.at_least * yardstick
        if self.at_most is not None:
            return native <= self.at_most * yardstick
        return native <= self.ceiling if self.ceiling is not None else None


WORKLOADS: dict[str, Workload] = {
    "fan-in": throughput.fan_in,
    "fan-in-mixed": throughput.fan_in_mixed,
    "fan-in-qos1": throughput.fan_in_qos1,
    "sparse": throughput.sparse,
    "fan-out": throughput.fan_out,
    "connections": connecting.connections,
    "memory": connecting.memory,
    "latency": latency.latency,
}

FIGURES = (
    Figure(workload="fan-in", key="rate", words="fan-in, QoS 0", unit="messages/s", at_least=4),
    Figure(workload="fan-in-mixed", key="rate", words="the same, 100 to 232 bytes mixed", unit="messages/s"),
    Figure(workload="fan-in-qos1", key="rate", words="fan-in, QoS 1 both ways", unit="messages/s", at_least=4),
    Figure(workload="sparse", key="rate", words="sparse, a message a read", unit="messages/s", at_least=1.3),
    Figure(workload="fan-out", key="rate", words="fan-out to 50", unit="deliveries/s", at_least=10),
    Figure(workload="connections", key="rate", words="connections accepted", unit="/s", at_least=1.5),
    Figure(workload="memory", key="bytes", words="memory of an idle connection", unit="bytes", ceiling=10 * 1024),
    Figure(workload="latency", key="p50", words="latency, p50", unit="ms", digits=3),
    Figure(workload="latency", key="p99", words="latency, p99", unit="ms", digits=3, at_most=1),
)


def measure(
    contenders: Contenders, names: Sequence[str], workload: Workload, rounds: int, say: Callable[[str], None] = print
) -> Rounds:
    """Contenders alternate, each round with brokers just started."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            with contenders.start(name) as broker:
                figures[name].append(workload(broker))
            last = figures[name][-1]
            say(f"  {number + 1}/{rounds} {name:10}" + "".join(f" {key} {value:,.6g}" for key, value in last.items()))
    return figures


def median(rounds: Sequence[Mapping[str, float]], key: str) -> float:
    return statistics.median(each[key] for each in rounds)


def table(results: Mapping[str, Rounds]) -> str:
    """In Markdown, a line a figure; what was lost is said beside the figure."""
    names = list(next(iter(results.values())))
    lines = [
        f"| work | {' | '.join(names)} | native ÷ {YARDSTICK} | must be | |",
        f"| --- |{' ---: |' * (len(names) + 2)} --- |",
    ]
    for figure in FIGURES:
        if figure.workload not in results:
            continue
        rounds = results[figure.workload]
        medians = {name: median(rounds[name], figure.key) for name in names}
        cells = [f"{medians[name]:,.{figure.digits}f}{_lost(rounds[name])}" for name in names]
        native, yardstick = medians.get("native"), medians.get(YARDSTICK)
        ratio = verdict = ""
        if native is not None and yardstick:
            ratio = f"{native / yardstick:.2f}"
            verdict = {True: "reached", False: "**missed**", None: ""}[figure.reached(native, yardstick)]
        lines.append(
            f"| {figure.words} ({figure.unit}) | {' | '.join(cells)} | {ratio} | {figure.target} | {verdict} |"
        )
    return "\n".join(lines)


def _lost(rounds: Sequence[Mapping[str, float]]) -> str:
    share = statistics.median(each.get("lost", 0.0) for each in rounds)
    return f" ({share:.1%} lost)" if share >= 0.0005 else ""


def machine() -> str:
    """Where and with what it was measured, in Markdown."""
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    lines = [f"* {_processor()}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"]
    lines += [f"* {name}: {version}" for name, version in versions().items()]
    return "\n".join(lines)


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def fill(name: str, text: str) -> None:
    """Put `text` between the page's markers <!-- name --> and <!-- /name -->."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    old = PAGE.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise SystemExit(f"{PAGE} has no place marked {name}")
    PAGE.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", old), encoding="utf-8")

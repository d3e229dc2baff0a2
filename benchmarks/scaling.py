"""How native and Mosquitto grow with clients, subscriptions and payload: charts and a table for docs/benchmarks.md."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report, wire
from benchmarks.contenders import Contenders, Running
from benchmarks.identities import SERVICE
from benchmarks.load import opened, subscribe
from benchmarks.plots import Line, Panel, draw
from benchmarks.report import Rounds
from benchmarks.throughput import fan_in, sparse

NAMES = ("native", "Mosquitto")
PICTURES = report.PAGE.parent / "pictures"
SECONDS = 1.5

CLIENTS = {100: "100", 1_000: "1,000", 10_000: "10,000"}
SUBSCRIPTIONS = {10: "10", 100: "100", 1_000: "1,000", 10_000: "10,000"}
PAYLOADS = {16: "16 B", 128: "128 B", 1024: "1 KB", 8192: "8 KB", 65536: "64 KB"}
FILTERS_EACH = 100  # native's default bound for a session

Points = dict[int, Rounds]
"""x -> what was measured there."""


def run(rounds: int, *, docs: bool) -> None:
    """Print what was found; with `docs` draw it and write it into the page as well."""
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        contenders = Contenders(Path(directory), max(CLIENTS))

        def points(title: str, ticks: Mapping[int, str], work: Callable[[Running, int], dict[str, float]]) -> Points:
            found = {}
            for x, words in ticks.items():
                print(f"\n{title}, {words}:")
                found[x] = report.measure(contenders, NAMES, lambda broker, x=x: work(broker, x), rounds)  # type: ignore[misc]
            return found

        clients = [
            points("fan-in, clients", CLIENTS, lambda broker, x: fan_in(broker, SECONDS, publishers=x)),
            points("sparse, clients", CLIENTS, lambda broker, x: sparse(broker, SECONDS, publishers=x)),
        ]
        subscriptions = [
            points("fan-in, subscriptions", SUBSCRIPTIONS, lambda broker, x: with_subscriptions(broker, x, fan_in)),
            points("sparse, subscriptions", SUBSCRIPTIONS, lambda broker, x: with_subscriptions(broker, x, sparse)),
        ]
        payloads = points("fan-in, payload", PAYLOADS, fan_in_payload)
    charts = {
        "clients": _fan_in_and_sparse(clients, "clients", CLIENTS),
        "subscriptions": _fan_in_and_sparse(subscriptions, "subscriptions that do not match", SUBSCRIPTIONS),
        "payload": [
            panel("fan-in, messages/s", payloads, "payload", PAYLOADS, log_y=True),
            panel("fan-in, MB/s of payload", payloads, "payload", PAYLOADS, log_y=True, key="mb"),
        ],
    }
    tables = "\n\n".join(table(panels) for panels in charts.values())
    print(f"\n{tables}")
    if docs:
        for name, panels in charts.items():
            (PICTURES / f"benchmark-{name}.svg").write_text(draw(panels), encoding="utf-8")
        report.fill("scaling", f"Medians of {rounds} rounds.\n\n{tables}")


def with_subscriptions(
    broker: Running, number: int, work: Callable[[Running, float], dict[str, float]]
) -> dict[str, float]:
    """The work beside others' subscriptions, each to a topic of its own, every other one with a wildcard."""
    filters = [f"devices/other-{n}/{'+/status' if n % 2 else 'commands/status'}" for n in range(number)]
    shares = [filters[at : at + FILTERS_EACH] for at in range(0, number, FILTERS_EACH)]
    connects = [wire.connect(f"other-{n}", f"{SERVICE}-{n}", SERVICE) for n in range(len(shares))]
    with ExitStack() as stack:
        for sock, share in zip(stack.enter_context(opened(broker, connects)), shares, strict=True):
            for topic_filter in share:
                subscribe(sock, topic_filter)
        return work(broker, SECONDS)


def fan_in_payload(broker: Running, payload: int) -> dict[str, float]:
    size = len(wire.publish(broker.devices[0].topic, b"x" * payload))
    figures = fan_in(broker, SECONDS, size=size)
    return {**figures, "mb": figures["rate"] * payload / 1e6}


def _fan_in_and_sparse(points: Sequence[Points], x_words: str, ticks: Mapping[int, str]) -> list[Panel]:
    return [
        panel("fan-in, messages/s", points[0], x_words, ticks, log_y=True),
        panel("sparse, messages/s", points[1], x_words, ticks),
    ]


def panel(
    title: str,
    points: Points,
    x_words: str,
    ticks: Mapping[int, str],
    *,
    log_y: bool = False,
    key: str = "rate",
    names: Sequence[str] = NAMES,
) -> Panel:
    """One chart: a line a contender, over the points measured."""
    return Panel(
        title=title,
        x_words=x_words,
        x_ticks={float(x): words for x, words in ticks.items()},
        lines=[
            Line(name=name, points=[(x, report.median(rounds[name], key)) for x, rounds in points.items()])
            for name in names
        ],
        log_y=log_y,
    )


def table(panels: Sequence[Panel]) -> str:
    """In Markdown: a line a panel and broker, a column an x."""
    ticks = panels[0].x_ticks
    lines = [f"| {panels[0].x_words} | | {' | '.join(ticks.values())} |", f"| --- | --- |{' ---: |' * len(ticks)}"]
    for panel in panels:
        for line in panel.lines:
            cells = " | ".join(f"{y:,.0f}" if y >= 100 else f"{y:,.1f}" for _, y in line.points)
            lines.append(f"| {panel.title} | {line.name} | {cells} |")
    return "\n".join(lines)

"""Run the benchmarks named on the command line, or all but those of growth, and print what they found."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import fleet, ingest, ingest_scaling, report, scaling, store_size, stores
from benchmarks.contenders import Contenders

GROWTH = {
    "scaling": scaling.run,
    "ingest-scaling": ingest_scaling.run,
    "store-size": store_size.run,
    "fleet": fleet.run,
}
DEVICES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = [*report.WORKLOADS, "ingest", "stores"]
    words = f"which: {', '.join([*usual, *GROWTH])}, or broker for {', '.join(report.WORKLOADS)}"
    parser.add_argument("names", nargs="*", help=words)
    parser.add_argument("--rounds", type=int, default=5, help="rounds per contender, alternating; medians are printed")
    parser.add_argument("--brokers", default=",".join(Contenders.NAMES), help="default %(default)s")
    parser.add_argument("--docs", action="store_true", help="also write the results into docs/benchmarks.md")
    arguments = parser.parse_args()
    wanted = [name for each in arguments.names for name in (report.WORKLOADS if each == "broker" else (each,))] or usual
    brokers = arguments.brokers.split(",")
    if unknown := {*wanted} - {*usual} - {*GROWTH} | {*brokers} - {*Contenders.NAMES}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if arguments.docs and {*wanted} & {*report.WORKLOADS} not in (set(), {*report.WORKLOADS}):
        parser.error("the table in docs/benchmarks.md takes all of broker")
    print(f"{report.machine()}\n* medians of {arguments.rounds} rounds")
    if workloads := [name for name in report.WORKLOADS if name in wanted]:
        _brokers(workloads, brokers, arguments.rounds, docs=arguments.docs)
    if "ingest" in wanted:
        print("\ningest:")
        ingest.run(arguments.rounds, docs=arguments.docs)
    if "stores" in wanted:
        print("\nstores:")
        stores.run(arguments.rounds, docs=arguments.docs)
    for name, run in GROWTH.items():
        if name in wanted:
            run(arguments.rounds, docs=arguments.docs)


def _brokers(workloads: Sequence[str], brokers: Sequence[str], rounds: int, *, docs: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        contenders = Contenders(Path(directory), DEVICES)
        results = {}
        for name in workloads:
            print(f"\n{name}:")
            results[name] = report.measure(contenders, brokers, report.WORKLOADS[name], rounds)
    table = report.table(results)
    print(f"\n{table}")
    if docs:
        report.fill(
            "results", f"{report.machine()}\n* `python -m benchmarks broker`, medians of {rounds} rounds\n\n{table}"
        )


main()

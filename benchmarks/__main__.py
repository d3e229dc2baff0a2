"""Run the benchmarks named on the command line, or all of them, and print one table each."""

import argparse
import os
import platform

from benchmarks import ingest, routing, stores

ALL = {"routing": routing.run, "ingest": ingest.run, "stores": stores.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(ALL)}; default all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per contender, alternating; medians are printed")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(ALL)
    if unknown:
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    print(f"{machine}; medians of {arguments.rounds} rounds")
    for name in arguments.names or ALL:
        print()
        ALL[name](arguments.rounds)


main()

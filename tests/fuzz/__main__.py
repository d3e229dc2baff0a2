"""`make fuzz`: the codec alone, then two million damaged packets through one broker over real sockets.

    python -m tests.fuzz --packets 5000000 --seeds 7 8 9     more, and other ones
    python -m tests.fuzz --seconds 600                       for so long, however many that is
    python -m tests.fuzz --session 7:1234                    one session alone, again

Fails when an exception escapes anywhere in the broker, when memory, descriptors or tasks have not come back to what
they were after the warm-up, or when another client has missed a message meanwhile.
"""

import argparse
import asyncio
import math
import sys
import time
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz import attack, codec
from tests.fuzz.attack import Report

MIB = 1024 * 1024
console = Console()


def main() -> int:
    arguments = _arguments()
    target = (f"--loop={arguments.loop}", *([] if arguments.no_persistence else ["--persistence"]))
    if arguments.session is not None:
        seed, number = map(int, arguments.session.split(":"))
        session, faults = asyncio.run(attack.run_one(seed=seed, number=number, target=target))
        console.print(session)
        return _verdict(faults)
    faults = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        if arguments.examples:
            bar = bars.add_task("codec", total=arguments.examples)
            advance = partial(bars.advance, bar)
            faults += codec.run(examples=arguments.examples, seed=arguments.seeds[0], progress=advance)
        if not arguments.packets:
            return _verdict(faults)
        packets, seconds = arguments.packets, math.inf
        if arguments.seconds is not None:
            packets, seconds = sys.maxsize, arguments.seconds
        bar = bars.add_task("broker", total=None if arguments.seconds else packets)
        began = time.monotonic()
        report = asyncio.run(
            attack.run(
                packets=packets, seconds=seconds, seeds=arguments.seeds, at_once=arguments.at_once, target=target,
                progress=partial(bars.advance, bar),
            )
        )  # fmt: skip
    console.print(_table(report, time.monotonic() - began))
    faults += report.faults
    if report.canary.get("p99_ms", 0) > arguments.p99_ms:
        faults.append(f"the canary waited {report.canary['p99_ms']:.0f} ms (p99)")
    return _verdict(faults)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=2_000_000, help="through the broker")
    parser.add_argument("--seconds", type=float, help="through the broker for so long, instead of so many packets")
    parser.add_argument("--examples", type=int, default=100_000, help="through the codec alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="whose sessions take turns")
    parser.add_argument("--at-once", type=int, default=48, help="connections")
    parser.add_argument("--p99-ms", type=float, default=100.0, help="the longest the canary may wait (p99)")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="the broker's event loop")
    parser.add_argument("--no-persistence", action="store_true", help="keep nothing on disk")
    parser.add_argument("--session", metavar="SEED:NUMBER", help="send only this session, and show it")
    return parser.parse_args()


def _table(report: Report, took_s: float) -> Table:
    before, after, canary = report.before, report.after, report.canary
    rate = report.packets / took_s if took_s else 0
    table = Table(
        "",
        "after the warm-up",
        "at the end",
        title=f"{report.packets:,} packets in {report.sessions:,} sessions, {rate:,.0f}/s",
    )
    table.add_row("memory, MiB", *(f"{each.get('rss', 0) / MIB:.1f}" for each in (before, after)))
    for name, words in (("fds", "file descriptors"), ("tasks", "tasks"), ("objects", "Python objects")):
        table.add_row(words, *(f"{each.get(name, 0):,}" for each in (before, after)))
    metrics = after.get("metrics", {})
    table.add_row("read of what was sent", "", f"{metrics.get('bytes_received', 0) / max(1, report.bytes):.0%}")
    for name in ("connections", "connects", "messages_received", "messages_sent", "dropped_slow", "protocol_errors"):
        table.add_row(name.replace("_", " "), "", f"{metrics.get(name, 0):,}")
    table.add_row("canary, messages", "", f"{canary.get('sent', 0):,}, {canary.get('lost', 0)} lost")
    delays = (f"{canary.get(name, 0):.1f}" for name in ("p50_ms", "p99_ms", "max_ms"))
    table.add_row("canary, p50 / p99 / max, ms", "", " / ".join(delays))
    for words, count in sorted(after.get("warnings", {}).items()):
        table.add_row(f"warning: {words}", "", f"{count:,}")
    return table


def _verdict(faults: list[str]) -> int:
    for fault in faults:
        console.print(fault, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(faults)} faults" if faults else "no faults", style="red" if faults else "green")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())

"""How the embedded store grows with what is in it: what queries take, and what a reading takes, up to 100 million."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import report
from benchmarks.plots import Line, Panel, draw
from benchmarks.scaling import PICTURES, table
from benchmarks.stores import DAY_MS, DEVICES, HOUR_MS, INTERVAL_MS, METRICS, ask_day, ask_hour, frames, took_ms
from gateway.frames import Readings
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore

SIZES = {1_000_000: "1M", 10_000_000: "10M", 30_000_000: "30M", 100_000_000: "100M"}
ROWS = 500  # of a device in one write


async def grow(sizes: Mapping[int, str]) -> dict[int, dict[str, float]]:
    """Write on and on; at each size seal what is loose and ask."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        path = Path(directory)
        store = EmbeddedStore(EmbeddedOptions(directory=path, retention_days=36500))
        await store.open()
        start_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - 300 * DAY_MS
        batches = frames(start_ms, DEVICES, ROWS)
        written, writing_s = 0, 0.0
        for size in sizes:
            before, began = written, time.perf_counter()
            while written < size:
                await store.write(Readings(next(batches)))
                written += DEVICES * METRICS * ROWS
            writing_s = time.perf_counter() - began
            await store.compact()
            end_ms = start_ms + written // (DEVICES * METRICS) * INTERVAL_MS
            first_ms = end_ms - min(DAY_MS, end_ms - start_ms - HOUR_MS)
            hours = [await took_ms(store, ask_hour(end_ms, n)) for n in range(20)]
            days = [await took_ms(store, ask_day(end_ms, n, start_ms=first_ms)) for n in range(20)]
            found[size] = {
                "insert": (written - before) / writing_s,
                "hour": statistics.median(hours),
                "day": statistics.median(days),
                "bytes": sum(file.stat().st_size for file in path.iterdir()) / written,
            }
            print(f"  {size:,}: " + " ".join(f"{key} {value:,.4g}" for key, value in found[size].items()), flush=True)
        await store.close()
    return found


def run(rounds: int, *, docs: bool) -> None:
    """Print what was found; with `docs` draw it and write it into the page as well. One round: it takes minutes."""
    del rounds
    print("\nstore size:")
    found = asyncio.run(grow(SIZES))

    def panel(title: str, **lines: str) -> Panel:
        return Panel(
            title=title,
            x_words="readings in the store",
            x_ticks={float(x): words for x, words in SIZES.items()},
            lines=[
                Line(name=name, points=[(x, each[key]) for x, each in found.items()]) for key, name in lines.items()
            ],
        )

    panels = [
        panel("query, median ms", hour="hour", day="day"),
        panel("bytes a reading", bytes="bytes"),
    ]
    text = table([*panels, panel("insert, readings/s", insert="insert")])
    print(f"\n{text}")
    if docs:
        (PICTURES / "benchmark-store-size.svg").write_text(draw(panels), encoding="utf-8")
        report.fill("store-size", text)

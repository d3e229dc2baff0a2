"""The embedded store: sustained insert with rollups and sealing, bytes a sealed reading, and the console's queries.

Readings are sensor-like: random walks with one to three decimals, every 2 s, in frames as the drain gives them. While
they are written at full speed, queries are asked beside it; once everything is sealed they are asked again.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import report
from gateway.frames import Frame, Readings
from gateway.store import Query
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore

DEVICES, METRICS = 50, 3
MANY_DEVICES = 20_000
ROWS = 100  # of a device in one write: what comes in a tenth of a second at 450,000 readings/s
INTERVAL_MS = 2_000
SECONDS = 60.0
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PAUSE_S = 0.05  # between queries while it is written


class Walk:
    """A sensor's values, without end: prepared once and gone through at another place by each series."""

    LENGTH = 100_003

    def __init__(self, decimals: int, seed: int) -> None:
        chance = random.Random(seed)
        step, at = 2 * 10.0**-decimals, 20.0
        values = []
        for _ in range(self.LENGTH):
            at += chance.gauss((20.0 - at) / 1000, step)
            values.append(round(at, decimals))
        self._values = values + values

    def take(self, at: int, count: int) -> list[float]:
        at %= self.LENGTH
        return self._values[at : at + count]


WALKS = [Walk(decimals, decimals) for decimals in (1, 2, 3)]
NAMES = tuple(f"metric-{number}" for number in range(METRICS))


def frames(start_ms: int, devices: int, rows: int) -> Iterator[list[Frame]]:
    """Batches in order of time, without end."""
    at = 0
    while True:
        times = range(start_ms + at * INTERVAL_MS, start_ms + (at + rows) * INTERVAL_MS, INTERVAL_MS)
        yield [
            Frame(f"device-{n}", NAMES, times, [WALKS[m].take(at + 977 * n, rows) for m in range(METRICS)])
            for n in range(devices)
        ]
        at += rows


async def sustained(
    seconds: float, *, devices: int = DEVICES, rows: int = ROWS, seal: bool = True
) -> Mapping[str, float]:
    """Write as fast as it goes, with a query now and then; seal, unless told not to; ask again."""
    now_ms = int(time.time() * 1000)
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        path = Path(directory)
        store = EmbeddedStore(EmbeddedOptions(directory=path, retention_days=36500))
        await store.open()
        start_ms = now_ms // DAY_MS * DAY_MS - 300 * DAY_MS
        batches = frames(start_ms, devices, rows)
        written = 0
        beside: list[float] = []

        async def ask() -> None:
            while True:
                await asyncio.sleep(PAUSE_S)
                end_ms = start_ms + written // (devices * METRICS) * INTERVAL_MS
                beside.append(await took_ms(store, ask_hour(end_ms)))
                beside.append(await took_ms(store, ask_day(end_ms)))

        asking = asyncio.create_task(ask())
        began = time.perf_counter()
        making = 0.0  # of batches: with a reading of each series in one it takes as long as the store does
        while (now := time.perf_counter()) - began < seconds:
            batch = Readings(next(batches))
            making += time.perf_counter() - now
            await store.write(batch)
            written += devices * METRICS * rows
        rate = written / (time.perf_counter() - began - making)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        end_ms = start_ms + written // (devices * METRICS) * INTERVAL_MS
        loose = (await store.stats()).loose_points or 0
        sealing = time.perf_counter()
        if seal:
            await store.compact()
        sealing = time.perf_counter() - sealing
        hours = max(1, min(20, (end_ms - start_ms) // HOUR_MS - 1))
        hour = [await took_ms(store, ask_hour(end_ms - n * HOUR_MS)) for n in range(hours)]
        # a day of another device each time: nothing of it has been read before
        day = [await took_ms(store, ask_day(end_ms, device=n)) for n in range(min(20, devices))]
        await store.close()
        size = sum(file.stat().st_size for file in path.iterdir())
    return {
        "rate": rate,
        "loose": loose / written,
        "sealing_s": sealing,
        "bytes": size / written,
        "hour_ms": statistics.median(hour),
        "day_ms": statistics.median(day),
        "beside_p95_ms": statistics.quantiles(beside, n=20)[-1] if len(beside) > 1 else 0.0,
    }


def ask_hour(end_ms: int, device: int = 7) -> Query:
    """1,800 rows of three metrics."""
    return Query(device_id=f"device-{device}", start_ms=end_ms - HOUR_MS, end_ms=end_ms)


def ask_day(end_ms: int, device: int = 7, *, start_ms: int | None = None) -> Query:
    """43,200 readings of one series in 300 buckets."""
    start_ms = end_ms - DAY_MS if start_ms is None else start_ms
    return Query(device_id=f"device-{device}", metrics=NAMES[:1], start_ms=start_ms, end_ms=end_ms, buckets=300)


async def took_ms(store: EmbeddedStore, query: Query) -> float:
    """How long the answer took."""
    began = time.perf_counter()
    await store.query(query)
    return (time.perf_counter() - began) * 1000


def run(rounds: int, *, docs: bool = False) -> None:
    found = []
    for number in range(rounds):
        found.append(asyncio.run(sustained(SECONDS if rounds > 1 else 10.0)))
        print(
            f"  {number + 1}/{rounds}" + "".join(f" {key} {value:,.4g}" for key, value in found[-1].items()), flush=True
        )
    # a reading of each of 60,000 series in a write: there is nothing to gather them by, and sealing has to wait
    many = asyncio.run(sustained(SECONDS if rounds > 1 else 10.0, devices=MANY_DEVICES, rows=1, seal=False))
    medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
    text = _table(medians | {"many": many["rate"]})
    print(f"\n{text}")
    if docs:
        report.fill("stores", f"Medians of {rounds} rounds of {SECONDS:g} s.\n\n{text}")


def _table(found: Mapping[str, float]) -> str:
    lines = [
        ("insert with rollups, sustained (readings/s)", f"{found['rate']:,.0f}", "≥ 300,000", found["rate"] >= 300_000),
        ("the same, 60,000 series (readings/s)", f"{found['many']:,.0f}", "≥ 300,000", found["many"] >= 300_000),
        ("bytes a reading once sealed, all included", f"{found['bytes']:.2f}", "≤ 4", found["bytes"] <= 4),
        ("an hour of a device, 1,800 rows (median ms)", f"{found['hour_ms']:.2f}", "≤ 2", found["hour_ms"] <= 2),
        ("a day of a series in 300 buckets (median ms)", f"{found['day_ms']:.2f}", "≤ 5", found["day_ms"] <= 5),
        (
            "both during writes at full speed (p95 ms)",
            f"{found['beside_p95_ms']:.2f}",
            "≤ 10",
            found["beside_p95_ms"] <= 10,
        ),
    ]
    rows = ["| embedded store | measured | must be | |", "| --- | ---: | ---: | --- |"]
    rows += [
        f"| {words} | {value} | {target} | {'reached' if good else '**missed**'} |"
        for words, value, target, good in lines
    ]
    return "\n".join(rows)

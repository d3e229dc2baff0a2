"""Embedded store: insert, and two queries of the console, over a day of sensor-like readings."""

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from gateway.readings import Reading
from gateway.store import Query
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore

DEVICES, METRICS, BATCH = 50, 5, 10_000
POINTS = 500_000
HOUR_MS = 3_600_000


def _batches(start_ms: int) -> list[list[Reading]]:
    chance = random.Random(1)
    steps = POINTS // (DEVICES * METRICS)
    readings = [
        Reading(f"device-{device}", f"metric-{metric}", start_ms + step * 10_000, round(chance.gauss(20, 3), 1))
        for step in range(steps)
        for device in range(DEVICES)
        for metric in range(METRICS)
    ]
    return [readings[at : at + BATCH] for at in range(0, len(readings), BATCH)]


async def _round() -> tuple[float, float, float, float]:
    """(points/s, bytes/point, ms for the last hour of a device, ms for the day in 300 buckets)"""
    start_ms = (int(time.time() * 1000) // 86_400_000) * 86_400_000 - 86_400_000
    batches = _batches(start_ms)
    with tempfile.TemporaryDirectory() as directory:
        store = EmbeddedStore(EmbeddedOptions(directory=Path(directory)))
        await store.open()
        began = time.perf_counter()
        for batch in batches:
            await store.write(batch)
        rate = POINTS / (time.perf_counter() - began)
        end_ms = batches[-1][-1].ts_ms + 1
        hour = await _median_ms(store, Query(device_id="device-7", start_ms=end_ms - HOUR_MS, end_ms=end_ms))
        day = Query(device_id="device-7", metrics=("metric-1",), start_ms=start_ms, end_ms=end_ms, buckets=300)
        buckets = await _median_ms(store, day)
        await store.close()
        size = sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
    return rate, size / POINTS, hour, buckets


async def _median_ms(store: EmbeddedStore, query: Query) -> float:
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        await store.query(query)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def run(rounds: int) -> None:
    figures = [asyncio.run(_round()) for _ in range(rounds)]
    rate, size, hour, buckets = (statistics.median(column) for column in zip(*figures, strict=True))
    print(f"embedded store: {POINTS:,} readings of {DEVICES} devices, {METRICS} metrics each, batches of {BATCH:,}")
    print(f"  insert                      {rate:12,.0f} readings/s")
    print(f"  size, not yet compacted     {size:12.1f} bytes/reading")
    print(f"  last hour of a device       {hour:12.2f} ms")
    print(f"  one series in 300 buckets   {buckets:12.2f} ms")

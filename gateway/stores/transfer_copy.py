"""Moving a store's readings to another one: day by day and device by device, resumed where it was broken off.

What is done is kept in a checkpoint file, written after a device's day is stored at the target. Killed between the
two, the day is written again, which changes nothing: a point is the same point again. In the end both stores are
asked for their counts, and a day that differs is written once more; so readings that came to the source after their
day was done, or that the target lost, are found by running it again.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from gateway.readings import Reading
from gateway.store import Aggregate, Query, Store, StoreRejected, StoreUnavailable
from gateway.stores.transfer_scan import Enumerable, scan

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
BATCH = 5_000
FINDINGS_KEPT = 1_000
_EPOCH = date(1970, 1, 1).toordinal()
_CHECKPOINT_EVERY_S = 0.5  # at most this much is written again after a kill
_DELAY_CAP_S = 60.0

Progress = Callable[[int, int], None]
"""Told (done, total), in devices' days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A device's day that has another number of readings at the target."""

    device: str
    day: str
    source: int
    target: int


@dataclass(slots=True)
class Report:
    """What a move came to. `rejected` and `differences` keep the first 1,000."""

    points: int = 0
    """Written in this run."""
    resumed: bool = False
    rejected_points: int = 0
    rejected: list[tuple[Reading, str]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


class CheckpointError(Exception):
    """The checkpoint file is of another move, or cannot be read."""


class Move:
    """One move. `target_name` says where to (no secrets): a checkpoint of another target is refused."""

    def __init__(
        self,
        source: Enumerable,
        target: Store,
        *,
        target_name: str,
        checkpoint: Path,
        patience_s: float = 600.0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience_s`: how long one write is tried again while the target is away."""
        self._source = source
        self._target = target
        self._target_name = target_name
        self._checkpoint = checkpoint
        self._patience_s = patience_s
        self._pause = pause
        self._monotonic = monotonic
        self._saved_at = -_CHECKPOINT_EVERY_S
        self._report = Report()
        self._rejected: dict[tuple[int, str], int] = {}

    async def run(self, first_day: int, last_day: int, progress: Progress, *, again: bool = False) -> Report:
        """Move the days (of 1970) from the first to the last. `again`: without regard to the checkpoint.

        Raises StoreUnavailable when either store is away for too long: run it again then. Raises CheckpointError.
        """
        if again:
            self._checkpoint.unlink(missing_ok=True)
        devices = await self._source.devices()
        done = self._done()
        total = (last_day - first_day + 1) * len(devices)
        place = 0
        for day in range(first_day, last_day + 1):
            for device in devices:
                place += 1
                if done is not None and (day, device) <= done:
                    continue
                await self._copy(day, device)
                self._save(day, device)
                progress(place, total)
        if devices:
            self._save(last_day, devices[-1], now=True)
        progress(total, total)
        await self._compare(first_day, last_day, devices)
        return self._report

    async def _copy(self, day: int, device: str) -> None:
        self._rejected.pop((day, device), None)
        batch: list[Reading] = []
        async for readings in scan(self._source, device, day * DAY_MS, (day + 1) * DAY_MS):
            batch += readings
            while len(batch) >= BATCH:
                await self._write(batch[:BATCH])
                del batch[:BATCH]
        await self._write(batch)

    async def _write(self, readings: Sequence[Reading]) -> None:
        """Store them; what the target will never have is noted down, each reading by itself."""
        if not readings:
            return
        started_at, tries = self._monotonic(), 0
        while True:
            try:
                await self._target.write(readings)
            except StoreRejected as error:
                if len(readings) > 1:
                    middle = len(readings) // 2
                    await self._write(readings[:middle])
                    await self._write(readings[middle:])
                else:
                    self._reject(readings[0], str(error))
                return
            except StoreUnavailable as error:
                if self._monotonic() - started_at > self._patience_s:
                    raise
                delay_s = random.uniform(0.1, min(_DELAY_CAP_S, 0.5 * 2**tries))  # noqa: S311 # jitter
                tries = min(tries + 1, 10)
                logger.debug("the target does not take it (%s); again in %.1f s", error, delay_s)
                await self._pause(max(delay_s, min(error.retry_after_s or 0.0, _DELAY_CAP_S)))
            else:
                self._report.points += len(readings)
                return

    def _reject(self, reading: Reading, reason: str) -> None:
        key = (reading.ts_ms // DAY_MS, reading.device_id)
        self._rejected[key] = self._rejected.get(key, 0) + 1
        self._report.rejected_points += 1
        if len(self._report.rejected) < FINDINGS_KEPT:
            self._report.rejected.append((reading, reason))

    # -- counts

    async def _compare(self, first_day: int, last_day: int, devices: Sequence[str]) -> None:
        if not devices:
            return
        if self._target.visible_after_s:
            await self._pause(self._target.visible_after_s)
        suspects = [item for device in devices for item in await self._differing(device, first_day, last_day)]
        for day, device in suspects:
            logger.info("%s on %s differs: written again", device, _iso(day))
            await self._copy(day, device)
        if suspects and self._target.visible_after_s:
            await self._pause(self._target.visible_after_s)
        for day, device in suspects:
            for _, _ in await self._differing(device, day, day):
                source, target = await self._counts(device, day, day)
                if len(self._report.differences) < FINDINGS_KEPT:
                    counts = Difference(
                        device=device, day=_iso(day), source=source.get(day, 0), target=target.get(day, 0)
                    )
                    self._report.differences.append(counts)

    async def _differing(self, device: str, first_day: int, last_day: int) -> list[tuple[int, str]]:
        source, target = await self._counts(device, first_day, last_day)
        # The target may hold more: it was perhaps in use already.
        return [
            (day, device)
            for day, count in source.items()
            if target.get(day, 0) < count - self._rejected.get((day, device), 0)
        ]

    async def _counts(self, device: str, first_day: int, last_day: int) -> tuple[dict[int, int], dict[int, int]]:
        query = Query(
            device_id=device,
            start_ms=first_day * DAY_MS,
            end_ms=(last_day + 1) * DAY_MS,
            buckets=last_day - first_day + 1,
            aggregate=Aggregate.COUNT,
        )
        counts: list[dict[int, int]] = []
        for store in (self._source, self._target):
            days: dict[int, int] = {}
            for series in (await store.query(query)).values():
                for ts_ms, count in zip(series.t, series.v, strict=True):
                    days[ts_ms // DAY_MS] = days.get(ts_ms // DAY_MS, 0) + int(count)  # type: ignore[arg-type] # counts are numbers
            counts.append(days)
        return counts[0], counts[1]

    # -- the checkpoint

    def _done(self) -> tuple[int, str] | None:
        """The last device's day that is done, in order of days, then devices."""
        try:
            kept = json.loads(self._checkpoint.read_text(encoding="utf-8"))
            target, day, device = str(kept["target"]), int(kept["day"]), str(kept["device"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self._checkpoint} cannot be read: {error}") from error
        if target != self._target_name:
            raise CheckpointError(f"{self._checkpoint} is of a move to {target}: finish that, or delete the file")
        self._report.resumed = True
        return day, device

    def _save(self, day: int, device: str, *, now: bool = False) -> None:
        if not now and self._monotonic() - self._saved_at < _CHECKPOINT_EVERY_S:
            return
        fresh = self._checkpoint.with_name(self._checkpoint.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump({"target": self._target_name, "day": day, "device": device}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._checkpoint)
        self._saved_at = self._monotonic()


def _iso(day: int) -> str:
    return date.fromordinal(day + _EPOCH).isoformat()

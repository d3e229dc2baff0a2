"""The store that needs nothing installed: SQLite, one file a day, in the gateway's own process.

Writes go through one thread, reads through two others with connections of their own, so a long query holds up
neither writes nor the event loop. What `write` returned from is on disk and in every later answer. Between writes that
thread seals what lies loose into compressed chunks, a slice of work at a time; a day that is over is sealed whole.

Readings older than their retention are forgotten: a day's file is deleted once nothing in it is kept, and what arrives
older than that is taken and forgotten at once (the gateway refuses it before; only what waited for long comes here).
Past `limit_bytes` damaged files go, then the oldest day. A damaged file is set aside under another name and the day
goes on in a new one; a damaged chunk costs that chunk.

day_file.py and its neighbours hold the SQL, days.py decides which days; this module in which thread, and what an error
means.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from gateway.frames import Readings, frames_of
from gateway.readings import Reading, Value
from gateway.store import Query, Series, StoreStats, StoreUnavailable
from gateway.stores.day_file import DAY_MS
from gateway.stores.day_reader import DayReader
from gateway.stores.days import Days, Retention, is_damage, mark_of, pieces_of, size_of_all
from gateway.stores.folding import Folding, behind_each_other, raw, rollup_for

logger = logging.getLogger(__name__)
T = TypeVar("T")

READER_THREADS = 2
OPEN_READERS = 32  # a thread: a month of days; each holds three to four file descriptors
STATS_AGE_S = 30.0
BATCH_WEIGHT = 5_000_000  # sealed readings of a day to hold at once, some 30 MB while they are read
HOUSEKEEPING_S = 60.0
DAMAGE_TOLD = 1_000  # each once; beyond it nothing new is learned


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedOptions:
    """`synchronous`: "full" keeps every finished write at power failure, "normal" at a crash of the program only."""

    directory: Path
    retention_days: int = 30
    limit_bytes: int | None = None
    """Of all files together; None: no limit. Past it damaged ones go, then the oldest day, never today's."""
    synchronous: Literal["full", "normal"] = "full"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: in which file, of which series ("device metric"; "": of the file itself), and what."""

    file: str
    series: str
    problem: str


@dataclass(frozen=True, slots=True)
class DayStats:
    """What a day's file holds; `day` as 2026-11-25, UTC. Of a point written twice both count until they are sealed."""

    day: str
    loose_points: int
    sealed_points: int
    size_bytes: int


Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


def _nobody(done: int, total: int) -> None: ...


class EmbeddedStore:
    """Readings in SQLite files of one UTC day each."""

    write_readings = 100_000  # the more of one series come together, the less each costs
    visible_after_s = 0.0

    def __init__(
        self,
        options: EmbeddedOptions,
        *,
        now_ms: Callable[[], int] | None = None,
        retention_of: Callable[[str], int | None] | None = None,
    ) -> None:
        """`retention_of` says for how many days a device's readings are kept; None: for `options.retention_days`."""
        self._options = options
        self._days = Days(
            options.directory,
            Retention(options.retention_days, retention_of, now_ms or _wall_clock_ms),
            synchronous=options.synchronous,
            limit_bytes=options.limit_bytes,
        )
        self._damage: set[tuple[int, str]] = set()
        self._sealing: asyncio.Future[bool] | None = None
        self._seal_after = 0.0
        self._housekeeping: asyncio.Task[None] | None = None
        self._write_thread: ThreadPoolExecutor | None = None
        self._read_threads: ThreadPoolExecutor | None = None
        self._readers = _Readers(self._days.path, self._damage_found)
        self._counts: dict[int, tuple[object, tuple[int, int]]] = {}
        self._stats: tuple[float, StoreStats] | None = None

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self._options.directory

    def kept_since_ms(self, device_id: str) -> int:
        """The first moment of which a device's readings are kept; what is older is forgotten when it is written."""
        return self._days.kept_since_ms(device_id)

    @property
    def damaged_chunks(self) -> int:
        """Chunks and loose blocks that queries could not read, and left out of answers: so many different ones."""
        return len(self._damage)

    async def open(self) -> None:
        """Take the directory. Raises StoreUnavailable when another process has it or it cannot be made."""
        self._write_thread = ThreadPoolExecutor(1, "store-writer")
        self._read_threads = ThreadPoolExecutor(READER_THREADS, "store-reader")
        try:
            await self._writing(self._days.open)
        except BaseException:
            await self.close()
            raise
        self._housekeeping = asyncio.create_task(self._keep_house(), name="store housekeeping")

    async def close(self) -> None:
        """Finish what is under way and let go of the files."""
        task, self._housekeeping = self._housekeeping, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        writer, readers = self._write_thread, self._read_threads
        self._write_thread = self._read_threads = None
        if writer is not None and readers is not None:
            await asyncio.to_thread(readers.shutdown)
            self._readers.close()
            await self._in(writer, self._days.close)
            await asyncio.to_thread(writer.shutdown)

    async def write(self, readings: Sequence[Reading]) -> None:
        """One commit a day touched (mostly one)."""
        frames = readings.frames if isinstance(readings, Readings) else frames_of(readings)
        await self._writing(self._days.write, frames)
        self._seal_some()

    async def query(self, query: Query) -> dict[str, Series]:
        return await self._reading(self._answer, query)

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        return await self._reading(self._latest, device_id)

    async def delete_device(self, device_id: str) -> None:
        await self._writing(self._days.delete_device, device_id)

    async def stats(self) -> StoreStats:
        """At most 30 s old."""
        if self._stats is None or time.monotonic() - self._stats[0] > STATS_AGE_S:
            self._stats = (time.monotonic(), await self._reading(self._take_stats))
        return self._stats[1]

    async def stats_by_day(self) -> list[DayStats]:
        """In order."""
        return await self._reading(self._take_stats_by_day)

    async def devices(self) -> list[str]:
        """Devices that have readings, in order."""
        return await self._reading(self._devices)

    async def verify(self, progress: Progress = _nobody) -> list[Finding]:
        """Decode and check everything; what is wrong, by file and series. Progress counts days, here and below.

        A file that cannot be read at all is set aside, as when a query meets it. Such files are findings until
        somebody takes them away.
        """
        findings: list[Finding] = []
        days = self._days.kept()
        for done, day in enumerate(days):
            progress(done, len(days))
            findings += await self._reading(self._verify, day)
        findings += [Finding(path.name, "", "damaged and set aside, not in answers") for path in self._days.asides()]
        progress(len(days), len(days))
        return findings

    async def compact(self, progress: Progress = _nobody) -> None:
        """Seal all that lies loose, today's too, and give free space back."""
        days = self._days.kept()
        for done, day in enumerate(days):
            progress(done, len(days))
            await self._seal_whole(day)
        progress(len(days), len(days))
        self._stats = None

    async def backup(self, directory: Path, progress: Progress = _nobody) -> None:
        """Copy all files, each as of one moment, into a directory that is empty or not there; while writes go on.

        Raises FileExistsError, or StoreUnavailable where the disk is full.
        """
        await asyncio.to_thread(_make_empty, directory)
        days = self._days.kept()
        for done, day in enumerate(days):
            progress(done, len(days))
            await self._reading(self._copy, day, directory)
        progress(len(days), len(days))

    # -- threads and errors

    async def _writing(self, work: Callable[..., T], *arguments: Any) -> T:
        return await self._in(self._write_thread, work, *arguments)

    async def _reading(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a query; files it finds damaged are set aside, and it is run again without them."""
        while True:
            try:
                return await self._in(self._read_threads, work, *arguments)
            except _FileGoneError:
                continue
            except _DamagedFileError as damaged:
                await self._writing(self._days.set_aside, damaged.day, damaged.generation, damaged.reason)

    async def _in(self, executor: Executor | None, work: Callable[..., T], *arguments: Any) -> T:
        if executor is None:
            raise StoreUnavailable("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._options.directory}: {error}") from error

    def _seal_some(self) -> None:
        """Have a slice of sealing done after what the writer's thread has to do, and another, until nothing is ripe."""
        if self._sealing is None and self._write_thread is not None and time.monotonic() >= self._seal_after:
            loop = asyncio.get_running_loop()
            self._sealing = loop.run_in_executor(self._write_thread, self._days.seal_some)
            self._sealing.add_done_callback(self._some_sealed)

    def _some_sealed(self, job: "asyncio.Future[bool]") -> None:
        self._sealing = None
        if job.cancelled():
            return
        error = job.exception()
        if error is not None:
            self._seal_after = time.monotonic() + HOUSEKEEPING_S
            words = "%s: what lies loose could not be sealed, again in %.0f s: %s"
            logger.warning(words, self._options.directory, HOUSEKEEPING_S, error)
        elif job.result():
            self._seal_some()

    async def _keep_house(self) -> None:
        """Once a minute: look through days not seen yet, drop what is past retention or limit, seal what is over."""
        while True:
            try:
                for day in self._days.holdings.unknown(self._days.kept()):
                    await self._reading(self._learn, day)
                await self._writing(self._days.sweep)
                await self._writing(self._days.keep_within_limit)
                while await self._writing(self._days.seal_today):
                    pass
                for day in self._days.days_over():
                    await self._seal_whole(day)
            except StoreUnavailable as error:
                logger.warning("the store's housekeeping failed, later again: %s", error)
            except Exception:  # a fault of ours: what is past its retention goes all the same, later
                logger.exception("the store's housekeeping failed, later again")
            await asyncio.sleep(HOUSEKEEPING_S)

    async def _seal_whole(self, day: int) -> None:
        """Slice by slice: what is to be written goes in between."""
        more = True
        while more:
            more = await self._writing(self._days.seal_whole, day)

    # -- in reader threads

    def _answer(self, query: Query) -> dict[str, Series]:
        first, last = query.start_ms // DAY_MS, (query.end_ms - 1) // DAY_MS
        days = [day for day in self._days.kept(query.device_id) if first <= day <= last]
        answers: dict[str, Series] = {}
        for metrics in self._batches(query, days):
            answers |= self._raw(query, days, metrics) if query.buckets is None else self._folded(query, days, metrics)
        return answers

    def _batches(self, query: Query, days: Sequence[int]) -> list[list[str]]:
        """The metrics asked for that there are, some at a time, so that what is read for them is bounded."""
        if len(query.metrics) == 1:
            return [[*query.metrics]]
        weights: dict[str, int] = {}
        for day in days:
            with self._reader(day) as reader:
                found = reader.weights(query.device_id, query.metrics, query.start_ms, query.end_ms)
            for metric, weight in found.items():  # of one day at a time
                weights[metric] = max(weight, weights.get(metric, 0))
        batches: list[list[str]] = []
        room = 0
        for metric, weight in weights.items():
            if weight > room:
                batches.append([])
                room = BATCH_WEIGHT
            batches[-1].append(metric)
            room -= weight
        return batches

    def _raw(self, query: Query, days: Sequence[int], metrics: Sequence[str]) -> dict[str, Series]:
        found: dict[str, list[Series]] = {metric: [] for metric in metrics}
        room = dict.fromkeys(metrics, query.limit)
        for day in reversed(days):
            wanted = [metric for metric in metrics if room[metric] > 0]
            if not wanted:
                break
            with self._reader(day) as reader:
                pieces = reader.pieces(query.device_id, wanted, query.start_ms, query.end_ms)
            for metric, some in pieces.items():
                found[metric].insert(0, raw(some, room[metric]))
                room[metric] -= len(found[metric][0].t)
        answers = {metric: behind_each_other(parts) for metric, parts in found.items()}
        return {metric: series for metric, series in answers.items() if series.t}

    def _folded(self, query: Query, days: Sequence[int], metrics: Sequence[str]) -> dict[str, Series]:
        rollup = rollup_for(query)
        foldings = {metric: Folding(query) for metric in metrics}
        for day in days:
            with self._reader(day) as reader:
                pieces = reader.pieces(query.device_id, metrics, query.start_ms, query.end_ms, rollup=rollup)
            for metric, some in pieces.items():
                foldings[metric].add(some)
        found = {metric: folding.series() for metric, folding in foldings.items()}
        return {metric: series for metric, series in found.items() if series is not None}

    def _latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        found: dict[str, tuple[int, Value]] = {}
        days = self._days.kept(device_id)
        holdings = self._days.holdings
        if not holdings.knows(days):
            for day in reversed(days):
                with self._reader(day) as reader:
                    # days before may hold a metric that has gone silent since
                    found = {**reader.latest(device_id), **found}
            return found
        held = sorted(holdings.days_of(device_id).intersection(days))
        missing = holdings.newest_of(device_id)  # by metric, the day to look at next
        while held and missing:
            day = held.pop()
            if any(newest >= day for newest in missing.values()):
                with self._reader(day) as reader:
                    found = {**reader.latest(device_id), **found}
                missing = {metric: newest for metric, newest in missing.items() if metric not in found}
        return found

    def _learn(self, day: int) -> None:
        if self._days.generation(day) is not None:
            with self._reader(day) as reader:
                self._days.holdings.learn(day, reader.series())

    def _devices(self) -> list[str]:
        found: set[str] = set()
        for day in self._days.kept():
            with self._reader(day) as reader:
                found.update(reader.devices())
        return sorted(found)

    def _verify(self, day: int) -> list[Finding]:
        if self._days.generation(day) is None:
            return []  # deleted meanwhile
        name = self._days.path(day).name
        with self._reader(day) as reader:
            return [Finding(name, series, problem) for series, problem in reader.problems()]

    def _copy(self, day: int, directory: Path) -> None:
        if self._days.generation(day) is not None:
            with self._reader(day) as reader:
                reader.copy(directory / self._days.path(day).name)

    def _take_stats(self) -> StoreStats:
        days = self._take_stats_by_day()
        loose = sum(each.loose_points for each in days)
        asides = [piece for path in self._days.asides() for piece in pieces_of(path)]
        return StoreStats(
            kind="embedded",
            points=loose + sum(each.sealed_points for each in days),
            loose_points=loose,
            size_bytes=sum(each.size_bytes for each in days) + size_of_all(asides),
            limit_bytes=self._options.limit_bytes,
            oldest_ms=next((day * DAY_MS for day in self._days.kept()), None),
            dropped_days=self._days.dropped,
            damaged_chunks=self.damaged_chunks,
        )

    def _take_stats_by_day(self) -> list[DayStats]:
        found: list[DayStats] = []
        days = self._days.kept()
        for day in days:
            path = self._days.path(day)
            marks = [mark_of(piece) for piece in pieces_of(path)]
            known = self._counts.get(day)
            if known is None or known[0] != marks:
                with self._reader(day) as reader:
                    known = self._counts[day] = (marks, reader.counts())
            found.append(DayStats(path.stem, *known[1], sum(size for size, _ in marks)))
        self._counts = {day: known for day, known in self._counts.items() if day in days}
        return found

    def _damage_found(self, day: int, what: str, problem: str) -> None:
        if (day, what) in self._damage or len(self._damage) >= DAMAGE_TOLD:
            return
        self._damage.add((day, what))
        words = "%s: %s cannot be read and is missing from answers (%s); `mooring store verify` finds all"
        logger.error(words, self._days.path(day).name, what, problem)

    @contextmanager
    def _reader(self, day: int) -> Iterator[DayReader]:
        generation = self._days.generation(day)
        if generation is None:
            raise _FileGoneError
        try:
            yield self._readers.get(day, generation)
        except sqlite3.Error as error:
            if is_damage(error):
                raise _DamagedFileError(day, generation, str(error)) from error
            if self._days.generation(day) != generation:
                raise _FileGoneError from error
            raise


class _FileGoneError(Exception):
    """A day was deleted, or got another file, while a query was at it."""


class _DamagedFileError(Exception):
    """A query met a file that SQLite cannot read."""

    def __init__(self, day: int, generation: int, reason: str) -> None:
        super().__init__(reason)
        self.day = day
        self.generation = generation
        self.reason = reason


class _Readers:
    """Open reading connections, a few for each reader thread."""

    def __init__(self, path: Callable[[int], Path], damaged: Callable[[int, str, str], None]) -> None:
        self._path = path
        self._damaged = damaged
        self._own = threading.local()
        self._all: list[OrderedDict[int, tuple[int, DayReader]]] = []

    def get(self, day: int, generation: int) -> DayReader:
        """This thread's connection to a day's file."""
        mine: OrderedDict[int, tuple[int, DayReader]] | None = getattr(self._own, "open", None)
        if mine is None:
            mine = self._own.open = OrderedDict()
            self._all.append(mine)
        known = mine.get(day)
        if known is not None and known[0] != generation:
            mine.pop(day)[1].close()
            known = None
        if known is None:
            while len(mine) >= OPEN_READERS:
                mine.popitem(last=False)[1][1].close()
            known = mine[day] = (generation, DayReader(self._path(day), partial(self._damaged, day)))
        mine.move_to_end(day)
        return known[1]

    def close(self) -> None:
        """Close all; only when no reader thread runs."""
        for mine in self._all:
            while mine:
                mine.popitem()[1][1].close()
        self._all.clear()
        self._own = threading.local()


def _make_empty(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty")


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000

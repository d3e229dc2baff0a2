"""The store that needs nothing installed: SQLite, one file a day, in the gateway's own process.

Writes go through one thread, reads through two others with connections of their own, so a long query holds up
neither writes nor the event loop. What `write` returned from is on disk and in every later answer. Readings older
than the retention are forgotten: a day's file is deleted once its whole day is, and what arrives older than that is
taken and forgotten at once. A damaged file is set aside under another name and the day goes on in a new one.

day_file.py holds the SQL; this module decides which days, in which thread, and what an error means.
"""

import asyncio
import logging
import re
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

from gateway.readings import Reading, Value
from gateway.store import Query, Series, StoreStats, StoreUnavailable
from gateway.stores.buckets import Buckets
from gateway.stores.day_file import DAY_MS, DayReader, DayWriter

logger = logging.getLogger(__name__)
T = TypeVar("T")

READER_THREADS = 2
OPEN_WRITERS = 4  # today, yesterday's stragglers, tomorrow's fast clocks, one to spare
OPEN_READERS = 32  # a thread: a month of days; each holds three to four file descriptors
STATS_AGE_S = 30.0
COUNT_LIMIT_BYTES = 512 * 2**20  # counting reads the file: 0.2 to 0.4 s at this size; larger ones are not counted
_FILE_NAME = re.compile(r"\d{4}-\d\d-\d\d\.db")
_EPOCH = date(1970, 1, 1).toordinal()
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedOptions:
    """`synchronous`: "full" keeps every finished write at power failure, "normal" at a crash of the program only."""

    directory: Path
    retention_days: int = 30
    synchronous: Literal["full", "normal"] = "full"


class EmbeddedStore:
    """Readings in SQLite files of one UTC day each."""

    visible_after_s = 0.0

    def __init__(self, options: EmbeddedOptions, *, now_ms: Callable[[], int] | None = None) -> None:
        self._options = options
        self._now_ms = now_ms or _wall_clock_ms
        self._days: dict[int, int] = {}  # day -> generation of its file; replaced, never changed: readers look at it
        self._writers: OrderedDict[int, DayWriter] = OrderedDict()
        self._swept_on = -1
        self._lock: sqlite3.Connection | None = None
        self._write_thread: ThreadPoolExecutor | None = None
        self._read_threads: ThreadPoolExecutor | None = None
        self._readers = _Readers(self._path)
        self._counts: dict[int, tuple[object, int]] = {}
        self._stats: tuple[float, StoreStats] | None = None

    async def open(self) -> None:
        """Take the directory. Raises StoreUnavailable when another process has it or it cannot be made."""
        self._write_thread = ThreadPoolExecutor(1, "store-writer")
        self._read_threads = ThreadPoolExecutor(READER_THREADS, "store-reader")
        try:
            await self._in(self._write_thread, self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is under way and let go of the files."""
        writer, readers = self._write_thread, self._read_threads
        self._write_thread = self._read_threads = None
        if writer is not None and readers is not None:
            await asyncio.to_thread(readers.shutdown)
            await self._in(writer, self._close)
            await asyncio.to_thread(writer.shutdown)

    async def write(self, readings: Sequence[Reading]) -> None:
        """One commit a day touched (mostly one)."""
        await self._in(self._write_thread, self._write, readings)

    async def query(self, query: Query) -> dict[str, Series]:
        answer = self._raw if query.width_ms is None else self._buckets
        return await self._read(lambda: answer(query))

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        return await self._read(lambda: self._latest(device_id))

    async def delete_device(self, device_id: str) -> None:
        await self._in(self._write_thread, self._delete_device, device_id)

    async def stats(self) -> StoreStats:
        """At most 30 s old."""
        if self._stats is None or time.monotonic() - self._stats[0] > STATS_AGE_S:
            self._stats = (time.monotonic(), await self._read(self._take_stats))
        return self._stats[1]

    # -- threads and errors

    async def _in(self, executor: Executor | None, work: Callable[..., T], *arguments: Any) -> T:
        if executor is None:
            raise StoreUnavailable("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._options.directory}: {error}") from error

    async def _read(self, work: Callable[[], T]) -> T:
        """Run a query; files it finds damaged are set aside, and it is run again without them."""
        while True:
            try:
                return await self._in(self._read_threads, work)
            except _DamagedFileError as damaged:
                await self._in(self._write_thread, self._set_aside, damaged.day, damaged.generation, damaged.reason)

    # -- in the writer thread

    def _open(self) -> None:
        directory = self._options.directory
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = sqlite3.connect(directory / "lock", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"{directory} is in use by another process") from error
        names = (path.stem for path in directory.iterdir() if _FILE_NAME.fullmatch(path.name))
        self._days = {date.fromisoformat(name).toordinal() - _EPOCH: 0 for name in names}
        self._sweep()

    def _close(self) -> None:
        self._readers.close()
        while self._writers:
            self._writers.popitem()[1].close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write(self, readings: Sequence[Reading]) -> None:
        self._sweep()
        oldest = self._oldest_day()
        by_day: dict[int, list[Reading]] = {}
        expired = 0
        for reading in readings:
            day = reading.ts_ms // DAY_MS
            if day < oldest:
                expired += 1
            elif day in by_day:
                by_day[day].append(reading)
            else:
                by_day[day] = [reading]
        if expired:
            logger.debug("%d readings older than %d days forgotten", expired, self._options.retention_days)
        for day, rows in sorted(by_day.items()):
            self._on_day(day, lambda writer, rows=rows: writer.write(rows))  # type: ignore[misc]

    def _delete_device(self, device_id: str) -> None:
        for day in sorted(self._days):
            self._on_day(day, lambda writer: writer.delete_device(device_id))

    def _on_day(self, day: int, work: Callable[[DayWriter], None]) -> None:
        try:
            work(self._writer(day))
        except sqlite3.Error as error:
            self._forget_writer(day)  # an I/O error may have left it unusable; the next try opens it again
            if not _is_damage(error):
                raise
            self._set_aside(day, self._days.get(day, 0), str(error))
            work(self._writer(day))

    def _writer(self, day: int) -> DayWriter:
        writer = self._writers.get(day)
        if writer is None:
            while len(self._writers) >= OPEN_WRITERS:
                self._writers.popitem(last=False)[1].close()
            writer = self._writers[day] = DayWriter(self._path(day), self._options.synchronous)
            if day not in self._days:
                self._days = {**self._days, day: 0}
        self._writers.move_to_end(day)
        return writer

    def _forget_writer(self, day: int) -> None:
        writer = self._writers.pop(day, None)
        if writer is not None:
            try:
                writer.close()
            except sqlite3.Error as error:
                logger.debug("%s: closing: %s", self._path(day), error)

    def _set_aside(self, day: int, generation: int, reason: str) -> None:
        if self._days.get(day, generation) != generation:
            return  # somebody else met the damage first
        self._forget_writer(day)
        path = self._path(day)
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
        for suffix in ("", "-wal", "-shm"):
            piece = path.with_name(path.name + suffix)
            if piece.exists():
                piece.rename(aside.with_name(aside.name + suffix))
        self._days = {**self._days, day: generation + 1}
        # an empty file again, so that readers find one
        self._writer(day)
        logger.error(
            "%s is damaged (%s): set aside as %s, readings of that day are missing from answers. "
            "`sqlite3 %s .recover` may bring them back",
            path,
            reason,
            aside.name,
            aside.name,
        )

    def _sweep(self) -> None:
        """Delete days past retention; once a day."""
        oldest = self._oldest_day()
        if oldest == self._swept_on:
            return
        gone = [day for day in self._days if day < oldest]
        self._days = {day: generation for day, generation in self._days.items() if day >= oldest}
        for day in gone:
            self._forget_writer(day)
            path = self._path(day)
            for suffix in ("-wal", "-shm", ""):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            logger.info("%s: deleted, older than %d days", path.name, self._options.retention_days)
        self._swept_on = oldest

    # -- in reader threads

    def _raw(self, query: Query) -> dict[str, Series]:
        found: dict[str, list[tuple[int, Value]]] = {}  # newest first
        for day in reversed(self._days_of(query)):
            with self._reader(day) as reader:
                for metric, sid in reader.series(query.device_id, query.metrics).items():
                    points = found.setdefault(metric, [])
                    if len(points) < query.limit:
                        points += reader.raw(sid, query.start_ms, query.end_ms, query.limit - len(points))
        return {
            metric: Series(t=[ts for ts, _ in reversed(points)], v=[value for _, value in reversed(points)])
            for metric, points in found.items()
            if points
        }

    def _buckets(self, query: Query) -> dict[str, Series]:
        width_ms = query.width_ms
        assert width_ms is not None  # noqa: S101 # query() chose by it
        found: dict[str, Buckets] = {}
        for day in self._days_of(query):
            with self._reader(day) as reader:
                for metric, sid in reader.series(query.device_id, query.metrics).items():
                    parts = reader.parts(
                        sid,
                        query.aggregate,
                        query.start_ms,
                        query.end_ms,
                        origin_ms=query.start_ms,
                        width_ms=width_ms,
                    )
                    if parts and metric not in found:
                        found[metric] = Buckets(query.aggregate, query.start_ms, width_ms)
                    for part in parts:
                        found[metric].add(*part)
        return {metric: buckets.series() for metric, buckets in found.items()}

    def _latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        found: dict[str, tuple[int, Value]] = {}
        for day in reversed(self._kept_days()):
            with self._reader(day) as reader:
                # a seek a series; days before may hold a metric that has gone silent since
                found = {**reader.latest(device_id), **found}
        return found

    def _take_stats(self) -> StoreStats:
        points: int | None = 0
        size_bytes = 0
        for day in sorted(self._days):
            path = self._path(day)
            marks = [_mark(path.with_name(path.name + suffix)) for suffix in ("", "-wal")]
            size = sum(mark[0] for mark in marks)
            size_bytes += size
            known = self._counts.get(day)
            if known is None or known[0] != marks:
                if size > COUNT_LIMIT_BYTES:
                    points = None
                    continue
                with self._reader(day) as reader:
                    known = self._counts[day] = (marks, reader.count())
            points = None if points is None else points + known[1]
        self._counts = {day: known for day, known in self._counts.items() if day in self._days}
        oldest = min(self._days, default=None)
        return StoreStats(
            kind="embedded",
            points=points,
            size_bytes=size_bytes,
            oldest_ms=None if oldest is None else oldest * DAY_MS,
        )

    @contextmanager
    def _reader(self, day: int) -> Iterator[DayReader]:
        generation = self._days.get(day, 0)
        try:
            yield self._readers.get(day, generation)
        except sqlite3.Error as error:
            if _is_damage(error):
                raise _DamagedFileError(day, generation, str(error)) from error
            raise

    # -- days

    def _days_of(self, query: Query) -> list[int]:
        first, last = query.start_ms // DAY_MS, (query.end_ms - 1) // DAY_MS
        return [day for day in self._kept_days() if first <= day <= last]

    def _kept_days(self) -> list[int]:
        """In order; without those past retention, whether their files are gone yet or not."""
        oldest = self._oldest_day()
        return sorted(day for day in self._days if day >= oldest)

    def _oldest_day(self) -> int:
        return self._now_ms() // DAY_MS - self._options.retention_days

    def _path(self, day: int) -> Path:
        return self._options.directory / f"{date.fromordinal(day + _EPOCH).isoformat()}.db"


class _DamagedFileError(Exception):
    """A query met a file that SQLite cannot read."""

    def __init__(self, day: int, generation: int, reason: str) -> None:
        super().__init__(reason)
        self.day = day
        self.generation = generation
        self.reason = reason


class _Readers:
    """Open reading connections, a few for each reader thread."""

    def __init__(self, path: Callable[[int], Path]) -> None:
        self._path = path
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
            known = mine[day] = (generation, DayReader(self._path(day)))
        mine.move_to_end(day)
        return known[1]

    def close(self) -> None:
        """Close all; only when no reader thread runs."""
        for mine in self._all:
            while mine:
                mine.popitem()[1][1].close()
        self._all.clear()
        self._own = threading.local()


def _is_damage(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED


def _mark(path: Path) -> tuple[int, int]:
    """Size and time of change, to see that a file is as it was."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000

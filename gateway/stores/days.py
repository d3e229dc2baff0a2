"""The files of a store, one a UTC day: who writes them, what is kept for how long, what is sealed when. Synchronous.

All of it belongs to the one thread that writes, but for `kept_since_ms`, `kept` and `path`, which others ask too.
"""

import itertools
import logging
import re
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

from gateway.frames import Frame
from gateway.store import StoreUnavailable
from gateway.stores.day_file import DAY_MS
from gateway.stores.day_upgrade import upgrade
from gateway.stores.day_writer import DayWriter
from gateway.stores.holdings import Holdings

logger = logging.getLogger(__name__)
T = TypeVar("T")

OPEN_WRITERS = 4  # today, yesterday's stragglers, tomorrow's fast clocks, one to spare
SLICE_S = 0.02  # of sealing between two writes
BEHIND_SERIES = 2_000  # that are ripe: then slices are ten times as long, or answers would have ever more to read
LIMIT_CHECK_S = 1.0  # some 10 MB at full speed; a look at 400 files costs 2 ms
GRACE_MS = 3_600_000  # a day is sealed whole so long after its end: stragglers have come by then
_FILE_NAME = re.compile(r"\d{4}-\d\d-\d\d\.db")
_ASIDE_NAME = re.compile(r"\d{4}-\d\d-\d\d\.db\.damaged-(\d+)")
_EPOCH = date(1970, 1, 1).toordinal()
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Retention:
    """For how many days readings are kept: by default, and of devices that have a number of their own."""

    def __init__(self, days: int, days_of: Callable[[str], int | None] | None, now_ms: Callable[[], int]) -> None:
        self._days = days
        self._days_of = days_of
        self.now_ms = now_ms

    @property
    def is_the_same_for_all(self) -> bool:
        return self._days_of is None

    def oldest_day(self, device_id: str | None = None) -> int:
        """The first day that is kept of a device; without one, by default."""
        days = None if device_id is None or self._days_of is None else self._days_of(device_id)
        return self.now_ms() // DAY_MS - (self._days if days is None else days)


class Days:
    """The days of one directory."""

    def __init__(
        self, directory: Path, retention: Retention, *, synchronous: str, limit_bytes: int | None = None
    ) -> None:
        self.holdings = Holdings()
        self.dropped = 0
        """Days deleted to stay within the limit."""
        self._directory = directory
        self._retention = retention
        self._synchronous = synchronous
        self._limit_bytes = limit_bytes
        self._over_limit = ""
        self._looked_at_limit = 0.0
        self._generations: dict[int, int] = {}  # of each day's file; replaced, never changed: readers look at it
        self._files = itertools.count(1)  # a file deleted and made again is another one: readers may have the old open
        self._writers: OrderedDict[int, DayWriter] = OrderedDict()
        self._whole: set[int] = set()  # days that are over and sealed whole, as far as is known
        self._swept_on = -1
        self._lock: sqlite3.Connection | None = None

    # -- what readers ask too

    def kept_since_ms(self, device_id: str) -> int:
        """The first moment of which readings of a device are kept."""
        return self._retention.oldest_day(device_id) * DAY_MS

    def kept(self, device_id: str | None = None) -> list[int]:
        """In order; without those past the device's retention, whether their files are gone yet or not."""
        days = sorted(self._generations)
        if device_id is None and not self._retention.is_the_same_for_all:
            return days
        oldest = self._retention.oldest_day(device_id)
        return [day for day in days if day >= oldest]

    def generation(self, day: int) -> int | None:
        """Another number when the day has got another file; None while it has none."""
        return self._generations.get(day)

    def path(self, day: int) -> Path:
        return self._directory / f"{date.fromordinal(day + _EPOCH).isoformat()}.db"

    def asides(self) -> list[Path]:
        """Damaged files that were set aside, the one that was first of all first."""
        found = ((_ASIDE_NAME.fullmatch(path.name), path) for path in self._directory.iterdir())
        return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]

    # -- the writing thread's

    def open(self) -> None:
        """Take the directory. Raises StoreUnavailable when another process has it; OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = sqlite3.connect(self._directory / "lock", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"{self._directory} is in use by another process") from error
        days = (_day_of(path) for path in self._directory.iterdir())
        self._generations = {day: 0 for day in days if day is not None}
        for day in sorted(self._generations):
            try:
                if upgrade(self.path(day)):
                    logger.info("%s: brought to this version's layout", self.path(day).name)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self.set_aside(day, 0, str(error))
        self.sweep()

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, frames: Sequence[Frame]) -> None:
        """One commit a day touched (mostly one)."""
        self.sweep()
        if self._limit_bytes is not None and time.monotonic() - self._looked_at_limit > LIMIT_CHECK_S:
            self.keep_within_limit()
        if self._over_limit:
            raise StoreUnavailable(self._over_limit)
        for day, some in sorted(self._by_day(frames).items()):
            self.on_day(day, lambda writer, some=some: writer.write(some))  # type: ignore[misc]
            self._whole.discard(day)

    def delete_device(self, device_id: str) -> None:
        days = self.holdings.days_of(device_id).union(self.holdings.unknown(self._generations))
        for day in sorted(days.intersection(self._generations)):
            self.on_day(day, lambda writer: writer.delete_device(device_id))
            self.holdings.forget_device(day, device_id)

    def seal_some(self) -> bool:
        """Seal series that are ripe, for some 20 ms; whether there are more."""
        until = time.monotonic() + SLICE_S
        for day, writer in list(self._writers.items()):
            if writer.ripe_series > BEHIND_SERIES:
                until += 9 * SLICE_S
            while writer.ripe:
                if time.monotonic() > until:
                    return True
                self.on_day(day, DayWriter.seal_next)
        return False

    def seal_whole(self, day: int) -> bool:
        """Seal a slice of all that a day holds, and give back what space that frees; whether there is more to do."""
        if day in self._generations and self.on_day(day, _seal_whole):
            return True
        self._whole.add(day)
        return False

    def days_over(self) -> list[int]:
        """Days that have ended and are not known to be sealed whole."""
        today = (self._retention.now_ms() - GRACE_MS) // DAY_MS
        return [day for day in self.kept() if day < today and day not in self._whole]

    def sweep(self) -> None:
        """Forget what is past its retention; once a day."""
        oldest = self._retention.oldest_day()
        if oldest == self._swept_on:
            return
        if self._retention.is_the_same_for_all:
            for day in [day for day in sorted(self._generations) if day < oldest]:
                self._delete(day)
                logger.info("%s: deleted, past its retention", self.path(day).name)
        else:
            self._sweep_by_device(oldest)
        self._swept_on = oldest

    def _sweep_by_device(self, oldest: int) -> None:
        for day in self.holdings.unknown(self._generations):
            self.on_day(day, DayWriter.series)  # opening it learns them
        expired, kept = self.holdings.expired(self._retention.oldest_day)
        for day in sorted(self._generations):
            if day < oldest and day not in kept:
                self._delete(day)
                logger.info("%s: deleted, past the retention of all in it", self.path(day).name)
                continue
            for device_id in expired.get(day, ()):
                self.on_day(day, lambda writer, device_id=device_id: writer.delete_device(device_id))  # type: ignore[misc]
                self.holdings.forget_device(day, device_id)
                self._whole.discard(day)

    def keep_within_limit(self) -> None:
        """Delete files set aside, then the oldest days, but today's, until all together are within the limit."""
        limit = self._limit_bytes
        if limit is None:
            return
        self._looked_at_limit = time.monotonic()
        today = self._retention.now_ms() // DAY_MS
        sizes = {day: self.size(day) for day in sorted(self._generations)}
        asides = {path: size_of_all(pieces_of(path)) for path in self.asides()}
        total = sum(sizes.values()) + sum(asides.values())
        for path in asides:
            if total <= limit:
                break
            _unlink(path)
            total -= asides[path]
            words = "%s: deleted, to keep the store within its limit of %d MiB; it was damaged and set aside"
            logger.warning(words, path.name, limit // 2**20)
        for day in [day for day in sizes if day < today]:
            if total <= limit:
                break
            self._delete(day)
            self.dropped += 1
            total -= sizes[day]
            words = "%s: deleted before its retention ended, to keep the store within its limit of %d MiB"
            logger.warning(words, self.path(day).name, limit // 2**20)
        self._over_limit = ""
        if total > limit:
            self._over_limit = f"today's readings alone are over the limit of {limit // 2**20} MiB: see store.limit_mib"

    def seal_today(self) -> bool:
        """Where today's readings alone are over the limit: seal a slice of them; whether there is more to do."""
        return bool(self._over_limit) and self.seal_whole(self._retention.now_ms() // DAY_MS)

    def size(self, day: int) -> int:
        """In bytes, the log with it."""
        return size_of_all(pieces_of(self.path(day)))

    def set_aside(self, day: int, generation: int | None, reason: str) -> None:
        """Give a damaged file another name and the day an empty one; unless that was done since `generation`."""
        if self._generations.get(day) != generation:
            return  # somebody else met the damage first
        self._forget_writer(day)
        path = self.path(day)
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
        for suffix in ("", "-wal", "-shm"):
            piece = path.with_name(path.name + suffix)
            if piece.exists():
                piece.rename(aside.with_name(aside.name + suffix))
        self._generations = {**self._generations, day: next(self._files)}
        self.holdings.forget_day(day)
        self._writer(day)  # an empty file again, so that readers find one
        logger.error(
            "%s is damaged (%s): set aside as %s, readings of that day are missing from answers. "
            "`sqlite3 %s .recover` may bring them back",
            path,
            reason,
            aside.name,
            aside.name,
        )

    def on_day(self, day: int, work: Callable[[DayWriter], T]) -> T:
        """Do it with the day's writer; where its file turns out to be damaged, with that of a new one."""
        try:
            return work(self._writer(day))
        except sqlite3.Error as error:
            self._forget_writer(day)  # an I/O error may have left it unusable; the next try opens it again
            if not is_damage(error):
                raise
            self.set_aside(day, self._generations.get(day), str(error))
            return work(self._writer(day))

    # -- private

    def _by_day(self, frames: Sequence[Frame]) -> dict[int, list[Frame]]:
        """Without readings past their retention."""
        by_day: dict[int, list[Frame]] = {}
        oldest = self._retention.oldest_day()
        same_for_all = self._retention.is_the_same_for_all
        expired = 0
        for frame in frames:
            for day, part in _parts(frame):
                if (day < oldest or not same_for_all) and day < self._retention.oldest_day(frame.device_id):
                    expired += part.size
                elif day in by_day:
                    by_day[day].append(part)
                else:
                    by_day[day] = [part]
        if expired:
            logger.debug("%d readings past their retention forgotten", expired)
        return by_day

    def _writer(self, day: int) -> DayWriter:
        writer = self._writers.get(day)
        if writer is None:
            while len(self._writers) >= OPEN_WRITERS:
                self._writers.popitem(last=False)[1].close()
            writer = self._writers[day] = DayWriter(
                self.path(day), self._synchronous, lambda series: self.holdings.add(day, series)
            )
            self.holdings.learn(day, writer.series())
            if day not in self._generations:
                self._generations = {**self._generations, day: next(self._files)}
        self._writers.move_to_end(day)
        return writer

    def _forget_writer(self, day: int) -> None:
        writer = self._writers.pop(day, None)
        if writer is not None:
            try:
                writer.close()
            except sqlite3.Error as error:
                logger.debug("%s: closing: %s", self.path(day), error)

    def _delete(self, day: int) -> None:
        self._generations = {other: number for other, number in self._generations.items() if other != day}
        self._whole.discard(day)
        self._forget_writer(day)
        self.holdings.forget_day(day)
        _unlink(self.path(day))


def _day_of(path: Path) -> int | None:
    """Of a day's file its day; other files have none."""
    try:
        return date.fromisoformat(path.stem).toordinal() - _EPOCH if _FILE_NAME.fullmatch(path.name) else None
    except ValueError:  # no such day
        return None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is to blame, and stays so."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED


def mark_of(path: Path) -> tuple[int, int]:
    """Size and time of change, to see that a file is as it was."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def pieces_of(path: Path) -> list[Path]:
    """A file and its log."""
    return [path, path.with_name(path.name + "-wal")]


def size_of_all(paths: Sequence[Path]) -> int:
    """In bytes; of files that are there."""
    return sum(mark_of(path)[0] for path in paths)


def _unlink(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _parts(frame: Frame) -> "Sequence[tuple[int, Frame]]":
    """A frame with its day; one that goes over midnight in parts."""
    times = frame[2]
    if len(times) == 1:
        return ((times[0] // DAY_MS, frame),)
    first, last = min(times) // DAY_MS, max(times) // DAY_MS
    if first == last:
        return ((first, frame),)
    places: dict[int, list[int]] = {}
    for place, ts_ms in enumerate(times):
        places.setdefault(ts_ms // DAY_MS, []).append(place)
    found: list[tuple[int, Frame]] = []
    for day, some in places.items():
        columns = [[column[place] for place in some] for column in frame.columns]
        found.append((day, Frame(frame.device_id, frame.metrics, [times[place] for place in some], columns)))
    return found


def _seal_whole(writer: DayWriter) -> bool:
    """A slice of sealing a whole day; whether there is more."""
    until = time.monotonic() + SLICE_S

    def enough() -> bool:
        return time.monotonic() > until

    if writer.seal_whole(enough):
        return True
    while writer.give_back():
        if enough():
            return True
    writer.fold_log()
    return False

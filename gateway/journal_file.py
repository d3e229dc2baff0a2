"""The journal's file: SQLite in WAL mode, one row a group of messages. It blocks: gateway/journal.py uses threads.

A row's body is its frames in JSON, deflated; zlib's checksum tells a damaged row from a sound one. One statement a row,
and one for all new kinds of a group: in CPython every statement gives the GIL away and waits up to 5 ms for it beside a
busy event loop, so rows are few and large.

A file that SQLite cannot read is set aside, never deleted; what can be read of it moves into a new one.
"""

import contextlib
import errno
import logging
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import orjson

from gateway.frames import Frame, frames_of, size_of
from gateway.journal_wal import mend_wal
from gateway.kinds import Fixed
from gateway.readings import Kind, Reading
from gateway.recent import EVERY_DEVICE, Summary, device_bits

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

Synchronous = Literal["FULL", "NORMAL"]

_VERSION = 2
"""1 had a row's readings as four columns; such rows are still read."""
_ROW_OVERHEAD_BYTES = 64
_NO_NUMBER = 2**53
"""Rows are numbered far below; what is not is damage."""
_RESERVE_BYTES = 256 * 1024
_SCHEMA = """
CREATE TABLE row (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- AUTOINCREMENT: a number is never used twice, erasures rely on it
    at_ms INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    devices BLOB NOT NULL,  -- which devices may be in the body (recent.device_bits), deflated
    body BLOB NOT NULL      -- last, so that reading the other columns skips its pages
);
CREATE TABLE kind (device_id TEXT NOT NULL, metric TEXT NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (device_id, metric)) WITHOUT ROWID;
CREATE TABLE erasure (device_id TEXT PRIMARY KEY, upto INTEGER NOT NULL, waits INTEGER NOT NULL) WITHOUT ROWID;
"""
_SELECT = "SELECT seq, at_ms, readings, first_ms, last_ms, bytes, devices, body FROM row"
_INSERT = "INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FIX = (
    "INSERT OR IGNORE INTO kind "
    "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)"
)


class JournalError(Exception):
    """The journal cannot take or give readings."""


class JournalLocked(JournalError):
    """Another process has the journal open."""


class JournalTooNew(JournalError):
    """The journal was written by a later version of the program."""


class JournalUnwritable(JournalError):
    """The disk is full or failing; nothing of the group was stored. `disk_full` says which."""

    def __init__(self, detail: str, *, disk_full: bool) -> None:
        super().__init__(detail)
        self.disk_full = disk_full


class _Damaged(Exception):
    """SQLite reads the file, but it cannot be what was written."""


class StoredRow(NamedTuple):
    """One row read back."""

    seq: int
    at_ms: int
    frames: list[Frame]


class Erasure(NamedTuple):
    """Readings of a device up to row `upto` are void; `waits` while the store has not forgotten them either."""

    device_id: str
    upto: int
    waits: bool


class JournalFile:
    """An open journal. `write`, `forget`, `erase` share one thread; `read` has another; `kinds_of` is the loop's."""

    def __init__(self, path: Path, *, synchronous: Synchronous = "FULL", now_ms: int = 0) -> None:
        """Open or create. Raises JournalLocked, JournalTooNew or JournalUnwritable; a corrupt file is set aside."""
        self.path = path
        self.damaged_rows = 0
        self.set_aside: Path | None = None
        self.summaries: list[Summary] = []
        """Of the rows found at opening, oldest first; the caller takes them over."""
        self._synchronous = synchronous
        self._reserve = path.with_name(path.name + ".reserve")
        self._lock = _lock(path)
        try:
            self._mend_wal()
            try:
                self._open()
            except (sqlite3.DatabaseError, UnicodeDecodeError, _Damaged) as error:  # UnicodeDecodeError: of the schema
                self._close_connections()
                if isinstance(error, sqlite3.Error) and not _is_corrupt(error):
                    raise
                self._start_anew(now_ms, error)
        except sqlite3.Error as error:
            self.close()
            raise _unwritable(error) from error
        except OSError as error:
            self.close()
            raise JournalUnwritable(str(error), disk_full=error.errno == errno.ENOSPC) from error
        except BaseException:
            self.close()
            raise
        self._make_reserve()

    def close(self) -> None:
        self._close_connections()
        self._lock.close()

    # ---- the writer's thread

    def write(self, seq: int, at_ms: int, frames: Sequence[Frame], fixed: Sequence[Fixed]) -> Summary:
        """Store one group durably as row `seq`. Raises JournalUnwritable; then nothing of it is stored."""
        body = zlib.compress(orjson.dumps({"frames": list(map(tuple, frames))}), 1)
        devices = device_bits([frame.device_id for frame in frames])
        packed = zlib.compress(devices.to_bytes(1024, "little"), 1)
        first_ms = min([min(frame.times) for frame in frames])
        last_ms = max([max(frame.times) for frame in frames])
        size = len(body) + len(packed) + _ROW_OVERHEAD_BYTES
        summary = Summary(seq, at_ms, size_of(frames), first_ms, last_ms, size, devices)
        if not fixed:
            # A statement alone is a transaction, and two turns of waiting for the GIL fewer.
            with self._careful():
                self._writer.execute(_INSERT, (*summary[:6], packed, body))
            return summary
        with self._transaction() as database:
            database.execute(_INSERT, (*summary[:6], packed, body))
            database.execute(_FIX, (_triples(fixed),))
        return summary

    def fix(self, fixed: Sequence[Fixed]) -> None:
        """Keep kinds of metrics whose readings do not come this way. Raises JournalUnwritable."""
        with self._careful():
            self._writer.execute(_FIX, (_triples(fixed),))

    def forget(self, upto: int) -> None:
        """Drop the rows up to `upto`, which the store has, and give their pages back to the file system.

        Works on a full disk too: a deletion needs room in the write-ahead log, and the reserve gives it.
        """
        try:
            self._forget(upto)
            self._give_back()
        except JournalUnwritable as error:
            if not error.disk_full:
                raise
            with contextlib.suppress(OSError):
                self._reserve.unlink()
            self._forget(upto)
            with contextlib.suppress(JournalUnwritable, sqlite3.Error):
                self._give_back()
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._make_reserve()

    def erase(self, device_id: str, upto: int) -> None:
        """Make the device's readings up to row `upto` void, and forget its kinds."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO erasure VALUES (?, ?, 1)", (device_id, upto))
            database.execute("DELETE FROM kind WHERE device_id = ?", (device_id,))

    def erased(self, device_id: str, upto: int) -> None:
        """The store has forgotten the device too."""
        with self._transaction() as database:
            database.execute("UPDATE erasure SET waits = 0 WHERE device_id = ? AND upto = ?", (device_id, upto))

    # ---- other threads

    def read(self, after: int, limit_readings: int, upto: int | None = None) -> list[StoredRow]:
        """Rows after `after` in order (to `upto`), at least one and up to about `limit_readings` readings.

        A damaged row is reported, counted and given empty, so that it holds nobody up.
        """
        rows: list[StoredRow] = []
        total = 0
        last = self._last_seq() if upto is None else upto
        while after < last and (not rows or total < limit_readings):
            try:
                found = self._reader.execute(
                    "SELECT seq, at_ms, readings, body FROM row WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1",
                    (after, last),
                ).fetchone()
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise JournalError(str(error)) from error
                found = (after + 1, 0, 0, b"")  # pages of this row cannot be read: step over it
            if found is None:
                break
            after = found[0]
            total += found[2] or 0
            rows.append(StoredRow(after, found[1], self._unpack(after, found[3])))
        return rows

    def kinds_of(self, device_id: str) -> dict[str, Kind]:
        """The kinds of a device's metrics. Raises JournalError."""
        try:
            rows = self._kinds.execute("SELECT metric, kind FROM kind WHERE device_id = ?", (device_id,)).fetchall()
        except sqlite3.Error as error:
            raise JournalError(str(error)) from error
        return {metric: Kind(kind) for metric, kind in rows}

    def erasures(self) -> list[Erasure]:
        rows = self._reader.execute("SELECT device_id, upto, waits FROM erasure").fetchall()
        return [Erasure(device_id, upto, bool(waits)) for device_id, upto, waits in rows]

    def last_number(self) -> int:
        """The highest row number ever used."""
        row = self._reader.execute("SELECT seq FROM sqlite_sequence WHERE name = 'row'").fetchone()
        return row[0] if row else 0

    # ---- private

    def _forget(self, upto: int) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM row WHERE seq <= ?", (upto,))
            database.execute("DELETE FROM erasure WHERE upto <= ? AND NOT waits", (upto,))

    def _give_back(self) -> None:
        # 4 MiB at most a call: the disk may be wanted by a commit that waits behind this. executescript, since
        # execute() takes only the first of this pragma's steps.
        try:
            self._writer.executescript("PRAGMA incremental_vacuum(1024)")
        except sqlite3.Error as error:
            raise _unwritable(error) from error

    def _make_reserve(self) -> None:
        """Hold some space back, really written; without it a disk filled by the journal could never be emptied."""
        try:
            if not self._reserve.exists():
                self._reserve.write_bytes(b"\xff" * _RESERVE_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink()

    def _last_seq(self) -> int:
        row = self._reader.execute("SELECT max(seq) FROM row").fetchone()
        return row[0] or 0

    def _mend_wal(self) -> None:
        wal = self.path.with_name(self.path.name + "-wal")
        found = mend_wal(wal)
        if found.given_up:
            logger.error("%s: its header is damaged beyond help: what was written last is lost", wal)
        elif found.damaged:
            logger.error("%s: damaged in %d places, what was written after them is kept", wal, found.damaged)
        if found.torn:
            logger.warning("%s: its last %d pages are not whole: a commit broken off, or damaged", wal, found.torn)

    def _open(self) -> None:
        self._writer = self._connect()
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise JournalTooNew(f"{self.path}: written by a later version of the program (format {version})")
        if version == 0:
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA journal_size_limit = 67108864")
        if version == 0:
            self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version < _VERSION:
            self._writer.execute(f"PRAGMA user_version = {_VERSION}")
        self._reader = self._connect()
        self._kinds = self._connect()
        self.summaries = [
            _summary(row)
            for row in self._reader.execute(
                "SELECT seq, at_ms, readings, first_ms, last_ms, bytes, devices FROM row ORDER BY seq"
            )
        ]
        numbers = [0, *(summary.seq for summary in self.summaries), self.last_number() + 1]
        if any(number >= following for number, following in pairwise(numbers)):
            raise _Damaged("the numbers of its rows are out of order")
        self._kinds.execute("SELECT device_id, metric, kind FROM kind LIMIT 1").fetchone()
        self.erasures()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        database.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Debian builds SQLite so that it overwrites what is deleted: twice the writing, and none on a full disk.
        database.execute("PRAGMA secure_delete = OFF")
        return database

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._careful():
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer
            self._writer.execute("COMMIT")

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        """All or nothing; raises JournalUnwritable."""
        try:
            yield
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            failure = _unwritable(error)
            if not failure.disk_full:
                # After a failed fsync the kernel may hold pages it will never write again; a new connection begins
                # with what the file really says.
                with contextlib.suppress(sqlite3.Error):
                    self._writer.close()
                    self._writer = self._connect()
            raise failure from error

    def _unpack(self, seq: int, body: bytes | None) -> list[Frame]:
        try:
            document = orjson.loads(zlib.decompress(body or b""))
            if isinstance(document, list):  # written by version 1
                return frames_of(map(Reading, *document))
            return [Frame(device_id, tuple(names), *rest) for device_id, names, *rest in document["frames"]]
        except (zlib.error, ValueError, TypeError):
            self.damaged_rows += 1
            logger.error("%s: row %d is damaged, its readings are lost (%d bytes)", self.path, seq, len(body or b""))
            return []

    def _start_anew(self, now_ms: int, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{now_ms}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(aside.with_name(aside.name + suffix))
        self.set_aside = aside
        self.summaries = []
        self._open()
        rows = self._salvage(aside)
        logger.error(
            "%s was corrupt (%s): set aside as %s, %d rows could be read back from it", self.path, error, aside, rows
        )

    def _salvage(self, aside: Path) -> int:
        """Copy what can be read of the file set aside; returns how many rows that was."""
        count = 0
        _lengthen(aside)
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError), contextlib.closing(sqlite3.connect(aside)) as old:
            for query, insert in (
                ("SELECT device_id, metric, kind FROM kind", "INSERT OR IGNORE INTO kind VALUES (?, ?, ?)"),
                ("SELECT device_id, upto, waits FROM erasure", "INSERT OR IGNORE INTO erasure VALUES (?, ?, ?)"),
            ):
                with contextlib.suppress(sqlite3.Error):
                    self._writer.executemany(insert, _until_error(old.execute(query)))
            # From both ends: what lies behind a damaged page is not behind it on the way back.
            found: dict[int, Summary] = {}
            for order in ("ASC", "DESC"):
                with contextlib.suppress(sqlite3.Error):
                    for row in _until_error(old.execute(f"{_SELECT} ORDER BY seq {order}")):
                        if row[0] in found:
                            break
                        with contextlib.suppress(zlib.error, sqlite3.Error, TypeError):
                            if not 0 < row[0] < _NO_NUMBER:
                                continue
                            zlib.decompress(row[7])
                            self._writer.execute(_INSERT, row)
                            found[row[0]] = _summary(row)
            self.summaries = [found[seq] for seq in sorted(found)]
            count = len(found)
            # Numbers of lost rows are not given out again either: an erasure may reach up to them.
            used = old.execute("SELECT seq FROM sqlite_sequence WHERE name = 'row'").fetchone()
            if used and max(found, default=0) < used[0] < _NO_NUMBER:
                self._writer.execute("DELETE FROM sqlite_sequence WHERE name = 'row'")
                self._writer.execute("INSERT INTO sqlite_sequence VALUES ('row', ?)", used)
        return count

    def _close_connections(self) -> None:
        for name in ("_reader", "_kinds", "_writer"):  # the writer last: its close folds the WAL into the file
            connection = self.__dict__.pop(name, None)
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()


def _summary(row: Sequence[Any]) -> Summary:
    seq, at_ms, readings, first_ms, last_ms, size = row[:6]
    try:
        devices = int.from_bytes(zlib.decompress(row[6]), "little")
    except (zlib.error, TypeError):
        # Damaged: its readings may be sound all the same, of any device and time. Whoever asks looks into it.
        return Summary(seq, at_ms or 0, readings or 0, 0, 1 << 62, size or 0, EVERY_DEVICE)
    return Summary(seq, at_ms, readings, first_ms, last_ms, size, devices)


def _lengthen(path: Path) -> None:
    """Give a file that was cut short its length back, in zeros: SQLite reads none that lacks pages."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        header = file.read(32)
        pages, page_size = int.from_bytes(header[28:32], "big"), int.from_bytes(header[16:18], "big")
        if pages * page_size > path.stat().st_size:
            file.truncate(pages * page_size)  # a hole: it takes no room


def _until_error(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    with contextlib.suppress(sqlite3.Error):
        yield from rows


def _triples(fixed: Sequence[Fixed]) -> str:
    """What _FIX takes."""
    return orjson.dumps([list(one) for one in fixed]).decode()


def _primary_code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _is_corrupt(error: sqlite3.Error) -> bool:
    # SQLITE_ERROR stands for "no such table": a file of SQLite's, but not (or no longer) one of ours.
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _unwritable(error: sqlite3.Error) -> JournalUnwritable:
    return JournalUnwritable(str(error), disk_full=_primary_code(error) == sqlite3.SQLITE_FULL)


def _lock(path: Path) -> IO[bytes]:
    """Hold a lock beside the file for as long as the returned file is open; it goes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.with_name(path.name + ".lock").open("ab")
    try:
        if sys.platform == "win32":
            msvcrt.locking(held.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise JournalLocked(f"{path}: another process has this journal open; stop it first") from error
    return held

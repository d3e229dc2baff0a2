"""The file of broker/native/store.py: SQLite in WAL mode, one statement a commit. It blocks: the Store has a thread.

CPython gives the GIL away at every call into SQLite and waits up to 5 ms for it beside a busy event loop, so what
counts is the number of calls. All operations of a commit go in as one JSON text of numbers and one blob of keys and
records joined; SQLite cuts that up, and a view's triggers do with each row what its first number says. As this is one
statement, it is a transaction too. Measured with SQLite 3.40 on two cores and ext4, `full`, records of 150 bytes, alone
and beside a thread that computes without a pause:

                                                 alone      beside it
    100,000 deliveries, as described             0.44 s     0.48 s
    100,000 of them row by row (executemany)     0.37 s     5,000 took 3.6 s
    50 put and 50 deleted, as described          0.9 ms     6 ms
    the same with a statement for each kind      0.8 ms     17 ms
    the same row by row                          0.7 ms     72 ms

Keys are stored as bytes: SQLite 3.40 cuts JSON strings at U+0000.

A disk may be full. A file of 1 MiB beside ours holds room back, which a commit may have that deletes more than it puts.

Each record has a checksum, of its key and number too. One that does not fit at opening is moved to the table `damaged`,
said at ERROR and counted: a session, with what waits for it; a delivery; a retained message. The rest is used.

A file that is damaged as such, or gone while its log is there, is refused and left as it is. A new one is made under
another name and then renamed, so that there is never half a file.
"""

import contextlib
import logging
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from broker.errors import PersistenceError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

FILE_NAME = "broker.db"
LOCK_NAME = "broker.lock"
RESERVE_NAME = "broker.reserve"
VERSION = 2

Operation = tuple[int, str, int, bytes | None]
"""What to do (one of the numbers below), the client id or topic, a delivery's seq (or 0), and the record to put."""

FORGET_CLIENT = 0
DELETE_DELIVERY = 1
PUT_DELIVERY = 2
PUT_SESSION = 3
DELETE_RETAINED = 4
PUT_RETAINED = 5

_SCHEMA = """
CREATE TABLE session (client BLOB PRIMARY KEY, record BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE delivery (client BLOB NOT NULL, seq INTEGER NOT NULL, record BLOB NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (client, seq));
CREATE TABLE retained (topic BLOB PRIMARY KEY, record BLOB NOT NULL, checksum INTEGER NOT NULL);
"""
_SCHEMA_2 = "CREATE TABLE damaged (what TEXT NOT NULL, key BLOB NOT NULL, seq INTEGER NOT NULL, record BLOB NOT NULL);"
_UPGRADE = f"""
BEGIN IMMEDIATE;
{_SCHEMA_2}
ALTER TABLE session ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE retained ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE session SET checksum = checksum(client, 0, record);
UPDATE delivery SET checksum = checksum(client, seq, record);
UPDATE retained SET checksum = checksum(topic, 0, record);
PRAGMA user_version = 2;
COMMIT;
"""  # noqa: S608
_OPERATIONS = """
CREATE TEMP VIEW operation AS SELECT 0 AS action, x'' AS key, 0 AS seq, x'' AS record, 0 AS checksum;
CREATE TEMP TRIGGER forget_client INSTEAD OF INSERT ON operation WHEN new.action = 0 BEGIN
    DELETE FROM delivery WHERE client = new.key;
    DELETE FROM session WHERE client = new.key;
END;
CREATE TEMP TRIGGER delete_delivery INSTEAD OF INSERT ON operation WHEN new.action = 1 BEGIN
    DELETE FROM delivery WHERE client = new.key AND seq = new.seq;
END;
CREATE TEMP TRIGGER put_delivery INSTEAD OF INSERT ON operation WHEN new.action = 2 BEGIN
    INSERT INTO delivery (client, seq, record, checksum) VALUES (new.key, new.seq, new.record, new.checksum)
    ON CONFLICT (client, seq) DO UPDATE SET record = excluded.record, checksum = excluded.checksum;
END;
CREATE TEMP TRIGGER put_session INSTEAD OF INSERT ON operation WHEN new.action = 3 BEGIN
    INSERT INTO session (client, record, checksum) VALUES (new.key, new.record, new.checksum)
    ON CONFLICT (client) DO UPDATE SET record = excluded.record, checksum = excluded.checksum;
END;
CREATE TEMP TRIGGER delete_retained INSTEAD OF INSERT ON operation WHEN new.action = 4 BEGIN
    DELETE FROM retained WHERE topic = new.key;
END;
CREATE TEMP TRIGGER put_retained INSTEAD OF INSERT ON operation WHEN new.action = 5 BEGIN
    INSERT INTO retained (topic, record, checksum) VALUES (new.key, new.record, new.checksum)
    ON CONFLICT (topic) DO UPDATE SET record = excluded.record, checksum = excluded.checksum;
END;
"""
_APPLY = """INSERT INTO operation
    SELECT json_extract(value, '$[0]'), substr(?2, json_extract(value, '$[1]'), json_extract(value, '$[2]')),
        json_extract(value, '$[3]'), substr(?2, json_extract(value, '$[4]'), json_extract(value, '$[5]')),
        json_extract(value, '$[6]')
    FROM json_each(?1)"""

Place = tuple[str, bytes, int]
"""Where a record is: the table, the key, the number."""
_COLUMNS = {"session": ("client", "0"), "delivery": ("client", "seq"), "retained": ("topic", "0")}
_ASIDE_LIMIT = 1000  # damaged records kept to be looked at
_TOLD_LIMIT = 20  # a line each; the others are in the last line

#: A statement's share of a huge commit; SQLite takes no blob beyond 1 GB, and each is in memory three times.
_SLICE_BYTES = 32 * 1024 * 1024
_SLICE_ROWS = 250_000
#: Pages of 4 KiB left free in the file for what comes next.
_SPARE_PAGES = 1024
_TIDY_S = 0.05
#: A deletion needs room in the log first: without this a disk filled with a backlog stays full when that is delivered.
_RESERVE_BYTES = 1024 * 1024
_RECLAIM_S = 2.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: "no such table"
_ASIDE = "move it aside, with the files whose names begin with its, to start without what it kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was on disk at opening. Deliveries are (seq, record) in order of seq; a client may have them alone."""

    sessions: dict[str, bytes] = field(default_factory=dict)
    deliveries: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    retained: dict[str, bytes] = field(default_factory=dict)
    damaged: int = 0
    """How many more there were, and are set aside."""


class StoreFile:
    """One directory's file, ours alone from `open` to `close`, and until the process ends at the latest."""

    def __init__(self, directory: Path, synchronous: Literal["full", "normal"]) -> None:
        self.path = directory.absolute() / FILE_NAME
        self._reserve = self.path.with_name(RESERVE_NAME)
        self._synchronous = synchronous
        self._lock: IO[bytes] | None = None
        self._database: sqlite3.Connection | None = None

    def open(self) -> Kept:
        """Lock, make or check, and read everything. Raises PersistenceError; then nothing is held."""
        try:
            self._lock = _lock(self.path.parent)
            if not self.path.exists():
                _create(self.path)
            _check_header(self.path)
            self._database = self._connect()
            self._upgrade(self._database)
            kept = self._read(self._database)
            self._make_reserve()
            return kept
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise PersistenceError(self.path, _advice(error)) from error
            raise

    def commit(self, operations: Callable[[], Iterable[Operation]]) -> None:
        """Do all that `operations` gives, in order; on disk on return. Raises sqlite3.Error; then none is done."""
        try:
            self._commit(operations())
        except sqlite3.Error as error:
            if _code(error) != sqlite3.SQLITE_FULL or not self._reserve.exists() or not _shrinking(operations()):
                raise
            self._reserve.unlink()
            try:
                self._commit(operations())
                self._reclaim()
            finally:
                self._make_reserve()

    def tidy(self) -> bool:
        """Give free pages back to the file system for a moment; True while there are more. Raises sqlite3.Error."""
        if self._database is None:
            return False
        more = self._shrink(self._database, _SPARE_PAGES, _TIDY_S)
        self._make_reserve()
        return more

    def close(self) -> None:
        """Let go of file and lock. May be called twice."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        held, self._lock = self._lock, None
        if held is not None:
            held.close()

    def _commit(self, operations: Iterable[Operation]) -> None:
        if self._database is None:
            self._database = self._connect()
        database = self._database
        slices = _packed(operations)
        try:
            first, second = next(slices, None), next(slices, None)
            if first is None:
                return
            if second is None:
                database.execute(_APPLY, first)
                return
            database.execute("BEGIN IMMEDIATE")
            for packed in chain((first, second), slices):
                database.execute(_APPLY, packed)
            database.execute("COMMIT")
        except BaseException as error:
            self._recover(database, error)
            raise

    def _shrink(self, database: sqlite3.Connection, spare_pages: int, limit_s: float) -> bool:
        """Cut free pages off the file; True if there are more than `spare_pages` left when the time is over.

        By the clock, since SQLite hands the GIL over at every page: beside a busy event loop these are few.
        """
        started = time.monotonic()
        shrunk = False
        while more := database.execute("PRAGMA freelist_count").fetchone()[0] > spare_pages:
            if time.monotonic() - started > limit_s:
                break
            database.executescript("PRAGMA incremental_vacuum(16)")  # execute() would take the first page only
            shrunk = True
        if shrunk:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return bool(more)

    def _reclaim(self) -> None:
        """Make room on a full disk of what a commit has freed."""
        with contextlib.suppress(sqlite3.Error):
            if self._database is not None:
                # First cut the file: what is beyond its end need not be copied there from the log.
                self._shrink(self._database, 0, _RECLAIM_S)
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _make_reserve(self) -> None:
        """Hold some space back, really written, if there is that much."""
        try:
            if not self._reserve.exists():
                self._reserve.touch(mode=0o600)
                self._reserve.write_bytes(b"\xff" * _RESERVE_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink()

    def _recover(self, database: sqlite3.Connection, error: BaseException) -> None:
        code = _code(error)
        with contextlib.suppress(sqlite3.Error):
            if database.in_transaction:
                database.execute("ROLLBACK")
            if code == sqlite3.SQLITE_FULL:
                # What is in the log already moves into the file, so that the log's space can be written over.
                database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            # After a failed fsync the kernel may hold pages it will never write again: begin anew from the file.
            self._database = None
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that has gone is an error, never made anew
        database = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=2.0
        )
        try:
            database.execute(f"PRAGMA synchronous = {self._synchronous}")
            database.execute("PRAGMA temp_store = MEMORY")  # the operations on their way from the blob to the tables
            database.execute("PRAGMA wal_autocheckpoint = 1000")
            database.execute("PRAGMA journal_size_limit = 16777216")
            # Debian builds SQLite so that it overwrites what is deleted: twice the writing.
            database.execute("PRAGMA secure_delete = OFF")
            database.executescript(_OPERATIONS)
            database.executescript("BEGIN IMMEDIATE; COMMIT;")  # says so when the file is read-only
        except BaseException:
            database.close()
            raise
        return database

    def _upgrade(self, database: sqlite3.Connection) -> None:
        """From format 1, whose records had no checksum."""
        version = database.execute("PRAGMA user_version").fetchone()[0]
        _check_version(self.path, version)
        if version < VERSION:
            database.create_function("checksum", 3, _checksum)
            database.executescript(_UPGRADE)

    def _read(self, database: sqlite3.Connection) -> Kept:
        execute = database.execute
        found = execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise PersistenceError(self.path, f"is damaged ({' '.join(found.split())}); {_ASIDE}")
        damaged: list[Place] = []
        found_in = {
            what: _sound(execute(f"SELECT {key}, {seq}, record, checksum FROM {what}"), what, damaged)  # noqa: S608
            for what, (key, seq) in _COLUMNS.items()
        }
        sessions = {key: record for key, _, record in found_in["session"]}
        lost = {key for _, key, _ in damaged}
        deliveries: dict[bytes, list[tuple[int, bytes]]] = {}
        for client, seq, record in found_in["delivery"]:
            if client not in lost:
                deliveries.setdefault(client, []).append((seq, record))
        for waiting in deliveries.values():
            waiting.sort()
        retained = {key: record for key, _, record in found_in["retained"]}
        if damaged:
            self._set_aside(database, damaged)
        return Kept(
            sessions=_text_keys(sessions.items()),
            deliveries=_text_keys(deliveries.items()),
            retained=_text_keys(retained.items()),
            damaged=len(damaged),
        )

    def _set_aside(self, database: sqlite3.Connection, damaged: list[Place]) -> None:
        """Out of the way; with a session what waits for it."""
        for what, key, seq in damaged[:_TOLD_LIMIT]:
            logger.error("%s: a record is damaged and set aside: %s %.70r, number %r", self.path, what, key, seq)
        logger.error("%s: %d records were damaged; what they kept is lost", self.path, len(damaged))
        database.execute("BEGIN IMMEDIATE")
        for what, key, seq in damaged:
            self._move(database, what, "= ?", (key, seq))
            if what == "session":
                self._move(database, "delivery", ">= ?", (key, 0))
        database.execute("DELETE FROM damaged WHERE rowid <= (SELECT max(rowid) FROM damaged) - ?", (_ASIDE_LIMIT,))
        database.execute("COMMIT")

    def _move(self, database: sqlite3.Connection, what: str, compared: str, place: tuple[bytes, int]) -> None:
        key, seq = _COLUMNS[what]
        rows = f"FROM {what} WHERE {key} = ? AND {seq} {compared}"
        database.execute(f"INSERT INTO damaged SELECT '{what}', {key}, {seq}, record {rows}", place)
        database.execute(f"DELETE {rows}", place)


def _packed(operations: Iterable[Operation]) -> Iterator[tuple[str, bytes]]:
    """The parameters of _APPLY, a slice at a time: rows of numbers, and the blob into which they point from 1 on."""
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    parts: list[bytes] = []
    keys: dict[str, tuple[int, int]] = {}
    checksums: dict[str, int] = {}
    end = 1
    for action, key, seq, record in operations:
        place = keys.get(key)
        if place is None:
            encoded = key.encode("utf-8", "surrogatepass")
            parts.append(encoded)
            place = keys[key] = (end, len(encoded))
            checksums[key] = zlib.crc32(encoded)
            end += len(encoded)
        if record is None:
            rows.append((action, *place, seq, 1, 0, 0))
        else:
            parts.append(record)
            checksum = zlib.crc32(record, checksums[key] ^ seq & 0xFFFFFFFF)  # as `_checksum`
            rows.append((action, *place, seq, end, len(record), checksum))
            end += len(record)
        if end > _SLICE_BYTES or len(rows) >= _SLICE_ROWS:
            yield orjson.dumps(rows).decode(), b"".join(parts)
            rows, parts, keys, checksums, end = [], [], {}, {}, 1
    if rows:
        yield orjson.dumps(rows).decode(), b"".join(parts)


def _shrinking(operations: Iterable[Operation]) -> bool:
    return sum(1 if record is None else -1 for _, _, _, record in operations) > 0


def _checksum(key: bytes, seq: int, record: bytes) -> int:
    return zlib.crc32(record, zlib.crc32(key) ^ seq & 0xFFFFFFFF)


def _sound(rows: Iterable[Any], what: str, damaged: list[Place]) -> Iterator[tuple[bytes, int, bytes]]:
    """Key, number and record of those whose checksum fits; the others go to `damaged`."""
    for key, seq, record, checksum in rows:
        is_ours = isinstance(key, bytes) and isinstance(seq, int) and isinstance(record, bytes)
        if is_ours and checksum == _checksum(key, seq, record):
            yield key, seq, record
        else:
            damaged.append((what, key, seq))


def _text_keys(rows: Iterable[tuple[bytes, Any]]) -> dict[str, Any]:
    return {key.decode("utf-8", "surrogatepass"): value for key, value in rows}


def _lock(directory: Path) -> IO[bytes]:
    """Make the directory and hold a lock in it for as long as the returned file is open; it goes with the process."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.fdopen(os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise PersistenceError(
            directory, f"cannot be used ({error.strerror or error}); name a directory that this user can write to"
        ) from error
    try:
        if sys.platform == "win32":
            msvcrt.locking(held.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise PersistenceError(directory, "is in use by another broker; stop it first, or name another") from error
    return held


def _create(path: Path) -> None:
    """Make an empty file of the newest version, whole or not at all."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise PersistenceError(path, f"is not there, but {log.name} is: put it back, or move that aside too")
    new = path.with_name(path.name + ".new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(f"BEGIN; {_SCHEMA} {_SCHEMA_2} PRAGMA user_version = {VERSION}; COMMIT;")
    new.replace(path)
    if sys.platform != "win32":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _check_header(path: Path) -> None:
    """Refuse before SQLite touches anything: not a database, or of a newer version (SQLite's file format, 1.3)."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\x00"):
        raise PersistenceError(path, f"is damaged (this is no SQLite file); {_ASIDE}")
    _check_version(path, int.from_bytes(header[60:64], "big"))


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise PersistenceError(
            path, f"was written by a newer version (format {version}, this one reads {VERSION}); use that, or {_ASIDE}"
        )
    if version < 1:
        raise PersistenceError(path, f"is damaged (this is no file of the broker's); {_ASIDE}")


def _code(error: BaseException) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _advice(error: sqlite3.Error | OSError) -> str:
    code = _code(error)
    if code in _DAMAGE:
        return f"is damaged ({error}); {_ASIDE}"
    if code == sqlite3.SQLITE_BUSY:
        return f"is in use by another program ({error}); end that first"
    if code == sqlite3.SQLITE_FULL:
        return f"cannot be opened ({error}); make room"
    return f"cannot be read and written ({error}); check the disk, and that this user may write there"

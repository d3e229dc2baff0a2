"""The writing connection of a day's file: laying down what comes, sealing it, and all else that changes the file."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from gateway.readings import Value
from gateway.store import StoreRejected, StoreUnavailable
from gateway.stores.chunk import Column, DamagedChunk, column_of, decode, encode, merged
from gateway.stores.day_file import (
    SCHEMA,
    SCHEMA_VERSION,
    Group,
    devices_in,
    loose_columns,
    sealed_rows,
    select_loose,
    select_sealed,
)
from gateway.stores.rollup import rollups

CHUNK_READINGS = 8192
RIPE_READINGS = 2_000
"""Loose readings of a series that are worth a chunk of their own."""
RIPE_BLOCKS = 500
"""Loose blocks of a series that an answer may have to read: as many rows."""
#: Rows to a statement: each size is prepared once and kept.
_ROWS = (1000, 100, 10, 1)
_SIDS = 500  # to a statement


class DayWriter:
    """The one writing connection of a day's file."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
        try:
            self._prepare(synchronous)
            self._sids = {(device, metric): sid for sid, device, metric in self._all_series()}
            sql = """SELECT json_group_array(json_array(sid, blocks, readings)) FROM (
                SELECT sid, count(*) AS blocks, sum(readings) AS readings FROM loose GROUP BY sid)"""
            self.loose: dict[int, list[int]] = {sid: counts for sid, *counts in orjson.loads(self._one(sql))}
            """By series: how many loose blocks, and how many readings in them."""
            self._seq = self._one("SELECT coalesce(max(seq), 0) FROM loose")
        except BaseException:
            self._connection.close()
            raise
        self.ripe: dict[int, None] = {sid: None for sid, counts in self.loose.items() if _is_ripe(counts)}
        """Series to be sealed, in the order in which they became ripe."""

    def _prepare(self, synchronous: str) -> None:
        execute = self._connection.execute
        version = self._one("PRAGMA user_version")
        if version == 0:
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {synchronous}")
        execute("PRAGMA busy_timeout = 5000")
        execute("PRAGMA cache_size = -16384")
        # Rows land at the end of every series, on pages all over the file: fewer checkpoints write them fewer times.
        execute("PRAGMA wal_autocheckpoint = 8000")
        # Debian builds SQLite so that it overwrites what is deleted: twice the writing.
        execute("PRAGMA secure_delete = OFF")
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise StoreUnavailable(f"a file of readings has schema {version}, this program knows {SCHEMA_VERSION}")

    def _one(self, sql: str, arguments: Any = ()) -> Any:
        return self._connection.execute(sql, arguments).fetchone()[0]

    def _all_series(self) -> Any:
        return orjson.loads(self._one("SELECT json_group_array(json_array(sid, device, metric)) FROM series"))

    def write(self, groups: Mapping[tuple[str, str], Group]) -> None:
        """Store all in one transaction. Raises StoreRejected (bad value, nothing stored) or sqlite3's errors."""
        new: dict[tuple[str, str], int] = {}
        rows: list[tuple[int, int, int, int, int, str]] = []
        seq = self._seq + 1
        for key, (times, values) in groups.items():
            sid = self._sids.get(key)
            if sid is None:
                sid = new[key] = len(self._sids) + len(new) + 1
            rows.append((sid, min(times), seq, max(times), len(times), _body(times, values)))
        rows.sort()
        with self._transaction():
            self._insert("series(sid, device, metric)", [(sid, *key) for key, sid in new.items()])
            self._insert("loose(sid, first_ms, seq, last_ms, readings, body)", rows)
        self._seq = seq
        self._sids.update(new)
        for row in rows:
            counts = self.loose.setdefault(row[0], [0, 0])
            counts[0] += 1
            counts[1] += row[4]
            if row[0] not in self.ripe and _is_ripe(counts):
                self.ripe[row[0]] = None

    def seal(self, sids: Sequence[int], *, whole_day: bool = False) -> None:
        """Make chunks of what these series have loose; with `whole_day`, of as few chunks as may be.

        All or nothing. A chunk that cannot be read stays as it is, and what lies over it stays loose.
        """
        for at in range(0, len(sids), _SIDS):
            self._seal(sids[at : at + _SIDS], whole_day=whole_day)

    def _seal(self, sids: Sequence[int], *, whole_day: bool) -> None:
        chosen = f"sid IN ({','.join(map(str, sids))})"
        found = loose_columns(self._one(select_loose(chosen)))
        if whole_day:
            sealed = sealed_rows(self._one(select_sealed(chosen)))
        else:
            ranges = " OR ".join(
                f"(sid = {sid} AND first_ms <= {column.times[-1]} AND last_ms >= {column.times[0]})"
                for sid, column in found.items()
            )
            sealed = sealed_rows(self._one(select_sealed(ranges or "0")))
        gone: list[tuple[int, int]] = []
        rows: list[tuple[Any, ...]] = []
        done: list[int] = []
        for sid in sids:
            column = found.get(sid)
            try:
                for one in sealed.get(sid, ()):
                    older = decode(one.data)
                    column = older if column is None else merged(older, column)
            except DamagedChunk:
                continue
            done.append(sid)
            if column is None:
                continue
            gone += [(sid, one.first_ms) for one in sealed.get(sid, ())]
            rows += _chunks(sid, column)
        if not done:
            return
        with self._transaction():
            self._connection.execute(f"DELETE FROM loose WHERE sid IN ({','.join(map(str, done))})")  # noqa: S608
            for at in range(0, len(gone), _SIDS):
                pairs = ",".join(f"({sid},{first_ms})" for sid, first_ms in gone[at : at + _SIDS])
                self._connection.execute(f"DELETE FROM chunk WHERE (sid, first_ms) IN (VALUES {pairs})")  # noqa: S608
            self._insert("chunk(sid, first_ms, last_ms, readings, hours, minutes, body)", rows)
        for sid in sids:  # those that could not be sealed are not tried for ever
            self.ripe.pop(sid, None)
        for sid in done:
            self.loose.pop(sid, None)

    def unsealed(self) -> list[int]:
        """Series that sealing the whole day would change: with loose readings, or in more chunks than they need."""
        sql = f"""SELECT json_group_array(sid) FROM (SELECT sid FROM loose GROUP BY sid UNION SELECT sid FROM chunk
            GROUP BY sid HAVING count(*) > (sum(readings) + {CHUNK_READINGS - 1}) / {CHUNK_READINGS})"""  # noqa: S608
        found: list[int] = orjson.loads(self._one(sql))
        return found

    def give_back(self, pages: int = 1000) -> bool:
        """Give pages that are free back to the file system, the log at last; whether there are more."""
        self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        if self._one("PRAGMA freelist_count"):
            return True
        self._one("PRAGMA wal_checkpoint(TRUNCATE)")
        return False

    def fold_log(self) -> None:
        """Bring the log into the file and give its space back, unless somebody reads: then another time."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.execute("PRAGMA busy_timeout = 5000")

    def delete_device(self, device_id: str) -> None:
        """Forget a device's readings. Its series stay as names without readings: sids are counted, never reused."""
        sids = "SELECT sid FROM series WHERE device = ?"
        with self._transaction():
            for table in ("loose", "chunk"):
                self._connection.execute(f"DELETE FROM {table} WHERE sid IN ({sids})", (device_id,))  # noqa: S608
        for (device, _), sid in self._sids.items():
            if device == device_id:
                self.loose.pop(sid, None)
                self.ripe.pop(sid, None)

    def devices(self) -> list[str]:
        """Devices that have readings here."""
        return devices_in(self._connection)

    def is_empty(self) -> bool:
        return not self._one("SELECT EXISTS (SELECT 1 FROM loose) OR EXISTS (SELECT 1 FROM chunk)")

    def copy(self, target: Path) -> None:
        """A consistent copy of the file as it is now."""
        self._connection.execute("VACUUM INTO ?", (str(target),))

    def close(self) -> None:
        """Bring the log into the file as far as readers allow, and close."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, target: str, rows: Sequence[tuple[Any, ...]]) -> None:
        done = 0
        for size in _ROWS:
            while len(rows) - done >= size:
                values = [value for row in rows[done : done + size] for value in row]
                try:
                    self._connection.execute(_insert_sql(target, size), values)
                except (UnicodeEncodeError, OverflowError) as error:
                    raise StoreRejected("a name that is not valid Unicode, or a time beyond 64 bits") from error
                done += size


def _is_ripe(counts: Sequence[int]) -> bool:
    return counts[0] >= RIPE_BLOCKS or counts[1] >= RIPE_READINGS


def _body(times: list[int], values: list[Value]) -> str:
    """Raises StoreRejected for what JSON cannot hold."""
    try:
        text = orjson.dumps((times, values))
    except (TypeError, ValueError) as error:
        raise StoreRejected(f"text that is not valid Unicode, or an integer beyond 64 bits: {error}") from error
    if b"null" in text and None in orjson.loads(text)[1]:
        raise StoreRejected("a number that is not finite")
    return text[1:-1].decode()


def _chunks(sid: int, column: Column) -> Iterator[tuple[Any, ...]]:
    """Rows of `chunk`."""
    times, values = column.times.tolist(), column.values()
    # of about one size, none larger than CHUNK_READINGS
    pieces = -(-len(times) // CHUNK_READINGS)
    size = -(-len(times) // pieces)
    for at in range(0, len(times), size):
        some, of_them = times[at : at + size], values[at : at + size]
        hours, minutes = rollups(column_of(some, of_them))
        yield sid, some[0], some[-1], len(some), hours, minutes, encode(some, of_them)


@lru_cache(maxsize=32)
def _insert_sql(target: str, rows: int) -> str:
    places = f"({','.join('?' * (target.count(',') + 1))})"
    return f"INSERT INTO {target} VALUES {','.join([places] * rows)}"  # noqa: S608 # constants

"""The writing connection of a day's file: laying down what comes, sealing it, and all else that changes the file."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from gateway.readings import Value
from gateway.store import StoreRejected, StoreUnavailable
from gateway.stores.chunk import Column, DamagedChunk, concatenated, is_sound
from gateway.stores.day_file import (
    SCHEMA,
    SCHEMA_VERSION,
    Group,
    devices_in,
    read_loose,
    sealed_rows,
    select_sealed,
    where_keys,
)
from gateway.stores.sealing import (
    BEFORE,
    CHUNK_READINGS,
    SMALL_READINGS,
    WINDOW_READINGS,
    folded_in,
    joined_up,
    next_to_join,
)

RIPE_READINGS = 2_000
"""Loose readings of a series that are worth a chunk of their own."""
RIPE_BLOCKS = 500
"""Loose blocks of a series that an answer may have to read: as many rows."""
#: Rows to a statement: each size is prepared once and kept.
_ROWS = (1000, 100, 10, 1)
_KEYS = 500  # to a statement
_SERIES = 8  # sealed in one transaction


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
        self._to_seal: list[int] | None = None  # these two of `seal_whole`, while it is under way
        self._to_join: list[int] = []
        self._damaged: set[tuple[int, int]] = set()  # chunks that cannot be joined: (sid, first_ms)

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

    def seal(self, sids: Sequence[int]) -> None:
        """Make chunks of what these series have loose, all or nothing: some at a time, this holds all of it.

        A damaged block or chunk stays as it is, and what lies over such a chunk stays loose.
        """
        damaged: list[tuple[int, int]] = []
        chosen = f"sid IN ({','.join(map(str, sids))})"
        found = read_loose(self._connection, chosen, damaged=lambda sid, seq, _: damaged.append((sid, seq)))
        seq = self._seq + 1
        gone: list[tuple[int, int]] = []
        rows: list[tuple[Any, ...]] = []
        left: list[tuple[Any, ...]] = []
        sealed = sealed_rows(self._one(select_sealed(" OR ".join(map(_around, found, found.values())) or "0")))
        for sid, column in found.items():
            change = folded_in(column, sealed.get(sid, ()))
            gone += [(sid, first_ms) for first_ms in change.gone]
            rows += [(sid, *row) for row in change.rows]
            if change.left:
                rest = concatenated(change.left)
                times = rest.times.tolist()
                left.append((sid, times[0], seq, times[-1], len(times), _body(times, list(rest.values()))))
        kept = "".join(f" AND NOT (sid = {sid} AND seq = {number})" for sid, number in damaged)
        with self._transaction():
            self._connection.execute(f"DELETE FROM loose WHERE {chosen}{kept}")  # noqa: S608
            self._replace(gone, rows)
            self._insert("loose(sid, first_ms, seq, last_ms, readings, body)", left)
        self._seq = seq
        for sid in sids:
            self.ripe.pop(sid, None)
            self.loose.pop(sid, None)

    def seal_whole(self, enough: Callable[[], bool] = lambda: False) -> bool:
        """Seal all that lies loose, and join chunks to as few as may be; whether there is more to do, once `enough`."""
        if self._to_seal is None:
            self._to_seal = self.unsealed()
        while self._to_seal or self._to_join:
            if not self._to_join:
                self._to_join = self._to_seal[-_SERIES:]
                self.seal(self._to_join)
                del self._to_seal[-_SERIES:]
            else:
                self._to_join = self._join(self._to_join)
            if enough():
                return True
        self._to_seal = None
        return False

    def _join(self, sids: Sequence[int]) -> list[int]:
        """Join runs of these series' chunks, a window's worth in all; the series that may have more."""
        sql = f"""SELECT json_group_array(json_array(sid, first_ms, readings)) FROM chunk
            WHERE sid IN ({",".join(map(str, sids))})"""  # noqa: S608
        chunks: dict[int, list[tuple[int, int]]] = {}
        for sid, first_ms, readings in sorted(orjson.loads(self._one(sql))):
            chunks.setdefault(sid, []).append((first_ms, readings))
        again: list[int] = []
        ranges: list[str] = []
        room = WINDOW_READINGS
        for sid, some in chunks.items():
            run = next_to_join(some, frozenset(first_ms for other, first_ms in self._damaged if other == sid))
            if not run:
                continue
            again.append(sid)
            if room > 0:
                ranges.append(f"sid = {sid} AND first_ms BETWEEN {run[0]} AND {run[-1]}")
                room -= sum(map(dict(some).__getitem__, run))
        gone: list[tuple[int, int]] = []
        rows: list[tuple[Any, ...]] = []
        for sid, sealed in sealed_rows(self._one(select_sealed(" OR ".join(ranges) or "0"))).items():
            try:
                change = joined_up(sealed)
            except DamagedChunk:
                self._damaged.update((sid, one.first_ms) for one in sealed if not is_sound(one.data))
                continue
            gone += [(sid, first_ms) for first_ms in change.gone]
            rows += [(sid, *row) for row in change.rows]
        if rows:
            with self._transaction():
                self._replace(gone, rows)
        return again

    def _replace(self, gone: Sequence[tuple[int, int]], rows: Sequence[tuple[Any, ...]]) -> None:
        for at in range(0, len(gone), _KEYS):
            self._connection.execute(f"DELETE FROM chunk WHERE {where_keys(gone[at : at + _KEYS])}")  # noqa: S608
        self._insert("chunk(sid, first_ms, last_ms, readings, hours, minutes, body)", rows)

    def unsealed(self) -> list[int]:
        """Series that sealing the whole day would change: with loose readings, or in more chunks than they need."""
        sql = f"""SELECT json_group_array(sid) FROM (SELECT sid FROM loose GROUP BY sid UNION SELECT sid FROM chunk
            GROUP BY sid HAVING count(*) > (sum(readings) + {CHUNK_READINGS - 1}) / {CHUNK_READINGS})"""  # noqa: S608
        found: list[int] = orjson.loads(self._one(sql))
        return found

    def give_back(self, pages: int = 1000) -> bool:
        """Give pages that are free back to the file system; whether there are more."""
        self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        return bool(self._one("PRAGMA freelist_count"))

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


def _around(sid: int, loose: Column) -> str:
    """The chunks that `folded_in` wants to see: those it lies over, and the small ones right before it."""
    older = f"SELECT first_ms FROM chunk WHERE sid = {sid} AND first_ms <= {loose.times[0]}"  # noqa: S608
    large = f"coalesce(({older} AND readings >= {SMALL_READINGS} ORDER BY first_ms DESC LIMIT 1), 0)"
    many = f"coalesce(({older} ORDER BY first_ms DESC LIMIT 1 OFFSET {BEFORE}), 0)"
    small = f"readings < {SMALL_READINGS} AND first_ms >= max({large}, {many})"
    return f"sid = {sid} AND first_ms <= {loose.times[-1]} AND (last_ms >= {loose.times[0]} OR {small})"


def _body(times: list[int], values: list[Value]) -> str:
    """Raises StoreRejected for what JSON cannot hold."""
    try:
        text = orjson.dumps((times, values))
    except (TypeError, ValueError) as error:
        raise StoreRejected(f"text that is not valid Unicode, or an integer beyond 64 bits: {error}") from error
    if b"null" in text and None in orjson.loads(text)[1]:
        raise StoreRejected("a number that is not finite")
    return text[1:-1].decode()


@lru_cache(maxsize=32)
def _insert_sql(target: str, rows: int) -> str:
    places = f"({','.join('?' * (target.count(',') + 1))})"
    return f"INSERT INTO {target} VALUES {','.join([places] * rows)}"  # noqa: S608 # constants

"""One UTC day of readings in one SQLite file: its schema, writing a batch, and the queries. Synchronous.

`points(sid, ts, v)` WITHOUT ROWID holds the readings in the order they are asked for; `series` gives the sids. A
file knows all it needs by itself, so a day is dropped by deleting it, and a damaged one costs no other day. (Sealed
chunks, later, would be one more table in a closed day's file.)

A value keeps its type through SQLite's own: INTEGER and REAL are numbers, TEXT is text, and a boolean is a BLOB of one
byte, since SQLite has no type for it and 1 must not come back for True.

Every statement here does much in one step. Python's sqlite3 gives the GIL up and takes it back at every row stepped,
and beside a busy event loop each of these waits cost up to 5 ms: 100,000 rows by executemany took 44 s. Hence rows
go in 1,000 to a statement, and answers come back as one JSON text a series. SQLite's quote() writes a REAL with as
many digits as it needs to be the same number again.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from gateway.readings import Reading, Value
from gateway.store import Aggregate, StoreRejected, StoreUnavailable
from gateway.stores.buckets import ANY_KIND

SCHEMA_VERSION = 1
DAY_MS = 86_400_000
_SCHEMA = """
CREATE TABLE series (sid INTEGER PRIMARY KEY, device TEXT NOT NULL, metric TEXT NOT NULL, UNIQUE (device, metric));
CREATE TABLE points (sid INTEGER NOT NULL, ts INTEGER NOT NULL, v NOT NULL, PRIMARY KEY (sid, ts)) WITHOUT ROWID;
"""
#: Rows to a statement: each size is prepared once and kept.
_ROWS = (1000, 100, 10, 1)
_BOOLEANS = {False: b"\x00", True: b"\x01"}
_JSON_VALUE = """CASE typeof(v) WHEN 'text' THEN json_quote(v) WHEN 'blob' THEN iif(v = x'01', 'true', 'false')
    ELSE quote(v) END"""
_RANGE = "FROM points WHERE sid = :sid AND ts >= :start AND ts < :end"
_RAW = f"""SELECT '[' || group_concat('[' || ts || ',' || {_JSON_VALUE} || ']') || ']'
    FROM (SELECT ts, v {_RANGE} ORDER BY ts DESC LIMIT :limit)"""  # noqa: S608 # constants, here and below
_LATEST = f"""SELECT '[' || group_concat('[' || sid || ',' || ts || ',' || {_JSON_VALUE} || ']') || ']' FROM (
    SELECT s.sid, p.ts, p.v FROM series s JOIN points p
    ON p.sid = s.sid AND p.ts = (SELECT max(ts) FROM points WHERE sid = s.sid) WHERE s.device = ?)"""  # noqa: S608
_PARTS = {
    Aggregate.MEAN: "total(v) AS v",
    Aggregate.SUM: "total(v) AS v",  # total, not sum: a sum of large integers overflows with an error
    Aggregate.MIN: "min(v) AS v",
    Aggregate.MAX: "max(v) AS v",
    Aggregate.COUNT: "0 AS v",
    Aggregate.LAST: "v",  # SQLite takes a bare column from the row that gave max()
}

#: (bucket, count, value, newest ts): see Buckets.add.
Part = tuple[int, int, Value, int]


class DayWriter:
    """The one writing connection of a day's file."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=16)
        try:
            self._prepare(synchronous)
            self._sids = {(device, metric): sid for sid, device, metric in self._all_series()}
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, synchronous: str) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {synchronous}")
        execute("PRAGMA busy_timeout = 5000")
        execute("PRAGMA cache_size = -16384")
        # Rows land at the end of every series, on pages all over the file: fewer checkpoints write them fewer times.
        execute("PRAGMA wal_autocheckpoint = 8000")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise StoreUnavailable(f"a file of readings has schema {version}, this program knows {SCHEMA_VERSION}")

    def _all_series(self) -> Any:
        sql = "SELECT json_group_array(json_array(sid, device, metric)) FROM series"
        return orjson.loads(self._connection.execute(sql).fetchone()[0])

    def write(self, readings: Iterable[Reading]) -> None:
        """Store all in one transaction. Raises StoreRejected (bad value, nothing stored) or sqlite3's errors."""
        new: dict[tuple[str, str], int] = {}
        rows: dict[tuple[int, int], Value | bytes] = {}
        for device_id, metric, ts_ms, value in readings:
            key = (device_id, metric)
            sid = self._sids.get(key) or new.get(key)
            if sid is None:
                sid = new[key] = len(self._sids) + len(new) + 1
            rows[sid, ts_ms] = _stored(value)
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._insert("series(sid, device, metric)", [(sid, *key) for key, sid in new.items()])
            self._insert("points(sid, ts, v)", [(sid, ts, rows[sid, ts]) for sid, ts in sorted(rows)])
            execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            if isinstance(error, UnicodeEncodeError | OverflowError):
                raise StoreRejected("text that is not valid Unicode, or an integer beyond 64 bits") from error
            raise
        self._sids.update(new)

    def _insert(self, target: str, rows: Sequence[tuple[Any, ...]]) -> None:
        done = 0
        for size in _ROWS:
            while len(rows) - done >= size:
                values = [value for row in rows[done : done + size] for value in row]
                self._connection.execute(_insert_sql(target, size), values)
                done += size

    def delete_device(self, device_id: str) -> None:
        """Forget a device's points. Its series stay as names without points: sids are counted, never reused."""
        sids = "SELECT sid FROM series WHERE device = ?"
        self._connection.execute(f"DELETE FROM points WHERE sid IN ({sids})", (device_id,))  # noqa: S608 # a constant

    def close(self) -> None:
        """Bring the log into the file as far as readers allow, and close."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()


class DayReader:
    """A reading connection of a day's file: sees every finished write. One thread at a time."""

    def __init__(self, path: Path) -> None:
        # not mode=ro: a reader of a WAL file may have to make its shared memory
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute("PRAGMA busy_timeout = 5000")

    def series(self, device_id: str, metrics: Sequence[str]) -> dict[str, int]:
        """metric -> sid of a device's series; `metrics` empty: all."""
        sql = "SELECT json_group_array(json_array(metric, sid)) FROM series WHERE device = ?"
        found: dict[str, int] = dict(self._json(sql, (device_id,)))
        return {metric: found[metric] for metric in metrics if metric in found} if metrics else found

    def raw(self, sid: int, start_ms: int, end_ms: int, limit: int) -> list[tuple[int, Value]]:
        """(ts_ms, value) of the newest `limit` points in the range, newest first."""
        rows = self._json(_RAW, {"sid": sid, "start": start_ms, "end": end_ms, "limit": limit})
        rows.sort(key=lambda row: row[0], reverse=True)  # group_concat promises no order
        return [(ts, value) for ts, value in rows]

    def parts(
        self, sid: int, aggregate: Aggregate, start_ms: int, end_ms: int, *, origin_ms: int, width_ms: int
    ) -> list[Part]:
        """What this day holds of each bucket of `width_ms` counted from `origin_ms`."""
        row = f"'[' || b || ',' || n || ',' || {_JSON_VALUE} || ',' || newest || ']'"
        newest = "max(ts)" if aggregate is Aggregate.LAST else "0"
        numbers = "" if aggregate in ANY_KIND else "AND typeof(v) IN ('integer', 'real')"
        sql = f"""SELECT '[' || group_concat({row}) || ']' FROM (
            SELECT (ts - :origin) / :width AS b, count(*) AS n, {_PARTS[aggregate]}, {newest} AS newest
            {_RANGE} {numbers} GROUP BY b)"""  # noqa: S608
        arguments = {"sid": sid, "start": start_ms, "end": end_ms, "origin": origin_ms, "width": width_ms}
        return [(bucket, count, value, newest) for bucket, count, value, newest in self._json(sql, arguments)]

    def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        """(ts_ms, value) of each metric's newest point of this day."""
        rows = self._json(_LATEST, (device_id,))
        if not rows:
            return {}
        names = {sid: metric for metric, sid in self.series(device_id, ()).items()}
        return {names[sid]: (ts, value) for sid, ts, value in rows}

    def count(self) -> int:
        """Points in this file; reads all of it."""
        return int(self._connection.execute("SELECT count(*) FROM points").fetchone()[0])

    def close(self) -> None:
        self._connection.close()

    def _json(self, sql: str, arguments: Any) -> list[Any]:
        text = self._connection.execute(sql, arguments).fetchone()[0]
        answer: list[Any]
        try:
            answer = [] if text is None else orjson.loads(text)
        except orjson.JSONDecodeError:
            # a sum beyond the range of floats, which SQLite writes as Inf or (later ones) as 9.0e+999
            answer = json.loads(text.replace("Inf", "Infinity"))
        return answer


def _stored(value: Value) -> Value | bytes:
    if isinstance(value, bool):
        return _BOOLEANS[value]
    if isinstance(value, float) and not math.isfinite(value):
        raise StoreRejected(f"a number that is not finite: {value!r}")
    return value


@lru_cache(maxsize=16)
def _insert_sql(target: str, rows: int) -> str:
    places = f"({','.join('?' * (target.count(',') + 1))})"
    return f"INSERT OR REPLACE INTO {target} VALUES {','.join([places] * rows)}"  # noqa: S608 # constants

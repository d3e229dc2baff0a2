"""The writing connection of a day's file: laying down what comes, sealing it, and all else that changes the file."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from gateway.frames import Frame
from gateway.store import StoreRejected, StoreUnavailable
from gateway.stores.chunk import Column, DamagedChunk, concatenated, is_sound
from gateway.stores.day_file import (
    SCHEMA,
    SCHEMA_VERSION,
    read_loose,
    sealed_rows,
    select_sealed,
    where_keys,
)
from gateway.stores.loose import (
    COLUMNS,
    SHELF,
    SHELVED_ROWS,
    Block,
    Laying,
    bit_of,
    on_shelf,
    own_block,
    shelf_of,
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
RIPE_SHELF_READINGS = 6_400
"""Loose readings on a shelf, 200 of each series: an answer has to read them all, in some two milliseconds."""
FRAMES_KNOWN = 50_000  # devices, of which each sends the same metrics mostly: some 10 MB
#: Rows to a statement: each size is prepared once and kept.
_ROWS = (1000, 100, 10, 1)
_KEYS = 500  # to a statement
_SERIES = 8  # sealed in one transaction


class DayWriter:
    """The one writing connection of a day's file."""

    def __init__(
        self, path: Path, synchronous: str, told: Callable[[Sequence[tuple[str, str]]], None] = lambda series: None
    ) -> None:
        """`told` is told of new series, (device, metric), before their readings are written."""
        self._told = told
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
        try:
            self._prepare(synchronous)
            self._sids = {(device, metric): sid for sid, device, metric in self._all_series()}
            self._next_sid = max(self._sids.values(), default=0) + 1
            sql = """SELECT json_group_array(json_array(place, blocks, readings)) FROM (
                SELECT place, count(*) AS blocks, sum(readings) AS readings FROM loose GROUP BY place)"""
            self.loose: dict[int, list[int]] = {place: counts for place, *counts in orjson.loads(self._one(sql))}
            """By place: how many loose blocks, and how many readings in them."""
            self._masks: dict[int, int] = {}  # of each shelf: which series have readings on it
            sql = """SELECT json_group_array(json_array(place, mask)) FROM (
                SELECT DISTINCT place, mask FROM loose WHERE place < 0)"""
            for place, mask in orjson.loads(self._one(sql)):
                self._masks[place] = self._masks.get(place, 0) | mask
            self._frame_sids: dict[tuple[str, tuple[str, ...]], list[int]] = {}  # what a look into `_sids` would find
            self._seq = self._one("SELECT coalesce(max(seq), 0) FROM loose")
        except BaseException:
            self._connection.close()
            raise
        self.ripe: dict[int, None] = {place: None for place, counts in self.loose.items() if _is_ripe(place, counts)}
        """Places to be sealed, in the order in which they became ripe."""
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

    def write(self, frames: Sequence[Frame]) -> None:
        """Store all in one transaction. Raises StoreRejected (bad value, nothing stored) or sqlite3's errors."""
        new: dict[tuple[str, str], int] = {}
        rows: dict[str, int] = {}
        for frame in frames:
            rows[frame[0]] = rows.get(frame[0], 0) + len(frame[2])
        laying = Laying()
        for device_id, metrics, times, columns in frames:
            sids = self._frame_sids.get((device_id, metrics)) or self._sids_of(device_id, metrics, new)
            if rows[device_id] > SHELVED_ROWS:
                laying.add_own(sids, times, columns)
            else:
                laying.add_shelved(sids, times, columns)
        seq = self._seq + 1
        blocks = laying.blocks(seq)
        if new:
            self._told(list(new))
        with self._transaction():
            self._insert("series(sid, device, metric)", [(sid, *key) for key, sid in new.items()])
            self._insert(f"loose({COLUMNS})", blocks)
        self._seq = seq
        self._sids.update(new)
        self._next_sid += len(new)
        for block in blocks:
            place = block.place
            counts = self.loose.setdefault(place, [0, 0])
            counts[0] += 1
            counts[1] += block.readings
            if block.mask:
                self._masks[place] = self._masks.get(place, 0) | block.mask
            if place not in self.ripe and _is_ripe(place, counts):
                self.ripe[place] = None

    def _sids_of(self, device_id: str, metrics: tuple[str, ...], new: dict[tuple[str, str], int]) -> list[int]:
        """Of a frame's series; those that there are none of yet are added to `new`."""
        sids: list[int] = []
        known = True
        for metric in metrics:
            key = (device_id, metric)
            sid = self._sids.get(key)
            if sid is None:
                known = False
                sid = new.setdefault(key, self._next_sid + len(new))
            sids.append(sid)
        if known:
            if len(self._frame_sids) >= FRAMES_KNOWN:
                self._frame_sids.clear()
            self._frame_sids[device_id, metrics] = sids
        return sids

    @property
    def ripe_series(self) -> int:
        """How many series are to be sealed, at most."""
        return sum([1 if place > 0 else SHELF for place in self.ripe])

    def seal_next(self) -> None:
        """Seal some of what is ripe, in one transaction: a shelf, or as many series as take no longer."""
        places: list[int] = []
        for place in self.ripe:
            places.append(place)
            if place < 0 or len(places) >= _SERIES:
                break
        self.seal(places)

    def seal(self, places: Sequence[int]) -> None:
        """Make chunks of what lies loose at these places, all or nothing: some at a time, this holds all of it.

        What else lies loose of a series is sealed with it, or it would pass for newer than the chunk. A damaged block
        or chunk stays as it is, and what lies over such a chunk stays loose.
        """
        places = self._with_neighbours(places)
        damaged: list[tuple[int, int]] = []
        chosen = f"place IN ({','.join(map(str, places))})"
        found = read_loose(self._connection, chosen, damaged=lambda place, seq, _: damaged.append((place, seq)))
        seq = self._seq + 1
        gone: list[tuple[int, int]] = []
        rows: list[tuple[Any, ...]] = []
        left: list[Block] = []
        sealed = sealed_rows(self._one(select_sealed(" OR ".join(map(_around, found, found.values())) or "0")))
        for sid, column in found.items():
            change = folded_in(column, sealed.get(sid, ()))
            gone += [(sid, first_ms) for first_ms in change.gone]
            rows += [(sid, *row) for row in change.rows]
            if change.left:
                rest = concatenated(change.left)
                left.append(own_block(sid, rest.times.tolist(), list(rest.values()), seq))
        kept = "".join(f" AND NOT (place = {place} AND seq = {number})" for place, number in damaged)
        with self._transaction():
            self._connection.execute(f"DELETE FROM loose WHERE {chosen}{kept}")  # noqa: S608
            self._replace(gone, rows)
            self._insert(f"loose({COLUMNS})", left)
        self._seq = seq
        for place in places:
            self.ripe.pop(place, None)
            self.loose.pop(place, None)
            self._masks.pop(place, None)

    def _with_neighbours(self, places: Sequence[int]) -> list[int]:
        """These places, the shelves that series among them lie on, and the other blocks of all that lies on those."""
        found = dict.fromkeys(places)
        for place in places:
            if place > 0 and self._masks.get(shelf_of(place), 0) & bit_of(place):
                found[shelf_of(place)] = None
        for place in [place for place in found if place < 0]:
            found.update(dict.fromkeys(sid for sid in on_shelf(place, self._masks.get(place, 0)) if sid in self.loose))
        return list(found)

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
        sql = f"""SELECT json_group_array(sid) FROM (SELECT place AS sid FROM loose WHERE place > 0 UNION
            SELECT sid FROM chunk
            GROUP BY sid HAVING count(*) > (sum(readings) + {CHUNK_READINGS - 1}) / {CHUNK_READINGS})"""  # noqa: S608
        found = set(orjson.loads(self._one(sql)))
        for place, mask in self._masks.items():
            found.update(on_shelf(place, mask))
        return sorted(found)

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
        """Forget a device's readings, and its name."""
        keys = [key for key in self._sids if key[0] == device_id]
        if not keys:
            return
        sids = [self._sids[key] for key in keys]
        shelves = {shelf_of(sid) for sid in sids if self._masks.get(shelf_of(sid), 0) & bit_of(sid)}
        for place in shelves:
            self.seal([place])  # then what is to be deleted lies by itself
        chosen = ",".join(map(str, sids))
        with self._transaction():
            self._connection.execute(f"DELETE FROM loose WHERE place IN ({chosen})")  # noqa: S608
            self._connection.execute(f"DELETE FROM chunk WHERE sid IN ({chosen})")  # noqa: S608
            self._connection.execute(f"DELETE FROM series WHERE sid IN ({chosen})")  # noqa: S608
        self._frame_sids.clear()
        for key in keys:
            del self._sids[key]
        for sid in sids:
            self.loose.pop(sid, None)
            self.ripe.pop(sid, None)

    def series(self) -> list[tuple[str, str]]:
        """(device, metric) of all that may have readings here."""
        return list(self._sids)

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


def _is_ripe(place: int, counts: Sequence[int]) -> bool:
    return counts[0] >= RIPE_BLOCKS or counts[1] >= (RIPE_READINGS if place > 0 else RIPE_SHELF_READINGS)


def _around(sid: int, loose: Column) -> str:
    """The chunks that `folded_in` wants to see: those it lies over, and the small ones right before it."""
    older = f"SELECT first_ms FROM chunk WHERE sid = {sid} AND first_ms <= {loose.times[0]}"  # noqa: S608
    large = f"coalesce(({older} AND readings >= {SMALL_READINGS} ORDER BY first_ms DESC LIMIT 1), 0)"
    many = f"coalesce(({older} ORDER BY first_ms DESC LIMIT 1 OFFSET {BEFORE}), 0)"
    small = f"readings < {SMALL_READINGS} AND first_ms >= max({large}, {many})"
    return f"sid = {sid} AND first_ms <= {loose.times[-1]} AND (last_ms >= {loose.times[0]} OR {small})"


@lru_cache(maxsize=32)
def _insert_sql(target: str, rows: int) -> str:
    places = f"({','.join('?' * (target.count(',') + 1))})"
    return f"INSERT INTO {target} VALUES {','.join([places] * rows)}"  # noqa: S608 # constants

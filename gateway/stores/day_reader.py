"""A reading connection of a day's file: the pieces of an answer, the newest of each series, what is wrong with it."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from gateway.readings import Value
from gateway.stores.chunk import DamagedChunk, decode
from gateway.stores.day_file import (
    BODY,
    WITHIN,
    devices_in,
    loose_rows,
    read_loose,
    sealed_rows,
    select_sealed,
    where_keys,
)
from gateway.stores.folding import Packed, Sealed, laid_out, overlain, raw
from gateway.stores.loose import SHELF, Damaged, DamagedBlock, checked, lying, on_shelf, parsed, shelf_of, shelved
from gateway.stores.rollup import rollups

_KEYS = 500  # to a statement
_EVER_MS = 1 << 62
_LOOSE_WEIGHT = 50  # an object for its time, one for its value, and places for both


class DayReader:
    """A reading connection of a day's file: sees every finished write. One thread at a time."""

    def __init__(self, path: Path, damaged: Callable[[str, str], None] = lambda series, problem: None) -> None:
        """`damaged` is told of chunks and loose blocks that cannot be read: which, and what is wrong."""
        # not mode=ro: a reader of a WAL file may have to make its shared memory; but never the file itself
        where = f"{path.absolute().as_uri()}?mode=rw"
        self._connection = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute("PRAGMA busy_timeout = 5000")
        self._damaged = damaged

    def weights(self, device_id: str, metrics: Sequence[str], start_ms: int, end_ms: int) -> dict[str, int]:
        """By metric, how much `pieces` would hold of it, in sealed readings: of some two bytes each."""
        names = self._names(device_id, metrics)
        within = {"start": start_ms, "end": end_ms}
        sql = f"""SELECT json_group_array(json_array(place, weight)) FROM (SELECT place, sum(weight) AS weight FROM (
            SELECT place, readings * {_LOOSE_WEIGHT} AS weight FROM loose WHERE {lying(names)} AND {WITHIN}
            UNION ALL SELECT sid, readings FROM chunk WHERE sid IN ({",".join(map(str, names))}) AND {WITHIN})
            GROUP BY place)"""  # noqa: S608
        found: dict[str, int] = {}
        for place, weight in orjson.loads(self._one(sql, within)):
            # of a shelf's the device's part is not known; each has a share
            each = weight if place > 0 else -(-weight // SHELF)
            for sid in [place] if place > 0 else [sid for sid in names if shelf_of(sid) == place]:
                found[names[sid]] = found.get(names[sid], 0) + each
        return found

    def pieces(
        self, device_id: str, metrics: Sequence[str], start_ms: int, end_ms: int, *, rollup: str | None = None
    ) -> dict[str, list[Packed]]:
        """By metric, what lies in the range, in order of time; `metrics` empty: all.

        With `rollup` ("hours" or "minutes") it stands for chunks that lie wholly within, where it can.
        """
        with self._snapshot():
            names = self._names(device_id, metrics)
            if not names:
                return {}
            chosen = f"sid IN ({','.join(map(str, names))})"
            within = {"start": start_ms, "end": end_ms}
            loose = read_loose(
                self._connection,
                f"{lying(names)} AND {WITHIN}",
                within,
                wanted=names,
                damaged=self._loose_damaged(device_id, names),
            )
            data = BODY
            if rollup is not None:
                whole = f"{rollup} IS NOT NULL AND first_ms >= :start AND last_ms < :end"
                data = f"iif({whole}, '1,' || hex({rollup}), '0,' || hex(body))"
            sealed = sealed_rows(self._one(select_sealed(f"{chosen} AND {WITHIN}", data), within))
            covered = [
                (sid, one.first_ms)
                for sid, chunks in sealed.items()
                for one in chunks
                if one.is_rollup and overlain(one, loose.get(sid))
            ]
            for at in range(0, len(covered), _KEYS):
                whole_rows = sealed_rows(self._one(select_sealed(where_keys(covered[at : at + _KEYS]))))
                for sid, chunks in whole_rows.items():
                    bodies = {one.first_ms: one for one in chunks}
                    sealed[sid] = [bodies.get(one.first_ms, one) for one in sealed[sid]]

        def note(metric: str) -> Callable[[Sealed, DamagedChunk], None]:
            return lambda one, error: self._damaged(f"a chunk of {device_id} {metric} from {one.first_ms}", str(error))

        return {
            metric: laid_out(loose.get(sid), sealed.get(sid, ()), start_ms, end_ms, note(metric))
            for sid, metric in names.items()
            if sid in loose or sid in sealed
        }

    def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        """(ts_ms, value) of each metric's newest reading of this day."""
        found: dict[int, tuple[int, Value]] = {}
        unsure: set[int] = set()  # the newest of these cannot be read
        with self._snapshot():
            names = self._names(device_id, ())
            if not names:
                return {}
            sids = ",".join(map(str, names))
            newest = f"SELECT sid, max(last_ms) FROM chunk WHERE sid IN ({sids}) GROUP BY sid"  # noqa: S608
            rows = self._one(select_sealed(f"(sid, last_ms) IN ({newest})"))
            for sid, chunks in sealed_rows(rows).items():
                try:
                    column = decode(chunks[-1].data)
                except DamagedChunk:
                    unsure.add(sid)
                    continue
                found[sid] = (int(column.times[-1]), column.values()[-1])
            newest = f"SELECT place, max(last_ms) FROM loose WHERE place IN ({sids}) GROUP BY place"  # noqa: S608
            where = f"(place, last_ms) IN ({newest}) OR {shelved(names)}"  # a shelf's newest is not that of each series
            loose = read_loose(
                self._connection,
                where,
                wanted=names,
                damaged=lambda place, seq, problem: unsure.update(
                    [place] if place in names else [sid for sid in names if place in (0, shelf_of(sid))]
                ),
            )
            for sid, column in loose.items():
                ts_ms = int(column.times[-1])
                if sid not in found or ts_ms >= found[sid][0]:
                    found[sid] = (ts_ms, column.values()[-1])
        latest = {names[sid]: point for sid, point in found.items()}
        for metric in sorted(names[sid] for sid in unsure):
            latest.pop(metric, None)
            series = raw(self.pieces(device_id, (metric,), 0, _EVER_MS).get(metric, ()), 1)
            if series.t:
                latest[metric] = (series.t[0], series.v[0])
        return latest

    def counts(self) -> tuple[int, int]:
        """(loose readings, sealed readings); of a point written twice both count until they are sealed."""
        sums = [self._one(f"SELECT coalesce(sum(readings), 0) FROM {table}") for table in ("loose", "chunk")]  # noqa: S608
        return sums[0], sums[1]

    def devices(self) -> list[str]:
        """Devices that have readings here."""
        return devices_in(self._connection)

    def series(self) -> list[tuple[str, str]]:
        """(device, metric) of all that may have readings here."""
        named = orjson.loads(self._one("SELECT json_group_array(json_array(device, metric)) FROM series"))
        return [(device, metric) for device, metric in named]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Look at everything: (series, what is wrong), one by one; ("", …) for the file itself."""
        for (said,) in self._connection.execute("PRAGMA quick_check(10)").fetchall():
            if said != "ok":
                yield "", said
        series = self._one("SELECT json_group_array(json_array(sid, device, metric)) FROM series")
        names = {sid: f"{device} {metric}" for sid, device, metric in orjson.loads(series)}
        for sid, name in names.items():
            for problem in self._problems_of(sid):
                yield name, problem
        yield from self._problems_on_shelves(names)

    def copy(self, target: Path) -> None:
        """A consistent copy of the file as it is now, in the place of what a copy before it may have left."""
        target.unlink(missing_ok=True)
        self._connection.execute("PRAGMA query_only = OFF")  # it writes, if not here
        try:
            self._connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            self._connection.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        self._connection.close()

    def _problems_of(self, sid: int) -> Iterator[str]:
        last_ms = None
        rows = self._connection.execute(
            "SELECT first_ms, last_ms, readings, hours, minutes, body FROM chunk WHERE sid = ? ORDER BY first_ms",
            (sid,),
        )
        for first, last, readings, hours, minutes, body in rows.fetchall():
            try:
                column = decode(body)
            except DamagedChunk as error:
                yield f"the chunk from {first} cannot be read: {error}"
                continue
            times = column.times.tolist()
            if (times[0], times[-1], len(times)) != (first, last, readings) or times != sorted(set(times)):
                yield f"the chunk from {first} does not hold what its row says"
            if (hours, minutes) != rollups(column):
                yield f"the rollups of the chunk from {first} are not those of its readings"
            if last_ms is not None and first <= last_ms:
                yield f"the chunk from {first} overlaps the one before it"
            last_ms = last
        for row in loose_rows(self._connection, f"place = {sid}"):
            problem = _problem_of(row)
            if problem is not None:
                yield problem

    def _problems_on_shelves(self, names: dict[int, str]) -> Iterator[tuple[str, str]]:
        places = self._one("SELECT json_group_array(place) FROM (SELECT DISTINCT place FROM loose WHERE place <= 0)")
        for place in orjson.loads(places):
            for row in loose_rows(self._connection, f"place = {place}"):
                problem = _problem_of(row)
                if problem is not None:
                    known = [names[sid] for sid in on_shelf(place, -1) if sid in names]
                    yield f"{known[0]} to {known[-1]}" if known else "", problem

    def _loose_damaged(self, device_id: str, names: dict[int, str]) -> Damaged:
        def told(place: int, seq: int, problem: str) -> None:
            whose = f"{device_id} {names[place]}" if place in names else f"a shelf with {device_id}"
            self._damaged(f"{whose} in loose block {seq}", problem)

        return told

    def _names(self, device_id: str, metrics: Sequence[str]) -> dict[int, str]:
        """sid -> metric of a device's series."""
        sql = "SELECT json_group_array(json_array(sid, metric)) FROM series WHERE device = ?"
        found = orjson.loads(self._one(sql, (device_id,)))
        return {sid: metric for sid, metric in found if not metrics or metric in metrics}

    def _one(self, sql: str, arguments: Any = ()) -> Any:
        return self._connection.execute(sql, arguments).fetchone()[0]

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")


def _problem_of(row: bytes) -> str | None:
    """What is wrong with a loose row given as `crc,TEXT`."""
    try:
        (place, *held, mask), body = checked(row)
        content: Any = parsed(place, body)
    except DamagedBlock as error:
        seq_of = row.split(b",", 4)[3:4]
        return f"the loose block {b''.join(seq_of).decode(errors='replace')} cannot be read: {error}"
    seq = held[1]
    times = [held[0] + ts_ms for ts_ms in content[0]] if place < 0 else content[0]
    holds = (min(times), seq, max(times), len(times), sum({1 << number for number in content[2]} if place < 0 else ()))
    return None if holds == (*held, mask) else f"the loose block {seq} does not hold what its row says"

"""One UTC day of readings in one SQLite file: its schema, what is done in it, and what is read from it. Synchronous.

A write lays down one `loose` block a series: the readings that it brought, as JSON. So it costs for each series, not
for each reading. Loose blocks of a series are sealed later, many at once, into `chunk`s (chunk.py), of which no two of
a series overlap; what is loose is always newer than any chunk, and among loose blocks the greater `seq` is. A file
knows all it needs by itself, so a day is dropped by deleting it, and a damaged one costs no other day.

Every statement here does much in one step. Python's sqlite3 gives the GIL up and takes it back at every row stepped,
and beside a busy event loop each of these waits cost up to 5 ms. Hence many rows go in one statement, and answers
come back as one text.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson

from gateway.readings import Value
from gateway.stores.chunk import Column, column_of
from gateway.stores.folding import Sealed

SCHEMA_VERSION = 2
DAY_MS = 86_400_000
SCHEMA = """
CREATE TABLE series (sid INTEGER PRIMARY KEY, device TEXT NOT NULL, metric TEXT NOT NULL, UNIQUE (device, metric));
CREATE TABLE loose (
    sid INTEGER NOT NULL, first_ms INTEGER NOT NULL, seq INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    body TEXT NOT NULL,  -- times and values: [ms, …],[value, …]
    PRIMARY KEY (sid, first_ms, seq)) WITHOUT ROWID;
CREATE TABLE chunk (
    sid INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, readings INTEGER NOT NULL,
    hours BLOB, minutes BLOB, body BLOB NOT NULL,
    PRIMARY KEY (sid, first_ms)) WITHOUT ROWID;
"""
Group = tuple[list[int], list[Value]]
"""Times and values of one series, in the order in which they came."""


def read_loose(
    connection: sqlite3.Connection,
    where: str,
    arguments: Any = (),
    damaged: Callable[[int, int, str], None] = lambda sid, seq, problem: None,
) -> dict[int, Column]:
    """By series, the loose readings asked for, each time once.

    `damaged` is told of blocks that cannot be read (sid, seq, what is wrong); they are left out.
    """
    # a BLOB: text that is not UTF-8 any more could not even be fetched
    sql = f"""SELECT CAST('[' || group_concat('[' || sid || ',' || seq || ',' || body || ']') || ']' AS BLOB)
        FROM loose WHERE {where}"""  # noqa: S608 # constants, here and below
    text = connection.execute(sql, arguments).fetchone()[0]
    if text is None:
        return {}
    try:
        return _columns((sid, seq, times, values) for sid, seq, times, values in orjson.loads(text))
    except (ValueError, TypeError):
        pass
    sound = []
    for sid, seq, body in connection.execute(
        f"SELECT sid, seq, CAST(body AS BLOB) FROM loose WHERE {where}",  # noqa: S608
        arguments,
    ).fetchall():
        try:
            sound.append((sid, seq, *parsed(body)))
        except ValueError as error:
            damaged(sid, seq, str(error))
    return _columns(sound)


def parsed(body: bytes) -> Group:
    """A loose block's times and values. Raises ValueError."""
    times, values = orjson.loads(b"[%b]" % body)
    if not isinstance(times, list) or not isinstance(values, list) or len(times) != len(values) or not times:
        raise ValueError("these are not times and as many values")
    if set(map(type, times)) != {int}:
        raise ValueError("times that are no integers")
    return times, values


BODY = "'0,' || hex(body)"


def select_sealed(where: str, data: str = BODY) -> str:
    """Gives one text, for `sealed_rows`."""
    row = f"sid || ',' || first_ms || ',' || last_ms || ',' || readings || ',' || {data}"
    return f"SELECT group_concat({row}, ';') FROM chunk WHERE {where}"  # noqa: S608


WITHIN = "first_ms < :end AND last_ms >= :start"


def where_keys(keys: Iterable[tuple[int, int]]) -> str:
    """Chunks by (sid, first_ms), some hundreds; each is searched for, where `IN (VALUES …)` reads the whole table."""
    return " OR ".join(f"sid = {sid} AND first_ms = {first_ms}" for sid, first_ms in keys) or "0"


def _columns(blocks: Iterable[tuple[int, int, list[int], list[Value]]]) -> dict[int, Column]:
    points: dict[int, tuple[list[int], list[Value]]] = {}
    for sid, _, times, values in sorted(blocks, key=lambda row: row[1]):  # group_concat keeps no order
        if len(times) != len(values):
            raise ValueError("times and values are not as many")
        known = points.setdefault(sid, ([], []))
        known[0].extend(times)
        known[1].extend(values)
    columns = {}
    for sid, (times, values) in points.items():
        column = column_of(times, values)
        if not bool((np.diff(column.times) > 0).all()):
            by_time = dict(zip(times, values, strict=True))  # of one time the newer one's
            order = sorted(by_time)
            column = column_of(order, [by_time[ts_ms] for ts_ms in order])
        columns[sid] = column
    return columns


def sealed_rows(text: str | None) -> dict[int, list[Sealed]]:
    """By series, the chunks of an answer in order of time."""
    found: dict[int, list[Sealed]] = {}
    for row in text.split(";") if text else ():
        sid, first_ms, last_ms, readings, is_rollup, data = row.split(",")
        found.setdefault(int(sid), []).append(
            Sealed(int(first_ms), int(last_ms), int(readings), bytes.fromhex(data), is_rollup == "1")
        )
    for chunks in found.values():
        chunks.sort(key=lambda one: one.first_ms)
    return found


def devices_in(connection: sqlite3.Connection) -> list[str]:
    sql = """SELECT json_group_array(device) FROM (SELECT DISTINCT device FROM series WHERE
        EXISTS (SELECT 1 FROM loose WHERE loose.sid = series.sid)
        OR EXISTS (SELECT 1 FROM chunk WHERE chunk.sid = series.sid)
        ORDER BY device)"""
    found: list[str] = orjson.loads(connection.execute(sql).fetchone()[0])
    return found

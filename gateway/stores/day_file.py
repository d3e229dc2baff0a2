"""One UTC day of readings in one SQLite file: its schema, what is done in it, and what is read from it. Synchronous.

A write lays down `loose` blocks, as JSON: the readings that it brought of a series, or of a shelf of series (loose.py).
So it costs for each block, not for each reading. Loose blocks are sealed later, many at once, into `chunk`s of one
series (chunk.py), of which no two of a series overlap; what is loose is always newer than any chunk, and among loose
blocks the greater `seq` is. A file knows all it needs by itself, so a day is dropped by deleting it, and a damaged one
costs no other day.

Every statement here does much in one step. Python's sqlite3 gives the GIL up and takes it back at every row stepped,
and beside a busy event loop each of these waits cost up to 5 ms. Hence many rows go in one statement, and answers
come back as one text.
"""

import sqlite3
from collections.abc import Collection, Iterable
from typing import Any

import orjson

from gateway.stores.chunk import Column
from gateway.stores.folding import Sealed
from gateway.stores.loose import SHELF, TEXT, Damaged, columns_of

SCHEMA_VERSION = 3
DAY_MS = 86_400_000
LOOSE = """
CREATE TABLE loose (
    place INTEGER NOT NULL, first_ms INTEGER NOT NULL, seq INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    readings INTEGER NOT NULL, mask INTEGER NOT NULL, crc INTEGER NOT NULL,
    body TEXT NOT NULL,  -- loose.py
    PRIMARY KEY (place, first_ms, seq)) WITHOUT ROWID;
"""
SCHEMA = f"""{LOOSE}
CREATE TABLE series (sid INTEGER PRIMARY KEY, device TEXT NOT NULL, metric TEXT NOT NULL, UNIQUE (device, metric));
CREATE TABLE chunk (
    sid INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, readings INTEGER NOT NULL,
    hours BLOB, minutes BLOB, body BLOB NOT NULL,
    PRIMARY KEY (sid, first_ms)) WITHOUT ROWID;
"""


def read_loose(
    connection: sqlite3.Connection,
    where: str,
    arguments: Any = (),
    *,
    wanted: Collection[int] | None = None,
    damaged: Damaged = lambda place, seq, problem: None,
) -> dict[int, Column]:
    """By series, the loose readings asked for, each time once; `wanted`: of these series alone.

    `damaged` is told of blocks that cannot be read; they are left out.
    """
    return columns_of(loose_rows(connection, where, arguments), wanted, damaged)


def loose_rows(connection: sqlite3.Connection, where: str, arguments: Any = ()) -> list[bytes]:
    """As `crc,TEXT`, in no order. What stands between is in no JSON, and no flipped bit makes it."""
    # a BLOB: text that is not UTF-8 any more could not even be fetched
    sql = f"SELECT CAST(group_concat(crc || ',' || {TEXT}, char(10, 10, 10)) AS BLOB) FROM loose WHERE {where}"  # noqa: S608
    text = connection.execute(sql, arguments).fetchone()[0]
    return [] if text is None else text.split(b"\n\n\n")


BODY = "'0,' || hex(body)"


def select_sealed(where: str, data: str = BODY) -> str:
    """Gives one text, for `sealed_rows`."""
    row = f"sid || ',' || first_ms || ',' || last_ms || ',' || readings || ',' || {data}"
    return f"SELECT group_concat({row}, ';') FROM chunk WHERE {where}"  # noqa: S608


WITHIN = "first_ms < :end AND last_ms >= :start"


def where_keys(keys: Iterable[tuple[int, int]]) -> str:
    """Chunks by (sid, first_ms), some hundreds; each is searched for, where `IN (VALUES …)` reads the whole table."""
    return " OR ".join(f"sid = {sid} AND first_ms = {first_ms}" for sid, first_ms in keys) or "0"


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
    sql = f"""SELECT json_group_array(device) FROM (SELECT DISTINCT device FROM series WHERE
        EXISTS (SELECT 1 FROM loose WHERE place = sid)
        OR EXISTS (SELECT 1 FROM loose WHERE place = -(sid / {SHELF}) - 1 AND mask & (1 << sid % {SHELF}))
        OR EXISTS (SELECT 1 FROM chunk WHERE chunk.sid = series.sid)
        ORDER BY device)"""  # noqa: S608 # constants
    found: list[str] = orjson.loads(connection.execute(sql).fetchone()[0])
    return found

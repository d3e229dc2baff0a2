"""Files of a day as an earlier version laid them out, brought to the present layout."""

import sqlite3
from pathlib import Path

import orjson

from gateway.frames import Frame
from gateway.stores.day_file import LOOSE, SCHEMA_VERSION
from gateway.stores.day_writer import DayWriter
from gateway.stores.loose import COLUMNS, TEXT, checksum

_ROWS = 50_000  # at a time


def upgrade(path: Path) -> bool:
    """Bring a file of schema 1 or 2 to this one; whether there was anything to do."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 2:
            _from_second(connection)
    finally:
        connection.close()
    if version == 1:
        _from_first(path)
    return version in (1, 2)


def _from_second(connection: sqlite3.Connection) -> None:
    """Its loose blocks were of one series each, and had no checksum. In one transaction: all or nothing."""
    connection.create_function("checksum", 1, checksum, deterministic=True)
    connection.executescript(f"""BEGIN IMMEDIATE;
        ALTER TABLE loose RENAME TO loose_before;
        {LOOSE}
        INSERT INTO loose({COLUMNS}) SELECT place, first_ms, seq, last_ms, readings, mask,
            checksum(CAST({TEXT} AS BLOB)), body FROM (SELECT sid AS place, 0 AS mask, * FROM loose_before);
        DROP TABLE loose_before;
        PRAGMA user_version = {SCHEMA_VERSION};
        COMMIT;""")  # noqa: S608 # constants


def _from_first(path: Path) -> None:
    """It had a row a reading. The new file takes the old one's place in one step, once it is whole."""
    fresh = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    old = sqlite3.connect(path, isolation_level=None)
    try:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        value = """CASE typeof(v) WHEN 'text' THEN json_quote(v) WHEN 'blob' THEN iif(v = x'01', 'true', 'false')
            ELSE quote(v) END"""
        writer = DayWriter(fresh, "normal")  # closing it brings all to the disk, and until then it counts for nothing
        try:
            sql = f"""SELECT '[' || group_concat('[' || ts || ',' || {value} || ']') || ']'
                FROM (SELECT ts, v FROM points WHERE sid = ? AND ts > ? ORDER BY ts LIMIT {_ROWS})"""  # noqa: S608
            for sid, device, metric in old.execute("SELECT sid, device, metric FROM series").fetchall():
                after = -1
                while (text := old.execute(sql, (sid, after)).fetchone()[0]) is not None:
                    times, values = zip(*sorted(orjson.loads(text), key=lambda row: row[0]), strict=True)
                    writer.write([Frame(device, (metric,), times, [values])])
                    after = times[-1]
                    writer.seal(list(writer.ripe))
            writer.seal_whole()
        finally:
            writer.close()
    finally:
        old.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    fresh.replace(path)

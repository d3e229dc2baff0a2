"""The file of the dead letters: SQLite, used by one thread at a time. Bounded per device, in all, in bytes and by age.

Few large statements: each step of one gives the GIL away, and beside a busy event loop that may cost 5 ms.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.letters import DeadLetter, LetterFilter

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, at_ms INTEGER NOT NULL, channel TEXT NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, payload TEXT NOT NULL, encoding TEXT NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS letter_device ON letter (device_id, id);
"""
_ADDED = """
BEGIN IMMEDIATE;
ALTER TABLE letter ADD COLUMN cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE letter ADD COLUMN content_type TEXT;
ALTER TABLE letter ADD COLUMN link TEXT NOT NULL DEFAULT '';
ALTER TABLE letter ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
ALTER TABLE letter ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
UPDATE letter SET cut = size > 4096, stored = length(CAST(payload AS BLOB));
CREATE INDEX letter_reason ON letter (reason, id);
CREATE INDEX letter_at ON letter (at_ms);
CREATE INDEX letter_stored ON letter (id, stored);
PRAGMA user_version = 1;
COMMIT;
"""
"""What came with replaying. Files from before kept the first 4 KiB of a payload."""

_FIELDS = (
    *("id", "device_id", "at_ms", "channel", "reason", "detail", "payload", "encoding", "size"),
    *("cut", "content_type", "link", "replays"),
)
_PUT = (
    f"INSERT INTO letter ({', '.join(_FIELDS)}, stored) SELECT "  # noqa: S608
    + ", ".join(f"value ->> '$.{field}'" for field in _FIELDS)
    + ", length(CAST(value ->> '$.payload' AS BLOB)) FROM json_each(?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterBounds:
    """How many dead letters are kept. Beyond the counts and bytes the oldest go; beyond the age all do."""

    per_device: int = 100
    letters: int = 10_000
    payload_bytes: int = 64 << 20
    """Of all payloads together, as they lie in the file: binary ones take a third more."""
    age_ms: int = 30 * 86_400_000


class LetterFile:
    """Opened or created by the constructor; one that cannot be read is set aside, and that is said."""

    def __init__(self, path: Path, bounds: LetterBounds) -> None:
        self._path = path
        self._bounds = bounds
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _connect(path)
        except sqlite3.DatabaseError as error:
            logger.error("%s: cannot be read (%s), set aside as %s.corrupt", path, error, path.name)
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).replace(path.with_name(f"{path.name}.corrupt{suffix}"))
            self._database = _connect(path)

    def close(self) -> None:
        self._database.close()

    def last_id(self) -> int:
        """The highest id that was ever given."""
        row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'letter'").fetchone()
        return int(row[0]) if row else 0

    def put(self, group: Sequence[DeadLetter], now_ms: int) -> None:
        """Write letters, all or none, and hold the bounds."""
        bounds, database = self._bounds, self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            database.execute(_PUT, (orjson.dumps([asdict(letter) for letter in group]).decode(),))
            database.execute(
                "DELETE FROM letter WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
                "(PARTITION BY device_id ORDER BY id DESC) AS place FROM letter "
                "WHERE device_id IN (SELECT value FROM json_each(?))) WHERE place > ?)",
                (orjson.dumps(list({letter.device_id for letter in group})).decode(), bounds.per_device),
            )
            database.execute(
                "DELETE FROM letter WHERE id <= (SELECT id FROM letter ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (bounds.letters,),
            )
            (held,) = database.execute("SELECT total(stored) FROM letter INDEXED BY letter_stored").fetchone()
            if held > bounds.payload_bytes:
                database.execute(
                    "DELETE FROM letter WHERE id <= (SELECT max(id) FROM (SELECT id, sum(stored) OVER "
                    "(ORDER BY id DESC) AS held FROM letter INDEXED BY letter_stored) WHERE held > ?)",
                    (bounds.payload_bytes,),
                )
            self.expire(now_ms)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def expire(self, now_ms: int) -> int:
        """Forget what is older than it may be; returns how many."""
        return self._database.execute("DELETE FROM letter WHERE at_ms < ?", (now_ms - self._bounds.age_ms,)).rowcount

    def find(
        self, which: LetterFilter, *, limit: int, before: int | None, after: int | None, payload_chars: int | None
    ) -> list[DeadLetter]:
        """The newest first; with `after` (an id) the oldest first, from there on. Payloads of at most so many chars."""
        where, arguments = _where(which)
        order = "DESC" if after is None else "ASC"
        if before is not None:
            where, arguments = f"{where} AND id < ?", [*arguments, before]
        if after is not None:
            where, arguments = f"{where} AND id > ?", [*arguments, after]
        payload = "payload" if payload_chars is None else f"substr(payload, 1, {int(payload_chars)}) AS payload"
        fields = ", ".join(payload if field == "payload" else field for field in _FIELDS)
        rows = self._database.execute(
            f"SELECT {fields} FROM letter WHERE {where} ORDER BY id {order} LIMIT ?",  # noqa: S608
            (*arguments, limit),
        )
        return [_letter(row) for row in rows]

    def counts(self, which: LetterFilter) -> dict[str, int]:
        """How many, by reason, the most frequent first."""
        where, arguments = _where(which)
        rows = self._database.execute(
            f"SELECT reason, count(*) FROM letter WHERE {where} GROUP BY reason ORDER BY 2 DESC, 1",  # noqa: S608
            arguments,
        )
        return dict(rows.fetchall())

    def delete(self, which: LetterFilter) -> int:
        """Forget letters; returns how many."""
        where, arguments = _where(which)
        return self._database.execute(f"DELETE FROM letter WHERE {where}", arguments).rowcount  # noqa: S608

    def refused_again(self, found: Sequence[tuple[int, str, str]]) -> None:
        """Letters (by id) that were replayed and refused once more, with the reason and the detail of now."""
        self._database.execute(
            "UPDATE letter SET reason = new.value ->> 1, detail = new.value ->> 2, replays = replays + 1 "
            "FROM json_each(?) AS new WHERE letter.id = new.value ->> 0",
            (orjson.dumps(found).decode(),),
        )


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        if database.execute("PRAGMA user_version").fetchone()[0] < 1:
            database.executescript(_ADDED)
        database.execute("SELECT max(id) FROM letter").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _where(which: LetterFilter) -> tuple[str, list[Any]]:
    terms, arguments = ["1"], list[Any]()
    if which.ids is not None:
        terms.append("id IN (SELECT value FROM json_each(?))")
        arguments.append(orjson.dumps(which.ids).decode())
    for term, given in (
        ("device_id = ?", which.device_id),
        ("reason = ?", which.reason),
        ("at_ms >= ?", which.since_ms),
        ("at_ms < ?", which.until_ms),
    ):
        if given is not None:
            terms.append(term)
            arguments.append(given)
    return " AND ".join(terms), arguments


def _letter(row: Sequence[Any]) -> DeadLetter:
    values = dict(zip(_FIELDS, row, strict=True))
    values["cut"] = bool(values["cut"])
    return DeadLetter(**values)

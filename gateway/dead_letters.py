"""Messages that were refused, kept with the reason for a person to look at: the first 4 KiB, the newest 100 a device.

`add` never blocks and never fails: letters wait in memory (bounded; a flood drops the oldest) and one thread
writes them a group at a time. They are a courtesy, not a promise: kill -9 may lose the last second of them.
"""

import asyncio
import base64
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

PAYLOAD_BYTES = 4096

_SCHEMA = """
CREATE TABLE IF NOT EXISTS letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, at_ms INTEGER NOT NULL, channel TEXT NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, payload TEXT NOT NULL, encoding TEXT NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS letter_device ON letter (device_id, id);
"""
_COLUMNS = "id, device_id, at_ms, channel, reason, detail, payload, encoding, size"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One refused message. `payload` is text or base64 as `encoding` says; `size` what the whole message had."""

    id: int
    device_id: str
    at_ms: int
    channel: str
    reason: str
    detail: str
    payload: str
    encoding: str
    size: int

    def entry(self) -> dict[str, Any]:
        """As an entry of the device's timeline (kind message_refused)."""
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "id": f"letter-{self.id}",
            "device": self.device_id,
            "at": at,
            "kind": "message_refused",
            "level": "warning",
            "summary": f"{self.channel}: {self.reason}",
            "data": {
                "channel": self.channel,
                "reason": self.reason,
                "detail": self.detail,
                "payload": self.payload,
                "encoding": self.encoding,
                "size": self.size,
            },
        }


class DeadLetters:
    """Kept in a file of their own, so that a flood of them never stands in the journal's way."""

    def __init__(self, path: Path, *, per_device: int = 100, limit: int = 10_000, waiting_limit: int = 1000) -> None:
        self.on_add: Callable[[DeadLetter], None] = lambda letter: None
        """Told of each letter as it comes."""
        self.dropped = 0
        self._path = path
        self._per_device = per_device
        self._limit = limit
        self._waiting_limit = waiting_limit
        self._waiting: deque[DeadLetter] = deque()
        self._next_id = 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self._database: sqlite3.Connection | None = None
        self._writing: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Open or create the file; one that cannot be read is replaced, and that is said."""
        self._next_id = await self._in_thread(self._open) + 1

    async def close(self) -> None:
        """Write what waits and close. May be called twice."""
        if self._database is None:
            return
        await self._flush()
        database, self._database = self._database, None
        await self._in_thread(database.close)
        self._thread.shutdown(wait=False)

    def add(self, *, device_id: str, at_ms: int, channel: str, reason: str, detail: str, payload: bytes) -> DeadLetter:
        """Keep a message; in the event loop's thread."""
        text, encoding = _readable(payload[:PAYLOAD_BYTES], cut=len(payload) > PAYLOAD_BYTES)
        letter = DeadLetter(
            id=self._next_id,
            device_id=device_id,
            at_ms=at_ms,
            channel=channel[:256],
            reason=str(reason),
            detail=detail[:500],
            payload=text,
            encoding=encoding,
            size=len(payload),
        )
        self._next_id += 1
        if len(self._waiting) >= self._waiting_limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(letter)
        self._write_next()
        self.on_add(letter)
        return letter

    async def list(
        self, device_id: str | None = None, limit: int = 50, before: int | None = None
    ) -> Sequence[DeadLetter]:
        """The newest first, of one device or of all; `before` is the id after which to go on."""
        await self._flush()
        where = "id < ?" + (" AND device_id = ?" if device_id is not None else "")
        arguments = (before if before is not None else 1 << 62, *((device_id,) if device_id is not None else ()), limit)
        rows = await self._rows(f"SELECT {_COLUMNS} FROM letter WHERE {where} ORDER BY id DESC LIMIT ?", arguments)  # noqa: S608
        names = _COLUMNS.split(", ")
        return [DeadLetter(**dict(zip(names, row, strict=True))) for row in rows]

    async def count(self, device_id: str | None = None) -> int:
        await self._flush()
        if device_id is None:
            rows = await self._rows("SELECT count(*) FROM letter", ())
        else:
            rows = await self._rows("SELECT count(*) FROM letter WHERE device_id = ?", (device_id,))
        return int(rows[0][0]) if rows else 0

    async def delete_device(self, device_id: str) -> None:
        """Forget all letters of a device."""
        await self._flush()
        await self._rows("DELETE FROM letter WHERE device_id = ?", (device_id,))

    # ---- private

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _write_next(self) -> None:
        if self._database is None or self._writing is not None or not self._waiting:
            return
        group, self._waiting = list(self._waiting), deque()
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, group)
        self._writing.add_done_callback(self._written)

    def _written(self, job: "asyncio.Future[None]") -> None:
        self._writing = None
        if not job.cancelled() and (error := job.exception()) is not None:
            self.dropped += 1
            logger.warning("%s: dead letters could not be written: %s", self._path, error)
        self._write_next()

    async def _flush(self) -> None:
        while (job := self._writing) is not None:
            with contextlib.suppress(sqlite3.Error):
                await asyncio.shield(job)
            await asyncio.sleep(0)

    async def _rows(self, sql: str, arguments: Sequence[object]) -> Sequence[tuple[Any, ...]]:
        database = self._database
        if database is None:
            return []
        return await self._in_thread(lambda: database.execute(sql, arguments).fetchall())

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._connect()
        except sqlite3.DatabaseError as error:
            logger.error("%s: cannot be read (%s), set aside as %s.corrupt", self._path, error, self._path.name)
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).replace(
                        self._path.with_name(f"{self._path.name}.corrupt{suffix}")
                    )
            self._database = self._connect()
        row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'letter'").fetchone()
        return int(row[0]) if row else 0

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
            database.execute("SELECT max(id) FROM letter").fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _write(self, group: Sequence[DeadLetter]) -> None:
        database = self._database
        if database is None:
            return
        # One statement for all: each one gives the GIL away (docs: traps of a writer thread).
        names = _COLUMNS.split(", ")
        picked = ", ".join(f"json_extract(value, '$.{name}')" for name in names)
        rows = orjson.dumps([asdict(letter) for letter in group]).decode()
        devices = orjson.dumps(list({letter.device_id for letter in group})).decode()
        database.execute("BEGIN IMMEDIATE")
        try:
            database.execute(f"INSERT INTO letter ({_COLUMNS}) SELECT {picked} FROM json_each(?)", (rows,))  # noqa: S608
            database.execute(
                "DELETE FROM letter WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
                "(PARTITION BY device_id ORDER BY id DESC) AS place FROM letter "
                "WHERE device_id IN (SELECT value FROM json_each(?))) WHERE place > ?)",
                (devices, self._per_device),
            )
            database.execute(
                "DELETE FROM letter WHERE id <= (SELECT id FROM letter ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (self._limit,),
            )
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


def _readable(payload: bytes, *, cut: bool) -> tuple[str, str]:
    """(text, "text") of a payload that is UTF-8 without NUL, else (base64, "base64")."""
    for drop in range(4 if cut else 1):  # the cut may have gone through a character
        with contextlib.suppress(UnicodeDecodeError):
            text = payload[: len(payload) - drop].decode()
            if "\0" not in text:
                return text, "text"
    return base64.b64encode(payload).decode(), "base64"

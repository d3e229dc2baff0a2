"""Messages that were refused, kept with the reason: for a person to look at, and to be tried again (replays.py).

`add` never blocks and never fails: letters wait in memory (bounded; a flood drops the oldest) and one thread
writes them a group at a time. They are a courtesy, not a promise: kill -9 may lose the last second of them.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.letter_file import LetterBounds, LetterFile
from gateway.letters import EVERY, PAYLOAD_LIMIT_BYTES, SHOWN_CHARS, DeadLetter, LetterFilter, readable
from gateway.link import Uplink

__all__ = ["DeadLetter", "DeadLetters", "LetterBounds", "LetterFilter"]

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_WAITING_BYTES = 8 << 20
_EXPIRE_S = 3600.0


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class DeadLetters:
    """Kept in a file of their own, so that a flood of them never stands in the journal's way."""

    def __init__(
        self,
        path: Path,
        bounds: LetterBounds | None = None,
        *,
        waiting_limit: int = 1000,
        now_ms: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self.on_add: Callable[[DeadLetter], None] = lambda letter: None
        """Told of each letter as it comes."""
        self.dropped = 0
        self._path = path
        self._bounds = bounds or LetterBounds()
        self._waiting_limit = waiting_limit
        self._now_ms = now_ms
        self._waiting: deque[DeadLetter] = deque()
        self._waiting_bytes = 0
        self._next_id = 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self._file: LetterFile | None = None
        self._writing: asyncio.Future[None] | None = None
        self._expiring: asyncio.Task[None] | None = None

    @property
    def last_id(self) -> int:
        """Every letter that was ever kept has this id or a lower one."""
        return self._next_id - 1

    async def open(self) -> None:
        """Open or create the file; one that cannot be read is replaced, and that is said."""
        self._file = file = await self._in_thread(lambda: LetterFile(self._path, self._bounds))
        self._next_id = await self._in_thread(file.last_id) + 1
        self._expiring = asyncio.create_task(self._expire_hourly(), name="dead-letters-expire")

    async def close(self) -> None:
        """Write what waits and close. May be called twice."""
        if self._file is None:
            return
        if self._expiring is not None:
            self._expiring.cancel()
            await asyncio.gather(self._expiring, return_exceptions=True)
        await self._flush()
        file, self._file = self._file, None
        await self._in_thread(file.close)
        self._thread.shutdown(wait=False)

    def add(self, uplink: Uplink, *, reason: str, detail: str) -> DeadLetter:
        """Keep a message; in the event loop's thread. Its received_at_ms is the time its readings get on a replay."""
        text, encoding = readable(uplink.payload)
        letter = DeadLetter(
            id=self._next_id,
            device_id=uplink.device_id,
            at_ms=uplink.received_at_ms,
            channel=uplink.channel[:256],
            reason=str(reason),
            detail=detail[:500],
            payload=text,
            encoding=encoding,
            size=len(uplink.payload),
            cut=len(uplink.payload) > PAYLOAD_LIMIT_BYTES or len(uplink.channel) > 256,
            content_type=None if uplink.content_type is None else uplink.content_type[:256],
            link=uplink.link,
        )
        self._next_id += 1
        self._waiting.append(letter)
        self._waiting_bytes += len(text)
        while len(self._waiting) > self._waiting_limit or self._waiting_bytes > _WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft().payload)
            self.dropped += 1
        self._write_next()
        self.on_add(letter)
        return letter

    async def list(
        self, device_id: str | None = None, limit: int = 50, before: int | None = None
    ) -> Sequence[DeadLetter]:
        """The newest first, of one device or of all; `before` is the id after which to go on."""
        return await self.find(LetterFilter(device_id=device_id), limit=limit, before=before)

    async def find(
        self, which: LetterFilter = EVERY, *, limit: int = 50, before: int | None = None
    ) -> Sequence[DeadLetter]:
        """The newest first, with the first 4,096 characters of their payloads."""
        return await self._ask(
            lambda file: file.find(which, limit=limit, before=before, after=None, payload_chars=SHOWN_CHARS), []
        )

    async def get(self, letter_id: int) -> DeadLetter | None:
        """One letter, whole."""
        found = await self._whole(LetterFilter(ids=(letter_id,)), limit=1, after=0)
        return found[0] if found else None

    async def next_whole(self, which: LetterFilter, *, after: int, limit: int) -> Sequence[DeadLetter]:
        """Whole letters in the order in which they came, beyond the id `after`."""
        return await self._whole(which, limit=limit, after=after)

    async def counts(self, which: LetterFilter = EVERY) -> dict[str, int]:
        """How many, by reason, the most frequent first."""
        return await self._ask(lambda file: file.counts(which), {})

    async def count(self, device_id: str | None = None) -> int:
        return sum((await self.counts(LetterFilter(device_id=device_id))).values())

    async def delete(self, which: LetterFilter) -> int:
        """Forget letters; returns how many."""
        return await self._ask(lambda file: file.delete(which), 0)

    async def delete_device(self, device_id: str) -> None:
        """Forget all letters of a device."""
        await self.delete(LetterFilter(device_id=device_id))

    async def refused_again(self, found: Sequence[tuple[int, str, str]]) -> None:
        """Note (id, reason, detail) of letters whose replay was refused."""
        cut = [(letter_id, str(reason), detail[:500]) for letter_id, reason, detail in found]
        await self._ask(lambda file: file.refused_again(cut), None)

    async def expire(self) -> int:
        """Forget what is too old; returns how many. Done every hour, and whenever letters are written."""
        now_ms = self._now_ms()
        return await self._ask(lambda file: file.expire(now_ms), 0)

    # ---- private

    async def _whole(self, which: LetterFilter, *, limit: int, after: int) -> Sequence[DeadLetter]:
        return await self._ask(
            lambda file: file.find(which, limit=limit, before=None, after=after, payload_chars=None), []
        )

    async def _ask(self, call: Callable[[LetterFile], _Result], absent: _Result) -> _Result:
        """What the file answers once all that was added is in it; `absent` without a file."""
        await self._flush()
        file = self._file
        return absent if file is None else await self._in_thread(lambda: call(file))

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _expire_hourly(self) -> None:
        while True:
            try:
                await self.expire()
            except sqlite3.Error as error:
                logger.warning("%s: old dead letters could not be dropped: %s", self._path, error)
            await asyncio.sleep(_EXPIRE_S)

    def _write_next(self) -> None:
        file = self._file
        if file is None or self._writing is not None or not self._waiting:
            return
        group, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        now_ms = self._now_ms()
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, file.put, group, now_ms)
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

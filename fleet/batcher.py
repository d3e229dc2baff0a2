"""Writes many small things in few transactions: one bounded queue, one task, one call per batch.

When the queue is full, `offer` drops the item and counts it, and `put` waits: callers choose by what they promised.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from fleet.database import log_failure

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Batcher(Generic[T]):
    """`write` is called with up to `batch` items, in order, never twice at once."""

    def __init__(self, name: str, write: Callable[[Sequence[T]], Awaitable[None]], *, limit: int, batch: int) -> None:
        self._name = name
        self._write = write
        self._limit = limit
        self._batch = batch
        self._queue: deque[tuple[T, asyncio.Future[None] | None]] = deque()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._drained = asyncio.Event()
        self._drained.set()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.dropped = 0

    def start(self) -> None:
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Write what is waiting, then end. Whoever waits for room is let in and written too."""
        self._stopping = True
        self._work.set()
        if self._task is not None:
            await self._task
            self._task = None

    def offer(self, item: T) -> bool:
        """Queue the item; False (and counted) when there is no room."""
        if len(self._queue) >= self._limit:
            self.dropped += 1
            return False
        self._append(item, None)
        return True

    async def put(self, item: T) -> None:
        """Return once the item is written; raises what the writing raised."""
        while len(self._queue) >= self._limit:
            self._room.clear()
            await self._room.wait()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._append(item, written)
        await written

    def _append(self, item: T, written: asyncio.Future[None] | None) -> None:
        self._queue.append((item, written))
        self._drained.clear()
        self._work.set()

    async def flush(self) -> None:
        """Return once the queue is empty and all of it written or given up."""
        await self._drained.wait()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
                self._room.set()
                await self._write_batch(batch)
            self._drained.set()
            if self._stopping:
                return

    async def _write_batch(self, batch: list[tuple[T, asyncio.Future[None] | None]]) -> None:
        try:
            await self._write([item for item, _ in batch])
        except Exception as error:
            # Whoever waits is told and may try again; what was only offered is lost, and says so here.
            log_failure(logger, error, "%s: %d items were not written", self._name, len(batch))
            self.dropped += sum(written is None for _, written in batch)
            for _, written in batch:
                if written is not None and not written.done():
                    written.set_exception(error)
            return
        for _, written in batch:
            if written is not None and not written.done():
                written.set_result(None)

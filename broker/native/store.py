"""What the broker keeps on disk: sessions, what waits for them and retained messages, as records it does not look into.

The event loop puts and deletes: writes to dictionaries, where the last operation on a key wins. On the loop's next
turn a thread begins to commit all of that at once; meanwhile the next batch gathers. So a commit grows with the load,
and its fsync is shared by all who wait for it. No I/O here: that is in broker/native/store_file.py.

What is said to be safe is on disk. A commit that fails (disk full, I/O error) is tried again until it succeeds, merged
with what came since; until then nobody is told anything. A batch is on disk whole or not at all, so what was put in one
turn of the loop belongs together.
"""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from broker.errors import EngineStopped
from broker.native.store_file import (
    DELETE_DELIVERY,
    DELETE_RETAINED,
    FORGET_CLIENT,
    PUT_DELIVERY,
    PUT_RETAINED,
    PUT_SESSION,
    Kept,
    Operation,
    StoreFile,
)

__all__ = ["Kept", "Store"]

logger = logging.getLogger(__name__)

Callback = Callable[[], None]
_Key = TypeVar("_Key", str, int)

ENTRY_BYTES = 128
"""What a waiting operation counts beside its record in `pending_bytes`: key, dictionary entry, objects."""
_YIELD_EVERY_S = 0.005
_YIELD_S = 0.00005
_RETRY_S = 0.2
_RETRY_CAP_S = 5.0
_CLOSE_S = 10.0
_TIDY_EVERY_S = 1.0


class Store:
    """The records of one directory. All but `open` belongs to the event loop's thread.

    A seq is from 0 to 2**63 - 1. Deliveries whose seqs grow are cheapest: one that is put and deleted before its commit
    never reaches the disk.
    """

    def __init__(self, directory: Path, *, synchronous: Literal["full", "normal"] = "full") -> None:
        """`full` survives power failure, `normal` a crash or kill -9 of this process."""
        self.failing: str | None = None
        """Why nothing can be committed at present; None while it can."""
        self.commits = 0
        self._file = StoreFile(directory, synchronous)
        self._executor: ThreadPoolExecutor | None = None
        self._pending = _Batch()
        self._running: _Batch | None = None
        self._scheduled: asyncio.Handle | None = None
        """The turn in which the next commit begins; while commits fail, the time of the next try."""
        self._tidying: asyncio.Handle | None = None
        self._yielding: asyncio.Handle | None = None
        self._retry_s = _RETRY_S
        self._failing_since = 0.0
        self._highest: dict[str, int] = {}
        """Per client the highest seq that the disk may hold: a put beyond that can be deleted without a trace."""
        self.before_commit: Callback = lambda: None
        """Called when a commit begins, to put what was put off."""
        self._due: deque[Callback] = deque()
        self._calling = False

    def open(self) -> Kept:
        """Lock the directory (made 0700, its file 0600) and read all of it. Blocks. Raises PersistenceError."""
        kept = self._file.open()
        self._highest = {client_id: waiting[-1][0] for client_id, waiting in kept.deliveries.items()}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="broker-store")
        return kept

    # ---- operations

    def put_session(self, client_id: str, record: bytes) -> None:
        self._pending.put(self._pending.sessions, client_id, record)
        self._schedule()

    def delete_session(self, client_id: str) -> None:
        """Forget the session and all that waits for it, put earlier or long ago."""
        self._pending.forget_client(client_id)
        self._highest.pop(client_id, None)
        self._schedule()

    def put_delivery(self, client_id: str, seq: int, record: bytes) -> None:
        deliveries = self._pending.deliveries
        of_client = deliveries.get(client_id)
        if of_client is None:
            of_client = deliveries[client_id] = {}
        self._pending.put(of_client, seq, record)
        self._schedule()

    def delete_delivery(self, client_id: str, seq: int) -> None:
        """Forget one delivery; one that was not put is no fault."""
        deliveries = self._pending.deliveries
        if seq <= self._highest.get(client_id, -1):
            self._pending.put(deliveries.setdefault(client_id, {}), seq, None)
            self._schedule()
            return
        of_client = deliveries.get(client_id)
        if of_client is not None and seq in of_client:
            self._pending.drop(of_client, seq)
            if not of_client:
                del deliveries[client_id]

    def put_retained(self, topic: str, record: bytes) -> None:
        self._pending.put(self._pending.retained, topic, record)
        self._schedule()

    def delete_retained(self, topic: str) -> None:
        self._pending.put(self._pending.retained, topic, None)
        self._schedule()

    # ---- what waits

    @property
    def clean(self) -> bool:
        """Nothing waits to be committed, and nobody to be told."""
        pending = self._pending
        return self._running is None and pending.empty and not (pending.callbacks or self._due or self._calling)

    @property
    def pending_bytes(self) -> int:
        """Records in memory that are not on disk yet, with ENTRY_BYTES for each; deletions are counted too."""
        return self._pending.bytes + (self._running.bytes if self._running else 0)

    def when_safe(self, callback: Callback) -> None:
        """Call it once all that was put so far is on disk; now, if it is. In the order of these calls.

        What it raises is logged. It may put, delete and call this.
        """
        if not self._pending.empty or self._pending.callbacks:
            self._pending.callbacks.append(callback)
        elif self._running is not None:
            self._running.callbacks.append(callback)
        else:
            self._call([callback])

    async def close(self) -> None:
        """Commit what is left, or give up after 10 s and say so, and let go of the directory."""
        executor = self._executor
        if executor is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CLOSE_S
        if self._tidying:
            self._tidying.cancel()
        while not self.clean and (left := deadline - loop.time()) > 0:
            safe = loop.create_future()
            self.when_safe(lambda safe=safe: safe.done() or safe.set_result(None))  # type: ignore[misc]
            if self._running is None and not safe.done():
                self._begin()  # without waiting for a retry's time
            await asyncio.wait([safe], timeout=left)
        if not self.clean:
            logger.error(
                "%s: closed with %d bytes not committed, which are lost: %s",
                self._file.path,
                self.pending_bytes,
                self.failing or "the disk did not answer in time",
            )
        self._executor = None
        for timer in (self._scheduled, self._tidying, self._yielding):
            if timer:
                timer.cancel()
        closing = loop.run_in_executor(executor, self._file.close)
        executor.shutdown(wait=False)
        await asyncio.wait([closing], timeout=_CLOSE_S)

    # ---- commits

    def _schedule(self) -> None:
        if self._scheduled is None and self._running is None:
            if self._executor is None:
                raise EngineStopped(f"{self._file.path} is not open")
            self._scheduled = asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Commit what is pending. Nothing runs at this time."""
        self.before_commit()
        if self._scheduled:
            self._scheduled.cancel()
            self._scheduled = None
        batch = self._pending
        if self._executor is None:
            return
        if batch.empty:
            # Empty with callbacks: what they waited for was deleted again.
            callbacks, batch.callbacks = batch.callbacks, []
            self._call(callbacks)
            return
        self._pending, self._running = _Batch(), batch
        highest = self._highest
        for client_id, of_client in batch.deliveries.items():
            highest[client_id] = max(max(of_client), highest.get(client_id, -1))
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._executor, self._file.commit, batch.operations)
        job.add_done_callback(partial(self._finished, batch))
        if self._yielding is None:
            self._yielding = loop.call_later(_YIELD_EVERY_S, self._yield)

    def _yield(self) -> None:
        """Let the thread have the GIL, if it wants it.

        A loop that is busy gives the GIL away at every turn, but takes it back before the thread has woken up; and as
        long as its turns are shorter than the switch interval (5 ms), the thread never gets to ask for it. Measured
        with turns of 0.1 to 0.6 ms, for 100,000 deliveries: 0.5 to 0.9 s with this, 0.9 to 17 s without.
        """
        self._yielding = None
        if self._running is not None:
            time.sleep(_YIELD_S)
            self._yielding = asyncio.get_running_loop().call_later(_YIELD_EVERY_S, self._yield)

    def _finished(self, batch: "_Batch", job: "asyncio.Future[None]") -> None:
        self._running = None
        error = job.exception()
        if self._executor is None:
            return  # too late: it was given up
        loop = asyncio.get_running_loop()
        if error is not None:
            batch.absorb(self._pending)
            self._pending = batch
            self._fails(error)
            self._scheduled = loop.call_later(self._retry_s, self._begin)
            self._retry_s = min(2 * self._retry_s, _RETRY_CAP_S)
            return
        self.commits += 1
        if self.failing is not None:
            logger.warning(
                "%s: commits succeed again, after %.0f s", self._file.path, loop.time() - self._failing_since
            )
            self.failing = None
            self._retry_s = _RETRY_S
        if not self._pending.empty:
            self._begin()
        self._call(batch.callbacks)
        if self._pending.callbacks:
            self._schedule()  # also where what they waited for was deleted again
        if self._tidying is None:
            self._tidying = loop.call_later(_TIDY_EVERY_S, self._tidy)

    def _fails(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        if self.failing is None:
            self._failing_since = asyncio.get_running_loop().time()
            logger.error(
                "%s: cannot be written (%s): acknowledgements wait; trying again",
                self._file.path,
                reason,
                exc_info=None if isinstance(error, sqlite3.Error) else error,
            )
        self.failing = reason

    def _call(self, callbacks: list[Callback]) -> None:
        self._due.extend(callbacks)
        if self._calling:
            return
        self._calling = True
        try:
            while self._due:
                try:
                    self._due.popleft()()
                except Exception:
                    logger.exception("%s: a callback failed", self._file.path)
        finally:
            self._calling = False

    def _tidy(self) -> None:
        """Shrink the file a little while nothing else is to be done."""
        self._tidying = None
        loop = asyncio.get_running_loop()
        if self._executor is None:
            return
        if self._running is not None or self.failing is not None:
            self._tidying = loop.call_later(_TIDY_EVERY_S, self._tidy)
            return
        loop.run_in_executor(self._executor, self._file.tidy).add_done_callback(self._tidied)

    def _tidied(self, job: "asyncio.Future[bool]") -> None:
        if error := job.exception():
            logger.debug("%s: could not be made smaller: %s", self._file.path, error)
        elif job.result() and self._tidying is None and self._executor is not None:
            self._tidying = asyncio.get_running_loop().call_later(_TIDY_EVERY_S, self._tidy)


class _Batch:
    """Operations to be committed together, one a key, and who waits for them. A record of None is a deletion."""

    __slots__ = ("bytes", "callbacks", "deliveries", "forgotten", "retained", "sessions")

    def __init__(self) -> None:
        self.forgotten: set[str] = set()
        """Clients of which nothing on disk is left; what is put for them here comes after that."""
        self.sessions: dict[str, bytes | None] = {}
        self.deliveries: dict[str, dict[int, bytes | None]] = {}
        self.retained: dict[str, bytes | None] = {}
        self.callbacks: list[Callback] = []
        self.bytes = 0

    @property
    def empty(self) -> bool:
        return not (self.deliveries or self.sessions or self.retained or self.forgotten)

    def put(self, table: dict[_Key, bytes | None], key: _Key, record: bytes | None) -> None:
        if key in table:
            self.bytes -= len(table[key] or b"")
        else:
            self.bytes += ENTRY_BYTES
        table[key] = record
        if record is not None:
            self.bytes += len(record)

    def drop(self, table: dict[_Key, bytes | None], key: _Key) -> None:
        self.bytes -= ENTRY_BYTES + len(table.pop(key) or b"")

    def forget_client(self, client_id: str) -> None:
        if client_id in self.sessions:
            self.drop(self.sessions, client_id)
        of_client = self.deliveries.pop(client_id, {})
        self.bytes -= sum(ENTRY_BYTES + len(record or b"") for record in of_client.values())
        if client_id not in self.forgotten:
            self.forgotten.add(client_id)
            self.bytes += ENTRY_BYTES

    def absorb(self, newer: "_Batch") -> None:
        """Do what the newer batch does too; where both concern a key, the newer has the last word."""
        for client_id in newer.forgotten:
            self.forget_client(client_id)
        for client_id, record in newer.sessions.items():
            self.put(self.sessions, client_id, record)
        for client_id, of_client in newer.deliveries.items():
            mine = self.deliveries.setdefault(client_id, {})
            for seq, record in of_client.items():
                self.put(mine, seq, record)
        for topic, record in newer.retained.items():
            self.put(self.retained, topic, record)
        self.callbacks += newer.callbacks

    def operations(self) -> Iterator[Operation]:
        """In the order in which they have to be done."""
        for client_id in self.forgotten:
            yield FORGET_CLIENT, client_id, 0, None
        for client_id, record in self.sessions.items():
            yield PUT_SESSION, client_id, 0, record
        for client_id, of_client in self.deliveries.items():
            for seq, record in of_client.items():
                yield DELETE_DELIVERY if record is None else PUT_DELIVERY, client_id, seq, record
        for topic, record in self.retained.items():
            yield DELETE_RETAINED if record is None else PUT_RETAINED, topic, 0, record

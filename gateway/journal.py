"""The journal: what is acknowledged is in it. Group commit, bounds, and what happens when there is no room.

While one group is committed in the writer's thread the next one gathers, so a commit costs the same for one
message as for thousands; there is no task, no timer and no queue hop a message. An entry is settled exactly once,
in order: with None when it is safe, with the refusal when it is not.

No room: past `limit_bytes` on disk entries wait for the drain, at most `wait_limit_s` and `pending_limit_bytes`,
then they are refused; on a full or failing disk they are refused at once and the disk is tried again a second
later. What was settled with None is never dropped for room.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.frames import Frame
from gateway.journal_file import Erasure, JournalFile, JournalUnwritable, StoredRow, Synchronous
from gateway.kinds import Fixed
from gateway.link import Outcome
from gateway.readings import Kind
from gateway.recent import Row, Summary
from gateway.refusals import held_back, shutting_down, store_full

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


_SHORTEST_REST_S = 0.001
_LONGEST_REST_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """Bounds of the journal, and which promise a commit gives.

    `synchronous` FULL: an acknowledged reading survives kill -9 and power failure. NORMAL: it survives kill -9,
    but the last commits may be lost when the power fails; it spares an fsync per commit, which matters on SD cards.
    """

    limit_bytes: int = 1 << 30
    """Of rows on disk, deflated: some hundred million readings. Past it, telemetry waits and is then refused."""
    limit_age_s: float | None = None
    """Of the oldest row on disk: past it the same, for who would rather hear of it than store stale data; None: any."""
    pending_limit_bytes: int = 64 << 20
    """Of messages in memory that wait for their commit."""
    group_limit_bytes: int = 4 << 20
    """Of messages in one commit: some 40,000 readings."""
    synchronous: Synchronous = "FULL"
    wait_limit_s: float = 10.0
    retry_after_s: float = 5.0
    """What a refused device is told."""


@dataclass(slots=True)
class Entry:
    """Messages that are acknowledged together. `cost` is about what they take in memory, in bytes."""

    frames: list[Frame]
    settle: Callable[[Outcome | None], None]
    fixed: list[Fixed] = field(default_factory=list)
    cost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """`state`: "ok", "full" (over a limit) or "failing" (the disk refuses)."""

    state: str
    detail: str
    bytes: int
    limit_bytes: int
    batches: int
    pending_bytes: int
    commits: int
    failed_commits: int
    damaged_rows: int


class Journal:
    """One journal file. All methods belong to the event loop's thread."""

    def __init__(
        self,
        path: Path,
        options: JournalOptions | None = None,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or JournalOptions()
        self.last_seq = 0
        """The newest committed row."""
        self.on_commit: Callable[[Row, Sequence[Fixed]], None] = lambda row, fixed: None
        """Called after each commit, before its entries are settled."""
        self.pace_s: Callable[[int], float] = lambda readings: 0.0
        """How many seconds a commit of so many readings has to last, so that the store is not left behind."""
        self.on_abandon: Callable[[Sequence[Fixed]], None] = lambda fixed: None
        """Called when entries that fixed kinds are refused, before they are settled."""
        self._path = path
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._file: JournalFile | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        self._committing: list[Entry] = []
        self._committing_since = 0.0
        self._paced: asyncio.TimerHandle | None = None
        self._rows: deque[tuple[int, int, int]] = deque()  # (seq, bytes, when committed) of each row on disk
        self._bytes = 0
        self._waits: dict[str, Erasure] = {}
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._patience: asyncio.TimerHandle | None = None
        self._out_of_patience = False
        self._failing = ""
        self._retry_at = 0.0
        self._logged_at: float | None = None
        self._commits = 0
        self._failed_commits = 0

    async def open(self) -> list[Summary]:
        """Open the file and return what it holds, oldest first. Raises the JournalErrors of JournalFile."""
        loop = asyncio.get_running_loop()
        make = partial(JournalFile, self._path, synchronous=self.options.synchronous, now_ms=self._now_ms())
        file = await loop.run_in_executor(self._writer, make)
        self._file = file
        summaries, file.summaries = file.summaries, []
        self._rows = deque((summary.seq, summary.bytes, summary.at_ms) for summary in summaries)
        self._bytes = sum(size for _, size, _ in self._rows)
        self.last_seq = max(file.last_number(), summaries[-1].seq if summaries else 0)
        self._waits = {one.device_id: one for one in file.erasures()}
        return summaries

    async def close(self) -> None:
        """Commit what is pending, refuse what comes later, close the file. May be called twice."""
        self._closing = True
        if self._paced is not None:
            self._paced.cancel()
            self._go_on()
        if self._is_full:
            self._refuse_pending(shutting_down())
        await self._idle.wait()
        self._stop_waiting()
        file, self._file = self._file, None
        if file is not None:
            await asyncio.get_running_loop().run_in_executor(self._writer, file.close)
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    @property
    def refusal(self) -> Outcome | None:
        """What an entry would be told now without being looked at; None: it will be taken or made to wait."""
        if self._closing or self._file is None:
            return shutting_down()
        if self._failing and self._monotonic() < self._retry_at:
            return store_full(self.options.retry_after_s, "the journal's disk is full or failing")
        if self._out_of_patience or self._pending_bytes >= self.options.pending_limit_bytes:
            return held_back(self.options.retry_after_s)
        return None

    def append(self, entry: Entry) -> None:
        """Make an entry safe with the next group. One without messages is settled in its turn all the same."""
        refusal = self.refusal
        if refusal is None and self._pending_bytes + entry.cost > self.options.pending_limit_bytes:
            refusal = held_back(self.options.retry_after_s)
        if refusal is not None:
            self._settle([entry], refusal)
            return
        self._pending.append(entry)
        self._pending_bytes += entry.cost
        self._commit_next()

    async def barrier(self) -> None:
        """Return once everything appended until now is settled."""
        if self.refusal is None:
            settled = asyncio.Event()
            self.append(Entry([], lambda _: settled.set()))
            await settled.wait()
        else:
            await self._idle.wait()

    async def read(self, after: int, limit_readings: int, upto: int | None = None) -> list[StoredRow]:
        """Rows read back from the file, without what was erased. Raises JournalError."""
        rows = await self._in_thread(self._reader, partial(self._opened.read, after, limit_readings, upto))
        return [row._replace(frames=self.without_erased(row.seq, row.frames)) for row in rows]

    def without_erased(self, seq: int, frames: list[Frame]) -> list[Frame]:
        """The frames of row `seq` that are not of a device erased since."""
        if not self._waits:
            return frames
        return [each for each in frames if (one := self._waits.get(each.device_id)) is None or seq > one.upto]

    async def forget(self, upto: int) -> None:
        """Drop the rows up to `upto`. Raises JournalUnwritable: then try again later, nothing is lost by it."""
        await self._in_thread(self._writer, partial(self._opened.forget, upto))
        while self._rows and self._rows[0][0] <= upto:
            self._bytes -= self._rows.popleft()[1]
        self._waits = {key: one for key, one in self._waits.items() if one.waits or one.upto > upto}
        if not self._is_full:
            self._stop_waiting()
            self._commit_next()

    async def fix(self, fixed: Sequence[Fixed]) -> None:
        """Keep kinds of metrics whose readings do not come this way. Raises JournalUnwritable."""
        await self._in_thread(self._writer, partial(self._opened.fix, list(fixed)))

    async def erase(self, device_id: str) -> int:
        """Make void what was acknowledged of a device until now; returns the last row concerned."""
        await self.barrier()
        upto = self.last_seq
        await self._in_thread(self._writer, partial(self._opened.erase, device_id, upto))
        self._waits[device_id] = Erasure(device_id, upto, waits=True)
        return upto

    def waiting_erasures(self) -> list[Erasure]:
        """Devices that the store has still to forget."""
        return [one for one in self._waits.values() if one.waits]

    async def erased(self, erasure: Erasure) -> None:
        """The store has forgotten the device."""
        await self._in_thread(self._writer, partial(self._opened.erased, erasure.device_id, erasure.upto))
        if self._waits.get(erasure.device_id) == erasure:
            self._waits[erasure.device_id] = erasure._replace(waits=False)

    def kinds_of(self, device_id: str) -> dict[str, Kind]:
        """The kinds of a device's metrics as committed. Blocks for some 50 µs. Raises JournalError."""
        return self._opened.kinds_of(device_id)

    def stats(self) -> JournalStats:
        return JournalStats(
            state="failing" if self._failing else "full" if self._is_full else "ok",
            detail=self._failing,
            bytes=self._bytes,
            limit_bytes=self.options.limit_bytes,
            batches=len(self._rows),
            pending_bytes=self._pending_bytes,
            commits=self._commits,
            failed_commits=self._failed_commits,
            damaged_rows=self._file.damaged_rows if self._file else 0,
        )

    # ---- private

    @property
    def _opened(self) -> JournalFile:
        if self._file is None:
            raise JournalUnwritable("the journal is closed", disk_full=False)
        return self._file

    @property
    def _is_full(self) -> bool:
        if self._bytes >= self.options.limit_bytes:
            return True
        limit_s = self.options.limit_age_s
        return limit_s is not None and bool(self._rows) and self._now_ms() - self._rows[0][2] > limit_s * 1000

    async def _in_thread(self, executor: ThreadPoolExecutor, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(executor, call)

    def _commit_next(self) -> None:
        if self._paced is not None:
            return
        while self._pending and not self._committing:
            group: list[Entry] = []
            cost = 0
            while self._pending and cost < self.options.group_limit_bytes:
                if self._is_full and self._pending[0].frames:
                    break
                entry = self._pending.popleft()
                group.append(entry)
                cost += entry.cost
            if not group:
                self._start_waiting()
                return
            self._idle.clear()
            self._committing = group
            self._committing_since = self._monotonic()
            frames = [frame for entry in group for frame in entry.frames]
            if frames:
                fixed = [one for entry in group for one in entry.fixed]
                seq, at_ms = self.last_seq + 1, self._now_ms()
                job = asyncio.get_running_loop().run_in_executor(
                    self._writer, self._opened.write, seq, at_ms, frames, fixed
                )
                job.add_done_callback(partial(self._committed, frames, fixed))
                return
            self._finish_group(None)
        if not self._committing:
            self._idle.set()

    def _committed(self, frames: list[Frame], fixed: list[Fixed], job: "asyncio.Future[Summary]") -> None:
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        if error is None:
            summary = job.result()
            self.last_seq = summary.seq
            self._rows.append((summary.seq, summary.bytes, summary.at_ms))
            self._bytes += summary.bytes
            self._commits += 1
            self._recovered()
            try:
                self.on_commit(Row(summary, frames, sum(entry.cost for entry in self._committing)), fixed)
            except Exception:  # it is on disk: the acknowledgements must go out whatever else fails
                logger.exception("%s: a listener failed on row %d", self._path, summary.seq)
            self._finish_group(None)
            rest_s = self.pace_s(summary.readings) - (self._monotonic() - self._committing_since)
            if rest_s > _SHORTEST_REST_S and not self._closing:
                self._paced = asyncio.get_running_loop().call_later(min(rest_s, _LONGEST_REST_S), self._go_on)
        else:
            self._failed(error)
        self._commit_next()

    def _go_on(self) -> None:
        """The store has had its time."""
        self._paced = None
        self._commit_next()

    def _failed(self, error: BaseException) -> None:
        # All that is pending goes with the group: it may rest on kinds that the group was to fix.
        self._failed_commits += 1
        self._failing = str(error) or type(error).__name__
        now = self._monotonic()
        self._retry_at = now + 1.0
        if self._logged_at is None or now - self._logged_at >= 60.0:
            self._logged_at = now
            known = isinstance(error, JournalUnwritable)
            logger.error(
                "%s: telemetry is refused until it can be written again: %s",
                self._path,
                self._failing,
                exc_info=None if known else error,
            )
        refusal = store_full(self.options.retry_after_s, "the journal's disk is full or failing")
        self._finish_group(refusal)
        self._refuse_pending(refusal)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = ""
            self._logged_at = None
            logger.warning("%s: can be written again", self._path)

    def _finish_group(self, refusal: Outcome | None) -> None:
        group, self._committing = self._committing, []
        self._pending_bytes -= sum(entry.cost for entry in group)
        self._settle(group, refusal)

    def _refuse_pending(self, refusal: Outcome) -> None:
        entries, self._pending = list(self._pending), deque()
        self._pending_bytes -= sum(entry.cost for entry in entries)
        self._settle(entries, refusal)
        if not self._committing:
            self._idle.set()

    def _settle(self, entries: list[Entry], refusal: Outcome | None) -> None:
        if refusal is not None:
            fixed = [one for entry in entries for one in entry.fixed]
            if fixed:
                self.on_abandon(fixed)
        for entry in entries:
            try:
                entry.settle(refusal)
            except Exception:
                logger.exception("%s: a caller failed on being told of its commit", self._path)

    def _start_waiting(self) -> None:
        self._idle.clear()
        if self._patience is None:
            logger.warning("%s: full (%d bytes or too old), telemetry waits for the store", self._path, self._bytes)
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(self.options.wait_limit_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._out_of_patience = True
        logger.error("%s: still full after %.0f s, telemetry is refused", self._path, self.options.wait_limit_s)
        self._refuse_pending(held_back(self.options.retry_after_s))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
            if self._out_of_patience and not self._closing:
                logger.warning("%s: has room again", self._path)
        self._out_of_patience = False

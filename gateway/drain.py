"""From the journal into the store: merged, in order, again and again until it is there, and the journal forgets it.

Rows are forgotten from the oldest on, once the store has them and its queries see them. A store that is not
available is asked again with exponential back-off and full jitter; readings that it rejects are searched out by
halves and become dead letters, so that one poisonous reading holds nobody up. After a crash the rows still in the
journal are written once more, which changes nothing: a point is the same point twice. So they are when a store that
answers before it has written to its disk was itself started anew.

`step()` does one piece of work and says when the next is due; the task around it only waits.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from gateway.frames import Frame, Readings
from gateway.journal import Journal
from gateway.journal_file import JournalError
from gateway.readings import Reading
from gateway.recent import Recent
from gateway.store import Buffering, Store, StoreError, StoreRejected, StoreUnavailable

logger = logging.getLogger(__name__)


_TRICKLE_S = 1.0  # behind by no more than this, there is time to gather
_CATCH_UP = 0.9  # of the store's rate: the rest is for what it is behind
_RATE_WEIGHT = 0.2  # of the newest write, in the rate


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOptions:
    merge_readings: int | None = None
    """Readings in one write, about; None: as many as the store likes best."""
    linger_s: float = 0.1
    """Between two writes, so that a trickle of messages becomes ten writes a second; queries do not wait for it."""
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0
    write_limit_s: float = 120.0
    """For one write, whatever the store's own time limit is."""
    run_check_s: float = 5.0
    """How often a store that buffers is asked whether it is still the one that was written to."""
    pace_from_s: float = 3.0
    """From this lag on readings are taken in no faster than the store takes them, so that it is never far behind."""
    suspects: int = 1000
    stop_limit_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStats:
    """`state`: "ok", or "waiting" for the store with `detail` why. `lag_s`: age of the oldest reading not yet there."""

    state: str
    detail: str
    lag_s: float
    attempts: int
    next_try_in_s: float
    written: int
    rejected: int
    retries: int


@dataclass(slots=True)
class _Batch:
    """Rows at hand, up to row `last`: the parts still to be written, as a stack, and the poison found.

    It outlives an outage, so that the search goes on where it was, however often the store fails in between.
    """

    last: int
    parts: list[Sequence[Reading]]
    size: int
    poison: list[tuple[Reading, str]] = field(default_factory=list)


def retry_delay_s(
    attempt: int, *, base_s: float = 1.0, cap_s: float = 60.0, chance: Callable[[], float] = random.random
) -> float:
    """Seconds to wait before try number `attempt` (0 = first retry).

    Full jitter in [0, min(cap_s, base_s * 2**attempt)); `chance` gives numbers in [0, 1).
    """
    return chance() * min(cap_s, base_s * 2.0 ** min(attempt, 60))


class Drain:
    """Moves rows. `rejected` is told of each reading that the store will never take, with the store's reason."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        recent: Recent,
        options: DrainOptions | None = None,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        rejected: Callable[[Reading, str], None] = lambda reading, detail: None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._recent = recent
        self._options = options or DrainOptions()
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._chance = chance
        self._rejected = rejected
        self._cursor = 0  # rows up to here are in the store
        self._forgotten = 0  # and rows up to here are no longer in the journal
        self._run_of_store: str | None = None
        self._run_checked_at: float | None = None
        self._written: deque[tuple[int, float]] = deque()  # (row, when it was), still kept for queries
        self.store_opened = False
        self._attempts = 0
        self._retry_at = 0.0
        self._last_write_at: float | None = None
        self._detail = ""
        self._batch: _Batch | None = None
        self._suspects: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._per_s = 0.0
        """Readings a second that the store took while it was behind."""
        self._busy_since: float | None = None
        self._count_written = self._count_rejected = self._count_retries = 0

    async def open_store(self) -> None:
        """Open the store unless it is open. Raises StoreUnavailable: then `step` tries again."""
        if not self.store_opened:
            await self._store.open()
            self.store_opened = True

    def start(self, after: int) -> None:
        """Begin with the row after `after`: the journal's oldest."""
        self._cursor = self._forgotten = after
        self._task = asyncio.create_task(self._run(), name="gateway-drain")

    async def stop(self) -> None:
        """Write what can be written within `stop_limit_s`, then rest; the journal keeps the rest."""
        task, self._task = self._task, None
        if task is None:
            return
        deadline = self._monotonic() + self._options.stop_limit_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.stop_limit_s):
                async with self._turn:  # a write under way ends by itself
                    task.cancel()
                while self._cursor < self._journal.last_seq and not self._attempts and self._monotonic() < deadline:
                    self._last_write_at = None
                    await self.step()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def wake(self) -> None:
        """There is a new row, or the clock was moved."""
        self._wake.set()

    def lag_s(self) -> float:
        """Age of the oldest acknowledged reading that the store does not have."""
        if self._cursor >= self._journal.last_seq:
            return 0.0
        at_ms = self._recent.at_ms(self._cursor + 1)
        return 0.0 if at_ms is None else max(0.0, (self._now_ms() - at_ms) / 1000)

    def pace_s(self, readings: int) -> float:
        """How long taking in so many readings should last, for the store to catch up: 0 while it is not behind.

        One that is away is not waited for: the journal is there for that.
        """
        if self._attempts or not self._per_s or self.lag_s() < self._options.pace_from_s:
            return 0.0
        return readings / (self._per_s * _CATCH_UP)

    def stats(self) -> DrainStats:
        return DrainStats(
            state="waiting" if self._attempts else "ok",
            detail=self._detail,
            lag_s=self.lag_s(),
            attempts=self._attempts,
            next_try_in_s=max(0.0, self._retry_at - self._monotonic()) if self._attempts else 0.0,
            written=self._count_written,
            rejected=self._count_rejected,
            retries=self._count_retries,
        )

    async def step(self) -> float | None:
        """Do one piece of work. Returns seconds until there may be more: 0 at once, None when woken."""
        async with self._turn:
            forget_in_s = await self._forget_seen()
            if self._attempts and (wait_s := self._retry_at - self._monotonic()) > 0:
                return _sooner(wait_s, forget_in_s)
            try:
                await self.open_store()
                if await self._erase_one():
                    return 0.0
                if self._cursor >= self._journal.last_seq:
                    self._recovered()
                    return forget_in_s
                if self._last_write_at is not None and not self._attempts and self.lag_s() < _TRICKLE_S:
                    wait_s = self._last_write_at + self._options.linger_s - self._monotonic()
                    if wait_s > 0:
                        return _sooner(wait_s, forget_in_s)
                await self._write_some()
            except StoreUnavailable as error:
                return _sooner(self._back_off(str(error), error.retry_after_s), forget_in_s)
            except JournalError as error:
                return _sooner(self._back_off(f"journal: {error}", None), forget_in_s)
            except Exception as error:
                logger.exception("the store failed in a way it does not declare")
                return _sooner(self._back_off(repr(error), None), forget_in_s)
            return 0.0

    async def erase_now(self, limit_s: float = 5.0) -> bool:
        """Let the store forget erased devices before returning; False when that goes on in the background."""
        try:
            async with asyncio.timeout(limit_s), self._turn:
                while await self._erase_one():
                    pass
        except (TimeoutError, StoreError, JournalError):
            self.wake()
            return False
        return True

    # ---- private

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait_s = await self.step()
            except Exception:
                logger.exception("the drain failed and goes on")
                wait_s = 1.0
            if wait_s == 0.0:
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _forget_seen(self) -> float | None:
        """Forget rows that every query sees in the store; returns seconds until the next, None without one."""
        now = self._monotonic()
        upto = 0
        count = 0
        for seq, at in self._written:
            if at + self._store.visible_after_s > now:
                break
            upto = seq
            count += 1
        if count and isinstance(self._store, Buffering):
            if (
                self._run_checked_at is not None
                and (wait_s := self._run_checked_at + self._options.run_check_s - now) > 0
            ):
                return wait_s
            try:
                async with _within(self._options.write_limit_s):
                    lives_on = await self._lives_on(self._store)
            except StoreError:  # not while it is away: nobody knows what it will have kept
                return 1.0
            if not lives_on:
                return None
        if count:
            try:
                await self._journal.forget(upto)
            except JournalError as error:
                logger.warning("written rows cannot be dropped from the journal yet: %s", error)
                return 1.0
            self._forgotten = upto
            for _ in range(count):
                self._written.popleft()
            self._recent.forget(upto)
        if not self._written:
            return None
        return max(0.001, self._written[0][1] + self._store.visible_after_s - now)

    async def _lives_on(self, store: Buffering) -> bool:
        """Whether the store is still the one that was written to; if not, what the journal has is written again."""
        run = await store.run()
        self._run_checked_at = self._monotonic()
        if run == self._run_of_store:
            return True
        logger.warning("the store was started anew: what it may not have kept is written again")
        self._run_of_store = run
        self._cursor = self._forgotten
        self._written.clear()
        self._batch = None
        return False

    async def _erase_one(self) -> bool:
        waiting = self._journal.waiting_erasures()
        if not waiting:
            return False
        await self.open_store()
        try:
            async with _within(self._options.write_limit_s):
                await self._store.delete_device(waiting[0].device_id)
        except StoreRejected as error:
            # A store without deletion never will; its own retention has to, and telemetry must not wait for it.
            logger.warning("%s: its readings stay in the store: %s", waiting[0].device_id, error)
        await self._journal.erased(waiting[0])
        self._batch = None  # it may hold readings of the device: read it again without them
        return True

    async def _write_some(self) -> None:
        if not self._written and isinstance(self._store, Buffering):
            async with _within(self._options.write_limit_s):
                self._run_of_store = await self._store.run()
            self._run_checked_at = self._monotonic()
        if self._batch is None:
            last, readings = await self._next_rows()
            self._batch = _Batch(last, self._parts(readings), len(readings))
        batch = self._batch
        while batch.parts:
            await self._write_part(batch)
        self._batch = None
        for reading, detail in batch.poison:
            self._rejected(reading, detail)
        self._count_written += batch.size - len(batch.poison)
        self._count_rejected += len(batch.poison)
        self._cursor = batch.last
        self._note_rate(batch.size)
        self._last_write_at = self._monotonic()
        self._written.append((batch.last, self._last_write_at))
        self._recovered()
        if not self._store.visible_after_s:
            await self._forget_seen()

    def _note_rate(self, readings: int) -> None:
        """From the end of a write to the end of the next, when there was no pause: all that a reading costs."""
        now = self._monotonic()
        if self._busy_since is not None and now > self._busy_since:
            rate = readings / (now - self._busy_since)
            self._per_s += (rate - self._per_s) * (_RATE_WEIGHT if self._per_s else 1.0)
        self._busy_since = now if self.lag_s() >= _TRICKLE_S else None

    async def _next_rows(self) -> tuple[int, Readings]:
        """The next rows' readings, merged, and the number of the last row among them."""
        limit = self._options.merge_readings or self._store.write_readings
        frames: list[Frame] = []
        seq, size = self._cursor, 0
        while seq < self._journal.last_seq and size < limit:
            row = self._recent.row(seq + 1)
            if row is None:
                break
            seq += 1
            size += row.summary.readings
            frames += self._journal.without_erased(seq, row.frames)
        if seq > self._cursor:
            return seq, Readings(frames)
        rows = await self._journal.read(self._cursor, limit)
        if not rows:  # numbers that were given out and never used
            return self._journal.last_seq, Readings([])
        return rows[-1].seq, Readings([frame for row in rows for frame in row.frames])

    def _parts(self, readings: Readings) -> list[Sequence[Reading]]:
        """What to write, last part first. Series that were rejected before are written apart."""
        if not self._suspects:
            return [readings] if readings else []
        sound = [reading for reading in readings if (reading[0], reading[1]) not in self._suspects]
        doubtful = [reading for reading in readings if (reading[0], reading[1]) in self._suspects]
        return [part for part in (doubtful, sound) if part]

    async def _write_part(self, batch: "_Batch") -> None:
        part = batch.parts[-1]
        try:
            async with _within(self._options.write_limit_s):
                await self._store.write(part)
        except StoreRejected as error:
            batch.parts.pop()
            if len(part) > 1:
                middle = len(part) // 2
                batch.parts += [part[middle:], part[:middle]]
                return
            batch.poison.append((part[0], str(error)))
            self._suspects[part[0][0], part[0][1]] = None
            if len(self._suspects) > self._options.suspects:
                self._suspects.popitem(last=False)
            return
        batch.parts.pop()
        if self._suspects and not batch.poison:
            for reading in part:
                self._suspects.pop((reading[0], reading[1]), None)

    def _back_off(self, detail: str, retry_after_s: float | None) -> float:
        delay_s = retry_delay_s(
            self._attempts, base_s=self._options.retry_base_s, cap_s=self._options.retry_cap_s, chance=self._chance
        )
        if retry_after_s is not None:
            delay_s = max(delay_s, min(retry_after_s, 5 * self._options.retry_cap_s))
        if not self._attempts:
            logger.warning("the store is not available, readings stay in the journal: %s", detail[:300])
        self._attempts += 1
        self._count_retries += 1
        self._detail = detail[:300]
        self._retry_at = self._monotonic() + delay_s
        return delay_s

    def _recovered(self) -> None:
        if self._attempts:
            logger.warning("the store is available again after %d tries", self._attempts)
        self._attempts = 0
        self._detail = ""


@contextlib.asynccontextmanager
async def _within(limit_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer within {limit_s:.0f} s") from error


def _sooner(wait_s: float, other_s: float | None) -> float:
    return max(0.001, wait_s if other_s is None else min(wait_s, other_s))

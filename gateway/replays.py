"""Dead letters tried again: each goes through its lane once more, as if it came now, under the time it came first.

A letter is deleted only when its message is safe (the journal has it, or the fleet has taken it over), and readings
without a time of their own get the letter's: so a replay that is repeated, or broken off by a crash, makes no point
twice. What is refused again stays, with the reason of now. One replay runs at a time, a bounded group at once.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.dead_letters import DeadLetters
from gateway.letters import DeadLetter, LetterFilter
from gateway.link import REPLAY, Done, Outcome, Uplink
from gateway.refusals import is_temporary

logger = logging.getLogger(__name__)

_GROUP = 50
"""Letters in memory at once: 50 of 64 KiB are 3 MiB, beside 64 MiB that may wait for the journal."""
_JOBS_KEPT = 20
_TRIES = 10
_PAUSE_LIMIT_S = 5.0


class ReplayState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Broken off: the server had no room, or stopped. What was not tried is still there."""


@dataclass(slots=True, kw_only=True)
class Replay:
    """One replay. `total` letters were meant at its start; those deleted meanwhile are in none of the other counts."""

    id: str
    total: int
    state: ReplayState = ReplayState.RUNNING
    taken: int = 0
    refused: int = 0
    skipped: int = 0
    """Could not be tried: their payload was cut."""
    detail: str = ""


class ReplayRunning(Exception):
    """A replay is running; start the next one when it has ended."""


class Replays:
    """Runs replays. `uplinks` is the way that messages of devices take."""

    def __init__(
        self,
        letters: DeadLetters,
        uplinks: Callable[[Sequence[Uplink], Done], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._letters = letters
        self._uplinks = uplinks
        self._sleep = sleep
        self._jobs: OrderedDict[str, Replay] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._partly: dict[int, Outcome] = {}
        """Refusals of parts of the messages under way, by the id() of their uplinks, which `_send` holds."""
        self._under_way: set[int] = set()

    async def start(self, which: LetterFilter) -> Replay:
        """Begin to replay the letters meant, of those there are now. Raises ReplayRunning."""
        self._check()
        upto = self._letters.last_id
        total = sum((await self._letters.counts(which)).values())
        self._check()
        job = Replay(id=secrets.token_hex(8), total=total)
        self._jobs[job.id] = job
        while len(self._jobs) > _JOBS_KEPT:
            self._jobs.popitem(last=False)
        self._task = asyncio.create_task(self._run(job, which, upto), name="dead-letters-replay")
        return job

    def get(self, job_id: str) -> Replay | None:
        """A replay of this process's life; the newest 20 are kept."""
        return self._jobs.get(job_id)

    def running(self) -> Replay | None:
        """The one that runs now."""
        return next((job for job in self._jobs.values() if job.state is ReplayState.RUNNING), None)

    def note_refusal(self, uplink: Uplink, outcome: Outcome) -> bool:
        """Whether a refused message is a replayed one: then it is noted here, and there is a letter of it already."""
        if uplink.link != REPLAY:
            return False
        if id(uplink) in self._under_way:  # else its replay was broken off
            self._partly.setdefault(id(uplink), outcome)
        return True

    async def stop(self) -> None:
        """Break off what runs. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if (job := self.running()) is not None:
            job.state, job.detail = ReplayState.FAILED, "the server was stopped"

    # ---- private

    def _check(self) -> None:
        if self._task is not None and not self._task.done():
            raise ReplayRunning

    async def _run(self, job: Replay, which: LetterFilter, upto: int) -> None:
        after = 0
        try:
            while group := await self._letters.next_whole(which, after=after, limit=_GROUP):
                after = group[-1].id
                group = [letter for letter in group if letter.id <= upto]
                if not group:
                    break
                whole = [letter for letter in group if not letter.cut]
                job.skipped += len(group) - len(whole)
                if whole and not await self._replay(job, whole):
                    job.state = ReplayState.FAILED
                    return
            job.state = ReplayState.DONE
        except Exception as error:
            logger.exception("a replay of dead letters failed")
            job.state, job.detail = ReplayState.FAILED, f"failed: {type(error).__name__}"

    async def _replay(self, job: Replay, letters: Sequence[DeadLetter]) -> bool:
        """Try letters until each is taken or refused for good; False when the server had no room for too long."""
        for attempt in range(_TRIES):
            outcomes = await self._send([_uplink_of(letter) for letter in letters])
            found = list(zip(letters, outcomes, strict=True))
            taken = [letter.id for letter, outcome in found if not outcome.code.is_error]
            refused = [
                (letter.id, outcome.reason or outcome.code.name.lower(), outcome.detail)
                for letter, outcome in found
                if outcome.code.is_error and not is_temporary(outcome)
            ]
            if taken:
                await self._letters.delete(LetterFilter(ids=tuple(taken)))
            if refused:
                await self._letters.refused_again(refused)
            job.taken += len(taken)
            job.refused += len(refused)
            waiting = [(letter, outcome) for letter, outcome in found if is_temporary(outcome)]
            if not waiting:
                return True
            letters, last = [letter for letter, _ in waiting], waiting[-1][1]
            job.detail = f"{last.reason}: {last.detail}"
            if attempt + 1 < _TRIES:
                await self._sleep(min(_PAUSE_LIMIT_S, max(outcome.retry_after_s or 0.0 for _, outcome in waiting)))
        return False

    async def _send(self, uplinks: Sequence[Uplink]) -> list[Outcome]:
        """What became of messages; one that was refused in part counts as refused."""
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()

        def done(outcomes: Sequence[Outcome]) -> None:
            if not answered.done():
                answered.set_result(list(outcomes))

        self._under_way = {id(uplink) for uplink in uplinks}
        self._partly = {}
        try:
            self._uplinks(uplinks, done)
            outcomes = await answered
            return [
                outcome if outcome.code.is_error else self._partly.get(id(uplink), outcome)
                for uplink, outcome in zip(uplinks, outcomes, strict=True)
            ]
        finally:
            self._under_way, self._partly = set(), {}


def _uplink_of(letter: DeadLetter) -> Uplink:
    return Uplink(
        device_id=letter.device_id,
        channel=letter.channel,
        payload=letter.payload_bytes,
        received_at_ms=letter.at_ms,
        content_type=letter.content_type,
        link=REPLAY,
    )

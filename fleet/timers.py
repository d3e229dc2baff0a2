"""Everything that is due by time: one task that runs named jobs at their intervals.

Intervals are monotonic. A job that fails is logged and runs again at its next turn; the others are not touched.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fleet.clock import Clock
from fleet.database import log_failure

logger = logging.getLogger(__name__)

_RESOLUTION_S = 0.2  # a revoked credential must be out within a second


@dataclass(slots=True, kw_only=True)
class _Timer:
    name: str
    interval_s: float
    run: Callable[[], Awaitable[None]]
    due: float
    failing: bool = False


class Timers:
    """`add()` the jobs, then `start()`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: list[_Timer] = []
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str, interval_s: float, run: Callable[[], Awaitable[None]]) -> None:
        self._timers.append(_Timer(name=name, interval_s=interval_s, run=run, due=self._clock.monotonic() + interval_s))

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop(), name="fleet timers")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run_due(self) -> None:
        """Run once each job whose time has come."""
        async with self._turn:
            for timer in self._timers:
                now = self._clock.monotonic()
                if now < timer.due:
                    continue
                timer.due = now + timer.interval_s
                try:
                    await timer.run()
                except Exception as error:
                    if not timer.failing:  # once, or a database that is away for an hour fills the log
                        log_failure(
                            logger, error, "timer %r failed; it runs again every %.1f s", timer.name, timer.interval_s
                        )
                    timer.failing = True
                else:
                    if timer.failing:
                        logger.info("timer %r works again", timer.name)
                    timer.failing = False

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(_RESOLUTION_S)
            await self.run_due()

"""By which time things are deleted for their age: the wall clock, but not one that has just leapt ahead.

A clock that a flat battery, a typing error or a wrong time server sets ten years on would make everything old at once.
So who deletes by age asks here: a leap of more than a day counts only after it has stood for a day, and a server that
starts more than a week after it last ran waits that day, too. What is stamped is stamped by the wall clock anyway.
"""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

LEAP_MS = 86_400_000
GAP_MS = 7 * 86_400_000
PATIENCE_S = 86_400.0


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Ages:
    """`last_ran_ms`: when this server last ran, by the clock of that time; None where that is not known."""

    def __init__(
        self,
        now_ms: Callable[[], int] = _wall_clock_ms,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        last_ran_ms: int | None = None,
    ) -> None:
        self._wall_ms = now_ms
        self._monotonic = monotonic
        self._at = monotonic()
        self._believed_ms = now_ms()
        self._doubted_at: float | None = None
        if last_ran_ms is not None and self._believed_ms - last_ran_ms > GAP_MS:
            self._doubt(self._believed_ms - last_ran_ms)
            self._believed_ms = last_ran_ms

    @property
    def doubts(self) -> bool:
        """Whether the wall clock is not believed at present."""
        return self._doubted_at is not None

    def now_ms(self) -> int:
        """Unix time in ms, for ages alone."""
        wall_ms, at = self._wall_ms(), self._monotonic()
        carried_ms = self._believed_ms + int((at - self._at) * 1000)
        if wall_ms - carried_ms > LEAP_MS:
            if self._doubted_at is None:
                self._doubt(wall_ms - carried_ms)
            elif at - self._doubted_at >= PATIENCE_S:
                logger.warning("the clock has stood for a day: readings and messages are deleted by it again")
                carried_ms, self._doubted_at = wall_ms, None
        else:
            if self._doubted_at is not None:
                logger.info("the clock is back: readings and messages are deleted by it again")
            carried_ms, self._doubted_at = wall_ms, None
        self._believed_ms, self._at = carried_ms, at
        return carried_ms

    def _doubt(self, leap_ms: int) -> None:
        self._doubted_at = self._monotonic()
        logger.warning(
            "the clock has leapt ahead by %.0f days: for a day nothing is deleted for its age; is it right?",
            leap_ms / 86_400_000,
        )

"""By which time things are deleted for their age: the wall clock, but not one that has just leapt ahead.

A clock that a flat battery, a typing error or a wrong time server sets ten years on would make everything old at once.
So who deletes by age asks here: a leap of more than a day counts only after it has stood for a day, and a server that
starts more than a week after it last ran waits that day, too, and anew when it is started anew meanwhile. What is
stamped is stamped by the wall clock anyway.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

LEAP_MS = 86_400_000
GAP_MS = 7 * 86_400_000
PATIENCE_S = 86_400.0


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Ages:
    """Asked by any thread. `last_ran_ms`: when this server last ran, by the clock of that time; None: not known.

    `file` keeps, while the clock is doubted, what was believed instead: what was written since then, and so the time
    a server last ran, is stamped by the doubtful clock, and a restart would otherwise believe it.
    """

    def __init__(
        self,
        now_ms: Callable[[], int] = _wall_clock_ms,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        last_ran_ms: int | None = None,
        file: Path | None = None,
    ) -> None:
        self._wall_ms = now_ms
        self._monotonic = monotonic
        self._file = file
        self._lock = threading.Lock()
        self._at = monotonic()
        self._believed_ms = now_ms()
        self._doubted_at: float | None = None
        self._leap_ms = 0
        noted_ms = _noted_ms(file)
        then_ms, limit_ms = (last_ran_ms, GAP_MS) if noted_ms is None else (noted_ms, LEAP_MS)
        if then_ms is not None and self._believed_ms - then_ms > limit_ms:
            leap_ms, self._believed_ms = self._believed_ms - then_ms, then_ms
            self._doubt(leap_ms)
        elif noted_ms is not None:
            self._believe()

    @property
    def doubts(self) -> bool:
        """Whether the wall clock is not believed at present."""
        return self._doubted_at is not None

    def now_ms(self) -> int:
        """Unix time in ms, for ages alone."""
        with self._lock:
            wall_ms, at = self._wall_ms(), self._monotonic()
            self._believed_ms += int((at - self._at) * 1000)
            self._at = at
            leap_ms = wall_ms - self._believed_ms
            if leap_ms <= LEAP_MS:
                if self._doubted_at is not None:
                    logger.info("the clock is back: readings and messages are deleted by it again")
                    self._believe()
                self._believed_ms = wall_ms
            elif self._doubted_at is None or abs(leap_ms - self._leap_ms) > LEAP_MS:
                self._doubt(leap_ms)
            elif at - self._doubted_at >= PATIENCE_S:
                logger.warning("the clock has stood for a day: readings and messages are deleted by it again")
                self._believe()
                self._believed_ms = wall_ms
            return self._believed_ms

    def _doubt(self, leap_ms: int) -> None:
        self._doubted_at, self._leap_ms = self._monotonic(), leap_ms
        logger.warning(
            "the clock has leapt ahead by %.0f days: for a day nothing is deleted for its age; is it right?",
            leap_ms / 86_400_000,
        )
        if self._file is not None:
            fresh = self._file.with_suffix(".new")
            try:
                fresh.write_text(str(self._believed_ms), encoding="ascii")
                fresh.replace(self._file)
            except OSError as error:
                logger.warning("%s cannot be written: a restart would believe the clock: %s", self._file, error)

    def _believe(self) -> None:
        self._doubted_at = None
        if self._file is not None:
            with suppress(OSError):  # what is left there is looked at again at the next start
                self._file.unlink(missing_ok=True)


def _noted_ms(file: Path | None) -> int | None:
    """What a server that doubted the clock believed instead."""
    if file is not None:
        with suppress(OSError, ValueError):
            return int(file.read_text(encoding="ascii"))
    return None

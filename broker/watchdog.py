"""Sees when the event loop stands still, and says where: everything in the process waits for it then.

The loop notes ten times a second that it turns, and how late; a thread of its own looks whether it does. What holds
the interpreter itself (one long call into C) holds the thread, too: then only the length is logged, afterwards.
"""

import asyncio
import logging
import sys
import threading
import traceback
from bisect import bisect_left
from time import monotonic

logger = logging.getLogger(__name__)

BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper edges of `counts`; the last count is of what was later still."""
_BEAT_S = 0.1
_FRAMES = 12  # the innermost: the rest is the loop's own


class Watchdog:
    """`start` it in the loop that it is to watch, `stop` it before the loop ends."""

    def __init__(self, *, stall_s: float = 0.5) -> None:
        self._stall_s = stall_s
        self.counts = [0] * (len(BUCKETS_S) + 1)
        """How often the loop was so late, in seconds, by `BUCKETS_S`."""
        self.late_s = 0.0
        """All of that together."""
        self.stalls = 0
        """How often it stood still for longer than `stall_s`."""
        self._due = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop_thread = threading.get_ident()
        self._due = monotonic() + _BEAT_S
        self._beat = asyncio.get_running_loop().call_later(_BEAT_S, self._turn)
        self._thread = threading.Thread(target=self._watch, name="loop watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _turn(self) -> None:
        """In the loop: it turns."""
        now = monotonic()
        late_s = max(0.0, now - self._due)
        self.counts[bisect_left(BUCKETS_S, late_s)] += 1
        self.late_s += late_s
        self._due = now + _BEAT_S
        self._beat = asyncio.get_running_loop().call_later(_BEAT_S, self._turn)
        if late_s > self._stall_s:
            self.stalls += 1
            logger.warning("the event loop stood still for %.1f s", late_s)

    def _watch(self) -> None:
        """In the thread: look where the loop is, once for each time that it stands still."""
        seen = 0.0
        while not self._stopped.wait(self._stall_s / 4):
            due = self._due
            if due == seen or monotonic() - due <= self._stall_s:
                continue
            seen = due
            self._say_where()

    def _say_where(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # not kept: all that the loop's callers hold hangs on it
        if frame is not None:
            where = "".join(traceback.format_stack(frame)[-_FRAMES:])
            logger.warning("the event loop has stood still for %.1f s, here:\n%s", self._stall_s, where)

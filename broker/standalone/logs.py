"""What the program says: log lines on stderr, one an event, in which no client can write a line of its own."""

import logging
import re
import sys
import time
from collections.abc import Callable

from broker.engine import SessionInfo
from broker.reason import ReasonCode

logger = logging.getLogger("broker.clients")

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OneLine(logging.Formatter):
    """Control characters are escaped, also those that turn the direction of writing; tracebacks stay as they are."""

    @staticmethod
    def converter(timestamp: float | None = None) -> time.struct_time:
        return time.gmtime(timestamp)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), super().formatMessage(record))


def configure(level: str) -> None:
    """Once, at start; again to change the level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))


class Budget:
    """So many lines in so many seconds; what is beyond is counted and told with the next line there is room for."""

    def __init__(self, lines: int, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = lines
        self._per_s = per_s
        self._clock = clock
        self._ends_at = 0.0
        self._used = 0

    def take(self) -> bool:
        """Whether there is room for a line."""
        now = self._clock()
        if now >= self._ends_at:
            if (more := self._used - self._lines) > 0:
                logger.warning("%d more lines like the next were not logged", more)
            self._used, self._ends_at = 0, now + self._per_s
        self._used += 1
        return self._used <= self._lines


class ClientLog:
    """A Tap: the comings and goings of clients, and what they were not allowed, as far as a disk can bear it."""

    def __init__(self) -> None:
        self._comings = Budget(2_000, 10.0)
        self._refusals = Budget(100, 10.0)

    def connected(self, session: SessionInfo) -> None:
        if logger.isEnabledFor(logging.INFO) and self._comings.take():
            logger.info(
                "%s: %.70r connected as %.70r, MQTT %s",
                session.address,
                session.client_id,
                session.username,
                {3: "3.1", 4: "3.1.1", 5: "5"}.get(session.protocol, session.protocol),
            )

    def disconnected(self, client_id: str, username: str, reason: str) -> None:
        if logger.isEnabledFor(logging.INFO) and self._comings.take():
            logger.info("%.70r (%.70r): %s", client_id, username, reason)

    def refused(self, client_id: str, username: str, action: str, target: str, reason: ReasonCode) -> None:
        level = logging.WARNING if action == "connect" else logging.INFO
        if logger.isEnabledFor(level) and self._refusals.take():
            logger.log(level, "%.70r (%.70r) may not %s %.100r: %s", client_id, username, action, target, reason.words)

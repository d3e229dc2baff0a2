"""The two clocks of the fleet, in one object that tests can move.

Deadlines are points on the wall clock (aware UTC), because they outlive a restart; intervals are monotonic seconds,
because the wall clock may jump.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def utc(self) -> datetime:
        """Now, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow; good for differences alone."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def utc(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(at: datetime) -> str:
    """2026-11-20T12:00:00.000Z"""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def unix_ms(at: datetime) -> int:
    """Unix time in ms."""
    return int(at.timestamp() * 1000)

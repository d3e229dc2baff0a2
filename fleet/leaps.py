"""When the wall clock leaps, what was to happen in so many seconds still happens in so many seconds.

Deadlines are kept as times of the wall clock, since they outlive a restart. A clock that is set while the server runs
would end every command and every update under way at once, or never; so the deadlines are moved by as much as the clock
was. A restart is not seen, nor are the clocks of other nodes: where they share a database it is only told of.
"""

import logging
from datetime import timedelta

from fleet.clock import Clock
from fleet.database import Database
from fleet.machines.command import COMMAND_UNFINISHED
from fleet.machines.job import JOB_UNFINISHED
from fleet.provisioning import ApplicationStatus

logger = logging.getLogger(__name__)

LEAP = timedelta(minutes=1)
_DEADLINES = (
    ("command", ("expires_at", "next_send_at", "answer_by"), COMMAND_UNFINISHED),
    ("application", ("updated_at",), (ApplicationStatus.PENDING, ApplicationStatus.PROVISIONED)),  # kept for a time
    ("job", ("deadline", "next_offer_at", "step_at"), JOB_UNFINISHED),
)


class Leaps:
    """Looks at both clocks."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._utc = clock.utc()
        self._monotonic = clock.monotonic()

    async def follow(self) -> None:
        """For the timers, before everything else that is due: move the deadlines when the clock has leapt."""
        utc, monotonic = self._clock.utc(), self._clock.monotonic()
        leap = utc - self._utc - timedelta(seconds=monotonic - self._monotonic)
        if abs(leap) >= LEAP:
            which = f"the clock has leapt by {leap.total_seconds():+,.0f} s"
            if self._database.is_shared:
                logger.warning("%s: commands and updates under way may end early or late", which)
            else:
                await self._move(leap)
                logger.warning("%s: the deadlines of commands and updates were moved with it", which)
        self._utc, self._monotonic = utc, monotonic

    async def _move(self, leap: timedelta) -> None:
        seconds = f"{leap.total_seconds():+.3f} seconds"
        async with self._database.transaction():
            for table, columns, states in _DEADLINES:
                moved = ", ".join(
                    f"\"{column}\" = strftime('%Y-%m-%d %H:%M:%f', \"{column}\", ?) || '+00:00'" for column in columns
                )
                places = ", ".join("?" * len(states))
                await self._database.execute(
                    f'UPDATE "{table}" SET {moved} WHERE "status" IN ({places})',  # noqa: S608
                    [*(seconds for _ in columns), *(str(state) for state in states)],
                )

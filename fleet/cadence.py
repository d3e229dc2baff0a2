"""When something recurs: a cron line in a time zone. No I/O beyond the zone files, no clock.

At the change of the hour it does as Debian's cron. What is set to an hour of the day (`30 2 * * *`) runs once on each
day: right after the gap when its time is left out, and the first time when its time comes twice. What recurs by the
hour or faster (`*/20 * * * *`) follows the time that really passes.
"""

import functools
import zoneinfo
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from fleet.errors import Invalid

CRON_LIMIT = 100
_FIELDS = 5
_TRIES = 200  # a line that recurs each minute comes 60 times in an hour that is there twice


class Cadence:
    """Minutes of a cron line: minute, hour, day of the month, month, day of the week. Raises Invalid."""

    def __init__(self, cron: str, time_zone: str) -> None:
        if time_zone not in _zones():
            raise Invalid("time_zone", "is not in the IANA database; such as Europe/Berlin or UTC")
        if len(cron) > CRON_LIMIT or len(cron.split()) != _FIELDS:
            raise Invalid("cron", "has five fields: minute, hour, day of the month, month, day of the week")
        self.cron = " ".join(cron.split())
        self._zone = zoneinfo.ZoneInfo(time_zone)
        try:
            CronSim(self.cron, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise Invalid("cron", str(error)) from error

    def after(self, moment: datetime) -> datetime | None:
        """The first time later than `moment`, in UTC; None where there is none within 50 years."""
        times = CronSim(self.cron, moment.astimezone(self._zone))
        # Of an hour that comes twice it gives the first one, which may lie before a moment in the second.
        for _ in range(_TRIES):
            found = next(times, None)
            if found is None:
                return None
            if (found := found.astimezone(UTC)) > moment:
                return found
        return None


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())

"""Carries out what schedules are due, each device's command of each run exactly once.

A run begins when its number is written by compare-and-swap: of two nodes one wins, and no clock brings the number
back. From then on it is owed. Each device's command is made in one transaction with a row that says so, unique by
schedule, run and device: whoever is killed in between, this node or another goes on where it was.
"""

from datetime import datetime, timedelta

import orjson
from tortoise.exceptions import IntegrityError
from tortoise.expressions import Q

from fleet.actor import Actor
from fleet.cadence import Cadence
from fleet.clock import Clock
from fleet.commands import Commands
from fleet.database import Database
from fleet.errors import Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.models import ScheduleRow, ScheduleRunRow
from fleet.schedules import CatchUp, command_of

_LATE = timedelta(seconds=60)  # a restart takes less; what is later was missed
_SCHEDULES_A_TURN = 20
_COMMANDS_A_TURN = 20  # 0.2 s on a busy machine: other timers wait meanwhile
_RUNS_KEPT = 10


class ScheduleRuns:
    """`run_due` is the timers' part of schedules."""

    def __init__(self, *, database: Database, commands: Commands, clock: Clock) -> None:
        self._database = database
        self._commands = commands
        self._clock = clock

    async def run_due(self) -> None:
        """Begin the runs that are due, and go on with those that have begun: at most 20 commands a call."""
        now = self._clock.utc()
        # What has begun comes first: another node may have begun it and be gone.
        due = ScheduleRow.filter(Q(owed=True) | Q(next_run_at__lte=now)).order_by("-owed", "next_run_at")
        left = _COMMANDS_A_TURN
        for row in await due.limit(_SCHEDULES_A_TURN):
            if not row.owed and not await self._begin(row, now):
                continue
            if row.owed:
                left = await self._go_on(row, left)
            if left <= 0:
                return

    async def _begin(self, row: ScheduleRow, now: datetime) -> bool:
        """Take the run; False when somebody else was faster. `row` is then as written."""
        due_at = row.next_run_at
        if due_at is None:
            return False
        missed = now - due_at > _LATE and row.catch_up == CatchUp.SKIP
        following = None if row.cron is None else Cadence(row.cron, row.time_zone).after(max(now, due_at))
        news = {
            "next_run_at": following,
            "version": row.version + 1,
            **({"skipped": row.skipped + 1} if missed else {"owed": True, "runs": row.runs + 1, "last_run_at": due_at}),
        }
        if not await ScheduleRow.filter(id=row.id, version=row.version).update(**news):
            return False
        row.update_from_dict(news)
        return True

    async def _go_on(self, row: ScheduleRow, left: int) -> int:
        """Make the commands that the present run still owes; returns how many more may be made now."""
        run = ScheduleRunRow.filter(schedule_id=row.id, run=row.runs)
        done = {str(each) for each in await run.values_list("device_id", flat=True)}
        owed = [each for each in orjson.loads(row.device_ids) if each not in done]
        for device_id in owed[: max(left, 0)]:
            await self._order(row, device_id)
        if len(owed) <= left:
            await ScheduleRunRow.filter(schedule_id=row.id, run__lte=row.runs - _RUNS_KEPT).delete()
            await ScheduleRow.filter(id=row.id, runs=row.runs, owed=True).update(owed=False)
        return left - len(owed)

    async def _order(self, row: ScheduleRow, device_id: str) -> None:
        entry = ScheduleRunRow(
            id=new_id(), schedule_id=row.id, run=row.runs, due_at=row.last_run_at, device_id=device_id
        )

        async def keep(command_id: str) -> None:
            entry.command_id = command_id
            try:
                await entry.save(force_create=True)
            except IntegrityError as error:
                raise _Done from error

        command = command_of(row)
        actor = Actor(kind="system", id=f"schedule {row.name}"[:128])
        try:
            await self._commands.create(
                actor, device_id, command.name, command.params, command.ttl_s, command.delivery, also=keep
            )
        except _Done:
            return
        except (NotFound, Invalid, Conflict) as error:
            entry.command_id, entry.error = "", str(error)[:300]
            try:
                await entry.save(force_create=True)
            except IntegrityError:
                return


class _Done(Exception):
    """Another node has made this device's command of this run, or the schedule was deleted."""

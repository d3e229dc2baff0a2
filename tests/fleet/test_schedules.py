"""Schedules: commands by time, each run once, whatever is killed or set back in between."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import Conflict, Invalid, NotFound
from fleet.models import CommandRow, ScheduleRow, ScheduleRunRow
from fleet.schedule_runs import ScheduleRuns
from fleet.schedules import Schedule, ScheduledCommand
from gateway.profiles.commands import Delivery
from gateway.profiles.document import Profile
from tests.fleet.conftest import ANNA, MovableClock, Rig, running

REBOOT = ScheduledCommand(name="reboot", params={"delay_s": 1}, ttl_s=120, delivery=Delivery.SEQUENTIAL)
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)  # where a MovableClock begins


async def schedule(rig: Rig, **fields: Any) -> Schedule:
    wanted: dict[str, Any] = {"name": "nightly", "command": REBOOT, "device_ids": ["pump-7"], **fields}
    return await rig.fleet.schedules.create(ANNA, **wanted)


async def commands(rig: Rig) -> int:
    return await CommandRow.all().count()


async def test_a_command_is_made_once_at_its_time(rig: Rig) -> None:
    await rig.device()
    made = await schedule(rig, at=NOON + timedelta(seconds=30))
    assert (made.next_run_at, made.runs) == (NOON + timedelta(seconds=30), 0)
    await rig.later(29)
    assert await commands(rig) == 0
    await rig.later(2)
    await rig.later(3600)
    [command] = (await rig.fleet.commands.list("pump-7")).items
    assert (command.name, command.params, command.delivery, command.created_by) == (
        "reboot",
        {"delay_s": 1},
        "sequential",
        "schedule nightly",
    )
    assert command.expires_at - command.created_at == timedelta(seconds=120)
    made = await rig.fleet.schedules.get(made.id)
    assert (made.next_run_at, made.last_run_at, made.runs) == (None, NOON + timedelta(seconds=30), 1)
    [run] = (await rig.fleet.schedules.runs(made.id)).items
    assert (run.run, run.device_id, run.command_id, run.error) == (1, "pump-7", command.id, None)


async def test_a_cron_line_comes_again_and_each_device_has_its_own_outcome(rig: Rig) -> None:
    strict = Profile.model_validate({"name": "strict", "unknown_commands": "refuse"})
    await rig.fleet.profiles.create(ANNA, strict)
    for device_id, profile in (("a", None), ("b", "strict"), ("c", None)):
        await rig.device(device_id, profile=profile)
    await rig.fleet.devices.update(ANNA, "c", disabled=True)
    made = await schedule(rig, cron="*/10 * * * *", device_ids=["a", "b", "c", "nobody", "a"])
    for _ in range(3):
        await rig.later(600)
    assert await CommandRow.filter(device_id="a").count() == await commands(rig) == 3
    outcomes = {run.device_id: run.error for run in (await rig.fleet.schedules.runs(made.id, limit=4)).items}
    assert outcomes == {
        "a": None,
        "b": "name: the profile strict has no such command; it has: none",
        "c": "the device is disabled",
        "nobody": "there is no device 'nobody'",
    }
    made = await rig.fleet.schedules.get(made.id)
    assert (made.runs, made.next_run_at) == (3, NOON + timedelta(minutes=40))


@pytest.mark.parametrize(
    ("catch_up", "away_s", "made", "skipped"),
    [("once", 3 * 3600 + 90, 1, 0), ("skip", 3 * 3600 + 90, 0, 1), ("skip", 3600 + 30, 1, 0)],
)
async def test_runs_that_were_missed_are_one_or_none(
    rig: Rig, catch_up: str, away_s: float, made: int, skipped: int
) -> None:
    await rig.device()
    await schedule(rig, cron="0 * * * *", catch_up=catch_up)
    await rig.later(away_s)
    row = await ScheduleRow.get()
    assert (await commands(rig), row.skipped, row.runs) == (made, skipped, made)
    assert row.next_run_at is not None
    assert row.next_run_at > rig.clock.utc()


async def test_a_time_that_was_missed_and_is_to_be_skipped_is_over(lite: Rig) -> None:
    await lite.device()
    made = await schedule(lite, at=NOON + timedelta(seconds=5), catch_up="skip")
    await lite.later(3600)
    made = await lite.fleet.schedules.get(made.id)
    assert (made.next_run_at, made.runs, made.skipped, await commands(lite)) == (None, 0, 1, 0)


async def test_a_clock_that_is_set_back_brings_no_run_again(tmp_path: Path, database_url: str) -> None:
    clock = MovableClock()
    async with running(tmp_path, database_url, clock=clock) as rig:
        await rig.device()
        await schedule(rig, cron="0 * * * *")
        await rig.later(3600)
        assert await commands(rig) == 1
        clock._utc -= timedelta(hours=2)
        await rig.later(1)
    async with running(tmp_path, database_url, clock=clock) as rig:
        await rig.later(3600)
        await rig.later(3600)
        assert await commands(rig) == 1, "two hours on it is where it was"
        await rig.later(3600)
        assert await commands(rig) == 2


async def test_two_nodes_make_each_command_once(rig: Rig) -> None:
    ids = [f"d{number}" for number in range(30)]
    for each in ids:
        await rig.device(each)
    await schedule(rig, cron="* * * * *", device_ids=ids)
    rig.clock.move(61)
    nodes = [ScheduleRuns(database=rig.fleet.database, commands=rig.fleet.commands, clock=rig.clock) for _ in range(3)]
    await asyncio.gather(*(node.run_due() for node in nodes))
    await asyncio.gather(*(node.run_due() for node in nodes))
    assert sorted(await CommandRow.all().values_list("device_id", flat=True)) == sorted(ids)
    row = await ScheduleRow.get()
    assert (row.runs, row.owed) == (1, False)


@pytest.mark.parametrize("killed_after", [0, 1, 2])
async def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path, sqlite_url: str, killed_after: int) -> None:
    clock, made = MovableClock(), 0
    async with running(tmp_path, sqlite_url, clock=clock) as rig:
        for each in ("a", "b", "c"):
            await rig.device(each)
        await schedule(rig, at=NOON + timedelta(seconds=5), device_ids=["a", "b", "c"])
        create = rig.fleet.commands.create

        async def dying(*wanted: Any, **options: Any) -> Any:
            nonlocal made
            if made == killed_after:
                raise asyncio.CancelledError
            made += 1
            return await create(*wanted, **options)

        rig.fleet.commands.create = dying  # type: ignore[method-assign]
        clock.move(6)
        with pytest.raises(asyncio.CancelledError):
            await rig.fleet.timers.run_due()
        assert await commands(rig) == killed_after
    async with running(tmp_path, sqlite_url, clock=clock) as rig:
        await rig.later(1)
        assert sorted(await CommandRow.all().values_list("device_id", flat=True)) == ["a", "b", "c"]
        assert not await ScheduleRow.filter(owed=True).exists()


async def test_a_large_run_leaves_the_other_timers_their_turn(lite: Rig) -> None:
    ids = [f"d{number}" for number in range(50)]
    made = await schedule(lite, at=NOON + timedelta(seconds=5), device_ids=ids)
    counts = []
    for _ in range(4):
        await lite.later(5)
        counts.append(await ScheduleRunRow.all().count())
    assert counts == [20, 40, 50, 50]
    assert (await lite.fleet.schedules.get(made.id)).runs == 1


async def test_the_outcomes_of_ten_runs_are_kept(lite: Rig) -> None:
    await lite.device()
    made = await schedule(lite, cron="* * * * *", device_ids=["nobody"])
    for _ in range(15):
        await lite.later(60)
    page = await lite.fleet.schedules.runs(made.id, limit=4)
    rest = await lite.fleet.schedules.runs(made.id, cursor=page.next_cursor, limit=50)
    assert [run.run for run in [*page.items, *rest.items]] == list(range(15, 5, -1))


async def test_a_paused_one_waits_and_forgets_what_it_missed(rig: Rig) -> None:
    await rig.device()
    made = await schedule(rig, cron="0 * * * *", paused=True)
    assert made.next_run_at is None
    await rig.later(3 * 3600)
    made = await rig.fleet.schedules.update(ANNA, made.id, paused=False)
    assert (made.next_run_at, await commands(rig)) == (NOON + timedelta(hours=4), 0)
    made = await rig.fleet.schedules.update(ANNA, made.id, at=rig.clock.utc() + timedelta(seconds=5))
    assert (made.cron, made.at, made.next_run_at) == (None, made.next_run_at, rig.clock.utc() + timedelta(seconds=5))
    actions = [entry.action for entry in (await rig.fleet.audit.list(target_kind="schedule")).items]
    assert actions == ["schedule.update", "schedule.update", "schedule.create"]


async def test_a_deleted_one_runs_no_more_and_its_commands_stay(rig: Rig) -> None:
    await rig.device()
    made = await schedule(rig, cron="* * * * *")
    await rig.later(61)
    await rig.fleet.schedules.delete(ANNA, made.id)
    await rig.later(61)
    assert (await commands(rig), await ScheduleRunRow.all().count()) == (1, 0)
    for refused in (rig.fleet.schedules.get(made.id), rig.fleet.schedules.delete(ANNA, made.id)):
        with pytest.raises(NotFound):
            await refused


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "at"),
        ({"at": NOON + timedelta(days=1), "cron": "* * * * *"}, "at"),
        ({"at": NOON}, "at"),
        ({"at": datetime.fromisoformat("9999-12-31T23:59:59-12:00"), "paused": True}, "at"),
        ({"at": datetime.fromisoformat("0001-01-01T00:00:00+12:00")}, "at"),
        ({"cron": "every day"}, "cron"),
        ({"cron": "0 0 */31 * SUN#2"}, "cron"),
        ({"cron": "* * * * *", "time_zone": "Mars"}, "time_zone"),
        ({"cron": "* * * * *", "device_ids": []}, "target/ids"),
        ({"cron": "* * * * *", "device_ids": ["a/b"]}, "target/ids"),
        ({"cron": "* * * * *", "device_ids": [f"d{number}" for number in range(1_001)]}, "target/ids"),
        ({"cron": "* * * * *", "name": "a\nb"}, "name"),
        ({"cron": "* * * * *", "command": ScheduledCommand(name="")}, "command/name"),
        ({"cron": "* * * * *", "command": ScheduledCommand(name="x", params="y" * 40_000)}, "command/params"),
        ({"cron": "* * * * *", "command": ScheduledCommand(name="x", ttl_s=0)}, "command/ttl"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_the_field(lite: Rig, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        await schedule(lite, **fields)
    assert caught.value.field == field
    made = await schedule(lite, cron="* * * * *")
    if fields:
        with pytest.raises(Invalid) as caught:
            await lite.fleet.schedules.update(ANNA, made.id, **fields)
        assert caught.value.field == field
    assert await ScheduleRow.all().count() == 1


async def test_there_is_a_bound_to_schedules(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.schedules.SCHEDULES_LIMIT", 2)
    for _ in range(2):
        await schedule(lite, cron="* * * * *")
    with pytest.raises(Conflict):
        await schedule(lite, cron="* * * * *")
    page = await lite.fleet.schedules.list(limit=1)
    assert (len(page.items), page.total) == (1, 2)
    assert len((await lite.fleet.schedules.list(cursor=page.next_cursor)).items) == 1

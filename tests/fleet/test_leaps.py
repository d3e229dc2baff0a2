"""A wall clock that is set while the server runs ends nothing early, starts nothing, and keeps nothing for ever."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.machines.command import CommandState
from fleet.provisioning import Asked
from fleet.views import Job
from tests.fleet.conftest import ANNA, Rig, running

LEAPS = [timedelta(days=1), timedelta(days=-1), timedelta(days=3653), timedelta(days=-3653), timedelta(hours=1)]


@pytest.mark.parametrize("leap", LEAPS, ids=str)
async def test_a_command_has_the_time_it_was_given(lite: Rig, leap: timedelta) -> None:
    await lite.device()
    command = await lite.fleet.commands.create(ANNA, "pump-7", "reboot", ttl_s=600)
    lite.clock._utc += leap
    await lite.later(300)
    assert (await lite.fleet.commands.get(command.id)).status is CommandState.QUEUED
    await lite.later(301)
    assert (await lite.fleet.commands.get(command.id)).status is CommandState.EXPIRED


@pytest.mark.parametrize("leap", LEAPS, ids=str)
async def test_an_update_under_way_has_the_time_of_its_step(lite: Rig, leap: timedelta) -> None:
    await lite.device()
    await lite.connect()
    artifact = await lite.artifact()
    campaign = await lite.fleet.campaigns.create(ANNA, name="all", artifact_id=artifact, devices=["pump-7"])
    await lite.fleet.campaigns.start(ANNA, campaign.id)
    await lite.settle()

    async def job() -> Job:
        return (await lite.fleet.campaigns.jobs(campaign.id)).items[0]

    await lite.uplink("ota/status", {"job": (await job()).id, "status": "downloading"})
    before = await job()
    assert before.deadline is not None
    left = before.deadline - lite.clock.utc()
    lite.clock._utc += leap
    await lite.later(1)
    after = await job()
    assert (after.status, after.deadline) == (before.status, before.deadline + leap)
    await lite.later(left.total_seconds())
    assert (await job()).status != before.status


@pytest.mark.parametrize("leap", LEAPS, ids=str)
async def test_who_waits_for_an_operator_waits_on(tmp_path: Path, sqlite_url: str, leap: timedelta) -> None:
    async with running(tmp_path, sqlite_url, ask_about_unknown=True) as rig:
        asked = Asked(device_id="pump-7", nonce="a secret of its own", info={}, address="192.0.2.1", link="http")
        await rig.fleet.provisioning.ask(asked)
        rig.clock._utc += leap
        for day in range(8):
            assert (await rig.fleet.provisioning.list()).total == 1, day
            await rig.later(86_400)
        assert (await rig.fleet.provisioning.list()).total == 0  # and has given up after seven days


async def test_a_small_correction_moves_nothing_and_a_leap_is_told_of(
    lite: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await lite.device()
    command = await lite.fleet.commands.create(ANNA, "pump-7", "reboot", ttl_s=600)
    lite.clock._utc += timedelta(seconds=59)
    await lite.later(1)
    assert (await lite.fleet.commands.get(command.id)).expires_at == command.expires_at
    with caplog.at_level(logging.WARNING):
        lite.clock._utc += timedelta(days=2)
        await lite.later(1)
        await lite.later(1)
    assert [record.getMessage() for record in caplog.records if "leapt" in record.getMessage()] == [
        "the clock has leapt by +172,800 s: the deadlines of commands and updates were moved with it"
    ]

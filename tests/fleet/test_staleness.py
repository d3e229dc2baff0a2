"""Devices that are there and say nothing, and those that come and go all the time."""

from pathlib import Path

import pytest

from fleet.flapping import CHANGES_TOLD
from gateway.profiles.document import Profile
from tests.fleet.conftest import ANNA, MovableClock, Rig, running


async def profile(rig: Rig, expected_interval_s: float | None = 60) -> None:
    document = {"name": "pump", "expected_interval_s": expected_interval_s}
    await rig.fleet.profiles.create(ANNA, Profile.model_validate(document))


async def status(rig: Rig, device_id: str = "pump-7") -> str:
    return (await rig.fleet.devices.get(device_id)).status


async def test_a_connected_device_that_says_nothing_is_stale_until_it_is_heard_of(rig: Rig) -> None:
    await profile(rig)
    await rig.device(profile="pump")
    await rig.connect()
    await rig.later(175)
    assert await status(rig) == "online"
    await rig.later(10)
    assert await status(rig) == "stale"
    assert (await rig.fleet.devices.counts())["stale"] == 1
    assert [each.id for each in (await rig.fleet.devices.list(status="stale")).items] == ["pump-7"]
    assert (await rig.summaries())[0] == "stale: not heard of for 185 s, every 60 s was expected"
    await rig.later(600)
    assert len([each for each in await rig.summaries() if each.startswith("stale")]) == 1
    assert rig.fleet.is_active("pump-7")  # a message
    await rig.later(6)
    assert await status(rig) == "online"
    assert (await rig.summaries())[0] == "no longer stale"
    shown = [event.data["status"] for event in rig.events("presence")]
    assert shown == ["online", "stale", "online"]


async def test_one_that_is_heard_of_in_time_is_not(rig: Rig) -> None:
    await profile(rig)
    await rig.device(profile="pump")
    await rig.device("plain")
    for each in ("pump-7", "plain"):
        await rig.connect(each)
    for _ in range(20):
        await rig.later(60)
        assert rig.fleet.is_active("pump-7")
    assert (await status(rig), await status(rig, "plain")) == ("online", "online")


@pytest.mark.parametrize(("link", "expected"), [("mqtt", "offline"), ("http", "stale")])
async def test_of_those_without_a_connection_it_is_said_over_http_alone(rig: Rig, link: str, expected: str) -> None:
    await profile(rig)
    await rig.device(profile="pump")
    await rig.device("never", profile="pump")
    await rig.connect(link=link)
    await rig.disconnect(link=link)
    await rig.later(190)
    assert (await status(rig), await status(rig, "never")) == (expected, "never_seen")
    await rig.connect(link=link)
    assert await status(rig) == "online"


async def test_stale_ends_with_the_connection_with_the_expectation_and_by_being_disabled(rig: Rig) -> None:
    await profile(rig)
    for each in ("a", "b", "c"):
        await rig.device(each, profile="pump")
        await rig.connect(each)
    await rig.later(190)
    assert [await status(rig, each) for each in ("a", "b", "c")] == ["stale"] * 3
    await rig.disconnect("a")
    await rig.fleet.devices.update(ANNA, "b", disabled=True)
    await rig.fleet.profiles.replace(ANNA, Profile.model_validate({"name": "pump"}))
    await rig.later(6)
    assert [await status(rig, each) for each in ("a", "b", "c")] == ["offline", "disabled", "online"]


async def test_after_a_restart_it_is_right_at_once(tmp_path: Path, database_url: str) -> None:
    clock = MovableClock()
    async with running(tmp_path, database_url, clock=clock) as rig:
        await profile(rig)
        await rig.device(profile="pump")
        await rig.connect()
        await rig.later(190)
        assert await status(rig) == "stale"
        rig.fleet.presence._present.clear()  # as kill -9 would
    async with running(tmp_path, database_url, clock=clock) as rig:
        assert await status(rig) == "offline"
        await rig.connect()
        await rig.later(6)
        assert await status(rig) == "online"


async def test_many_changes_of_a_minute_are_one_entry_with_their_number(rig: Rig) -> None:
    await rig.device()
    for _ in range(50):
        await rig.connect()
        await rig.disconnect()
    told = await rig.summaries("pump-7", "connected", "disconnected")
    assert len(told) == CHANGES_TOLD
    await rig.later(61)
    told = await rig.summaries("pump-7", "connected", "disconnected")
    assert (len(told), told[0]) == (
        CHANGES_TOLD + 1,
        "connected and disconnected again and again: 90 more changes within a minute",
    )
    await rig.connect()
    assert (await rig.summaries("pump-7", "connected", "disconnected"))[0] == "connected over mqtt"
    assert await status(rig) == "online"
    await rig.later(61)
    assert not rig.fleet.presence._flapping._windows

"""Quarantine: the device may come, and nothing but its twin is left to it."""

from pathlib import Path
from typing import Any

import pytest

from broker.reason import ReasonCode
from fleet.models import DeviceRow
from tests.fleet.conftest import ANNA, Rig, running

OK, NO = ReasonCode.SUCCESS, ReasonCode.NOT_AUTHORIZED


async def quarantine(rig: Rig, *, on: bool = True) -> Any:
    return await rig.fleet.devices.update(ANNA, "pump-7", quarantined=on)


@pytest.mark.parametrize(
    ("channel", "publishes", "subscribes"),
    [
        ("twin", False, True),
        ("twin/desired", False, True),
        ("twin/reported", True, True),
        ("twin/get", True, True),
        ("twin/#", False, True),
        ("twin/+", False, True),
        ("telemetry", False, False),
        ("telemetry/cbor", False, False),
        ("events", False, False),
        ("commands/01J/status", False, False),
        ("commands/+", False, False),
        ("ota/status", False, False),
        ("ota/chunk/get", False, False),
        ("ota/offer", False, False),
        ("#", False, False),
        ("+/desired", False, False),
        ("+/+", False, False),
    ],
)
async def test_what_is_left_to_a_device(lite: Rig, channel: str, publishes: bool, subscribes: bool) -> None:
    _, token = await lite.device()
    before = lite.fleet.guard.rules_version
    assert (await quarantine(lite)).quarantined
    assert lite.fleet.guard.rules_version != before, "answers that were remembered do not hold any more"
    topic = f"devices/pump-7/{channel}"
    assert (lite.fleet.guard.publish("pump-7", "pump-7", topic) is OK) == publishes
    assert (await lite.fleet.guard.subscribe("pump-7", "pump-7", topic) is OK) == subscribes
    assert await lite.fleet.devices.authenticate("pump-7", token), "it may come"


async def test_it_is_dropped_and_its_commands_wait_until_it_is_released(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    await quarantine(rig)
    assert rig.gateway.kicks == [("pump-7", "quarantined")]
    await rig.disconnect()
    await rig.connect()
    await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"interval": 5})
    await rig.later(5)
    assert rig.gateway.messages("pump-7", "commands") == []
    assert rig.gateway.messages("pump-7", "twin/desired") != []
    [command] = (await rig.fleet.commands.list("pump-7")).items
    assert command.status == "queued"
    rig.gateway.kicks.clear()
    await quarantine(rig, on=False)
    assert rig.gateway.kicks == [("pump-7", "released from quarantine")]
    await rig.disconnect()
    await rig.connect()
    await rig.later(1)
    assert [sent["name"] for sent in rig.gateway.messages("pump-7", "commands")] == ["reboot"]


async def test_what_it_says_is_refused_but_for_its_twin(rig: Rig) -> None:
    await rig.device()
    await quarantine(rig)
    assert (await rig.uplink("events", {"message": "x"})).reason == "quarantined"
    assert (await rig.uplink("ota/status", {"job": "x", "status": "downloading"})).reason == "quarantined"
    assert not (await rig.uplink("twin/reported", {"a": 1})).code.is_error
    assert rig.fleet.is_quarantined("pump-7")


async def test_people_see_it_and_who_did_it(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    device = await quarantine(rig)
    assert (device.quarantined, device.json()["quarantined"], device.status) == (True, True, "online")
    assert await rig.fleet.desk.artifact("pump-7", "A0") is None
    await quarantine(rig)
    await quarantine(rig, on=False)
    await rig.settle()
    entries = (await rig.fleet.audit.list(action="device.update")).items
    assert [(entry.after or {})["quarantined"] for entry in entries] == [False, True]
    said = [entry.summary for entry in (await rig.fleet.timeline.list("pump-7")).items]
    assert "anna put the device into quarantine" in said
    assert "anna released the device from quarantine" in said


async def test_it_outlives_a_restart_and_goes_with_the_device(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url) as rig:
        await rig.device()
        await quarantine(rig)
    async with running(tmp_path, database_url) as rig:
        assert rig.fleet.is_quarantined("pump-7")
        assert rig.fleet.guard.publish("pump-7", "pump-7", "devices/pump-7/telemetry") is NO
        await rig.fleet.devices.delete(ANNA, "pump-7")
        await rig.device()
        assert not rig.fleet.is_quarantined("pump-7")
        assert not (await DeviceRow.get(id="pump-7")).quarantined


async def test_disabling_and_quarantine_do_not_undo_each_other(lite: Rig) -> None:
    _, token = await lite.device()
    await quarantine(lite)
    await lite.fleet.devices.update(ANNA, "pump-7", disabled=True)
    await quarantine(lite, on=False)
    assert not await lite.fleet.devices.authenticate("pump-7", token)
    await quarantine(lite)
    await lite.fleet.devices.update(ANNA, "pump-7", disabled=False)
    assert await lite.fleet.devices.authenticate("pump-7", token)
    assert lite.fleet.is_quarantined("pump-7")

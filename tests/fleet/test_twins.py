"""Twins: both sides, versions, and what is sent to the device."""

import asyncio

import pytest

from broker.reason import ReasonCode
from fleet.errors import Invalid, NotFound, PreconditionFailed
from tests.fleet.conftest import ANNA, Rig, running


async def test_desired_reported_and_delta(rig: Rig) -> None:
    await rig.device()
    twin = await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"speed": 3, "led": {"on": True, "colour": "red"}})
    assert (twin.version, twin.delta) == (2, {"speed": 3, "led": {"on": True, "colour": "red"}})
    outcome = await rig.uplink("twin/reported", {"speed": 3, "led": {"on": True}})
    assert (outcome.code, outcome.data) == (ReasonCode.SUCCESS, {"version": 3})
    twin = await rig.fleet.twins.get("pump-7")
    assert twin.json() | {"updated_at": ""} == {
        "desired": {"speed": 3, "led": {"on": True, "colour": "red"}},
        "reported": {"speed": 3, "led": {"on": True}},
        "delta": {"led": {"colour": "red"}},
        "version": 3,
        "fault": None,
        "updated_at": "",
    }
    twin = await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"led": None, "speed": None})
    assert (twin.desired, twin.delta) == ({}, {})


async def test_a_change_is_refused_when_it_was_made_on_an_older_version(rig: Rig) -> None:
    await rig.device()
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1}, if_version=1)
    with pytest.raises(PreconditionFailed) as caught:
        await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 2}, if_version=1)
    assert caught.value.version == 2
    assert (await rig.fleet.twins.get("pump-7")).desired == {"a": 1}


async def test_many_writers_on_one_twin_all_count(rig: Rig) -> None:
    await rig.device()
    patches = [rig.fleet.twins.patch_desired(ANNA, "pump-7", {f"d{number}": number}) for number in range(3)]
    reports = [rig.fleet.twins.report("pump-7", {f"r{number}": number}) for number in range(3)]
    await asyncio.gather(*patches, *reports)
    twin = await rig.fleet.twins.get("pump-7")
    assert (len(twin.desired), len(twin.reported), twin.version) == (3, 3, 7)


async def test_one_of_two_writers_with_the_same_version_is_refused(rig: Rig) -> None:
    await rig.device()
    answers = await asyncio.gather(
        *(rig.fleet.twins.patch_desired(ANNA, "pump-7", {"n": number}, if_version=1) for number in range(2)),
        return_exceptions=True,
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["PreconditionFailed", "Twin"]


async def test_a_redelivered_report_changes_nothing(rig: Rig) -> None:
    await rig.device()
    for _ in range(3):
        outcome = await rig.uplink("twin/reported", {"a": 1})
    assert outcome.data == {"version": 2}


async def test_the_device_is_told_on_change_and_on_connect(rig: Rig) -> None:
    await rig.device()
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1})
    assert rig.gateway.sent == []
    await rig.connect()
    assert rig.gateway.messages("pump-7", "twin/desired") == [{"version": 2, "delta": {"a": 1}}]
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"b": 2})
    assert rig.gateway.messages("pump-7", "twin/desired")[1] == {"version": 3, "delta": {"a": 1, "b": 2}}
    await rig.uplink("twin/reported", {"a": 1})
    assert len(rig.gateway.messages("pump-7", "twin/desired")) == 2, "it knows what is left"
    await rig.uplink("twin/reported", {"a": 5})
    assert rig.gateway.messages("pump-7", "twin/desired")[2] == {"version": 5, "delta": {"a": 1, "b": 2}}
    await rig.uplink("twin/reported", {"a": 1, "b": 2})
    await rig.disconnect()
    await rig.connect()
    assert len(rig.gateway.messages("pump-7", "twin/desired")) == 3, "nothing to say when nothing differs"


async def test_a_device_that_has_not_subscribed_yet_is_told_when_it_has(lite: Rig) -> None:
    await lite.device()
    await lite.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1})
    lite.gateway.deaf.add("pump-7")
    await lite.connect()
    assert lite.gateway.sent == []
    lite.gateway.deaf.clear()
    await lite.later(0.3)
    assert lite.gateway.messages("pump-7", "twin/desired") == [{"version": 2, "delta": {"a": 1}}]
    await lite.later(100)
    assert len(lite.gateway.sent) == 1


async def test_who_never_listens_is_left_in_peace(lite: Rig) -> None:
    await lite.device()
    lite.gateway.deaf.add("pump-7")
    await lite.connect()
    await lite.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1})
    for _ in range(20):
        await lite.later(61)
    assert not lite.fleet.outbox._waiting


async def test_a_device_asks_for_the_whole_twin(rig: Rig) -> None:
    await rig.device()
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1})
    outcome = await rig.uplink("twin/get", b"")
    assert outcome.code is ReasonCode.SUCCESS
    assert rig.gateway.messages("pump-7", "twin") == [{"desired": {"a": 1}, "reported": {}, "version": 2}]


async def test_any_json_comes_back_as_it_was(rig: Rig) -> None:
    await rig.device()
    odd = {"nul": "\u0000", "empty": "", "z": {"b": 1, "a": [1.5, -0.0, {"x": None}]}, "ä": "🙂", "big": 2**53}
    await rig.uplink("twin/reported", odd)
    twin = await rig.fleet.twins.get("pump-7")
    assert twin.reported == odd
    assert list(twin.reported) == list(odd)


async def test_limits(rig: Rig) -> None:
    await rig.device()
    deep: dict[str, object] = {"x": 1}
    for _ in range(9):
        deep = {"a": deep}
    for patch in ({"a": "x" * 40_000}, deep, [1], {"a": 1 << 70}):
        with pytest.raises(Invalid):
            await rig.fleet.twins.patch_desired(ANNA, "pump-7", patch)  # type: ignore[arg-type]
        if not (isinstance(patch, dict) and patch.get("a") == 1 << 70):
            assert (await rig.uplink("twin/reported", patch)).code.is_error
    for number in range(10):
        await rig.uplink("twin/reported", {f"k{number}": "x" * 4_000})
    assert (await rig.fleet.twins.get("pump-7")).version <= 9, "many small ones do not get around the limit"
    with pytest.raises(NotFound):
        await rig.fleet.twins.get("nobody")
    with pytest.raises(NotFound):
        await rig.fleet.twins.patch_desired(ANNA, "nobody", {"a": 1})


async def test_changes_are_audited_and_shown_live(rig: Rig) -> None:
    await rig.device()
    await rig.fleet.timeline.flush()
    rig.events("messages")
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1})
    [entry] = (await rig.fleet.audit.list(action="twin.update")).items
    assert (entry.before, entry.after) == ({}, {"a": 1})
    await rig.uplink("twin/reported", {"a": 1})
    twins = [event.data["data"]["twin"] for event in rig.events("messages") if "twin" in event.data["data"]]
    assert [twin["version"] for twin in twins] == [2, 3]


async def test_twins_survive_a_restart(tmp_path, database_url: str) -> None:  # type: ignore[no-untyped-def]
    async with running(tmp_path, database_url) as rig:
        await rig.device()
        await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"a": 1})
    async with running(tmp_path, database_url) as rig:
        await rig.connect()
        assert rig.gateway.messages("pump-7", "twin/desired") == [{"version": 2, "delta": {"a": 1}}]

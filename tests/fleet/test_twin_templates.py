"""Twin templates: to whom they go, and who has become as they ask."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import Conflict, Invalid, NotFound
from fleet.models import TwinTemplateDeviceRow
from fleet.twin_templates import Target, TwinTemplate
from gateway.profiles.document import Profile
from tests.fleet.conftest import ANNA, MovableClock, Rig, running

FAST = {"interval": 5, "led": {"on": True}, "old": None}


async def template(rig: Rig, *ids: str, tag: str | None = None, desired: dict[str, Any] | None = None) -> TwinTemplate:
    target = Target(ids=ids, tag=tag)
    return await rig.fleet.twin_templates.create(ANNA, name="fast", desired=desired or FAST, target=target)


async def states(rig: Rig, made: TwinTemplate) -> dict[str, str]:
    page = await rig.fleet.twin_templates.compliance(made.id, limit=500)
    return {each.device_id: each.state for each in page.items}


async def test_devices_converge_when_they_report_what_was_asked_for_and_it_is_known_since_when(rig: Rig) -> None:
    for each in ("a", "b", "c"):
        await rig.device(each, tags=["north"])
    await rig.device("elsewhere")
    await rig.uplink("twin/reported", {"interval": 5, "led": {"on": True}, "more": 1}, "c")
    made = await template(rig, tag="north")
    assert made.counts == {"owed": 3, "pending": 0, "converged": 0, "refused": 0}
    await rig.later(1)
    assert await states(rig, made) == {"a": "pending", "b": "pending", "c": "converged"}
    await rig.later(100)
    await rig.uplink("twin/reported", {"interval": 5, "led": {"on": True}}, "a")
    reported_at = rig.clock.utc()
    await rig.uplink("twin/reported", {"interval": 5}, "b")
    await rig.uplink("twin/reported", {"led": None}, "c")
    await rig.later(1)
    page = await rig.fleet.twin_templates.compliance(made.id)
    assert [(each.device_id, each.state, each.delta) for each in page.items] == [
        ("a", "converged", {}),
        ("b", "pending", {"led": {"on": True}}),
        ("c", "pending", {"led": {"on": True}}),
    ]
    assert [each.since == reported_at for each in page.items] == [True, False, True]
    assert (await rig.fleet.twin_templates.get(made.id)).counts["converged"] == 1
    only = await rig.fleet.twin_templates.compliance(made.id, state="pending", limit=1)
    rest = await rig.fleet.twin_templates.compliance(made.id, state="pending", cursor=only.next_cursor)
    assert ([each.device_id for each in [*only.items, *rest.items]], only.total) == (["b", "c"], 2)
    assert (await rig.fleet.twins.history("a")).items[0].by == "template fast"
    assert (await rig.fleet.twins.get("elsewhere")).desired == {}


async def test_what_a_profile_does_not_allow_is_refused_for_that_device_alone(rig: Rig) -> None:
    schema = {"properties": {"interval": {"minimum": 60}}}
    await rig.fleet.profiles.create(ANNA, Profile.model_validate({"name": "slow", "twin": {"desired": schema}}))
    await rig.device("a", profile="slow")
    await rig.device("b")
    made = await template(rig, "a", "b")
    await rig.later(1)
    page = await rig.fleet.twin_templates.compliance(made.id)
    assert [(each.state, each.error) for each in page.items] == [
        ("refused", "desired/interval: 5 is less than the minimum of 60"),
        ("pending", None),
    ]


async def test_applying_again_takes_in_who_came_and_leaves_who_went(rig: Rig) -> None:
    for each in ("a", "b"):
        await rig.device(each, tags=["north"])
    made = await template(rig, tag="north")
    await rig.later(1)
    await rig.device("c", tags=["north"])
    await rig.fleet.devices.update(ANNA, "b", tags=[])
    await rig.fleet.devices.delete(ANNA, "a")
    assert await states(rig, made) == {"b": "pending"}
    await rig.fleet.twin_templates.apply(ANNA, made.id)
    await rig.later(1)
    assert await states(rig, made) == {"c": "pending"}
    await rig.fleet.twin_templates.delete(ANNA, made.id)
    assert await TwinTemplateDeviceRow.all().count() == 0
    assert (await rig.fleet.twins.get("c")).desired == {"interval": 5, "led": {"on": True}}
    for refused in (rig.fleet.twin_templates.apply(ANNA, made.id), rig.fleet.twin_templates.compliance(made.id)):
        with pytest.raises(NotFound):
            await refused


@pytest.mark.parametrize("killed_after", [0, 1, 2])
async def test_a_kill_in_the_middle_costs_nothing(tmp_path: Path, sqlite_url: str, killed_after: int) -> None:
    clock, patched = MovableClock(), 0
    async with running(tmp_path, sqlite_url, clock=clock) as rig:
        for each in ("a", "b", "c"):
            await rig.device(each)
        made = await template(rig, "a", "b", "c")
        patch = rig.fleet.twins.patch_desired

        async def dying(*wanted: Any, **options: Any) -> Any:
            nonlocal patched
            if patched == killed_after:
                await patch(*wanted, **options)  # the twin is written, and the row does not say so yet
                raise asyncio.CancelledError
            patched += 1
            return await patch(*wanted, **options)

        rig.fleet.twins.patch_desired = dying  # type: ignore[method-assign]
        clock.move(1)
        with pytest.raises(asyncio.CancelledError):
            await rig.fleet.timers.run_due()
        # Reported, and killed before anybody looked.
        await rig.uplink("twin/reported", {"interval": 5, "led": {"on": True}}, "a")
    async with running(tmp_path, sqlite_url, clock=clock) as rig:
        await rig.later(1)
        await rig.later(1)
        assert await states(rig, made) == {"a": "converged", "b": "pending", "c": "pending"}
        assert [(await rig.fleet.twins.get(each)).version for each in ("b", "c")] == [2, 2]


async def test_a_storm_of_changes_is_followed_by_looking_at_all(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.twin_templates._CHANGED_LIMIT", 1)
    monkeypatch.setattr("fleet.twin_templates._CHECKS_A_TURN", 2)
    ids = [f"d{number}" for number in range(5)]
    for each in ids:
        await lite.device(each)
    made = await template(lite, *ids)
    for _ in range(6):
        await lite.later(1)
    for each in ids:
        await lite.uplink("twin/reported", {"interval": 5, "led": {"on": True}}, each)
    assert len(lite.fleet.twin_templates._changed) == 1
    for _ in range(6):
        await lite.later(1)
    assert set((await states(lite, made)).values()) == {"converged"}


@pytest.mark.parametrize(
    ("target", "desired", "field"),
    [
        (Target(), FAST, "target"),
        (Target(ids=("a",), tag="x"), FAST, "target"),
        (Target(ids=("nobody",)), FAST, "target/ids"),
        (Target(ids=tuple(f"d{number}" for number in range(1_001))), FAST, "target/ids"),
        (Target(tag="x"), {"a": "x" * 40_000}, "desired"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_the_field(
    lite: Rig, target: Target, desired: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await lite.fleet.twin_templates.create(ANNA, name="x", desired=desired, target=target)
    assert caught.value.field == field


async def test_there_is_a_bound_to_templates_and_their_devices(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("a", "b"):
        await lite.device(each, tags=["x"])
    monkeypatch.setattr("fleet.twin_templates.DEVICES_LIMIT", 1)
    with pytest.raises(Invalid):
        await template(lite, tag="x")
    monkeypatch.setattr("fleet.twin_templates.TEMPLATES_LIMIT", 1)
    await template(lite, "a")
    with pytest.raises(Conflict):
        await template(lite, "a")
    assert (await lite.fleet.twin_templates.list()).total == 1

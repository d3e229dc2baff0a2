"""What a profile says of twins, and who changed them."""

import asyncio
from typing import Any

import pytest

from broker.reason import ReasonCode
from fleet.actor import Actor
from fleet.errors import Invalid, NotFound
from fleet.models import TwinChangeRow
from gateway.profiles.document import Profile
from tests.fleet.conftest import ANNA, Rig

DESIRED = {
    "type": "object",
    "properties": {
        "speed": {"type": "integer", "maximum": 10},
        "led": {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}},
    },
    "additionalProperties": False,
}
REPORTED = {"type": "object", "properties": {"speed": {"type": "integer"}}, "required": ["speed"]}


async def device_of(rig: Rig) -> None:
    twin = {"desired": DESIRED, "reported": REPORTED}
    await rig.fleet.profiles.create(ANNA, Profile.model_validate({"name": "pump", "twin": twin}))
    await rig.device(profile="pump")


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"speed": 11}, "desired/speed"),
        ({"speed": "fast"}, "desired/speed"),
        ({"led": {"colour": "blue"}}, "desired/led/colour"),
        ({"other": 1}, "desired"),
    ],
)
async def test_what_may_not_be_asked_for_is_refused_with_its_place(
    lite: Rig, patch: dict[str, Any], field: str
) -> None:
    await device_of(lite)
    await lite.fleet.twins.patch_desired(ANNA, "pump-7", {"speed": 10, "led": {"colour": "red"}})
    with pytest.raises(Invalid) as caught:
        await lite.fleet.twins.patch_desired(ANNA, "pump-7", patch)
    assert caught.value.field == field
    twin = await lite.fleet.twins.get("pump-7")
    assert (twin.version, twin.desired) == (2, {"speed": 10, "led": {"colour": "red"}})


async def test_what_is_reported_is_kept_and_marked(rig: Rig) -> None:
    await device_of(rig)
    assert (await rig.uplink("twin/reported", {"speed": "fast\n"})).code is ReasonCode.SUCCESS
    twin = await rig.fleet.twins.get("pump-7")
    assert (twin.reported, twin.fault) == ({"speed": "fast\n"}, '/speed: "fast\\n" is not of type "integer"')
    await rig.uplink("twin/reported", {"speed": None, "x": 1})
    assert (await rig.fleet.twins.get("pump-7")).fault == '/: "speed" is a required property'
    found = [each for each in await rig.summaries() if each.startswith("reported what")]
    assert len(found) == 1, "said when it begins"
    await rig.uplink("twin/reported", {"speed": 3})
    assert (await rig.fleet.twins.get("pump-7")).fault is None


async def test_too_large_a_report_for_its_schema_is_marked_and_holds_nobody_up(lite: Rig) -> None:
    await lite.fleet.profiles.create(
        ANNA,
        Profile.model_validate(
            {"name": "pump", "twin": {"reported": {"allOf": [{"minProperties": number} for number in range(400)]}}}
        ),
    )
    await lite.device(profile="pump")
    await lite.uplink("twin/reported", {f"k{number}": [1, 2] for number in range(1_000)})
    assert (await lite.fleet.twins.get("pump-7")).fault == "/: too much for the profile's schema"


async def test_the_history_says_who_wanted_what_and_when(rig: Rig) -> None:
    await rig.device()
    ben = Actor(kind="user", id="ben")
    await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"speed": 3})
    await rig.later(60)
    await rig.uplink("twin/reported", {"speed": 3})
    await rig.fleet.twins.patch_desired(ben, "pump-7", {"speed": None, "text": "x" * 5_000})
    await rig.fleet.twins.patch_desired(ben, "pump-7", {"speed": None})  # changes nothing
    page = await rig.fleet.twins.history("pump-7", limit=1)
    rest = await rig.fleet.twins.history("pump-7", cursor=page.next_cursor)
    assert [(each.version, each.by, each.patch) for each in [*page.items, *rest.items]] == [
        (4, "ben", None),
        (2, "anna", {"speed": 3}),
    ]
    assert (page.total, (page.items[0].at - rest.items[0].at).total_seconds()) == (2, 60)
    with pytest.raises(NotFound):
        await rig.fleet.twins.history("nobody")


async def test_the_history_is_bounded_and_goes_with_its_device(rig: Rig) -> None:
    await rig.device()
    for number in range(105):
        await rig.fleet.twins.patch_desired(ANNA, "pump-7", {"n": number})
    page = await rig.fleet.twins.history("pump-7", limit=500)
    assert [each.patch for each in page.items] == [{"n": number} for number in range(104, 4, -1)]
    await rig.fleet.devices.delete(ANNA, "pump-7")
    assert await TwinChangeRow.all().count() == 0
    await rig.device()
    assert (await rig.fleet.twins.history("pump-7")).items == []


async def test_of_writers_at_once_each_has_its_entry(rig: Rig) -> None:
    await rig.device()
    await asyncio.gather(*(rig.fleet.twins.patch_desired(ANNA, "pump-7", {f"k{n}": n}) for n in range(4)))
    items = (await rig.fleet.twins.history("pump-7")).items
    assert [each.version for each in items] == [5, 4, 3, 2]
    assert sorted(str(each.patch) for each in items) == [str({f"k{n}": n}) for n in range(4)]

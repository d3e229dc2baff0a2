"""Groups: listed, found, inside one another; what is refused, and what stays."""

from typing import Any

import pytest

from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound, PreconditionFailed
from fleet.groups import Group
from tests.fleet.conftest import ANNA, Rig


async def group(rig: Rig, name: str, **fields: Any) -> Group:
    return await rig.fleet.groups.create(ANNA, name=name, **fields)


async def members(rig: Rig, id_: str, **filters: Any) -> list[str]:
    return [each.id for each in (await rig.fleet.devices.list(group=id_, **filters)).items]


async def test_a_groups_devices_are_its_own_and_those_below_it(rig: Rig) -> None:
    for id_, tags in [("a", ["site=A"]), ("b", []), ("c", []), ("d", ["site=A"])]:
        await rig.device(id_, tags=tags)
    top = await group(rig, "works")
    hall = await group(rig, "hall", parent=top.id)
    found = await group(rig, "site A", parent=hall.id, query="tags.site = A")
    assert await members(rig, top.id) == ["a", "d"]
    assert await rig.fleet.groups.add(ANNA, hall.id, ["b", "a", "b"]) == 2
    assert await rig.fleet.groups.add(ANNA, hall.id, ["b"]) == 0
    await rig.fleet.groups.add(ANNA, top.id, ["c"])
    assert await members(rig, top.id) == ["a", "b", "c", "d"]
    assert await members(rig, hall.id) == ["a", "b", "d"]
    assert await members(rig, found.id) == ["a", "d"]
    assert await members(rig, top.id, query="not tags.site = A", sort="-id") == ["c", "b"]
    await rig.fleet.devices.update(ANNA, "d", tags=[])
    await rig.fleet.groups.remove(ANNA, hall.id, "a")
    assert await members(rig, hall.id) == ["a", "b"]
    await rig.fleet.devices.delete(ANNA, "b")
    assert await members(rig, hall.id) == ["a"]


async def test_deleting_a_group_deletes_no_device(rig: Rig) -> None:
    await rig.device("a")
    top = await group(rig, "works")
    hall = await group(rig, "hall", parent=top.id)
    await rig.fleet.groups.add(ANNA, hall.id, ["a"])
    with pytest.raises(Conflict, match="a group below"):
        await rig.fleet.groups.delete(ANNA, top.id)
    await rig.fleet.groups.delete(ANNA, hall.id)
    await rig.fleet.groups.delete(ANNA, top.id)
    assert (await rig.fleet.devices.get("a")).id == "a"
    with pytest.raises(NotFound):
        await members(rig, hall.id)


async def test_no_group_gets_inside_itself_or_too_deep(rig: Rig) -> None:
    chain = [await group(rig, "0")]
    for n in range(1, 8):
        chain.append(await group(rig, str(n), parent=chain[-1].id))
    with pytest.raises(Conflict, match="at most 8"):
        await group(rig, "8", parent=chain[-1].id)
    for inside in (chain[0], chain[3]):
        with pytest.raises(Conflict, match="inside itself"):
            await rig.fleet.groups.update(ANNA, chain[0].id, parent=inside.id)
    above = await group(rig, "above")
    with pytest.raises(Conflict, match="at most 8"):
        await rig.fleet.groups.update(ANNA, chain[0].id, parent=above.id)
    moved = await rig.fleet.groups.update(ANNA, chain[7].id, parent="")
    assert (moved.parent, moved.version) == (None, 2)
    assert (await rig.fleet.groups.get(chain[0].id)).parent is None


async def test_a_tree_has_a_bounded_number_of_queries(lite: Rig) -> None:
    top = await group(lite, "top")
    for n in range(50):
        await group(lite, f"q{n}", parent=top.id, query="has tag or " * 49 + "has tag")
    with pytest.raises(Conflict, match="50 queries"):
        await group(lite, "one more", parent=top.id, query="has tag")
    await lite.device("a", tags=["x"])
    assert await members(lite, top.id) == ["a"]


async def test_what_makes_no_group_is_refused(lite: Rig) -> None:
    await lite.device("a")
    listed, found = await group(lite, "listed"), await group(lite, "found", query="id = a")
    groups = lite.fleet.groups
    with pytest.raises(AlreadyExists):
        await group(lite, " listed ")
    with pytest.raises(AlreadyExists):
        await groups.update(ANNA, found.id, name="listed")
    with pytest.raises(Invalid, match="query: column 6"):
        await group(lite, "wrong", query="id = ")
    with pytest.raises(Invalid, match="parent"):
        await group(lite, "lost", parent="nowhere")
    with pytest.raises(Invalid, match="added to it"):
        await groups.update(ANNA, listed.id, query="id = a")
    with pytest.raises(Invalid, match="no device 'b'"):
        await groups.add(ANNA, listed.id, ["a", "b"])
    assert await members(lite, listed.id) == []
    with pytest.raises(Conflict, match="its query"):
        await groups.add(ANNA, found.id, ["a"])
    with pytest.raises(NotFound):
        await groups.remove(ANNA, listed.id, "a")
    with pytest.raises(PreconditionFailed):
        await groups.update(ANNA, listed.id, description="x", if_version=2)
    with pytest.raises(PreconditionFailed):
        await groups.delete(ANNA, listed.id, if_version=2)


async def test_groups_are_listed_by_name_and_their_changes_are_audited(rig: Rig) -> None:
    await rig.device("a")
    for name in ("c", "a", "b"):
        await group(rig, name)
    page = await rig.fleet.groups.list(limit=2)
    assert ([each.name for each in page.items], page.total) == (["a", "b"], 3)
    rest = await rig.fleet.groups.list(cursor=page.next_cursor)
    assert ([each.name for each in rest.items], rest.next_cursor) == (["c"], None)
    id_ = rest.items[0].id
    await rig.fleet.groups.update(ANNA, id_, description="of the north")
    await rig.fleet.groups.add(ANNA, id_, ["a"])
    await rig.fleet.groups.remove(ANNA, id_, "a")
    await rig.fleet.groups.delete(ANNA, id_)
    actions = [each.action for each in (await rig.fleet.audit.list(target_id=id_)).items]
    assert actions == ["group.delete", "group.remove", "group.add", "group.update", "group.create"]

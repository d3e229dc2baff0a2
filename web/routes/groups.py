"""Groups of devices, and who is in them."""

from fleet.groups import Group
from fleet.views import Role
from web.api.layer import Routes
from web.call import Call
from web.etags import ETAG, IF_MATCH, if_version, put_etag
from web.routes.devices import device_shape
from web.schemas.base import DeviceId, Id, Paged
from web.schemas.devices import DevicePage
from web.schemas.groups import (
    GroupCreate,
    GroupDevicesQuery,
    GroupOut,
    GroupPage,
    GroupUpdate,
    MembersAdd,
    MembersAdded,
)

groups = Routes("Groups", "Devices that belong together: listed one by one, or found by a query; groups below groups.")

_ONE = "/api/v1/groups/{id}"


@groups.get("/api/v1/groups", summary="All groups, by name", role=Role.VIEWER)
async def list_groups(call: Call, query: Paged) -> GroupPage:
    page = await call.fleet.groups.list(cursor=query.cursor, limit=query.limit)
    return GroupPage(
        items=[GroupOut(**each.json()) for each in page.items], next_cursor=page.next_cursor, total=page.total
    )


@groups.post(
    "/api/v1/groups",
    summary="Make a group",
    role=Role.OPERATOR,
    status=201,
    raises=(409,),
    idempotent=True,
    answer_headers=(ETAG,),
)
async def create_group(call: Call, body: GroupCreate) -> GroupOut:
    """With a query its devices are those that match whenever they are asked for."""
    made = await call.fleet.groups.create(
        call.actor, name=body.name, description=body.description, query=body.query, parent=body.parent
    )
    return _answer(call, made)


@groups.get(_ONE, summary="One group", role=Role.VIEWER, raises=(404,), answer_headers=(ETAG,))
async def get_group(call: Call, id: Id) -> GroupOut:  # noqa: A002
    return _answer(call, await call.fleet.groups.get(id))


@groups.patch(
    _ONE,
    summary="Change a group",
    role=Role.OPERATOR,
    raises=(404, 409, 412),
    request_headers=(IF_MATCH,),
    answer_headers=(ETAG,),
)
async def update_group(call: Call, id: Id, body: GroupUpdate) -> GroupOut:  # noqa: A002
    changed = await call.fleet.groups.update(
        call.actor,
        id,
        name=body.name,
        description=body.description,
        query=body.query,
        parent=body.parent,
        if_version=if_version(call, "a group"),
    )
    return _answer(call, changed)


@groups.delete(_ONE, summary="Delete a group", role=Role.OPERATOR, raises=(404, 409, 412), request_headers=(IF_MATCH,))
async def delete_group(call: Call, id: Id) -> None:  # noqa: A002
    """Its devices stay. 409 while there are groups below it."""
    await call.fleet.groups.delete(call.actor, id, if_version=if_version(call, "a group"))


@groups.get(f"{_ONE}/devices", summary="A group's devices", role=Role.VIEWER, raises=(404, 409))
async def list_group_devices(call: Call, id: Id, query: GroupDevicesQuery) -> DevicePage:  # noqa: A002
    """Its own and those of the groups below it."""
    page = await call.fleet.devices.list(group=id, sort=query.sort.value, cursor=query.cursor, limit=query.limit)
    items = [device_shape(call, device) for device in page.items]
    return DevicePage(items=items, next_cursor=page.next_cursor, total=page.total)


@groups.post(f"{_ONE}/devices", summary="Add devices to a group", role=Role.OPERATOR, raises=(404, 409))
async def add_group_devices(call: Call, id: Id, body: MembersAdd) -> MembersAdded:  # noqa: A002
    """All of them or none. 409 where the devices follow from a query."""
    return MembersAdded(added=await call.fleet.groups.add(call.actor, id, body.devices))


@groups.delete(
    f"{_ONE}/devices/{{device_id}}", summary="Take a device out of a group", role=Role.OPERATOR, raises=(404, 409)
)
async def remove_group_device(call: Call, id: Id, device_id: DeviceId) -> None:  # noqa: A002
    """The device itself stays."""
    await call.fleet.groups.remove(call.actor, id, device_id)


def _answer(call: Call, group: Group) -> GroupOut:
    put_etag(call, group.version)
    return GroupOut(**group.json())

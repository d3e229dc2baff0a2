"""Devices, their credentials, twins and timeline."""

from fleet.new_credential import NewCredential
from fleet.views import Device as DeviceView
from fleet.views import Role, TimelineKind
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.etags import ETAG, IF_MATCH, if_version, put_etag
from web.schemas.base import DeviceId, Id, Paged
from web.schemas.devices import (
    Credential,
    CredentialCreate,
    CredentialCreated,
    CredentialPage,
    Device,
    DeviceCreate,
    DeviceCreated,
    DevicePage,
    DeviceQuery,
    DeviceUpdate,
    NewToken,
    TimelineEntry,
    TimelinePage,
    TimelineQuery,
    Twin,
    TwinChange,
    TwinHistory,
    TwinPatch,
)

devices = Routes("Devices", "What the fleet consists of.")
credentials = Routes("Credentials", "Tokens, and keys that JWTs are checked with. Two of a type may be valid at once.")
twins = Routes("Twins", "What a device should be like (desired), what it says it is like (reported).")
timeline = Routes("Timeline", "What happened to a device.")


@devices.get("/api/v1/devices", summary="Find devices", role=Role.VIEWER, raises=(404, 409))
async def list_devices(call: Call, query: DeviceQuery) -> DevicePage:
    page = await call.fleet.devices.list(
        q=query.q,
        tag=query.tag,
        status="" if query.status is None else query.status.value,
        firmware=query.firmware,
        query=query.query,
        group=query.group,
        sort=query.sort.value,
        cursor=query.cursor,
        limit=query.limit,
    )
    items = [device_shape(call, device) for device in page.items]
    return DevicePage(items=items, next_cursor=page.next_cursor, total=page.total)


@devices.post("/api/v1/devices", summary="Register a device", role=Role.OPERATOR, status=201, idempotent=True)
async def create_device(call: Call, body: DeviceCreate) -> DeviceCreated:
    """The answer holds the device's token, which is not shown again."""
    device, token = await call.fleet.devices.create(
        call.actor, id=body.id, name=body.name, profile=body.profile, tags=body.tags, attributes=body.attributes
    )
    return DeviceCreated.model_validate({**device.json(), "credentials": NewToken(token=token)})


@devices.get("/api/v1/devices/{id}", summary="One device", role=Role.VIEWER, raises=(404,))
async def get_device(call: Call, device_id: DeviceId) -> Device:
    return device_shape(call, await call.fleet.devices.get(device_id))


@devices.patch("/api/v1/devices/{id}", summary="Change a device", role=Role.OPERATOR, raises=(404, 409))
async def update_device(call: Call, device_id: DeviceId, body: DeviceUpdate) -> Device:
    """Disabling a device drops its connections at once; so does quarantine, which lets it come again for its twin."""
    device = await call.fleet.devices.update(
        call.actor,
        device_id,
        name=body.name,
        profile=body.profile,
        tags=body.tags,
        attributes=body.attributes,
        disabled=body.disabled,
        quarantined=body.quarantined,
        retention_days=body.retention_days,
    )
    return device_shape(call, device)


@devices.delete("/api/v1/devices/{id}", summary="Delete a device", role=Role.OPERATOR, raises=(404, 409))
async def delete_device(call: Call, device_id: DeviceId) -> None:
    """With its credentials, twin, commands and readings. Its connections are dropped."""
    await call.fleet.devices.delete(call.actor, device_id)


@credentials.get("/api/v1/devices/{id}/credentials", summary="A device's credentials", role=Role.VIEWER, raises=(404,))
async def list_credentials(call: Call, device_id: DeviceId) -> CredentialPage:
    found = await call.fleet.devices.credentials(device_id)
    return CredentialPage(items=[Credential.model_validate(one.json()) for one in found], total=len(found))


@credentials.post(
    "/api/v1/devices/{id}/credentials",
    summary="Give a device another credential",
    role=Role.OPERATOR,
    status=201,
    raises=(404, 409),
    idempotent=True,
)
async def create_credential(call: Call, device_id: DeviceId, body: CredentialCreate) -> CredentialCreated:
    """409 when two of its type are valid already. A token that was made is not shown again."""
    wanted = NewCredential(**body.model_dump())
    credential, token = await call.fleet.devices.add_credential(call.actor, device_id, wanted)
    return CredentialCreated.model_validate({**credential.json(), "token": token})


@credentials.delete(
    "/api/v1/devices/{id}/credentials/{credential}",
    summary="Revoke a credential",
    role=Role.OPERATOR,
    raises=(404,),
)
async def revoke_credential(call: Call, device_id: DeviceId, credential_id: Id) -> None:
    """Connections made with it are dropped within a second."""
    await call.fleet.devices.revoke_credential(call.actor, device_id, credential_id)


@twins.get(
    "/api/v1/devices/{id}/twin",
    summary="A device's twin",
    role=Role.VIEWER,
    raises=(404,),
    answer_headers=(ETAG,),
)
async def get_twin(call: Call, device_id: DeviceId) -> Twin:
    return _twin(call, Twin.model_validate((await call.fleet.twins.get(device_id)).json()))


@twins.patch(
    "/api/v1/devices/{id}/twin",
    summary="Change what a device should be like",
    role=Role.OPERATOR,
    raises=(404, 409, 412),
    request_headers=(IF_MATCH,),
    answer_headers=(ETAG,),
)
async def patch_twin(call: Call, device_id: DeviceId, body: TwinPatch) -> Twin:
    """A JSON merge patch. The device is sent what differs now, or when it is back."""
    twin = await call.fleet.twins.patch_desired(
        call.actor, device_id, body.desired, if_version=if_version(call, "a twin")
    )
    return _twin(call, Twin.model_validate(twin.json()))


@twins.get(
    "/api/v1/devices/{id}/twin/history",
    summary="Who wanted what, and when",
    role=Role.VIEWER,
    raises=(404,),
)
async def list_twin_history(call: Call, device_id: DeviceId, query: Paged) -> TwinHistory:
    """The last 100 changes of the desired part, newest first."""
    page = await call.fleet.twins.history(device_id, cursor=query.cursor, limit=query.limit)
    items = [TwinChange.model_validate(change.json()) for change in page.items]
    return TwinHistory(items=items, next_cursor=page.next_cursor, total=page.total)


def _twin(call: Call, twin: Twin) -> Twin:
    put_etag(call, twin.version)
    return twin


@timeline.get("/api/v1/devices/{id}/timeline", summary="What happened, newest first", role=Role.VIEWER, raises=(404,))
async def list_timeline(call: Call, device_id: DeviceId, query: TimelineQuery) -> TimelinePage:
    """Connections, refused messages, commands, updates, changes and the device's own events in one list."""
    return await _timeline(call, device_id, query.cursor, query.limit, _kinds(query.kinds))


@timeline.get(
    "/api/v1/devices/{id}/dead-letters", summary="Messages that were refused", role=Role.VIEWER, raises=(404,)
)
async def list_dead_letters(call: Call, device_id: DeviceId, query: Paged) -> TimelinePage:
    """Kept with their reason; the newest 100 of a device, here with the first 4,096 characters of their payload."""
    return await _timeline(call, device_id, query.cursor, query.limit, (TimelineKind.MESSAGE_REFUSED,))


def device_shape(call: Call, device: DeviceView) -> Device:
    """A device as the API shows it."""
    return Device.model_validate({**device.json(), "clock_skew_ms": call.gateway.clocks.skew_ms(device.id)})


async def _timeline(
    call: Call, device_id: str, cursor: str | None, limit: int, kinds: tuple[TimelineKind, ...]
) -> TimelinePage:
    page = await call.fleet.timeline.list(device_id, cursor=cursor, limit=limit, kinds=kinds)
    items = [TimelineEntry.model_validate(entry.json()) for entry in page.items]
    return TimelinePage(items=items, next_cursor=page.next_cursor, total=page.total)


def _kinds(text: str) -> tuple[TimelineKind, ...]:
    try:
        return tuple(TimelineKind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        detail = f"any of {', '.join(TimelineKind)}"
        raise Problem(422, f"kinds: {detail}", errors=[("kinds", detail)]) from error

"""How devices that nobody has created get in: claim keys, their lists, applications."""

from fleet.clock import rfc3339_or_none
from fleet.views import Role
from web.api.layer import Routes
from web.call import Call
from web.schemas.base import DeviceId, Id, Paged
from web.schemas.provisioning import (
    ApplicationAccept,
    ApplicationOut,
    ApplicationPage,
    ApplicationQuery,
    ClaimKeyCreate,
    ClaimKeyCreated,
    ClaimKeyOut,
    ClaimKeyPage,
    ExpectedAdded,
    ExpectedCreate,
    ExpectedDevice,
    ExpectedPage,
)

provisioning = Routes("Provisioning", "How devices that nobody has created get in, and to credentials of their own.")

_KEYS = "/api/v1/provisioning/claim-keys"
_APPLICATIONS = "/api/v1/provisioning/applications"


@provisioning.get(_KEYS, summary="Claim keys, newest first", role=Role.OPERATOR)
async def list_claim_keys(call: Call, query: Paged) -> ClaimKeyPage:
    page = await call.fleet.claim_keys.list(cursor=query.cursor, limit=query.limit)
    return ClaimKeyPage(
        items=[ClaimKeyOut(**key.json()) for key in page.items], next_cursor=page.next_cursor, total=page.total
    )


@provisioning.post(_KEYS, summary="Make a claim key", role=Role.OPERATOR, status=201, raises=(409,), idempotent=True)
async def create_claim_key(call: Call, body: ClaimKeyCreate) -> ClaimKeyCreated:
    """The key is in this answer and nowhere else."""
    made, key = await call.fleet.claim_keys.create(
        call.actor,
        name=body.name,
        mode=body.mode,
        expires_at=body.expires_at,
        uses_limit=body.uses_limit,
        profile=body.profile,
        tags=body.tags,
        networks=body.networks,
    )
    return ClaimKeyCreated(**made.json(), key=key)


@provisioning.get(f"{_KEYS}/{{id}}", summary="One claim key", role=Role.OPERATOR, raises=(404,))
async def get_claim_key(call: Call, id: Id) -> ClaimKeyOut:  # noqa: A002
    return ClaimKeyOut(**(await call.fleet.claim_keys.get(id)).json())


@provisioning.delete(f"{_KEYS}/{{id}}", summary="Revoke a claim key", role=Role.OPERATOR, raises=(404,))
async def revoke_claim_key(call: Call, id: Id) -> None:  # noqa: A002
    """No device comes in with it any more; those that have stay."""
    await call.fleet.claim_keys.revoke(call.actor, id)


@provisioning.get(f"{_KEYS}/{{id}}/devices", summary="The devices on its list", role=Role.OPERATOR, raises=(404,))
async def list_expected_devices(call: Call, id: Id, query: Paged) -> ExpectedPage:  # noqa: A002
    page = await call.fleet.claim_keys.expected(id, cursor=query.cursor, limit=query.limit)
    return ExpectedPage(
        items=[
            ExpectedDevice(device_id=one.device_id, claimed_at=rfc3339_or_none(one.claimed_at)) for one in page.items
        ],
        next_cursor=page.next_cursor,
        total=page.total,
    )


@provisioning.post(f"{_KEYS}/{{id}}/devices", summary="Add to its list", role=Role.OPERATOR, raises=(404, 409))
async def expect_devices(call: Call, id: Id, body: ExpectedCreate) -> ExpectedAdded:  # noqa: A002
    """For keys of mode "listed": only these devices may come with it, each once."""
    return ExpectedAdded(added=await call.fleet.claim_keys.expect(call.actor, id, body.devices))


@provisioning.get(_APPLICATIONS, summary="Devices that asked to be let in", role=Role.OPERATOR)
async def list_applications(call: Call, query: ApplicationQuery) -> ApplicationPage:
    page = await call.fleet.provisioning.list(status=query.status or "", cursor=query.cursor, limit=query.limit)
    return ApplicationPage(
        items=[ApplicationOut(**one.json()) for one in page.items], next_cursor=page.next_cursor, total=page.total
    )


@provisioning.post(
    f"{_APPLICATIONS}/{{device_id}}/accept", summary="Accept a device", role=Role.OPERATOR, raises=(404, 409)
)
async def accept_application(call: Call, device_id: DeviceId, body: ApplicationAccept) -> ApplicationOut:
    """It is created, and gets its token, when it asks the next time."""
    found = await call.fleet.provisioning.accept(call.actor, device_id, profile=body.profile, tags=body.tags)
    return ApplicationOut(**found.json())


@provisioning.post(
    f"{_APPLICATIONS}/{{device_id}}/reject", summary="Reject a device", role=Role.OPERATOR, raises=(404, 409)
)
async def reject_application(call: Call, device_id: DeviceId) -> ApplicationOut:
    """It is refused until the application is deleted."""
    return ApplicationOut(**(await call.fleet.provisioning.reject(call.actor, device_id)).json())


@provisioning.delete(
    f"{_APPLICATIONS}/{{device_id}}", summary="Forget an application", role=Role.OPERATOR, raises=(404,)
)
async def delete_application(call: Call, device_id: DeviceId) -> None:
    """The device may ask anew."""
    await call.fleet.provisioning.delete(call.actor, device_id)

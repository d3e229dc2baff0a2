"""Certificate authorities: who may issue certificates to devices."""

from fleet.views import Role
from web.api.layer import Routes
from web.call import Call
from web.schemas.authorities import AuthorityCreate, AuthorityOut, AuthorityPage, AuthorityUpdate
from web.schemas.base import Id

authorities = Routes("Certificate authorities", "Who may issue certificates to devices, and which of those are void.")

_ALL = "/api/v1/certificate-authorities"
_ONE = f"{_ALL}/{{id}}"


@authorities.get(_ALL, summary="All authorities", role=Role.ADMIN)
async def list_authorities(call: Call) -> AuthorityPage:
    found = await call.fleet.authorities.list()
    return AuthorityPage(items=[AuthorityOut(**each.json()) for each in found], total=len(found))


@authorities.post(_ALL, summary="Register an authority", role=Role.ADMIN, status=201, raises=(409,), idempotent=True)
async def create_authority(call: Call, body: AuthorityCreate) -> AuthorityOut:
    """Devices whose certificate it signed, with their id as common name, may connect from their next try on."""
    made = await call.fleet.authorities.create(call.actor, name=body.name, certificate=body.certificate)
    return AuthorityOut(**made.json())


@authorities.get(_ONE, summary="One authority", role=Role.ADMIN, raises=(404,))
async def get_authority(call: Call, id: Id) -> AuthorityOut:  # noqa: A002
    return AuthorityOut(**(await call.fleet.authorities.get(id)).json())


@authorities.patch(_ONE, summary="Rename it, revoke certificates", role=Role.ADMIN, raises=(404, 409))
async def update_authority(call: Call, id: Id, body: AuthorityUpdate) -> AuthorityOut:  # noqa: A002
    """Who is connected by a certificate that is revoked now is dropped within a second."""
    changed = await call.fleet.authorities.update(call.actor, id, name=body.name, revoked_serials=body.revoked_serials)
    return AuthorityOut(**changed.json())


@authorities.delete(_ONE, summary="Remove an authority", role=Role.ADMIN, raises=(404,))
async def delete_authority(call: Call, id: Id) -> None:  # noqa: A002
    """Its certificates let nobody in any more; who is connected by one is dropped within a second."""
    await call.fleet.authorities.delete(call.actor, id)

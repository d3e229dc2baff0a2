"""API keys: how programs come in."""

from fleet.views import Role
from web.access import in_person
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.schemas.api_keys import ApiKeyCreate, ApiKeyCreated, ApiKeyOut, ApiKeyPage, ApiKeyQuery
from web.schemas.base import Id

api_keys = Routes("API keys", "For programs: `Authorization: Bearer mrk_…`, in the name of who made the key.")

_KEYS = "/api/v1/api-keys"


@api_keys.get(_KEYS, summary="API keys, newest first", role=Role.VIEWER)
async def list_api_keys(call: Call, query: ApiKeyQuery) -> ApiKeyPage:
    """Your own; administrators may ask for everybody's."""
    if query.all and call.person.role is not Role.ADMIN:
        raise Problem(403, "everybody's keys are for administrators")
    owner_id = None if query.all else call.person.id
    page = await call.fleet.api_keys.list(owner_id, cursor=query.cursor, limit=query.limit)
    return ApiKeyPage(
        items=[ApiKeyOut(**key.json()) for key in page.items], next_cursor=page.next_cursor, total=page.total
    )


@api_keys.post(_KEYS, summary="Make an API key", role=Role.VIEWER, status=201, raises=(404, 409), idempotent=True)
async def create_api_key(call: Call, body: ApiKeyCreate) -> ApiKeyCreated:
    """The key is in this answer and nowhere else. It ends when it is revoked or runs out, and when its owner is
    disabled, deleted, or given a lower role than the key has. A key makes no keys."""
    in_person(call)
    made, key = await call.fleet.api_keys.create(
        call.actor, call.person.id, name=body.name, role=body.role, expires_at=body.expires_at
    )
    return ApiKeyCreated(**made.json(), key=key)


@api_keys.get(f"{_KEYS}/{{id}}", summary="One API key", role=Role.VIEWER, raises=(404,))
async def get_api_key(call: Call, id: Id) -> ApiKeyOut:  # noqa: A002
    return ApiKeyOut(**(await call.fleet.api_keys.get(id, _owner(call))).json())


@api_keys.delete(f"{_KEYS}/{{id}}", summary="Revoke an API key", role=Role.VIEWER, raises=(404,))
async def revoke_api_key(call: Call, id: Id) -> None:  # noqa: A002
    """At once, on live views as well. Your own; administrators may revoke anybody's."""
    await call.fleet.api_keys.revoke(call.actor, id, _owner(call))


def _owner(call: Call) -> str | None:
    """Whose keys the caller may see: None for anybody's."""
    return None if call.person.role is Role.ADMIN else call.person.id

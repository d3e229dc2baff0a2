"""What people do with their own account: sessions, password. API keys may not."""

from fleet.views import Role
from web.access import in_person
from web.api.layer import Routes
from web.call import Call
from web.routes.accounts import COOKIE, given
from web.schemas.accounts import PasswordChange, SessionOut, SessionPage, SessionsEnded, Tokens
from web.schemas.base import Id

own_account = Routes("Own account", "Your sessions, password and second factor. An API key reaches none of it.")

_ME = "/api/v1/users/me"


@own_account.get(f"{_ME}/sessions", summary="Your sessions, newest first", role=Role.VIEWER)
async def list_own_sessions(call: Call) -> SessionPage:
    """The newest 200."""
    current = in_person(call)
    found = await call.fleet.people.sessions(call.person.id)
    items = [SessionOut(**session.json(), current=session.id == current) for session in found]
    return SessionPage(items=items, total=len(items))


@own_account.delete(f"{_ME}/sessions/{{id}}", summary="End a session", role=Role.VIEWER, raises=(404,))
async def end_own_session(call: Call, id: Id) -> None:  # noqa: A002
    """At once, its live views too."""
    in_person(call)
    await call.fleet.people.end_session(call.actor, call.person.id, id)


@own_account.post(f"{_ME}/sessions:end-others", summary="End all sessions but this one", role=Role.VIEWER)
async def end_other_sessions(call: Call) -> SessionsEnded:
    current = in_person(call)
    return SessionsEnded(ended=await call.fleet.people.end_other_sessions(call.actor, call.person.id, current))


@own_account.post(
    f"{_ME}/password", summary="Change your password", role=Role.VIEWER, raises=(429,), answer_headers=COOKIE
)
async def change_own_password(call: Call, body: PasswordChange) -> Tokens:
    """Ends all your sessions, and begins a new one. API keys stay: revoke those that may be known."""
    in_person(call)
    tokens = await call.fleet.people.change_password(
        call.actor, call.person.id, body.password, body.new_password, user_agent=call.user_agent
    )
    return given(call, tokens)

"""What people do with their own account: sessions, password, second factor. API keys may not."""

from fleet.views import Role
from web.access import in_person
from web.api.layer import Routes
from web.call import Call
from web.routes.accounts import COOKIE, given
from web.schemas.accounts import (
    PasswordChange,
    PresentPassword,
    RecoveryCodes,
    SecondFactorCode,
    SecondFactorEnrolment,
    SessionOut,
    SessionPage,
    SessionsEnded,
    Tokens,
)
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


@own_account.post(
    f"{_ME}/second-factor", summary="Begin to set up a second factor", role=Role.VIEWER, status=201, raises=(409, 429)
)
async def enrol_second_factor(call: Call, body: PresentPassword) -> SecondFactorEnrolment:
    """Logins are asked for it once it is confirmed with a first code (RFC 6238: SHA-1, 6 digits, 30 seconds)."""
    in_person(call)
    secret, uri = await call.fleet.people.enrol_second_factor(call.actor, call.person.id, body.password)
    return SecondFactorEnrolment(secret=secret, uri=uri)


@own_account.post(f"{_ME}/second-factor:confirm", summary="Confirm it with a code", role=Role.VIEWER, raises=(409, 429))
async def confirm_second_factor(call: Call, body: SecondFactorCode) -> RecoveryCodes:
    in_person(call)
    codes = await call.fleet.people.confirm_second_factor(call.actor, call.person.id, body.code)
    return RecoveryCodes(recovery_codes=codes)


@own_account.post(f"{_ME}/second-factor:remove", summary="Remove it", role=Role.VIEWER, raises=(429,))
async def remove_second_factor(call: Call, body: PresentPassword) -> None:
    in_person(call)
    await call.fleet.people.remove_second_factor(call.actor, call.person.id, body.password)

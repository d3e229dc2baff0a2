"""Signing in, and the accounts of people."""

from fleet.views import Role
from fleet.views import Tokens as IssuedTokens
from web.access import clear_refresh_cookie, give_refresh_cookie, in_person, refresh_cookie
from web.api.layer import Header, Routes
from web.api.problem import Problem
from web.call import Call
from web.schemas.accounts import (
    Exchange,
    Login,
    Me,
    Refresh,
    Setup,
    SetupState,
    Tokens,
    User,
    UserCreate,
    UserPage,
    UserUpdate,
)
from web.schemas.base import Id

signing_in = Routes("Signing in", "Access tokens last 15 minutes; a refresh token is good for one use.")
users = Routes("Users", "The accounts of people.")

COOKIE = (Header(name="Set-Cookie", description="mooring_refresh: the refresh token, for browsers"),)


@signing_in.get("/api/v1/setup", summary="Whether the first administrator is still to be made", role=None)
async def get_setup(call: Call) -> SetupState:
    return SetupState(needed=await call.fleet.people.setup_needed())


@signing_in.post(
    "/api/v1/setup", summary="Make the first administrator", role=None, raises=(401, 409, 429), answer_headers=COOKIE
)
async def set_up(call: Call, body: Setup) -> Tokens:
    return given(
        call,
        await call.fleet.people.setup(
            body.token, body.username, body.password, address=call.address, user_agent=call.user_agent
        ),
    )


@signing_in.post(
    "/api/v1/auth/login",
    summary="Sign in with name and password",
    role=None,
    raises=(401, 429),
    answer_headers=COOKIE,
)
async def login(call: Call, body: Login) -> Tokens:
    return given(
        call,
        await call.fleet.people.login(
            body.username, body.password, call.address, otp=body.otp, user_agent=call.user_agent
        ),
    )


@signing_in.post(
    "/api/v1/auth/exchange",
    summary="Sign in with a one-time code",
    role=None,
    raises=(401, 429),
    answer_headers=COOKIE,
)
async def exchange_code(call: Call, body: Exchange) -> Tokens:
    return given(call, await call.fleet.people.exchange(body.code, address=call.address, user_agent=call.user_agent))


@signing_in.post(
    "/api/v1/auth/refresh",
    summary="New tokens for a refresh token",
    role=None,
    raises=(401, 403),
    answer_headers=COOKIE,
)
async def refresh_tokens(call: Call, body: Refresh) -> Tokens:
    """The token comes in the body or in the cookie; with the cookie, the request must come from the console's own
    origin. Using a refresh token a second time ends the session that it belongs to."""
    token = body.refresh_token or refresh_cookie(call)
    if not token:
        raise Problem(401, "no refresh token")
    return given(call, await call.fleet.people.refresh(token))


@signing_in.post("/api/v1/auth/logout", summary="End the session", role=None, raises=(403,))
async def logout(call: Call, body: Refresh) -> None:
    token = body.refresh_token or refresh_cookie(call)
    if token:
        await call.fleet.people.logout(token)
    clear_refresh_cookie(call)


@signing_in.get("/api/v1/auth/me", summary="Who is signed in", role=Role.VIEWER)
async def get_me(call: Call) -> Me:
    person = call.person
    return Me(id=person.id, username=person.username, role=person.role, second_factor=person.second_factor)


def given(call: Call, tokens: IssuedTokens) -> Tokens:
    give_refresh_cookie(call, tokens.refresh_token, tokens.refresh_expires_in)
    return Tokens.model_validate(tokens.json())


@users.get("/api/v1/users", summary="All accounts", role=Role.ADMIN)
async def list_users(call: Call) -> UserPage:
    found = await call.fleet.people.list()
    return UserPage(items=[User.model_validate(user.json()) for user in found], total=len(found))


@users.post("/api/v1/users", summary="Make an account", role=Role.ADMIN, status=201, raises=(429,), idempotent=True)
async def create_user(call: Call, body: UserCreate) -> User:
    user = await call.fleet.people.create(call.actor, body.username, body.password, body.role)
    return User.model_validate(user.json())


@users.patch("/api/v1/users/{id}", summary="Change an account", role=Role.ADMIN, raises=(404, 409, 429))
async def update_user(call: Call, user_id: Id, body: UserUpdate) -> User:
    """Changing the role or the password, or disabling the account, ends all its sessions."""
    user = await call.fleet.people.update(
        call.actor, user_id, role=body.role, password=body.password, disabled=body.disabled
    )
    return User.model_validate(user.json())


@users.delete(
    "/api/v1/users/{id}/second-factor", summary="Take away a second factor that is lost", role=Role.ADMIN, raises=(404,)
)
async def reset_second_factor(call: Call, user_id: Id) -> None:
    """Ends all sessions of the account too. Your own: see `users/me/second-factor:remove`."""
    in_person(call)
    if user_id == call.person.id:
        raise Problem(403, "your own second factor is removed with your password: users/me/second-factor:remove")
    await call.fleet.people.reset_second_factor(call.actor, user_id)


@users.delete("/api/v1/users/{id}", summary="Delete an account", role=Role.ADMIN, raises=(404, 409))
async def delete_user(call: Call, user_id: Id) -> None:
    await call.fleet.people.delete(call.actor, user_id)

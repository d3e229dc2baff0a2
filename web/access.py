"""Who asks, and from where: bearer tokens, roles, the refresh cookie, Origins.

The console keeps its access token in memory and sends it as everybody does; only the refresh token lives in a
cookie, which goes to /api/v1/auth alone, so that no other request can be forged by another site.
"""

from urllib.parse import urlsplit

from aiohttp import web

from fleet.views import Identity
from web.api.layer import Route
from web.api.problem import Problem
from web.call import Call, Person
from web.options import WebOptions
from web.parts import PARTS

COOKIE = "mooring_refresh"
COOKIE_PATH = "/api/v1/auth"
_MAX_TOKEN = 4096
_WHILE_ENROLLING = ("/api/v1/users/me/", "/api/v1/auth/")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mooring"'}


async def open_call(request: web.Request, route: Route) -> Call:
    """The request's Call, once its person was found to have the role that the route asks for. Raises Problem."""
    if route.role is None:
        return Call(request=request, signed_in=None)
    token = bearer(request)
    if token is None:
        raise Problem(401, "sign in first: Authorization: Bearer <access token or API key>", headers=_CHALLENGE)
    identity = await request.app[PARTS].fleet.people.identify(token, request.remote or "")
    person = person_of(identity)
    if identity.must_enrol and not route.path.startswith(_WHILE_ENROLLING):
        raise Problem(
            403, "set up a second factor first, in the settings of your account", code="second_factor_required"
        )
    if not person.role.covers(route.role):
        raise Problem(403, f"this is for role {route.role}; yours is {person.role}")
    return Call(request=request, signed_in=person)


def person_of(identity: Identity) -> Person:
    user = identity.user
    return Person(
        id=user.id,
        username=user.username,
        role=user.role,
        name=identity.name,
        login_id=identity.login_id,
        second_factor=user.second_factor,
    )


def in_person(call: Call) -> str:
    """The id of the login that the call comes from. Raises Problem 403 for an API key: those are for programs."""
    if call.person.login_id is None:
        raise Problem(403, "an API key may not do this: sign in with name and password")
    return call.person.login_id


def bearer(request: web.Request) -> str | None:
    """The token in the Authorization header, or None."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and 0 < len(token) <= _MAX_TOKEN else None


def is_own_origin(origin: str, host: str, options: WebOptions) -> bool:
    """Whether an Origin header names this server: the host that was asked, or that of the public URL."""
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return False
    if options.public_url is not None:
        public = urlsplit(options.public_url)
        if (parts.scheme, parts.netloc.lower()) == (public.scheme, public.netloc.lower()):
            return True
    return parts.netloc.lower() == host.lower()


def refresh_cookie(call: Call) -> str | None:
    """The refresh token in the cookie. Raises Problem 403 unless the request comes from our own pages.

    Browsers send Origin with every POST; one without it is no browser of today, and can send the token in the body.
    """
    token = call.request.cookies.get(COOKIE)
    if not token:
        return None
    origin = call.request.headers.get("Origin", "")
    if not is_own_origin(origin, call.request.host, call.parts.options):
        raise Problem(403, "the cookie counts only for requests from this server's own pages")
    return token


def give_refresh_cookie(call: Call, token: str, max_age_s: int) -> None:
    """Set the cookie on the call's answer."""
    call.headers["Set-Cookie"] = _cookie(call, token, max_age_s)


def clear_refresh_cookie(call: Call) -> None:
    call.headers["Set-Cookie"] = _cookie(call, "", 0)


def _cookie(call: Call, value: str, max_age_s: int) -> str:
    secure = "; Secure" if call.request.secure or call.parts.options.is_https else ""
    return f"{COOKIE}={value}; Path={COOKIE_PATH}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"

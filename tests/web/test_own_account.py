"""What people do with their own account over the API, against the real server."""

import time

from fleet.totp import STEP_S, code_at
from tests.web.conftest import Site
from tests.web.test_live import close_code, connected, subscribe
from tests.web.test_with_fleet import PASSWORD, admin, got, link, login, made, site
from web import live_client

__all__ = ["admin", "link", "site"]  # fixtures


async def test_ending_a_session_closes_its_live_views_and_no_other(site: Site, admin: str) -> None:
    other = await login(site, "alice")
    sessions = (await got(site, admin, "users/me/sessions"))["items"]
    assert [session["current"] for session in sessions] == [False, True]
    assert sessions[0]["address"] == "127.0.0.1"
    assert "aiohttp" in sessions[0]["user_agent"]
    async with connected(site, token=other) as socket, connected(site, token=admin) as mine:
        await subscribe(socket, "overview")
        answer = await site.ask("DELETE", f"/api/v1/users/me/sessions/{sessions[0]['id']}", role=admin)
        assert answer.status == 204
        assert await close_code(socket) == live_client.UNAUTHORIZED
        await subscribe(mine, "overview")
    assert (await site.ask("GET", "/api/v1/auth/me", role=other)).status == 401


async def test_the_others_are_ended_at_once(site: Site, admin: str) -> None:
    others = [await login(site, "alice") for _ in range(2)]
    assert (await made(site, admin, "users/me/sessions:end-others")) == {"ended": 2}
    assert [(await site.ask("GET", "/api/v1/auth/me", role=token)).status for token in (*others, admin)] == [
        401,
        401,
        200,
    ]


async def test_the_password_is_changed_by_who_knows_it(site: Site, admin: str) -> None:
    wrong = {"password": "wrong", "new_password": "a longer password"}
    assert (await site.ask("POST", "/api/v1/users/me/password", role=admin, json=wrong)).status == 422
    tokens = await made(site, admin, "users/me/password", wrong | {"password": PASSWORD})
    assert (await site.ask("GET", "/api/v1/auth/me", role=admin)).status == 401
    assert (await got(site, tokens["access_token"], "auth/me"))["username"] == "alice"


async def test_a_second_factor_is_set_up_asked_for_and_reset(site: Site, admin: str) -> None:
    async def log_in(**options: str) -> tuple[int, str | None]:
        body = {"username": "bob", "password": PASSWORD, **options}
        answer = await site.ask("POST", "/api/v1/auth/login", role=None, json=body)
        return answer.status, answer.json.get("code")

    bob = await made(site, admin, "users", {"username": "bob", "password": PASSWORD, "role": "viewer"})
    token = await login(site, "bob")
    begun = await made(site, token, "users/me/second-factor", {"password": PASSWORD})
    step = int(time.time()) // STEP_S
    confirmed = await made(site, token, "users/me/second-factor:confirm", {"code": code_at(begun["secret"], step)})
    assert await log_in() == (401, "otp_required")
    assert await log_in(otp="000000") == (401, "otp_invalid")
    assert await log_in(otp=confirmed["recovery_codes"][0]) == (200, None)
    assert [user["second_factor"] for user in (await got(site, admin, "users"))["items"]] == [False, True]
    reset = f"/api/v1/users/{bob['id']}/second-factor"
    assert (await site.ask("DELETE", reset, role=token)).status == 403
    assert (await site.ask("DELETE", reset, role=admin)).status == 204
    assert await log_in() == (200, None)
    me = (await got(site, admin, "auth/me"))["id"]
    assert (await site.ask("DELETE", f"/api/v1/users/{me}/second-factor", role=admin)).status == 403


async def test_an_administrator_who_has_to_set_one_up_reaches_nothing_else(site: Site, admin: str) -> None:
    site.fleet.people._require_second_factor = True  # type: ignore[attr-defined]
    answers = {
        path: await site.ask("GET", f"/api/v1/{path}", role=admin)
        for path in ("devices", "users", "api-keys", "audit", "overview", "users/me/sessions", "auth/me")
    }
    assert [path for path, answer in answers.items() if answer.status == 200] == ["users/me/sessions", "auth/me"]
    assert {answer.json["code"] for answer in answers.values() if answer.status == 403} == {"second_factor_required"}
    async with connected(site, token=admin) as socket:
        assert await close_code(socket) == live_client.UNAUTHORIZED
    begun = await made(site, admin, "users/me/second-factor", {"password": PASSWORD})
    code = code_at(begun["secret"], int(time.time()) // STEP_S)
    await made(site, admin, "users/me/second-factor:confirm", {"code": code})
    assert (await got(site, admin, "devices"))["items"] == []


async def test_an_api_key_reaches_none_of_it(site: Site, admin: str) -> None:
    key = (await made(site, admin, "api-keys", {"name": "ci", "role": "admin"}))["key"]
    body = {"password": PASSWORD, "new_password": "a longer password"}
    for method, path, sent in [
        ("GET", "sessions", None),
        ("DELETE", "sessions/x", None),
        ("POST", "sessions:end-others", None),
        ("POST", "password", body),
        ("POST", "second-factor", {"password": PASSWORD}),
        ("POST", "second-factor:confirm", {"code": "000000"}),
        ("POST", "second-factor:remove", {"password": PASSWORD}),
    ]:
        assert (await site.ask(method, f"/api/v1/users/me/{path}", role=key, json=sent)).status == 403, path

"""Signing in and out, the refresh cookie, foreign pages."""

import pytest

from tests.web import fakes
from tests.web.conftest import Site, options_in
from web.options import WebOptions

LOGIN = {"username": "operator", "password": fakes.PASSWORD}


async def test_login_gives_tokens_and_a_cookie_for_the_console(site: Site) -> None:
    answer = await site.ask("POST", "/api/v1/auth/login", role=None, json=LOGIN)
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert answer.json["token_type"] == "Bearer"
    cookie = answer.cookies["mooring_refresh"]
    assert cookie.value == answer.json["refresh_token"]
    assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/api/v1/auth", "Strict", True)
    assert not cookie["secure"]
    me = await site.ask("GET", "/api/v1/auth/me", role=answer.json["access_token"])
    assert me.json == {"id": "Uoperator", "username": "operator", "role": "operator", "second_factor": False}


async def test_unknown_name_and_wrong_password_look_the_same(site: Site) -> None:
    wrong = await site.ask("POST", "/api/v1/auth/login", role=None, json={**LOGIN, "password": "wrong"})
    unknown = await site.ask("POST", "/api/v1/auth/login", role=None, json={**LOGIN, "username": "nobody"})
    assert (wrong.status, unknown.status) == (401, 401)
    assert wrong.json == unknown.json


async def test_too_many_failures_say_when_to_come_back(site: Site) -> None:
    site.fleet.people.failures = 5
    answer = await site.ask("POST", "/api/v1/auth/login", role=None, json=LOGIN)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "30")


async def test_refresh_takes_the_token_from_the_body(site: Site) -> None:
    tokens = (await site.ask("POST", "/api/v1/auth/login", role=None, json=LOGIN)).json
    body = {"refresh_token": tokens["refresh_token"]}
    assert (await site.ask("POST", "/api/v1/auth/refresh", role=None, json=body)).status == 200
    assert (await site.ask("POST", "/api/v1/auth/refresh", role=None, json=body)).status == 401


async def cookie(site: Site) -> dict[str, str]:
    answer = await site.ask("POST", "/api/v1/auth/login", role=None, json=LOGIN)
    return {"mooring_refresh": answer.json["refresh_token"]}


async def test_refresh_takes_the_cookie_from_our_own_pages_only(site: Site) -> None:
    cookies = await cookie(site)
    for origin in ("http://evil.example", "null", f"https://evil.example/{site.url}", f"{site.url}.evil.example"):
        for where in ("refresh", "logout"):
            answer = await site.ask(
                "POST", f"/api/v1/auth/{where}", role=None, cookies=cookies, headers={"Origin": origin}, json={}
            )
            assert answer.status == 403, origin
    assert (await site.ask("POST", "/api/v1/auth/refresh", role=None, cookies=cookies)).status == 403
    own = await site.ask("POST", "/api/v1/auth/refresh", role=None, cookies=cookies, headers={"Origin": site.url})
    assert own.status == 200
    assert own.cookies["mooring_refresh"].value != cookies["mooring_refresh"]


async def test_the_cookie_opens_nothing_but_refresh(site: Site) -> None:
    cookies = await cookie(site)
    answer = await site.ask("GET", "/api/v1/devices", role=None, cookies=cookies, headers={"Origin": site.url})
    assert answer.status == 401


async def test_logout_ends_the_session_and_the_cookie(site: Site) -> None:
    cookies, own = await cookie(site), {"Origin": site.url}
    answer = await site.ask("POST", "/api/v1/auth/logout", role=None, cookies=cookies, headers=own)
    assert answer.status == 204
    assert answer.cookies["mooring_refresh"]["max-age"] == "0"
    again = await site.ask("POST", "/api/v1/auth/refresh", role=None, cookies=cookies, headers=own)
    assert again.status == 401


async def test_a_code_is_exchanged_for_tokens(site: Site) -> None:
    answer = await site.ask("POST", "/api/v1/auth/exchange", role=None, json={"code": "code"})
    assert answer.status == 200
    assert "mooring_refresh" in answer.cookies


async def test_tokens_elsewhere_than_in_the_header_do_not_count(site: Site) -> None:
    assert (await site.ask("GET", "/api/v1/devices?access_token=admin", role=None)).status in (401, 422)
    for value in ("admin", "Basic admin", "Bearer", "Bearer  ", "Bearer " + "x" * 5000):
        answer = await site.ask("GET", "/api/v1/devices", role=None, headers={"Authorization": value})
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("web_options", ["https://fleet.example.com"], indirect=True)
class TestBehindAnHttpsProxy:
    @pytest.fixture
    def web_options(self, tmp_path, request) -> WebOptions:  # type: ignore[no-untyped-def]
        return options_in(tmp_path, public_url=request.param)

    async def test_the_cookie_is_secure_and_browsers_stay_with_https(self, site: Site) -> None:
        answer = await site.ask("POST", "/api/v1/auth/login", role=None, json=LOGIN)
        assert answer.cookies["mooring_refresh"]["secure"]
        assert "Strict-Transport-Security" in answer.headers

    async def test_the_public_origin_is_ours(self, site: Site) -> None:
        cookies = await cookie(site)
        for origin, status in (("http://fleet.example.com", 403), ("https://fleet.example.com", 200)):
            answer = await site.ask(
                "POST", "/api/v1/auth/refresh", role=None, cookies=cookies, headers={"Origin": origin}
            )
            assert answer.status == status


async def test_accounts_are_made_changed_and_deleted(site: Site) -> None:
    body = {"username": "bob", "password": "long enough", "role": "operator"}
    made = await site.ask("POST", "/api/v1/users", json=body)
    assert (made.status, made.json["role"]) == (201, "operator")
    assert "password" not in made.json
    assert (await site.ask("POST", "/api/v1/users", json=body)).status == 409
    assert (await site.ask("PATCH", "/api/v1/users/Ubob", json={"disabled": True})).status == 200
    assert (await site.ask("PATCH", "/api/v1/users/Ubob", json={"username": "root"})).status == 422
    assert (await site.ask("DELETE", "/api/v1/users/Ubob")).status == 204
    assert (await site.ask("DELETE", "/api/v1/users/Uadmin")).status == 409
    assert {user["username"] for user in (await site.ask("GET", "/api/v1/users")).json["items"]} == {
        "viewer",
        "operator",
        "admin",
    }

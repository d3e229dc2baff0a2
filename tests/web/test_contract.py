"""Over all routes at once: document and router agree, roles hold, errors have one shape, headers are on everything."""

import io
import json
import re
from typing import Any

import pytest

from fleet.views import Role
from tests.web.conftest import Site
from web.api.layer import Route
from web.app import LIVE_PATH
from web.openapi import openapi
from web.routes import SUBJECTS

ROUTES = [route for subject in SUBJECTS for route in subject]
NOT_DOCUMENTED = {LIVE_PATH, "/api/docs.js", "/api/docs.css"}

IDS = {
    "devices": "pump-7",
    "profiles": "pump",
    "commands": "CMD0",
    "groups": "G0",
    "artifacts": "A0",
    "campaigns": "K0",
    "users": "Uviewer",
    "sessions": "pump-7",
    "letters": "1",
    "replays": "R0",
    "jobs": "J0",
    "keys": "X0",
    "authorities": "X0",
    "api-keys": "Y0",
    "applications": "pump-7",
    "schedules": "S0",
    "templates": "W0",
}
BODIES: dict[str, Any] = {
    "set_up": {"token": "t", "username": "alice", "password": "long enough"},
    "login": {"username": "viewer", "password": "wrong"},
    "exchange_code": {"code": "wrong"},
    "refresh_tokens": {"refresh_token": "wrong"},
    "create_device": {"id": "pump-8"},
    "act_on_devices": {"ids": ["pump-7"], "action": {"type": "disable"}},
    "create_group": {"name": "north"},
    "add_group_devices": {"devices": ["pump-7"]},
    "create_claim_key": {"name": "pumps", "expires_at": "2030-01-01T00:00:00Z", "uses_limit": 10},
    "create_authority": {"name": "factory", "certificate": "-----BEGIN CERTIFICATE-----"},
    "update_authority": {"name": "factory", "revoked_serials": ["4f:1a"]},
    "expect_devices": {"devices": ["pump-8"]},
    "change_own_password": {"password": "correct horse", "new_password": "long enough"},
    "enrol_second_factor": {"password": "correct horse"},
    "confirm_second_factor": {"code": "123456"},
    "remove_second_factor": {"password": "correct horse"},
    "create_api_key": {"name": "ci", "role": "viewer"},
    "create_profile": {"name": "tank"},
    "test_draft": {"profile": {}, "payload": "{}"},
    "test_profile": {"payload": "{}"},
    "patch_twin": {"desired": {"interval": 5}},
    "create_command": {"name": "reboot"},
    "create_twin_template": {"name": "fast", "desired": {"interval": 5}, "target": {"ids": ["pump-7"]}},
    "create_schedule": {
        "name": "nightly",
        "command": {"name": "reboot"},
        "target": {"ids": ["pump-7"]},
        "cron": "0 3 * * *",
    },
    "create_campaign": {"name": "all", "artifact": "A0", "devices": ["pump-7"]},
    "replay_dead_letters": {"ids": [1]},
    "create_user": {"username": "bob", "password": "long enough", "role": "viewer"},
}


def address(route: Route) -> str:
    subject = re.search(r"(api-keys|\w+)/\{", route.path)
    found = route.path.replace("{credential}", "C0")
    return re.sub(r"\{\w+\}", IDS[subject[1]] if subject else "", found)


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


async def request(site: Site, route: Route, role: str | None) -> Any:
    body = BODIES.get(route.handler.__name__, {}) if route.body_model else None
    return await site.ask(route.method, address(route), role=role, json=body)


def test_the_document_has_every_route_of_the_router_and_no_other(site: Site) -> None:
    routed = set()
    for resource in site.server._application().router.resources():
        for route in resource:
            if route.method != "HEAD" and "(?!" not in resource.canonical and resource.canonical not in NOT_DOCUMENTED:
                routed.add((route.method, resource.canonical))
    documented = {
        (method.upper(), path)
        for path, item in openapi("0")["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routed - {("GET", "/{path}")} == documented


def test_the_document_is_consistent() -> None:
    found = openapi("0")
    text = json.dumps(found)
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert reference in found["components"]["schemas"]
    ids = [operation["operationId"] for item in found["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    for path, item in found["paths"].items():
        for operation in item.values():
            named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
            assert named == re.findall(r"\{(\w+)\}", path)
            assert operation["summary"]


@pytest.mark.parametrize("route", ROUTES, ids=name)
async def test_each_role_may_do_what_the_route_says_and_no_more(site: Site, route: Route) -> None:
    if route.role is None:
        assert (await request(site, route, None)).status not in (403, 500)
        return
    assert (await request(site, route, None)).status == 401
    assert (await request(site, route, "nobody")).status == 401
    for role in Role:
        status = (await request(site, route, role.value)).status
        if role.covers(route.role):
            assert status not in (401, 403, 500), role
        else:
            assert status == 403, role


WRITES = [route for route in ROUTES if route.method != "GET" and route.role is not None]


#: What belongs to who asks: everybody may change their own.
OWN = ("/api/v1/api-keys", "/api/v1/users/me/")


def test_no_viewer_may_write_but_what_is_their_own() -> None:
    writes = [name(route) for route in WRITES if Role.VIEWER.covers(route.role) and not route.path.startswith(OWN)]
    assert writes == []


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body_model], ids=name)
async def test_bad_bodies_are_refused_in_the_one_shape(site: Site, route: Route) -> None:
    where = address(route)
    for body, statuses in [
        (b"{", {400}),
        (b"[]", {422}),
        (b'"text"', {422}),
        (b"null", {422}),
        (b'{"no_such_field": 1}', {422}),
        (b'{"id": NaN}', {400}),
        (b"\xff\xfe", {400}),
        (b"[" * 100_000, {400}),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}', {413}),
    ]:
        headers = {"Content-Type": "application/json"}
        answer = await site.ask(route.method, where, data=io.BytesIO(body), headers=headers)
        assert answer.status in statuses, (body[:20], answer.json)
        assert answer.json["status"] == answer.status
        assert answer.json["title"]
        assert answer.json["detail"]
    answer = await site.ask(
        route.method, where, data=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status == 415


@pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route.path], ids=name)
async def test_bad_ids_are_refused_or_not_found(site: Site, route: Route) -> None:
    for bad in ("%00", "a%2Fb", "x" * 200, "%F0%9F%92%A9", "no-such-one", "..%2f..%2fetc%2fpasswd"):
        path = re.sub(r"\{\w+\}", bad, route.path)
        body = BODIES.get(route.handler.__name__, {}) if route.body_model else None
        answer = await site.ask(route.method, path, json=body)
        # An update of nothing is refused for its missing fields first, where there are any.
        assert answer.status in (404, 422), (path, answer.json)


async def test_unknown_addresses_of_the_api_are_problems_for_every_method(site: Site) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = await site.ask(method, "/api/v1/nothing")
        assert (answer.status, answer.json["status"]) == (404, 404)
    assert (await site.ask("PUT", "/api/v1/devices")).status == 405


async def test_security_headers_are_on_every_answer(site: Site) -> None:
    for path in ("/", "/healthz", "/api/docs", "/api/docs.js", "/api/v1/devices", "/api/v1/nothing", "/metrics"):
        answer = await site.ask("GET", path, role=None)
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "unsafe-inline" not in re.sub(r"style-src [^;]*", "", policy)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Python" not in answer.headers.get("Server", "")
    assert (await site.ask("GET", "/api/v1/devices")).headers["Cache-Control"] == "no-store"


async def test_openapi_is_served_as_printed(site: Site) -> None:
    assert (await site.ask("GET", "/api/openapi.json", role=None)).json == json.loads(json.dumps(openapi("0.1.0")))

"""The web server over the real fleet and gateway, on SQLite, with devices on a memory link."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fleet.fleet import Fleet
from fleet.options import FleetOptions
from gateway.bus import Bus
from gateway.gateway import Gateway, GatewayOptions
from gateway.links.memory import MemoryLink
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from tests.web import fakes
from tests.web.conftest import ENDPOINTS, Site
from tests.web.test_live import close_code, connected, frame, subscribe
from web import live_client
from web.app import WebServer
from web.options import WebOptions

PASSWORD = "a long enough password"


@pytest.fixture
def link() -> MemoryLink:
    return MemoryLink()


@pytest.fixture
async def site(tmp_path: Path, web_options: WebOptions, link: MemoryLink) -> AsyncIterator[Site]:
    bus = Bus()
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "store"))
    gateway = Gateway(GatewayOptions(data_dir=tmp_path), store=store, links=[link], bus=bus)
    fleet = Fleet(FleetOptions(data_dir=tmp_path), bus=bus)
    await fleet.start(gateway)
    await gateway.start(fleet, fleet.inbox)
    server = WebServer(
        web_options, fleet=fleet, gateway=gateway, sessions=fakes.Sessions(), endpoints=ENDPOINTS, version="0.1.0"
    )
    await server.start()
    found = Site(server, fleet, gateway, fakes.Sessions())  # type: ignore[arg-type]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as found.http:
        yield found
    await server.stop()
    await gateway.stop()
    await fleet.stop()


@pytest.fixture
async def admin(site: Site) -> str:
    await site.fleet.people.ensure_admin("alice", PASSWORD)  # type: ignore[attr-defined]
    return await login(site, "alice")


async def login(site: Site, username: str) -> str:
    answer = await site.ask("POST", "/api/v1/auth/login", role=None, json={"username": username, "password": PASSWORD})
    assert answer.status == 200, answer.json
    token: str = answer.json["access_token"]
    return token


async def made(site: Site, token: str, path: str, body: Any = None, **options: Any) -> Any:
    answer = await site.ask("POST", f"/api/v1/{path}", role=token, json=body, **options)
    assert answer.status in (200, 201), answer.json
    return answer.json


async def got(site: Site, token: str, path: str) -> Any:
    answer = await site.ask("GET", f"/api/v1/{path}", role=token)
    assert answer.status == 200, answer.json
    return answer.json


async def test_the_first_administrator_is_made_once(site: Site) -> None:
    assert (await site.ask("GET", "/api/v1/setup", role=None)).json == {"needed": True}
    token = await site.fleet.people.setup_token()  # type: ignore[attr-defined]
    body = {"token": token, "username": "alice", "password": PASSWORD}
    assert (await site.ask("POST", "/api/v1/setup", role=None, json={**body, "token": "wrong"})).status == 401
    assert (await site.ask("POST", "/api/v1/setup", role=None, json={**body, "password": "short"})).status == 422
    tokens = await site.ask("POST", "/api/v1/setup", role=None, json=body)
    assert tokens.status == 200, tokens.json
    assert (await got(site, tokens.json["access_token"], "auth/me"))["role"] == "admin"
    assert (await site.ask("POST", "/api/v1/setup", role=None, json=body)).status == 409
    assert (await site.ask("GET", "/api/v1/setup", role=None)).json == {"needed": False}


async def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_session(site: Site, admin: str) -> None:
    body = {"username": "alice", "password": PASSWORD}
    first = (await site.ask("POST", "/api/v1/auth/login", role=None, json=body)).json
    second = await made(site, "", "auth/refresh", {"refresh_token": first["refresh_token"]})
    for token in (first["refresh_token"], second["refresh_token"]):
        answer = await site.ask("POST", "/api/v1/auth/refresh", role=None, json={"refresh_token": token})
        assert answer.status == 401
    assert (await site.ask("GET", "/api/v1/auth/me", role=second["access_token"])).status == 401
    assert (await site.ask("GET", "/api/v1/auth/me", role=admin)).status == 200


async def test_a_device_and_all_that_it_has(site: Site, admin: str) -> None:
    device = await made(site, admin, "devices", {"id": "pump-7", "name": "Pump", "tags": ["north"], "profile": "p"})
    assert device["credentials"]["type"] == "token"
    assert (await site.ask("POST", "/api/v1/devices", role=admin, json={"id": "pump-7"})).status == 409
    for query in ("q=pum", "tag=north", "status=never_seen", "sort=-last_seen", "sort=-firmware", "limit=1"):
        page = await got(site, admin, f"devices?{query}")
        assert ([one["id"] for one in page["items"]], page["total"]) == (["pump-7"], 1), query
    changed = await site.ask("PATCH", "/api/v1/devices/pump-7", role=admin, json={"name": "P7", "profile": ""})
    assert (changed.json["name"], changed.json["profile"]) == ("P7", None)
    credential = await made(site, admin, "devices/pump-7/credentials")
    assert (await site.ask("POST", "/api/v1/devices/pump-7/credentials", role=admin)).status == 409
    where = f"/api/v1/devices/pump-7/credentials/{credential['id']}"
    assert (await site.ask("DELETE", where, role=admin)).status == 204
    assert (await got(site, admin, "devices/pump-7/credentials"))["total"] == 2
    assert await got(site, admin, "devices/pump-7/timeline")
    assert (await got(site, admin, "devices/pump-7/dead-letters"))["items"] == []
    assert (await site.ask("DELETE", "/api/v1/devices/pump-7", role=admin)).status == 204
    assert (await site.ask("GET", "/api/v1/devices/pump-7", role=admin)).status == 404
    actions = {entry["action"] for entry in (await got(site, admin, "audit?target=pump-7"))["items"]}
    assert {"device.create", "device.delete"} <= actions


async def test_twins_and_commands(site: Site, admin: str) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    twin = await site.ask("GET", "/api/v1/devices/pump-7/twin", role=admin)
    body = {"desired": {"interval": 5}}
    changed = await site.ask(
        "PATCH", "/api/v1/devices/pump-7/twin", role=admin, json=body, headers={"If-Match": twin.headers["ETag"]}
    )
    assert (changed.status, changed.json["delta"]) == (200, {"interval": 5})
    stale = await site.ask(
        "PATCH", "/api/v1/devices/pump-7/twin", role=admin, json=body, headers={"If-Match": twin.headers["ETag"]}
    )
    assert (stale.status, stale.headers["ETag"]) == (412, changed.headers["ETag"])
    command = await made(site, admin, "devices/pump-7/commands", {"name": "reboot", "params": {"delay": 1}, "ttl": 60})
    assert (command["status"], command["created_by"]) == ("queued", "alice")
    assert (await got(site, admin, "devices/pump-7/commands?status=queued"))["items"] == [command]
    assert (await made(site, admin, f"commands/{command['id']}/cancel"))["status"] == "cancelled"
    assert (await got(site, admin, "overview"))["commands"] == {"pending": 0}


async def test_firmware_from_upload_to_campaign(site: Site, admin: str) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    form = aiohttp.FormData({"version": "1.1.0"})
    form.add_field("file", b"new firmware", filename="app.bin")
    artifact = (await site.ask("POST", "/api/v1/artifacts", role=admin, data=form)).json
    assert (artifact["size"], artifact["name"]) == (12, "app.bin")
    wrong = aiohttp.FormData({"version": "1.2.0", "sha256": "0" * 64})
    wrong.add_field("file", b"other firmware", filename="app.bin")
    assert (await site.ask("POST", "/api/v1/artifacts", role=admin, data=wrong)).status == 422
    file = await site.ask("GET", f"/api/v1/artifacts/{artifact['id']}/file", role=admin)
    assert file.body == b"new firmware"
    body = {"name": "All", "artifact": artifact["id"], "devices": ["pump-7"], "timeouts": {"rebooting_s": 60}}
    assert (await site.ask("POST", "/api/v1/campaigns", role=admin, json={**body, "devices": ["x"]})).status == 422
    campaign = await made(site, admin, "campaigns", {**body, "start": True})
    assert (campaign["status"], campaign["total"], campaign["timeouts"]["rebooting_s"]) == ("running", 1, 60)
    where = f"campaigns/{campaign['id']}"
    assert (await got(site, admin, f"{where}/jobs"))["items"][0]["device"] == "pump-7"
    assert (await got(site, admin, "campaigns?status=running"))["items"][0]["id"] == campaign["id"]
    assert (await site.ask("DELETE", f"/api/v1/artifacts/{artifact['id']}", role=admin)).status == 409
    assert (await made(site, admin, f"{where}/abort"))["status"] == "aborted"
    assert (await site.ask("POST", f"/api/v1/{where}/start", role=admin)).status == 409


async def test_accounts_end_with_their_rights(site: Site, admin: str) -> None:
    user = await made(site, admin, "users", {"username": "bob", "password": PASSWORD, "role": "operator"})
    bob = await login(site, "bob")
    assert (await site.ask("GET", "/api/v1/users", role=bob)).status == 403
    async with connected(site, token=bob) as socket:
        await subscribe(socket, "presence")
        where = f"/api/v1/users/{user['id']}"
        assert (await site.ask("PATCH", where, role=admin, json={"role": "viewer"})).json["role"] == "viewer"
        assert (await site.ask("GET", "/api/v1/auth/me", role=bob)).status == 401
        assert await close_code(socket) == live_client.UNAUTHORIZED
    assert (await site.ask("DELETE", where, role=admin)).status == 204
    alice = (await got(site, admin, "auth/me"))["id"]
    assert (await site.ask("DELETE", f"/api/v1/users/{alice}", role=admin)).status == 409


async def test_live_views_begin_with_what_the_fleet_knows(site: Site, admin: str) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    async with connected(site, token=admin) as socket:
        for number, channel in enumerate(("presence", "commands", "messages", "telemetry", "campaigns")):
            assert (await subscribe(socket, channel, "pump-7", id=number))["type"] == "event"
        assert (await subscribe(socket, "presence", id="all"))["data"]["counts"]["total"] == 1
        command = await made(site, admin, "devices/pump-7/commands", {"name": "reboot"})
        assert (await frame(socket, id=1))["data"]["id"] == command["id"]
        assert (await subscribe(socket, "overview", id="overview"))["data"]["devices"]["total"] == 1


async def test_a_reading_is_in_the_answer_and_in_the_live_view_at_once(
    site: Site, admin: str, link: MemoryLink
) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    device = link.device("pump-7")
    async with connected(site, token=admin) as socket:
        await subscribe(socket, "telemetry", "pump-7", id="values")
        await subscribe(socket, "presence", "pump-7", id="presence")
        device.connect()
        assert (await frame(socket, id="presence"))["data"]["status"] == "online"
        assert not (await device.publish("telemetry", {"temperature": 21.5, "door": "open"})).code.is_error
        assert (await frame(socket, id="values"))["data"]["series"]["temperature"]["value"] == 21.5
    latest = await got(site, admin, "devices/pump-7/latest")
    assert (latest["door"]["value"], latest["door"]["stale"]) == ("open", False)
    found = await got(site, admin, "devices/pump-7/telemetry?metrics=temperature")
    assert found["series"]["temperature"]["v"] == [21.5]
    found = await got(site, admin, "devices/pump-7/telemetry?buckets=10&agg=count")
    assert found["series"]["temperature"]["v"] == [1]
    metrics = (await site.ask("GET", "/metrics", role=None)).body.decode()
    assert "mooring_readings_total 2.0" in metrics
    assert (await site.ask("GET", "/readyz", role=None)).status == 200


async def test_a_command_that_is_waited_for_comes_back_with_the_devices_answer(
    site: Site, admin: str, link: MemoryLink
) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    device = link.device("pump-7")
    device.connect()
    waiting = asyncio.create_task(made(site, admin, "devices/pump-7/commands?wait=10", {"name": "reboot"}))
    async with asyncio.timeout(10):
        while not (downlink := await device.next()).channel.startswith("commands/"):
            pass
    await device.publish(f"{downlink.channel}/status", {"status": "succeeded", "result": {"uptime": 0}})
    command = await waiting
    assert (command["status"], command["result"]) == ("succeeded", {"uptime": 0})


async def test_a_refused_message_is_on_the_devices_page(site: Site, admin: str, link: MemoryLink) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    device = link.device("pump-7")
    device.connect()
    assert (await device.publish("telemetry", b"{not json")).code.is_error
    (letter,) = (await got(site, admin, "devices/pump-7/dead-letters"))["items"]
    assert (letter["kind"], letter["data"]["reason"]) == ("message_refused", "invalid_json")
    assert letter["data"]["payload"] == "{not json"
    kinds = {entry["kind"] for entry in (await got(site, admin, "devices/pump-7/timeline"))["items"]}
    assert {"message_refused", "change"} <= kinds


async def test_a_profile_says_what_may_be_asked_of_its_devices(site: Site, admin: str, link: MemoryLink) -> None:
    headers = {"Authorization": f"Bearer {admin}"}

    async def ask(method: str, path: str, body: Any = None) -> Any:
        return await site.ask(method, f"/api/v1/{path}", role=None, headers=headers, json=body)

    minutes = {"properties": {"minutes": {"type": "integer"}}}
    rules = {"commands": {"rest": {"params": minutes}}, "unknown_commands": "refuse", "delivery": "sequential"}
    profile = {"name": "pump", **rules, "twin": {"desired": {"properties": {"speed": {"maximum": 9}}}}}
    assert (await ask("POST", "profiles", profile)).status == 201
    assert (await ask("POST", "devices", {"id": "pump-7", "profile": "pump"})).status == 201
    wrong = await ask("POST", "devices/pump-7/commands", {"name": "rest", "params": {"minutes": "two"}})
    assert (wrong.status, wrong.json["errors"][0]["field"]) == (422, "params/minutes")
    assert (await ask("POST", "devices/pump-7/commands", {"name": "rust"})).status == 422
    wrong = await ask("PATCH", "devices/pump-7/twin", {"desired": {"speed": 10}})
    assert (wrong.status, wrong.json["errors"][0]["field"]) == (422, "desired/speed")
    queued = await ask("POST", "devices/pump-7/commands?wait=0.05", {"name": "rest", "params": {"minutes": 2}})
    assert (queued.status, queued.json["status"], queued.json["waiting_for"]) == (202, "queued", "device to connect")
    at = "2036-01-01T00:00:00+02:00"
    schedule = {"name": "s", "command": {"name": "rest"}, "target": {"ids": ["pump-7"]}, "at": at}
    made = await ask("POST", "schedules", schedule)
    assert (made.status, made.json["next_run"]) == (201, "2035-12-31T22:00:00.000Z")
    paused = await ask("PATCH", f"schedules/{made.json['id']}", {"paused": True})
    assert (paused.json["next_run"], paused.json["at"]) == (None, "2035-12-31T22:00:00.000Z")
    template = {"name": "t", "desired": {"speed": 3}, "target": {"ids": ["pump-7"]}}
    made = await ask("POST", "twin-templates", template)
    assert (made.status, made.json["counts"]["owed"]) == (201, 1)
    assert (await ask("GET", f"twin-templates/{made.json['id']}/compliance")).json["items"][0]["device"] == "pump-7"
    assert (await ask("GET", "devices/pump-7/twin/history")).status == 200

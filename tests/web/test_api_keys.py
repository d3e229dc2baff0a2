"""API keys over the API, on live views and from the command line, against the real server."""

import asyncio
import os
import sys
from pathlib import Path

from tests.web.conftest import Site
from tests.web.test_live import close_code, connected, subscribe
from tests.web.test_with_fleet import PASSWORD, admin, got, link, login, made, site
from web import live_client

__all__ = ["admin", "link", "site"]  # fixtures


async def test_a_program_works_with_a_key_until_it_is_revoked(site: Site, admin: str) -> None:
    answer = await made(site, admin, "api-keys", {"name": "ci", "role": "operator"})
    key, key_id = answer["key"], answer["id"]
    await made(site, key, "devices", {"id": "pump-7"})
    [entry] = (await got(site, admin, "audit?action=device.create"))["items"]
    assert entry["actor"]["id"] == "alice/ci"
    assert len((await got(site, admin, "audit?actor=alice&action=device."))["items"]) == 1
    assert (await site.ask("GET", "/api/v1/users", role=key)).status == 403
    refused = await site.ask("POST", "/api/v1/api-keys", role=key, json={"name": "more", "role": "viewer"})
    assert (refused.status, "sign in" in refused.json["detail"]) == (403, True)
    [seen] = (await got(site, admin, "api-keys"))["items"]
    assert seen["last_used_at"] is not None
    assert "key" not in seen
    async with connected(site, token=key) as socket:
        await subscribe(socket, "overview")
        assert (await site.ask("DELETE", f"/api/v1/api-keys/{key_id}", role=admin)).status == 204
        assert await close_code(socket) == live_client.UNAUTHORIZED
    assert (await site.ask("GET", "/api/v1/devices", role=key)).status == 401


async def test_a_viewer_has_keys_of_their_own_and_sees_no_others(site: Site, admin: str) -> None:
    await made(site, admin, "api-keys", {"name": "ci", "role": "admin"})
    await made(site, admin, "users", {"username": "bob", "password": PASSWORD, "role": "viewer"})
    bob = await login(site, "bob")
    await made(site, bob, "api-keys", {"name": "mine", "role": "viewer", "expires_at": "2100-01-01T00:00:00Z"})
    answer = await site.ask("POST", "/api/v1/api-keys", role=bob, json={"name": "more", "role": "operator"})
    assert answer.status == 403
    assert [key["name"] for key in (await got(site, bob, "api-keys"))["items"]] == ["mine"]
    assert (await site.ask("GET", "/api/v1/api-keys?all=true", role=bob)).status == 403
    everybodys = (await got(site, admin, "api-keys?all=true"))["items"]
    assert sorted(key["name"] for key in everybodys) == ["ci", "mine"]
    [alices] = [key["id"] for key in everybodys if key["name"] == "ci"]
    for method in ("GET", "DELETE"):
        assert (await site.ask(method, f"/api/v1/api-keys/{alices}", role=bob)).status == 404


async def test_the_command_line_makes_lists_and_revokes_keys(site: Site, admin: str, tmp_path: Path) -> None:
    async def mooring(token: str, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mooring", *arguments, "--url", site.url, "--token", token),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "COLUMNS": "160"},
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode().strip()

    key = await mooring(admin, "api-key", "add", "nightly report", "--role", "admin")
    assert "nightly report" in await mooring(key, "api-key", "list", "--all")
    [seen] = (await got(site, admin, "api-keys"))["items"]
    assert seen["expires_at"] is not None
    await mooring(key, "api-key", "revoke", seen["id"])
    assert (await site.ask("GET", "/api/v1/devices", role=key)).status == 401

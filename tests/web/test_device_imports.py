"""Devices out of a file over HTTP, with the real fleet: what came of them, their tokens once, and a file of them."""

import asyncio
import gzip
from typing import Any

import pytest

from tests.web.conftest import Site
from tests.web.test_with_fleet import admin, got, link, made, site

__all__ = ["admin", "link", "site"]  # fixtures

URL = "/api/v1/devices:import"
CSV = {"Content-Type": "text/csv"}
FILE = b"id,name,tags,attributes.floor\na,=1+1,x;y,3\nb,,,\n"


async def imported(site: Site, token: str, data: bytes, query: str = "", headers: dict[str, str] = CSV) -> Any:
    answer = await site.ask("POST", URL + query, role=token, data=data, headers=headers)
    assert answer.status == 202, answer.json
    found = answer.json
    async with asyncio.timeout(60):
        while found["status"] == "running":  # the other side of a socket
            found = await got(site, token, f"device-imports/{found['id']}")
    return found


async def test_a_file_is_tried_imported_handed_out_and_undone(site: Site, admin: str) -> None:
    tried = await imported(site, admin, FILE, "?dry_run=true")
    assert (tried["counts"]["created"], tried["total"]) == (2, 2)
    done = await imported(site, admin, gzip.compress(FILE))
    assert done["counts"]["created"] == 2
    path = f"/api/v1/device-imports/{done['id']}"
    answer = await site.ask("POST", f"{path}/credentials", role=admin)
    header, *lines = answer.body.decode().splitlines()
    assert (header, [line.partition(",")[0] for line in lines]) == ("id,token", ["a", "b"])
    assert answer.headers["Cache-Control"] == "no-store"
    for line in lines:
        assert await site.fleet.devices.authenticate(*line.split(","))  # type: ignore[attr-defined]
    assert (await site.ask("POST", f"{path}/credentials", role=admin)).body == b"id,token\r\n"
    again = await imported(site, admin, FILE)
    rows = await got(site, admin, f"device-imports/{again['id']}/rows?outcome=refused&limit=1")
    assert (rows["total"], rows["items"][0]["line"], rows["items"][0]["column"]) == (2, 2, "id")
    export = (await site.ask("GET", "/api/v1/devices:export", role=admin)).body
    assert export.splitlines()[1] == b"a,'=1+1,,x;y,3"
    same = await imported(site, admin, export, "?on_conflict=update")
    assert same["counts"]["unchanged"] == 2
    await made(site, admin, f"device-imports/{done['id']}/undo")
    async with asyncio.timeout(60):
        while (found := await got(site, admin, f"device-imports/{done['id']}"))["status"] == "undoing":
            pass
    assert (found["counts"]["deleted"], (await got(site, admin, "devices"))["total"]) == (2, 0)
    assert (await site.ask("POST", f"{path}/cancel", role=admin)).status == 409


@pytest.mark.parametrize(
    ("data", "headers", "status", "field"),
    [
        (b"id\na\n\xff\n", CSV, 422, "line 3"),
        (b"name\n", CSV, 422, "line 1"),
        (b'[{"id": "a"}', {"Content-Type": "application/json"}, 422, "line 1"),
        (b"id\na\n", {"Content-Type": "application/xml"}, 415, None),
        (gzip.compress(b" " * (16 << 20), 9), {"Content-Type": "application/json"}, 413, None),
        (gzip.compress(FILE)[:-9], CSV, 400, None),
    ],
    ids=["encoding", "header", "array", "media", "bomb", "broken off"],
)
async def test_what_is_no_file_of_devices_is_refused_and_leaves_nothing(
    site: Site,
    admin: str,
    data: bytes,
    headers: dict[str, str],
    status: int,
    field: str | None,
) -> None:
    answer = await site.ask("POST", URL, role=admin, data=data, headers=headers)
    assert answer.status == status, answer.json
    if field is not None:
        assert answer.json["errors"][0]["field"] == field
    assert (await got(site, admin, "devices"))["total"] == 0
    ok = await imported(site, admin, b'{"id": "a"}\n{"id": "b"}\n', headers={"Content-Type": "application/jsonl"})
    assert ok["counts"]["created"] == 2

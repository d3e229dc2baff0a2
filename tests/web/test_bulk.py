"""Bulk work over the API, with the real fleet."""

import asyncio
from typing import Any

import pytest

from tests.web.conftest import Site
from tests.web.test_with_fleet import admin, link, site

__all__ = ["admin", "link", "site"]


async def test_all_that_match_are_acted_on(site: Site, admin: str) -> None:
    async def ask(method: str, path: str, **options: Any) -> Any:
        return await site.ask(method, f"/api/v1/{path}", role=admin, **options)

    for id_ in ("a", "b", "c"):
        await ask("POST", "devices", json={"id": id_})
    wanted = {"query": "id in (a, b)", "action": {"type": "tag", "tags": ["x"]}}
    dry = await ask("POST", "devices:bulk", json={**wanted, "dry_run": True})
    assert dry.json == {"total": 2, "sample": ["a", "b"], "job": None}
    begun = (await ask("POST", "devices:bulk", json=wanted)).json
    assert begun["total"] == 2
    where = f"bulk-jobs/{begun['job']['id']}"
    job = begun["job"]
    for _ in range(3_000):
        if (job := (await ask("GET", where)).json)["status"] == "finished":
            break
        await asyncio.sleep(0.01)
    assert job["counts"]["succeeded"] == job["total"] == 2
    assert job["action"] == wanted["action"]
    results = (await ask("GET", f"{where}/results?status=succeeded")).json
    assert [each["device"] for each in results["items"]] == ["a", "b"]
    assert (await ask("GET", "devices?tag=x")).json["total"] == 2
    assert (await ask("POST", f"{where}/cancel")).status == 409
    assert (await ask("GET", "bulk-jobs")).json["items"] == [job]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"action": {"type": "delete"}}, "query"),
        ({"query": "id = a", "ids": ["a"], "action": {"type": "delete"}}, "query"),
        ({"query": "id", "action": {"type": "delete"}}, "query"),
        ({"ids": ["a"], "action": {"type": "explode"}}, "action"),
        ({"ids": ["a"], "action": {"type": "tag"}}, "action.tag.tags"),
        ({"ids": ["a"], "action": {"type": "delete", "tags": ["x"]}}, "action.delete.tags"),
        ({"ids": [], "action": {"type": "delete"}}, "ids"),
    ],
)
async def test_what_is_no_bulk_work_is_refused(site: Site, admin: str, body: dict[str, Any], field: str) -> None:
    answer = await site.ask("POST", "/api/v1/devices:bulk", role=admin, json=body)
    assert answer.status == 422
    assert answer.json["errors"][0]["field"] == field

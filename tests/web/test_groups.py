"""Groups over the API, with the real fleet."""

from typing import Any

from tests.web.conftest import Site
from tests.web.test_with_fleet import admin, link, site

__all__ = ["admin", "link", "site"]


async def test_a_group_is_made_filled_asked_and_deleted(site: Site, admin: str) -> None:
    async def ask(method: str, path: str, **options: Any) -> Any:
        return await site.ask(method, f"/api/v1/{path}", role=admin, **options)

    for id_ in ("a", "b"):
        await ask("POST", "devices", json={"id": id_, "tags": ["site=A"] if id_ == "a" else []})
    made = await ask("POST", "groups", json={"name": "north"})
    assert (made.status, made.headers["ETag"], made.json["type"]) == (201, '"v1"', "static")
    top = made.json["id"]
    below = await ask("POST", "groups", json={"name": "site A", "query": "tags.site = A", "parent": top})
    assert below.json["type"] == "dynamic"
    assert (await ask("POST", f"groups/{top}/devices", json={"devices": ["b"]})).json == {"added": 1}
    page = (await ask("GET", f"groups/{top}/devices?limit=1")).json
    assert ([each["id"] for each in page["items"]], page["total"]) == (["a"], 2)
    rest = (await ask("GET", f"groups/{top}/devices?limit=1&cursor={page['next_cursor']}")).json
    assert [each["id"] for each in rest["items"]] == ["b"]
    found = (await ask("GET", "devices", params={"group": top, "query": "not has tag"})).json
    assert [each["id"] for each in found["items"]] == ["b"]
    assert set((await ask("GET", "telemetry", params={"group": top})).json["devices"]) == {"a", "b"}
    stale = await ask("PATCH", f"groups/{top}", json={"name": "x"}, headers={"If-Match": '"v7"'})
    assert (stale.status, stale.headers["ETag"]) == (412, '"v1"')
    assert (await ask("DELETE", f"groups/{top}/devices/b")).status == 204
    assert (await ask("DELETE", f"groups/{top}")).status == 409
    for id_ in (below.json["id"], top):
        assert (await ask("DELETE", f"groups/{id_}")).status == 204
    assert (await ask("GET", "devices")).json["total"] == 2


async def test_a_wrong_query_is_a_422_with_its_column(site: Site, admin: str) -> None:
    answer = await site.ask("GET", "/api/v1/devices", role=admin, params={"query": "status = offlin"})
    assert answer.status == 422
    assert answer.json["errors"][0]["field"] == "query"
    assert "column 10" in answer.json["errors"][0]["detail"]
    assert (await site.ask("GET", "/api/v1/devices?group=none", role=admin)).status == 404

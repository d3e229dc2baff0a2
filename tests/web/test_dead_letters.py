"""Dead letters in the API, over the real gateway: found, shown whole, forgotten, tried again."""

import asyncio
import time
from typing import Any

import pytest

from broker.reason import ReasonCode
from gateway.link import Outcome, Uplink
from tests.web.conftest import Site
from tests.web.test_with_fleet import admin, got, link, login, made, site
from web.schemas.dead_letters import ReplayCreate

__all__ = ["admin", "link", "site"]  # fixtures

PATH = "/api/v1/dead-letters"
AT_MS = 1_763_000_000_000


def refuse(site: Site, device_id: str = "pump-7", payload: bytes = b"nonsense", **options: Any) -> int:
    """A message refused earlier; returns the letter's id."""
    reason, at_ms = options.get("reason", "invalid_json"), options.get("at_ms", AT_MS)
    site.gateway.dead_letters._now_ms = lambda: AT_MS  # so that it is not too old
    uplink = Uplink(device_id, options.get("channel", "telemetry"), payload, at_ms, link="http")
    return site.gateway.dead_letters.add(uplink, reason=reason, detail="why").id


async def ended(site: Site, token: str, job: dict[str, Any]) -> dict[str, Any]:
    while job["state"] == "running":
        await asyncio.sleep(0.01)
        job = await got(site, token, f"dead-letters/replays/{job['id']}")
    return job


async def audited(site: Site, token: str) -> list[tuple[str, str, Any, Any]]:
    found = await got(site, token, "audit?action=dead_letter.")
    return [(e["action"], e["target"]["id"], e["before"], e["after"]) for e in found["items"]]


async def test_letters_are_found_page_by_page_and_counted_by_reason(site: Site, admin: str) -> None:
    ids = [
        refuse(site, f"pump-{n % 2}", at_ms=AT_MS + n, reason="too_deep" if n > 2 else "invalid_json") for n in range(5)
    ]
    page = await got(site, admin, "dead-letters?limit=3")
    assert [item["id"] for item in page["items"]] == ids[:1:-1]
    assert (page["total"], page["reasons"]) == (5, {"invalid_json": 3, "too_deep": 2})
    rest = await got(site, admin, f"dead-letters?limit=3&cursor={page['next_cursor']}")
    assert [item["id"] for item in rest["items"]] == ids[1::-1]
    assert rest["next_cursor"] is None
    cases = [
        ("device=pump-0", [4, 2, 0]),
        ("reason=too_deep&device=pump-1", [3]),
        ("since=2025-11-13T02:13:20.003Z", [4, 3]),
        ("since=2025-11-13T02:13:20.001Z&until=2025-11-13T02:13:20.003Z", [2, 1]),
        ("since=2025-11-13T03:13:20.003%2B01:00", [4, 3]),
        ("device=nobody", []),
    ]
    for query, wanted in cases:
        page = await got(site, admin, f"dead-letters?{query}")
        assert [item["id"] for item in page["items"]] == [ids[n] for n in wanted], query


async def test_one_is_shown_whole_and_lists_show_its_beginning(site: Site, admin: str) -> None:
    letter_id = refuse(site, payload=b"x" * 60_000)
    (item,) = (await got(site, admin, "dead-letters"))["items"]
    assert len(item["payload"]) == 4096
    found = await got(site, admin, f"dead-letters/{letter_id}")
    assert found == {**item, "payload": "x" * 60_000}
    assert (found["received_at"], found["link"], found["replays"]) == ("2025-11-13T02:13:20.000Z", "http", 0)
    assert found["replayable"] is True
    cut_id = refuse(site, payload=b"\x00" * 70_000)
    found = await got(site, admin, f"dead-letters/{cut_id}")
    assert (found["encoding"], found["size"], found["replayable"]) == ("base64", 70_000, False)


async def test_letters_are_forgotten_by_id_and_by_condition_and_that_is_audited(site: Site, admin: str) -> None:
    first, *_ = (refuse(site, f"pump-{n}") for n in range(4))
    assert (await site.ask("DELETE", f"{PATH}/{first}", role=admin)).status == 204
    assert (await site.ask("DELETE", f"{PATH}/{first}", role=admin)).status == 404
    assert (await site.ask("GET", f"{PATH}/{first}", role=admin)).status == 404
    assert (await site.ask("DELETE", PATH, role=admin)).status == 422  # not everything by mistake
    answer = await site.ask("DELETE", f"{PATH}?device=pump-2", role=admin)
    assert answer.json == {"deleted": 1}
    assert (await site.ask("DELETE", f"{PATH}?until=2100-01-01T00:00:00Z", role=admin)).json == {"deleted": 2}
    assert await audited(site, admin) == [
        ("dead_letter.delete", "", {"until": "2100-01-01T00:00:00Z", "deleted": 2}, None),
        ("dead_letter.delete", "", {"device": "pump-2", "deleted": 1}, None),
        ("dead_letter.delete", str(first), None, None),
    ]


async def test_letters_are_tried_again(site: Site, admin: str) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    came_ms = time.time_ns() // 1_000_000 - 60_000
    fit = refuse(site, payload=b'{"pressure": 4.2}', reason="too_many_metrics", at_ms=came_ms)
    refuse(site)
    refuse(site, payload=b" " * 70_000)
    answer = await site.ask("POST", f"{PATH}:replay", role=admin, json={"ids": [fit]})
    assert answer.status == 202
    job = await ended(site, admin, answer.json)
    assert {**job, "id": ""} == {
        "id": "",
        "state": "done",
        "total": 1,
        "taken": 1,
        "refused": 0,
        "skipped": 0,
        "detail": "",
    }
    latest = (await got(site, admin, "devices/pump-7/latest"))["pressure"]
    assert (latest["value"], latest["ts"]) == (4.2, came_ms)
    assert (
        'mooring_dead_letters{reason="invalid_json"} 2.0'
        in (await site.ask("GET", "/metrics", role=None)).body.decode()
    )
    assert (await got(site, admin, "overview"))["dead_letters"]["total"] == 2
    answer = await site.ask("POST", f"{PATH}:replay", role=admin, json={"filter": {"device": "pump-7"}})
    job = await ended(site, admin, answer.json)
    assert (job["total"], job["taken"], job["refused"], job["skipped"]) == (2, 0, 1, 1)
    page = await got(site, admin, "dead-letters")
    assert [item["replays"] for item in page["items"]] == [0, 1]
    assert [entry[3] for entry in await audited(site, admin)] == [
        {"device": "pump-7", "total": 2},
        {"ids": 1, "total": 1},
    ]


async def test_a_second_replay_waits_for_the_first(site: Site, admin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    refuse(site, channel="events")
    gate = asyncio.Event()

    async def handle(uplink: Uplink) -> Outcome:
        await gate.wait()
        return Outcome(code=ReasonCode.PAYLOAD_FORMAT_INVALID, reason="invalid_json")

    monkeypatch.setattr(site.fleet.inbox, "handle", handle)  # type: ignore[attr-defined]
    answer = await site.ask("POST", f"{PATH}:replay", role=admin, json={"filter": {}})
    assert (answer.status, answer.json["state"]) == (202, "running")
    assert (await site.ask("POST", f"{PATH}:replay", role=admin, json={"filter": {}})).status == 409
    gate.set()
    assert (await ended(site, admin, answer.json))["refused"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{PATH}?cursor=x", None),
        ("GET", f"{PATH}?cursor=9999999999999999999", None),
        ("GET", f"{PATH}?since=yesterday", None),
        ("GET", f"{PATH}?since=2025-11-13T02:13:20", None),
        ("GET", f"{PATH}?reason=%27%3B--", None),
        ("GET", f"{PATH}?device=a%20b", None),
        ("GET", f"{PATH}/0", None),
        ("GET", f"{PATH}/{1 << 63}", None),
        ("DELETE", f"{PATH}?limit=5", None),
        ("POST", f"{PATH}:replay", {}),
        ("POST", f"{PATH}:replay", {"ids": []}),
        ("POST", f"{PATH}:replay", {"ids": ["x"]}),
        ("POST", f"{PATH}:replay", {"ids": [1], "filter": {}}),
        ("POST", f"{PATH}:replay", {"filter": {"devise": "pump-7"}}),
    ],
)
async def test_what_cannot_be_meant_is_refused(site: Site, admin: str, method: str, path: str, body: Any) -> None:
    assert (await site.ask(method, path, role=admin, json=body)).status == 422


async def test_viewers_look_and_operators_act(site: Site, admin: str) -> None:
    for role in ("viewer", "operator"):
        body = {"username": role, "password": "a long enough password", "role": role}
        await made(site, admin, "users", body)
    viewer, operator = await login(site, "viewer"), await login(site, "operator")
    letter_id = refuse(site)
    assert (await got(site, viewer, "dead-letters"))["total"] == 1
    for method, path in (("DELETE", f"{PATH}/{letter_id}"), ("DELETE", f"{PATH}?device=a"), ("POST", f"{PATH}:replay")):
        assert (await site.ask(method, path, role=viewer, json=None)).status == 403, path
    assert (await site.ask("DELETE", f"{PATH}/{letter_id}", role=operator)).status == 204


def test_a_replay_names_ids_or_a_filter() -> None:
    assert ReplayCreate.model_validate({"ids": [7]}).ids == [7]

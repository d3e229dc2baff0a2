"""Profiles through the API: documents in and out, what is wrong with them by path, payloads tried."""

from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from tests.web.conftest import Site

BASE = "/api/v1/profiles"
TELEMETRY = {
    "metrics": {"temperature": {"type": "number", "unit": "Cel", "max": 100}},
    "mapping": [{"from": "/data/t", "metric": "temperature", "scale": 0.1}],
    "schema": {"type": "object", "properties": {"v": {"const": 1}}},
    "binary": {"fields": [{"type": "i16", "metric": "temperature", "scale": 0.01}]},
}


async def test_what_was_written_comes_back_and_goes_in_again(site: Site) -> None:
    made = await site.ask("POST", BASE, json={"name": "tank", "telemetry": TELEMETRY})
    assert (made.status, made.headers["ETag"]) == (201, '"v1"')
    assert made.json["telemetry"]["mapping"][0]["from"] == "/data/t"
    assert made.json["telemetry"]["schema"] == TELEMETRY["schema"]
    read = (await site.ask("GET", f"{BASE}/tank")).json
    assert read == made.json
    listed = (await site.ask("GET", BASE)).json
    assert listed["items"][-1] == read
    document = {key: read[key] for key in ("name", "description", "retention_days", "expected_interval_s", "telemetry")}
    again = await site.ask("PUT", f"{BASE}/tank", json=document, headers={"If-Match": '"v1"'})
    assert (again.status, again.headers["ETag"]) == (200, '"v2"')
    assert again.json["telemetry"] == read["telemetry"]


async def test_one_that_a_newer_server_wrote_is_listed_as_such_and_not_tried(site: Site) -> None:
    profiles = site.fleet.profiles.by_name
    profiles["pump"] = replace(profiles["pump"], is_readable=False)
    (listed,) = (await site.ask("GET", BASE)).json["items"]
    assert (listed["name"], listed["readable"]) == ("pump", False)
    tried = await site.ask("POST", f"{BASE}/pump/test", json={"payload": "{}"})
    assert (tried.status, "newer" in tried.json["detail"]) == (409, True)


async def test_a_change_of_what_was_changed_meanwhile_is_refused(site: Site) -> None:
    for etag in ('"v9"', "v1"):
        assert (await site.ask("PUT", f"{BASE}/pump", json={}, headers={"If-Match": etag})).status == 412
    renamed = await site.ask("PUT", f"{BASE}/pump", json={"name": "tank"})
    assert (renamed.status, renamed.json["errors"][0]["field"]) == (422, "name")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"retention_days": 0}, "retention_days"),
        ({"telemetry": {"metrics": {"t": {"type": "color"}}}}, "telemetry.metrics.t.type"),
        ({"telemetry": {"mapping": [{"from": "x", "metric": "x"}]}}, "telemetry.mapping.0.from"),
        ({"telemetry": {"schema": {"type": "nope"}}}, "telemetry.schema"),
        ({"telemetry": {"binary": {"fields": [{"type": "u8", "const": 300}]}}}, "telemetry.binary.fields.0"),
    ],
)
async def test_what_is_wrong_is_said_with_its_path(site: Site, document: dict[str, Any], field: str) -> None:
    answer = await site.ask("POST", BASE, json={"name": "tank", **document})
    assert answer.status == 422
    assert any(error["field"].startswith(field) for error in answer.json["errors"]), answer.json


@pytest.mark.parametrize(
    ("test", "readings", "refusal"),
    [
        ({"payload": '{"data": {"t": 215}}'}, [("temperature", 21.5, "Cel")], None),
        (
            {"payload": b64encode(b"\x08\x69").decode(), "encoding": "base64", "channel": "telemetry/binary"},
            [("temperature", 21.53, "Cel")],
            None,
        ),
        ({"payload": "xx", "content_type": "application/octet-stream"}, [], None),
        ({"payload": '{"v": 2}'}, [], "schema_violation"),
        ({"payload": "{}"}, [], "mapping_failed"),
        ({"payload": "x", "channel": "telemetry/binary"}, [], "binary_mismatch"),
        ({"payload": "{"}, [], "invalid_json"),
    ],
)
async def test_a_draft_is_tried_on_a_payload(
    site: Site, test: dict[str, Any], readings: list[tuple[str, float, str]], refusal: str | None
) -> None:
    answer = await site.ask("POST", f"{BASE}:test", json={"profile": {"telemetry": TELEMETRY}, **test})
    assert answer.status == 200, answer.json
    found = [(one["metric"], one["value"], one["unit"]) for one in answer.json["readings"]]
    assert found == readings
    assert (answer.json["refusal"] or {}).get("reason") == refusal
    if test.get("content_type"):
        assert answer.json["refused"][0]["reason"] == "out_of_range"


async def test_a_kept_profile_is_tried_too(site: Site) -> None:
    answer = await site.ask("POST", f"{BASE}/pump/test", json={"payload": '{"a": 1}'})
    assert [one["metric"] for one in answer.json["readings"]] == ["a"]
    assert (await site.ask("POST", f"{BASE}/tank/test", json={"payload": ""})).status == 404
    bad = await site.ask("POST", f"{BASE}/pump/test", json={"payload": "?", "encoding": "base64"})
    assert (bad.status, bad.json["errors"][0]["field"]) == (422, "payload")


async def test_a_device_has_a_retention_of_its_own(site: Site) -> None:
    answer = await site.ask("PATCH", "/api/v1/devices/pump-7", json={"retention_days": 30})
    assert answer.json["retention_days"] == 30
    assert (await site.ask("PATCH", "/api/v1/devices/pump-7", json={"retention_days": -1})).status == 422

"""Devices, twins, telemetry and commands through the API."""

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.readings import Value
from gateway.store import Aggregate, StoreUnavailable
from tests.web.conftest import Site

BASE = "/api/v1/devices"


async def test_a_new_device_comes_with_its_token(site: Site) -> None:
    body = {"id": "pump-8", "name": "Pump", "tags": ["north"], "attributes": {"site": "A"}}
    answer = await site.ask("POST", BASE, json=body)
    assert answer.status == 201
    assert answer.json["credentials"] == {"type": "token", "token": "token-of-pump-8"}
    assert answer.json["status"] == "never_seen"
    assert answer.json["created_at"] == "2026-11-20T12:00:00.000Z"
    assert "credentials" not in (await site.ask("GET", f"{BASE}/pump-8")).json
    again = await site.ask("POST", BASE, json=body)
    assert (again.status, again.json["detail"]) == (409, "device 'pump-8' exists already")


@pytest.mark.parametrize("bad", ["", "a/b", "a+b", "#", "ü", "x" * 65, "a b", None, 7])
async def test_ids_that_no_topic_can_have_are_refused(site: Site, bad: object) -> None:
    answer = await site.ask("POST", BASE, json={"id": bad})
    assert answer.status == 422
    assert answer.json["errors"][0]["field"] == "id"


async def test_read_only_properties_cannot_be_set(site: Site) -> None:
    for body in ({"status": "online"}, {"id": "other"}, {"created_at": "2020-01-01T00:00:00Z"}, {"firmware": "9"}):
        answer = await site.ask("PATCH", f"{BASE}/pump-7", json=body)
        assert answer.status == 422
        assert answer.json["errors"] == [{"field": next(iter(body)), "detail": "is not known here"}]


async def test_lists_go_on_at_their_cursor(site: Site) -> None:
    for number in range(5):
        await site.ask("POST", BASE, json={"id": f"tank-{number}"})
    first = (await site.ask("GET", f"{BASE}?limit=4&q=tank")).json
    assert [device["id"] for device in first["items"]] == ["tank-0", "tank-1", "tank-2", "tank-3"]
    rest = (await site.ask("GET", f"{BASE}?limit=4&q=tank&cursor={first['next_cursor']}")).json
    assert [device["id"] for device in rest["items"]] == ["tank-4"]
    assert rest["next_cursor"] is None
    assert first["total"] == 6
    for query in ("cursor=nonsense", "limit=0", "limit=501", "sort=age", "status=broken", "colour=red"):
        assert (await site.ask("GET", f"{BASE}?{query}")).status == 422, query


async def test_a_list_of_one_firmware_version(site: Site) -> None:
    pump = site.fleet.devices.by_id["pump-7"]
    site.fleet.devices.by_id["pump-7"] = replace(pump, firmware="1.0.0+a&b")
    await site.ask("POST", BASE, json={"id": "pump-8"})
    found = await site.ask("GET", BASE, params={"firmware": "1.0.0+a&b"})
    assert [device["id"] for device in found.json["items"]] == ["pump-7"]
    assert (await site.ask("GET", BASE, params={"firmware": "1.0.0"})).json["items"] == []
    assert (await site.ask("GET", BASE, params={"firmware": "1\n"})).status == 422


async def test_an_empty_name_is_allowed_for_a_change_only(site: Site) -> None:
    assert (await site.ask("PATCH", f"{BASE}/pump-7", json={"name": ""})).status == 200
    assert (await site.ask("PATCH", f"{BASE}/pump-7", json={"name": "a\nb"})).status == 422
    assert (await site.ask("POST", BASE, json={"id": "pump-9", "name": ""})).status == 422


async def test_credentials_are_two_at_most(site: Site) -> None:
    where = f"{BASE}/pump-7/credentials"
    added = await site.ask("POST", where)
    assert (added.status, added.json["token"]) == (201, "secret")
    assert (await site.ask("POST", where)).status == 409
    assert "token" not in (await site.ask("GET", where)).json["items"][0]
    assert (await site.ask("DELETE", f"{where}/{added.json['id']}")).status == 204
    assert (await site.ask("DELETE", f"{where}/nothing")).status == 404


async def test_a_twin_changes_only_from_the_version_that_was_read(site: Site) -> None:
    where = f"{BASE}/pump-7/twin"
    read = await site.ask("GET", where)
    assert read.headers["ETag"] == '"v1"'
    tag = {"If-Match": read.headers["ETag"]}
    changed = await site.ask("PATCH", where, json={"desired": {"interval": 5}}, headers=tag)
    assert (changed.status, changed.headers["ETag"], changed.json["desired"]) == (200, '"v2"', {"interval": 5})
    stale = await site.ask("PATCH", where, json={"desired": {"interval": 9}}, headers=tag)
    assert (stale.status, stale.headers["ETag"]) == (412, '"v2"')
    assert (await site.ask("PATCH", where, json={"desired": {}}, headers={"If-Match": "junk"})).status == 412
    assert (await site.ask("PATCH", where, json={"desired": {}}, headers={"If-Match": "*"})).status == 200
    assert (await site.ask("PATCH", where, json={"desired": {}})).status == 200
    assert (await site.ask("PATCH", where, json={"interval": 5})).status == 422


async def test_telemetry_takes_ms_and_rfc_3339(site: Site) -> None:
    site.gateway.history.values = {"temperature": (1_700_000_000_000, 21.5), "door": (1_700_000_000_001, "open")}
    where = f"{BASE}/pump-7/telemetry"
    ms = await site.ask(
        "GET", f"{where}?metrics=temperature,door&start=1700000000000&end=1700003600000&buckets=60&agg=max"
    )
    assert ms.json["series"]["temperature"] == {"t": [1_700_000_000_000], "v": [21.5], "truncated": False}
    query = site.gateway.history.queries[-1]  # buckets of a minute are whole ones
    assert (query.start_ms, query.end_ms, query.buckets) == (1_699_999_980_000, 1_700_003_640_000, 61)
    assert (query.metrics, query.aggregate) == (("temperature", "door"), Aggregate.MAX)
    await site.ask("GET", f"{where}?start=2023-11-14T22:13:20Z&end=2023-11-15T01:13:20%2B02:00")
    query = site.gateway.history.queries[-1]
    assert (query.start_ms, query.end_ms) == (1_700_000_000_000, 1_700_003_600_000)


@pytest.mark.parametrize("aggregate", list(Aggregate))
async def test_telemetry_may_be_asked_for_in_every_aggregate(site: Site, aggregate: Aggregate) -> None:
    answer = await site.ask("GET", f"{BASE}/pump-7/telemetry?buckets=60&agg={aggregate}")
    assert answer.status == 200
    assert site.gateway.history.queries[-1].aggregate is aggregate


@pytest.mark.parametrize("value", [{"lat": 54.3, "lon": 10}, {}, [1, {"a": [None, True]}], {"value": 1}])
async def test_positions_and_json_are_given_as_they_are(site: Site, value: Value) -> None:
    site.gateway.history.values = {"m": (1_700_000_000_000, value)}
    series = await site.ask("GET", f"{BASE}/pump-7/telemetry?start=1700000000000&end=1700003600000")
    assert series.json["series"]["m"]["v"] == [value]
    assert (await site.ask("GET", f"{BASE}/pump-7/latest")).json["m"]["value"] == value


async def test_raw_readings_beyond_what_was_asked_for_are_cut_and_said_so(site: Site) -> None:
    site.gateway.history.values = {"m": (1_700_000_000_000, 1)}
    where = f"{BASE}/pump-7/telemetry?start=1700000000000&end=1700003600000&max_points=1"
    assert (await site.ask("GET", where)).json["series"]["m"] == {
        "t": [1_700_000_000_000],
        "v": [1],
        "truncated": False,
    }
    assert site.gateway.history.queries[-1].limit == 2


async def test_empty_buckets_may_be_asked_for(site: Site) -> None:
    site.gateway.history.values = {"m": (1_700_000_000_010, 1)}
    series = await site.ask("GET", f"{BASE}/pump-7/telemetry?start=1700000000000&end=1700000000030&buckets=3&fill=null")
    assert series.json["series"]["m"]["t"] == [1_700_000_000_000, 1_700_000_000_010, 1_700_000_000_020]
    assert series.json["series"]["m"]["v"] == [None, 1, None]


async def test_several_devices_are_asked_for_by_id_and_tag(site: Site) -> None:
    site.gateway.history.values = {"m": (1_700_000_000_000, 1)}
    where = "/api/v1/telemetry?start=1700000000000&end=1700003600000"
    answer = await site.ask("GET", f"{where}&devices=pump-7,nobody,pump-7")
    assert list(answer.json["devices"]) == ["pump-7"]
    assert answer.json["devices"]["pump-7"]["series"]["m"]["v"] == [1]
    assert answer.json["missing"] == ["nobody"]
    tagged = await site.ask("GET", f"{where}&tag=hall-2")
    assert "pump-7" in tagged.json["devices"]
    assert (await site.ask("GET", where)).status == 422
    many = ",".join(f"d{n}" for n in range(51))
    assert (await site.ask("GET", f"{where}&devices={many}")).status == 422


async def test_telemetry_of_no_range_is_the_last_hour(site: Site) -> None:
    await site.ask("GET", f"{BASE}/pump-7/telemetry")
    query = site.gateway.history.queries[-1]
    assert query.end_ms - query.start_ms == 3_600_000
    assert abs(query.end_ms - time.time() * 1000) < 60_000
    assert (query.metrics, query.buckets) == ((), None)


@pytest.mark.parametrize(
    "query",
    [
        "start=yesterday",
        "start=2023-11-14T22:13:20",
        "start=-5",
        "start=2&end=1",
        "start=1&end=1",
        "start=1e3",
        "end=999999999999999999",
        "buckets=0",
        "buckets=2001",
        "agg=median",
        "metrics=" + ",".join(f"m{number}" for number in range(101)),
    ],
)
async def test_ranges_that_make_no_sense_are_refused(site: Site, query: str) -> None:
    assert (await site.ask("GET", f"{BASE}/pump-7/telemetry?{query}")).status == 422


async def test_a_store_that_is_away_is_503_with_a_time(site: Site) -> None:
    site.gateway.history.failure = StoreUnavailable("refused", retry_after_s=7)
    for where in ("telemetry", "latest"):
        answer = await site.ask("GET", f"{BASE}/pump-7/{where}")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")


async def test_latest_values_say_when_they_are_old(site: Site) -> None:
    now_ms = time.time_ns() // 1_000_000
    await site.ask("PUT", "/api/v1/profiles/pump", json={"telemetry": {"metrics": {"fresh": {"unit": "Cel"}}}})
    site.gateway.history.values = {"fresh": (now_ms, True), "old": (now_ms - 301_000, 1)}
    assert (await site.ask("GET", f"{BASE}/pump-7/latest")).json == {
        "fresh": {"ts": now_ms, "value": True, "stale": False, "unit": "Cel"},
        "old": {"ts": now_ms - 301_000, "value": 1, "stale": True, "unit": None},
    }


async def test_a_command_is_made_read_and_cancelled(site: Site) -> None:
    made = await site.ask("POST", f"{BASE}/pump-7/commands", json={"name": "reboot", "params": {"delay": 5}, "ttl": 60})
    assert (made.status, made.json["status"], made.json["created_by"]) == (201, "queued", "admin")
    assert made.json["expires_at"] == "2026-11-20T12:01:00.000Z"
    where = f"/api/v1/commands/{made.json['id']}"
    assert (await site.ask("GET", where)).json == made.json
    assert (await site.ask("GET", f"{BASE}/pump-7/commands")).json["items"] == [made.json]
    assert (await site.ask("POST", f"{where}/cancel")).json["status"] == "cancelled"
    for body in ({}, {"name": ""}, {"name": "a\nb"}, {"name": "x", "ttl": 0}, {"name": "x" * 129}):
        assert (await site.ask("POST", f"{BASE}/pump-7/commands", json=body)).status == 422


async def test_a_command_that_is_waited_for_answers_with_its_end(site: Site) -> None:
    waiting = asyncio.create_task(site.ask("POST", f"{BASE}/pump-7/commands?wait=10", json={"name": "reboot"}))
    await site.fleet.commands.created.wait()
    site.fleet.commands.finish("CMD0")
    answer = await waiting
    assert (answer.status, answer.json["status"], answer.json["result"]) == (201, "succeeded", {"ok": True})


async def test_waiting_ends_with_the_time_and_gives_what_is(site: Site) -> None:
    answer = await site.ask("POST", f"{BASE}/pump-7/commands?wait=0.05", json={"name": "reboot"})
    assert (answer.status, answer.json["status"], answer.json["waiting_for"]) == (202, "queued", "device to connect")
    assert (await site.ask("POST", f"{BASE}/pump-7/commands?wait=31", json={"name": "x"})).status == 422


async def test_the_same_key_sends_a_command_once(site: Site) -> None:
    headers = {"Idempotency-Key": "once"}
    for _ in range(3):
        await site.ask("POST", f"{BASE}/pump-7/commands", json={"name": "reboot"}, headers=headers)
    assert len(site.fleet.commands.by_id) == 1


async def test_the_timeline_can_be_narrowed_to_kinds(site: Site) -> None:
    entry = (await site.ask("GET", f"{BASE}/pump-7/timeline?kinds=command,update")).json["items"][0]
    assert (entry["device"], entry["level"], entry["at"]) == ("pump-7", "warning", "2026-11-20T12:00:00.000Z")
    assert site.fleet.timeline.asked_for == ("command", "update")
    await site.ask("GET", f"{BASE}/pump-7/dead-letters")
    assert site.fleet.timeline.asked_for == ("message_refused",)
    assert (await site.ask("GET", f"{BASE}/pump-7/timeline?kinds=gossip")).status == 422


async def test_a_device_says_how_far_its_clock_is_off(site: Site) -> None:
    path = "/api/v1/devices/pump-7"
    assert (await site.ask("GET", path)).json["clock_skew_ms"] is None
    site.gateway.clocks.saw("pump-7", 5_000, 95_000)
    assert (await site.ask("GET", path)).json["clock_skew_ms"] == -90_000
    assert (await site.ask("GET", "/api/v1/devices")).json["items"][0]["clock_skew_ms"] == -90_000


async def test_the_history_of_a_twin_says_who_wanted_what(site: Site) -> None:
    await site.ask("PATCH", f"{BASE}/pump-7/twin", json={"desired": {"speed": 3}})
    history = await site.ask("GET", f"{BASE}/pump-7/twin/history")
    change = {"version": 2, "at": "2026-11-20T12:00:00.000Z", "by": "anna", "patch": {"speed": 3}}
    assert (history.json["items"], history.json["total"]) == ([change], 1)


async def test_a_twin_template_is_made_and_says_who_is_as_it_asks(site: Site) -> None:
    body = {"name": "fast", "desired": {"interval": 5}, "target": {"tag": "north"}}
    made = await site.ask("POST", "/api/v1/twin-templates", json=body)
    assert (made.status, made.json["target"]["tag"], made.json["counts"]["owed"]) == (201, "north", 1)
    where = f"/api/v1/twin-templates/{made.json['id']}"
    assert (await site.ask("POST", f"{where}/apply")).json == made.json
    found = (await site.ask("GET", f"{where}/compliance?state=converged")).json["items"]
    since = "2026-11-20T12:00:00.000Z"
    assert found == [
        {"device": "pump-7", "state": "converged", "since": since, "delta": {"interval": 5}, "error": None}
    ]
    assert (await site.ask("GET", f"{where}/compliance?state=lost")).status == 422
    assert (await site.ask("DELETE", where)).status == 204


async def test_a_schedule_is_made_paused_and_deleted(site: Site) -> None:
    body = {"name": "night", "command": {"name": "reboot", "params": {"delay_s": 1}}, "target": {"ids": ["pump-7"]}}
    made = await site.ask("POST", "/api/v1/schedules", json={**body, "cron": "0 3 * * *", "time_zone": "Europe/Berlin"})
    assert (made.status, made.json["next_run"], made.json["target"]) == (
        201,
        "2026-11-20T12:00:00.000Z",
        body["target"],
    )
    where = f"/api/v1/schedules/{made.json['id']}"
    assert (await site.ask("PATCH", where, json={"paused": True})).json == {**made.json, "paused": True}
    assert (await site.ask("GET", f"{where}/runs")).json["items"][0]["command"] == "CMD0"
    assert (await site.ask("DELETE", where)).status == 204
    for wrong in ({"target": {"ids": []}}, {"target": {"query": "x"}}, {"at": "2026-11-20T12:00"}, {"next_run": None}):
        answer = await site.ask("POST", "/api/v1/schedules", json={**body, **wrong})
        assert answer.status == 422, wrong

"""The broker in the API and at /metrics: topics as a tree, how it does, one client dropped, engines that tell less."""

from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker import Broker, BrokerOptions, Publish
from tests.web import fakes
from tests.web.conftest import Site
from web.broker_figures import MEANINGS, FigureKind, prometheus_name
from web.parts import BrokerOperations

TOPICS = "/api/v1/broker/topics"


def set_broker(site: Site, broker: object) -> None:
    object.__setattr__(site.server._parts, "sessions", broker)


@pytest.fixture
async def native(site: Site, tmp_path: Path) -> AsyncIterator[Broker]:
    """The real engine in place of the fake one."""
    broker = Broker(BrokerOptions(port=0, persistence=tmp_path / "broker"))
    await broker.start()
    set_broker(site, broker)
    yield broker
    await broker.stop()


async def test_topics_are_given_a_level_at_a_time(site: Site) -> None:
    root = (await site.ask("GET", TOPICS, role="viewer")).json
    assert root["items"] == [
        {"level": "devices", "topic": "devices", "children": 2, "messages": 6, "retained": 1, "subscribers": None},
        {"level": "plant", "topic": "plant", "children": 0, "messages": 7, "retained": 0, "subscribers": 2},
    ]
    assert (root["total"], root["next_cursor"]) == (2, None)
    below = (await site.ask("GET", f"{TOPICS}?prefix=devices/pump-7/st")).json["items"]
    assert below == [
        {
            "level": "status",
            "topic": "devices/pump-7/status",
            "children": 0,
            "messages": 1,
            "retained": 1,
            "subscribers": 2,
        }
    ]


async def test_topics_come_in_pages(site: Site) -> None:
    assert isinstance(site.sessions, fakes.Broker)
    site.sessions.topics += [fakes.Topic("/x", 1), fakes.Topic("é/" + "y" * 2000, 1), fakes.Topic("z" * 4000 + "/y", 1)]
    levels, cursor = [], ""
    while True:
        page = (await site.ask("GET", f"{TOPICS}?limit=1{cursor}")).json
        levels += [item["level"] for item in page["items"]]
        assert page["total"] == 5
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert levels == ["", "devices", "plant", "z" * 4000, "é"]


@pytest.mark.parametrize("query", ["cursor=%21", "cursor=gA==", "limit=0", "limit=501", "prefix=" + "x" * 2000, "q=x"])
async def test_bad_questions_for_topics_are_422(site: Site, query: str) -> None:
    assert (await site.ask("GET", f"{TOPICS}?{query}")).status == 422


async def test_the_broker_tells_how_it_does(site: Site) -> None:
    found = (await site.ask("GET", "/api/v1/broker", role="viewer")).json
    assert (found["version"], found["uptime_s"]) == ("0.1.0", 12.3)
    assert found["listeners"] == [{"transport": "tcp", "address": "127.0.0.1:1883"}]
    assert found["disk"] == {"state": "ok", "detail": ""}
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert "nobody_knows_this_one" not in figures
    assert (figures["connections_now"]["value"], figures["connections_now"]["bound"]) == (4, 100)
    assert figures["dropped_queue"] == {
        "name": "dropped_queue",
        "metric": "mooring_broker_dropped_queue_total",
        "group": "dropped",
        "kind": "counter",
        "unit": "",
        "value": 3,
        "bound": None,
        "about": "Deliveries at a full queue",
    }


async def test_a_disk_that_takes_nothing_is_told_everywhere(site: Site) -> None:
    assert isinstance(site.sessions, fakes.Broker)
    site.sessions.disk_trouble = "database or disk is full"
    disk = (await site.ask("GET", "/api/v1/broker")).json["disk"]
    assert disk == {"state": "failing", "detail": "database or disk is full"}
    ready = await site.ask("GET", "/readyz", role=None)
    assert ready.status == 503
    assert "database or disk is full" in ready.json["errors"][0]["detail"]


async def test_one_client_is_dropped(site: Site) -> None:
    where = "/api/v1/broker/sessions"
    assert (await site.ask("DELETE", f"{where}/pump-7?client_id=pump-7")).json == {"kicked": 1}
    assert (await site.ask("DELETE", f"{where}/pump-7?client_id=pump-7:old")).status == 404
    assert site.sessions.kicked == ["pump-7", "pump-7:old"]
    assert site.fleet.audit.recorded == [("session.kick", "pump-7")]


class Pair(fakes.Sessions):
    """An engine that only knows user names; pump-7 has two clients."""

    def sessions(self) -> list[Any]:
        found = super().sessions()
        object.__setattr__(found[1], "username", "pump-7")
        return found


async def test_an_engine_that_tells_less_says_so(site: Site) -> None:
    set_broker(site, Pair())
    for path in ("/api/v1/broker", TOPICS):
        answer = await site.ask("GET", path)
        assert answer.status == 409
        assert "this broker engine" in answer.json["detail"]
    where = "/api/v1/broker/sessions"
    assert (await site.ask("GET", where)).status == 200
    assert (await site.ask("DELETE", f"{where}/pump-7?client_id=pump-7")).status == 409
    assert (await site.ask("DELETE", f"{where}/pump-7?client_id=nobody")).status == 404
    assert (await site.ask("DELETE", f"{where}/pump-9?client_id=pump-9")).json == {"kicked": 1}
    assert (await site.ask("DELETE", f"{where}/pump-7")).json == {"kicked": 1}


async def test_without_a_broker_of_ours_nothing_is_known(site: Site) -> None:
    set_broker(site, None)
    for path in ("/api/v1/broker", TOPICS, "/api/v1/broker/sessions"):
        answer = await site.ask("GET", path)
        assert answer.status == 409
        assert "not part of this server" in answer.json["detail"]


async def test_the_native_broker_tells_all_of_it(site: Site, native: Broker) -> None:
    assert isinstance(native, BrokerOperations)
    await native.publish(Publish(topic="devices/pump-7/telemetry", payload=b"{}", retain=True))
    levels = {item["level"]: item for item in (await site.ask("GET", TOPICS)).json["items"]}
    assert (levels["devices"]["messages"], levels["devices"]["retained"]) == (1, 1)
    found = (await site.ask("GET", "/api/v1/broker")).json
    assert found["listeners"] == [{"transport": "tcp", "address": f"127.0.0.1:{native.port}"}]
    assert found["disk"]["state"] == "ok"
    assert [figure["name"] for figure in found["figures"]] == list(MEANINGS)


async def test_every_metric_of_the_broker_is_at_metrics_with_its_meaning(site: Site, native: Broker) -> None:
    assert set(native.metrics()) == set(MEANINGS)
    text = (await site.ask("GET", "/metrics", role=None)).body.decode()
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("mooring_broker_")]
    samples = {sample.name: family for family in families for sample in family.samples}
    for name, meaning in MEANINGS.items():
        if name in ("sessions", "sessions_away"):
            assert "mooring_broker_sessions" in prometheus_name(name)
            continue
        family = samples[prometheus_name(name)]
        assert family.type == ("counter" if meaning.kind is FigureKind.COUNTER else "gauge")
        assert family.documentation
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert labels == {"state", "of"}
    bounds = {sample.labels["of"]: sample.value for sample in samples["mooring_broker_bound"].samples}
    assert bounds == native.bounds()


SHOWN_BY = {
    "max_connections": "refused_connections",
    "max_connections_per_address": "refused_per_address",
    "max_connecting": "refused_connections",
    "max_connecting_per_address": "refused_per_address",
    "max_connects_per_min_per_client": "flapping_refused",
    "connect_timeout_s": "refused_connections",
    "max_connects_per_s": "rate_refused",
    "max_connect_bytes": "protocol_errors",
    "max_packet_bytes": "protocol_errors",
    "max_outgoing_bytes": "dropped_slow",
    "write_timeout_s": "slow_closed",
    "max_publishes_per_s": "throttled",
    "max_publishes_at_once": "throttled",
    "max_sessions": "sessions_displaced",
    "max_sessions_per_username": "sessions_displaced",
    "max_undone": "undone",
    "max_undone_bytes": "undone_bytes",
    "max_inflight": "inflight",
    "max_queued": "dropped_queue",
    "max_queued_bytes": "dropped_queue",
    "max_queued_bytes_per_username": "queued_bytes_of_one",
    "max_queued_bytes_in_all": "dropped_queue",
    "max_topic_bytes": "protocol_errors",
    "max_topic_levels": "protocol_errors",
    "max_subscriptions": "refused_subscribes",
    "topic_alias_maximum": "protocol_errors",
    "max_retained": "dropped_retained",
    "max_retained_bytes": "dropped_retained",
    "max_retained_per_username": "dropped_retained",
    "max_routes_bytes": "routes_forgotten",
}
"""Which metric moves when a bound of the broker is reached."""


def test_each_bound_of_the_broker_has_a_metric() -> None:
    bounds = {
        field.name
        for field in fields(BrokerOptions)
        if field.name.startswith("max_") or field.name.endswith("_maximum") or field.name.endswith("_timeout_s")
    }
    assert bounds == set(SHOWN_BY)
    assert set(SHOWN_BY.values()) <= set(MEANINGS)

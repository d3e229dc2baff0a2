"""The server itself: start and stop, health, overview, metrics, broker sessions, audit, slow and broken clients."""

import asyncio
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.web import fakes
from tests.web.conftest import ENDPOINTS, Site, options_in
from web.app import WebServer
from web.errors import ListenError
from web.options import WebOptions


async def test_a_busy_port_is_an_error_with_its_address(tmp_path: Path) -> None:
    gateway = fakes.Gateway()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = WebServer(
            options_in(tmp_path, port=port),
            fleet=fakes.Fleet(tmp_path, gateway.bus),  # type: ignore[arg-type]
            gateway=gateway,  # type: ignore[arg-type]
            sessions=None,
            endpoints=ENDPOINTS,
            version="0",
        )
        with pytest.raises(ListenError) as caught:
            await server.start()
    assert caught.value.port == port
    assert not gateway.bus.watched("telemetry")
    await server.stop()


async def test_health_and_readiness(site: Site) -> None:
    assert (await site.ask("GET", "/healthz", role=None)).json == {"status": "ok"}
    ready = await site.ask("GET", "/readyz", role=None)
    assert ready.status == 200
    assert [part["name"] for part in ready.json["parts"]] == ["broker", "journal", "store", "database"]
    site.gateway.journal_state = "failing"
    failing = await site.ask("GET", "/readyz", role=None)
    assert failing.status == 503
    assert failing.json["errors"][0]["field"] == "journal"
    async with site.http.head(site.url + "/healthz") as answer:
        assert answer.status == 200


async def test_a_database_that_fails_is_not_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> dict[str, int]:
        raise ConnectionError("secret host")

    monkeypatch.setattr(site.fleet.devices, "counts", fail)
    answer = await site.ask("GET", "/readyz", role=None)
    assert (answer.status, answer.json["errors"][0]["field"]) == (503, "database")
    assert b"secret host" not in answer.body


async def test_the_overview_has_everything_on_one_page(site: Site) -> None:
    found = (await site.ask("GET", "/api/v1/overview", role="viewer")).json
    assert found["devices"] == {"total": 1, "online": 0, "offline": 0, "stale": 0, "never_seen": 1, "disabled": 0}
    assert found["firmware"] == {"1.0.0": 2}
    assert found["journal"] == {"lag_s": 0.1, "bytes": 100, "limit_bytes": 1000, "batches": 1}
    assert found["store"] == {"kind": "memory", "state": "ok", "detail": "", "points": 12, "size_bytes": 3456}
    assert found["commands"] == {"pending": 0}
    assert found["endpoints"] == {
        "device_http": "http://0.0.0.0:8081",
        "mqtt": "mqtt://0.0.0.0:1883",
        "mqtt_ws": None,
        "mqtt_tls": None,
    }
    assert (found["version"], found["messages_per_s"]) == ("0.1.0", 1.0)


async def test_metrics_are_read_by_prometheus_and_name_no_device(site: Site) -> None:
    await site.ask("GET", "/api/v1/devices/pump-7")
    await site.ask("GET", "/api/v1/devices/nothing")
    await site.ask("GET", "/somewhere/else")
    await site.ask("PROPFIND", "/api/v1/devices")
    answer = await site.ask("GET", "/metrics", role=None)
    assert answer.media == "text/plain"
    text = answer.body.decode()
    values = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["mooring_messages_total", ()] == 7
    assert values["mooring_refused_total", ("invalid_json",)] == 2
    assert values["mooring_devices", ("never_seen",)] == 1
    assert values["mooring_broker_sessions", ("connected",)] == 3
    assert values["mooring_journal_limit_bytes", ()] == 1000
    assert values["mooring_http_requests_total", ("/api/v1/devices/{id}", "200", "GET")] == 1
    assert values["mooring_http_requests_total", ("/api/v1/devices/{id}", "404", "GET")] == 1
    assert "pump-7" not in text
    assert "PROPFIND" not in text
    assert "/somewhere" not in text


@pytest.mark.parametrize("web_options", ["scrape me"], indirect=True)
class TestMetricsToken:
    @pytest.fixture
    def web_options(self, tmp_path, request) -> WebOptions:  # type: ignore[no-untyped-def]
        return options_in(tmp_path, metrics_token=request.param)

    async def test_metrics_may_ask_for_a_token(self, site: Site) -> None:
        assert (await site.ask("GET", "/metrics", role=None)).status == 401
        assert (await site.ask("GET", "/metrics", role="admin")).status == 401
        assert (await site.ask("GET", "/metrics", role="scrape me")).status == 200


async def test_sessions_are_listed_in_pages_and_dropped(site: Site) -> None:
    where = "/api/v1/broker/sessions"
    first = (await site.ask("GET", f"{where}?limit=2")).json
    assert [session["client_id"] for session in first["items"]] == ["pump-7", "pump-8"]
    assert first["items"][0]["connected_at"] == "2026-11-20T12:00:00.000Z"
    rest = (await site.ask("GET", f"{where}?limit=2&cursor={first['next_cursor']}")).json
    assert ([session["client_id"] for session in rest["items"]], rest["next_cursor"]) == (["pump-9"], None)
    assert (await site.ask("GET", f"{where}?q=PUMP-8")).json["total"] == 1
    assert (await site.ask("GET", f"{where}?cursor=%21")).status == 422
    assert (await site.ask("DELETE", f"{where}/pump-7")).json == {"kicked": 1}
    assert site.fleet.audit.recorded == [("session.kick", "pump-7")]
    assert (await site.ask("DELETE", f"{where}/nobody")).status == 404


async def test_without_a_broker_of_ours_there_are_no_sessions(site: Site) -> None:
    object.__setattr__(site.server._parts, "sessions", None)
    assert (await site.ask("GET", "/api/v1/broker/sessions")).status == 409
    assert (await site.ask("GET", "/readyz", role=None)).json["parts"][0]["detail"] == "external"
    assert (await site.ask("GET", "/metrics", role=None)).status == 200


async def test_the_audit_is_for_administrators(site: Site) -> None:
    entry = (await site.ask("GET", "/api/v1/audit?action=device.")).json["items"][0]
    assert entry["actor"] == {"kind": "system", "id": "mooring", "address": ""}
    assert entry["target"] == {"kind": "device", "id": "pump-7"}
    assert (await site.ask("GET", "/api/v1/audit", role="operator")).status == 403


async def raw(site: Site, sent: bytes) -> bytes:
    """What comes back for these bytes until the server closes or says no more for a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(sent)
    await writer.drain()
    try:
        async with asyncio.timeout(1):
            return await reader.read()
    except TimeoutError:
        return b""
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\nConnection: close\r\n\r\n",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
    ],
)
async def test_broken_requests_are_400(site: Site, head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answer = await raw(site, head)
    assert answer.split()[1] == b"400"
    assert b"application/problem+json" in answer
    assert b"aiohttp" not in answer
    assert "Traceback" not in caplog.text


class TestSilentConnections:
    @pytest.fixture
    def web_options(self, tmp_path: Path) -> WebOptions:
        return options_in(tmp_path, idle_timeout_s=0.2)

    async def test_half_a_request_head_is_not_waited_for_long(self, site: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost:")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_stopping_waits_for_nobody_for_long(site: Site) -> None:
    waiting = asyncio.create_task(site.ask("POST", "/api/v1/devices/pump-7/commands?wait=30", json={"name": "x"}))
    await site.fleet.commands.created.wait()
    async with asyncio.timeout(10):
        await site.server.stop()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
@pytest.mark.parametrize("path", ["/api/v1/devices", "/api/v1/artifacts", "/api/v1/auth/login"])
async def test_a_compressed_body_is_415_and_never_unpacked(site: Site, path: str, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    answer = await site.ask("POST", path, data=b"not packed at all", headers=headers)
    assert (answer.status, answer.json["status"]) == (415, 415)
    assert answer.headers["Accept-Encoding"] == "identity"

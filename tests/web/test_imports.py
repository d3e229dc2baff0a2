"""An import over HTTP: what came of it, what is wrong or hostile, who may, and what a broken one leaves."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.bus import Bus
from gateway.gateway import Gateway, GatewayOptions
from gateway.store import StoreUnavailable
from tests.gateway.fakes import FakeLink, Fleet, MemoryStore
from tests.web.conftest import Site

URL = "/api/v1/telemetry:import"
NOW_MS = int(time.time() * 1000)
HEADER = "device,metric,ts,value\n"
CSV = {"Content-Type": "text/csv"}


@pytest.fixture
async def store(site: Site, tmp_path: Path) -> AsyncIterator[MemoryStore]:
    """The store behind a real gateway, which the server imports through."""
    kept = MemoryStore()
    gateway = Gateway(GatewayOptions(data_dir=tmp_path / "gateway"), store=kept, links=[FakeLink()], bus=Bus())
    await gateway.start(Fleet(), Fleet())
    site.gateway.importing = gateway.importing  # type: ignore[attr-defined]
    yield kept
    await gateway.stop()


def rows(count: int, device: str = "pump-7") -> bytes:
    return (HEADER + "".join(f"{device},t,{NOW_MS - n},{n}\n" for n in range(count))).encode()


@pytest.mark.parametrize(
    ("body", "headers", "query"),
    [
        (rows(3), CSV, ""),
        (gzip.compress(rows(3)), CSV, ""),
        (
            "".join(f"m,host=pump-7 t={n} {NOW_MS - n}\n" for n in range(3)).encode(),
            {"Content-Type": "text/plain"},
            "?precision=ms&device_tag=host",
        ),
    ],
)
async def test_a_file_is_stored_once_however_often_it_is_sent(
    site: Site, store: MemoryStore, body: bytes, headers: dict[str, str], query: str
) -> None:
    for _ in range(2):
        answer = await site.ask("POST", URL + query, data=body, headers=headers, role="operator")
        assert (answer.status, answer.json["stored"], answer.json["refused"]) == (200, 3, 0), answer.json
    assert len(store.points) == 3


async def test_unknown_devices_are_left_out_or_created_and_a_dry_run_does_neither(
    site: Site, store: MemoryStore
) -> None:
    body = rows(2, "valve-1")
    refused = (await site.ask("POST", URL, data=body, headers=CSV)).json
    assert (refused["stored"], refused["reasons"][0]["first_line"], refused["reasons"][0]["count"]) == (0, 2, 2)
    for query, points in (("?create_devices=true&dry_run=true", 0), ("?create_devices=true", 2)):
        made = (await site.ask("POST", URL + query, data=body, headers=CSV)).json
        assert (made["stored"], made["devices_created"]) == (2, ["valve-1"])
        assert len(store.points) == points
    assert (await site.ask("GET", "/api/v1/devices/valve-1")).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", CSV, 422),
        (b"device,t\n1,2\n", CSV, 422),
        (rows(1), {"Content-Type": "application/json"}, 415),
        (rows(1), CSV | {"Content-Encoding": "br"}, 415),
        (gzip.compress(rows(50))[:-9], CSV, 400),
        (gzip.compress(rows(1)) + b"more", CSV, 400),
        (gzip.compress(HEADER.encode() + b"x" * (16 << 20), 9), CSV, 413),
    ],
)
async def test_what_is_no_file_of_readings_is_refused_with_its_reason(
    site: Site, store: MemoryStore, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert (await site.ask("POST", URL, data=body, headers=headers)).status == status


async def test_a_viewer_may_not(site: Site, store: MemoryStore) -> None:
    assert (await site.ask("POST", URL, data=rows(1), headers=CSV, role="viewer")).status == 403
    assert not store.points


async def test_a_store_that_refuses_in_the_middle_is_told_of_and_what_it_has_is_kept(
    site: Site, store: MemoryStore
) -> None:
    def full(readings: object) -> None:
        if len(store.points) >= 5_000:
            raise StoreUnavailable("the disk is full")

    store.fail = full
    answer = await site.ask("POST", URL, data=rows(7_000), headers=CSV)
    assert (answer.status, "disk is full; 5000 readings" in answer.json["detail"]) == (503, True)
    store.fail = lambda readings: None
    again = (await site.ask("POST", URL, data=rows(7_000), headers=CSV)).json
    assert (again["stored"], again["broken_off"]["stored"], len(store.points)) == (7_000, 5_000, 7_000)
    assert (await site.ask("POST", URL, data=rows(1), headers=CSV)).json["broken_off"] is None


async def test_a_sender_that_goes_away_leaves_what_was_stored_and_the_way_free(site: Site, store: MemoryStore) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\nContent-Type: text/csv\r\n"
    writer.write(head.encode() + b"Content-Length: 9000000\r\n\r\n" + rows(6_000))
    async with asyncio.timeout(30):
        while len(store.points) < 5_000:  # noqa: ASYNC110 # the other side of a socket
            await asyncio.sleep(0.01)
        busy = await site.ask("POST", URL, data=rows(1), headers=CSV)
        assert busy.status == 409
        writer.close()
        again = await site.ask("POST", URL, data=rows(1), headers=CSV)
        while again.status == 409:
            again = await site.ask("POST", URL, data=rows(1), headers=CSV)
    assert (again.status, again.json["broken_off"]["stored"]) == (200, 5_000)

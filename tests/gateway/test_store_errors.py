"""A real journal, drain and InfluxStore against a server that fails: nothing lost, nothing twice, no hot loop."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway.readings import Reading
from gateway.store import Query, Store
from gateway.stores import InfluxOptions, InfluxStore
from tests.gateway.fakes import Clock
from tests.gateway.influx_stand_in import StandIn, Trouble, stand_in
from tests.gateway.test_drain import Rig
from tests.servers import influxdb


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    async with stand_in() as server:
        yield server


@pytest.fixture
async def rig(tmp_path: Path, clock: Clock, server: StandIn) -> AsyncIterator[Rig]:
    store = InfluxStore(InfluxOptions(url=server.url, timeout_s=0.3))
    rig = Rig(tmp_path / "journal.db", clock, store, linger_s=0.0)  # type: ignore[arg-type]
    await rig.open()
    yield rig
    await rig.journal.close()
    await store.close()


def readings(device_id: str, count: int = 8, start: int = 0) -> list[Reading]:
    return [Reading(device_id, "m", number, number * 1.5) for number in range(start, start + count)]


WAITS = {
    "401": (Trouble(status=401, body='{"message":"unauthorized access"}'), "see store.token"),
    "403": (Trouble(status=403), "see store.token"),
    "404": (Trouble(status=404, body='{"message":"bucket \\"mooring\\" not found"}'), "Is there a bucket"),
    "500": (Trouble(status=500), "answered 500"),
    "503": (Trouble(status=503), "answered 503"),
    "redirect": (Trouble(status=307, headers={"Location": "https://elsewhere/"}), "see store.url"),
    "proxy": (Trouble(status=400, body="<html>Bad Request</html>"), "answered 400"),
    "reset": (Trouble(breaks=True), "InfluxDB at"),
    "reset after storing": (Trouble(breaks=True, stores=True), "InfluxDB at"),
    "hanging": (Trouble(hangs=True), "did not answer within"),
    "stored but too slow": (Trouble(hangs=True, stores=True), "did not answer within"),
}


@pytest.mark.parametrize("name", WAITS)
async def test_a_failing_server_is_waited_for_and_has_each_point_once(rig: Rig, server: StandIn, name: str) -> None:
    trouble, detail = WAITS[name]
    server.troubles.extend([trouble] * 2)
    await rig.put(*readings("a"))
    await rig.put(*readings("a", start=8))
    for attempt in range(2):
        await rig.settle()
        stats = rig.drain.stats()
        assert (stats.state, server.requests, rig.rows) == ("waiting", attempt + 1, 2)
        assert detail in stats.detail
        rig.clock.move(stats.next_try_in_s + 0.001)
    await rig.settle()
    assert rig.drain.stats().state == "ok"
    assert (len(server.stored), rig.rows, rig.rejected) == (16, 0, [])
    assert list(server.order.values()) == [list(range(16))]


async def test_retry_after_is_obeyed(rig: Rig, server: StandIn) -> None:
    server.troubles.append(Trouble(status=429, headers={"Retry-After": "17"}))
    await rig.put(*readings("a"))
    await rig.settle()
    assert rig.drain.stats().next_try_in_s == 17
    rig.clock.move(16.9)
    await rig.settle()
    assert server.requests == 1
    rig.clock.move(0.2)
    await rig.settle()
    assert len(server.stored) == 8


async def test_a_server_that_stays_down_is_asked_less_than_twice_a_second(rig: Rig, server: StandIn) -> None:
    server.troubles.extend([Trouble(status=503)] * 1000)
    await rig.put(*readings("a"))
    for _ in range(600):
        await rig.settle()
        rig.clock.move(0.1)
    assert 2 <= server.requests < 2 * 60


async def test_too_large_a_body_is_split_until_it_fits(rig: Rig, server: StandIn) -> None:
    server.most_lines = 3
    await rig.put(*readings("a", 16))
    await rig.settle()
    assert (len(server.stored), rig.rejected, rig.rows) == (16, [], 0)
    assert list(server.order.values()) == [list(range(16))]


@pytest.mark.parametrize("dropped", [1, 0])
async def test_a_partial_write_sets_aside_the_bad_points_alone(rig: Rig, server: StandIn, dropped: int) -> None:
    server.bad, server.dropped = "device=bad", dropped
    await rig.put(*readings("a"), *readings("bad", 2), *readings("b"))
    await rig.put(*readings("a", start=8))
    await rig.settle()
    assert [reading for reading, _ in rig.rejected] == readings("bad", 2)
    assert all(f"dropped={dropped}" in detail for _, detail in rig.rejected)
    assert sorted(server.order.values()) == [list(range(8)), list(range(16))]
    assert (rig.rows, rig.drain.stats().state) == (0, "ok")


async def test_a_refusal_of_the_whole_batch_costs_no_sound_point(rig: Rig, server: StandIn) -> None:
    server.troubles.append(Trouble(status=422, body='{"message":"points outside retention policy"}'))
    await rig.put(*readings("a"))
    await rig.settle()
    assert (len(server.stored), rig.rejected, rig.rows) == (8, [], 0)


@pytest.mark.servers
async def test_a_real_partial_write_sets_aside_the_conflicting_points_alone(tmp_path: Path, clock: Clock) -> None:
    week_ms = 7 * 86_400_000  # 1.x checks types by shard, and a shard is a week
    old_ms, new_ms = 1_700_000_000_000, 1_700_000_000_000 + 3 * week_ms
    old = [Reading("bad", "m", old_ms + number, number * 1.5) for number in range(3)]
    new = [Reading("good", "m", new_ms + number, number * 1.5) for number in range(20)]
    with influxdb() as server:
        async with _rig_1x(tmp_path, clock, server.url, "") as rig:
            await _post(server.url, "/write?db=mooring&precision=ms", f'mooring_number,device=x value="text" {old_ms}')
            await rig.put(*new[:10], *old, *new[10:])
            await rig.settle()
            assert [reading for reading, _ in rig.rejected] == old
            assert all("field type conflict" in detail for _, detail in rig.rejected)
            await _holds_once(rig, new)


@pytest.mark.servers
async def test_points_beyond_a_real_retention_policy_are_set_aside_alone(tmp_path: Path, clock: Clock) -> None:
    now_ms = int(time.time() * 1000)  # the server compares with its own clock
    old = [Reading("late", "m", now_ms - 90 * 86_400_000 + number, 1.5) for number in range(3)]
    new = [Reading("good", "m", now_ms - 1000 + number, number * 1.5) for number in range(20)]
    with influxdb() as server:
        async with _rig_1x(tmp_path, clock, server.url, " WITH DURATION 1d") as rig:
            await rig.put(*new[:10], *old, *new[10:])
            await rig.settle()
            assert [reading for reading, _ in rig.rejected] == old
            assert all("dropped=1" in detail for _, detail in rig.rejected)
            await _holds_once(rig, new)


@asynccontextmanager
async def _rig_1x(path: Path, clock: Clock, url: str, duration: str) -> AsyncIterator[Rig]:
    await _post(url, "/query", {"q": f"CREATE DATABASE mooring{duration}"})
    store = InfluxStore(InfluxOptions(url=url, api="v1"))
    rig = Rig(path / "journal.db", clock, store, linger_s=0.0)  # type: ignore[arg-type]
    await rig.open()
    try:
        yield rig
    finally:
        await rig.journal.close()
        await store.close()


async def _post(url: str, path: str, body: str | dict[str, str]) -> None:
    async with aiohttp.ClientSession() as session, session.post(url + path, data=body) as answer:
        assert answer.status < 300, await answer.text()


async def _holds_once(rig: Rig, expected: list[Reading]) -> None:
    store: Store = rig.store
    found = await store.query(Query(device_id=expected[0].device_id, start_ms=0, end_ms=2_000_000_000_000))
    assert found["m"].t == [reading.ts_ms for reading in expected]
    assert found["m"].v == [reading.value for reading in expected]
    assert (rig.rows, rig.drain.stats().state) == (0, "ok")

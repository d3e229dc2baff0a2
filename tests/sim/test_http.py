"""Devices over the device HTTP API, against a scripted server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from firmware_sim import SimOptions
from firmware_sim.luck import Fault
from firmware_sim.tally import State
from tests.sim.benches import IMAGE, offer
from tests.sim.fakes import FakeServer, Watch, fake_server, problem, running


def options(server: FakeServer, **more: Any) -> SimOptions:
    values: dict[str, Any] = {
        "devices": 1,
        "url": server.url,
        "device_http_url": server.url,
        "transport": "http",
        "token": "admin-token",
        "interval_s": 0.1,
        "pace": 20.0,
        "download_bytes_per_s": 0,
    }
    return SimOptions(**(values | more))


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with fake_server() as server:
        yield server


async def test_telemetry_arrives_and_is_counted(server: FakeServer) -> None:
    async with running(options(server, devices=3)) as report:
        await server.until(lambda: len(server.on("telemetry")) >= 30)
    result = await report
    assert {who for who, _, _ in server.said} == {"sim-0001", "sim-0002", "sim-0003"}
    assert result.connected == 3
    assert result.ok
    assert result.acked >= 30
    heard = 0
    for batch in server.on("telemetry", "sim-0001"):
        heard += sum(len(item["values"]) for item in (batch if isinstance(batch, list) else [batch]))
    assert 0 <= heard - result.acked_by_device["sim-0001"] <= 100
    assert server.on("twin/reported")[0]["firmware"] == {"version": "1.0.0"}
    assert server.on("events")[0]["message"] == "started with firmware 1.0.0"


async def test_cbor_telemetry(server: FakeServer) -> None:
    async with running(options(server, encoding="cbor")):
        await server.until(lambda: len(server.on("telemetry")) >= 2)
    assert server.on("telemetry")[0]["values"]


async def test_commands_are_fetched_and_answered(server: FakeServer) -> None:
    server.commands["sim-0001"].put_nowait({"id": "C1", "name": "self_test", "params": {}, "expires_at": None})
    server.commands["sim-0001"].put_nowait({"id": "C2", "name": "reboot"})
    async with running(options(server)):
        await server.until(lambda: "succeeded" in server.statuses("commands/C2/status"))
        await server.until(lambda: server.statuses("commands/C1/status")[-1:] in (["succeeded"], ["failed"]))
    assert server.statuses("commands/C2/status") == ["accepted", "running", "succeeded"]


async def test_desired_settings_are_taken_from_the_twin(server: FakeServer) -> None:
    server.desired = {"led": "on"}
    async with running(options(server)):
        await server.until(lambda: {"led": "on"} in server.on("twin/reported"))


async def test_update_over_http(server: FakeServer) -> None:
    server.offers["sim-0001"].put_nowait(offer())
    async with running(options(server)) as report:
        await server.until(lambda: "succeeded" in server.statuses())
    assert (await report).firmware == {"1.1.0": 1}
    assert (await report).updates == {"succeeded": 1}
    assert server.ranges == [""]


async def test_a_download_cut_by_the_server_is_resumed_with_range(server: FakeServer) -> None:
    server.cut_download_at = 40_000
    server.offers["sim-0001"].put_nowait(offer())
    async with running(options(server)):
        await server.until(lambda: "succeeded" in server.statuses())
    assert server.ranges[0] == ""
    assert [wanted for wanted in server.ranges[1:] if not wanted.startswith("bytes=")] == []
    assert 0 < int(server.ranges[1].removeprefix("bytes=").removesuffix("-")) <= 40_000


@pytest.mark.parametrize("fault", [Fault.INTERRUPTED, Fault.POWER_CUT_DOWNLOADING])
async def test_a_download_cut_by_the_device_is_resumed_with_range(server: FakeServer, fault: Fault) -> None:
    server.offers["sim-0001"].put_nowait(offer())
    async with running(options(server, fault_rate=1.0, faults=(fault,))):
        await server.until(lambda: "succeeded" in server.statuses())
    assert len(server.ranges) == 2
    assert 0 < int(server.ranges[1].removeprefix("bytes=").removesuffix("-")) < len(IMAGE)


async def test_a_missing_image_fails_the_update(server: FakeServer) -> None:
    server.answers["GET /device/v1/artifacts/A1"] = [problem(404, "no such artifact")]
    server.offers["sim-0001"].put_nowait(offer())
    async with running(options(server)):
        await server.until(lambda: "failed" in server.statuses())
    assert server.on("ota/status")[-1]["error"] == "download refused: the server answered 404"


async def test_the_token_stays_with_the_devices_own_server(server: FakeServer) -> None:
    seen: list[str | None] = []

    async def stranger(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=IMAGE)

    app = web.Application()
    app.router.add_get("/image.bin", stranger)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fields = offer()
    fields["artifact"]["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}/image.bin"
    server.offers["sim-0001"].put_nowait(fields)
    try:
        async with running(options(server)):
            await server.until(lambda: "succeeded" in server.statuses())
    finally:
        await runner.cleanup()
    assert seen == [None]


async def test_a_refused_message_is_counted_and_does_not_block(server: FakeServer) -> None:
    server.answers["POST /device/v1/telemetry"] = [problem(422, "type_changed")]
    async with running(options(server)) as report:
        await server.until(lambda: len(server.on("telemetry")) >= 2)
    assert (await report).refused == 1
    assert not (await report).ok


async def test_a_busy_server_gets_the_message_again(server: FakeServer) -> None:
    server.answers["POST /device/v1/events"] = [problem(503, "store is waiting", **{"Retry-After": "0"})]
    async with running(options(server)) as report:
        await server.until(lambda: bool(server.on("events")))
    assert (await report).refused == 0


async def test_a_failing_server_makes_the_device_try_again(server: FakeServer) -> None:
    server.answers["GET /device/v1/twin"] = [problem(500, "oh")]
    async with running(options(server)) as report:
        await server.until(lambda: bool(server.on("telemetry")))
    assert (await report).errors == {"twin was answered 500 oh": 1}


async def test_a_refused_device_is_reported_as_such(server: FakeServer) -> None:
    server.answers["GET /device/v1/twin"] = [problem(401, "the token is not known")]
    watch = Watch()
    async with running(options(server), watch) as report:
        await watch.until(lambda picture: picture.states == {State.REFUSED: 1})
    assert (await report).errors == {"refused: 401 the token is not known": 1}
    assert (await report).connected == 0

"""The same again: redelivered with DUP, with the same packet id after a reconnect, sent anew, posted ten times.
One point, one event, one command."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.broker.clients import connect, packet, publish, text
from tests.e2e.running import MooringProcess, Operator, operator

BASE_MS = int(time.time() * 1000) - 60_000
POINT = b'{"ts":%d,"values":{"x":1.5}}' % BASE_MS
EVENT = json.dumps({"ts": BASE_MS, "level": "warning", "message": "door open"}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = MooringProcess(tmp_path_factory.mktemp("duplicates") / "data")
    server.start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@contextlib.asynccontextmanager
async def session(server: MooringProcess, device_id: str, token: str, version: int) -> AsyncIterator[Any]:
    """An MQTT connection with a session that stays, as exact bytes; gives a function that publishes and waits."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.mqtt_port)
    if version == 4:
        writer.write(connect(device_id, password=token.encode(), clean=False))
    else:
        expiry = b"\x05\x11\x00\x00\x0e\x10"
        head = text("MQTT") + b"\x05\xc0\x00\x3c" + expiry
        writer.write(packet(0x10, head + text(device_id) + text(device_id) + text(token)))
    first = await reader.readexactly(2)
    assert first[0] == 0x20
    assert (await reader.readexactly(first[1]))[1] == 0

    async def send(channel: str, payload: bytes, packet_id: int, *, dup: bool = False, wait: bool = True) -> None:
        body = (b"\x00" if version == 5 else b"") + payload
        writer.write(publish(f"devices/{device_id}/{channel}", body, qos=1, packet_id=packet_id, dup=dup))
        if wait:
            async with asyncio.timeout(10):
                kind, length = await reader.readexactly(2)
                said = await reader.readexactly(length)
            assert (kind, said[:2], said[2:3] or b"\x00") == (0x40, packet_id.to_bytes(2, "big"), b"\x00")
        else:
            await writer.drain()

    try:
        yield send
    finally:
        writer.transport.abort()  # no DISCONNECT: the link was lost
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def assert_once(api: Operator, device_id: str) -> None:
    await assert_one_point(api, device_id)
    await assert_one_event(api, device_id)


async def assert_one_point(api: Operator, device_id: str) -> None:
    answer = await api.get(f"devices/{device_id}/telemetry", start=BASE_MS - 1, end=BASE_MS + 60_000)
    assert {metric: (series["t"], series["v"]) for metric, series in answer["series"].items()} == {
        "x": ([BASE_MS], [1.5])
    }


async def assert_one_event(api: Operator, device_id: str) -> None:
    events = [one for one in (await api.get(f"devices/{device_id}/timeline"))["items"] if one["summary"] == "door open"]
    assert len(events) == 1, events


@pytest.mark.parametrize("version", [4, 5])
async def test_redelivered_or_sent_anew_it_is_one_point_and_one_event(server: MooringProcess, version: int) -> None:
    device_id = f"again-{version}"
    async with operator(server) as api:
        token = await api.add_device(device_id)
        async with session(server, device_id, token, version) as send:
            await send("telemetry", POINT, 1)
            await send("events", EVENT, 2)
            await send("telemetry", POINT, 1, dup=True)  # the PUBACK was lost
            await send("telemetry", POINT, 3, wait=False)
            await send("events", EVENT, 4, wait=False)
        for _ in range(3):
            async with session(server, device_id, token, version) as send:
                await send("telemetry", POINT, 3, dup=True)  # the same packet id after a reconnect
                await send("events", EVENT, 4, dup=True)
                await send("telemetry", POINT, 9)  # and as a message of its own
                await send("events", EVENT, 10)
        await assert_once(api, device_id)


async def redeliver_across_a_kill(server: MooringProcess, device_id: str) -> None:
    async with operator(server) as api:
        token = await api.add_device(device_id)
    async with session(server, device_id, token, 4) as send:
        await send("telemetry", POINT, 1)
        await send("events", EVENT, 2)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    async with session(server, device_id, token, 4) as send:
        await send("telemetry", POINT, 1, dup=True)
        await send("events", EVENT, 2, dup=True)


async def test_redelivered_across_a_kill_it_is_one_point(server: MooringProcess) -> None:
    await redeliver_across_a_kill(server, "killed")
    async with operator(server) as api:
        await assert_one_point(api, "killed")


async def test_redelivered_across_a_kill_it_is_one_event(server: MooringProcess) -> None:
    await redeliver_across_a_kill(server, "killed-too")
    async with operator(server) as api:
        await assert_one_event(api, "killed-too")


async def test_posted_ten_times_at_once_it_is_one_point_and_one_event(server: MooringProcess) -> None:
    async with operator(server) as api:
        token = await api.add_device("posting")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": "k1"}
        async with aiohttp.ClientSession(server.device_http, headers=headers) as device:

            async def post(path: str, body: bytes) -> tuple[int, bytes]:
                async with device.post(f"/device/v1/{path}", data=body) as answer:
                    return answer.status, await answer.read()

            for path, body in (("telemetry", POINT), ("events", EVENT)):
                answers = await asyncio.gather(*(post(path, body) for _ in range(10)))
                assert set(answers) == {(202, b'{"stored":true}')}
        await assert_once(api, "posting")


async def test_an_operator_s_key_used_ten_times_at_once_makes_one_command(server: MooringProcess) -> None:
    async with operator(server) as api:
        await api.add_device("ordered")

        async def order() -> tuple[int, str]:
            async with api.session.post(
                "/api/v1/devices/ordered/commands",
                json={"name": "reboot", "ttl": 600},
                headers={"Idempotency-Key": "one"},
            ) as answer:
                return answer.status, (await answer.json())["id"]

        answers = await asyncio.gather(*(order() for _ in range(10)))
        assert len(set(answers)) == 1
        assert answers[0][0] < 300
        assert len((await api.get("devices/ordered/commands"))["items"]) == 1

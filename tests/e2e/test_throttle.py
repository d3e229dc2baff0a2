"""A device that sends far more than it may is slowed down alone, loses nothing, and is told so over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import aiomqtt
import pytest

from tests.broker.blackbox import wire
from tests.e2e.running import MooringProcess, Operator, operator

RATE, AT_ONCE, LOUD = 500, 500, 3_000
ONE_READ = 1_000  # what is read at once is taken, and paid for afterwards
PUBACK_BYTES = 4
CONNACK_BYTES = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> object:
    limits = {"MOORING_BROKER__MAX_PUBLISHES_PER_S": str(RATE), "MOORING_BROKER__MAX_PUBLISHES_AT_ONCE": str(AT_ONCE)}
    http = {"MOORING_DEVICE_HTTP__MAX_MESSAGES_PER_S": "10", "MOORING_DEVICE_HTTP__MAX_MESSAGES_AT_ONCE": "20"}
    process = MooringProcess(tmp_path_factory.mktemp("throttle") / "data", **limits, **http)
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture
async def api(server: MooringProcess) -> AsyncIterator[Operator]:
    async with operator(server) as connected:
        yield connected


async def test_over_mqtt_the_others_are_served_while_the_loud_one_waits(server: MooringProcess, api: Operator) -> None:
    tokens = {f"calm-{n}": await api.add_device(f"calm-{n}") for n in range(10)}
    loud = await api.add_device("loud")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.mqtt_port)
    writer.write(wire.connect("loud", level=4, username="loud", password=loud.encode()))
    assert (await reader.readexactly(CONNACK_BYTES))[3] == 0
    first_ms = int(time.time() * 1000) - LOUD
    began = time.monotonic()
    writer.writelines(
        wire.publish(
            "devices/loud/telemetry",
            b'{"ts": %d, "values": {"n": %d}}' % (first_ms + n, n),
            level=4,
            qos=1,
            packet_id=n + 1,
        )
        for n in range(LOUD)
    )
    everything = asyncio.create_task(reader.readexactly(LOUD * PUBACK_BYTES))

    async def calm(device_id: str, token: str) -> None:
        client = aiomqtt.Client(
            "127.0.0.1", port=server.mqtt_port, username=device_id, password=token, identifier=device_id
        )
        async with client:
            for n in range(5):
                await client.publish(f"devices/{device_id}/telemetry", f'{{"n": {n}}}', qos=1)  # waits for its PUBACK

    await asyncio.gather(*(calm(device_id, token) for device_id, token in tokens.items()))
    if time.monotonic() - began < 2:  # on a machine that is not busy with something else
        assert not everything.done()
    async with asyncio.timeout(60):
        await everything
    assert time.monotonic() - began > (LOUD - AT_ONCE - ONE_READ) / RATE - 0.5
    writer.close()
    await writer.wait_closed()
    series = (await api.get("devices/loud/telemetry", metrics="n", start=first_ms, end=first_ms + LOUD))["series"]["n"]
    assert series["v"] == list(range(LOUD))
    async with api.session.get("/metrics") as answer:
        figures = await answer.text()
    assert "mooring_broker_throttled_total 0.0" not in figures
    assert 'mooring_loop_lag_seconds_bucket{le="+Inf"}' in figures
    assert "loud" in next(line for line in server.log.read_text().splitlines() if "read from slowly" in line)


async def test_over_http_it_is_told_to_wait(server: MooringProcess, api: Operator) -> None:
    loud, calm = await api.add_device("loud-http"), await api.add_device("calm-http")
    statuses = []
    async with aiohttp.ClientSession(server.device_http) as session:

        async def send(token: str) -> aiohttp.ClientResponse:
            headers = {"Authorization": f"Bearer {token}"}
            return await session.post("/device/v1/telemetry", json={"n": 1}, headers=headers)

        while 429 not in statuses:
            answer = await send(loud)
            statuses.append(answer.status)
            assert len(statuses) < 1_000
        assert statuses[:20] == [202] * 20
        assert (await answer.json())["reason"] == "too_fast"
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await send(calm)).status == 202

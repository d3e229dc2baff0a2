"""A device that nobody has created comes in by HTTP and by MQTT, and its readings are there; strangers stay out."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import aiomqtt
import pytest

from tests.e2e.running import MooringProcess, Operator, operator

NONCE = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> object:
    process = MooringProcess(tmp_path_factory.mktemp("prov") / "data", MOORING_PROVISIONING__UNKNOWN_DEVICES="ask")
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture
async def api(server: MooringProcess) -> AsyncIterator[Operator]:
    async with operator(server) as connected:
        yield connected


async def claim_key(api: Operator, **fields: Any) -> str:
    expires_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"name": "batch", "expires_at": expires_at, "uses_limit": 10, **fields}
    return str((await api.post("provisioning/claim-keys", body))["key"])


async def ask_over_http(server: MooringProcess, **question: Any) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.device_http}/device/v1/provision", json=question) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def ask_over_mqtt(server: MooringProcess, device_id: str, key: str, question: dict[str, Any]) -> dict[str, Any]:
    client = aiomqtt.Client(
        "127.0.0.1",
        port=server.mqtt_port,
        username="provision",
        password=key,
        identifier=f"provision:{device_id}",
        protocol=aiomqtt.ProtocolVersion.V5,
    )
    async with client, asyncio.timeout(10):
        await client.subscribe(f"devices/{device_id}/provision/answer", qos=1)
        await client.publish(f"devices/{device_id}/provision", json.dumps(question), qos=1)
        async for message in client.messages:
            return dict(json.loads(bytes(message.payload)))
    raise AssertionError("no answer")


async def send_reading(server: MooringProcess, api: Operator, device_id: str, token: str) -> None:
    client = aiomqtt.Client(
        "127.0.0.1", port=server.mqtt_port, username=device_id, password=token, identifier=device_id
    )
    async with client:
        await client.publish(f"devices/{device_id}/telemetry", '{"t": 1}', qos=1)
    assert (await api.get(f"devices/{device_id}/latest"))["t"]["value"] == 1


async def test_by_claim_key_over_http(server: MooringProcess, api: Operator) -> None:
    key = await claim_key(api, tags=["hall"])
    status, answer = await ask_over_http(server, id="http-1", claim_key=key)
    assert (status, answer["status"]) == (201, "provisioned")
    await send_reading(server, api, "http-1", answer["credentials"]["token"])
    assert (await api.get("devices/http-1"))["tags"] == ["hall"]
    status, answer = await ask_over_http(server, id="http-1", claim_key=key)
    assert (status, answer["reason"]) == (409, "already_provisioned")
    status, answer = await ask_over_http(server, id="http-2", claim_key="mrc_wrong")
    assert (status, answer["reason"]) == (401, "claim_key_invalid")


async def test_by_claim_key_over_mqtt(server: MooringProcess, api: Operator) -> None:
    key = await claim_key(api)
    answer = await ask_over_mqtt(server, "mqtt-1", key, {})
    await send_reading(server, api, "mqtt-1", answer["credentials"]["token"])
    assert (await ask_over_mqtt(server, "mqtt-1", key, {}))["reason"] == "already_provisioned"
    with pytest.raises(aiomqtt.MqttError):
        await ask_over_mqtt(server, "mqtt-2", "mrc_wrong", {})


async def test_by_an_operators_word(server: MooringProcess, api: Operator) -> None:
    status, answer = await ask_over_http(server, id="new-1", nonce=NONCE, info={"model": "X"})
    assert (status, answer["status"]) == (202, "pending")
    assert (await ask_over_mqtt(server, "new-1", "", {"nonce": NONCE}))["status"] == "pending"
    (waiting,) = (await api.get("provisioning/applications", status="pending"))["items"]
    assert (waiting["device_id"], waiting["info"]) == ("new-1", {"model": "X"})
    await api.post("provisioning/applications/new-1/accept", {"tags": ["roof"]})
    answer = await ask_over_mqtt(server, "new-1", "", {"nonce": NONCE})
    await send_reading(server, api, "new-1", answer["credentials"]["token"])
    await ask_over_http(server, id="new-2", nonce=NONCE)
    await api.post("provisioning/applications/new-2/reject")
    status, answer = await ask_over_http(server, id="new-2", nonce=NONCE)
    assert (status, answer["reason"]) == (403, "rejected")


async def test_what_was_let_in_outlives_kill_9(server: MooringProcess, api: Operator) -> None:
    key = await claim_key(api)
    _, answer = await ask_over_http(server, id="killed-1", claim_key=key, nonce=NONCE)
    server.kill()
    server.start()
    async with operator(server) as again:
        await send_reading(server, again, "killed-1", answer["credentials"]["token"])
        assert await again.get("provisioning/applications", status="pending")

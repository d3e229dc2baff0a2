"""A device touches its own topics and nothing else, and a revoked token ends its connection within a second."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import aiomqtt
import pytest

from tests.e2e.running import MooringProcess, Operator, operator, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> object:
    process = MooringProcess(tmp_path_factory.mktemp("access") / "data")
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture
async def api(server: MooringProcess) -> AsyncIterator[Operator]:
    async with operator(server) as connected:
        yield connected


def client(server: MooringProcess, device_id: str, token: str, **options: object) -> aiomqtt.Client:
    settings = {"port": server.mqtt_port, "username": device_id, "password": token, "identifier": device_id, **options}
    return aiomqtt.Client("127.0.0.1", **settings)  # type: ignore[arg-type]


async def test_wrong_password_unknown_device_and_foreign_client_id_are_refused(
    server: MooringProcess, api: Operator
) -> None:
    token = await api.add_device("one")
    for device_id, secret, options in (
        ("one", "wrong", {}),
        ("nobody", token, {}),
        ("one", token, {"identifier": "two"}),
        ("one", "", {}),
    ):
        with pytest.raises(aiomqtt.MqttCodeError) as refused:
            async with client(server, device_id, secret, **options):
                pass
        expected = 0x85 if "identifier" in options else 0x86
        assert int(getattr(refused.value.rc, "value", refused.value.rc)) == expected, refused.value


async def test_device_cannot_publish_to_another_ones_topics(server: MooringProcess, api: Operator) -> None:
    token, other = await api.add_device("pub-a"), await api.add_device("pub-b")
    async with client(server, "pub-b", other) as victim:
        await victim.subscribe("devices/pub-b/#")
        async with client(server, "pub-a", token) as device:
            await device.publish("devices/pub-b/telemetry", '{"stolen": 1}', qos=1)
            await device.publish("devices/pub-b/commands/x", '{"name": "reboot"}', qos=1)
            await device.publish("devices/pub-a/telemetry", '{"own": 1}', qos=1)
        await victim.publish("devices/pub-b/telemetry", '{"own": 2}', qos=1)
        assert set(await api.get("devices/pub-b/latest")) == {"own"}
        assert set(await api.get("devices/pub-a/latest")) == {"own"}
        received = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                async for message in victim.messages:
                    received.append(str(message.topic))
        assert not [topic for topic in received if "commands" in topic]


async def test_device_cannot_subscribe_under_another_ones_topics(server: MooringProcess, api: Operator) -> None:
    token = await api.add_device("sub-a")
    await api.add_device("sub-b")
    async with client(server, "sub-a", token) as device:
        for topic_filter in (
            "devices/sub-b/commands/+",
            "devices/+/commands/+",
            "#",
            "devices/#",
            "$SYS/#",
            "+/sub-b/#",
        ):
            granted = await device.subscribe(topic_filter, qos=1)
            assert [int(getattr(code, "value", code)) for code in granted] == [0x80], topic_filter
        granted = await device.subscribe("devices/sub-a/#", qos=1)
        assert [int(getattr(code, "value", code)) for code in granted] == [1]


async def test_revoking_a_token_drops_its_connection_within_a_second(server: MooringProcess, api: Operator) -> None:
    token = await api.add_device("revoked")
    credential = (await api.get("devices/revoked/credentials"))["items"][0]
    dropped = asyncio.Event()

    async def stay() -> None:
        try:
            async with client(server, "revoked", token) as device:
                async for _ in device.messages:
                    pass
        except aiomqtt.MqttError:
            dropped.set()

    task = asyncio.create_task(stay(), name="device that stays")

    async def online() -> bool:
        return bool((await api.get("devices/revoked"))["status"] == "online")

    await until(online)
    began = time.monotonic()
    await api.delete(f"devices/revoked/credentials/{credential['id']}")
    await asyncio.wait_for(dropped.wait(), 1.0)
    assert time.monotonic() - began < 1.0
    await task
    with pytest.raises(aiomqtt.MqttError):
        async with client(server, "revoked", token):
            pass
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        async with session.post(f"{server.device_http}/device/v1/telemetry", json={"x": 1}) as answer:
            assert answer.status == 401
            assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"not json", "invalid_json"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "too_large"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "too_deep"),
        (b'{"t": NaN}', "invalid_json"),
    ],
)
async def test_bad_payload_is_on_the_devices_page_with_its_reason(
    server: MooringProcess, api: Operator, payload: bytes, reason: str
) -> None:
    device_id = f"bad-{reason}-{len(payload)}"
    token = await api.add_device(device_id)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        url = f"{server.device_http}/device/v1/telemetry"
        async with session.post(url, data=payload, headers={"Content-Type": "application/json"}) as answer:
            assert answer.status in (400, 413, 422), await answer.text()
            problem = await answer.json()
            assert problem["status"] == answer.status
    if len(payload) <= 65_536:
        async with client(server, device_id, token) as device:
            await device.publish(f"devices/{device_id}/telemetry", payload, qos=1)
            await device.publish(f"devices/{device_id}/telemetry", '{"fine": 1}', qos=1)
        letters = await api.get(f"devices/{device_id}/dead-letters")
        assert [letter["data"]["reason"] for letter in letters["items"]] == [reason, reason]
        kinds = [entry["kind"] for entry in (await api.get(f"devices/{device_id}/timeline"))["items"]]
        assert "message_refused" in kinds
        assert (await api.get(f"devices/{device_id}/latest"))["fine"]["value"] == 1


async def test_metric_that_changes_its_type_is_refused_and_keeps_what_was_stored(
    server: MooringProcess, api: Operator
) -> None:
    token = await api.add_device("changes")
    async with client(server, "changes", token) as device:
        await device.publish("devices/changes/telemetry", '{"level": 1.5, "other": 1}', qos=1)
        await device.publish("devices/changes/telemetry", '{"level": "high", "other": 2}', qos=1)
    latest = await api.get("devices/changes/latest")
    assert (latest["level"]["value"], latest["other"]["value"]) == (1.5, 2)
    letters = await api.get("devices/changes/dead-letters")
    assert [letter["data"]["reason"] for letter in letters["items"]] == ["type_changed"]
    assert "level" in letters["items"][0]["data"]["detail"]


async def test_firmware_with_a_wrong_digest_is_refused_and_nothing_is_kept(
    server: MooringProcess, api: Operator
) -> None:
    form = aiohttp.FormData()
    for name, value in {"version": "9.9.9", "name": "bad", "sha256": "0" * 64}.items():
        form.add_field(name, value)
    form.add_field("file", b"content", filename="firmware.bin")
    async with api.session.post("/api/v1/artifacts", data=form) as answer:
        assert answer.status == 422, await answer.text()
        assert "sha256" in (await answer.text()).lower()
    assert (await api.get("artifacts"))["items"] == []
    assert not [path for path in (server.data_dir / "artifacts").rglob("*") if path.is_file()]

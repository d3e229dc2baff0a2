"""What goes wrong around a server, done to the real process: no room, a second server, a store or a database that is
away, somebody else's broker, an order to stop in the middle of the work."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import pytest

from tests.e2e.running import MooringProcess, Operator, operator, until
from tests.e2e.test_kill import Loader, stored
from tests.servers import mosquitto, postgresql, victoria_metrics


@contextlib.contextmanager
def running(data_dir: Path, **environ: str) -> Iterator[MooringProcess]:
    server = MooringProcess(data_dir, **environ)
    server.log = data_dir.parent / "server.log"
    if data_dir.parent.is_mount():  # the log must have room where the data has none
        server.log = data_dir.parent.with_suffix(".log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def device(server: MooringProcess, device_id: str, token: str) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", port=server.mqtt_port, username=device_id, password=token, identifier=device_id)


@contextlib.contextmanager
def loading(server: MooringProcess, device_id: str, token: str) -> Iterator[Loader]:
    loader = Loader(device_id, token, server.mqtt_port, int(time.time() * 1000) - 3_600_000)
    try:
        yield loader
    finally:
        loader.abandon()


async def acknowledged(loader: Loader, more: int = 50, timeout_s: float = 20) -> None:
    """Wait until the loader has so many acknowledgements more than now."""
    before = len(loader.acknowledged)

    async def claim() -> bool:
        return len(loader.acknowledged) >= before + more

    await until(claim, timeout_s)


async def assert_nothing_lost(api: Operator, loader: Loader) -> None:
    points = await stored(api, loader.device_id, loader.base_ms, loader.base_ms + loader.sent)
    times = [ts - loader.base_ms for ts, _ in points]
    assert len(times) == len(set(times)), "a point is there twice"
    assert loader.acknowledged <= set(times), f"{len(loader.acknowledged - set(times))} acknowledged points lost"


async def status_of(api: Operator, method: str, path: str, **options: Any) -> int:
    async with api.session.request(method, path, **options) as answer:
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json", await answer.text()
        return answer.status


async def next_command(client: aiomqtt.Client, timeout_s: float = 15) -> str:
    async with asyncio.timeout(timeout_s):
        async for message in client.messages:
            if "/commands/" in str(message.topic) and not str(message.topic).endswith("/status"):
                return str(message.topic)
    raise AssertionError


@contextlib.contextmanager
def _small_disk(directory: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(directory)], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
async def test_a_full_disk_holds_senders_back_loses_nothing_and_ends_by_itself(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk, running(disk / "data") as server:
        async with operator(server) as api:
            token = await api.add_device("load")
            with loading(server, "load", token) as loader:
                await acknowledged(loader)
                _fill(disk / "filler")

                async def refused() -> bool:
                    return await status_of(api, "GET", "/readyz") == 503

                await until(refused)
                await asyncio.sleep(0.2)
                held_at = len(loader.acknowledged)
                headers = {"Authorization": f"Bearer {token}"}
                async with aiohttp.ClientSession(server.device_http, headers=headers) as session:
                    for method, path in (("POST", "telemetry"), ("PATCH", "twin")):
                        body = {"text": "x" * 900}
                        async with session.request(method, f"/device/v1/{path}", json=body) as answer:
                            assert answer.status == 503, (path, await answer.text())
                            assert int(answer.headers["Retry-After"]) > 0
                assert await status_of(api, "GET", "/api/v1/devices") == 200
                assert await status_of(api, "GET", "/healthz") == 200
                assert await status_of(api, "POST", "/api/v1/devices", json={"id": "new"}) == 507
                assert await status_of(api, "POST", "/api/v1/devices/load/commands", json={"name": "x"}) == 507
                assert await status_of(api, "PATCH", "/api/v1/devices/load/twin", json={"desired": {"a": 1}}) == 507
                assert len(loader.acknowledged) == held_at, "acknowledged without room"
                (disk / "filler").unlink()
                await acknowledged(loader)
                assert await status_of(api, "POST", "/api/v1/devices", json={"id": "new"}) == 201
                await asyncio.to_thread(loader.stop)
                await assert_nothing_lost(api, loader)
        assert "Traceback" not in server.log.read_text()
        _fill(disk / "filler")
        assert server.stop() == 0


async def test_a_second_server_on_the_same_directory_ends_and_leaves_the_first_alone(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        async with operator(server) as api:
            token = await api.add_device("pump-7")
            uploading = asyncio.create_task(_slow_upload(api))
            async with device(server, "pump-7", token):

                async def online() -> bool:
                    return (await api.get("devices/pump-7"))["status"] == "online" and any(
                        (server.data_dir / "artifacts").iterdir()
                    )

                await until(online)
                environ = {**server.environ, "MOORING_WEB__PORT": "0", "MOORING_DEVICE_HTTP__PORT": "0"}
                second = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "mooring", "serve"),
                    env={**environ, "MOORING_BROKER__PORT": "0"},
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                said, _ = await asyncio.wait_for(second.communicate(), 30)
                assert second.returncode == 2, said
                assert said.decode().strip().splitlines()[-1].startswith("mooring: ")
                assert b"another process" in said
                assert b"Traceback" not in said
                assert (await api.get("devices/pump-7"))["status"] == "online"
                assert (server.data_dir / "endpoints.json").exists()
            assert await uploading == 201


async def _slow_upload(api: Operator) -> int:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(100_000)
            await asyncio.sleep(0.8)

    form = aiohttp.FormData()
    form.add_field("version", "1.1.0")
    form.add_field("file", content(), filename="firmware.bin")
    return await status_of(api, "POST", "/api/v1/artifacts", data=form)


async def test_sigterm_under_load_ends_cleanly_and_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        async with operator(server) as api:
            token = await api.add_device("load")
        with loading(server, "load", token) as loader:
            await acknowledged(loader, 500)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 10
            assert "Traceback" not in server.log.read_text()
            server.start()
            await asyncio.to_thread(loader.stop)
        async with operator(server) as api:
            await assert_nothing_lost(api, loader)


@pytest.mark.servers
@pytest.mark.slow
def test_sigterm_as_soon_as_it_is_ready_is_a_clean_stop(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    for _ in range(3):
        server.start()
        assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


async def test_a_store_that_is_killed_and_comes_back_has_everything(tmp_path: Path) -> None:
    with (
        victoria_metrics() as store,
        running(tmp_path / "data", MOORING_STORE__KIND="victoriametrics", MOORING_STORE__URL=store.url) as server,
    ):
        async with operator(server) as api:
            token = await api.add_device("load")
            with loading(server, "load", token) as loader:
                await acknowledged(loader, 500)
                store.kill()
                await acknowledged(loader, 500)
                assert await status_of(api, "GET", "/api/v1/devices/load/latest") == 503
                server.kill()
                server.start()
                await acknowledged(loader, 500)
                store.start()
                await acknowledged(loader, 500)
                await asyncio.to_thread(loader.stop)
        async with operator(server) as api:

            async def drained() -> bool:
                async with api.session.get("/readyz") as answer:
                    parts = {part["name"]: part["state"] for part in (await answer.json())["parts"]}
                return parts["store"] == "ok"

            await until(drained, timeout_s=40)
            await assert_nothing_lost(api, loader)
        assert "Traceback" not in server.log.read_text()


@pytest.mark.servers
@pytest.mark.slow
async def test_an_external_broker_carries_telemetry_commands_and_updates_through_restarts(tmp_path: Path) -> None:
    with (
        mosquitto("persistence true\npersistence_location ./") as broker,
        running(tmp_path / "data", MOORING_BROKER__ENGINE="external", MOORING_BROKER__URL=broker.url) as server,
    ):

        def pump() -> aiomqtt.Client:
            return aiomqtt.Client(broker.host, broker.port, identifier="pump-7")

        async with operator(server) as api:
            await api.add_device("pump-7")
            value = _latest(api, "pump-7", "x")
            async with pump() as client:
                await client.subscribe("devices/pump-7/#", qos=1)
                await client.publish("devices/pump-7/telemetry", '{"x": 1}', qos=1)
                await until(value(1))
                first = await api.post("devices/pump-7/commands", {"name": "reboot", "ttl": 600})
                topic = await next_command(client)
                await client.publish(f"{topic}/status", '{"status": "succeeded"}', qos=1)
                await until(_state(api, f"commands/{first['id']}", "succeeded"))
                artifact = await api.upload("2.0.0", b"firmware" * 100)
                campaign = {"name": "c", "artifact": artifact["id"], "devices": ["pump-7"], "start": True}
                campaign = await api.post("campaigns", campaign)
                async with asyncio.timeout(15):
                    async for message in client.messages:
                        if str(message.topic).endswith("/ota/offer"):
                            break
                job = json.loads(message.payload)["job"]
                for step in ("downloading", "installing", "rebooting"):
                    await client.publish("devices/pump-7/ota/status", json.dumps({"job": job, "status": step}), qos=1)
            broker.stop()
            await until(_broker_is(api, "waiting"))
            waiting = await api.post("devices/pump-7/commands", {"name": "again", "ttl": 600})
            broker.start()
            await until(_broker_is(api, "ok"), timeout_s=40)
            async with pump() as client:
                await client.subscribe("devices/pump-7/#", qos=1)
                await next_command(client, 40)
                server.kill()
                # The broker keeps for the gateway what it has subscribed to.
                await client.publish("devices/pump-7/telemetry", '{"x": 2}', qos=1)
                report = {"job": job, "status": "rebooting", "version": "2.0.0"}
                await client.publish("devices/pump-7/ota/status", json.dumps(report), qos=1)
                status = f"devices/pump-7/commands/{waiting['id']}/status"
                await client.publish(status, '{"status": "succeeded"}', qos=1)
                server.start()
        async with operator(server) as api:
            await until(_latest(api, "pump-7", "x")(2))
            await until(_state(api, f"commands/{waiting['id']}", "succeeded"))
            await until(_state(api, f"campaigns/{campaign['id']}", "finished"))
            assert (await api.get(f"campaigns/{campaign['id']}"))["counts"]["succeeded"] == 1
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def _latest(api: Operator, device_id: str, metric: str) -> Any:
    def is_at(value: float) -> Any:
        async def claim() -> bool:
            latest = await api.get(f"devices/{device_id}/latest")
            return bool(metric in latest and latest[metric]["value"] == value)

        return claim

    return is_at


def _broker_is(api: Operator, state: str) -> Any:
    async def claim() -> bool:
        parts = (await api.get("overview"))["parts"]
        return any(part["name"] == "broker" and part["state"] == state for part in parts)

    return claim


def _state(api: Operator, path: str, status: str) -> Any:
    async def claim() -> bool:
        return bool((await api.get(path))["status"] == status)

    return claim


@pytest.mark.servers
@pytest.mark.slow
async def test_a_fleet_on_postgresql_outlives_the_kill_of_its_database(tmp_path: Path) -> None:
    with (
        postgresql() as database,
        running(tmp_path / "data", MOORING_DATABASE__URL=database.url) as server,
    ):
        async with operator(server) as api:
            token = await api.add_device("pump-7")
            async with device(server, "pump-7", token) as client:
                await client.subscribe("devices/pump-7/commands/+", qos=1)
                command = await api.post("devices/pump-7/commands", {"name": "reboot", "ttl": 600})
                topic = await next_command(client)
                await client.publish(f"{topic}/status", '{"status": "running"}', qos=1)
                database.kill()
                assert await status_of(api, "GET", "/api/v1/devices") == 503
                assert await status_of(api, "POST", "/api/v1/devices", json={"id": "new"}) == 503
                await client.publish("devices/pump-7/telemetry", '{"x": 2}', qos=1)  # needs no database
                await asyncio.sleep(1.5)
                database.start()

                async def back() -> bool:
                    return await status_of(api, "GET", "/api/v1/devices") == 200

                await until(back)
                await client.publish(f"{topic}/status", '{"status": "succeeded"}', qos=1)
            assert (await api.get(f"commands/{command['id']}"))["status"] == "succeeded"
            assert (await api.get("devices/pump-7/latest"))["x"]["value"] == 2
        database.kill()
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def _write_open(path: Path) -> None:
    path.write_text("0" * 64)
    path.chmod(0o644)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: (data / "fleet.db").write_bytes(b"\xaa" * 20_000), id="database"),
        pytest.param(lambda data: (data / "fleet.db").mkdir(), id="database is a directory"),
        pytest.param(lambda data: (data / "jwt.key").write_bytes(b"\xff" * 40), id="key"),
        pytest.param(lambda data: _write_open(data / "jwt.key"), id="key is readable by all"),
    ],
)
async def test_a_start_that_cannot_be_says_why_in_one_line(tmp_path: Path, damage: Any) -> None:
    (tmp_path / "data").mkdir()
    damage(tmp_path / "data")
    environ = MooringProcess(tmp_path / "data").environ
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mooring", "serve"),
        env=environ,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == 2, said
    assert said.decode().strip().splitlines()[-1].startswith("mooring: ")
    assert b"fleet.db" in said or b"jwt.key" in said
    assert b"Traceback" not in said

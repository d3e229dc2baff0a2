"""kill -9 of the server under QoS 1 load: every acknowledged point is there after the restart, none twice.

Points carry their own time, as a device that may send twice should; one client sends without a pause and sends again
what was not acknowledged. Commands and updates in flight go on after the restart.
"""

import asyncio
import json
import os
import random
import threading
import time
from collections import deque
from math import inf
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.e2e.running import MooringProcess, Operator, operator, until

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "15"))
DEVICES = 3


class Loader:
    """A device that publishes point after point at QoS 1 and notes which ones were acknowledged."""

    def __init__(
        self,
        device_id: str,
        token: str,
        port: int,
        base_ms: int,
        *,
        protocol: MQTTProtocolVersion = paho.MQTTv311,
        per_s: float = inf,
    ) -> None:
        self._pause_s = 1 / per_s
        self.device_id = device_id
        self.base_ms = base_ms
        self.sent = 0
        self.acknowledged: set[int] = set()
        self._by_mid: dict[int, int] = {}
        # From paho's thread to ours without a lock: paho holds its own while it calls back.
        self._acks: deque[tuple[int, bool]] = deque()
        self._refused: deque[int] = deque()  # for now, as by a full disk: MQTT 5 tells, and the device sends again
        self._stopping = threading.Event()
        mqtt5 = protocol == paho.MQTTv5
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=device_id,
            protocol=protocol,
            clean_session=None if mqtt5 else False,
        )
        self._client.username_pw_set(device_id, token)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(50)
        self._client.on_publish = lambda client, data, mid, reason, properties: self._acks.append(
            (mid, not reason.is_failure)
        )
        keep: dict[str, Any] = {}
        if mqtt5:
            keep = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
            keep["properties"].SessionExpiryInterval = 3600
        self._client.connect_async("127.0.0.1", port, **keep)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._work, name=f"load {device_id}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._note_acks()
            if len(self._by_mid) >= 100:
                time.sleep(0.002)
                continue
            if self._refused:
                self._publish(self._refused.popleft())
            else:
                self._publish(self.sent)
                self.sent += 1
            if self._pause_s:
                time.sleep(self._pause_s)
        deadline = time.monotonic() + 20
        while (self._by_mid or self._refused) and time.monotonic() < deadline:
            self._note_acks()
            if self._refused:
                self._publish(self._refused.popleft())
            time.sleep(0.01)
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self, number: int) -> None:
        payload = json.dumps({"ts": self.base_ms + number, "values": {"n": number}})
        info = self._client.publish(f"devices/{self.device_id}/telemetry", payload, qos=1)
        self._by_mid[info.mid] = number

    def _note_acks(self) -> None:
        while self._acks:
            mid, taken = self._acks.popleft()
            number = self._by_mid.pop(mid)
            if taken:
                self.acknowledged.add(number)
            else:
                self._refused.append(number)

    def abandon(self) -> None:
        """Leave without waiting for anything."""
        self._stopping.set()
        self._by_mid.clear()
        self._thread.join(30)

    def stop(self) -> None:
        """Send no more, wait for what is not acknowledged yet, leave."""
        self._stopping.set()
        self._thread.join(30)


async def stored(api: Operator, device_id: str, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
    """Every (ts, n) of a device, asked for in slices below the answer's bound."""
    points: list[tuple[int, float]] = []
    for begin in range(start_ms, end_ms, 5000):
        answer = await api.get(
            f"devices/{device_id}/telemetry", metrics="n", start=begin, end=min(end_ms, begin + 5000)
        )
        series = answer["series"].get("n", {"t": [], "v": []})
        points += zip(series["t"], series["v"], strict=True)
    return points


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * ROUNDS)
async def test_every_acknowledged_point_survives_all_kills_and_none_is_twice(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    base_ms = int(time.time() * 1000) - 3_600_000
    chance = random.Random(7)
    loaders: list[Loader] = []
    try:
        async with operator(server) as api:
            tokens = {f"load-{n}": await api.add_device(f"load-{n}") for n in range(DEVICES)}
        loaders = [
            Loader(device_id, token, server.mqtt_port, base_ms, protocol=[paho.MQTTv311, paho.MQTTv5][n % 2])
            for n, (device_id, token) in enumerate(tokens.items())
        ]
        for _ in range(ROUNDS):
            before = sum(len(loader.acknowledged) for loader in loaders)
            await until(_more_than(loaders, before + 50), timeout_s=20)
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            server.kill()
            server.start()
        await asyncio.to_thread(lambda: [loader.stop() for loader in loaders])
        async with operator(server) as api:
            for loader in loaders:
                assert len(loader.acknowledged) > ROUNDS
                points = await stored(api, loader.device_id, base_ms, base_ms + loader.sent)
                times = [ts for ts, _ in points]
                assert len(times) == len(set(times)), "a point is there twice"
                there = {ts - base_ms for ts in times}
                assert loader.acknowledged <= there, f"{len(loader.acknowledged - there)} acknowledged points lost"
                assert all(value == ts - base_ms for ts, value in points)
    finally:
        server.stop()
        for loader in loaders:
            loader.abandon()


def _more_than(loaders: list[Loader], count: int) -> Any:
    async def claim() -> bool:
        return sum(len(loader.acknowledged) for loader in loaders) > count

    return claim


async def test_command_in_flight_goes_on_after_a_kill(tmp_path: Path) -> None:
    import aiomqtt

    server = MooringProcess(tmp_path / "data")
    server.start()
    try:
        async with operator(server) as api:
            token = await api.add_device("pump-7")
            waiting = await api.post("devices/pump-7/commands", {"name": "reboot", "ttl": 600})
            server.kill()
            server.start()
        options = {"port": server.mqtt_port, "username": "pump-7", "password": token, "identifier": "pump-7"}
        async with operator(server) as api:
            assert (await api.get(f"commands/{waiting['id']}"))["status"] == "queued"
            async with aiomqtt.Client("127.0.0.1", **options) as device:
                await device.subscribe("devices/pump-7/commands/+", qos=1)
                message = await asyncio.wait_for(anext(aiter(device.messages)), 10)
                assert str(message.topic) == f"devices/pump-7/commands/{waiting['id']}"
                await device.publish(f"{message.topic}/status", '{"status": "running"}', qos=1)
            assert (await api.get(f"commands/{waiting['id']}"))["status"] == "running"
        server.kill()
        server.start()
        async with operator(server) as api:
            assert (await api.get(f"commands/{waiting['id']}"))["status"] == "running"
            async with aiomqtt.Client("127.0.0.1", **options) as device:
                await device.publish(
                    f"devices/pump-7/commands/{waiting['id']}/status", '{"status": "succeeded"}', qos=1
                )
            assert (await api.get(f"commands/{waiting['id']}"))["status"] == "succeeded"
    finally:
        server.stop()

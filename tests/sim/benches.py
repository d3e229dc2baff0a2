"""A device on the bench: a clock moved by hand, and shorthands for what it says."""

import hashlib
from collections.abc import Callable
from typing import Any

import cbor2
import orjson

from firmware_sim.device import Device, DeviceOptions, DeviceSpec, Effect
from firmware_sim.luck import Luck
from firmware_sim.signals import Kind
from firmware_sim.update import AgentOptions, Fetch, Restart, StopFetch

NOW = 1_790_000_000.0
IMAGE = bytes(range(256)) * 400  # 102,400 bytes
DIGEST = hashlib.sha256(IMAGE).hexdigest()


def offer(
    job: str = "J1", version: str = "1.1.0", image: bytes = IMAGE, digest: str = "", **more: Any
) -> dict[str, Any]:
    """An offer as the fleet makes it."""
    artifact = {
        "id": "A1",
        "name": "image.bin",
        "size": len(image),
        "sha256": digest or hashlib.sha256(image).hexdigest(),
        "signature": None,
        "url": "",
    }
    return {"job": job, "version": version, "artifact": artifact, "deadline": None} | more


class Bench:
    """One device, booted and online, and everything it says and wants."""

    def __init__(
        self,
        kind: Kind = Kind.PUMP,
        *,
        by_chunks: bool = False,
        luck: Luck | None = None,
        image: bytes = IMAGE,
        **options: Any,
    ) -> None:
        self.now = NOW
        self.image = image
        self.said: list[tuple[str, Any]] = []
        self.fetches: list[Fetch] = []
        self.restarts: list[Restart] = []
        self.answering = True
        self.device = Device(
            DeviceSpec(device_id="sim-0001", kind=kind, serial="00000001"),
            DeviceOptions(**options),
            agent_options=AgentOptions(by_chunks=by_chunks, flash_bytes=1_000_000),
            luck=luck,
        )
        self.do(self.device.boot)
        self.do(self.device.connected)
        self.said.clear()

    def do(self, action: Callable[..., list[Effect]], *arguments: Any) -> None:
        """Have the device do something now, and take down what comes of it."""
        self.take(action(*arguments, self.now))

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Fetch):
                self.fetches.append(effect)
            elif isinstance(effect, Restart):
                self.restarts.append(effect)
            else:
                assert isinstance(effect, StopFetch)
        if not self.device.online:
            return
        while (message := self.device.outbox.head()) is not None:
            self.device.outbox.acknowledged()
            try:
                load = cbor2.loads if message.channel.endswith("cbor") else orjson.loads
                self.said.append((message.channel, load(message.payload)))
            except ValueError:
                self.said.append((message.channel, message.payload))

    def tell(self, channel: str, fields: Any) -> None:
        """A downlink in JSON."""
        self.do(self.device.receive, channel, orjson.dumps(fields))

    def run(self, seconds: float) -> None:
        """Move the clock, doing what falls due, answering what the device asks for, and giving power back."""
        until = self.now + seconds
        for _ in range(10_000):
            self._serve()
            if self.restarts:
                self.reboot()
                continue
            if self.device.due > until:
                break
            self.now = max(self.now, self.device.due)
            self.do(self.device.tick)
        self.now = until

    def reboot(self) -> None:
        """Power goes and comes back."""
        self.now += self.restarts.pop(0).down_s
        self.do(self.device.disconnected)
        self.do(self.device.boot)
        self.do(self.device.connected)

    def on(self, channel: str) -> list[Any]:
        """What was said on a channel."""
        return [fields for name, fields in self.said if name == channel]

    def statuses(self) -> list[str]:
        """The update's states, as reported."""
        return [fields["status"] for fields in self.on("ota/status")]

    def _serve(self) -> None:
        while self.answering and self.fetches and not self.restarts:
            wanted = self.fetches.pop(0)
            for start in range(wanted.offset, len(self.image), 10_000):
                self.do(self.device.fetched, wanted.job, start, self.image[start : start + 10_000])
        asked = self.on("ota/chunk/get")
        self.said = [item for item in self.said if item[0] != "ota/chunk/get"]
        for ask in asked if self.answering else []:
            data = self.image[ask["offset"] : ask["offset"] + ask["length"]]
            self.do(self.device.receive, f"ota/chunk/{ask['job']}/{ask['offset']}", data)

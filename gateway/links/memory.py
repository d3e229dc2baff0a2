"""A link without a wire: devices in the same process, for tests and examples. It never leaves the event loop.

link = MemoryLink()
device = link.device("pump-7")
device.connect()
outcome = await device.publish("telemetry", {"temperature": 21.5})
await device.next()          # the next downlink; all of them are in device.received
"""

import asyncio
import json
import time
from collections.abc import Sequence

from gateway.channels import is_device_id, is_uplink
from gateway.link import Downlink, Outcome, Receiver, Uplink
from gateway.refusals import unknown_channel

RECEIVED_LIMIT = 10_000  # downlinks a device keeps; `send` is False for more, as for a full broker queue


class NotConnected(Exception):
    """The device is not connected to the link, or the link has not been started."""


class MemoryDevice:
    """One device at a memory link. Made by `MemoryLink.device`."""

    def __init__(self, link: "MemoryLink", device_id: str) -> None:
        self._link = link
        self._unread = 0
        self._news = asyncio.Event()
        self.device_id = device_id
        self.is_connected = False
        self.received: list[Downlink] = []
        self.dropped_because = ""

    def connect(self, address: str = "memory") -> None:
        """Appear at the link; nothing happens when the device is there already."""
        if not self.is_connected:
            receiver = self._link.receiver
            self.is_connected = True
            receiver.connected(self.device_id, self._link.name, address)

    def disconnect(self, reason: str = "client disconnected") -> None:
        """Leave; nothing happens when the device is not there."""
        if self.is_connected:
            self.is_connected = False
            self.dropped_because = reason
            self._link.receiver.disconnected(self.device_id, self._link.name, reason)

    def post(self, channel: str, payload: object, content_type: str | None = None) -> asyncio.Future[Outcome]:
        """Hand one message over; the future is done when the gateway has acknowledged it. Raises NotConnected."""
        if not self.is_connected:
            raise NotConnected(self.device_id)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if not is_uplink(channel):
            answer.set_result(unknown_channel(channel))
            return answer

        def done(outcomes: Sequence[Outcome]) -> None:
            if not answer.done():  # the publisher may have given up
                answer.set_result(outcomes[0])

        uplink = Uplink(
            device_id=self.device_id,
            channel=channel,
            payload=payload if isinstance(payload, bytes) else json.dumps(payload).encode(),
            received_at_ms=time.time_ns() // 1_000_000,
            content_type=content_type,
            link=self._link.name,
        )
        self._link.receiver.uplinks([uplink], done)
        return answer

    async def publish(self, channel: str, payload: object, content_type: str | None = None) -> Outcome:
        """Hand one message over (bytes as they are, anything else as JSON) and wait for what became of it."""
        return await self.post(channel, payload, content_type)

    async def next(self) -> Downlink:
        """The next downlink not yet returned here."""
        while self._unread >= len(self.received):
            self._news.clear()
            await self._news.wait()
        self._unread += 1
        return self.received[self._unread - 1]

    def deliver(self, downlink: Downlink) -> bool:
        """Take a downlink; False when the device is away or has RECEIVED_LIMIT of them."""
        if not self.is_connected or len(self.received) >= RECEIVED_LIMIT:
            return False
        self.received.append(downlink)
        self._news.set()
        return True


class MemoryLink:
    """Devices in the same process."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self._receiver: Receiver | None = None
        self._devices: dict[str, MemoryDevice] = {}

    @property
    def receiver(self) -> Receiver:
        """Whom the link was started with. Raises NotConnected before that and after `stop`."""
        if self._receiver is None:
            raise NotConnected(f"the {self.name} link is not running")
        return self._receiver

    def device(self, device_id: str) -> MemoryDevice:
        """The device of this name, made at the first call, not yet connected."""
        if not is_device_id(device_id):
            raise ValueError(f"not a device id: {device_id!r}")
        return self._devices.setdefault(device_id, MemoryDevice(self, device_id))

    async def start(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def stop(self) -> None:
        for device in self._devices.values():
            device.disconnect("server shutting down")
        self._receiver = None

    async def send(self, downlink: Downlink) -> bool:
        device = self._devices.get(downlink.device_id)
        return device is not None and device.deliver(downlink)

    async def kick(self, device_id: str, reason: str) -> int:
        device = self._devices.get(device_id)
        if device is None or not device.is_connected:
            return 0
        device.disconnect(reason)
        return 1

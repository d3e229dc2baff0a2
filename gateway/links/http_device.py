"""Who is there over HTTP: each device's mailbox, its waiting polls, and when it last asked for anything."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from gateway.channels import COMMANDS, OTA_OFFER, TWIN
from gateway.link import Downlink, Receiver
from gateway.links.activity import Activity
from gateway.links.http_cut import cut
from gateway.links.http_mailbox import Budget, Mailbox
from gateway.links.http_problem import Problem, unauthorized

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttendanceOptions:
    """Bounds on what is kept for devices."""

    silence_s: float = 60.0
    devices_limit: int = 50_000
    mail_limit_bytes: int = 64 * 1024 * 1024
    """All mailboxes together."""
    polls_limit: int = 4
    """Requests of one device that may wait for something at a time."""


class HttpDevice:
    """One device, from its first request to its silence or its kick."""

    def __init__(self, device_id: str, mailbox: Mailbox, *, since: float, polls_limit: int) -> None:
        self.device_id = device_id
        self.mailbox = mailbox
        self.since = since
        self.requests = 0
        self.twin_readers = 0
        """Requests that have asked for the twin and wait for it."""
        self.is_kicked = False
        self.is_closing = False
        self._polls_limit = polls_limit
        self._waiting: set[asyncio.Future[None]] = set()
        self._downloads: set[asyncio.Transport] = set()

    @property
    def polls(self) -> int:
        """How many requests are waiting for something."""
        return len(self._waiting)

    async def poll(self, look: Callable[[], _T | None], wait_s: float) -> _T | None:
        """What `look` finds, now or within `wait_s`; None when it is nothing. Raises Problem 401, 429."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            if self.is_kicked:
                raise unauthorized("the device's access was withdrawn", token_was_given=True)
            found = look()
            if found is not None or self.is_closing or loop.time() >= deadline:
                return found
            if len(self._waiting) >= self._polls_limit:
                raise Problem(429, "this device is waiting in too many requests", retry_after_s=1)
            news = loop.create_future()
            self._waiting.add(news)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await news
            finally:
                self._waiting.discard(news)

    def deliver(self, downlink: Downlink) -> bool:
        """Put a downlink where the device finds it; False for what it cannot ask for here, or has no room for."""
        root, _, rest = downlink.channel.partition("/")
        if root == COMMANDS and rest:
            kept = self.mailbox.put_command(rest, downlink.payload)
        elif downlink.channel == OTA_OFFER:
            kept = self.mailbox.put_offer(downlink.payload)
        elif downlink.channel == TWIN:
            kept = self.twin_readers > 0 and self.mailbox.put_twin(downlink.payload)
        else:
            return False
        if kept:
            self._wake()
        return kept

    @contextlib.contextmanager
    def download(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """A connection that a kick has to break, since its answer is long."""
        if transport is None:
            raise ConnectionResetError("the device has gone")
        self._downloads.add(transport)
        try:
            yield
        finally:
            self._downloads.discard(transport)

    def kick(self) -> None:
        """Answer what waits with 401, break off downloads, forget the mail."""
        self.is_kicked = True
        self.mailbox.clear()
        self._wake()
        for transport in self._downloads:
            cut(transport)

    def close(self) -> None:
        """Let everything that waits end with what there is."""
        self.is_closing = True
        self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)


class Attendance:
    """The devices that are there. `receiver` is told of comings and goings."""

    def __init__(
        self,
        options: AttendanceOptions,
        receiver: Receiver,
        *,
        link: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._receiver = receiver
        self._link = link
        self._clock = clock
        self._activity = Activity(timeout_s=options.silence_s, limit=options.devices_limit)
        self._budget = Budget(options.mail_limit_bytes)
        self._devices: dict[str, HttpDevice] = {}
        self._visitors: dict[str, set[HttpDevice]] = {}
        self.kicks = 0
        """Counts up, so that whoever was being authenticated meanwhile can tell."""

    def __len__(self) -> int:
        return len(self._devices)

    def admit(self, device_id: str, address: str) -> HttpDevice:
        """The device, which has just shown a valid token. Raises Problem 503 when too many are there."""
        now = self._clock()
        if self._activity.seen(device_id, now):
            mailbox = Mailbox(budget=self._budget)
            self._devices[device_id] = HttpDevice(device_id, mailbox, since=now, polls_limit=self._options.polls_limit)
            self._receiver.connected(device_id, self._link, address)
        device = self._devices.get(device_id)
        if device is None:
            raise Problem(503, "too many devices", retry_after_s=60)
        return device

    def visit(self, device_id: str) -> HttpDevice:
        """The device, for one request that is no sign of its being here: one that lives on MQTT fetches firmware."""
        device = self._devices.get(device_id)
        if device is None:
            mailbox = Mailbox(budget=self._budget)
            device = HttpDevice(device_id, mailbox, since=self._clock(), polls_limit=self._options.polls_limit)
            self._visitors.setdefault(device_id, set()).add(device)
        return device

    def is_new(self, device: HttpDevice, within_s: float) -> bool:
        """Whether the device appeared less than `within_s` ago."""
        return self._clock() - device.since < within_s

    @contextlib.contextmanager
    def request(self, device: HttpDevice) -> Iterator[None]:
        """A request under way: the device does not fall silent meanwhile."""
        device.requests += 1
        try:
            yield
        finally:
            device.requests -= 1
            if self._devices.get(device.device_id) is device:
                self._activity.seen(device.device_id, self._clock())
            elif visitors := self._visitors.get(device.device_id):
                visitors.discard(device)
                if not visitors:
                    del self._visitors[device.device_id]

    def deliver(self, downlink: Downlink) -> bool:
        device = self._devices.get(downlink.device_id)
        return device is not None and device.deliver(downlink)

    def kick(self, device_id: str, reason: str) -> int:
        """End the device's requests and presence; returns how many requests waited, at least 1 when it was there."""
        self.kicks += 1
        visitors = self._visitors.pop(device_id, set())
        for visitor in visitors:
            visitor.kick()
        device = self._devices.pop(device_id, None)
        if device is None:
            return len(visitors)
        count = max(1, device.requests) + len(visitors)
        self._activity.forget(device_id)
        device.kick()
        logger.info("%s: HTTP access ended: %s", device_id, reason)
        self._receiver.disconnected(device_id, self._link, reason)
        return count

    def expire_silent(self) -> None:
        """Report the devices that have not asked for anything for `silence_s` as gone."""
        now = self._clock()
        for device_id in self._activity.expire(now):
            device = self._devices[device_id]
            if device.requests:
                self._activity.seen(device_id, now)
                continue
            del self._devices[device_id]
            device.mailbox.clear()
            self._receiver.disconnected(device_id, self._link, f"no request for {self._options.silence_s:.0f} s")

    def close(self) -> None:
        """Let every poll end."""
        for device in self._devices.values():
            device.close()

    def clear(self) -> None:
        """Report everybody as gone: the server is."""
        devices, self._devices = self._devices, {}
        for device_id, device in devices.items():
            self._activity.forget(device_id)
            device.mailbox.clear()
            self._receiver.disconnected(device_id, self._link, "server shutting down")

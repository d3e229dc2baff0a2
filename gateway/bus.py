"""The live bus: what just happened, for whoever watches. Bounded, lossy, never awaited by those who publish.

A subscriber that does not keep up loses its oldest events and is told how many; it holds nobody up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. `channel` is a live view's channel: telemetry, presence, commands, campaigns, messages, overview.

    `data` is ready for JSON, except on "telemetry", where `readings` hold [(metric, ts_ms, value), …].
    """

    channel: str
    device_id: str | None
    data: dict[str, Any]


class Subscription:
    """A bounded queue of events. Read it with `await next()` or `drain()`; leave it with `close()`."""

    def __init__(
        self, bus: "Bus", channels: frozenset[str], limit: int, wants: Callable[[str | None], bool] | None
    ) -> None:
        self._bus = bus
        self._events: deque[Event] = deque()
        self._limit = limit
        self._wake = asyncio.Event()
        self.channels = channels
        self.wants = wants
        self.dropped = 0

    def offer(self, event: Event) -> None:
        if len(self._events) >= self._limit:
            self._events.popleft()
            self.dropped += 1
        self._events.append(event)
        self._wake.set()

    async def wait(self) -> None:
        """Return once there is at least one event."""
        await self._wake.wait()

    def drain(self) -> list[Event]:
        """All waiting events, oldest first; the queue is empty afterwards."""
        events = list(self._events)
        self._events.clear()
        self._wake.clear()
        return events

    def take(self) -> Event | None:
        """The oldest waiting event, at once; None: there is none."""
        if not self._events:
            self._wake.clear()
            return None
        return self._events.popleft()

    async def next(self) -> Event:
        """The oldest waiting event."""
        while not self._events:
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def close(self) -> None:
        self._bus.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Bus:
    """Passes each event to every subscription of its channel, in the caller's turn of the event loop."""

    def __init__(self) -> None:
        self._by_channel: dict[str, list[Subscription]] = {}

    def subscribe(
        self, channels: Iterable[str], *, limit: int = 10_000, wants: Callable[[str | None], bool] | None = None
    ) -> Subscription:
        """`limit` is in events; the oldest is dropped when it is reached. `wants`: of which devices; None: of all."""
        subscription = Subscription(self, frozenset(channels), limit, wants)
        for channel in subscription.channels:
            self._by_channel.setdefault(channel, []).append(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        for channel in subscription.channels:
            members = self._by_channel.get(channel, [])
            if subscription in members:
                members.remove(subscription)

    def publish(self, event: Event) -> None:
        for subscription in self._by_channel.get(event.channel, ()):
            if subscription.wants is None or subscription.wants(event.device_id):
                subscription.offer(event)

    def watched(self, channel: str, device_id: str | None = None) -> bool:
        """Whether anybody would see an event on this channel about the device: spare the making of it when not."""
        for subscription in self._by_channel.get(channel, ()):
            if subscription.wants is None or subscription.wants(device_id):
                return True
        return False

"""Live views: one WebSocket a browser page, any number of subscriptions on it.

The hub takes events from the bus and hands them to the views that watch for them, and never waits for anybody; nor
does it make anybody wait: however many watch, it takes a part of the event loop, and events beyond that are dropped. A
slow browser makes its own pump wait (live_client.py): its views join and drop meanwhile, within their bounds.
"""

import asyncio
import logging
import time

import orjson
from aiohttp import web

from gateway.bus import Event, Subscription
from web.access import is_own_origin
from web.api.problem import Problem
from web.live_client import CLOSE_S, GOING_AWAY, HEARTBEAT_S, LiveClient
from web.live_views import AnyView, Watchers
from web.overview import Overviews
from web.parts import Parts

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 8192
HUB_PAUSE_S = 0.02  # joins what arrives within it; nobody sees 20 ms
HUB_TURN_S = 0.005  # of the event loop at a time, then a rest of four times that: at most a fifth of it in all
HUB_REST = 4.0
QUEUE_EVENTS = 20_000  # of a bus queue; the oldest go when it is full, and those who watch are told


class LiveViews:
    """The hub, and the endpoint's handler."""

    def __init__(self, parts: Parts, overviews: Overviews) -> None:
        self._parts = parts
        self._overviews = overviews
        self._watchers = Watchers()
        self._clients: set[LiveClient] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: list[Subscription] = []
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def start(self) -> None:
        bus = self._parts.gateway.bus
        # Readings have a queue of their own: a flood of them must not push out the few changes that matter.
        for subscription in (
            bus.subscribe(["telemetry"], limit=QUEUE_EVENTS, wants=self._watchers.want_values),
            bus.subscribe(["presence", "commands", "campaigns", "messages"], limit=QUEUE_EVENTS),
        ):
            self._subscriptions.append(subscription)
            name = f"live views: {min(subscription.channels)}"
            self._tasks.append(asyncio.create_task(self._pass_on(subscription), name=name))

    async def stop(self) -> None:
        """Close every client and stop."""
        await asyncio.gather(*(client.close(GOING_AWAY, "the server is stopping") for client in list(self._clients)))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for subscription in self._subscriptions:
            subscription.close()
        self._tasks.clear()
        self._subscriptions.clear()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The endpoint. Raises Problem 403 for a page of another site, 503 when there are too many."""
        origin = request.headers.get("Origin")
        if origin is not None and not is_own_origin(origin, request.host, self._parts.options):
            raise Problem(403, "live views are for this server's own pages")
        if len(self._clients) >= self._parts.options.live_limit:
            raise Problem(503, "too many live views at the moment", headers={"Retry-After": "10"})
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=CLOSE_S
        )
        if not socket.can_prepare(request).ok:
            raise Problem(426, "this address speaks WebSocket", headers={"Upgrade": "websocket"})
        client = LiveClient(request, socket, self, self._parts)
        self._clients.add(client)
        try:
            await socket.prepare(request)
            await client.run()
        finally:
            self._clients.discard(client)
        return socket

    def watch(self, view: AnyView) -> None:
        self._watchers.add(view)

    def leave(self, view: AnyView) -> None:
        self._watchers.remove(view)

    async def overview(self) -> bytes:
        """The overview's frame data, the same for everybody."""
        return (await self._overviews.overview()).model_dump_json().encode()

    async def _pass_on(self, subscription: Subscription) -> None:
        lost = 0
        while True:
            await subscription.wait()
            began = time.monotonic()
            while time.monotonic() - began < HUB_TURN_S and (event := subscription.take()) is not None:
                try:
                    self._hand_out(event)
                except Exception:
                    logger.exception("an event on %s could not be shown", event.channel)
            if subscription.dropped > lost:
                # Which views they were for is not known any more: all that watch these channels are told.
                for view in self._watchers.everybody():
                    if view.channel in subscription.channels:
                        view.lost(subscription.dropped - lost)
                self.dropped += subscription.dropped - lost
                lost = subscription.dropped
            for client in self._clients:
                client.wake()
            await asyncio.sleep(max(HUB_PAUSE_S, HUB_REST * (time.monotonic() - began)))

    def _hand_out(self, event: Event) -> None:
        if event.channel == "telemetry":
            if event.device_id is not None:
                for values in self._watchers.of_values(event.device_id):
                    values.offer(event.device_id, event.data["readings"])
            return
        views = self._watchers.of_events(event.channel, event.device_id)
        if not views:
            return
        data = orjson.dumps(event.data)
        for view in views:
            view.offer(data)

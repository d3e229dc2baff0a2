"""One browser's WebSocket: its views, its pump, and its right to be here.

The reader is the request's own task; the pump is one more, and alone writes once the client has signed in. A token
is looked at again every second, so that signing out, a new role or the token's end close what it opened; a client
with a fresh token sends it in another auth frame and stays.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any, Protocol

import orjson
from aiohttp import WSMessage, WSMsgType, web
from pydantic import ValidationError

from fleet.errors import FleetError, NotFound, Unauthorized
from gateway.store import StoreError
from web.live_snapshots import snapshot
from web.live_views import AnyView, EventView, ValueView, error_frame, event_frame
from web.parts import Parts
from web.schemas.live import FRAME, AuthFrame, LiveChannel, SubscribeFrame

logger = logging.getLogger(__name__)

AUTH_S = 5.0
RECHECK_S = 1.0
HEARTBEAT_S = 20.0
CLOSE_S = 2.0
SEND_S = 30.0  # a browser that took nothing for so long is gone, or its tab sleeps: it will connect again
MAX_VIEWS = 64
RATE_PER_S = 20.0
BURST = 100.0  # a page subscribes to all it shows at once
HEARTBEAT = b'{"type":"heartbeat"}'

GOING_AWAY = 1001
INTERNAL_ERROR = 1011
UNAUTHORIZED = 4401
TOO_FAST = 4429


class Hub(Protocol):
    """What a client needs of the hub."""

    def watch(self, view: AnyView) -> None:
        """Hand it what happens from now on."""
        ...

    def leave(self, view: AnyView) -> None: ...

    async def overview(self) -> bytes:
        """The overview in JSON, the same for everybody."""
        ...


class LiveClient:
    """One WebSocket: its views, its pump, and its right to be here."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, hub: Hub, parts: Parts) -> None:
        self._request = request
        self._socket = socket
        self._hub = hub
        self._parts = parts
        self._views: dict[int | str, AnyView] = {}
        self._overviews: set[int | str] = set()
        self._own: list[bytes] = []
        """Snapshots and errors: at most one per frame that the client sent, and it is held to RATE_PER_S."""
        self._wake = asyncio.Event()
        self._token = ""
        self._user_id = ""
        self._closing: tuple[int, str] | None = None
        self._pump_is_closing = False
        self._allowance = BURST
        self._allowed_at = time.monotonic()

    def wake(self) -> None:
        """There may be something to send."""
        if any(view.is_waiting for view in self._views.values()):
            self._wake.set()

    async def close(self, code: int, reason: str) -> None:
        """Say why and close; a client that does not take even that is cut off."""
        try:
            async with asyncio.timeout(2 * CLOSE_S):
                await self._socket.close(code=code, message=reason.encode())
        except (TimeoutError, ConnectionError, RuntimeError):
            self._cut_off()

    def _cut_off(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def run(self) -> None:
        """Serve until the client leaves, or must."""
        if not await self._sign_in():
            await self.close(UNAUTHORIZED, "sign in first: the first frame is an auth frame")
            return
        pump = asyncio.create_task(self._pump(), name=f"live view of {self._request.remote}")
        try:
            async for message in self._socket:
                if not await self._receive(message):
                    break
        finally:
            for view in self._views.values():
                self._hub.leave(view)
            if not self._pump_is_closing:
                pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            if self._closing is not None:
                await self.close(*self._closing)

    async def _sign_in(self) -> bool:
        try:
            async with asyncio.timeout(AUTH_S):
                message = await self._socket.receive()
        except TimeoutError:
            return False
        frame = _frame(message)
        return isinstance(frame, AuthFrame) and await self._take_token(frame.token)

    async def _take_token(self, token: str) -> bool:
        try:
            user = await self._parts.fleet.people.verify(token)
        except Unauthorized:
            return False
        if self._user_id not in ("", user.id):
            return False
        self._token, self._user_id = token, user.id
        return True

    async def _receive(self, message: WSMessage) -> bool:
        """Do what a frame says; False when the connection is to end."""
        if not self._may_send():
            self._closing = (TOO_FAST, "too many frames")
            return False
        frame = _frame(message)
        if isinstance(frame, str):
            self._say(error_frame(None, frame))
        elif isinstance(frame, AuthFrame):
            if not await self._take_token(frame.token):
                self._closing = (UNAUTHORIZED, "the token is not valid, or another person's")
                return False
        elif isinstance(frame, SubscribeFrame):
            await self._subscribe(frame)
        else:
            self._unsubscribe(frame.id)
        return True

    def _may_send(self) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._allowed_at) * RATE_PER_S)
        self._allowed_at = now
        self._allowance -= 1
        return self._allowance >= 0

    def _say(self, frame: bytes) -> None:
        self._own.append(frame)
        self._wake.set()

    async def _subscribe(self, frame: SubscribeFrame) -> None:
        if frame.id in self._views or frame.id in self._overviews:
            return self._say(error_frame(frame.id, "this id is in use"))
        if len(self._views) + len(self._overviews) >= MAX_VIEWS:
            return self._say(error_frame(frame.id, f"at most {MAX_VIEWS} subscriptions"))
        if frame.channel is LiveChannel.OVERVIEW:
            self._overviews.add(frame.id)
            return self._wake.set()
        kind = ValueView if frame.channel is LiveChannel.TELEMETRY else EventView
        view = kind(frame.id, frame.channel.value, frame.device)
        # Watched before the snapshot is made, so that nothing falls between the two; sent only after it, since the
        # pump does not know the view before it is in _views.
        self._hub.watch(view)
        try:
            present = await snapshot(self._parts, frame.channel, frame.device)
        except (FleetError, StoreError) as error:
            self._hub.leave(view)
            detail = str(error) if isinstance(error, NotFound) else "the present state could not be read"
            return self._say(error_frame(frame.id, detail))
        except BaseException:
            self._hub.leave(view)
            raise
        if isinstance(view, ValueView) and frame.device is not None:
            view.begin(frame.device, {metric: point["ts"] for metric, point in present["series"].items()})
        self._views[frame.id] = view
        return self._say(event_frame(frame.id, orjson.dumps(present), snapshot=True))

    def _unsubscribe(self, id: int | str) -> None:  # noqa: A002
        self._overviews.discard(id)
        view = self._views.pop(id, None)
        if view is not None:
            self._hub.leave(view)

    async def _pump(self) -> None:
        """Write until the connection ends, or is ended here because it may not go on."""
        try:
            ending = await self._write()
        except Exception:
            logger.exception("%s: a live view failed", self._request.remote)
            ending = (INTERNAL_ERROR, "something went wrong; connect again")
        self._pump_is_closing = True
        if ending is None:
            self._cut_off()
        else:
            await self.close(*ending)

    async def _write(self) -> tuple[int, str] | None:
        """Send what is due; look at the token; begin again. Gives why it ended; None: out of reach."""
        check_at = time.monotonic() + RECHECK_S
        beat_at = time.monotonic() + HEARTBEAT_S
        overview_at = 0.0
        while True:
            now = time.monotonic()
            if now >= check_at:
                if not await self._take_token(self._token):
                    return UNAUTHORIZED, "the token is not valid any more"
                check_at = now + RECHECK_S
            frames, self._own = self._own, []
            for view in list(self._views.values()):
                frames += view.take(now)
            if self._overviews and now >= overview_at:
                data = await self._hub.overview()
                frames += [event_frame(id, data, snapshot=not overview_at) for id in self._overviews]  # noqa: A001
                overview_at = now + 1.0
            if now >= beat_at:
                # A page's script does not see WebSocket pings: this tells it that the silence is only silence.
                frames.append(HEARTBEAT)
                beat_at = now + HEARTBEAT_S
            if frames and not await self._send(frames):
                return None
            self._wake.clear()
            due = [view.due_at(now) for view in self._views.values() if view.is_waiting]
            until = min([check_at, beat_at, *due, *([overview_at] if self._overviews else [])])
            if self._own:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await self._wake.wait()

    async def _send(self, frames: list[bytes]) -> bool:
        try:
            async with asyncio.timeout(SEND_S):
                for frame in frames:
                    await self._socket.send_str(frame.decode())
        except TimeoutError:
            logger.info("%s: a live view took nothing for %.0f s and is closed", self._request.remote, SEND_S)
            return False
        except (ConnectionError, RuntimeError):
            return False  # it is closing; the reader sees that too
        return True


def _frame(message: WSMessage) -> Any:
    """The frame in a message, or what is wrong with it."""
    if message.type is not WSMsgType.TEXT:
        return "frames are JSON text"
    try:
        return FRAME.validate_json(message.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".removeprefix(": ")

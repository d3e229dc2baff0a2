"""A server small enough to read: the admin API, the device HTTP API, and the fleet's side of MQTT, all scripted."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import cbor2
import orjson
from aiohttp import web

from firmware_sim import SimOptions, SimReport, Snapshot, View, run
from tests.sim.benches import IMAGE

Handler = Callable[[web.Request], Any]


class FakeServer:
    """Both HTTP APIs on one port. What devices say is in `said`; what they are to be told is put in by the tests."""

    def __init__(self) -> None:
        self.url = ""
        self.devices: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, list[str]] = defaultdict(list)
        self.said: list[tuple[str, str, Any]] = []
        self.heard = asyncio.Condition()
        self.commands: dict[str, asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)
        self.offers: dict[str, asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)
        self.desired: dict[str, Any] = {}
        self.answers: dict[str, list[web.Response]] = defaultdict(list)
        """Answers to give instead, by "METHOD path"."""
        self.ranges: list[str] = []
        self.cut_download_at: int | None = None
        self.logins = 0

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._scripted])
        app.router.add_post("/api/v1/auth/login", self._login)
        app.router.add_post("/api/v1/devices", self._create)
        app.router.add_get("/api/v1/devices/{id}/credentials", self._credentials)
        app.router.add_post("/api/v1/devices/{id}/credentials", self._add_credential)
        app.router.add_delete("/api/v1/devices/{id}/credentials/{cid}", self._revoke)
        app.router.add_get("/device/v1/twin", self._twin)
        app.router.add_patch("/device/v1/twin", self._take("twin/reported"))
        app.router.add_post("/device/v1/telemetry", self._take("telemetry", 202))
        app.router.add_post("/device/v1/events", self._take("events"))
        app.router.add_get("/device/v1/commands", self._commands)
        app.router.add_post("/device/v1/commands/{id}/status", self._take("commands/{id}/status"))
        app.router.add_get("/device/v1/ota", self._ota)
        app.router.add_post("/device/v1/ota/{id}/status", self._take("ota/status"))
        app.router.add_get("/device/v1/artifacts/{id}", self._artifact)
        return app

    async def until(self, claim: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until what was said makes `claim` true."""
        async with asyncio.timeout(timeout_s), self.heard:
            await self.heard.wait_for(claim)

    async def hear(self, device_id: str, channel: str, fields: Any) -> None:
        async with self.heard:
            self.said.append((device_id, channel, fields))
            self.heard.notify_all()

    def on(self, channel: str, device_id: str | None = None) -> list[Any]:
        """What was said on a channel."""
        return [fields for who, name, fields in self.said if name == channel and device_id in (None, who)]

    def statuses(self, channel: str = "ota/status") -> list[str]:
        return [fields["status"] for fields in self.on(channel)]

    @web.middleware
    async def _scripted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answers = self.answers[f"{request.method} {request.path}"]
        if answers:
            return answers.pop(0)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path.startswith("/device/"):
            found = [device_id for device_id, tokens in self.tokens.items() if bearer in tokens]
            if not found:
                return problem(401, "the token is not known")
            request["device"] = found[0]
        elif request.path != "/api/v1/auth/login" and bearer != "admin-token":
            return problem(401, "the access token is not valid")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _login(self, request: web.Request) -> web.Response:
        self.logins += 1
        if await request.json() != {"username": "admin", "password": "correct horse"}:
            return problem(401, "user name or password is wrong")
        return web.json_response({"access_token": "admin-token", "token_type": "Bearer", "expires_in": 900})

    async def _create(self, request: web.Request) -> web.Response:
        device = await request.json()
        if device["id"] in self.devices:
            return problem(409, "the device exists")
        self.devices[device["id"]] = device
        credentials = {"type": "token", "token": self._issue(device["id"])}
        return web.json_response(device | {"credentials": credentials}, status=201)

    def _issue(self, device_id: str) -> str:
        token = f"token-{device_id}-{len(self.tokens[device_id])}"
        self.tokens[device_id].append(token)
        return token

    async def _credentials(self, request: web.Request) -> web.Response:
        tokens = self.tokens[request.match_info["id"]]
        items = [
            {"id": token, "created_at": f"2026-01-0{number + 1}T00:00:00.000Z", "revoked_at": None}
            for number, token in enumerate(tokens)
        ]
        return web.json_response({"items": items, "next_cursor": None})

    async def _add_credential(self, request: web.Request) -> web.Response:
        device_id = request.match_info["id"]
        if len(self.tokens[device_id]) >= 2:
            return problem(409, "two credentials are valid already")
        return web.json_response({"id": "C1", "type": "token", "token": self._issue(device_id)}, status=201)

    async def _revoke(self, request: web.Request) -> web.Response:
        self.tokens[request.match_info["id"]].remove(request.match_info["cid"])
        return web.Response(status=204)

    async def _twin(self, request: web.Request) -> web.Response:
        return web.json_response({"desired": self.desired, "reported": {}, "version": 1})

    def _take(self, channel: str, status: int = 204) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            body = await request.read()
            fields = cbor2.loads(body) if request.content_type == "application/cbor" else orjson.loads(body)
            await self.hear(request["device"], channel.format(**request.match_info), fields)
            return web.Response(status=status)

        return handler

    async def _commands(self, request: web.Request) -> web.Response:
        item = await _wait(self.commands[request["device"]], request)
        return web.json_response({"items": [item] if item else []})

    async def _ota(self, request: web.Request) -> web.Response:
        item = await _wait(self.offers[request["device"]], request)
        return web.json_response(item) if item else web.Response(status=204)

    async def _artifact(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        response = web.StreamResponse(status=206 if wanted else 200)
        response.content_length = len(IMAGE) - start
        if wanted:
            response.headers["Content-Range"] = f"bytes {start}-{len(IMAGE) - 1}/{len(IMAGE)}"
        await response.prepare(request)
        end = len(IMAGE)
        if self.cut_download_at is not None:
            end, self.cut_download_at = self.cut_download_at, None
        await response.write(IMAGE[start:end])
        if end < len(IMAGE) and request.transport is not None:
            await asyncio.sleep(0.05)  # the bytes should arrive before the reset does
            request.transport.abort()
        return response


def problem(status: int, detail: str, **headers: str) -> web.Response:
    """A problem+json answer."""
    body = {"type": "about:blank", "title": "no", "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)


@contextlib.asynccontextmanager
async def running(chosen: SimOptions, view: View | None = None) -> "AsyncIterator[asyncio.Future[SimReport]]":
    """A swarm in the background; stopped, with its report to be awaited, at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(chosen, view=view, stop=stop), name="swarm")
    report: asyncio.Future[SimReport] = asyncio.get_running_loop().create_future()
    try:
        yield report
    finally:
        stop.set()
        report.set_result(await task)


@contextlib.asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    """A FakeServer, listening."""
    server = FakeServer()
    runner = web.AppRunner(server.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


class FakeFleet:
    """The fleet's side of MQTT: hears everything, answers chunk requests, and says what it is told to say."""

    def __init__(self, server: FakeServer, client: aiomqtt.Client) -> None:
        self._server = server
        self._client = client

    async def tell(self, device_id: str, channel: str, fields: Any) -> None:
        payload = fields if isinstance(fields, bytes) else orjson.dumps(fields)
        await self._client.publish(f"devices/{device_id}/{channel}", payload, qos=1)

    async def hear(self) -> None:
        await self._client.subscribe("devices/#", qos=1)
        async for message in self._client.messages:
            _, device_id, channel = message.topic.value.split("/", 2)
            payload = bytes(message.payload)  # type: ignore[arg-type]
            if channel == "ota/chunk/get":
                wanted = orjson.loads(payload)
                start = wanted["offset"]
                chunk = IMAGE[start : start + wanted["length"]]
                await self.tell(device_id, f"ota/chunk/{wanted['job']}/{start}", chunk)
            elif channel == "twin/get":
                await self.tell(device_id, "twin", {"desired": self._server.desired, "reported": {}, "version": 1})
            if not channel.startswith("ota/chunk/J"):
                with contextlib.suppress(ValueError):
                    fields = cbor2.loads(payload) if channel.endswith("cbor") else orjson.loads(payload)
                    await self._server.hear(device_id, channel, fields)


@contextlib.asynccontextmanager
async def fake_fleet(server: FakeServer, port: int) -> AsyncIterator[FakeFleet]:
    """A FakeFleet on a broker; what it hears goes to `server`."""
    async with aiomqtt.Client("127.0.0.1", port, identifier="fleet", username="fleet", password="fleet") as client:
        fleet = FakeFleet(server, client)
        task = asyncio.create_task(fleet.hear(), name="fake-fleet")
        try:
            yield fleet
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Watch(View):
    """A view that draws nothing: it waits for a picture that makes a claim true."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: asyncio.Queue[Snapshot] = asyncio.Queue(maxsize=1)

    @property
    def every_s(self) -> float:
        return 0.02

    def note(self, text: str) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        if self.pictures.full():
            self.pictures.get_nowait()
        self.pictures.put_nowait(snapshot)

    async def until(self, claim: Callable[[Snapshot], bool], timeout_s: float = 20.0) -> None:
        """Wait for a picture that makes `claim` true."""
        async with asyncio.timeout(timeout_s):
            while not claim(await self.pictures.get()):
                pass


async def _wait(queue: "asyncio.Queue[dict[str, Any]]", request: web.Request) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(float(request.query.get("wait", "0"))):
            return await queue.get()
    except TimeoutError:
        return None

"""The handlers of the device HTTP API (docs/device-http.md), one per route, and what all of them share."""

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson
from aiohttp import web

from broker.allowance import Allowances
from gateway.channels import COMMANDS, EVENTS, OTA_STATUS, TELEMETRY, TWIN_GET, TWIN_REPORTED, is_device_id, is_uplink
from gateway.link import Outcome, Receiver, Uplink
from gateway.links.http_artifact import Downloads
from gateway.links.http_body import (
    BYTES,
    CBOR,
    COMPRESSED,
    JSON,
    MERGE_PATCH,
    SENML_CBOR,
    SENML_JSON,
    check_coding,
    json_object,
    media_type,
    read_body,
    wait_s,
)
from gateway.links.http_desk import Desk
from gateway.links.http_device import Attendance, HttpDevice
from gateway.links.http_problem import COMMON_HEADERS, Problem, problem_of, title_of, unauthorized
from gateway.links.http_server import DeviceConnection

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

DEVICE = web.RequestKey("device", HttpDevice)

PREFIX = "/device/v1"
ARTIFACT = "artifact"
PROVISION = "provision"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """Bounds on single requests."""

    body_limit_bytes: int = 64 * 1024
    body_patience_s: float = 30.0
    uplink_timeout_s: float = 30.0
    """How long a device waits for "it is safe" before it is told to send again."""
    twin_timeout_s: float = 10.0
    settle_s: float = 1.0
    """A device that asks after a silence is given this long: the fleet, told of it, may have something waiting."""
    answer_timeout_s: float = 30.0
    messages_per_s: int = 0
    """Of one device; beyond, 429. 0: no bound."""
    messages_at_once: int = 0
    """How many it may send at once all the same, after a rest. 0: as many as in a second."""


class Routes:
    """The device API over a desk, an attendance and a receiver."""

    def __init__(
        self,
        options: RouteOptions,
        *,
        desk: Desk,
        attendance: Attendance,
        receiver: Receiver,
        downloads: Downloads,
        link: str,
    ) -> None:
        self._options = options
        self._desk = desk
        self._attendance = attendance
        self._receiver = receiver
        self._downloads = downloads
        self._link = link
        self._allowances = Allowances(options.messages_per_s, options.messages_at_once or options.messages_per_s)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._errors, self._device], client_max_size=self._options.body_limit_bytes)
        app.add_routes(
            [
                web.post(f"{PREFIX}/telemetry", self._post_telemetry),
                web.post(f"{PREFIX}/events", self._post_event),
                web.get(f"{PREFIX}/twin", self._get_twin, allow_head=False),
                web.patch(f"{PREFIX}/twin", self._patch_twin),
                web.get(f"{PREFIX}/commands", self._get_commands, allow_head=False),
                web.post(f"{PREFIX}/commands/{{id}}/status", self._post_command_status),
                web.get(f"{PREFIX}/ota", self._get_offer, allow_head=False),
                web.post(f"{PREFIX}/ota/{{job}}/status", self._post_job_status),
                web.get(f"{PREFIX}/artifacts/{{id}}", self._get_artifact, name=ARTIFACT),
                web.post(f"{PREFIX}/provision", self._post_provision, name=PROVISION),
            ]
        )
        app.on_response_prepare.append(_add_common_headers)
        return app

    # Around every request

    @web.middleware
    async def _errors(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        connection = request.protocol
        if isinstance(connection, DeviceConnection):
            connection.request_started()
        try:
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return Problem(error.status, title_of(error.status), headers=headers).response()
        except ConnectionError:
            raise  # aiohttp's business: there is nobody left to answer
        except Exception:
            logger.exception("%s %s failed", request.method, request.path[:200])
            return Problem(500, "the server failed at this request", close=True).response()
        finally:
            if isinstance(connection, DeviceConnection):
                connection.request_finished()

    @web.middleware
    async def _device(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.match_info.http_exception is not None:
            return await handler(request)  # 404 and 405 tell nothing that the documentation does not
        if request.match_info.route.name == PROVISION:
            return await handler(request)  # who asks has no credential yet
        device = await self._authenticate(request)
        request[DEVICE] = device
        with self._attendance.request(device):
            return await handler(request)

    async def _authenticate(self, request: web.Request) -> HttpDevice:
        """The device that asks. Raises Problem 401."""
        claimed_id, secret = _credentials(request)
        for _ in range(3):
            kicks = self._attendance.kicks
            device_id = await self._desk.authenticate(secret, device_id=claimed_id, address=request.remote or "")
            if device_id is None:
                raise unauthorized("this token is not valid", token_was_given=True)
            if kicks == self._attendance.kicks:
                if request.match_info.route.name == ARTIFACT:
                    return self._attendance.visit(device_id)
                return self._attendance.admit(device_id, request.remote or "")
            # Somebody was kicked while the desk looked: its answer may be from before that. Ask again.
        raise Problem(503, "try again", retry_after_s=1)

    # Up

    async def _post_telemetry(self, request: web.Request) -> web.StreamResponse:
        kind = media_type(request, (JSON, CBOR, SENML_JSON, SENML_CBOR, BYTES), COMPRESSED)
        if kind == BYTES:
            media_type(request, (BYTES,))  # not compressed: bytes that look so may be a measurement
        body = await self._body(request)
        check_coding(request, body)
        return await self._store(request, TELEMETRY, body, kind, status=202)

    async def _post_event(self, request: web.Request) -> web.StreamResponse:
        media_type(request, (JSON,))
        return await self._store(request, EVENTS, await self._body(request), JSON, status=202)

    async def _patch_twin(self, request: web.Request) -> web.StreamResponse:
        media_type(request, (JSON, MERGE_PATCH))
        return await self._store(request, TWIN_REPORTED, await self._body(request), JSON, status=200)

    async def _post_command_status(self, request: web.Request) -> web.StreamResponse:
        command_id = request.match_info["id"]
        channel = f"{COMMANDS}/{command_id}/status"
        if not is_uplink(channel):
            raise Problem(404, "no such command")
        media_type(request, (JSON,))
        body = await self._body(request)
        response = await self._store(request, channel, body, JSON, status=202)
        request[DEVICE].mailbox.answered(command_id)
        return response

    async def _post_job_status(self, request: web.Request) -> web.StreamResponse:
        job_id = request.match_info["job"]
        media_type(request, (JSON,))
        report = json_object(await self._body(request))
        if report.setdefault("job", job_id) != job_id:
            raise Problem(422, "the job in the body is not the one in the path", field="job")
        response = await self._store(request, OTA_STATUS, orjson.dumps(report), JSON, status=202)
        request[DEVICE].mailbox.reported(job_id)
        return response

    async def _store(
        self, request: web.Request, channel: str, payload: bytes, content_type: str, *, status: int
    ) -> web.StreamResponse:
        self._count(request[DEVICE])
        outcome = await self._take(request[DEVICE], channel, payload, content_type)
        return _json({"stored": True, **outcome.data}, status=status)

    def _count(self, device: HttpDevice) -> None:
        """One message more of this device. Raises Problem 429 when it sends too many."""
        now = time.monotonic()
        wait_s = self._allowances.wait_s(device.device_id, now)
        if wait_s > 0:
            limit = self._options.messages_per_s
            raise Problem(429, f"more than {limit} messages a second", reason="too_fast", retry_after_s=wait_s)
        self._allowances.spend(device.device_id, 1, now)

    async def _take(self, device: HttpDevice, channel: str, payload: bytes, content_type: str | None) -> Outcome:
        """Hand one uplink to the gateway and wait until it is safe. Raises Problem for a refusal."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcomes: Sequence[Outcome]) -> None:
            if not answer.done():  # the device may have hung up
                answer.set_result(outcomes[0])

        uplink = Uplink(
            device_id=device.device_id,
            channel=channel,
            payload=payload,
            received_at_ms=time.time_ns() // 1_000_000,
            content_type=content_type,
            link=self._link,
        )
        self._receiver.uplinks([uplink], done)
        try:
            async with asyncio.timeout(self._options.uplink_timeout_s):
                outcome = await answer
        except TimeoutError:
            raise Problem(503, "not known to be stored in time: send it again", retry_after_s=5) from None
        if outcome.code.is_error:
            raise problem_of(outcome)
        return outcome

    async def _body(self, request: web.Request) -> bytes:
        return await read_body(
            request, limit_bytes=self._options.body_limit_bytes, patience_s=self._options.body_patience_s
        )

    # Down

    async def _get_twin(self, request: web.Request) -> web.StreamResponse:
        device = request[DEVICE]
        mailbox = device.mailbox
        seen = mailbox.twins

        def look() -> dict[str, object] | None:
            return mailbox.twin if mailbox.twins > seen else None

        device.twin_readers += 1
        try:
            await self._take(device, TWIN_GET, b"", None)
            twin = await device.poll(look, self._options.twin_timeout_s)
        finally:
            device.twin_readers -= 1
            if not device.twin_readers:
                mailbox.twin = None
        if twin is None:
            raise Problem(503, "the twin did not come in time", retry_after_s=5)
        return _json(twin)

    async def _get_commands(self, request: web.Request) -> web.StreamResponse:
        mailbox = request[DEVICE].mailbox
        items = await self._poll(
            request, lambda: mailbox.commands(time.monotonic(), time.time_ns() // 1_000_000) or None
        )
        return await self._deliver(
            request, _json({"items": items or []}), lambda: mailbox.commands_undelivered(items or [])
        )

    async def _get_offer(self, request: web.Request) -> web.StreamResponse:
        mailbox = request[DEVICE].mailbox
        offer = await self._poll(request, lambda: mailbox.offer(time.monotonic()))
        if offer is None:
            return web.Response(status=204)
        return await self._deliver(request, _json(offer), mailbox.offer_undelivered)

    async def _get_artifact(self, request: web.Request) -> web.StreamResponse:
        device = request[DEVICE]
        file = await self._desk.artifact(device.device_id, request.match_info["id"])
        if file is None or device.is_kicked:
            raise Problem(404, "no such artifact, or not meant for this device")
        with device.download(request.transport):
            return await self._downloads.serve(request, file, lambda: not device.is_kicked)

    async def _post_provision(self, request: web.Request) -> web.StreamResponse:
        media_type(request, (JSON,))
        status, answer = await self._desk.provision(await self._body(request), request.remote or "", self._link)
        response = _json(answer, status=status)
        if "retry_after" in answer:
            response.headers["Retry-After"] = str(answer["retry_after"])
        return response

    async def _poll(self, request: web.Request, look: Callable[[], _T | None]) -> _T | None:
        device = request[DEVICE]
        patience_s = wait_s(request)
        if self._attendance.is_new(device, self._options.settle_s):
            patience_s = max(patience_s, self._options.settle_s)
        return await device.poll(look, patience_s)

    async def _deliver(
        self, request: web.Request, response: web.Response, undelivered: Callable[[], None]
    ) -> web.StreamResponse:
        """Write an answer whose content is lost when it does not go out."""
        try:
            async with asyncio.timeout(self._options.answer_timeout_s):
                await response.prepare(request)
                await response.write_eof()
        except (TimeoutError, ConnectionError, asyncio.CancelledError) as error:
            undelivered()
            if isinstance(error, TimeoutError):
                raise ConnectionResetError("the device does not read") from error
            raise
        return response


def _credentials(request: web.Request) -> tuple[str | None, str]:
    """Who asks, if that is said (Basic), and the token or JWT. Raises Problem 401."""
    given = request.headers.getall("Authorization", [])
    scheme, _, value = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    scheme, value = scheme.lower(), value.strip()
    if scheme == "bearer" and value:
        return None, value
    if scheme == "basic" and value:
        with contextlib.suppress(ValueError):  # binascii.Error and UnicodeDecodeError are
            device_id, colon, secret = base64.b64decode(value, validate=True).decode("ascii").rpartition(":")
            if colon and secret and is_device_id(device_id):
                return device_id, secret
    raise unauthorized("a device token is wanted: Authorization: Bearer …", token_was_given=False)


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type=JSON,
        headers={**COMMON_HEADERS, "Cache-Control": "no-store"},
    )


async def _add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(COMMON_HEADERS)

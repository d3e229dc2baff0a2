"""A device's conversation with the device HTTP API: posts what it has to say, and waits for orders in long polls.

There is no connection to lose here: the link is up once the twin was read, and down when a request fails.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote

import aiohttp
import orjson

from firmware_sim.errors import DeviceRefused, LinkLost
from firmware_sim.outbox import Message
from firmware_sim.together import race
from firmware_sim.transports.wire import Wire

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
FAST_ANSWER_S = 1.0
"""A long poll that came back empty sooner than this is not repeated at once: the server may not wait at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Where the device HTTP API is. `wait_s` is how long the server may hold a long poll back."""

    base_url: str
    wait_s: float = 30.0
    twin_every_s: float = 15.0
    """HTTP has no push for the twin, so the device asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    body: bytes
    retry_after_s: float | None


class HttpTransport:
    """One device's use of the device HTTP API; the session is shared by all devices."""

    name = "http"

    def __init__(self, options: HttpOptions, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._cut = asyncio.Event()

    async def serve(self, wire: Wire) -> None:
        self._cut.clear()
        twin = await self._ask(wire, "GET", "twin")
        wire.up()
        wire.deliver("twin", twin.body)
        await race(
            ("sim-http-writer", self._write(wire)),
            ("sim-http-commands", self._poll_commands(wire)),
            ("sim-http-ota", self._poll_ota(wire)),
            ("sim-http-twin", self._poll_twin(wire)),
            ("sim-http-cut", self._until_cut()),
        )

    def cut(self) -> None:
        self._cut.set()

    async def _until_cut(self) -> NoReturn:
        await self._cut.wait()
        raise LinkLost("connection cut")

    async def _write(self, wire: Wire) -> NoReturn:
        while True:
            message = await wire.next()
            method, path, content_type = _request_for(message)
            answer = await self._call(wire, method, path, body=message.payload, content_type=content_type)
            if answer.status < 300:
                wire.acknowledged(message)
            elif answer.status in (429, 503):
                await asyncio.sleep(min(answer.retry_after_s or 1.0, 30.0))
            elif answer.status < 500:
                wire.refused(message, f"{answer.status} {_detail(answer.body)}")
            else:
                raise LinkLost(f"the server answered {answer.status}")

    async def _poll_commands(self, wire: Wire) -> NoReturn:
        while True:
            answer, quick = await self._poll(wire, "commands")
            items = _object(answer.body).get("items")
            found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
            for item in found:
                wire.deliver(f"commands/{item.get('id')}", orjson.dumps(item))
            if not found and quick:
                await asyncio.sleep(FAST_ANSWER_S)

    async def _poll_ota(self, wire: Wire) -> NoReturn:
        before: object = None
        while True:
            answer, quick = await self._poll(wire, "ota")
            offer = _object(answer.body) if answer.status == 200 else {}
            if offer.get("job"):
                wire.deliver("ota/offer", answer.body)
            # The same offer again means that the server repeats it until the job has ended: no hurry then.
            again, before = offer.get("job") == before, offer.get("job")
            if quick and (again or not before):
                await asyncio.sleep(FAST_ANSWER_S * (5 if before else 1))

    async def _poll_twin(self, wire: Wire) -> NoReturn:
        while True:
            await asyncio.sleep(self._options.twin_every_s)
            wire.deliver("twin", (await self._ask(wire, "GET", "twin")).body)

    async def _poll(self, wire: Wire, path: str) -> tuple[_Answer, bool]:
        """The answer to a long poll, and whether it came quickly."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await self._ask(wire, "GET", f"{path}?wait={self._options.wait_s:g}", wait_s=self._options.wait_s)
        return answer, loop.time() - began < min(FAST_ANSWER_S, self._options.wait_s)

    async def _ask(self, wire: Wire, method: str, path: str, *, wait_s: float = 0.0) -> _Answer:
        answer = await self._call(wire, method, path, wait_s=wait_s)
        if answer.status >= 300:
            raise LinkLost(
                f"{path} was answered {answer.status} {_detail(answer.body)}", retry_after_s=answer.retry_after_s
            )
        return answer

    async def _call(
        self,
        wire: Wire,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "",
        wait_s: float = 0.0,
    ) -> _Answer:
        headers = {"Authorization": f"Bearer {wire.token}"}
        if content_type:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=wait_s + 30, sock_connect=10) if wait_s else REQUEST_TIMEOUT
        url = f"{self._options.base_url}/device/v1/{path}"
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = _Answer(
                    status=response.status,
                    body=await response.read(),
                    retry_after_s=_seconds(response.headers.get("Retry-After")),
                )
        except (aiohttp.ClientError, OSError) as error:
            raise LinkLost(f"connection lost: {str(error) or type(error).__name__}") from error
        if answer.status in (401, 403):
            raise DeviceRefused(wire.device_id, f"{answer.status} {_detail(answer.body)}")
        return answer


def _request_for(message: Message) -> tuple[str, str, str]:
    """Method, path and content type of an uplink."""
    channel = message.channel
    if channel == "telemetry/cbor":
        return "POST", "telemetry", "application/cbor"
    if channel == "twin/reported":
        return "PATCH", "twin", "application/merge-patch+json"
    if channel == "ota/status":
        job = _object(message.payload).get("job")
        return "POST", f"ota/{quote(str(job), safe='')}/status", "application/json"
    return "POST", quote(channel), "application/json"


def _object(body: bytes) -> Mapping[str, object]:
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _detail(body: bytes) -> str:
    problem = _object(body)
    words = str(problem.get("detail") or problem.get("title") or body[:120].decode("utf-8", "replace"))
    return " ".join(words.split())[:200]


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None

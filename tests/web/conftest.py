"""A web server on a free port over a fleet in memory, and a client for each role."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from fleet.actor import SYSTEM
from gateway.profiles.document import Profile
from tests.web import fakes
from web.app import WebServer
from web.options import WebOptions
from web.parts import DeviceEndpoints
from web.routes import SUBJECTS

ENDPOINTS = DeviceEndpoints(device_http="http://0.0.0.0:8081", mqtt="mqtt://0.0.0.0:1883")


class Site:
    """The server with its parts, and requests to it."""

    def __init__(self, server: WebServer, fleet: fakes.Fleet, gateway: fakes.Gateway, sessions: fakes.Sessions) -> None:
        self.server, self.fleet, self.gateway, self.sessions = server, fleet, gateway, sessions
        self.http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def ask(self, method: str, path: str, *, role: str | None = "admin", **options: Any) -> SimpleNamespace:
        """One request as a person of this role; the answer is read whole."""
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {role}"
        async with self.http.request(
            method, self.url + path, headers=headers, allow_redirects=False, **options
        ) as answer:
            body = await answer.read()
            is_json = answer.content_type.endswith(("/json", "+json")) and body
            assert_documented(method, path, answer.status, answer.content_type)
            return SimpleNamespace(
                status=answer.status,
                headers=answer.headers,
                cookies=answer.cookies,
                body=body,
                media=answer.content_type,
                json=await answer.json(content_type=None) if is_json else None,
            )


def assert_documented(method: str, path: str, status: int, media: str) -> None:
    """Every answer that a test gets is one that the OpenAPI document speaks of, and every error has the one shape."""
    if status >= 400:
        assert media == "application/problem+json", (method, path, status, media)
    for route in (route for subject in SUBJECTS for route in subject):
        form = re.sub(r"\{\w+\}", "[^/]+", route.path)
        if route.method == method and re.fullmatch(form, path.partition("?")[0]):
            assert status in route.statuses, f"{method} {route.path} answered {status}, which it does not document"


def options_in(directory: Path, **changes: Any) -> WebOptions:
    """Options of a test's server: a free port, a console directory of the test's own."""
    return WebOptions(**{"port": 0, "console_dir": directory / "console", "stop_timeout_s": 1.0, **changes})


@pytest.fixture
def web_options(tmp_path: Path) -> WebOptions:
    return options_in(tmp_path)


@pytest.fixture
async def site(tmp_path: Path, web_options: WebOptions) -> AsyncIterator[Site]:
    gateway = fakes.Gateway()
    fleet = fakes.Fleet(tmp_path, gateway.bus)
    await fleet.devices.create(SYSTEM, id="pump-7")
    await fleet.profiles.create(SYSTEM, Profile(name="pump"))
    sessions = fakes.Broker()
    server = WebServer(
        web_options,
        fleet=fleet,  # type: ignore[arg-type]
        gateway=gateway,  # type: ignore[arg-type]
        sessions=sessions,
        endpoints=ENDPOINTS,
        version="0.1.0",
    )
    await server.start()
    found = Site(server, fleet, gateway, sessions)
    # No cookie jar: tests send the cookies that they mean.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as found.http:
        yield found
    await server.stop()


async def raw_get(site: Site, target: str) -> tuple[int, bytes]:
    """Status and body for a request target sent as it is: a client library would tidy it up first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body

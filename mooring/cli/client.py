"""The admin API as the command line uses it: one connection, JSON in and out, errors as one line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import aiohttp
import typer

from mooring import __version__

T = TypeVar("T")

UrlOption = Annotated[
    str, typer.Option("--url", envvar="MOORING_URL", help="The server's admin address", show_default=True)
]
TokenOption = Annotated[
    str, typer.Option("--token", envvar="MOORING_TOKEN", help="Access token, from `mooring user login`")
]
DEFAULT_URL = "http://127.0.0.1:8080"


class ApiError(Exception):
    """The server said no (exit code 1), or the call could not be made as given (exit code 2)."""

    def __init__(self, message: str, *, exit_code: int = 1, code: str = "") -> None:
        """`code`: what the server calls it, where a program has to know."""
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code


@dataclass(frozen=True, slots=True)
class Api:
    """`GET /api/v1/{path}` and its kin, with the token in place."""

    session: aiohttp.ClientSession

    async def get(self, path: str, **query: Any) -> Any:
        return await self._call("GET", path, params={k: str(v) for k, v in query.items() if v is not None})

    async def post(self, path: str, body: Any = None) -> Any:
        return await self._call("POST", path, json=body)

    async def patch(self, path: str, body: Any, *, headers: dict[str, str] | None = None) -> Any:
        return await self._call("PATCH", path, json=body, headers=headers)

    async def delete(self, path: str, **query: str) -> Any:
        return await self._call("DELETE", path, params=query)

    async def all(self, path: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = await self.get(path, cursor=cursor, **query)
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """A long answer, handed on as it comes. Raises ApiError, also where it breaks off."""
        try:
            async with self.session.get(f"/api/v1/{path}") as answer:
                if not answer.ok:
                    raise ApiError(_problem(answer.status, await answer.json(content_type=None)))
                async for chunk in answer.content.iter_any():
                    write(chunk)
        except aiohttp.ClientError as error:
            raise ApiError(f"the answer of {self.session._base_url} broke off: {error}") from error
        except ValueError as error:
            raise ApiError(f"{self.session._base_url} did not answer in JSON: is it Mooring's admin port?") from error

    async def upload(self, path: str, file: Path, fields: dict[str, str], sent: Callable[[int], None]) -> Any:
        """A multipart POST of one file, read as it is sent; `sent` is told the bytes so far."""

        async def chunks() -> AsyncIterator[bytes]:
            done = 0
            with file.open("rb") as handle:
                while chunk := await asyncio.to_thread(handle.read, 256 * 1024):
                    yield chunk
                    done += len(chunk)
                    sent(done)

        with aiohttp.MultipartWriter("form-data") as form:
            for name, value in fields.items():
                form.append(value).set_content_disposition("form-data", name=name)
            form.append(chunks()).set_content_disposition("form-data", name="file", filename=file.name)
        return await self._call("POST", path, data=form)

    async def send(self, path: str, body: AsyncIterator[bytes], media_type: str, query: dict[str, str]) -> Any:
        """A POST of a body as it comes, however long the answer takes."""
        patient = aiohttp.ClientTimeout(total=None, connect=10, sock_read=None)
        headers = {"Content-Type": media_type}
        return await self._call("POST", path, data=body, headers=headers, params=query, timeout=patient)

    async def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            async with self.session.request(method, f"/api/v1/{path}", **kwargs) as answer:
                if answer.status == 204:
                    return None
                body = await answer.json(content_type=None) if answer.content_length != 0 else None
                if answer.ok:
                    return body
        except aiohttp.ClientError as error:
            raise ApiError(f"cannot reach {self.session._base_url}: {error}; is `mooring serve` running?") from error
        except ValueError as error:
            raise ApiError(f"{self.session._base_url} did not answer in JSON: is it Mooring's admin port?") from error
        code = str(body.get("code") or "") if isinstance(body, dict) else ""
        raise ApiError(_problem(answer.status, body), code=code)


@asynccontextmanager
async def connect(url: str, token: str = "") -> AsyncIterator[Api]:
    headers = {"User-Agent": f"mooring/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
    try:
        session = aiohttp.ClientSession(url.rstrip("/"), headers=headers, timeout=timeout)
    except ValueError as error:
        raise ApiError(f"--url {url} is not an address such as {DEFAULT_URL}", exit_code=2) from error
    async with session:
        yield Api(session)


def call(url: str, token: str, work: Callable[[Api], Awaitable[T]]) -> T:
    """Run `work` with a connected Api, from a synchronous command."""
    if not token:
        raise ApiError(
            "no access token: give --token or set MOORING_TOKEN; "
            "`export MOORING_TOKEN=$(mooring user login NAME)` gets one",
            exit_code=2,
        )

    async def run() -> T:
        async with connect(url, token) as api:
            return await work(api)

    return asyncio.run(run())


def _problem(status: int, body: Any) -> str:
    if not isinstance(body, dict):
        return f"the server answered {status}"
    fields = "; ".join(f"{e.get('field')}: {e.get('detail')}" for e in body.get("errors") or [])
    text = body.get("detail") or body.get("title") or ""
    hint = "; log in again with `mooring user login`" if status == 401 else ""
    return f"{text}{': ' + fields if fields else ''}{hint} ({status})"

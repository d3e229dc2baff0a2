"""HTTP to a time-series server: influxdb-client for writing and deleting, aiohttp for the rest, one kind of error.

influxdb-client's asynchronous client takes prepared lines as bytes and posts them to /api/v2/write. It speaks for
InfluxDB 2 and later and for VictoriaMetrics; what it has no call for (1.x writes, InfluxQL, exports) goes over a
session of our own. Every failure of either comes out as StoreUnavailable or StoreRejected: see http_answers.py.

No connection is made before the first request, and redirects are not followed: a redirected POST becomes a GET.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any

import aiohttp
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.rest import ApiException

from gateway.store import StoreRejected, StoreUnavailable
from gateway.stores.http_answers import refusal

ERROR_BODY_LIMIT = 64 * 1024


class Transport:
    """The way to one server. `name` and `bucket` are named in errors; `authorization` is a header's value, or ""."""

    def __init__(self, url: str, *, name: str, bucket: str, org: str, authorization: str, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._name = f"{name} at {self.url}"
        self._bucket = bucket
        self._org = org
        self._headers = {"Authorization": authorization} if authorization else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._client: Any = None
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Inside a running event loop."""
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        self._client = InfluxDBClientAsync(
            self.url,
            org=self._org,
            timeout=self._timeout,
            allow_redirects=False,
            client_session_kwargs={"headers": self._headers},
        )

    async def close(self) -> None:
        client, session, self._client, self._session = self._client, self._session, None, None
        if client is not None:
            await client.close()
        if session is not None:
            await session.close()

    async def write_v2(self, lines: bytes) -> None:
        """POST /api/v2/write, times in ms."""
        with self._errors():
            await self._opened(self._client).write_api().write(self._bucket, record=lines, write_precision="ms")

    async def delete_v2(self, start: datetime, stop: datetime, predicate: str) -> None:
        """POST /api/v2/delete. Raises StoreRejected where the server has no such call."""
        with self._errors():
            try:
                await self._opened(self._client).delete_api().delete(start, stop, predicate, self._bucket, self._org)
            except ApiException as error:
                body = (error.body or b"").lower()
                missing = error.status == 404 and not (b"bucket" in body or b"organization" in body)
                if missing or error.status in (405, 501):
                    raise StoreRejected(f"{self._name} cannot delete readings: it answered {error.status}") from error
                raise

    async def request(
        self, method: str, path: str, *, parameters: Mapping[str, str] | None = None, body: Any = None
    ) -> bytes:
        """One request; the body of its 2xx answer."""
        async with self._answer(method, path, parameters, body) as response:
            return await response.read()

    async def lines(self, method: str, path: str, *, body: Any = None) -> AsyncGenerator[bytes, None]:
        """The lines of an answer as they come, however long they are, without their ends."""
        rest = bytearray()
        async with self._answer(method, path, None, body) as response:
            async for chunk in response.content.iter_any():
                *whole, last = chunk.split(b"\n")
                for part in whole:
                    rest += part
                    yield bytes(rest)
                    rest.clear()
                rest += last
        if rest:
            yield bytes(rest)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, parameters: Mapping[str, str] | None, body: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        session: aiohttp.ClientSession = self._opened(self._session)
        with self._errors():
            async with session.request(
                method, self.url + path, params=parameters, data=body, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    said = await response.content.read(ERROR_BODY_LIMIT)
                    raise refusal(response.status, said, response.headers, server=self._name, bucket=self._bucket)
                yield response

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            headers: Mapping[str, str] = error.headers or {}
            raise refusal(error.status, error.body, headers, server=self._name, bucket=self._bucket) from error
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._name} did not answer within {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(f"{self._name}: {error or type(error).__name__}") from error

    def _opened(self, connection: Any) -> Any:
        if connection is None:
            raise StoreUnavailable("the store is closed")
        return connection


def authorization_of(token: str, *, scheme: str) -> str:
    """The header for a token: Basic for `user:password`, else `scheme`."""
    if not token:
        return ""
    user, colon, password = token.partition(":")
    return aiohttp.encode_basic_auth(user, password) if colon else f"{scheme} {token}"

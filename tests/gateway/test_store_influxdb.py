"""InfluxDB's refusals, and its /api/v2/write, against a server that answers as told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from gateway.readings import Reading
from gateway.store import Query, StoreRejected, StoreUnavailable
from gateway.stores import InfluxOptions, InfluxStore, VictoriaOptions, VictoriaStore
from tests.servers import free_port, influxdb

READINGS = [Reading("pump-7", "temperature", 1_700_000_000_123, 21.5), Reading("pump-7", "ok", 1_700_000_000_124, True)]
LINES = (
    "mooring_number,device=pump-7,metric=temperature value=21.5 1700000000123\n"
    "mooring_boolean,device=pump-7,metric=ok value=true 1700000000124"
)
QUERY = Query(device_id="pump-7", start_ms=0, end_ms=2_000_000_000_000)


class Fake:
    """A server that keeps what it was asked and gives the answer it was told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[web.Request, str]] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.say(204)
        self.url = ""

    def say(
        self, status: int, body: Any = None, headers: dict[str, str] | None = None
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
            return web.Response(status=status, text=None if status == 204 else text, headers=headers)

        self.answer = answer
        return answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.text()))
        return await self.answer(request)


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    fake = Fake()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


def options(fake: Fake, **changes: Any) -> InfluxOptions:
    return InfluxOptions(**{"url": fake.url, "token": "secret", "org": "an org", "bucket": "b&c", **changes})


@pytest.fixture
async def store(fake: Fake) -> AsyncIterator[InfluxStore]:
    store = InfluxStore(options(fake))
    await store.open()
    yield store
    await store.close()


async def test_v2_writes_lines_with_precision_and_token(fake: Fake, store: InfluxStore) -> None:
    await store.write(READINGS)
    ((request, body),) = fake.requests
    assert (request.method, request.path) == ("POST", "/api/v2/write")
    assert dict(request.query) == {"org": "an org", "bucket": "b&c", "precision": "ms"}
    assert request.headers["Authorization"] == "Token secret"
    assert request.content_type == "text/plain"
    assert body == LINES


@pytest.mark.parametrize(
    ("token", "expected"),
    [("secret", "Token secret"), ("u:p:q", "Basic " + base64.b64encode(b"u:p:q").decode()), ("", None)],
)
async def test_v1_writes_to_the_database_of_that_name(fake: Fake, token: str, expected: str | None) -> None:
    store = InfluxStore(options(fake, api="v1", token=token))
    await store.open()
    await store.write(READINGS)
    await store.close()
    ((request, body),) = fake.requests
    assert (request.method, request.path) == ("POST", "/write")
    assert dict(request.query) == {"db": "b&c", "precision": "ms"}
    assert request.headers.get("Authorization") == expected
    assert body == LINES


async def test_queries_ask_influxql_in_milliseconds(fake: Fake, store: InfluxStore) -> None:
    fake.say(200, {"results": []})
    assert await store.query(QUERY) == {}
    ((request, _),) = fake.requests
    assert (request.method, request.path) == ("GET", "/query")
    assert (request.query["db"], request.query["epoch"]) == ("b&c", "ms")
    assert request.headers["Authorization"] == "Token secret"


async def test_v2_deletes_by_predicate_and_measurement(fake: Fake, store: InfluxStore) -> None:
    await store.delete_device('pump"7')
    bodies = [json.loads(body) for _, body in fake.requests]
    assert [request.path for request, _ in fake.requests] == ["/api/v2/delete"] * 5
    assert [body["predicate"] for body in bodies] == [
        f'_measurement="mooring_{kind}" AND device="pump%227"'
        for kind in ("number", "boolean", "text", "position", "json")
    ]
    assert all(body["start"].startswith("1970-01-01") for body in bodies)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, {"error": "not found"}, StoreRejected),
        (405, None, StoreRejected),
        (501, None, StoreRejected),
        (404, {"code": "not found", "message": 'bucket "b&c" not found'}, StoreUnavailable),
        (503, None, StoreUnavailable),
    ],
)
async def test_a_server_without_deletion_is_told_from_one_that_cannot_now(
    fake: Fake, store: InfluxStore, status: int, body: Any, error: type[Exception]
) -> None:
    fake.say(status, body)
    with pytest.raises(error, match=str(status)):
        await store.delete_device("d")


@pytest.mark.parametrize("api", ["v2", "v1"])
@pytest.mark.parametrize(
    ("status", "body", "tells"),
    [
        (401, {"code": "unauthorized", "message": "unauthorized access"}, "token"),
        (403, {"code": "forbidden", "message": "insufficient permissions"}, "may not use 'b&c'"),
        (404, {"code": "not found", "message": 'bucket "b&c" not found'}, 'bucket "b&c" not found'),
        (404, {"error": 'retention policy not found: "b&c"'}, "retention policy not found"),
        (400, {"code": "invalid", "message": "Please provide either orgID or org"}, "orgID"),
        (400, "<html>The plain HTTP request was sent to HTTPS port</html>", "HTTPS port"),
        (307, None, "another URL"),
        (429, {"code": "too many requests", "message": "slow down"}, "slow down"),
        (500, {"code": "internal error", "message": "engine: cannot write"}, "cannot write"),
        (502, "<html>bad\r\ngateway</html>", "bad gateway"),
        (503, None, "503"),
    ],
)
async def test_not_now_is_unavailable_and_says_what_to_mend(
    fake: Fake, api: Any, status: int, body: Any, tells: str
) -> None:
    store = InfluxStore(options(fake, api=api))
    await store.open()
    fake.say(status, body, {"Location": "/elsewhere"} if status == 307 else None)
    with pytest.raises(StoreUnavailable) as caught:
        await store.write(READINGS)
    assert tells in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retry_after_s is None
    assert len(fake.requests) == 1
    with pytest.raises(StoreUnavailable, match=str(status)):
        await store.query(QUERY)
    await store.close()


@pytest.mark.parametrize("api", ["v2", "v1"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": "partial write: unable to parse 'x': invalid field format dropped=0"}),
        (400, {"code": "invalid", "message": "unable to parse 'x': missing fields"}),
        (400, {"error": "partial write of line protocol occurred", "data": [{"line_number": 1}]}),
        (400, {"error": "partial write: points beyond retention policy dropped=1"}),
        (413, {"code": "request too large", "message": "cannot read data: points batch is too large"}),
        (413, "<html>Request Entity Too Large</html>"),
        (
            422,
            {"code": "unprocessable entity", "message": "failure writing points: partial write: field type conflict"},
        ),
    ],
)
async def test_not_ever_is_rejected(fake: Fake, api: Any, status: int, body: Any) -> None:
    store = InfluxStore(options(fake, api=api))
    await store.open()
    fake.say(status, body)
    with pytest.raises(StoreRejected, match=str(status)):
        await store.write(READINGS)
    await store.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("1e9", 3600.0), ("-1", None), ("nan", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_passed_on(
    fake: Fake, store: InfluxStore, status: int, header: str, seconds: float | None
) -> None:
    fake.say(status, None, {"Retry-After": header})
    with pytest.raises(StoreUnavailable) as caught:
        await store.write(READINGS)
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("api", ["v2", "v1"])
async def test_a_broken_connection_is_unavailable(fake: Fake, api: Any) -> None:
    async def reset(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    fake.answer = reset
    store = InfluxStore(options(fake, api=api))
    await store.open()
    for attempt in (store.write(READINGS), store.query(QUERY), store.delete_device("d")):
        with pytest.raises(StoreUnavailable):
            await attempt
    fake.say(204)
    await store.write(READINGS)  # the next try is a new connection
    await store.close()


@pytest.mark.parametrize("api", ["v2", "v1"])
async def test_a_slow_server_is_unavailable_after_the_timeout(fake: Fake, api: Any) -> None:
    async def sleep(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    fake.answer = sleep
    store = InfluxStore(options(fake, api=api, timeout_s=0.05))
    await store.open()
    for attempt in (store.write(READINGS), store.query(QUERY)):
        with pytest.raises(StoreUnavailable, match=r"0\.05 s"):
            await attempt
    await store.close()


async def test_an_answer_that_breaks_off_is_unavailable(fake: Fake) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"metric":{"__name__":"mooring_number_value","device":"d","metric":"m"},\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    fake.answer = half
    for store in (InfluxStore(options(fake)), VictoriaStore(VictoriaOptions(url=fake.url))):
        await store.open()
        with pytest.raises(StoreUnavailable):
            await store.query(QUERY)
        await store.close()


async def test_nobody_listening_is_unavailable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for api in ("v2", "v1"):
        store = InfluxStore(InfluxOptions(url=url, api=api))  # type: ignore[arg-type]
        await store.open()
        for attempt in (store.write(READINGS), store.query(QUERY), store.latest("d"), store.delete_device("d")):
            with pytest.raises(StoreUnavailable, match=url):
                await attempt
        await store.close()


@pytest.mark.parametrize("body", ["<html>hello</html>", ""])
async def test_an_answer_that_is_not_json_is_unavailable(fake: Fake, store: InfluxStore, body: str) -> None:
    fake.say(200, body)
    with pytest.raises(StoreUnavailable, match="JSON"):
        await store.query(QUERY)


async def test_an_error_inside_a_good_answer_is_found(fake: Fake, store: InfluxStore) -> None:
    fake.say(200, {"results": [{"statement_id": 0, "error": "database not found: m"}]})
    with pytest.raises(StoreUnavailable, match="database not found"):
        await store.query(QUERY)


async def test_an_answer_cut_short_is_not_taken_for_the_whole(fake: Fake, store: InfluxStore) -> None:
    series = {"name": "mooring_number", "tags": {"metric": "m"}, "columns": ["time", "value"], "values": [[1, 2]]}
    fake.say(200, {"results": [{"statement_id": 0, "series": [{**series, "partial": True}]}]})
    with pytest.raises(StoreUnavailable, match="cut"):
        await store.query(QUERY)


@pytest.mark.parametrize(("status", "body"), [(401, ""), (422, {"error": "cannot parse"}), (503, "")])
async def test_victoriametrics_queries_that_fail_are_unavailable_or_rejected(
    fake: Fake, status: int, body: Any
) -> None:
    store = VictoriaStore(VictoriaOptions(url=fake.url, token="t"))
    await store.open()
    fake.say(status, body)
    for attempt in (store.query(QUERY), store.latest("d")):
        with pytest.raises((StoreUnavailable, StoreRejected), match=str(status)):
            await attempt
    assert all(request.headers["Authorization"] == "Bearer t" for request, _ in fake.requests)
    await store.close()


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(InfluxOptions(url="http://x", token="secret"))
    assert "secret" not in repr(VictoriaOptions(url="http://x", token="secret"))


@pytest.mark.servers
async def test_a_1x_server_gets_its_database_at_first_use() -> None:
    with influxdb() as server:
        store = InfluxStore(InfluxOptions(url=server.url, bucket='new "one"', api="v1"))
        await store.open()
        assert await store.latest("pump-7") == {}
        await store.write([Reading("pump-7", "temperature", 1_700_000_000_000, 21.5)])
        assert await store.latest("pump-7") == {"temperature": (1_700_000_000_000, 21.5)}
        await store.close()

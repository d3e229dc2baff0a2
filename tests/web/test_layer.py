"""The API layer by itself, over an application of a few routes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import Field

from web.api.document import document
from web.api.idempotency import Answer, Replays
from web.api.json_body import BadJson, read_json
from web.api.layer import Route, Routes, install
from web.api.problem import Problem, problems
from web.schemas.base import In, Out

things = Routes("Things", "For tests.")


class ThingIn(In):
    name: str = Field(max_length=5)
    parts: list[int] = Field(default_factory=list)


class ThingOut(Out):
    id: str
    name: str
    made: int


class ThingQuery(In):
    limit: int = Field(default=10, ge=1, le=100)


@dataclass
class Call:
    request: web.Request
    owner: str = "me"
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None


made = 0


@things.post("/things/{id}", summary="Make", role=None, status=201, idempotent=True)
async def make_thing(call: Call, thing_id: str, query: ThingQuery, body: ThingIn) -> ThingOut:
    global made
    if body.name == "boom":
        raise RuntimeError("secret detail")
    if body.name == "slow":
        await asyncio.sleep(0.05)
    made += 1
    call.headers["X-Limit"] = str(query.limit)
    return ThingOut(id=thing_id, name=body.name, made=made)


@things.delete("/things/{id}", summary="Drop", role=None)
async def drop_thing(call: Call, thing_id: str) -> None: ...


async def open_call(request: web.Request, route: Route) -> Call:
    return Call(request, owner=request.headers.get("X-Owner", "me"))


@pytest.fixture
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application(middlewares=[problems(lambda error: None, lambda *seen: None)], client_max_size=2000)
    install(app, things, open_call, Replays(lambda: 0.0))
    async with TestClient(TestServer(app)) as found:
        yield found


async def post(client: Any, body: Any = None, *, path: str = "/things/a", **options: Any) -> tuple[int, Any]:
    async with client.post(path, json=body, **options) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_path_query_and_body_come_in_typed(client: Any) -> None:
    async with client.post("/things/a?limit=7", json={"name": "pipe"}) as answer:
        assert answer.status == 201
        assert answer.headers["X-Limit"] == "7"
        body = await answer.json()
    assert (body["id"], body["name"]) == ("a", "pipe")


async def test_every_field_at_fault_is_named(client: Any) -> None:
    status, problem = await post(client, {"name": "too long", "parts": [1, "x"], "extra": 1})
    assert status == 422
    fields = {error["field"]: error["detail"] for error in problem["errors"]}
    assert set(fields) == {"name", "parts.1", "extra"}
    assert fields["extra"] == "is not known here"


async def test_values_at_fault_are_not_repeated(client: Any) -> None:
    _, problem = await post(client, {"name": "hunter2-is-my-password"})
    assert "hunter2" not in json.dumps(problem)


async def test_query_is_checked_like_a_body(client: Any) -> None:
    assert (await post(client, {"name": "a"}, path="/things/a?limit=0"))[0] == 422
    assert (await post(client, {"name": "a"}, path="/things/a?limt=5"))[0] == 422
    assert (await post(client, {"name": "a"}, path="/things/a?limit=5&limit=6"))[0] == 422


@pytest.mark.parametrize("raw", [b"{", b"nonsense", b"\xff", b'{"name": NaN}', b'{"name": "\\ud800"}', b"[" * 5000])
async def test_what_is_not_json_is_400(client: Any, raw: bytes) -> None:
    async with client.post("/things/a", data=raw[:1900], headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"


async def test_another_media_type_is_415_and_a_large_body_413(client: Any) -> None:
    async with client.post("/things/a", data=b"name=a", headers={"Content-Type": "text/plain"}) as answer:
        assert answer.status == 415
    assert (await post(client, {"name": "x" * 3000}))[0] == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 1000

    async with client.post("/things/a", data=chunks(), headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 413


async def test_a_missing_body_is_422(client: Any) -> None:
    async with client.post("/things/a") as answer:
        assert answer.status == 422
        assert (await answer.json(content_type=None))["errors"] == [{"field": "name", "detail": "is required"}]


async def test_a_fault_of_ours_is_500_with_an_id_and_nothing_else(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    status, problem = await post(client, {"name": "boom"})
    assert status == 500
    assert "secret detail" not in json.dumps(problem)
    assert problem["id"] in caplog.text


async def test_unknown_address_and_method_are_problems_too(client: Any) -> None:
    async with client.get("/nowhere") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")
    async with client.put("/things/a", json={}) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, POST")
        assert answer.content_type == "application/problem+json"


async def test_nothing_to_say_is_204(client: Any) -> None:
    async with client.delete("/things/a") as answer:
        assert answer.status == 204
        assert await answer.read() == b""


async def test_ten_parallel_creates_with_one_key_make_one_thing(client: Any) -> None:
    before = made
    headers = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(*(post(client, {"name": "slow"}, headers=headers) for _ in range(10)))
    assert made == before + 1
    assert {json.dumps(answer) for answer in answers} == {json.dumps(answers[0])}


async def test_a_key_counts_for_its_owner_its_address_and_its_body(client: Any) -> None:
    headers = {"Idempotency-Key": "k2"}
    first = await post(client, {"name": "a"}, headers=headers)
    assert await post(client, {"name": "a"}, headers={**headers, "X-Owner": "you"}) != first
    assert await post(client, {"name": "a"}, path="/things/b", headers=headers) != first
    assert (await post(client, {"name": "b"}, headers=headers))[0] == 422
    assert (await post(client, {"name": "a"}, headers={"Idempotency-Key": "x" * 300}))[0] == 422


async def test_a_failure_is_not_replayed(client: Any) -> None:
    headers = {"Idempotency-Key": "k3"}
    assert (await post(client, {"name": "boom"}, headers=headers))[0] == 500
    assert (await post(client, {"name": "fine"}, headers=headers))[0] == 201


async def test_answers_are_forgotten_with_time_and_number() -> None:
    now, acts = 0.0, 0
    replays = Replays(lambda: now, limit=2, keep_s=60)

    async def act() -> Answer:
        nonlocal acts
        acts += 1
        return Answer(status=201, body=b"", headers={})

    async def once(key: str) -> None:
        await replays.once(("me", "POST", "/", key), b"", act)

    await once("a")
    await once("a")
    assert acts == 1
    now = 61.0
    await once("a")
    assert acts == 2
    await once("b")
    await once("c")
    await once("a")
    assert acts == 5


@pytest.mark.parametrize(
    "raw", [b'{"a": 9007199254740993}', b'{"a": "\\u0000"}', b'{"a\\u0000": 1}', b"[" * 30 + b"]" * 30, b'{"a": 1e999}']
)
def test_json_that_cannot_be_kept_is_refused(raw: bytes) -> None:
    with pytest.raises(BadJson):
        read_json(raw)


def test_json_that_can_be_kept_is_read() -> None:
    assert read_json('{"a": [1, 2.5, true, null, "ü"], "b": 9007199254740992}'.encode()) == {
        "a": [1, 2.5, True, None, "ü"],
        "b": 9007199254740992,
    }


def test_the_document_says_what_the_declaration_says() -> None:
    found = document([things], title="T", version="1", description="")
    operation = found["paths"]["/things/{id}"]["post"]
    assert operation["operationId"] == "makeThing"
    assert [one["name"] for one in operation["parameters"]] == ["id", "limit", "Idempotency-Key"]
    assert operation["requestBody"]["required"] is True
    assert set(operation["responses"]) == {"201", "400", "408", "409", "413", "415", "422", "default"}
    assert set(found["components"]["schemas"]) == {"FieldProblem", "ProblemBody", "ThingIn", "ThingOut"}
    assert found["components"]["schemas"]["ThingIn"]["additionalProperties"] is False


def test_a_handler_that_does_not_match_its_path_cannot_be_declared() -> None:
    with pytest.raises(TypeError):

        @things.get("/other/{a}/{b}", summary="", role=None)
        async def other(call: Call, a: str) -> None: ...


def test_details_are_cut() -> None:
    assert len(json.loads(bytes(Problem(400, "x" * 10_000).response().body))["detail"]) == 500  # type: ignore[arg-type]

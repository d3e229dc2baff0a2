"""Typed routes over aiohttp: what a handler's annotations say is what is checked, documented and answered.

A handler is declared once, with `Routes.get/post/patch/delete(path, summary=…, role=…)`. Of its parameters
`query` and `body` are pydantic models for those two, and the others are the names in the path, in order; the return
annotation is the answer's model (None: 204). Everything a declaration holds is read at import, none of it per
request; api/document.py makes OpenAPI from the same declarations, so that the two cannot differ.
"""

import asyncio
import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, get_type_hints

from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from web.api.idempotency import Answer, Replays
from web.api.json_body import BadJson, read_json
from web.api.problem import Problem

Handler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)

_IN_PATH = re.compile(r"\{(\w+)\}")
_MAX_KEY = 255
_BODY_S = 30.0  # for at most 1 MiB: a slower sender holds a connection for nothing


class Call(Protocol):
    """One request on its way through a handler."""

    headers: dict[str, str]
    """Headers of the answer; a handler may add some."""
    status: int | None
    """Of the answer, where a handler chose another than is declared (one of `raises`)."""

    @property
    def owner(self) -> str:
        """Whose Idempotency-Keys these are."""
        ...


OpenCall = Callable[[web.Request, "Route"], Awaitable["Call"]]
"""Makes a request's Call: here the application checks who asks. Raises Problem 401 or 403."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header of the request or of the answer, for the document."""

    name: str
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One declared operation."""

    method: str
    path: str
    handler: Handler
    summary: str
    description: str
    tag: str
    role: Any
    """The least role that may; None: anybody."""
    status: int
    path_model: type[BaseModel] | None
    path_arguments: tuple[str, ...]
    """The handler's parameters for what the path names, in the same order."""
    query_model: type[BaseModel] | None
    body_model: type[BaseModel] | None
    form_model: type[BaseModel] | None
    """Fields of a multipart form with a file; the handler reads it by itself."""
    consumes: tuple[str, ...]
    """Media types of a body that the handler reads by itself, as it comes."""
    answer: TypeAdapter[Any] | None
    produces: str
    raises: tuple[int, ...]
    """Error statuses beside those that follow from the declaration."""
    request_headers: tuple[Header, ...]
    answer_headers: tuple[Header, ...]
    idempotent: bool

    @property
    def statuses(self) -> list[int]:
        """Every status the operation may answer with, 500 apart."""
        found = {self.status, *self.raises}
        if self.role is not None:
            found |= {401, 403}
        if self.path_model or self.query_model:
            found.add(422)
        if self.body_model or self.form_model or self.consumes:
            found |= {400, 408, 413, 415, 422}
        return sorted(found)


class Routes:
    """Declarations of one subject, in order."""

    def __init__(self, tag: str, description: str = "") -> None:
        self.tag = tag
        self.description = description
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def add(
        self,
        method: str,
        path: str,
        *,
        summary: str,
        role: Any,
        status: int = 200,
        raises: Iterable[int] = (),
        form: type[BaseModel] | None = None,
        consumes: Iterable[str] = (),
        produces: str = "application/json",
        request_headers: Iterable[Header] = (),
        answer_headers: Iterable[Header] = (),
        idempotent: bool = False,
    ) -> Callable[[H], H]:
        """Declare the decorated handler; its docstring becomes the description."""

        def declare(handler: H) -> H:
            hints = get_type_hints(handler, include_extras=True)
            hints.pop(next(iter(inspect.signature(handler).parameters)), None)
            answer = hints.pop("return", None)
            body, query = hints.pop("body", None), hints.pop("query", None)
            in_path = _IN_PATH.findall(path)
            if len(in_path) != len(hints):
                raise TypeError(f"{handler.__name__}: the path names {in_path}, the handler takes {list(hints)}")
            self._routes.append(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    summary=summary,
                    description=inspect.getdoc(handler) or "",
                    tag=self.tag,
                    role=role,
                    status=204 if answer is type(None) or answer is None else status,
                    path_model=_path_model(handler.__name__, dict(zip(in_path, hints.values(), strict=True))),
                    path_arguments=tuple(hints),
                    query_model=query,
                    body_model=body,
                    form_model=form,
                    consumes=tuple(consumes),
                    answer=None if answer in (type(None), None, web.StreamResponse) else TypeAdapter(answer),
                    produces=produces,
                    raises=tuple(raises) + ((409,) if idempotent else ()),
                    request_headers=tuple(request_headers) + ((IDEMPOTENCY_KEY,) if idempotent else ()),
                    answer_headers=tuple(answer_headers),
                    idempotent=idempotent,
                )
            )
            return handler

        return declare

    def get(self, path: str, **options: Any) -> Callable[[H], H]:
        return self.add("GET", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[H], H]:
        return self.add("POST", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[H], H]:
        return self.add("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[H], H]:
        return self.add("DELETE", path, **options)


IDEMPOTENCY_KEY = Header(
    name="Idempotency-Key",
    description="Any text of yours: the same key again within an hour gives the same answer and does nothing twice. "
    "Kept in memory, the newest 1,000.",
)


def _path_model(name: str, fields: Mapping[str, Any]) -> type[BaseModel] | None:
    if not fields:
        return None
    definitions: dict[str, Any] = {field: (annotation, ...) for field, annotation in fields.items()}
    return create_model(f"{name}_path", __config__=ConfigDict(extra="forbid"), **definitions)


def install(app: web.Application, routes: Iterable[Route], open_call: OpenCall, replays: Replays) -> None:
    """Add every route to the application's router."""
    for route in routes:
        # HEAD comes with GET: uptime monitors ask so.
        add = app.router.add_get if route.method == "GET" else partial(app.router.add_route, route.method)
        add(route.path, _serve(route, open_call, replays))


def _serve(
    route: Route, open_call: OpenCall, replays: Replays
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        # Who asks comes before what is asked: a stranger learns nothing from our opinion of their input.
        call = await open_call(request, route)
        arguments: dict[str, Any] = {}
        if route.path_model:
            path = _parse(route.path_model, dict(request.match_info))
            named = route.path_model.model_fields
            arguments = {
                argument: getattr(path, name) for argument, name in zip(route.path_arguments, named, strict=True)
            }
        if route.query_model:
            arguments["query"] = _parse(route.query_model, _query(request))
        raw = b""
        if route.body_model:
            raw = await _raw_body(request)
            arguments["body"] = _parse(route.body_model, _json(raw))

        async def act() -> Answer:
            value = await route.handler(call, **arguments)
            body = b"" if route.answer is None else route.answer.dump_json(value)
            headers = {**call.headers, "Content-Type": route.produces} if body else dict(call.headers)
            return Answer(status=call.status or route.status, body=body, headers=headers)

        key = request.headers.get("Idempotency-Key")
        if route.answer is None and route.status != 204:
            response: web.StreamResponse = await route.handler(call, **arguments)
            return response
        if key is None or not route.idempotent:
            return _response(await act())
        if not 0 < len(key) <= _MAX_KEY:
            raise Problem(422, f"Idempotency-Key: 1 to {_MAX_KEY} characters")
        digest = hashlib.sha256(raw).digest()
        return _response(await replays.once((call.owner, route.method, request.path_qs, key), digest, act))

    return serve


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body or None, headers=answer.headers)


def _query(request: web.Request) -> dict[str, str]:
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise Problem(422, f"{name}: given more than once", errors=[(name, "given more than once")])
    return dict(request.query)


async def _raw_body(request: web.Request) -> bytes:
    if not request.can_read_body:
        return b""
    media = request.content_type
    if media != "application/json" and not media.endswith("+json"):
        raise Problem(415, f"send application/json, not {media[:60]}")
    limit = request.client_max_size
    if limit and (request.content_length or 0) > limit:
        raise Problem(413, f"the body is larger than {limit} bytes")
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError as error:
        raise Problem(408, "the body did not come in time", headers={"Connection": "close"}) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise Problem(413, f"the body is larger than {limit} bytes") from error


def _json(raw: bytes) -> Any:
    if not raw.strip():
        return {}
    try:
        return read_json(raw)
    except BadJson as error:
        raise Problem(400, str(error)) from error


def _parse(model: type[BaseModel], values: Any) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Problem.of_input(error.errors(include_url=False, include_input=False, include_context=False)) from error

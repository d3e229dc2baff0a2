"""Errors as the API gives them: application/problem+json (RFC 9457), always in one shape. Never a stack trace.

A handler raises `Problem`; whatever else is raised becomes one in `problems()`, through the translators that the
application brings for its own exceptions.
"""

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
_MAX_DETAIL = 500


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Path of the field, such as tags.0; empty for the body as a whole.")
    detail: str


class ProblemBody(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(title="Problem")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(default=None, description="Per field, where input was refused.")
    code: str | None = Field(default=None, description="What programs go by, where the status says too little.")
    id: str | None = Field(default=None, description="Of a server error: the same as in the server's log.")


class Problem(Exception):
    """The request ends here, with this status and this one line of explanation."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.code = code
        self.id = id

    @classmethod
    def of_input(cls, errors: Sequence[ErrorDetails]) -> "Problem":
        """422 from what pydantic found. The refused values themselves are left out: one may be a password."""
        found = [(".".join(str(part) for part in error["loc"]), _in_words(error)) for error in errors[:50]]
        detail = "; ".join(f"{field}: {words}" if field else words for field, words in found[:5])
        return cls(422, detail, errors=found)

    def response(self) -> web.Response:
        """The answer to send."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail[:_MAX_DETAIL],
        }
        if self.errors:
            body["errors"] = [{"field": field[:200], "detail": detail[:200]} for field, detail in self.errors]
        if self.code:
            body["code"] = self.code
        if self.id:
            body["id"] = self.id
        return web.Response(
            status=self.status, body=json.dumps(body).encode(), headers={**self.headers, "Content-Type": CONTENT_TYPE}
        )


def _in_words(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "is not known here"
    if error["type"] == "missing":
        return "is required"
    return error["msg"].removeprefix("Value error, ")


Translate = Callable[[Exception], Problem | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problems(translate: Translate, observe: Callable[[web.Request, int, float], None]) -> Any:
    """The outermost middleware: turns everything raised into a problem, and lets `observe` see every answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        try:
            _refuse_compressed(request)
            response = await handler(request)
        except Exception as error:
            response = _problem_of(request, error, translate).response()
        if response.status >= 400 and response.content_type != CONTENT_TYPE and not response.prepared:
            response = Problem(response.status, response.reason or "").response()
        seconds = time.perf_counter() - started
        observe(request, response.status, seconds)
        logger.debug(
            "%s: %s %s: %d in %.1f ms", request.remote, request.method, request.path, response.status, seconds * 1e3
        )
        return response

    return middleware


def _refuse_compressed(request: web.Request) -> None:
    """The connection leaves bodies as they came: unpacking them is how a small request becomes a large one."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        refusal = "compressed bodies are not taken here"
        raise Problem(415, refusal, headers={"Accept-Encoding": "identity", "Connection": "close"})


def _problem_of(request: web.Request, error: Exception, translate: Translate) -> Problem:
    match error:
        case Problem():
            return error
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Problem(405, f"{request.method} is not allowed here; allowed: {allowed}", headers={"Allow": allowed})
        case web.HTTPRequestEntityTooLarge():
            return Problem(413, "the body is larger than is taken here")
        case web.HTTPNotFound():
            return Problem(404, "there is nothing at this address")
        case web.HTTPException() if error.status >= 400:
            return Problem(error.status, error.text or error.reason)
        case web.HTTPException():
            return Problem(500, "an unexpected redirect")
        case HttpProcessingError():
            return Problem(400, "the request could not be read")
    problem = translate(error)
    if problem is not None:
        return problem
    error_id = secrets.token_hex(8)
    logger.exception("%s: %s %s failed (error %s)", request.remote, request.method, request.path, error_id)
    return Problem(500, f"something went wrong; the server's log has it as error {error_id}", id=error_id)

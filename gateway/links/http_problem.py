"""Errors of the device HTTP API: problem+json (RFC 9457), and what status an outcome becomes. No I/O, no clock."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from broker.reason import ReasonCode
from gateway.link import Outcome

COMMON_HEADERS = {"Server": "mooring", "X-Content-Type-Options": "nosniff"}

_STATUS_BY_REASON = {
    "invalid_json": 400,
    "invalid_cbor": 400,
    "invalid_utf8": 400,
    "invalid_compression": 400,
    "too_large": 413,
    "store_full": 503,
    "unknown_device": 401,
    "unknown_channel": 404,
    "unknown_command": 404,
    "unknown_job": 404,
}
_STATUS_BY_CODE = {
    ReasonCode.MALFORMED_PACKET: 400,
    ReasonCode.PROTOCOL_ERROR: 409,
    ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR: 409,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: 401,
    ReasonCode.NOT_AUTHORIZED: 403,
    ReasonCode.BANNED: 403,
    ReasonCode.SERVER_UNAVAILABLE: 503,
    ReasonCode.SERVER_BUSY: 503,
    ReasonCode.SERVER_SHUTTING_DOWN: 503,
    ReasonCode.TOPIC_NAME_INVALID: 404,
    ReasonCode.PACKET_TOO_LARGE: 413,
    ReasonCode.QUOTA_EXCEEDED: 429,
    ReasonCode.PAYLOAD_FORMAT_INVALID: 422,
}
_TRY_AGAIN = frozenset({429, 503})
_CHALLENGE = 'Bearer realm="mooring"'


class Problem(Exception):
    """A request that is answered with an error; `reason` is a slug for machines, empty where the status says it all."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        field: str = "",
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason
        self.headers = dict(headers or {})
        self.field = field
        self.close = close
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))

    def response(self) -> web.Response:
        """The answer; after some of them, such as a body that was not read, the connection ends."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": title_of(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.field:
            body["errors"] = [{"field": self.field, "detail": self.detail}]
        response = web.Response(
            status=self.status,
            body=json.dumps(body).encode(),
            content_type="application/problem+json",
            headers={**COMMON_HEADERS, "Cache-Control": "no-store", **self.headers},
        )
        if self.close:
            response.force_close()
        return response


def title_of(status: int) -> str:
    """The status' usual name."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def unauthorized(detail: str, *, token_was_given: bool) -> Problem:
    """401 with the challenge of RFC 6750, section 3."""
    challenge = f'{_CHALLENGE}, error="invalid_token"' if token_was_given else _CHALLENGE
    # Closing spares the reading of a body that nobody is entitled to send.
    return Problem(401, detail, headers={"WWW-Authenticate": challenge}, close=True)


def problem_of(outcome: Outcome) -> Problem:
    """How a refusal by the gateway or the fleet reads over HTTP."""
    status = _STATUS_BY_REASON.get(outcome.reason) or _STATUS_BY_CODE.get(outcome.code, 500)
    retry_after_s = outcome.retry_after_s
    if retry_after_s is None and status in _TRY_AGAIN:
        retry_after_s = 5.0
    headers = {"WWW-Authenticate": _CHALLENGE} if status == HTTPStatus.UNAUTHORIZED else None
    detail = outcome.detail or outcome.reason.replace("_", " ") or title_of(status)
    return Problem(status, detail, reason=outcome.reason, retry_after_s=retry_after_s, headers=headers)

"""Reading a request of the device HTTP API: bounded in size and time, by media type. Never decompresses."""

import asyncio
import re
from collections.abc import Collection

import orjson
from aiohttp import web

from gateway.compressed import is_gzip, is_zlib
from gateway.links.http_problem import Problem

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
CBOR = "application/cbor"
BYTES = "application/octet-stream"
SENML_JSON = "application/senml+json"
SENML_CBOR = "application/senml+cbor"

COMPRESSED = {"gzip": is_gzip, "x-gzip": is_gzip, "deflate": is_zlib}
"""The content codings that the decoder undoes, and how a body in them is known."""

SLOWEST_BYTES_PER_S = 500
MAX_WAIT_S = 60.0
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")


def media_type(request: web.Request, allowed: Collection[str], codings: Collection[str] = ()) -> str:
    """The body's media type; a body without one is taken for JSON. Raises Problem 415."""
    if _coding(request) not in ("identity", *codings):
        known = ", ".join(codings) or "identity"
        detail = f"compressed as one of: {known}" if codings else "compressed bodies are not taken here"
        raise Problem(415, detail, headers={"Accept-Encoding": known}, close=True)
    given = request.content_type if "Content-Type" in request.headers else JSON
    if given not in allowed:
        accepted = ", ".join(sorted(allowed))
        raise Problem(415, f"send one of: {accepted}", headers={"Accept": accepted}, close=True)
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, "text has to be UTF-8", close=True)
    return given


async def read_body(request: web.Request, *, limit_bytes: int, patience_s: float) -> bytes:
    """The whole body. Raises Problem: 413 past the limit, 408 when it is slower than 500 bytes/s past `patience_s`."""
    too_large = Problem(413, f"the body may have {limit_bytes} bytes", reason="too_large", close=True)
    if request.content_length is not None and request.content_length > limit_bytes:
        raise too_large
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(patience_s) as deadline:
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit_bytes:
                    raise too_large
                deadline.reschedule(began + patience_s + len(body) / SLOWEST_BYTES_PER_S)
    except TimeoutError:
        raise Problem(408, "the body did not arrive in time", close=True) from None
    except web.RequestPayloadError:
        raise Problem(400, "the body could not be read", close=True) from None
    return bytes(body)


def check_coding(request: web.Request, body: bytes) -> None:
    """Raises Problem 400 when the body does not begin as its Content-Encoding says."""
    looks_right = COMPRESSED.get(_coding(request))
    if looks_right is not None and not looks_right(body):
        raise Problem(400, "the body is not what Content-Encoding says", reason="invalid_compression")


def json_object(body: bytes) -> dict[str, object]:
    """The body as a JSON object. Raises Problem 400, 422."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"not JSON: {error.msg}", reason="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem(422, "a JSON object is wanted")
    return value


def wait_s(request: web.Request) -> float:
    """The seconds asked for in ?wait=, 0 without. Raises Problem 422."""
    text = request.query.get("wait", "0")
    if _SECONDS.fullmatch(text) is None or float(text) > MAX_WAIT_S:
        raise Problem(422, f"wait is a number of seconds from 0 to {MAX_WAIT_S:.0f}", field="wait")
    return float(text)


def _coding(request: web.Request) -> str:
    return ", ".join(request.headers.getall("Content-Encoding", ["identity"])).strip().lower()

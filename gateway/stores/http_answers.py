"""What the HTTP answer of a time-series server means for the drain: try again, or never again. No I/O, no clock.

| answer | meaning |
| --- | --- |
| 422, and 400 about lines or points | StoreRejected: the server read these readings and refuses (some of) them |
| 413 | StoreRejected: too many at once. The drain halves a rejected batch, and so finds the size that is accepted |
| 401, 403, 404 | StoreUnavailable: token, organisation or bucket are wrong. Readings wait until somebody mends it |
| 400 of another kind, 3xx | StoreUnavailable: a wrong URL or a proxy in between; no reading is to blame |
| 429, 503 | StoreUnavailable, with the server's Retry-After when it gave one |
| other 5xx, time-outs, broken connections | StoreUnavailable |

A doubtful refusal counts as "not now": waiting loses nothing, a dead letter is hard to bring back.
"""

from collections.abc import Mapping

import orjson

from gateway.store import StoreError, StoreRejected, StoreUnavailable

DETAIL_LIMIT = 300
RETRY_AFTER_LIMIT_S = 3600.0
#: How 1.x, 2.x and 3.x begin to say that a line or a point is at fault.
_BLAMES_READINGS = (
    "partial write",
    "unable to parse",
    "field type conflict",
    "line protocol",
    "beyond retention policy",
    "outside retention policy",
    "invalid field format",
)


def refusal(
    status: int, body: bytes | str | None, headers: Mapping[str, str], *, server: str, bucket: str
) -> StoreError:
    """The error to raise for an answer that is not 2xx. `server` and `bucket` are named in its detail."""
    said = _said(body)
    detail = f"{server} answered {status}{': ' + said if said else ''}"
    if status == 413:
        return StoreRejected(detail)
    if status == 422 or (status == 400 and any(phrase in said.lower() for phrase in _BLAMES_READINGS)):
        return StoreRejected(detail)
    if status == 401:
        return StoreUnavailable(f"{detail}. The token is missing or wrong: see store.token", status=status)
    if status == 403:
        return StoreUnavailable(f"{detail}. The token may not use {bucket!r}: see store.token", status=status)
    if status == 404:
        return StoreUnavailable(f"{detail}. Is there a bucket {bucket!r}, and is store.url right?", status=status)
    if 300 <= status < 400:
        wanted = headers.get("Location", "unnamed")
        return StoreUnavailable(f"{detail}. It wants another URL ({wanted}): see store.url", status=status)
    return StoreUnavailable(detail, retry_after_s=_retry_after_s(headers), status=status)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds only; the other form, a date, is taken for none, since clocks differ."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(seconds, RETRY_AFTER_LIMIT_S) if seconds >= 0 else None


def _said(body: bytes | str | None) -> str:
    """The server's own words: cut, on one line, printable."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict):
        text = str(parsed.get("message") or parsed.get("error") or text)
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 2 * DETAIL_LIMIT]).split())
    return line[:DETAIL_LIMIT]

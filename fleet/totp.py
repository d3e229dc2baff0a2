"""Time-based one-time passwords, RFC 6238 over RFC 4226, as authenticator apps know them. No I/O, no clock.

SHA-1, six digits, thirty seconds: what every app takes; some ignore any other choice without a word.
"""

import base64
import hashlib
import hmac
import secrets
from urllib.parse import quote, urlencode

DIGITS = 6
STEP_S = 30
_SECRET_BYTES = 20  # as long as the hash: RFC 4226 section 4, R6
_DRIFT_STEPS = 1  # a phone's clock, and the time to type: RFC 6238 section 5.2 advises one


def new_secret() -> str:
    """160 random bits in base 32."""
    return base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def code_at(secret: str, step: int) -> str:
    """The code of a step, which is Unix time / 30. RFC 4226 section 5.3."""
    digest = hmac.digest(base64.b32decode(secret), step.to_bytes(8, "big"), hashlib.sha1)
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def matching_step(secret: str, code: str, *, unix_s: float, after: int) -> int | None:
    """The step near `unix_s`, and later than `after`, that `code` belongs to; None for none.

    Remember it as the next `after`: a code counts once.
    """
    now = int(unix_s) // STEP_S
    found = None
    for step in range(max(0, now - _DRIFT_STEPS), now + _DRIFT_STEPS + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), code.encode("utf-8", "surrogatepass")) and step > after:
            found = step
    return found


def enrolment_uri(secret: str, *, username: str, issuer: str = "Mooring") -> str:
    """What an authenticator app reads, as a rule from a QR code."""
    query = urlencode({"secret": secret, "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS, "period": STEP_S})
    return f"otpauth://totp/{quote(issuer)}:{quote(username)}?{query}"

"""Access tokens: JWTs signed with HMAC-SHA-256 and a secret of this installation's own.

The algorithm is fixed on our side: what a token's header says about algorithms and keys is not believed. A token
names a login (`sid`); whether that login still stands is the question of logins.py, asked at each use.
"""

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt

from fleet.errors import SetupError, Unauthorized

_ALGORITHM = "HS256"
_ISSUER = "mooring"
_AUDIENCE = "mooring-api"
_SECRET_BYTES = 32
_TOKEN_LENGTH_LIMIT = 2_048
_LEEWAY_S = 5  # two nodes' clocks


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What a valid token says."""

    login_id: str
    user_id: str
    expires_at: int


class AccessTokens:
    """Makes and reads access tokens."""

    def __init__(self, secret: str, *, lifetime_s: int) -> None:
        if len(secret.encode()) < _SECRET_BYTES:
            raise SetupError(f"the secret for access tokens must have at least {_SECRET_BYTES} bytes")
        self._secret = secret
        self.lifetime_s = lifetime_s

    def issue(self, *, login_id: str, user_id: str, now: datetime) -> str:
        """A token for a login, from `now` on."""
        issued_at = int(now.timestamp())
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": user_id,
            "sid": login_id,
            "iat": issued_at,
            "exp": issued_at + self.lifetime_s,
            "jti": secrets.token_urlsafe(9),
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str, *, now: datetime) -> AccessClaims:
        """The claims of a token of ours that is valid at `now`. Raises Unauthorized."""
        if not token or len(token) > _TOKEN_LENGTH_LIMIT:
            raise Unauthorized
        # The library looks at the machine's clock; ours may be another one. Hence exp and iat are checked below.
        options: Any = {
            "require": ["exp", "iat", "sub", "sid", "iss", "aud"],
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        }
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[_ALGORITHM], issuer=_ISSUER, audience=_AUDIENCE, options=options
            )
        except (jwt.InvalidTokenError, ValueError) as error:
            raise Unauthorized from error
        at = now.timestamp()
        expires_at, issued_at, login_id, user_id = claims["exp"], claims["iat"], claims["sid"], claims["sub"]
        if not (type(expires_at) is int and type(issued_at) is int) or not isinstance(login_id, str):
            raise Unauthorized
        too_long = expires_at - issued_at > self.lifetime_s
        if "nbf" in claims or too_long or at >= expires_at + _LEEWAY_S or at < issued_at - _LEEWAY_S:
            raise Unauthorized
        return AccessClaims(login_id=login_id, user_id=user_id, expires_at=expires_at)


def load_secret(path: Path) -> str:
    """The secret kept in a file that only we may read; made, random, when there is none. Raises SetupError."""
    if not path.exists():
        _make_secret(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SetupError(f"{path} can be read by others: run chmod 600 on it, and consider it known")
    secret = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(secret.encode()) < _SECRET_BYTES or "\N{REPLACEMENT CHARACTER}" in secret:
        raise SetupError(f"{path} holds no usable secret: remove it to get a new one (everybody has to log in again)")
    return secret


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(_SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # Whole or not at all, and never over one that another process has just made.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()

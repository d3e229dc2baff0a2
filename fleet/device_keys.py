"""Devices' public keys, and the JWTs that devices sign with them (RFC 7519, 7517). No I/O, no clock.

The algorithm belongs to the registered key; what a token's header says of algorithms must agree with it, and can never
choose. A header that brings keys along, or says where to get them, is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import jwt
import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from fleet.errors import Invalid

TEXT_LIMIT = 16_384
TOKEN_LIMIT = 4_096
LIFE_LIMIT_S = 24 * 3_600
LEEWAY_S = 60  # devices' clocks are seldom better
_RSA_BITS = (2_048, 8_192)  # checking a signature of more takes longer than a device is worth
_TIME_LIMIT = 253_402_300_799  # the end of the year 9999
_FOREIGN_KEYS = frozenset(("jku", "jwk", "x5u", "x5c", "crit"))
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "k", "oth"))

_Key = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """`pem` is SubjectPublicKeyInfo; `fingerprint` its SHA-256 in hex; `key_id` the JWK's `kid`, or empty."""

    pem: str
    algorithm: str
    key_id: str
    fingerprint: str


def read_public_key(text: str) -> PublicKey:
    """A PEM or a JWK: P-256, RSA of 2048 bits and more, Ed25519. Raises Invalid."""
    if len(text) > TEXT_LIMIT:
        raise Invalid("public_key", f"is longer than {TEXT_LIMIT} characters")
    text, key_id = text.strip(), ""
    try:
        if text.startswith("{"):
            key, key_id = _from_jwk(text)
        else:
            key = load_pem_public_key(text.encode())
    except Invalid:
        raise
    except Exception as error:  # the libraries raise a good many kinds for what is not a key
        raise Invalid("public_key", "is neither a public key in PEM nor a JWK") from error
    algorithm = _algorithm(key)
    der = cast(_Key, key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = cast(_Key, key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return PublicKey(pem=pem, algorithm=algorithm, key_id=key_id, fingerprint=digest.finalize().hex())


def claimed_subject(token: str) -> str | None:
    """Which device a JWT says it is from, unproved; None when it is no JWT at all."""
    if token.count(".") != 2 or len(token) > TOKEN_LIMIT:
        return None
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
    subject = claims.get("sub")
    return subject if isinstance(subject, str) else None


def check_jwt(
    token: str, keys: Sequence[tuple[str, str, object]], *, device_id: str, audience: str, now: datetime
) -> tuple[int, datetime] | None:
    """(place of the key in `keys`, when the token ends), or None for a token that does not prove `device_id` at `now`.

    `keys` are (algorithm, key id, loaded key). With an empty `audience` the token must name none.
    """
    if len(token) > TOKEN_LIMIT:
        return None
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
    if not _FOREIGN_KEYS.isdisjoint(header):
        return None
    wanted = header.get("kid")
    for place, (algorithm, key_id, key) in enumerate(keys):
        if algorithm != header.get("alg") or (wanted and key_id and wanted != key_id):
            continue
        claims = _claims(token, key, algorithm, audience)
        if claims is not None:
            ends = _end(claims, now.timestamp()) if claims["sub"] == device_id else None
            return None if ends is None else (place, datetime.fromtimestamp(ends, UTC))
    return None


def load_key(pem: str) -> tuple[str, object]:
    """(algorithm, key) of a PEM that `read_public_key` made."""
    key = load_pem_public_key(pem.encode())
    return _algorithm(key), key


def _claims(token: str, key: object, algorithm: str, audience: str) -> dict[str, Any] | None:
    # The library looks at the machine's clock; ours may be another one. Hence the times are checked by `_end`.
    options: Any = {"require": ["exp", "sub"], "verify_exp": False, "verify_iat": False, "verify_nbf": False}
    try:
        claims = jwt.decode(token, cast(Any, key), algorithms=[algorithm], audience=audience or None, options=options)
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
        return None
    return claims


def _end(claims: dict[str, Any], now: float) -> int | None:
    """The second at which the token ends, leeway included; None when it is not valid now, or for too long."""
    expires, issued, begins = claims["exp"], claims.get("iat", now), claims.get("nbf", now)
    for at in (expires, issued, begins):
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= _TIME_LIMIT:
            return None
    if expires - issued > LIFE_LIMIT_S or expires - now > LIFE_LIMIT_S + LEEWAY_S:
        return None
    if issued > now + LEEWAY_S or begins > now + LEEWAY_S or now >= expires + LEEWAY_S:
        return None
    return int(expires) + LEEWAY_S


def _from_jwk(text: str) -> tuple[object, str]:
    fields = orjson.loads(text)
    if not _PRIVATE.isdisjoint(fields):
        raise Invalid("public_key", "holds the private part: keep it on the device, and register the public one")
    key_id = fields.get("kid", "")
    if not isinstance(key_id, str) or len(key_id) > 128:
        raise Invalid("public_key", "has a kid that is no text of at most 128 characters")
    return jwt.PyJWK(fields).key, key_id


def _algorithm(key: object) -> str:
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    if isinstance(key, RSAPublicKey) and _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]:
        return "RS256"
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA"
    raise Invalid("public_key", f"must be P-256, Ed25519, or RSA of {_RSA_BITS[0]} to {_RSA_BITS[1]} bits")

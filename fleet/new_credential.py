"""What is asked for when a device gets a further credential, and whether it can be had. No I/O, no clock."""

import re
from dataclasses import dataclass, field
from datetime import datetime

from fleet.certificates import fingerprint_of, is_good, pem_of, read_certificate
from fleet.device_keys import read_public_key
from fleet.errors import Invalid
from fleet.limits import checked_text
from fleet.proofs import CHOSEN_LENGTH, CHOSEN_LIMIT, PREFIX
from fleet.views import CredentialKind

_TAKES = {"token": ("token",), "jwt": ("public_key",), "x509": ("certificate", "fingerprint")}
_FINGERPRINT = re.compile("[0-9a-f]{64}")
_DIFFERENT = 6  # characters; "aaaaaaaaaaaaaaaa" is long and no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredential:
    """`type` is token, jwt or x509. Without a `token` of its owner's, a random one is made."""

    type: str = "token"
    name: str = ""
    expires_at: datetime | None = None
    token: str | None = field(default=None, repr=False)
    public_key: str | None = None
    certificate: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`secret` is what is stored; a chosen token is still to be hashed."""

    kind: CredentialKind
    name: str
    secret: str = field(default="", repr=False)
    key_id: str = ""
    hint: str = ""


def checked(wanted: NewCredential, device_id: str, now: datetime) -> Checked:
    """Raises Invalid."""
    name = checked_text("name", wanted.name, empty=True)
    if wanted.expires_at is not None and wanted.expires_at <= now:
        raise Invalid("expires_at", "is in the past")
    takes = _TAKES.get(wanted.type)
    if takes is None:
        raise Invalid("type", f"must be one of {', '.join(_TAKES)}")
    for given in ("token", "public_key", "certificate", "fingerprint"):
        if getattr(wanted, given) is not None and given not in takes:
            raise Invalid(given, f"does not belong to a credential of type {wanted.type}")
    if wanted.type == "jwt":
        if wanted.public_key is None:
            raise Invalid("public_key", "is wanted: what the device's JWTs are checked with")
        key = read_public_key(wanted.public_key)
        return Checked(kind=CredentialKind.JWT, name=name, secret=key.pem, key_id=key.key_id, hint=key.fingerprint[-4:])
    if wanted.type == "x509":
        pem, fingerprint = _certificate(wanted, now)
        return Checked(kind=CredentialKind.X509, name=name, secret=pem, key_id=fingerprint, hint=fingerprint[-4:])
    if wanted.token is None:
        return Checked(kind=CredentialKind.TOKEN, name=name)
    _check_token(wanted.token, device_id)
    return Checked(kind=CredentialKind.CHOSEN, name=name, secret=wanted.token)


def _certificate(wanted: NewCredential, now: datetime) -> tuple[str, str]:
    """(PEM or nothing, fingerprint)"""
    if (wanted.certificate is None) == (wanted.fingerprint is None):
        raise Invalid("certificate", "or its fingerprint is wanted, one of them")
    if wanted.certificate is not None:
        certificate = read_certificate(wanted.certificate)
        if not is_good(certificate, now):
            raise Invalid("certificate", "is not valid now, is weak, or is not for clients")
        return pem_of(certificate), fingerprint_of(certificate)
    fingerprint = (wanted.fingerprint or "").replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise Invalid("fingerprint", "must be the certificate's SHA-256: 64 hexadecimal digits")
    return "", fingerprint


def _check_token(token: str, device_id: str) -> None:
    """Printable ASCII without spaces, as it must fit a header; long, varied, and not what everybody would try."""
    if not CHOSEN_LENGTH <= len(token) <= CHOSEN_LIMIT:
        raise Invalid("token", f"must have {CHOSEN_LENGTH} to {CHOSEN_LIMIT} characters")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Invalid("token", "must be printable ASCII without spaces")
    if token.startswith(PREFIX) or token.count(".") == 2:
        raise Invalid("token", f"must not look like one of ours ({PREFIX}…) or like a JWT (two dots)")
    if len(set(token.casefold())) < _DIFFERENT:
        raise Invalid("token", f"must have {_DIFFERENT} different characters")
    rest = token.casefold().replace(device_id.casefold(), "")
    if len(rest) < CHOSEN_LENGTH // 2:
        raise Invalid("token", "must not be made of the device's id")

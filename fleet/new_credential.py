"""What is asked for when a device gets a further credential, and whether it can be had. No I/O, no clock."""

from dataclasses import dataclass, field
from datetime import datetime

from fleet.device_keys import read_public_key
from fleet.errors import Invalid
from fleet.limits import checked_text
from fleet.proofs import CHOSEN_LENGTH, CHOSEN_LIMIT
from fleet.views import CredentialKind

PREFIX = "mrd_"  # lets secret scanners know what they have found
_DIFFERENT = 6  # characters; "aaaaaaaaaaaaaaaa" is long and no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredential:
    """`type` is token, jwt or x509. Without a `token` of its owner's, a random one is made."""

    type: str = "token"
    name: str = ""
    expires_at: datetime | None = None
    token: str | None = field(default=None, repr=False)
    public_key: str | None = None


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
    takes = {"token": ("token",), "jwt": ("public_key",)}.get(wanted.type)
    if takes is None:
        raise Invalid("type", "must be token or jwt")
    for given in ("token", "public_key"):
        if getattr(wanted, given) is not None and given not in takes:
            raise Invalid(given, f"does not belong to a credential of type {wanted.type}")
    if wanted.type == "jwt":
        if wanted.public_key is None:
            raise Invalid("public_key", "is wanted: what the device's JWTs are checked with")
        key = read_public_key(wanted.public_key)
        return Checked(kind=CredentialKind.JWT, name=name, secret=key.pem, key_id=key.key_id, hint=key.fingerprint[-4:])
    if wanted.token is None:
        return Checked(kind=CredentialKind.TOKEN, name=name)
    _check_token(wanted.token, device_id)
    return Checked(kind=CredentialKind.CHOSEN, name=name, secret=wanted.token)


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

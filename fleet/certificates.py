"""What a client certificate must be, and who may issue them (RFC 5280). No I/O, no clock.

The chain has one link: the authority that signed the device's certificate is itself registered, be it a root or an
intermediate one. What TLS has found out is found out again here, at each login, as of what is registered now.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.errors import Invalid

T = TypeVar("T", bound=x509.ExtensionType)

TEXT_LIMIT = 16_384
_RSA_BITS = 2_048
_WEAK = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Authority:
    """One that may issue devices' certificates; those with a serial number in `revoked` are void."""

    id: str
    certificate: x509.Certificate
    revoked: frozenset[int]


def read_certificate(text: str, field: str = "certificate") -> x509.Certificate:
    """One certificate in PEM. Raises Invalid."""
    if len(text) > TEXT_LIMIT:
        raise Invalid(field, f"is longer than {TEXT_LIMIT} characters")
    try:
        found = x509.load_pem_x509_certificates(text.strip().encode())
        for certificate in found:
            certificate.public_key(), certificate.extensions, certificate.subject  # read when asked for
    except Exception as error:  # the library raises a good many kinds for what is no certificate
        raise Invalid(field, "is no certificate in PEM") from error
    if len(found) != 1:
        raise Invalid(field, "must be one certificate, not a chain")
    return found[0]


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Its SHA-256, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def load_der(der: bytes) -> x509.Certificate | None:
    """What TLS was shown; None for what cannot be read to its end."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key(), certificate.extensions, certificate.subject  # read when asked for
    except Exception:  # a peer's bytes, and a good many kinds
        return None
    return certificate


def is_good(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether a device may show it at `now`: its dates, what it says that it is for, and that it can be believed."""
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return False
    if isinstance(certificate.signature_hash_algorithm, _WEAK) or _is_weak(certificate):
        return False
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        return False
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    return purposes is None or not {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }.isdisjoint(purposes)


def is_issued_by(certificate: x509.Certificate, authority: Authority, now: datetime) -> bool:
    """Whether this authority signed it and has neither ended nor revoked it; and it is no authority itself."""
    issuer = authority.certificate
    if certificate.issuer != issuer.subject or certificate.serial_number in authority.revoked:
        return False
    if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
        return False
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def names(certificate: x509.Certificate, device_id: str) -> bool:
    """Whether its one common name, or a DNS or URI name among the alternatives, is the device's id."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(common) == 1 and common[0].value == device_id:
        return True
    alternatives = _extension(certificate, x509.SubjectAlternativeName)
    if alternatives is None:
        return False
    found = (
        *alternatives.get_values_for_type(x509.DNSName),
        *alternatives.get_values_for_type(x509.UniformResourceIdentifier),
    )
    return device_id in found


def check_authority(certificate: x509.Certificate, now: datetime) -> None:
    """Raises Invalid for what may not vouch for others."""
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise Invalid("certificate", "is not that of an authority: it may sign no certificates")
    if certificate.not_valid_after_utc <= now:
        raise Invalid("certificate", "has expired")
    if _is_weak(certificate):
        raise Invalid("certificate", f"has an RSA key of less than {_RSA_BITS} bits")


def _is_weak(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    return isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

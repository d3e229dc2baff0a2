"""Who a client certificate is: by its SHA-256 fingerprint, or by attributes of its subject. No I/O, no clock.

Whether it is valid, and signed by the right authority, the TLS listener has checked before.
"""

import hashlib
import re
from dataclasses import dataclass

from cryptography import x509

_FINGERPRINT = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRule:
    """Either a fingerprint, or (OID, value) pairs, each of which the subject must have once and with that value."""

    fingerprint: bytes | None = None
    subject: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "CertificateRule":
        """`CN=boiler-1`, `CN=boiler-1,O=Acme` (RFC 4514), or 64 hex digits, colons allowed. Raises ValueError."""
        if (found := _FINGERPRINT.fullmatch(text.strip())) is not None:
            return cls(fingerprint=bytes.fromhex(found[1].replace(":", "")))
        try:
            name = x509.Name.from_rfc4514_string(text)
        except ValueError as error:
            raise ValueError('is neither a subject such as "CN=boiler-1" nor a SHA-256 fingerprint') from error
        subject = tuple(sorted((one.oid.dotted_string, str(one.value)) for one in name))
        if not subject or len({oid for oid, _ in subject}) != len(subject):
            raise ValueError("must name each attribute of the subject once")
        return cls(subject=subject)

    def fits(self, certificate: bytes) -> bool:
        """Whether this certificate (DER) is meant."""
        if self.fingerprint is not None:
            return hashlib.sha256(certificate).digest() == self.fingerprint
        try:
            subject = x509.load_der_x509_certificate(certificate).subject
        except ValueError:
            return False
        found = [(one.oid.dotted_string, str(one.value)) for one in subject]
        wanted = dict(self.subject)
        # an attribute that is there twice could be read either way by whoever signed it
        return sorted(pair for pair in found if pair[0] in wanted) == sorted(wanted.items())

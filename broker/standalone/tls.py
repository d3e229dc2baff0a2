"""The TLS of the listeners: made from files, checked at once, and replaced while connections go on."""

import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good
_SOON = timedelta(days=14)


class TlsError(Exception):
    """A certificate, key or authority cannot be used; says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. Without `client_ca` no client is asked for a certificate."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    client_crl: Path | None = None
    client_certificate: Literal["required", "optional"] = "required"


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or newer, forward secrecy and AEAD only. Raises TlsError; never falls back to less."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    for name, path in (("tls_cert", files.cert), ("tls_key", files.key)):
        _must_be_readable(name, path)
    try:
        # with a password, as OpenSSL would else ask for it at the terminal
        context.load_cert_chain(files.cert, files.key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(
            f"tls_cert {files.cert} and tls_key {files.key} do not go together: {_words(error)}; "
            "they must be PEM, the key without a password"
        ) from error
    if files.client_ca is not None:
        _ask_clients(context, files, files.client_ca)
    return context


def _ask_clients(context: ssl.SSLContext, files: TlsFiles, client_ca: Path) -> None:
    _must_be_readable("client_ca", client_ca)
    try:
        context.load_verify_locations(client_ca)
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"client_ca {client_ca} holds no certificate in PEM: {_words(error)}") from error
    required = files.client_certificate == "required"
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    if files.client_crl is not None:
        _must_be_readable("client_crl", files.client_crl)
        try:
            context.load_verify_locations(files.client_crl)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"client_crl {files.client_crl} holds no revocation list in PEM: {_words(error)}") from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    # A resumed session is not verified again: it would outlive an authority or a revocation list taken away.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _must_be_readable(name: str, path: Path) -> None:
    try:
        if not path.read_bytes().strip():
            raise TlsError(f"{name} {path} is empty")
    except OSError as error:
        raise TlsError(f"{name} {path} cannot be read: {error.strerror}") from error


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error).lower().replace("_", " ")


def expiry_warning(cert: Path, now: datetime) -> str | None:
    """In words when the server's own certificate has expired or soon will; None when there is time."""
    try:
        until = x509.load_pem_x509_certificate(cert.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
    if until <= now:
        return f"{cert} has expired on {until:%Y-%m-%d}: clients will refuse it"
    return f"{cert} expires on {until:%Y-%m-%d}" if until - now < _SOON else None


def utc_now() -> datetime:
    return datetime.now(UTC)


class ReplaceableContext:
    """`front` is the listeners' for good; each handshake is handed on to the context that was set last.

    A client that resumes a session of TLS 1.2 is not verified again, and Python cannot turn that off, so a session from
    before the last replacement ends the handshake; the client then begins a new one.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.front = context
        self._current = context
        self._replaced_at = 0.0  # of the wall clock, as the sessions' times are
        context.sni_callback = self._hand_on  # called for every ClientHello, also one without a name

    def fault_of(self, context: ssl.SSLContext) -> str | None:
        """Why a context cannot take over. OpenSSL takes these two from the front, whatever is set later."""
        if context.verify_mode != self.front.verify_mode or context.verify_flags != self.front.verify_flags:
            return "whether client certificates are asked for, and checked against a list, needs a restart"
        return None

    def replace(self, context: ssl.SSLContext) -> None:
        """Handshakes from now on use this one; connections that there are stay."""
        self._current = context
        self._replaced_at = time.time()

    def _hand_on(self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, front: ssl.SSLContext) -> int | None:
        if self._current is front:
            return None
        verifies = front.verify_mode != ssl.CERT_NONE
        if verifies and handshake.session_reused and _made_at(handshake.session) <= self._replaced_at:
            return int(ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE)
        handshake.context = self._current
        return None


def _made_at(session: ssl.SSLSession | None) -> float:
    """In whole seconds."""
    return 0.0 if session is None else session.time

"""Whose certificates the TLS listeners let devices show: a change takes effect for the next connection.

A context only ever trusts more, as OpenSSL's does; what is withdrawn is refused by the guard at the login. As long as
nothing is registered, devices are not asked for a certificate at all.
"""

import ssl

LIMIT = 10_000  # certificates; some 4 KB each in every context


class Trust:
    """The contexts of all listeners, and the certificates that they trust."""

    def __init__(self) -> None:
        self._contexts: list[ssl.SSLContext] = []
        self._trusted: dict[str, None] = {}

    def join(self, context: ssl.SSLContext) -> None:
        """A listener's context, which it uses for each new connection."""
        self._contexts.append(context)
        for pem in self._trusted:
            _trust(context, pem)

    def add(self, pem: str) -> None:
        """Trust a certificate: an authority's, or one device's own. Beyond the limit it is not trusted."""
        if pem in self._trusted or len(self._trusted) >= LIMIT:
            return
        self._trusted[pem] = None
        for context in self._contexts:
            _trust(context, pem)


def _trust(context: ssl.SSLContext, pem: str) -> None:
    context.load_verify_locations(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate authority, or a device's own, is enough
    context.verify_mode = ssl.CERT_OPTIONAL

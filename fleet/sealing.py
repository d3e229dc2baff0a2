"""Secrets that have to be read again, sealed in the database with a key that is not in it. AES-256-GCM. No clock."""

import base64
import binascii
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_VERSION = "1:"


class Unsealable(Exception):
    """It was sealed with another key, for something else, or was changed."""


class Seal:
    """One purpose's seal. Its key follows from the installation's secret."""

    def __init__(self, secret: str, *, purpose: str) -> None:
        self._cipher = AESGCM(hmac.digest(secret.encode(), f"mooring seal: {purpose}".encode(), hashlib.sha256))

    def close(self, text: str, *, of: str) -> str:
        """`text`, sealed for `of`: it cannot be given to another."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), of.encode())
        return _VERSION + base64.b64encode(sealed).decode()

    def open(self, sealed: str, *, of: str) -> str:
        """The other way. Raises Unsealable."""
        try:
            raw = base64.b64decode(sealed.removeprefix(_VERSION), validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], of.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise Unsealable from error

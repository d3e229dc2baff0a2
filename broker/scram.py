"""SCRAM-SHA-256 as a method of MQTT 5's enhanced authentication (RFC 5802, RFC 7677). No I/O, no clock.

The conversation is scramp's. Ours are the stored form of a credential, the bounds on what a stranger may send, and what
is shown for a user who does not exist: a salt and an iteration count made from the name, always the same, so that only
the last answer is a no. The password never reaches the broker, and what the broker keeps cannot be used to log in.
"""

import base64
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from scramp import ScramException, ScramMechanism

from broker.engine import ConnectRequest
from broker.native.auth import AuthStep
from broker.reason import ReasonCode

logger = logging.getLogger(__name__)

METHOD = "SCRAM-SHA-256"
DEFAULT_ITERATIONS = 15_000
"""RFC 5802, section 5.1: about 0.1 s of a desktop of 2010; devices with less pay for each of them at every login."""
MIN_ITERATIONS, MAX_ITERATIONS = 4_096, 10_000_000
SALT_BYTES = range(12, 65)
_KEY_BYTES = 32
_MESSAGE_LIMIT = 512
"""Bytes. Preparing a name (SASLprep) took up to 6 ms for this many; a real message has some 100."""
_MECHANISM = ScramMechanism(METHOD)
_STORED = re.compile(rf"{METHOD}\$([1-9][0-9]{{3,7}}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramCredential:
    """What is kept of a password; as text `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the parts in base64."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def make(
        cls, password: str, *, iterations: int = DEFAULT_ITERATIONS, salt: bytes | None = None
    ) -> "ScramCredential":
        """Takes as long as the iterations do. Raises ValueError for what SCRAM does not allow in a password."""
        try:
            made = _MECHANISM.make_auth_info(password, iteration_count=iterations, salt=salt)
        except ScramException as error:
            raise ValueError(str(error)) from error
        return cls(salt=made[0], stored_key=made[1], server_key=made[2], iterations=made[3])

    @classmethod
    def parse(cls, text: str) -> "ScramCredential":
        """Read the stored form. Raises ValueError, without a word of the text."""
        found = _STORED.fullmatch(text)
        if found is None:
            raise ValueError(f"is not of the form {METHOD}$iterations:salt$StoredKey:ServerKey")
        try:
            salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in found.groups()[1:])
        except ValueError as error:
            raise ValueError("has a part that is not base64") from error
        if not MIN_ITERATIONS <= int(found[1]) <= MAX_ITERATIONS:
            raise ValueError(f"must have {MIN_ITERATIONS:,} to {MAX_ITERATIONS:,} iterations")
        if len(salt) not in SALT_BYTES or len(stored_key) != _KEY_BYTES or len(server_key) != _KEY_BYTES:
            raise ValueError("has a salt or a key of the wrong length")
        return cls(iterations=int(found[1]), salt=salt, stored_key=stored_key, server_key=server_key)

    def __str__(self) -> str:
        salt, stored_key, server_key = (
            base64.b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{METHOD}${self.iterations}:{salt}${stored_key}:{server_key}"


class Backoff(Protocol):
    """Slows guessing down; see broker/standalone/backoff.py."""

    def wait_s(self, address: str, username: str) -> float:
        """Seconds until the next try is allowed; 0 when it is."""
        ...

    def failed(self, address: str, username: str) -> None: ...

    def succeeded(self, address: str, username: str) -> None: ...


class ScramSha256:
    """An AuthMethod. `secret` makes the salts of unknown users: keep it, or they change with every start."""

    def __init__(
        self,
        credentials: Mapping[str, ScramCredential],
        *,
        secret: bytes | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._secret = secret or secrets.token_bytes(32)
        self._backoff = backoff
        self.replace(credentials)

    def replace(self, credentials: Mapping[str, ScramCredential]) -> None:
        """Others count from now on, also in conversations that have begun."""
        self._credentials = credentials
        # a made-up user must look like one of those there are, as often as there are such
        self._shapes = sorted((one.iterations, len(one.salt)) for one in credentials.values())

    def begin(self, request: ConnectRequest) -> "ScramExchange":
        return ScramExchange(self, request, self._backoff)

    def find(self, username: str) -> tuple[ScramCredential, bool]:
        """The credential of a user, or a made-up one that nobody can know the password of; and whether it is real."""
        fake = self._fake(username)  # also for a known user, who must not be told by the time
        real = self._credentials.get(username)
        return (fake, False) if real is None else (real, True)

    def _fake(self, username: str) -> ScramCredential:
        iterations, salt_bytes = DEFAULT_ITERATIONS, _KEY_BYTES
        if self._shapes:
            place = int.from_bytes(self._derive(b"shape", username)[:8], "big")
            iterations, salt_bytes = self._shapes[place % len(self._shapes)]
        return ScramCredential(
            iterations=iterations,
            salt=self._derive(b"salt", username)[:salt_bytes],
            stored_key=self._derive(b"stored key", username)[:_KEY_BYTES],
            server_key=self._derive(b"server key", username)[:_KEY_BYTES],
        )

    def _derive(self, purpose: bytes, username: str) -> bytes:
        return hmac.digest(self._secret, purpose + b"\0" + username.encode(), "sha512")


class _Stage(StrEnum):
    CLIENT_FIRST = "the client's first message"
    CLIENT_FINAL = "the client's proof"
    OVER = "nothing"


class ScramExchange:
    """One conversation: the client's first message, the challenge, the client's proof, the server's signature.

    Both nonces are part of what is signed, and ours is new each time, so nothing of one conversation fits another.
    """

    def __init__(self, method: ScramSha256, request: ConnectRequest, backoff: Backoff | None) -> None:
        self._method = method
        self._address = request.address
        # A CONNECT may name the user too, and a client that authenticates again may not become somebody else.
        self._expected = {name for name in (request.username, request.authenticated_as) if name}
        self._backoff = backoff
        self._server = _MECHANISM.make_server(self._credential)
        self._username = ""
        self._real = False
        self._next = _Stage.CLIENT_FIRST

    async def step(self, data: bytes | None) -> AuthStep:
        at, self._next = self._next, _Stage.OVER
        try:
            if at is _Stage.OVER or data is None or len(data) > _MESSAGE_LIMIT:
                raise ScramException("nothing to answer")
            text = data.decode("utf-8")
            return self._challenge(text) if at is _Stage.CLIENT_FIRST else self._judge(text)
        except (ScramException, UnicodeDecodeError) as error:
            if at is _Stage.CLIENT_FINAL and self._backoff is not None:
                self._backoff.failed(self._address, self._username)
            logger.debug("%s: SCRAM refused: %.200r", self._address, str(error))
            return _NO

    def _challenge(self, client_first: str) -> AuthStep:
        self._server.set_client_first(client_first)
        if self._expected - {self._username}:
            raise ScramException("another user than the CONNECT named")
        if self._must_wait():
            return _TOO_FAST
        challenge = self._server.get_server_first().encode()
        self._next = _Stage.CLIENT_FINAL
        return AuthStep(reason=ReasonCode.CONTINUE_AUTHENTICATION, data=challenge)

    def _judge(self, client_final: str) -> AuthStep:
        if self._must_wait():  # again, as many conversations may be open at once
            return _TOO_FAST
        self._server.set_client_final(client_final)
        if not self._real:
            raise ScramException("no such user")
        if self._backoff is not None:
            self._backoff.succeeded(self._address, self._username)
        signature = self._server.get_server_final().encode()
        return AuthStep(reason=ReasonCode.SUCCESS, data=signature, username=self._username)

    def _credential(self, username: str) -> tuple[bytes, bytes, bytes, int]:
        self._username = username
        found, self._real = self._method.find(username)
        return found.salt, found.stored_key, found.server_key, found.iterations

    def _must_wait(self) -> bool:
        return self._backoff is not None and self._backoff.wait_s(self._address, self._username) > 0


_NO = AuthStep(reason=ReasonCode.NOT_AUTHORIZED)
"""Not 0x86: a DISCONNECT, which ends an authentication that was to be repeated, does not have that code."""
_TOO_FAST = AuthStep(reason=ReasonCode.CONNECTION_RATE_EXCEEDED)

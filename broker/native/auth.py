"""Enhanced authentication (MQTT 5, section 4.12): the hook. A real method is in broker/scram.py. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.engine import ConnectRequest
from broker.reason import ReasonCode


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthStep:
    """What a method answers: CONTINUE_AUTHENTICATION with `data` for the client, SUCCESS, or why not.

    At SUCCESS `username` is who the client proved to be; the Guard sees it in the ConnectRequest's `authenticated_as`.
    """

    reason: ReasonCode
    data: bytes | None = None
    username: str | None = None


class AuthExchange(Protocol):
    """One conversation with one client."""

    async def step(self, data: bytes | None) -> AuthStep:
        """Answer the client's authentication data. What it raises is logged and answered UNSPECIFIED_ERROR."""
        ...


class AuthMethod(Protocol):
    """Begins conversations; the broker is given its methods by name, such as {"SCRAM-SHA-256": ScramSha256(...)}."""

    def begin(self, request: ConnectRequest) -> AuthExchange: ...


AuthMethods = Mapping[str, AuthMethod]

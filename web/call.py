"""One request on its way through a handler: who asks, and what it may reach."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from fleet.actor import Actor
from fleet.views import Role
from web.parts import PARTS, Parts

if TYPE_CHECKING:
    from fleet.fleet import Fleet
    from gateway.gateway import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is signed in."""

    id: str
    username: str
    role: Role
    name: str
    """For the audit: the user name, and the API key's if one was used."""
    login_id: str | None
    """None for an API key."""
    second_factor: bool


@dataclass(slots=True, kw_only=True)
class Call:
    """A request, its person (None on public routes), and its answer's headers and (where another) status."""

    request: web.Request
    signed_in: Person | None
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None

    @property
    def owner(self) -> str:
        return "" if self.signed_in is None else self.signed_in.id

    @property
    def person(self) -> Person:
        """Who is signed in; only for routes that ask for a role."""
        assert self.signed_in is not None  # noqa: S101 - the layer has refused strangers before
        return self.signed_in

    @property
    def address(self) -> str:
        return self.request.remote or ""

    @property
    def actor(self) -> Actor:
        """Who does it, for the services and the audit."""
        return Actor(kind="user", id=self.person.name, address=self.address)

    @property
    def user_agent(self) -> str:
        return self.request.headers.get("User-Agent", "")

    @property
    def parts(self) -> Parts:
        return self.request.app[PARTS]

    @property
    def fleet(self) -> "Fleet":
        return self.parts.fleet

    @property
    def gateway(self) -> "Gateway":
        return self.parts.gateway

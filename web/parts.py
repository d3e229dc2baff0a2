"""What the web server needs of the other parts, as Protocols and typed keys of the aiohttp application."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from broker.engine import SessionInfo
from broker.reason import ReasonCode
from web.options import WebOptions

if TYPE_CHECKING:
    # Only for types: the OpenAPI document is made without a database, and without importing one.
    from fleet.fleet import Fleet
    from gateway.gateway import Gateway


class Sessions(Protocol):
    """The broker's sessions; an embedded engine is one of these."""

    def sessions(self) -> Sequence[SessionInfo]: ...

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a handler may reach."""

    options: WebOptions
    fleet: "Fleet"
    gateway: "Gateway"
    sessions: Sessions | None
    """None where the broker is not in this process."""
    version: str
    started_at: float = field(default_factory=time.monotonic)


PARTS = web.AppKey("PARTS", Parts)

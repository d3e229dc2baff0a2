"""What the web server needs of the other parts, as Protocols and typed keys of the aiohttp application."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from aiohttp import web

from broker.engine import SessionInfo
from broker.reason import ReasonCode
from broker.watchdog import Watchdog
from web.options import WebOptions

if TYPE_CHECKING:
    # Only for types: the OpenAPI document is made without a database, and without importing one.
    from broker.native.topic_tree import TopicLevels
    from fleet.fleet import Fleet
    from gateway.gateway import Gateway


class Sessions(Protocol):
    """The broker's sessions; an embedded engine is one of these."""

    def sessions(self) -> Sequence[SessionInfo]: ...

    async def kick(self, username: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION) -> int: ...


@runtime_checkable
class BrokerOperations(Sessions, Protocol):
    """What an engine tells its operators beside its sessions, and does for them, when it can: broker.Broker does."""

    async def kick_client(
        self, username: str, client_id: str, reason: ReasonCode = ReasonCode.ADMINISTRATIVE_ACTION
    ) -> bool: ...

    async def topic_levels(self, prefix: str = "", *, after: str | None = None, limit: int = 200) -> "TopicLevels": ...

    def listeners(self) -> Mapping[str, str]: ...

    @property
    def disk_trouble(self) -> str | None: ...

    def metrics(self) -> Mapping[str, int | float]: ...

    def bounds(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEndpoints:
    """Where devices reach this server: URLs without credentials, None where there is no such way in.

    A listener on all addresses, or on loopback, is named as it listens: which of the machine's names a device can use
    is known only to who asks, so the console puts in the one that its browser uses.
    """

    device_http: str
    mqtt: str | None = None
    mqtt_ws: str | None = None
    mqtt_tls: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a handler may reach."""

    options: WebOptions
    fleet: "Fleet"
    gateway: "Gateway"
    sessions: Sessions | None
    """None where the broker is not in this process."""
    endpoints: DeviceEndpoints
    version: str
    watchdog: Watchdog | None = None
    started_at: float = field(default_factory=time.monotonic)


PARTS = web.AppKey("PARTS", Parts)

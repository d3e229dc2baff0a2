"""What the fleet needs of the gateway, and the one place that calls it: a failing link never fails a service."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

logger = logging.getLogger(__name__)


class Letter(Protocol):
    """One refused message, as gateway.dead_letters keeps it."""

    @property
    def id(self) -> int: ...
    @property
    def device_id(self) -> str: ...
    @property
    def at_ms(self) -> int: ...
    def entry(self) -> dict[str, Any]:
        """As an entry of the device's timeline."""
        ...


class LetterSource(Protocol):
    """The gateway's dead letters."""

    async def list(self, device_id: str | None = None, limit: int = 50, before: int | None = None) -> Sequence[Letter]:
        """The newest first; `before` is the id after which to go on."""
        ...


class GatewayPort(Protocol):
    """The gateway as the fleet sees it."""

    @property
    def dead_letters(self) -> LetterSource: ...

    async def send(self, device_id: str, channel: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand a message to the device's connections; False when nobody took it."""
        ...

    async def kick(self, device_id: str, reason: str) -> int:
        """Drop the device's live connections; returns how many there were."""
        ...

    async def forget_device(self, device_id: str) -> None:
        """Forget the device's readings and dead letters."""
        ...


class Sender:
    """Sends through the gateway, once there is one."""

    def __init__(self) -> None:
        self.gateway: GatewayPort | None = None
        self.holds_back: Callable[[str, str], bool] | None = None
        """Whether nothing may go to a device on this channel now: its quarantine."""

    async def send(self, device_id: str, channel: str, payload: bytes, *, retain: bool = False) -> bool:
        """False when nobody took it, for whatever reason."""
        if self.gateway is None or (self.holds_back is not None and self.holds_back(device_id, channel)):
            return False
        try:
            return await self.gateway.send(device_id, channel, payload, retain=retain)
        except Exception:
            logger.exception("%s: sending on %s failed", device_id, channel)
            return False

    async def kick(self, device_id: str, reason: str) -> int:
        if self.gateway is None:
            return 0
        try:
            return await self.gateway.kick(device_id, reason)
        except Exception:
            logger.exception("%s: dropping its connections failed", device_id)
            return 0

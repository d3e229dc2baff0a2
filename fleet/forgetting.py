"""What must go elsewhere when a device is deleted: each part says how it forgets one, the deletion calls them all."""

import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


class Forgetting:
    """A list of what to call; one that fails is logged and does not keep the others from forgetting."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, Callable[[str], Awaitable[None]]]] = []

    def add(self, part: str, forget: Callable[[str], Awaitable[None]]) -> None:
        """`part` is named in the log when it fails."""
        self._parts.append((part, forget))

    async def forget(self, device_id: str) -> None:
        for part, forget in self._parts:
            try:
                await forget(device_id)
            except Exception:
                logger.exception("%s: %s did not forget the device", device_id, part)

"""What the device HTTP API asks of the fleet: whose token this is, which file it may have, who may come in. No I/O."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file that a device may have. `size` in bytes and `sha256` in hex are what was recorded, not what is found."""

    path: Path
    size: int
    sha256: str
    name: str


class Desk(Protocol):
    """Asked once per request, so an answer has to come from a cache more often than not."""

    async def authenticate(self, secret: str, *, device_id: str | None = None, address: str = "") -> str | None:
        """The id of the device whose token or JWT this is, or None; None too for a device that is disabled.

        `device_id` is who it says it is, where it says so. Raises Problem when too many have been wrong.
        """
        ...

    async def artifact(self, device_id: str, artifact_id: str) -> ArtifactFile | None:
        """The file, when an unfinished update job of this device offers it."""
        ...

    async def provision(self, body: bytes, address: str, link: str) -> tuple[int, dict[str, object]]:
        """Let in a device that has no credential yet: 201 with its credentials, or 202: it waits. Raises Problem."""
        ...

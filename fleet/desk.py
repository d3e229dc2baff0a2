"""The fleet's side of the device HTTP API: whose token this is, and which file a device may have."""

from fleet.credentials import Credentials
from fleet.database import trouble
from fleet.downloads import Downloads
from gateway.links.http_desk import ArtifactFile
from gateway.links.http_problem import Problem

_RETRY_S = 5.0


class FleetDesk:
    """Implements gateway.links.http_desk.Desk."""

    def __init__(self, *, credentials: Credentials, downloads: Downloads) -> None:
        self._credentials = credentials
        self._downloads = downloads

    async def authenticate(self, token: str) -> str | None:
        """The id of the device whose token this is, or None; None too for a device that is disabled."""
        try:
            return await self._credentials.authenticate_token(token)
        except Exception as error:
            if trouble(error) is None:
                raise
            raise Problem(503, "this token cannot be checked now", retry_after_s=_RETRY_S) from error

    async def artifact(self, device_id: str, artifact_id: str) -> ArtifactFile | None:
        """The file, when an unfinished update job of this device offers it."""
        return await self._downloads.artifact(device_id, artifact_id)

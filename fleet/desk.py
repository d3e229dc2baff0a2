"""The fleet's side of the device HTTP API: whose token this is, which file a device may have, who may come in."""

from fleet.claimants import question_of
from fleet.credentials import Credentials
from fleet.database import trouble
from fleet.directory import Directory
from fleet.downloads import Downloads
from fleet.errors import Conflict, Invalid, TooManyAttempts
from fleet.provisioning import Asked, Provisioning, Refused
from gateway.links.http_desk import ArtifactFile
from gateway.links.http_problem import Problem

_RETRY_S = 5.0
_CLIENT = " http"  # no client id of MQTT begins so
_REFUSED = {"claim_key_invalid": 401, "already_provisioned": 409, "already_asked": 409, "queue_full": 503}
"""Statuses by what a device is refused for; all else is 403."""


class FleetDesk:
    """Implements gateway.links.http_desk.Desk."""

    def __init__(
        self, *, directory: Directory, credentials: Credentials, downloads: Downloads, provisioning: Provisioning
    ) -> None:
        self._directory = directory
        self._credentials = credentials
        self._downloads = downloads
        self._provisioning = provisioning

    async def authenticate(self, secret: str, *, device_id: str | None = None, address: str = "") -> str | None:
        """The id of the device whose token or JWT this is, or None; None too for a device that is disabled."""
        try:
            if device_id is None:
                return await self._credentials.authenticate_token(secret, client_id=_CLIENT, address=address)
            fits = await self._credentials.authenticate(device_id, secret, client_id=_CLIENT, address=address)
            return device_id if fits else None
        except TooManyAttempts as error:
            raise Problem(429, str(error), retry_after_s=error.retry_after_s) from error
        except Exception as error:
            if trouble(error) is None:
                raise
            raise Problem(503, "this token cannot be checked now", retry_after_s=_RETRY_S) from error

    async def artifact(self, device_id: str, artifact_id: str) -> ArtifactFile | None:
        """The file, when an unfinished update job of this device offers it."""
        if self._directory.is_quarantined(device_id):
            return None
        return await self._downloads.artifact(device_id, artifact_id)

    async def provision(self, body: bytes, address: str, link: str) -> tuple[int, dict[str, object]]:
        """Let in a device that has no credential yet: status and answer. Raises Problem."""
        try:
            question = question_of(body)
            if "id" not in question:
                raise Invalid("id", "is wanted: what the device will be called")
            given = await self._provisioning.ask(
                Asked(
                    device_id=question["id"],
                    claim_key=question.get("claim_key", ""),
                    nonce=question.get("nonce", ""),
                    info=question.get("info", {}),
                    address=address,
                    link=link,
                )
            )
        except Refused as error:
            raise Problem(_REFUSED.get(error.reason, 403), error.detail, reason=error.reason) from error
        except Invalid as error:
            raise Problem(422, str(error), field=error.field) from error
        except TooManyAttempts as error:
            raise Problem(429, str(error), retry_after_s=error.retry_after_s) from error
        except Conflict as error:
            raise Problem(503, error.detail, retry_after_s=1.0) from error
        except Exception as error:
            if trouble(error) is None:
                raise
            raise Problem(503, "the server cannot answer now", retry_after_s=_RETRY_S) from error
        return (202 if given.token is None else 201), given.json()

"""The bytes of artifacts on their way to devices: which file a device may have, and chunks of it over MQTT.

A device may have the artifact of the job that was offered to it and has not ended, and nothing else. That answer is
remembered for a few seconds, since a device asks for hundreds of chunks in a row, and forgotten when its job ends.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.artifacts import Artifacts
from fleet.clock import Clock
from fleet.errors import Conflict, Invalid, NotFound
from fleet.jobs import parse_wire_id
from fleet.machines.job import JOB_ACTIVE
from fleet.models import ArtifactRow, JobRow
from fleet.ports import Sender
from gateway.channels import OTA_CHUNK
from gateway.links.http_desk import ArtifactFile

CHUNK_LIMIT_BYTES = 64 * 1024
_READERS = 4  # files read at once; the rest wait for their turn in their devices' own order
_REMEMBER_S = 5.0
_REMEMBER_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a device may read, and until when that is known without asking again."""

    job: str
    file: ArtifactFile
    until: float


class Downloads:
    """Answers "may it, and where is it?" for HTTP, and sends chunks over MQTT."""

    def __init__(self, *, artifacts: Artifacts, sender: Sender, clock: Clock) -> None:
        self._artifacts = artifacts
        self._sender = sender
        self._clock = clock
        self._readers = asyncio.Semaphore(_READERS)
        self._grants: OrderedDict[str, _Grant] = OrderedDict()
        self._withdrawals = 0

    async def artifact(self, device_id: str, artifact_id: str) -> ArtifactFile | None:
        """The file, when an offered and unfinished job of this device is about this artifact."""
        rows = JobRow.filter(device_id=device_id, status__in=JOB_ACTIVE, campaign__artifact_id=artifact_id)
        if not await rows.exists():
            return None
        try:
            return await self._file(artifact_id)
        except (NotFound, Conflict):
            return None

    async def send_chunk(self, device_id: str, request: Mapping[str, Any]) -> None:
        """Send the bytes a device asks for. Raises NotFound (not its job), Invalid, Conflict (file damaged)."""
        job, offset, length = request.get("job"), request.get("offset"), request.get("length")
        if not isinstance(job, str):
            raise Invalid("job", "must be the id of the offered job")
        if type(offset) is not int or type(length) is not int or not 1 <= length <= CHUNK_LIMIT_BYTES:
            raise Invalid("length", f"must be from 1 to {CHUNK_LIMIT_BYTES}, and offset a whole number")
        file = await self._granted(device_id, job)
        if not 0 <= offset < file.size:
            raise Invalid("offset", f"must be from 0 to {file.size - 1}")
        async with self._readers:
            chunk = await asyncio.to_thread(_read, file.path, offset, min(length, file.size - offset))
        await self._sender.send(device_id, f"{OTA_CHUNK}/{job}/{offset}", chunk)

    def withdraw(self, device_id: str) -> None:
        """The device's job has ended."""
        self._withdrawals += 1
        self._grants.pop(device_id, None)

    async def _granted(self, device_id: str, job: str) -> ArtifactFile:
        grant = self._grants.get(device_id)
        now = self._clock.monotonic()
        if grant is not None and grant.job == job and grant.until > now:
            return grant.file
        withdrawals = self._withdrawals
        id, attempt = parse_wire_id(job)  # noqa: A001
        row = await JobRow.get_or_none(
            id=id, device_id=device_id, attempt=attempt, status__in=JOB_ACTIVE
        ).select_related("campaign")
        if row is None:
            raise NotFound("job", job)
        file = await self._file(row.campaign.artifact_id)
        if withdrawals == self._withdrawals:
            self._grants[device_id] = _Grant(job, file, now + _REMEMBER_S)
            self._grants.move_to_end(device_id)
            while len(self._grants) > _REMEMBER_LIMIT:
                self._grants.popitem(last=False)
        return file

    async def _file(self, artifact_id: str) -> ArtifactFile:
        path = await self._artifacts.file(artifact_id)
        row = await ArtifactRow.get(id=artifact_id)
        return ArtifactFile(path=path, size=row.size, sha256=row.sha256, name=row.name)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)

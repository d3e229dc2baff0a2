"""Artifacts: firmware files, each in data_dir/artifacts under its id and nothing that anybody typed.

An upload is streamed to a temporary file, hashed on the way, synced and renamed; only then is there a row. Before a
file is served its bytes are compared with the digest once more, whenever the file on disk is not the one that was
compared last: a changed byte never reaches a device.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from tortoise.exceptions import IntegrityError

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound, SetupError
from fleet.ids import is_id, new_id
from fleet.limits import checked_prose, checked_text
from fleet.machines.job import JOB_UNFINISHED
from fleet.models import ArtifactRow, JobRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.records import artifact_view
from fleet.views import Artifact

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WRITE_BYTES = 1 << 20  # a thread hop costs 0.1 ms: one for each MiB, not for each packet
_UPLOADS = 4  # at once; each holds a MiB
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_TEMPORARY = ".upload-"

_Fingerprint = tuple[int, int, int]


class Artifacts:
    """Store, find and give out firmware files."""

    def __init__(self, *, directory: Path, database: Database, audit: Audit, clock: Clock, limit_bytes: int) -> None:
        self._directory = directory
        self._database = database
        self._audit = audit
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._verified: dict[str, _Fingerprint] = {}
        self._verifying: dict[str, asyncio.Lock] = {}

    async def start(self) -> None:
        """Make the directory; remove what interrupted uploads left. Raises SetupError."""

        def prepare() -> None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._directory.glob(f"{_TEMPORARY}*"):
                left.unlink(missing_ok=True)

        try:
            await asyncio.to_thread(prepare)
        except OSError as error:
            raise SetupError(f"firmware cannot be kept in {self._directory}: {error.strerror or error}") from error

    async def create(
        self,
        actor: Actor,
        *,
        version: str,
        name: str,
        chunks: AsyncIterator[bytes],
        sha256: str | None = None,
        description: str = "",
    ) -> Artifact:
        """Store what `chunks` yields. Nothing is left of an upload that fails.

        Raises Invalid (also: another digest than `sha256`, too large, empty), AlreadyExists (same version and content).
        """
        version = checked_text("version", version)
        name = checked_text("name", name or "firmware.bin", limit=255)
        description = checked_prose("description", description, limit=4_000)
        if sha256 is not None and not _SHA256.fullmatch(sha256.strip()):
            raise Invalid("sha256", "must be 64 hexadecimal digits")
        id = new_id()  # noqa: A001
        temporary = self._directory / f"{_TEMPORARY}{id}"
        final = self._directory / id
        try:
            async with self._uploads:
                size, digest = await self._receive(temporary, chunks)
            if sha256 is not None and digest != sha256.strip().lower():
                raise Invalid("sha256", f"the file that arrived has {digest}")
            await asyncio.to_thread(_publish, temporary, final)
            row = ArtifactRow(
                id=id,
                name=name,
                release=version,
                description=description,
                size=size,
                sha256=digest,
                identity=_identity(version, digest),
                created_by=actor.id,
                created_at=self._clock.utc(),
            )
            try:
                async with self._database.transaction():
                    await row.save(force_create=True)
                    await self._audit.record(
                        actor,
                        "artifact.create",
                        "artifact",
                        id,
                        None,
                        {"version": version, "name": name, "sha256": digest},
                    )
            except IntegrityError as error:
                raise AlreadyExists("artifact", f"{version} with the same content") from error
        except BaseException:
            await asyncio.shield(asyncio.to_thread(_remove, temporary, final))
            raise
        return artifact_view(row)

    async def list(self, *, cursor: str | None = None, limit: int = 50, with_total: bool = True) -> Page[Artifact]:
        """Newest first."""
        limit = page_limit(limit)
        rows = ArtifactRow.filter(identity__isnull=False)
        total = await rows.count() if with_total else None
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=[artifact_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=total,
        )

    async def get(self, id: str) -> Artifact:  # noqa: A002
        """Raises NotFound."""
        row = await ArtifactRow.get_or_none(id=id, identity__isnull=False)
        if row is None:
            raise NotFound("artifact", id)
        return artifact_view(row)

    async def take(self, id: str) -> None:  # noqa: A002
        """Inside the transaction that begins to use it: it cannot be deleted meanwhile. Raises NotFound."""
        row = await ArtifactRow.get_or_none(id=id, identity__isnull=False)
        if row is None or not await ArtifactRow.filter(id=id, identity=row.identity).update(identity=row.identity):
            raise NotFound("artifact", id)

    async def delete(self, actor: Actor, id: str) -> None:  # noqa: A002
        """Remove the file; campaigns that used it keep saying what it was. Raises NotFound, Conflict (it is in use)."""
        artifact = await self.get(id)
        async with self._database.transaction():
            # First, and again in `take`: on PostgreSQL this makes the two wait for each other.
            if not await ArtifactRow.filter(id=id, identity__isnull=False).update(identity=None):
                raise NotFound("artifact", id)
            if await JobRow.filter(campaign__artifact_id=id, status__in=JOB_UNFINISHED).exists():
                raise Conflict("an unfinished update uses this artifact: abort its campaign first")
            before = {"version": artifact.version, "name": artifact.name, "sha256": artifact.sha256}
            await self._audit.record(actor, "artifact.delete", "artifact", id, before, None)
        self._verifying.pop(id, None)
        self._verified.pop(id, None)
        await asyncio.to_thread(_remove, self._directory / id)

    async def file(self, id: str) -> Path:  # noqa: A002
        """Where its bytes are, once they were found to be unchanged. Raises NotFound, Conflict (damaged)."""
        artifact = await self.get(id)
        path = self._directory / id
        if not is_id(id) or not await self._is_intact(artifact, path):
            raise Conflict("the artifact's file is damaged or missing: upload it again")
        return path

    async def _is_intact(self, artifact: Artifact, path: Path) -> bool:
        async with self._verifying.setdefault(artifact.id, asyncio.Lock()):
            try:
                fingerprint = await asyncio.to_thread(_fingerprint, path)
                if self._verified.get(artifact.id) == fingerprint:
                    return True
                digest = await asyncio.to_thread(_digest, path) if fingerprint[1] == artifact.size else ""
            except OSError as error:
                logger.error("artifact %s: %s", artifact.id, error)
                return False
            if digest != artifact.sha256:
                logger.error("artifact %s: its file has been changed on disk; no device gets it", artifact.id)
                return False
            self._verified[artifact.id] = fingerprint
            return True

    async def _receive(self, path: Path, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
        digest = hashlib.sha256()
        size = 0
        file = await asyncio.to_thread(_create, path)
        try:
            buffer = bytearray()
            async for chunk in chunks:
                buffer += chunk
                size += len(chunk)
                if size > self._limit_bytes:
                    raise Invalid("file", f"is larger than {self._limit_bytes} bytes")
                if len(buffer) >= _WRITE_BYTES:
                    await _finish(_append, file, digest.update, bytes(buffer))
                    buffer.clear()
            if not size:
                raise Invalid("file", "is empty")
            await _finish(_append, file, digest.update, bytes(buffer))
            await _finish(_sync, file)
        finally:
            file.close()
        return size, digest.hexdigest()


def _identity(version: str, digest: str) -> str:
    return f"{version} {digest}"


async def _finish(function: Callable[..., T], *arguments: object) -> T:
    """Run in a thread, and when cancelled wait for the thread all the same: it still uses the file."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb", buffering=0)


def _append(file: BinaryIO, update: Callable[[bytes], None], chunk: bytes) -> None:
    update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _sync(file: BinaryIO) -> None:
    os.fsync(file.fileno())


def _publish(temporary: Path, final: Path) -> None:
    """Give the file its name, durably."""
    temporary.replace(final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _fingerprint(path: Path) -> _Fingerprint:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

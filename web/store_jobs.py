"""Work on the store's files that takes a while, on behalf of an operator: one at a time, watched and not waited for."""

import asyncio
import logging
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from fleet.ids import new_id
from gateway.store import StoreError, StoreStats
from gateway.stores import Finding

logger = logging.getLogger(__name__)

KEPT = 20  # jobs that are remembered
FINDINGS = 1000  # of a verification that are told one by one

Progress = Callable[[int, int], None]


@runtime_checkable
class StoreFiles(Protocol):
    """A store that looks after files of its own; the embedded one does."""

    @property
    def directory(self) -> Path: ...

    async def stats(self) -> StoreStats: ...

    async def verify(self, progress: Progress) -> Sequence[Finding]: ...

    async def compact(self, progress: Progress) -> None: ...

    async def backup(self, directory: Path, progress: Progress) -> None: ...


class StoreJobKind(StrEnum):
    VERIFY = "verify"
    COMPACT = "compact"
    BACKUP = "backup"


class StoreJobState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True)
class Job:
    """`done` of `total` days; `findings` of a verification, `directory` of a backup, `detail` why it failed."""

    id: str
    kind: StoreJobKind
    state: StoreJobState = StoreJobState.RUNNING
    done: int = 0
    total: int = 0
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    """How many findings there are in all."""
    directory: Path | None = None
    detail: str = ""

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total


class JobRunning(Exception):
    """Another job is at work."""


class NoRoom(Exception):
    """The disk has no room for a copy of the store."""


class StoreJobs:
    """The jobs since the start."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._is_starting = False

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    async def start(self, kind: StoreJobKind, store: StoreFiles) -> Job:
        """Begin. Raises JobRunning, or NoRoom for a backup."""
        if self._is_starting or (self._task is not None and not self._task.done()):
            raise JobRunning
        self._is_starting = True
        try:
            directory = await _room_for(store) if kind is StoreJobKind.BACKUP else None
        finally:
            self._is_starting = False
        job = Job(id=new_id(), kind=kind, directory=directory)
        self._jobs[job.id] = job
        if len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
        self._task = asyncio.create_task(self._run(job, store), name=f"store {kind}")
        return job

    async def stop(self) -> None:
        """Break off what is under way: nothing of it is needed to be whole."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, job: Job, store: StoreFiles) -> None:
        try:
            match job.kind:
                case StoreJobKind.VERIFY:
                    found = await store.verify(job.progress)
                    job.findings, job.found = list(found[:FINDINGS]), len(found)
                case StoreJobKind.COMPACT:
                    await store.compact(job.progress)
                case StoreJobKind.BACKUP:
                    assert job.directory is not None  # noqa: S101 # set at its making
                    await store.backup(job.directory, job.progress)
            job.state = StoreJobState.SUCCEEDED
        except (StoreError, OSError) as error:
            job.state, job.detail = StoreJobState.FAILED, str(error)
            logger.warning("the store's %s failed: %s", job.kind, error)
        except asyncio.CancelledError:
            job.state, job.detail = StoreJobState.FAILED, "the server stopped"
            raise


async def _room_for(store: StoreFiles) -> Path:
    """A new directory beside the store's, where the disk has room for a copy. Raises NoRoom."""
    size_bytes = (await store.stats()).size_bytes or 0
    parent = store.directory.parent / "backups"
    name = f"readings-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"

    def look() -> int:
        parent.mkdir(exist_ok=True)
        return shutil.disk_usage(parent).free

    free_bytes = await asyncio.to_thread(look)
    if free_bytes < size_bytes:
        raise NoRoom(f"a copy needs {size_bytes:,} bytes, the disk has {free_bytes:,} left")
    return parent / name

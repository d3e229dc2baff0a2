"""The embedded store, opened by a command while no server runs on its directory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from gateway.store import Store, StoreUnavailable
from gateway.stores.transfer_scan import Enumerable
from mooring.errors import MooringError, StartError
from mooring.settings import Settings
from mooring.store import open_store

Progress = Callable[[int, int], None]
"""Told (done, total)."""


class Finding(Protocol):
    """Something that is not as it should be in a store's file."""

    @property
    def file(self) -> str: ...

    @property
    def series(self) -> str | None: ...

    @property
    def problem(self) -> str: ...


class Local(Enumerable, Store, Protocol):
    """A store in this process that knows whose readings it has."""


@runtime_checkable
class Maintained(Protocol):
    """What a store of files does for its operator."""

    async def verify(self, progress: Progress) -> list[Finding]: ...

    async def compact(self, progress: Progress) -> object: ...

    async def backup(self, directory: Path, progress: Progress) -> object: ...


@asynccontextmanager
async def offline_store(settings: Settings, *, online: str) -> AsyncIterator[Local]:
    """The settings' embedded store, open. `online`: what to do instead while a server has it.

    Raises MooringError where the settings name another store, StartError where it is not there or in use.
    """
    if settings.store.kind != "embedded":
        raise MooringError(
            f"store.kind is {settings.store.kind}, which has tools of its own; this is for the embedded store"
        )
    directory = settings.data_dir / "readings"
    if not directory.is_dir():
        raise StartError(f"no readings in {settings.data_dir}; set MOORING_DATA_DIR or give --data-dir")
    store = cast("Local", open_store(settings))
    try:
        await store.open()
    except StoreUnavailable as error:
        raise StartError(f"{error}: a server runs on it. {online}") from error
    try:
        yield store
    finally:
        await store.close()

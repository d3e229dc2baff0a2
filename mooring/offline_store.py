"""The embedded store, opened by a command while no server runs on its directory.

It deletes nothing for its age: which devices keep their readings for longer, and whether the clock is to be believed,
a server knows and a command does not.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.store import StoreUnavailable
from gateway.stores import EmbeddedStore
from mooring.errors import MooringError, StartError
from mooring.settings import Settings
from mooring.store import open_store

_FOR_EVER_DAYS = 10_000_000


@asynccontextmanager
async def offline_store(settings: Settings, *, online: str) -> AsyncIterator[EmbeddedStore]:
    """The settings' embedded store, open. `online`: what to do instead while a server has it.

    Raises MooringError where the settings name another store, StartError where it is not there or in use.
    """
    kept = settings.store.model_copy(update={"retention_days": _FOR_EVER_DAYS})
    store = open_store(settings.model_copy(update={"store": kept}))
    if not isinstance(store, EmbeddedStore):
        raise MooringError(
            f"store.kind is {settings.store.kind}, which has tools of its own; this is for the embedded store"
        )
    directory = settings.data_dir / "readings"
    if not directory.is_dir():
        raise StartError(f"no readings in {settings.data_dir}; set MOORING_DATA_DIR or give --data-dir")
    try:
        await store.open()
    except StoreUnavailable as error:
        raise StartError(f"{error}: a server runs on it. {online}") from error
    try:
        yield store
    finally:
        await store.close()

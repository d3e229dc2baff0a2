"""The audit, read from the database by a command, whether a server runs on it or not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fleet.audit import Audit
from fleet.clock import SystemClock
from fleet.database import Database
from fleet.errors import SetupError
from mooring.errors import StartError
from mooring.settings import Settings


@asynccontextmanager
async def offline_audit(settings: Settings) -> AsyncIterator[Audit]:
    """The audit of the settings' database, to be read. Raises StartError where it cannot be."""
    database = Database(settings.database_url)
    try:
        await database.attach()
    except SetupError as error:
        raise StartError(str(error)) from error
    try:
        yield Audit(database=database, clock=SystemClock(), limit=0)
    finally:
        await database.close()

"""Finds credentials by digest, all that are asked for at a time with one statement.

Beside a busy event loop a statement takes some turns of it, and SQLite takes one statement after the other: asked for
one by one, a hundred devices that connect at once while others send at full speed waited longer than they may.
"""

import asyncio
from datetime import datetime
from typing import NamedTuple

from fleet.models import CredentialRow

_AT_ONCE = 500


class Found(NamedTuple):
    """A valid credential: whose it is, its id, and until when."""

    device_id: str
    id: str
    expires_at: datetime | None


class TokenLookup:
    """`find` starts the one task that asks; it ends when nobody waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Found | None]] = {}  # bounded by the links' connections
        self._task: asyncio.Task[None] | None = None

    async def find(self, digest: str) -> Found | None:
        """The valid credential with this digest, as of a statement that begins after the call."""
        found = self._waiting.get(digest)
        if found is None:
            found = self._waiting[digest] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._ask(), name="token look-ups")
        return await asyncio.shield(found)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # the rest of this turn's connections ask too
                asked = {digest: self._waiting.pop(digest) for digest in list(self._waiting)[:_AT_ONCE]}
                try:
                    credentials = CredentialRow.filter(digest__in=list(asked), revoked_at=None)
                    # Rows would cost more than the query.
                    rows = await credentials.values_list("digest", "device_id", "id", "expires_at")
                except Exception as error:
                    for found in asked.values():
                        found.set_exception(error)
                        found.exception()  # whoever asked may have gone
                    continue
                except BaseException:
                    for found in asked.values():
                        found.cancel()
                    raise
                by_digest = {digest: Found(*found) for digest, *found in rows}
                for digest, found in asked.items():
                    found.set_result(by_digest.get(digest))
        finally:
            self._task = None

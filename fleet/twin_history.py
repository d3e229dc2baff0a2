"""Who wanted what of a device, and when: the last changes of a twin's desired part. What devices report is not here:
it comes at the rate of messages, and who said it is known."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from fleet.actor import Actor
from fleet.clock import rfc3339
from fleet.ids import new_id
from fleet.models import TwinChangeRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit

CHANGES_KEPT = 100
PATCH_KEPT_BYTES = 4096  # 100 of them are 400 KB a device at most


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinChange:
    """`version` is the twin's after the change; `patch` is None when it was too large to be kept."""

    version: int
    at: datetime
    by: str
    patch: dict[str, Any] | None

    def json(self) -> dict[str, Any]:
        return {"version": self.version, "at": rfc3339(self.at), "by": self.by, "patch": self.patch}


async def keep_change(actor: Actor, device_id: str, version: int, at: datetime, patch: dict[str, Any]) -> None:
    """In the caller's transaction; the oldest beyond 100 goes."""
    text = orjson.dumps(patch).decode()
    await TwinChangeRow.create(
        id=new_id(),
        device_id=device_id,
        version=version,
        at=at,
        by=actor.id,
        patch=text if len(text) <= PATCH_KEPT_BYTES else "null",
    )
    kept = TwinChangeRow.filter(device_id=device_id).order_by("-version")
    beyond = await kept.offset(CHANGES_KEPT).limit(1).values_list("version", flat=True)
    if beyond:
        await TwinChangeRow.filter(device_id=device_id, version__lte=beyond[0]).delete()


async def changes_of(device_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[TwinChange]:
    """Newest first."""
    limit = page_limit(limit)
    rows = TwinChangeRow.filter(device_id=device_id)
    total = await rows.count()
    if cursor is not None:
        rows = rows.filter(version__lt=decode_cursor(cursor, int)[0])
    found = await rows.order_by("-version").limit(limit + 1)
    return Page(
        items=[
            TwinChange(version=row.version, at=row.at, by=row.by, patch=orjson.loads(row.patch))
            for row in found[:limit]
        ],
        next_cursor=encode_cursor(found[limit - 1].version) if len(found) > limit else None,
        total=total,
    )

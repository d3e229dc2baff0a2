"""Imports of devices as the services give them out. No I/O, no clock."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from fleet.clock import rfc3339, rfc3339_or_none


class OnConflict(StrEnum):
    """What becomes of a device that is there already."""

    REFUSE = "refuse"
    UPDATE = "update"
    SKIP = "skip"


class Outcome(StrEnum):
    PENDING = "pending"
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    """Created by the import, and deleted when it was undone."""
    KEPT = "kept"
    """Created by the import, and not deleted when it was undone."""


class ImportStatus(StrEnum):
    RECEIVING = "receiving"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    UNDOING = "undoing"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceImport:
    """`counts` has a number for each outcome; they add up to `total`."""

    id: str
    status: ImportStatus
    on_conflict: OnConflict
    dry_run: bool
    total: int
    counts: dict[Outcome, int]
    created_by: str
    created_at: datetime
    finished_at: datetime | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status.value,
            "on_conflict": self.on_conflict.value,
            "dry_run": self.dry_run,
            "total": self.total,
            "counts": {outcome.value: count for outcome, count in self.counts.items()},
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "finished_at": rfc3339_or_none(self.finished_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRow:
    """What became of one device of the file."""

    line: int
    device_id: str
    outcome: Outcome
    column: str
    reason: str

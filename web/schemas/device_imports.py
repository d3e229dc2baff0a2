"""Imports of devices: how they are asked for, followed and undone. No I/O."""

from pydantic import Field

from fleet.device_import_views import ImportStatus, OnConflict, Outcome
from web.schemas.base import In, Out, Page, Paged, Time


class DeviceImportQuery(In):
    on_conflict: OnConflict = Field(
        default=OnConflict.REFUSE, description="What becomes of a device that is there already."
    )
    dry_run: bool = Field(default=False, description="Change nothing; tell what would become of each device.")


class DeviceImport(Out):
    id: str
    status: ImportStatus
    on_conflict: OnConflict
    dry_run: bool
    total: int = Field(description="Devices of the file.")
    counts: dict[Outcome, int] = Field(description="How many have each outcome; they add up to `total`.")
    created_by: str
    created_at: Time
    finished_at: Time | None


class DeviceImportRow(Out):
    line: int = Field(description="Where the device begins in the file.")
    device: str = Field(description="Its id; empty where it has none that could be one.")
    outcome: Outcome
    column: str | None = Field(description="What it was refused for; null: the row as such.")
    reason: str | None = Field(description="Why it was refused, or kept when the import was undone.")


class DeviceImportRowPage(Page[DeviceImportRow]):
    pass


class DeviceImportRowQuery(Paged):
    outcome: Outcome | None = None


class HandOutQuery(In):
    again: bool = Field(
        default=False, description="Other tokens in place of those that no device has used: the first answer was lost."
    )

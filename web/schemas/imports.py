"""An import of readings: how its body is read, and what came of it. No I/O."""

from pydantic import Field

from gateway.stores.transfer_lines import Precision
from web.schemas.base import In, Line, Out


class ImportQuery(In):
    create_devices: bool = Field(default=False, description="Create devices that there are not yet, at most 1,000.")
    dry_run: bool = Field(default=False, description="Store and create nothing; tell what is wrong.")
    precision: Precision = Field(default=Precision.NS, description="Line protocol: the unit of its times.")
    device_tag: Line = Field(
        default="device", min_length=1, max_length=128, description="Line protocol: the tag that names the device."
    )
    metric_tags: Line = Field(
        default="", max_length=500, description="Line protocol: tags to put before the metric, comma-separated."
    )
    measurement_prefix: bool = Field(default=False, description="Line protocol: put the measurement before the metric.")


class ImportRefused(Out):
    reason: str
    first_line: int
    count: int


class ImportBrokenOff(Out):
    records: int
    stored: int
    reason: str


class TelemetryImported(Out):
    records: int = Field(description="Rows or lines read.")
    stored: int = Field(description="Readings stored, or that would be in a dry run.")
    refused: int = Field(description="Rows or lines, or parts of them, that were left out.")
    reasons: list[ImportRefused] = Field(description="Why: the first 100 reasons.")
    devices_created: list[str] = Field(description="Or that would be in a dry run.")
    dry_run: bool
    broken_off: ImportBrokenOff | None = Field(
        description="The import before this one, if it did not end: what it had stored is kept. Told once."
    )

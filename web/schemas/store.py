"""The store of readings, and jobs on its files. No I/O."""

from pydantic import Field

from web.schemas.base import Out
from web.store_jobs import StoreJobKind, StoreJobState


class Store(Out):
    """null: this kind of store does not tell."""

    kind: str
    points: int | None
    loose_points: int | None = Field(description="Those of them that are not compressed yet.")
    size_bytes: int | None
    limit_bytes: int | None
    oldest_ms: int | None
    dropped_days: int = Field(description="Days deleted to keep within the limit, since the start.")
    damaged_chunks: int = Field(description="Met by queries and left out of answers, since the start.")
    has_files: bool = Field(description="Whether it can be verified, compacted and backed up here.")


class StoreFinding(Out):
    file: str
    series: str = Field(description="Device and metric; empty: the file itself.")
    problem: str


class StoreJob(Out):
    id: str
    kind: StoreJobKind
    state: StoreJobState
    done: int = Field(description="Days done.")
    total: int
    findings: list[StoreFinding] = Field(description="Of a verification: the first 1,000.")
    found: int = Field(description="How many findings there are in all.")
    directory: str | None = Field(description="Where a backup is, on the server.")
    detail: str = Field(description="Why it failed.")

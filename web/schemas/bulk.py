"""Work on many devices at once. No I/O."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.bulk import DEVICES_LIMIT, IDS_LIMIT, SAMPLE, BulkStatus, TargetStatus
from web.schemas.base import DeviceId, Id, In, Line, Name, Out, Page, Paged, Tag, Time
from web.schemas.groups import Query

_Tags = Annotated[list[Tag], Field(min_length=1, max_length=32)]


class TagAction(In):
    type: Literal["tag", "untag"]
    tags: _Tags


class ProfileAction(In):
    type: Literal["set_profile"]
    profile: Annotated[Line, Field(max_length=128)] = Field(description="Empty: none any more.")


class PlainAction(In):
    type: Literal["disable", "enable", "delete"]


class CommandAction(In):
    type: Literal["command"]
    name: Name
    params: Any = None
    ttl_s: float | None = Field(
        default=None, ge=1, le=2_592_000, description="When it expires unless it has ended; null: as its profile says."
    )


class TwinAction(In):
    type: Literal["twin_desired"]
    desired: dict[str, Any] = Field(description="A JSON merge patch (RFC 7396) of the desired part; null removes.")


Action = Annotated[TagAction | ProfileAction | PlainAction | CommandAction | TwinAction, Field(discriminator="type")]


class BulkCreate(In):
    """One of `query`, `group` and `ids` says which devices; they are fixed when the job is made."""

    query: Query | None = None
    group: Id | None = None
    ids: Annotated[list[DeviceId], Field(min_length=1, max_length=IDS_LIMIT)] | None = None
    action: Action
    dry_run: bool = Field(default=False, description="Only say how many, and the first of them.")


class BulkJobOut(Out):
    id: str
    status: BulkStatus
    action: dict[str, Any]
    selection: dict[str, Any] = Field(description="What was asked for; of ids their number.")
    total: int
    counts: dict[TargetStatus, int] = Field(description="Devices by what became of them; they add up to `total`.")
    created_by: str
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class BulkCreated(Out):
    total: int = Field(description=f"Devices that it is about, at most {DEVICES_LIMIT:,}.")
    sample: list[str] = Field(description=f"Of a dry run: the first {SAMPLE} of them.")
    job: BulkJobOut | None = Field(description="Null of a dry run.")


class BulkJobPage(Page[BulkJobOut]):
    pass


class BulkResultOut(Out):
    device: str
    status: TargetStatus = Field(description="`unknown`: the server died at this moment; a command may be under way.")
    error: str | None


class BulkResultPage(Page[BulkResultOut]):
    pass


class BulkResultQuery(Paged):
    status: TargetStatus | None = None

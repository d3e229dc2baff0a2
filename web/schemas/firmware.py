"""Firmware: artifacts, campaigns, jobs. No I/O."""

from typing import Annotated

from pydantic import Field

from fleet.machines.campaign import CampaignState
from fleet.machines.job import JobState
from web.schemas.base import DeviceId, Id, In, Line, Name, Out, Page, Paged, Time


class Artifact(Out):
    id: str
    name: str
    version: str
    description: str
    size: int = Field(description="Bytes.")
    sha256: str
    created_at: Time
    created_by: str


class ArtifactPage(Page[Artifact]):
    pass


class ArtifactFields(In):
    """The form's fields, which come before the file."""

    version: Annotated[Line, Field(min_length=1, max_length=64)]
    name: Name | None = Field(default=None, description="Default: the file's name.")
    description: str = Field(default="", max_length=4096)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$", description="Checked against the file.")


class StepTimeouts(Out):
    """Seconds a job may stay in each step."""

    offered_s: int
    downloading_s: int
    verifying_s: int
    installing_s: int
    rebooting_s: int


_Step = Annotated[int | None, Field(gt=0, le=30 * 86_400)]


class StepTimeoutsIn(In):
    """Seconds a job may stay in each step; what is left out has the server's default."""

    offered_s: _Step = None
    downloading_s: _Step = None
    verifying_s: _Step = None
    installing_s: _Step = None
    rebooting_s: _Step = None


class Campaign(Out):
    id: str
    name: str
    status: CampaignState
    artifact: Artifact
    counts: dict[str, int] = Field(description="Jobs by status.")
    total: int
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    created_by: str
    timeouts: StepTimeouts


class CampaignPage(Page[Campaign]):
    pass


class CampaignQuery(Paged):
    status: CampaignState | None = None


class CampaignCreate(In):
    name: Name
    artifact: Id
    devices: list[DeviceId] = Field(min_length=1, max_length=10_000)
    timeouts: StepTimeoutsIn | None = None
    start: bool = Field(default=False, description="Start it at once.")


class Job(Out):
    id: str
    campaign: str
    device: str
    status: JobState
    progress: int | None
    error: str | None
    attempt: int = Field(description="1, and one more with each retry.")
    from_version: str | None
    to_version: str
    created_at: Time
    updated_at: Time
    finished_at: Time | None
    deadline: Time | None = Field(description="When the present step times out.")


class JobPage(Page[Job]):
    pass


class JobQuery(Paged):
    status: JobState | None = None

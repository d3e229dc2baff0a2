"""Twin templates and who is as they ask. No I/O."""

from typing import Annotated, Any

from pydantic import Field

from fleet.twin_templates import IDS_LIMIT, Target, TemplateState
from web.schemas.base import DeviceId, In, Name, Out, Page, Paged, Tag, Time


class TemplateTarget(In):
    """Either the ids of devices, or a tag that they have."""

    ids: Annotated[list[DeviceId], Field(max_length=IDS_LIMIT)] | None = None
    tag: Tag | None = None

    def value(self) -> Target:
        return Target(ids=tuple(self.ids or ()), tag=self.tag)


class TwinTemplateCreate(In):
    name: Name
    desired: dict[str, Any] = Field(description="A JSON merge patch (RFC 7396) of the devices' desired part.")
    target: TemplateTarget


class TemplateCounts(Out):
    owed: int = Field(description="It is still to be applied to these.")
    pending: int = Field(description="They do not report yet what it asks for.")
    converged: int
    refused: int = Field(description="Their profile does not allow it.")


class TwinTemplateOut(Out):
    id: str
    name: str
    desired: dict[str, Any]
    target: TemplateTarget
    counts: TemplateCounts
    created_by: str
    created_at: Time
    applied_at: Time


class TwinTemplatePage(Page[TwinTemplateOut]):
    pass


class ComplianceQuery(Paged):
    state: TemplateState | None = None


class DeviceCompliance(Out):
    device: str
    state: TemplateState
    since: Time
    delta: dict[str, Any] = Field(description="What it does not report as it was asked for.")
    error: str | None


class CompliancePage(Page[DeviceCompliance]):
    pass

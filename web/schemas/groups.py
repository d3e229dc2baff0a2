"""Groups of devices. No I/O."""

from typing import Annotated, Literal

from pydantic import Field

from fleet.groups import DESCRIPTION_LIMIT, MEMBERS_AT_ONCE
from web.schemas.base import DeviceId, Id, In, Line, Name, Out, Page, Paged, Time
from web.schemas.devices import DeviceSort

Query = Annotated[Line, Field(min_length=1, max_length=2_000, examples=['status = offline and tags.site = "A"'])]
Description = Annotated[str, Field(max_length=DESCRIPTION_LIMIT)]


class GroupCreate(In):
    name: Name
    description: Description = ""
    query: Query | None = Field(default=None, description="Its devices are those that match; null: those added to it.")
    parent: Id | None = Field(default=None, description="The group that it is below; its devices count there too.")


class GroupUpdate(In):
    """What is left out stays."""

    name: Name | None = None
    description: Description | None = None
    query: Query | None = Field(default=None, description="Only where there is one already.")
    parent: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")] | None = Field(
        default=None, description="Empty: below none any more."
    )


class GroupOut(Out):
    id: str
    name: str
    description: str
    type: Literal["static", "dynamic"]
    query: str | None
    parent: str | None
    version: int = Field(description='Rises with every change; the ETag is "v{version}".')
    created_by: str
    created_at: Time
    updated_at: Time


class GroupPage(Page[GroupOut]):
    pass


class GroupDevicesQuery(Paged):
    sort: DeviceSort = Field(default=DeviceSort.ID, description="A leading minus turns the order round.")


class MembersAdd(In):
    devices: Annotated[list[DeviceId], Field(min_length=1, max_length=MEMBERS_AT_ONCE)]


class MembersAdded(Out):
    added: int = Field(description="How many were not in the group before.")

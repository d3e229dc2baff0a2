"""Claim keys, their lists, and the applications of devices. No I/O."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from fleet.claim_keys import EXPECTED_AT_ONCE, NETWORKS_LIMIT, USES_LIMIT, ClaimMode
from fleet.provisioning import ApplicationStatus
from web.schemas.base import DeviceId, In, Line, Name, Out, Page, Paged, Tags, Time

Network = Annotated[Line, Field(min_length=1, max_length=64, examples=["10.20.0.0/16"])]


class ClaimKeyCreate(In):
    name: Name
    mode: ClaimMode = Field(
        default=ClaimMode.OPEN,
        description="Who decides: the key alone, a list of ids told before, or an operator for each device.",
    )
    expires_at: AwareDatetime
    uses_limit: int = Field(ge=1, le=USES_LIMIT, description="How many devices it lets in.")
    profile: Name | None = Field(default=None, description="What the devices become.")
    tags: Tags = Field(default=[])
    networks: Annotated[list[Network], Field(max_length=NETWORKS_LIMIT)] = Field(
        default=[], description="Where devices may come from, in CIDR form; empty: from anywhere."
    )


class ClaimKeyOut(Out):
    id: str
    name: str
    hint: str = Field(description="The end of the key.")
    mode: ClaimMode
    profile: str | None
    tags: list[str]
    networks: list[str]
    uses: int
    uses_limit: int
    created_by: str
    created_at: Time
    expires_at: Time
    revoked_at: Time | None


class ClaimKeyCreated(ClaimKeyOut):
    key: str = Field(description="Shown once: what the devices of the batch are made with.")


class ClaimKeyPage(Page[ClaimKeyOut]):
    pass


class ExpectedCreate(In):
    devices: Annotated[list[DeviceId], Field(min_length=1, max_length=EXPECTED_AT_ONCE)]


class ExpectedAdded(Out):
    added: int = Field(description="How many were not on the list before.")


class ExpectedDevice(Out):
    device_id: str
    claimed_at: Time | None


class ExpectedPage(Page[ExpectedDevice]):
    pass


class ApplicationQuery(Paged):
    status: Literal["pending", "accepted", "rejected", "provisioned"] | None = None


class ApplicationAccept(In):
    profile: Name | None = Field(default=None, description="Null: as its claim key says.")
    tags: Tags | None = Field(default=None, description="Null: as its claim key says.")


class ApplicationOut(Out):
    device_id: str
    status: ApplicationStatus
    claim_key_id: str | None
    info: dict[str, object] = Field(description="What the device says of itself: not to be trusted.")
    address: str
    link: str
    decided_by: str | None
    created_at: Time
    updated_at: Time = Field(description="When it last asked, or was decided on.")


class ApplicationPage(Page[ApplicationOut]):
    pass

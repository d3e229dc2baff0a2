"""Profiles, and what they make of a payload. The document itself is gateway/profiles/document.py. No I/O."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gateway.profiles.document import PROFILE_NAME, Profile, ProfileBody
from web.schemas.base import In, Line, Out, Page, Time
from web.schemas.telemetry import Value

ProfileName = Annotated[str, Field(pattern=PROFILE_NAME, examples=["pump"])]
Channel = Literal["telemetry", "telemetry/binary", "telemetry/cbor", "telemetry/senml", "telemetry/senml-cbor"]
_ALIASED = ConfigDict(serialize_by_alias=True)


class ProfileCreate(Profile):
    pass


class ProfileReplace(ProfileBody):
    name: ProfileName | None = Field(default=None, description="If given, that of the address: names do not change.")


class ProfileStored(Profile):
    devices: int = Field(description="How many devices name it.")
    version: int = Field(description='Rises with every change; the ETag is "v{version}".')
    created_at: Time
    updated_at: Time
    readable: bool = Field(
        description="false: a newer server wrote it, and this one shows what it knows of it; it can only be deleted."
    )


class ProfilePage(Page[ProfileStored]):
    model_config = _ALIASED


class ProfileDelete(In):
    force: bool = Field(default=False, description="Also while devices name it.")


class PayloadTest(In):
    payload: str = Field(max_length=200_000)
    encoding: Literal["text", "base64"] = "text"
    channel: Channel = "telemetry"
    content_type: Annotated[Line, Field(max_length=128)] | None = None


class DraftTest(PayloadTest):
    profile: ProfileBody


class TestedReading(Out):
    metric: str
    ts: int = Field(description="Unix time in ms.")
    value: Value
    unit: str | None


class TestedRefused(Out):
    metric: str
    reason: str
    detail: str


class TestedRefusal(Out):
    reason: str
    detail: str


class PayloadTested(Out):
    readings: list[TestedReading] = Field(description="What would be stored.")
    refused: list[TestedRefused] = Field(description="Metrics that would be refused alone.")
    refusal: TestedRefusal | None = Field(description="Why the whole message would be refused; null when it would not.")

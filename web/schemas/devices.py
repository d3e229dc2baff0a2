"""Devices, their credentials, twins and timeline. No I/O."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from fleet.views import DeviceStatus, Level, TimelineKind
from web.schemas.base import DeviceId, In, Line, Name, Out, Page, Paged, Tags, Time


class Device(Out):
    id: str
    name: str
    profile: str | None
    tags: list[str]
    attributes: dict[str, Any]
    status: DeviceStatus
    quarantined: bool = Field(description="It may connect, and touch nothing but its twin.")
    since: Time | None = Field(description="Since when the status is what it is.")
    last_seen: Time | None
    address: str | None
    link: str | None = Field(description="By which way the device is, or was last, connected.")
    firmware: str | None = Field(description="The version that the device reported.")
    target_firmware: str | None = Field(description="The version that an unfinished update brings.")
    clock_skew_ms: int | None = Field(
        default=None,
        description="How far ahead the device's clock is (negative: behind); null when it gave no time lately.",
    )
    retention_days: int | None = Field(description="How long its readings are kept; null: as its profile says.")
    created_at: Time
    updated_at: Time


class NewToken(Out):
    """A device's token, shown this once: only its hash is kept."""

    type: Literal["token"] = "token"
    token: str


class DeviceCreated(Device):
    credentials: NewToken


class DevicePage(Page[Device]):
    pass


class DeviceCreate(In):
    id: DeviceId
    name: Name | None = None
    profile: Name | None = None
    tags: Tags = Field(default_factory=list)
    attributes: dict[str, Any] = Field(default_factory=dict)


class DeviceUpdate(In):
    """What is left out stays."""

    name: Annotated[Line, Field(max_length=128)] | None = Field(default=None, description="Empty: the id again.")
    profile: Annotated[Line, Field(max_length=128)] | None = Field(default=None, description="Empty: none any more.")
    tags: Tags | None = None
    attributes: dict[str, Any] | None = None
    disabled: bool | None = None
    quarantined: bool | None = Field(default=None, description="True: nothing but its twin is left to the device.")
    retention_days: int | None = Field(
        default=None, ge=0, le=36_500, description="How long its readings are kept; 0: as its profile says."
    )


class DeviceSort(StrEnum):
    ID = "id"
    NAME = "name"
    LAST_SEEN = "last_seen"
    STATUS = "status"
    FIRMWARE = "firmware"
    ID_DOWN = "-id"
    NAME_DOWN = "-name"
    LAST_SEEN_DOWN = "-last_seen"
    STATUS_DOWN = "-status"
    FIRMWARE_DOWN = "-firmware"


class DeviceQuery(Paged):
    q: Line = Field(default="", max_length=128, description="Part of the id, the name, a tag or the attributes.")
    tag: Line = Field(default="", max_length=64)
    status: DeviceStatus | None = None
    firmware: Line = Field(default="", max_length=128, description="Exactly the version that the device reported.")
    query: Line = Field(
        default="",
        max_length=2_000,
        description='Such as status = offline and tags.site = "A"; 422 says at which column it is wrong.',
    )
    group: Line = Field(default="", max_length=64, description="Id of a group: its devices, and those below it.")
    sort: DeviceSort = Field(default=DeviceSort.ID, description="A leading minus turns the order round.")


class CredentialType(StrEnum):
    TOKEN = "token"  # noqa: S105 # a type, no token
    JWT = "jwt"
    X509 = "x509"


class CredentialCreate(In):
    """Nothing given: a random token that never ends."""

    type: CredentialType = CredentialType.TOKEN
    name: Annotated[Line, Field(max_length=128)] = ""
    expires_at: AwareDatetime | None = None
    token: str | None = Field(
        default=None,
        max_length=256,
        description="A token of your own, of at least 16 characters; without one, a random one is made.",
    )
    public_key: str | None = Field(
        default=None,
        max_length=16_384,
        description="PEM or JWK: P-256, Ed25519 or RSA of 2048 bits and more; the device signs its JWTs with it.",
    )
    certificate: str | None = Field(default=None, max_length=16_384, description="PEM: the device's own certificate.")
    fingerprint: str | None = Field(
        default=None,
        max_length=95,
        description="Instead: its SHA-256 in hexadecimal. TLS lets it in only where it knows the authority.",
    )


class Credential(Out):
    id: str
    type: CredentialType
    name: str
    hint: str = Field(description="The last characters of a token, or of a key's SHA-256; empty for a chosen token.")
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None


class CredentialPage(Page[Credential]):
    pass


class CredentialCreated(Credential):
    token: str | None = Field(description="Shown this once, where one was made: only its hash is kept.")


class Twin(Out):
    desired: dict[str, Any]
    reported: dict[str, Any]
    delta: dict[str, Any] = Field(description="Desired leaves that differ from what is reported.")
    version: int = Field(description='Rises with every change; the ETag is "v{version}".')
    fault: str | None = Field(description="What of the reported part is not as the device's profile has it.")
    updated_at: Time


class TwinChange(Out):
    version: int = Field(description="Of the twin, after the change.")
    at: Time
    by: str
    patch: dict[str, Any] | None = Field(description="null: it was larger than 4 KiB.")


class TwinHistory(Page[TwinChange]):
    pass


class TwinPatch(In):
    desired: dict[str, Any] = Field(description="A JSON merge patch (RFC 7396) of the desired part; null removes.")


class TimelineEntry(Out):
    id: str
    device: str
    at: Time
    kind: TimelineKind
    level: Level
    summary: str
    data: dict[str, Any]


class TimelinePage(Page[TimelineEntry]):
    pass


class TimelineQuery(Paged):
    kinds: str = Field(default="", max_length=200, description="Comma-separated kinds; none for all.")

"""Certificate authorities. No I/O."""

from typing import Annotated

from pydantic import Field

from fleet.authorities import SERIALS_LIMIT
from web.schemas.base import In, Line, Name, Out, Page, Time

Serial = Annotated[Line, Field(min_length=1, max_length=59, examples=["4f:1a:09"])]


class AuthorityCreate(In):
    name: Name
    certificate: str = Field(
        min_length=1, max_length=16_384, description="PEM: the one that signs devices' certificates."
    )


class AuthorityUpdate(In):
    """What is left out stays."""

    name: Name | None = None
    revoked_serials: Annotated[list[Serial], Field(max_length=SERIALS_LIMIT)] | None = Field(
        default=None, description="Serial numbers in hexadecimal; they replace those that were there."
    )


class AuthorityOut(Out):
    id: str
    name: str
    fingerprint: str = Field(description="SHA-256 of its certificate.")
    certificate: str
    revoked_serials: list[str]
    expires_at: Time
    created_by: str
    created_at: Time


class AuthorityPage(Page[AuthorityOut]):
    pass

"""API keys. No I/O."""

from pydantic import AwareDatetime, Field

from fleet.api_keys import NAME_LIMIT
from fleet.views import Role
from web.schemas.base import In, Line, Out, Page, Paged, Time


class ApiKeyCreate(In):
    name: Line = Field(min_length=1, max_length=NAME_LIMIT, description="In the audit it stands behind the user name.")
    role: Role = Field(description="At most that of its maker.")
    expires_at: AwareDatetime | None = Field(default=None, description="Null: it does not run out.")


class ApiKeyOut(Out):
    id: str
    name: str
    owner: str = Field(description="The user name that it acts for.")
    role: Role
    hint: str = Field(description="The key's last four characters.")
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None


class ApiKeyCreated(ApiKeyOut):
    key: str = Field(description="Shown this once.")


class ApiKeyPage(Page[ApiKeyOut]):
    pass


class ApiKeyQuery(Paged):
    all: bool = Field(default=False, description="Everybody's, for administrators; otherwise your own.")

"""People: signing in, roles, accounts. No I/O."""

from pydantic import Field

from fleet.views import Role
from web.schemas.base import In, Out, Page, Password, Time, Username


class SetupState(Out):
    needed: bool = Field(description="True until the first administrator exists.")


class Setup(In):
    token: str = Field(min_length=1, max_length=256, description="From the one-time link that `mooring serve` prints.")
    username: Username
    password: Password


class Login(In):
    # Neither is held to the rules for new accounts: a wrong one is answered 401, whatever it looks like.
    username: str = Field(min_length=1, max_length=256)
    password: str = Field(min_length=1, max_length=1024)
    otp: str = Field(
        default="",
        max_length=64,
        description='A code of the second factor, or a recovery code; asked for by a 401 with code "otp_required".',
    )


class Exchange(In):
    code: str = Field(min_length=1, max_length=256, description="From a one-time login link.")


class Refresh(In):
    refresh_token: str | None = Field(default=None, max_length=4096, description="Left out when the cookie has it.")


class Tokens(Out):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds the access token is good for.")
    refresh_token: str


class User(Out):
    id: str
    username: str
    role: Role
    created_at: Time
    last_login_at: Time | None
    disabled: bool
    second_factor: bool = Field(description="Whether logins are asked for a code as well.")


class UserPage(Page[User]):
    pass


class Me(Out):
    id: str
    username: str
    role: Role
    second_factor: bool = Field(description="Whether logins are asked for a code as well.")


class SessionOut(Out):
    id: str
    address: str
    user_agent: str = Field(description="As the browser or program said.")
    created_at: Time
    last_used_at: Time = Field(description="When it last renewed its tokens, which is every quarter of an hour.")
    expires_at: Time
    current: bool = Field(description="Whether it is the one that asks.")


class SessionPage(Page[SessionOut]):
    pass


class SessionsEnded(Out):
    ended: int


class PresentPassword(In):
    password: str = Field(min_length=1, max_length=1024, description="The present one.")


class SecondFactorEnrolment(Out):
    secret: str = Field(description="In base 32, to be typed into an authenticator app.")
    uri: str = Field(description="The same as an app reads it, as a rule from a QR code.")


class SecondFactorCode(In):
    code: str = Field(min_length=1, max_length=64, description="What the app shows now.")


class RecoveryCodes(Out):
    recovery_codes: list[str] = Field(description="Each lets you in once without the app. Shown this once.")


class PasswordChange(In):
    password: str = Field(min_length=1, max_length=1024, description="The present one.")
    new_password: Password


class UserCreate(In):
    username: Username
    password: Password
    role: Role


class UserUpdate(In):
    """What is left out stays."""

    role: Role | None = None
    password: Password | None = None
    disabled: bool | None = None

"""What a fleet service raises when it does not do what was asked, by whose fault it is.

FleetError
├── NotFound             the asker's: there is no such thing
├── AlreadyExists        the asker's: the name is taken
├── Invalid              the asker's: a field cannot be accepted
├── Conflict             the asker's: not in the state that the thing is in
├── PreconditionFailed   the asker's: somebody else changed it in between
├── Unauthorized         the asker's: not known, or the secret is wrong
│   └── SecondFactorNeeded   the password is right; a code is missing or wrong
├── Forbidden            the asker's: known, and not allowed
├── TooManyAttempts      the asker's: later
├── DatabaseTrouble      the world's: the database is full or does not answer; later
└── SetupError           ours: the fleet cannot start like this
"""

from typing import Literal


class FleetError(Exception):
    """A fleet service did not do what was asked. The text is fit for people to read."""


class NotFound(FleetError):
    """There is no such thing."""

    def __init__(self, kind: str, id: str) -> None:  # noqa: A002
        super().__init__(f"there is no {kind} {id!r}")
        self.kind = kind
        self.id = id


class AlreadyExists(FleetError):
    """Something of this name is there already."""

    def __init__(self, kind: str, id: str) -> None:  # noqa: A002
        super().__init__(f"{kind} {id!r} exists already")
        self.kind = kind
        self.id = id


class Invalid(FleetError):
    """A field cannot be accepted; `field` names it as the API does."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class Conflict(FleetError):
    """Not possible in the present state."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PreconditionFailed(FleetError):
    """It has changed since it was read; `version` is the present one."""

    def __init__(self, version: int) -> None:
        super().__init__(f"it has changed in between: the version is now {version}")
        self.version = version


class Unauthorized(FleetError):
    """Who asks is not known. Says the same for an unknown name, a wrong secret and an expired token."""

    def __init__(self, detail: str = "the credentials are not valid") -> None:
        super().__init__(detail)
        self.detail = detail


class SecondFactorNeeded(Unauthorized):
    """Name and password are right, and the code is missing (`otp_required`) or wrong (`otp_invalid`)."""

    def __init__(self, code: Literal["otp_required", "otp_invalid"]) -> None:
        asked = code == "otp_required"
        super().__init__("a code from the authenticator app is asked for" if asked else "the code is not valid")
        self.code = code


class Forbidden(FleetError):
    """Who asks is known, and may not do this."""

    def __init__(self, detail: str = "your role does not allow this") -> None:
        super().__init__(detail)
        self.detail = detail


class TooManyAttempts(FleetError):
    """Too many failures, or too much at once: try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many attempts: try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class DatabaseTrouble(FleetError):
    """The database cannot be used now: its disk is `full`, or it does not answer."""

    def __init__(self, detail: str, *, full: bool) -> None:
        super().__init__(f"the fleet's database cannot be used now: {detail}")
        self.full = full


class SetupError(FleetError):
    """The fleet cannot start like this: what is wrong, and what to do about it."""

"""What the services raise, as problems. The one table of errors and statuses."""

import errno
import math

from fleet.database import trouble
from fleet.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    SecondFactorNeeded,
    TooManyAttempts,
    Unauthorized,
)
from gateway.journal_file import JournalError
from gateway.store import StoreError, StoreUnavailable
from web.api.problem import Problem

_STORE_RETRY_S = 5.0
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mooring"'}


def problem_of(error: Exception) -> Problem | None:
    """The problem that an error of the services stands for; None for one that is ours."""
    match error:
        case NotFound():
            return Problem(404, str(error))
        case AlreadyExists() | Conflict():
            return Problem(409, str(error))
        case PreconditionFailed():
            return Problem(412, str(error), headers={"ETag": f'"v{error.version}"'})
        case Invalid():
            return Problem(422, str(error), errors=[(error.field, error.detail)])
        case SecondFactorNeeded():
            return Problem(401, str(error), code=error.code, headers=_CHALLENGE)
        case Unauthorized():
            return Problem(401, str(error), headers=_CHALLENGE)
        case Forbidden():
            return Problem(403, str(error))
        case TooManyAttempts():
            return Problem(429, str(error), headers=_retry_after(error.retry_after_s))
        case StoreUnavailable():
            wait_s = _STORE_RETRY_S if error.retry_after_s is None else error.retry_after_s
            return Problem(503, f"the store of readings does not answer: {error}", headers=_retry_after(wait_s))
        case StoreError():
            return Problem(503, "the store of readings refused the query")
        case JournalError():
            return Problem(
                503, "readings that are not in the store yet cannot be read", headers=_retry_after(_STORE_RETRY_S)
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Problem(507, "the disk is full")
    if (why := trouble(error)) is not None:
        if why.full:
            return Problem(507, "the disk is full")
        return Problem(503, "the fleet's database does not answer", headers=_retry_after(_STORE_RETRY_S))
    return None


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}

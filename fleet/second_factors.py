"""The second factor of a login: a code from an authenticator app, or one of ten recovery codes.

A code counts once, and so does a recovery code; two logins with the same one at once are one login. Guesses are slowed
down per person, wherever they come from: who guesses here knows the password already.
"""

import base64
import hashlib
import logging
import secrets

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import Conflict, Invalid, SecondFactorNeeded, TooManyAttempts
from fleet.models import PersonRow, RecoveryCodeRow
from fleet.sealing import Seal, Unsealable
from fleet.throttle import Throttle
from fleet.totp import DIGITS, enrolment_uri, matching_step, new_secret

logger = logging.getLogger(__name__)

RECOVERY_CODES = 10
_RECOVERY_BYTES = 10  # 80 bits: nothing to guess, also not from the digest
_RECOVERY_LENGTH = 16
_CODE_LENGTH_LIMIT = 64
_FREE = 5


class SecondFactors:
    """Sets them up, checks them, takes them away."""

    def __init__(self, *, database: Database, seal: Seal, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._seal = seal
        self._audit = audit
        self._clock = clock
        self._guesses = Throttle(free=_FREE)

    async def enrol(self, person: PersonRow) -> tuple[str, str]:
        """A new secret, and the address of it that apps read. It is not asked for before `confirm`. Raises Conflict."""
        secret = new_secret()
        sealed = self._seal.close(secret, of=person.id)
        if not await PersonRow.filter(id=person.id, totp_since=None).update(totp_secret=sealed, totp_step=0):
            raise Conflict("there is a second factor already: remove it first")
        return secret, enrolment_uri(secret, username=person.username)

    async def confirm(self, actor: Actor, person: PersonRow, code: str) -> list[str]:
        """From now on it is asked for. Gives the recovery codes, which are not seen again.

        Raises Conflict (nothing to confirm), Invalid (the code does not fit), TooManyAttempts.
        """
        if person.totp_since is not None or person.totp_secret is None:
            raise Conflict("no second factor waits to be confirmed")
        self._begin(person.id)
        step = self._step(person, _plain(code))
        if step is None:
            raise Invalid("code", "does not fit: is the app's clock right?")
        codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
        async with self._database.transaction():
            waiting = PersonRow.filter(id=person.id, totp_since=None, totp_secret=person.totp_secret)
            if not await waiting.update(totp_since=self._clock.utc(), totp_step=step):
                raise Conflict("the second factor was changed at the same time: begin again")
            await RecoveryCodeRow.filter(person_id=person.id).delete()
            await RecoveryCodeRow.bulk_create(
                [RecoveryCodeRow(digest=_digest(person.id, one), person_id=person.id) for one in codes]
            )
            await self._audit.record(actor, "second_factor.add", "user", person.id)
        self._guesses.succeed(person.id)
        return codes

    async def check(self, person: PersonRow, code: str, address: str) -> None:
        """At a login, once the password was right. Raises SecondFactorNeeded, TooManyAttempts."""
        if person.totp_since is None:
            return
        code = _plain(code)
        if not code:
            raise SecondFactorNeeded("otp_required")
        self._begin(person.id)
        if len(code) != DIGITS:
            fits = await self._use_recovery_code(person, code, address)
        else:
            step = self._step(person, code)
            # Compared and set in one statement: the same code twice at once is used once.
            standing = PersonRow.filter(id=person.id, totp_secret=person.totp_secret, totp_step__lt=step or 0)
            fits = step is not None and bool(await standing.update(totp_step=step))
        if not fits:
            raise SecondFactorNeeded("otp_invalid")
        self._guesses.succeed(person.id)

    async def remove(self, actor: Actor, person_id: str) -> None:
        """It is not asked for any more, and its recovery codes are void. Again: nothing."""
        async with self._database.transaction():
            news = {"totp_secret": None, "totp_since": None, "totp_step": None}
            if not await PersonRow.filter(id=person_id, totp_secret__not_isnull=True).update(**news):
                return
            await RecoveryCodeRow.filter(person_id=person_id).delete()
            await self._audit.record(actor, "second_factor.remove", "user", person_id)

    async def _use_recovery_code(self, person: PersonRow, code: str, address: str) -> bool:
        if len(code) != _RECOVERY_LENGTH:
            return False
        async with self._database.transaction():
            if not await RecoveryCodeRow.filter(digest=_digest(person.id, code), person_id=person.id).delete():
                return False
            left = await RecoveryCodeRow.filter(person_id=person.id).count()
            actor = Actor(kind="user", id=person.username, address=address)
            await self._audit.record(actor, "second_factor.recover", "user", person.id, None, {"codes_left": left})
        return True

    def _step(self, person: PersonRow, code: str) -> int | None:
        try:
            secret = self._seal.open(person.totp_secret or "", of=person.id)
        except Unsealable:
            logger.error("the second factor of %s cannot be read: jwt.key is another one; reset it", person.username)
            return None
        return matching_step(secret, code, unix_s=self._clock.utc().timestamp(), after=person.totp_step or 0)

    def _begin(self, person_id: str) -> None:
        now = self._clock.monotonic()
        wait_s = self._guesses.wait_s(person_id, now)
        if wait_s > 0:
            raise TooManyAttempts(wait_s)
        self._guesses.begin(person_id, now)


def _plain(code: str) -> str:
    """Without what people put between the characters."""
    return code.replace(" ", "").replace("-", "").upper() if len(code) <= _CODE_LENGTH_LIMIT else "too long"


def _new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode()
    return "-".join(text[start : start + 4] for start in range(0, _RECOVERY_LENGTH, 4))


def _digest(person_id: str, code: str) -> str:
    plain = f"{person_id}:{_plain(code)}"
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()

"""Logins: the chain of refresh tokens behind an access token, one-time codes, and whether a login still stands.

A refresh token works once and gives the next one; one that comes a second time has been stolen or copied, and the
whole login ends. All of them are stored as SHA-256 of 256 random bits. A login is checked at each use of an access
token, from a short-lived cache: logging out, a new password, another role count at once here, and within
`_CACHE_S` on nodes that share the database.
"""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.access_tokens import AccessTokens
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import NotFound, Unauthorized
from fleet.ids import new_id
from fleet.limits import peer_text
from fleet.models import ADDRESS, NAME, CodeRow, LoginRow, PersonRow, RefreshTokenRow
from fleet.records import user_view
from fleet.views import Identity, Session, Tokens, User

SETUP = "setup"
LOGIN = "login"
CODE_S = 600
SETUP_S = 7 * 86_400
_SECRET_BYTES = 32
_LIFETIME_S = 90 * 86_400  # of a login, however often it is renewed
_CACHE_S = 5.0
_CACHE_LIMIT = 10_000
_SECRET_LENGTH_LIMIT = 256
SESSIONS_LIMIT = 200
"""Of one person's, that are listed: the newest."""


def secret_digest(secret: str) -> str:
    """What is stored of a refresh token or code."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Standing:
    user: User
    until: float


class Logins:
    """Begins, renews, checks and ends logins."""

    def __init__(self, *, database: Database, tokens: AccessTokens, clock: Clock, refresh_token_s: int) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock
        self._refresh_token_s = refresh_token_s
        self._standing: OrderedDict[str, _Standing] = OrderedDict()
        self._endings = 0

    async def begin(self, person: PersonRow, address: str, user_agent: str = "") -> Tokens:
        """A new login. The caller has made sure who it is."""
        now = self._clock.utc()
        async with self._database.transaction():
            login = await LoginRow.create(
                id=new_id(),
                person_id=person.id,
                address=peer_text(address, ADDRESS),
                user_agent=peer_text(user_agent, NAME),
                created_at=now,
                expires_at=now + timedelta(seconds=_LIFETIME_S),
            )
            await PersonRow.filter(id=person.id).update(last_login_at=now)
            person.last_login_at = now
            refresh_token = await self._issue(login, now)
        return self._give(login, person, refresh_token, now)

    async def renew(self, refresh_token: str) -> Tokens:
        """The next tokens of a login. Raises Unauthorized; a used token ends its login."""
        row = await self._refresh_row(refresh_token)
        if row is None:
            raise Unauthorized
        now = self._clock.utc()
        login = await LoginRow.get(id=row.login_id)
        person = await PersonRow.get(id=login.person_id)
        if login.ended_at is not None or now >= min(row.expires_at, login.expires_at) or person.disabled:
            raise Unauthorized
        following = ""
        async with self._database.transaction():
            first = await RefreshTokenRow.filter(digest=row.digest, used_at=None).update(used_at=now)
            if first:
                await LoginRow.filter(id=login.id).update(renewed_at=now)
                following = await self._issue(login, now)
        if not first:
            await self.end(login.id)
            raise Unauthorized("this refresh token was used before: the login has been ended")
        return self._give(login, person, following, now)

    async def end_by(self, refresh_token: str) -> None:
        """End the login that a refresh token belongs to; nothing for an unknown one."""
        row = await self._refresh_row(refresh_token)
        if row is not None:
            await self.end(row.login_id)

    async def end(self, login_id: str) -> None:
        await LoginRow.filter(id=login_id, ended_at=None).update(ended_at=self._clock.utc())
        self._endings += 1
        self._standing.pop(login_id, None)

    async def end_all(self, person_id: str) -> None:
        """End every login of a person."""
        await LoginRow.filter(person_id=person_id, ended_at=None).update(ended_at=self._clock.utc())
        self.forget(person_id)

    async def sessions(self, person_id: str) -> list[Session]:
        """A person's logins that stand, newest first."""
        now, oldest = self._clock.utc(), self._clock.utc() - timedelta(seconds=self._refresh_token_s)
        rows = await LoginRow.filter(person_id=person_id, ended_at=None).order_by("-id").limit(SESSIONS_LIMIT)
        # One that has not been renewed for as long as a refresh token lasts cannot be any more.
        found = [_session(row) for row in rows if row.expires_at > now]
        return [session for session in found if session.last_used_at > oldest]

    async def end_one(self, person_id: str, login_id: str) -> None:
        """End a login of this person's. Raises NotFound, also for another's."""
        if not await LoginRow.exists(id=login_id, person_id=person_id, ended_at=None):
            raise NotFound("session", login_id)
        await self.end(login_id)

    async def end_others(self, person_id: str, login_id: str) -> int:
        """End every login of a person's but this one; how many."""
        others = LoginRow.filter(person_id=person_id, ended_at=None).exclude(id=login_id)
        ended = await others.update(ended_at=self._clock.utc())
        self.forget(person_id)
        return ended

    async def check(self, access_token: str) -> Identity:
        """Whose token this is, if its login still stands. Raises Unauthorized."""
        claims = self._tokens.read(access_token, now=self._clock.utc())
        known = self._standing.get(claims.login_id)
        now = self._clock.monotonic()
        if known is None or known.until <= now:
            known = await self._look_up(claims.login_id, now)
        if known is None or known.user.id != claims.user_id:
            raise Unauthorized
        return Identity(user=known.user, login_id=claims.login_id)

    async def new_code(self, purpose: str, person_id: str | None, lifetime_s: float) -> str:
        """A one-time code. There is one set-up code at a time."""
        code = secrets.token_urlsafe(_SECRET_BYTES)
        now = self._clock.utc()
        async with self._database.transaction():
            if purpose == SETUP:
                await CodeRow.filter(purpose=SETUP).delete()
            await CodeRow.create(
                digest=secret_digest(code),
                purpose=purpose,
                person_id=person_id,
                created_at=now,
                expires_at=now + timedelta(seconds=lifetime_s),
            )
        return code

    async def use_code(self, purpose: str, code: str) -> CodeRow:
        """Take a code out of the world. Raises Unauthorized when it is not known, used or too old."""
        if not code or len(code) > _SECRET_LENGTH_LIMIT:
            raise Unauthorized
        row = await CodeRow.get_or_none(digest=secret_digest(code), purpose=purpose)
        if row is None or not await CodeRow.filter(digest=row.digest).delete():
            raise Unauthorized
        if row.expires_at <= self._clock.utc():
            raise Unauthorized
        return row

    async def prune(self) -> None:
        """For the timers: drop what has run out."""
        now = self._clock.utc()
        await CodeRow.filter(expires_at__lte=now).delete()
        await LoginRow.filter(expires_at__lte=now).delete()
        await LoginRow.filter(ended_at__lte=now - timedelta(seconds=self._refresh_token_s)).delete()

    def forget(self, person_id: str) -> None:
        """Ask the database again about this person's logins."""
        self._endings += 1
        for login_id in [id for id, standing in self._standing.items() if standing.user.id == person_id]:  # noqa: A001
            del self._standing[login_id]

    async def _look_up(self, login_id: str, now: float) -> _Standing | None:
        endings = self._endings
        login = await LoginRow.get_or_none(id=login_id, ended_at=None).select_related("person")
        if login is None or login.person.disabled or login.expires_at <= self._clock.utc():
            self._standing.pop(login_id, None)
            return None
        standing = _Standing(user_view(login.person), now + _CACHE_S)
        if endings == self._endings:
            self._standing[login_id] = standing
            self._standing.move_to_end(login_id)
            while len(self._standing) > _CACHE_LIMIT:
                self._standing.popitem(last=False)
        return standing

    async def _refresh_row(self, refresh_token: str) -> RefreshTokenRow | None:
        if not refresh_token or len(refresh_token) > _SECRET_LENGTH_LIMIT:
            return None
        return await RefreshTokenRow.get_or_none(digest=secret_digest(refresh_token))

    async def _issue(self, login: LoginRow, now: datetime) -> str:
        refresh_token = secrets.token_urlsafe(_SECRET_BYTES)
        expires_at = min(now + timedelta(seconds=self._refresh_token_s), login.expires_at)
        await RefreshTokenRow.create(
            digest=secret_digest(refresh_token), login_id=login.id, created_at=now, expires_at=expires_at
        )
        return refresh_token

    def _give(self, login: LoginRow, person: PersonRow, refresh_token: str, now: datetime) -> Tokens:
        return Tokens(
            access_token=self._tokens.issue(login_id=login.id, user_id=person.id, now=now),
            refresh_token=refresh_token,
            expires_in=self._tokens.lifetime_s,
            refresh_expires_in=min(self._refresh_token_s, int((login.expires_at - now).total_seconds())),
            user=user_view(person),
        )


def _session(row: LoginRow) -> Session:
    return Session(
        id=row.id,
        address=row.address,
        user_agent=row.user_agent or "",
        created_at=row.created_at,
        last_used_at=row.renewed_at or row.created_at,
        expires_at=row.expires_at,
    )

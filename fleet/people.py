"""People: who may log in, with what role, and the first of them.

There is no default account. While there is nobody, a one-time token lets its bearer make the first administrator;
there is always at least one administrator after that.
"""

import builtins
import re
from dataclasses import replace
from typing import Any

from tortoise.exceptions import IntegrityError

from fleet.actor import SYSTEM, Actor
from fleet.api_keys import PREFIX, ApiKeys
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    SecondFactorNeeded,
    TooManyAttempts,
    Unauthorized,
)
from fleet.ids import new_id
from fleet.logins import CODE_S, LOGIN, SETUP, SETUP_S, Logins
from fleet.models import PersonRow
from fleet.passwords import Passwords
from fleet.records import user_view
from fleet.second_factors import SecondFactors
from fleet.throttle import Throttle
from fleet.token_refusals import TokenRefusals
from fleet.views import Identity, Role, Session, Tokens, User

_USERNAME = re.compile(r"[\w.@+-]{1,64}")
_FREE_PER_ACCOUNT = 5
_FREE_PER_ADDRESS = 50  # an office behind one address has many who mistype


class People:
    """Users and how they log in."""

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        logins: Logins,
        api_keys: ApiKeys,
        second_factors: SecondFactors,
        refusals: TokenRefusals,
        require_second_factor: bool,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._api_keys = api_keys
        self._second_factors = second_factors
        self._refusals = refusals
        self._require_second_factor = require_second_factor
        self._database = database
        self._passwords = passwords
        self._logins = logins
        self._audit = audit
        self._clock = clock
        self._by_account = Throttle(free=_FREE_PER_ACCOUNT)
        self._by_address = Throttle(free=_FREE_PER_ADDRESS)

    # The first one

    async def setup_needed(self) -> bool:
        """Whether there is nobody yet."""
        return not await PersonRow.exists()

    async def setup_token(self) -> str:
        """A new one-time token that lets its bearer make the first administrator; the one before stops working."""
        return await self._logins.new_code(SETUP, None, SETUP_S)

    async def setup(
        self, token: str, username: str, password: str, *, address: str = "", user_agent: str = ""
    ) -> Tokens:
        """Make the first administrator.

        Raises Invalid, TooManyAttempts, Conflict (somebody is there), Unauthorized (wrong or used token).
        """
        username = _checked_username(username)
        self._passwords.check_new(username, password)
        if not await self.setup_needed():
            raise Conflict("the set-up is done already: log in")
        self._begin((SETUP, address), address)
        password_hash = await self._passwords.hash(password)
        await self._logins.use_code(SETUP, token)
        self._succeed((SETUP, address), address)
        actor = Actor(kind="user", id=username, address=address)
        person = await self._insert(actor, username, password_hash, Role.ADMIN, first=True)
        return await self._logins.begin(person, address, user_agent)

    async def ensure_admin(self, username: str, password: str) -> bool:
        """At first start, when there is nobody yet, make this administrator; says whether it did. Raises Invalid."""
        if not await self.setup_needed():
            return False
        username = _checked_username(username)
        self._passwords.check_new(username, password)
        await self._insert(SYSTEM, username, await self._passwords.hash(password), Role.ADMIN, first=True)
        return True

    # Logging in

    async def login(
        self, username: str, password: str, address: str = "", *, otp: str = "", user_agent: str = ""
    ) -> Tokens:
        """`otp`: a code of the second factor, for who has one.

        Raises Unauthorized (the same for an unknown name, a wrong password, a disabled user), SecondFactorNeeded,
        TooManyAttempts.
        """
        key = (_folded(username)[:128], address)
        self._begin(key, address)
        may_exist = _USERNAME.fullmatch(username.strip()) is not None
        person = await PersonRow.get_or_none(folded=_folded(username)) if may_exist else None
        fits, better = await self._passwords.verify(password, person.password_hash if person is not None else None)
        if person is None or not fits or person.disabled:
            await self._record_failure(username, address)
            raise Unauthorized
        await self._ask_second_factor(person, otp, key, address)
        self._succeed(key, address)
        if better is not None:
            await PersonRow.filter(id=person.id, password_hash=person.password_hash).update(password_hash=better)
        tokens = await self._logins.begin(person, address, user_agent)
        await self._audit.record(
            Actor(kind="user", id=person.username, address=address), "user.login", "user", person.id
        )
        return tokens

    async def login_code(self, username: str) -> str:
        """A one-time code for 10 minutes, to be exchanged for tokens. Raises NotFound."""
        person = await PersonRow.get_or_none(folded=_folded(username), disabled=False)
        if person is None:
            raise NotFound("user", username)
        return await self._logins.new_code(LOGIN, person.id, CODE_S)

    async def exchange(self, code: str, *, address: str = "", user_agent: str = "") -> Tokens:
        """Tokens for a login code. Raises Unauthorized, TooManyAttempts."""
        self._begin((LOGIN, address), address)
        row = await self._logins.use_code(LOGIN, code)
        person = await PersonRow.get_or_none(id=row.person_id, disabled=False)
        if person is None:
            raise Unauthorized
        self._succeed((LOGIN, address), address)
        tokens = await self._logins.begin(person, address, user_agent)
        actor = Actor(kind="user", id=person.username, address=address)
        await self._audit.record(actor, "user.login", "user", person.id, None, {"by": "code"})
        return tokens

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for an unused refresh token; a used one ends the whole login. Raises Unauthorized."""
        return await self._logins.renew(refresh_token)

    async def logout(self, refresh_token: str) -> None:
        """End the login that this token belongs to, its access tokens too. Never raises for an unknown one."""
        await self._logins.end_by(refresh_token)

    async def verify(self, access_token: str) -> User:
        """As `identify`, when only who it is matters. Raises Unauthorized, also while they have to enrol."""
        identity = await self.identify(access_token)
        if identity.must_enrol:
            raise Unauthorized("set up a second factor first")
        return identity.user

    async def identify(self, token: str, address: str = "") -> Identity:
        """Whose access token or API key this is, now: checked against the database, cached. Raises Unauthorized."""
        try:
            if token.startswith(PREFIX):
                return await self._api_keys.check(token)
            identity = await self._logins.check(token)
        except Unauthorized:
            self._refusals.note(address)
            raise
        user = identity.user
        must = self._require_second_factor and user.role is Role.ADMIN and not user.second_factor
        return replace(identity, must_enrol=True) if must else identity

    # One's own

    async def sessions(self, person_id: str) -> builtins.list[Session]:
        """A person's logins that stand, newest first."""
        return await self._logins.sessions(person_id)

    async def end_session(self, actor: Actor, person_id: str, login_id: str) -> None:
        """End a login of this person's, live views and all. Raises NotFound."""
        await self._logins.end_one(person_id, login_id)
        await self._audit.record(actor, "session.end", "user", person_id, {"session": login_id}, None)

    async def end_other_sessions(self, actor: Actor, person_id: str, login_id: str) -> int:
        """End all of a person's logins but this one; how many."""
        ended = await self._logins.end_others(person_id, login_id)
        await self._audit.record(actor, "session.end_others", "user", person_id, {"sessions": ended}, None)
        return ended

    async def change_password(
        self, actor: Actor, person_id: str, password: str, new_password: str, *, user_agent: str = ""
    ) -> Tokens:
        """One's own; all logins end, and a new one begins. Raises Invalid, TooManyAttempts."""
        person = await self.confirm(actor, person_id, password)
        await self.update(actor, person.id, password=new_password)
        return await self._logins.begin(await self._row(person_id), actor.address, user_agent)

    async def enrol_second_factor(self, actor: Actor, person_id: str, password: str) -> tuple[str, str]:
        """(secret, address for apps); asked for once it is confirmed. Raises Invalid, TooManyAttempts, Conflict."""
        return await self._second_factors.enrol(await self.confirm(actor, person_id, password))

    async def confirm_second_factor(self, actor: Actor, person_id: str, code: str) -> builtins.list[str]:
        """The recovery codes, shown once. Raises Conflict, Invalid, TooManyAttempts."""
        codes = await self._second_factors.confirm(actor, await self._row(person_id), code)
        self._logins.forget(person_id)
        return codes

    async def remove_second_factor(self, actor: Actor, person_id: str, password: str) -> None:
        """One's own. Raises Invalid, TooManyAttempts."""
        await self.confirm(actor, person_id, password)
        await self._second_factors.remove(actor, person_id)
        self._logins.forget(person_id)

    async def reset_second_factor(self, actor: Actor, person_id: str) -> None:
        """Another's, who has lost it: all their logins end as well. Raises NotFound."""
        await self._row(person_id)
        await self._second_factors.remove(actor, person_id)
        await self._logins.end_all(person_id)

    async def confirm(self, actor: Actor, person_id: str, password: str) -> PersonRow:
        """That it is the person who sits there. Raises Invalid, TooManyAttempts (guesses count as at the login)."""
        person = await self._row(person_id)
        key = (person.folded[:128], actor.address)
        self._begin(key, actor.address)
        fits, _ = await self._passwords.verify(password, person.password_hash)
        if not fits:
            await self._record_failure(person.username, actor.address)
            raise Invalid("password", "is not right")
        self._succeed(key, actor.address)
        return person

    # The others

    async def list(self) -> builtins.list[User]:
        """All users by name."""
        return [user_view(row) for row in await PersonRow.all().order_by("folded")]

    async def get(self, id: str) -> User:  # noqa: A002
        """Raises NotFound."""
        return user_view(await self._row(id))

    async def create(self, actor: Actor, username: str, password: str, role: Role) -> User:
        """Raises AlreadyExists, Invalid, TooManyAttempts."""
        username = _checked_username(username)
        self._passwords.check_new(username, password)
        password_hash = await self._passwords.hash(password)
        return user_view(await self._insert(actor, username, password_hash, Role(role), first=False))

    async def update(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        password: str | None = None,
    ) -> User:
        """Change what is not None; a change ends the user's logins, and less of a role the API keys that have more.

        Raises NotFound, Invalid, Conflict (last admin).
        """
        news: dict[str, Any] = {}
        if password is not None:
            self._passwords.check_new((await self._row(id)).username, password)
            news["password_hash"] = await self._passwords.hash(password)
        if role is not None:
            news["role"] = Role(role)
        if disabled is not None:
            news["disabled"] = disabled
        async with self._database.transaction():
            row = await self._row(id)
            before = _audited(row)
            if all(getattr(row, key) == value for key, value in news.items()):
                return user_view(row)
            news["version"] = row.version + 1
            if not await PersonRow.filter(id=id, version=row.version).update(**news):
                raise Conflict("the user was changed at the same time: try again")
            await self._keep_an_admin()
            row.update_from_dict(news)
            if row.disabled or role is not None:
                await self._api_keys.end_above(id, None if row.disabled else Role(row.role))
            after = _audited(row) | ({"password": "changed"} if password is not None else {})
            await self._audit.record(actor, "user.update", "user", id, before, after)
        self._api_keys.forget(id)
        await self._logins.end_all(id)
        return user_view(row)

    async def delete(self, actor: Actor, id: str) -> None:  # noqa: A002
        """Raises NotFound, Conflict (the last administrator)."""
        async with self._database.transaction():
            row = await self._row(id)
            await PersonRow.filter(id=id).delete()
            await self._keep_an_admin()
            await self._audit.record(actor, "user.delete", "user", id, _audited(row), None)
        self._api_keys.forget(id)
        await self._logins.end_all(id)

    async def _insert(self, actor: Actor, username: str, password_hash: str, role: Role, *, first: bool) -> PersonRow:
        try:
            async with self._database.transaction():
                if first and not await self.setup_needed():
                    raise Conflict("the set-up is done already: log in")
                row = await PersonRow.create(
                    id=new_id(),
                    username=username,
                    folded=_folded(username),
                    password_hash=password_hash,
                    role=role,
                    created_at=self._clock.utc(),
                )
                await self._audit.record(actor, "user.create", "user", row.id, None, _audited(row))
        except IntegrityError as error:
            raise AlreadyExists("user", username) from error
        return row

    async def _keep_an_admin(self) -> None:
        """Inside a transaction that has taken something away."""
        if not await PersonRow.filter(role=Role.ADMIN, disabled=False).exists():
            raise Conflict("this is the last administrator")

    async def _ask_second_factor(self, person: PersonRow, otp: str, key: tuple[str, str], address: str) -> None:
        try:
            await self._second_factors.check(person, otp, address)
        except SecondFactorNeeded as error:
            if error.code == "otp_required":
                # Neither a failure nor a success: a success here would make the next guess at the code free.
                self._by_account.take_back(key)
                self._by_address.take_back(address)
            else:
                await self._record_failure(person.username, address, {"by": "second factor"})
            raise

    async def _record_failure(self, username: str, address: str, after: dict[str, Any] | None = None) -> None:
        actor = Actor(kind="user", id=username[:64], address=address)
        await self._audit.record(actor, "user.login_failed", "user", username[:64], None, after)

    async def _row(self, id: str) -> PersonRow:  # noqa: A002
        row = await PersonRow.get_or_none(id=id)
        if row is None:
            raise NotFound("user", id)
        return row

    def _begin(self, key: tuple[str, str], address: str) -> None:
        """Count a try. Raises TooManyAttempts."""
        now = self._clock.monotonic()
        wait_s = max(self._by_account.wait_s(key, now), self._by_address.wait_s(address, now))
        if wait_s > 0:
            raise TooManyAttempts(wait_s)
        self._by_account.begin(key, now)
        self._by_address.begin(address, now)

    def _succeed(self, key: tuple[str, str], address: str) -> None:
        self._by_account.succeed(key)
        # Not forgotten: with one account of one's own, the guessing at others would cost nothing.
        self._by_address.take_back(address)


def _folded(username: str) -> str:
    return username.strip().casefold()


def _checked_username(username: str) -> str:
    username = username.strip()
    if not _USERNAME.fullmatch(username):
        raise Invalid("username", "must be 1 to 64 letters, digits or . @ + - _")
    return username


def _audited(row: PersonRow) -> dict[str, Any]:
    return {"username": row.username, "role": str(row.role), "disabled": row.disabled}

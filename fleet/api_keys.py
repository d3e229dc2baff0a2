"""API keys: how programs come in, each in the name of a person and with a role of its own, at most the person's.

A key is 256 random bits and is stored as its SHA-256. Valid ones are remembered for a moment; revoking one, and
disabling, demoting or deleting its owner, count at once here, and within `_CACHE_S` on nodes that share the database.
"""

import builtins
import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock, rfc3339, rfc3339_or_none
from fleet.database import Database
from fleet.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unauthorized
from fleet.ids import new_id
from fleet.limits import checked_text
from fleet.models import ApiKeyRow, PersonRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.records import user_view
from fleet.views import Identity, Role

PREFIX = "mrk_"
"""Lets secret scanners know what they have found, and us tell a key from an access token."""
KEYS_LIMIT = 50
"""Of one person's, that are valid."""
NAME_LIMIT = 48
_KEY_BYTES = 32
_KEY_LENGTH_LIMIT = 128
_CACHE_S = 5.0
_CACHE_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key without its secret."""

    id: str
    name: str
    owner: str
    role: Role
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "owner": self.owner,
            "role": self.role.value,
            "hint": self.hint,
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339_or_none(self.expires_at),
            "last_used_at": rfc3339_or_none(self.last_used_at),
            "revoked_at": rfc3339_or_none(self.revoked_at),
        }


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    expires_at: datetime | None
    until: float


class ApiKeys:
    """The keys of all people."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._used: dict[str, datetime] = {}
        """Key id -> when it last let somebody in; written to the database now and then."""
        self._endings = 0

    async def create(
        self, actor: Actor, owner_id: str, *, name: str, role: Role, expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """A key of a person's, and its secret, which is not seen again; `expires_at` None: it does not.

        Raises NotFound, Invalid, Forbidden (a role above the owner's), AlreadyExists (its name), Conflict (too many).
        """
        name = checked_text("name", name, limit=NAME_LIMIT)
        now = self._clock.utc()
        if expires_at is not None and expires_at <= now:
            raise Invalid("expires_at", "is past")
        secret = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        async with self._database.transaction():
            # Written to, so that it comes before or after a demotion, and two at once one after the other.
            if not await PersonRow.filter(id=owner_id, disabled=False).update(disabled=False):
                raise NotFound("user", owner_id)
            owner = await PersonRow.get(id=owner_id)
            if not Role(owner.role).covers(role):
                raise Forbidden(f"your role is {owner.role}: a key of yours cannot be {role}")
            valid = await _valid(owner_id, now)
            if any(row.name == name for row in valid):
                raise AlreadyExists("API key", name)
            if len(valid) >= KEYS_LIMIT:
                raise Conflict(f"{KEYS_LIMIT} of your keys are valid already: revoke some first")
            row = await ApiKeyRow.create(
                id=new_id(),
                person_id=owner_id,
                name=name,
                digest=_digest(secret),
                hint=secret[-4:],
                role=role,
                created_at=now,
                expires_at=expires_at,
            )
            await self._audit.record(actor, "api_key.create", "api_key", row.id, None, _audited(row))
        return _view(row, owner.username), secret

    async def list(self, owner_id: str | None, *, cursor: str | None = None, limit: int = 50) -> Page[ApiKey]:
        """Newest first, revoked ones too; everybody's for None."""
        limit = page_limit(limit)
        rows = ApiKeyRow.all() if owner_id is None else ApiKeyRow.filter(person_id=owner_id)
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1).select_related("person")
        return Page(
            items=[self._seen(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=total,
        )

    async def get(self, id: str, owner_id: str | None = None) -> ApiKey:  # noqa: A002
        """Raises NotFound, also for another's when `owner_id` says whose it has to be."""
        return self._seen(await _row(id, owner_id))

    async def revoke(self, actor: Actor, id: str, owner_id: str | None = None) -> None:  # noqa: A002
        """Nobody comes in with it any more, and live views that did are closed. Again: nothing. Raises NotFound."""
        async with self._database.transaction():
            row = await _row(id, owner_id)
            if await ApiKeyRow.filter(id=id, revoked_at=None).update(revoked_at=self._clock.utc()):
                await self._audit.record(actor, "api_key.revoke", "api_key", id, _audited(row), None)
        self.forget(row.person_id)

    async def end_above(self, person_id: str, role: Role | None) -> int:
        """Revoke a person's keys of more than `role`, all for None, inside the caller's transaction; how many.

        Call `forget` after it.
        """
        now = self._clock.utc()
        above = [row.id for row in await _valid(person_id, now) if role is None or not role.covers(Role(row.role))]
        return await ApiKeyRow.filter(id__in=above).update(revoked_at=now) if above else 0

    def forget(self, person_id: str) -> None:
        """Ask the database again about this person's keys."""
        self._endings += 1
        for digest in [one for one, known in self._known.items() if known.identity.user.id == person_id]:
            del self._known[digest]

    async def check(self, secret: str) -> Identity:
        """Whose key this is. Raises Unauthorized."""
        if len(secret) > _KEY_LENGTH_LIMIT:
            raise Unauthorized
        digest = _digest(secret)
        now = self._clock.monotonic()
        known = self._known.get(digest)
        if known is None or known.until <= now:
            known = await self._look_up(digest, now)
        if known is None or (known.expires_at is not None and known.expires_at <= self._clock.utc()):
            raise Unauthorized
        if known.identity.api_key_id is not None:
            self._used[known.identity.api_key_id] = self._clock.utc()
        return known.identity

    async def write_used(self) -> None:
        """For the timers: write down when keys were last used."""
        used, self._used = self._used, {}
        for id, at in used.items():  # noqa: A001
            await ApiKeyRow.filter(id=id).update(last_used_at=at)

    async def _look_up(self, digest: str, now: float) -> _Known | None:
        endings = self._endings
        row = await ApiKeyRow.get_or_none(digest=digest, revoked_at=None).select_related("person")
        if row is None or row.person.disabled:
            self._known.pop(digest, None)
            return None
        user, role = user_view(row.person), Role(row.role)
        least = role if user.role.covers(role) else user.role
        identity = Identity(user=replace(user, role=least), api_key_id=row.id, api_key_name=row.name)
        known = _Known(identity, row.expires_at, now + _CACHE_S)
        if endings == self._endings:
            self._known[digest] = known
            self._known.move_to_end(digest)
            while len(self._known) > _CACHE_LIMIT:
                self._known.popitem(last=False)
        return known

    def _seen(self, row: ApiKeyRow) -> ApiKey:
        view = _view(row, row.person.username)
        used = self._used.get(row.id)
        return view if used is None else replace(view, last_used_at=used)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


async def _valid(person_id: str, now: datetime) -> builtins.list[ApiKeyRow]:
    rows = await ApiKeyRow.filter(person_id=person_id, revoked_at=None)
    return [row for row in rows if row.expires_at is None or row.expires_at > now]


async def _row(id: str, owner_id: str | None) -> ApiKeyRow:  # noqa: A002
    row = await ApiKeyRow.get_or_none(id=id).select_related("person")
    if row is None or owner_id not in (None, row.person_id):
        raise NotFound("API key", id)
    return row


def _view(row: ApiKeyRow, owner: str) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        owner=owner,
        role=Role(row.role),
        hint=row.hint,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def _audited(row: ApiKeyRow) -> dict[str, Any]:
    return {"name": row.name, "role": str(row.role), "hint": row.hint, "expires_at": rfc3339_or_none(row.expires_at)}

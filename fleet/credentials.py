"""Device tokens: made, checked, revoked.

A token is 256 random bits and is stored as its SHA-256: there is nothing to guess, so a slow hash would only slow
down reconnect storms. Valid ones are remembered for a while in a bounded cache; revoking forgets them at once and
drops the connections made with them, twice, in case one was just being made.
"""

import hashlib
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import inf

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock
from fleet.database import Database
from fleet.directory import Directory
from fleet.errors import Conflict, NotFound
from fleet.ids import new_id
from fleet.models import CredentialRow, DeviceRow
from fleet.ports import Sender
from fleet.presence import Presence
from fleet.records import credential_view
from fleet.timeline import Timeline
from fleet.token_lookup import TokenLookup
from fleet.views import Credential, TimelineKind

logger = logging.getLogger(__name__)

VALID_LIMIT = 2  # the old one and the new one, while a device changes over
_PREFIX = "mrd_"  # lets secret scanners know what they have found
_TOKEN_BYTES = 32
_TOKEN_LENGTH_LIMIT = 256
_CACHE_S = 30.0  # where nodes share a database: how long another node may still take a token that was revoked here
_HANDSHAKE_S = 60.0  # from the check of the token to the connection being reported; 30 s seen on weak links
_KICK_AGAIN_S = 0.5


def digest_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Known:
    device_id: str
    credential_id: str
    until: float


class Credentials:
    """The tokens of all devices."""

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        presence: Presence,
        sender: Sender,
        audit: Audit,
        timeline: Timeline,
        clock: Clock,
        cache_limit: int,
    ) -> None:
        self._database = database
        self._directory = directory
        self._presence = presence
        self._sender = sender
        self._audit = audit
        self._timeline = timeline
        self._clock = clock
        self._cache_limit = cache_limit
        self._lookup = TokenLookup()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._used: dict[str, datetime] = {}
        """Credential id -> when it last let a device in; written to the database now and then."""
        self._last_used: OrderedDict[str, datetime] = OrderedDict()
        """The same, kept for as long as there is room: whether a live connection may have been made with it."""
        self._revocations = 0
        self._kicks: deque[tuple[float, str, str]] = deque()

    async def load(self) -> None:
        """Remember the valid ones, as many as there is room for: a fleet that comes back at once asks nobody then."""
        if self._database.is_shared:
            return
        rows = CredentialRow.filter(revoked_at=None).order_by("-id").limit(self._cache_limit)
        for digest, device_id, key in await rows.values_list("digest", "device_id", "id"):
            self._known[digest] = _Known(device_id, key, inf)

    async def list(self, device_id: str) -> list[Credential]:
        """All of them, newest first, revoked ones too. Raises NotFound."""
        await _require(device_id)
        return [credential_view(row) for row in await CredentialRow.filter(device_id=device_id).order_by("-id")]

    async def issue(self, device_id: str) -> tuple[CredentialRow, str]:
        """A new token for a device, inside the caller's transaction."""
        token = _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        row = await CredentialRow.create(
            id=new_id(),
            device_id=device_id,
            digest=digest_of(token),
            hint=token[-4:],
            created_at=self._clock.utc(),
        )
        return row, token

    async def add(self, actor: Actor, device_id: str) -> tuple[Credential, str]:
        """A further token. Raises NotFound, and Conflict when two are valid already."""
        async with self._database.transaction():
            # Written to, so that two who add at once are one after the other on PostgreSQL as well.
            if not await DeviceRow.filter(id=device_id).update(updated_at=self._clock.utc()):
                raise NotFound("device", device_id)
            if await CredentialRow.filter(device_id=device_id, revoked_at=None).count() >= VALID_LIMIT:
                raise Conflict(f"{VALID_LIMIT} credentials are valid already: revoke one first")
            row, token = await self.issue(device_id)
            await self._audit.record(
                actor, "credential.create", "device", device_id, None, {"credential": row.id, "hint": row.hint}
            )
        self._timeline.note(device_id, TimelineKind.CHANGE, f"{actor.id} added a credential (…{row.hint})")
        return credential_view(row), token

    async def revoke(self, actor: Actor, device_id: str, credential_id: str) -> None:
        """No login with it any more; connections made with it drop within a second. Again: nothing. Raises NotFound."""
        await _require(device_id)
        async with self._database.transaction():
            row = await CredentialRow.get_or_none(id=credential_id, device_id=device_id)
            if row is None:
                raise NotFound("credential", credential_id)
            now = self._clock.utc()
            if not await CredentialRow.filter(id=credential_id, revoked_at=None).update(revoked_at=now):
                return
            others = await CredentialRow.filter(device_id=device_id, revoked_at=None).count()
            await self._audit.record(
                actor, "credential.revoke", "device", device_id, {"credential": row.id, "hint": row.hint}, None
            )
        self.forget(lambda known: known.credential_id == credential_id)
        self._timeline.note(device_id, TimelineKind.CHANGE, f"{actor.id} revoked a credential (…{row.hint})")
        if not others or self._may_be_in_use(device_id, credential_id):
            await self.expel(device_id, "credential revoked")

    async def expel(self, device_id: str, reason: str) -> None:
        """Drop all its connections now, and once more shortly after."""
        self._kicks.append((self._clock.monotonic() + _KICK_AGAIN_S, device_id, reason))
        await self._sender.kick(device_id, reason)

    async def release(self, device_id: str) -> None:
        """The device may come again: a link that still holds it for connected, unheard by us, begins anew."""
        await self._sender.kick(device_id, "device enabled")

    async def expel_again(self) -> None:
        """For the timers: who was let in by a check that began before the change."""
        now = self._clock.monotonic()
        while self._kicks and self._kicks[0][0] <= now:
            _, device_id, reason = self._kicks.popleft()
            await self._sender.kick(device_id, reason)

    async def authenticate(self, device_id: str, token: str) -> bool:
        """Whether `token` is a valid one of this device, and the device is not disabled."""
        return await self.authenticate_token(token) == device_id

    async def authenticate_token(self, token: str) -> str | None:
        """The device whose token this is, if it is valid and the device is not disabled."""
        if not token or len(token) > _TOKEN_LENGTH_LIMIT:
            return None
        digest = digest_of(token)
        known = self._known.get(digest)
        if known is None or known.until <= self._clock.monotonic():
            known = await self._look_up(digest)
        if known is None or not self._directory.is_active(known.device_id):
            return None
        now = self._clock.utc()
        self._used[known.credential_id] = now
        self._last_used[known.credential_id] = now
        self._last_used.move_to_end(known.credential_id)
        while len(self._last_used) > self._cache_limit:
            self._last_used.popitem(last=False)
        return known.device_id

    def forget(self, which: Callable[[_Known], bool]) -> None:
        """Drop from the cache; what is being looked up just now is not remembered either."""
        self._revocations += 1
        for digest in [digest for digest, known in self._known.items() if which(known)]:
            del self._known[digest]

    def forget_device(self, device_id: str) -> None:
        """The device was disabled or deleted."""
        self.forget(lambda known: known.device_id == device_id)

    async def write_used(self) -> None:
        """For the timers: bring the database's "last used" up to date."""
        used, self._used = self._used, {}
        ids = list(used)
        for start in range(0, len(ids), 500):
            batch = ids[start : start + 500]
            await CredentialRow.filter(id__in=batch).update(last_used_at=max(used[each] for each in batch))

    async def _look_up(self, digest: str) -> _Known | None:
        revocations = self._revocations
        row = await self._lookup.find(digest)
        if row is None:
            self._known.pop(digest, None)
            return None
        known = _Known(row.device_id, row.id, self._until())
        if revocations == self._revocations:
            self._known[digest] = known
            self._known.move_to_end(digest)
            while len(self._known) > self._cache_limit:
                self._known.popitem(last=False)
        return known

    def _until(self) -> float:
        """How long what the database says now may be remembered: only other nodes change it without our knowing."""
        return self._clock.monotonic() + _CACHE_S if self._database.is_shared else inf

    def _may_be_in_use(self, device_id: str, credential_id: str) -> bool:
        """Whether a live connection may have been made with it: then all of the device's connections go.

        A token that let nobody in since the newest connection began, give or take a handshake, is in nobody's use:
        a device that has changed over to its new token is left in peace.
        """
        used_at = self._last_used.get(credential_id)
        connected_at = self._presence.first_connected_at(device_id)
        if used_at is None:
            return len(self._last_used) >= self._cache_limit  # it may have been pushed out
        if connected_at is None:
            return True
        return (connected_at - used_at).total_seconds() < _HANDSHAKE_S


async def _require(device_id: str) -> None:
    if not await DeviceRow.exists(id=device_id):
        raise NotFound("device", device_id)

"""Devices' credentials: made, checked, revoked; two of a kind are valid at once, so that one can replace the other.

A token of ours is 256 random bits and is stored as its SHA-256: there is nothing to guess, so a slow hash would only
slow down reconnect storms. Valid ones are remembered for a while in a bounded cache; revoking forgets them at once and
drops the connections made with them, twice, in case one was just being made. The other kinds are checked by `Proofs`.
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
from fleet.device_keys import TOKEN_LIMIT, claimed_subject
from fleet.directory import Directory
from fleet.errors import Conflict, NotFound
from fleet.guessing import Guessing
from fleet.ids import new_id
from fleet.login_ends import Login, LoginEnds
from fleet.models import CredentialRow, DeviceRow
from fleet.new_credential import Checked, NewCredential, checked
from fleet.ports import Sender
from fleet.presence import Presence
from fleet.proofs import PREFIX, Proof, Proofs
from fleet.records import credential_view
from fleet.timeline import Timeline
from fleet.token_lookup import TokenLookup
from fleet.views import Credential, CredentialKind, Level, TimelineKind

logger = logging.getLogger(__name__)

VALID_LIMIT = 2  # of a type: the old one and the new one, while a device changes over
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
    expires_at: datetime | None


class Credentials:
    """The credentials of all devices."""

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
        proofs: Proofs,
    ) -> None:
        self._proofs = proofs
        self._ends = LoginEnds()
        self._guessing = Guessing()
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
        self._withdrawn: deque[tuple[float, Callable[[str], bool]]] = deque()

    async def load(self) -> None:
        """Remember the valid ones, as many as there is room for: a fleet that comes back at once asks nobody then."""
        await self._proofs.load()
        if self._database.is_shared:
            return
        rows = CredentialRow.filter(revoked_at=None, kind=CredentialKind.TOKEN).order_by("-id").limit(self._cache_limit)
        for digest, device_id, key, expires_at in await rows.values_list("digest", "device_id", "id", "expires_at"):
            self._known[digest] = _Known(device_id, key, inf, expires_at)

    async def list(self, device_id: str) -> list[Credential]:
        """All of them, newest first, revoked ones too. Raises NotFound."""
        await _require(device_id)
        return [credential_view(row) for row in await CredentialRow.filter(device_id=device_id).order_by("-id")]

    async def issue(self, device_id: str) -> tuple[CredentialRow, str]:
        """A new token for a device, inside the caller's transaction."""
        row, token = await self._make(device_id, Checked(kind=CredentialKind.TOKEN, name=""), None)
        return row, token or ""

    async def add(
        self, actor: Actor, device_id: str, wanted: NewCredential | None = None
    ) -> tuple[Credential, str | None]:
        """A further credential, and the token if one was made: nobody can read it again.

        Raises NotFound, Invalid, and Conflict when two of its type are valid already.
        """
        wanted = wanted or NewCredential()
        new = checked(wanted, device_id, self._clock.utc())
        if new.kind is CredentialKind.CHOSEN:
            new = Checked(kind=new.kind, name=new.name, secret=await self._proofs.hash(new.secret))
        async with self._database.transaction():
            # Written to, so that two who add at once are one after the other on PostgreSQL as well.
            if not await DeviceRow.filter(id=device_id).update(updated_at=self._clock.utc()):
                raise NotFound("device", device_id)
            if await self._valid(device_id, new.kind) >= VALID_LIMIT:
                raise Conflict(f"{VALID_LIMIT} credentials of this type are valid already: revoke one first")
            row, token = await self._make(device_id, new, wanted.expires_at)
            after = {"credential": row.id, "type": wanted.type, "hint": row.hint, "name": row.name}
            await self._audit.record(actor, "credential.create", "device", device_id, None, after)
        self._proofs.forget(device_id)
        if new.kind is CredentialKind.X509:
            self._proofs.trust(new.secret)
        self._timeline.note(
            device_id, TimelineKind.CHANGE, f"{actor.id} added a {wanted.type} credential {_which(row)}"
        )
        return credential_view(row), token

    async def _valid(self, device_id: str, kind: CredentialKind) -> int:
        """How many of its credentials of a type let the device in now."""
        tokens = (CredentialKind.TOKEN, CredentialKind.CHOSEN)
        kinds = tokens if kind in tokens else (kind,)
        found = CredentialRow.filter(device_id=device_id, revoked_at=None, kind__in=kinds)
        now = self._clock.utc()
        return sum(end is None or end > now for (end,) in await found.values_list("expires_at"))

    async def _make(
        self, device_id: str, new: Checked, expires_at: datetime | None
    ) -> tuple[CredentialRow, str | None]:
        token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES) if new.kind is CredentialKind.TOKEN else None
        row = await CredentialRow.create(
            id=new_id(),
            device_id=device_id,
            # The others are not found by a digest: something that no token hashes to.
            digest=digest_of(token) if token else secrets.token_hex(_TOKEN_BYTES),
            hint=token[-4:] if token else new.hint,
            kind=new.kind,
            name=new.name,
            secret=new.secret,
            key_id=new.key_id,
            created_at=self._clock.utc(),
            expires_at=expires_at,
        )
        return row, token

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
        self._proofs.forget(device_id)
        self._timeline.note(device_id, TimelineKind.CHANGE, f"{actor.id} revoked a credential {_which(row)}")
        if not others or self._may_be_in_use(device_id, credential_id):
            await self.expel(device_id, "credential revoked")

    async def expel(self, device_id: str, reason: str) -> None:
        """Drop all its connections now, and once more shortly after."""
        self._ends.forget(device_id)
        self._kicks.append((self._clock.monotonic() + _KICK_AGAIN_S, device_id, reason))
        await self._sender.kick(device_id, reason)

    async def release(self, device_id: str) -> None:
        """The device may come again: a link that still holds it for connected, unheard by us, begins anew."""
        await self._sender.kick(device_id, "device enabled")

    async def expel_again(self) -> None:
        """For the timers: who was let in by a check that began before the change."""
        now = self._clock.monotonic()
        while self._withdrawn and self._withdrawn[0][0] <= now:
            for device_id in self._ends.entered_by(self._withdrawn.popleft()[1]):
                await self.expel(device_id, "its certificate does not count any more")
        while self._kicks and self._kicks[0][0] <= now:
            _, device_id, reason = self._kicks.popleft()
            await self._sender.kick(device_id, reason)

    async def authenticate(self, device_id: str, secret: str, *, client_id: str = "", address: str = "") -> bool:
        """Whether `secret` is a valid token or JWT of this device, and the device is not disabled.

        `client_id` names the connection that is dropped when what it came in with ends. Raises TooManyAttempts for one
        that is wrong, or that could be guessed, after too many wrong ones.
        """
        known = await self._by_token(secret)
        if known is not None and known.device_id == device_id:
            return self._enter(known.device_id, known.credential_id, known.credential_id, known.expires_at, client_id)
        proof = await self._prove(device_id, secret)
        if proof is None:
            self._guess(device_id, address)
            proof = await self._proofs.chosen(device_id, secret)
            if proof is None:
                return False
            self._guessing.right(device_id, address)
        return self._enter(device_id, proof.credential_id, proof.source, proof.until, client_id)

    async def authenticate_token(self, token: str, *, client_id: str = "", address: str = "") -> str | None:
        """The device whose token or JWT this is, if it is valid and the device is not disabled.

        Not by a token of its owner's choice: nothing in it says whose it is. Raises TooManyAttempts.
        """
        known = await self._by_token(token)
        if known is not None:
            id_ = known.credential_id
            entered = self._enter(known.device_id, id_, id_, known.expires_at, client_id)
            return known.device_id if entered else None
        device_id = claimed_subject(token)
        proof = None if device_id is None else await self._prove(device_id, token)
        if device_id is None or proof is None:
            self._guess("", address)
            return None
        entered = self._enter(device_id, proof.credential_id, proof.source, proof.until, client_id)
        return device_id if entered else None

    def _guess(self, device_id: str, address: str) -> None:
        """A secret that is wrong as far as it is known. Raises TooManyAttempts."""
        if self._guessing.begin(device_id, address, self._clock.monotonic()):
            logger.warning("%s: too many wrong secrets, lately for device %.64r", address, device_id)
            if self._directory.is_known(device_id):
                summary = f"too many wrong secrets from {address}"
                self._timeline.note(device_id, TimelineKind.EVENT, summary, level=Level.WARNING)

    async def authenticate_certificate(self, device_id: str, der: bytes, *, client_id: str = "") -> bool:
        """Whether a client certificate proves this device, and the device is not disabled."""
        if not self._directory.is_active(device_id):
            return False
        proof = await self._proofs.certificate(device_id, der)
        if proof is None:
            return False
        return self._enter(device_id, proof.credential_id, proof.source, proof.until, client_id)

    async def expel_by(self, withdrawn: Callable[[str], bool]) -> None:
        """Drop who is connected by a source that does not stand any more; and once more, in case one was coming in."""
        self._withdrawn.append((self._clock.monotonic() + _KICK_AGAIN_S, withdrawn))
        for device_id in self._ends.entered_by(withdrawn):
            await self.expel(device_id, "its certificate does not count any more")

    async def _by_token(self, token: str) -> _Known | None:
        """By which random token of ours, if this is one."""
        if not token or len(token) > _TOKEN_LENGTH_LIMIT:
            return None
        digest = digest_of(token)
        known = self._known.get(digest)
        if known is None or known.until <= self._clock.monotonic():
            known = await self._look_up(digest)
        if known is not None and known.expires_at is not None and known.expires_at <= self._clock.utc():
            return None
        return known

    async def _prove(self, device_id: str, secret: str) -> Proof | None:
        """By what nobody could guess, or was right before."""
        if len(secret) > TOKEN_LIMIT or secret.startswith(PREFIX):
            return None
        if secret.count(".") == 2:
            return await self._proofs.jwt(device_id, secret) if self._directory.is_active(device_id) else None
        return await self._proofs.remembered(device_id, secret)

    def _enter(self, device_id: str, credential_id: str, source: str, until: datetime | None, client_id: str) -> bool:
        """Whether the device is not disabled; then it is in, until what it came in with ends."""
        if not self._directory.is_active(device_id):
            return False
        now = self._clock.utc()
        if credential_id:
            self._used[credential_id] = now
            self._last_used[credential_id] = now
            self._last_used.move_to_end(credential_id)
            while len(self._last_used) > self._cache_limit:
                self._last_used.popitem(last=False)
        self._ends.enter(device_id, client_id, None if until is None else Login(until, source))
        return True

    async def end_logins(self) -> None:
        """For the timers: drop who is connected by what has ended by now."""
        for device_id in self._ends.due(self._clock.utc()):
            await self.expel(device_id, "its credential has expired")

    def forget(self, which: Callable[[_Known], bool]) -> None:
        """Drop from the cache; what is being looked up just now is not remembered either."""
        self._revocations += 1
        for digest in [digest for digest, known in self._known.items() if which(known)]:
            del self._known[digest]

    def forget_device(self, device_id: str) -> None:
        """The device was disabled or deleted."""
        self._proofs.forget(device_id)
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
        known = _Known(row.device_id, row.id, self._until(), row.expires_at)
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


def _which(row: CredentialRow) -> str:
    """How people tell it from others."""
    return f"({row.name})" if row.name else f"(…{row.hint})" if row.hint else "(chosen)"


async def _require(device_id: str) -> None:
    if not await DeviceRow.exists(id=device_id):
        raise NotFound("device", device_id)

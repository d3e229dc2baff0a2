"""What devices prove themselves with besides our random tokens: tokens of their owner's choice, and signed JWTs.

What a device may show is read once and kept in memory, bounded, until something about the device changes. A chosen
token may be guessable: it is kept as argon2id, checked in threads, a few at a time; the right ones are remembered by
a digest that never leaves memory, so that a fleet that comes back is not hashed again.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from math import inf

from fleet.authorities import Authorities
from fleet.certificates import fingerprint_of, is_good, load_der
from fleet.clock import Clock
from fleet.database import Database
from fleet.device_keys import check_jwt, load_key
from fleet.models import CredentialRow
from fleet.passwords import Passwords
from fleet.trust import LIMIT, Trust
from fleet.views import CredentialKind

PREFIX = "mrd_"  # of tokens of ours: lets secret scanners know what they have found
CHOSEN_LENGTH, CHOSEN_LIMIT = 16, 256
_CACHE_S = 30.0  # where nodes share a database: as for tokens
_READS = 64  # at once; the others wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What let a device in: `until` is when that ends, None for never.

    `credential_id` is empty where an authority vouched for it; `source` names the credential, or authority and serial.
    """

    device_id: str
    credential_id: str
    source: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """One credential as it is checked: `key` is a loaded public key, `secret` an argon2id hash."""

    id: str
    kind: CredentialKind
    key_id: str
    secret: str
    algorithm: str
    key: object
    expires_at: datetime | None

    def lives(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(slots=True)
class _Known:
    shown: tuple[_Shown, ...]
    until: float


class Proofs:
    """Checks; `forget` is called when a credential of a device comes or goes."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        authorities: Authorities,
        trust: Trust,
        audience: str,
        cache_limit: int,
    ) -> None:
        self._authorities = authorities
        self._trust = trust
        self._trusted_up_to = ""
        self._database = database
        self._clock = clock
        self._audience = audience
        self._cache_limit = cache_limit
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._chosen: OrderedDict[bytes, str] = OrderedDict()
        """Digest of device and chosen token -> the credential that it was found to fit."""
        self._changes = 0
        self._reads = asyncio.Semaphore(_READS)
        self._hashing = Passwords(min_length=CHOSEN_LENGTH)
        self._any_chosen = False

    async def load(self) -> None:
        """Find out whether anybody has a chosen token: where nobody has, there is no hash to spend time on.

        And let the listeners trust the certificates of single devices.
        """
        self._any_chosen = self._database.is_shared or await CredentialRow.filter(kind=CredentialKind.CHOSEN).exists()

        await self.load_certificates()

    async def load_certificates(self) -> None:
        """Those registered since the last time."""
        rows = CredentialRow.filter(kind=CredentialKind.X509, revoked_at=None, id__gt=self._trusted_up_to)
        for key, pem in await rows.order_by("id").limit(LIMIT).values_list("id", "secret"):
            self.trust(pem)
            self._trusted_up_to = key

    def trust(self, pem: str) -> None:
        """A device's own certificate was registered; empty where only its fingerprint was."""
        if pem:
            self._trust.add(pem)

    def close(self) -> None:
        self._hashing.close()

    async def hash(self, token: str) -> str:
        """What is stored of a chosen token. Raises TooManyAttempts."""
        self._any_chosen = True
        return await self._hashing.hash(token)

    async def jwt(self, device_id: str, token: str) -> Proof | None:
        """By which registered key a JWT proves to be from this device."""
        now = self._clock.utc()
        shown = [each for each in await self._shown(device_id) if each.kind is CredentialKind.JWT and each.lives(now)]
        keys = [(each.algorithm, each.key_id, each.key) for each in shown]
        found = check_jwt(token, keys, device_id=device_id, audience=self._audience, now=now)
        if found is None:
            return None
        place, until = found
        expires_at = shown[place].expires_at
        until = until if expires_at is None else min(until, expires_at)
        return Proof(device_id=device_id, credential_id=shown[place].id, source=shown[place].id, until=until)

    async def remembered(self, device_id: str, token: str) -> Proof | None:
        """By which credential a chosen token has let the device in before."""
        credential_id = self._chosen.get(_digest(device_id, token))
        if credential_id is None:
            return None
        now = self._clock.utc()
        for each in await self._shown(device_id):
            if each.id == credential_id and each.lives(now):
                return Proof(device_id=device_id, credential_id=each.id, source=each.id, until=each.expires_at)
        return None

    async def certificate(self, device_id: str, der: bytes) -> Proof | None:
        """By what a client certificate proves to be this device's: registered for it, or issued by an authority."""
        now = self._clock.utc()
        certificate = load_der(der)
        if certificate is None or not is_good(certificate, now):
            return None
        fingerprint = fingerprint_of(certificate)
        for each in await self._shown(device_id):
            if each.kind is CredentialKind.X509 and each.key_id == fingerprint and each.lives(now):
                until = min(certificate.not_valid_after_utc, each.expires_at or certificate.not_valid_after_utc)
                return Proof(device_id=device_id, credential_id=each.id, source=each.id, until=until)
        vouched = self._authorities.vouch(certificate, device_id, now)
        if vouched is None:
            return None
        return Proof(device_id=device_id, credential_id="", source=vouched[0], until=vouched[1])

    async def chosen(self, device_id: str, token: str) -> Proof | None:
        """By which credential a chosen token lets the device in. Takes as long where there is none.

        Raises TooManyAttempts when more are waiting to be checked than may.
        """
        if not self._any_chosen or token.startswith(PREFIX) or token.count(".") == 2:
            return None
        if not CHOSEN_LENGTH <= len(token) <= CHOSEN_LIMIT or not token.isascii():
            return None
        now, changes = self._clock.utc(), self._changes
        all_shown = await self._shown(device_id)
        shown = [each for each in all_shown if each.kind is CredentialKind.CHOSEN and each.lives(now)]
        for each in shown:
            fits, _ = await self._hashing.verify(token, each.secret)
            if fits:
                if changes == self._changes:
                    self._chosen[_digest(device_id, token)] = each.id
                    if len(self._chosen) > self._cache_limit:
                        self._chosen.popitem(last=False)
                return Proof(device_id=device_id, credential_id=each.id, source=each.id, until=each.expires_at)
        if not shown:
            await self._hashing.verify(token, None)
        return None

    def forget(self, device_id: str) -> None:
        """A credential of this device came or went; what is being read just now is not remembered either."""
        self._changes += 1
        self._known.pop(device_id, None)

    async def _shown(self, device_id: str) -> tuple[_Shown, ...]:
        known = self._known.get(device_id)
        if known is not None and known.until > self._clock.monotonic():
            self._known.move_to_end(device_id)
            return known.shown
        changes = self._changes
        async with self._reads:
            rows = await CredentialRow.filter(device_id=device_id, revoked_at=None).exclude(kind=CredentialKind.TOKEN)
        shown = tuple(map(_of, rows))
        if changes == self._changes:
            until = self._clock.monotonic() + _CACHE_S if self._database.is_shared else inf
            self._known[device_id] = _Known(shown, until)
            self._known.move_to_end(device_id)
            if len(self._known) > self._cache_limit:
                self._known.popitem(last=False)
        return shown


def _of(row: CredentialRow) -> _Shown:
    kind = CredentialKind(row.kind)
    algorithm, key = load_key(row.secret) if kind is CredentialKind.JWT else ("", None)
    return _Shown(row.id, kind, row.key_id, row.secret, algorithm, key, row.expires_at)


def _digest(device_id: str, token: str) -> bytes:
    return hashlib.sha256(f"{device_id}\0{token}".encode("utf-8", "surrogatepass")).digest()

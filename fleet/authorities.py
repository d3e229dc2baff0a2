"""Certificate authorities: who may issue certificates to devices, and which of those are void."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from cryptography import x509
from tortoise.exceptions import IntegrityError

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.certificates import Authority, check_authority, fingerprint_of, is_issued_by, names, pem_of, read_certificate
from fleet.clock import Clock, rfc3339
from fleet.database import Database
from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.limits import checked_text
from fleet.models import CertificateAuthorityRow
from fleet.trust import Trust

AUTHORITIES_LIMIT = 100
SERIALS_LIMIT = 10_000
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")  # RFC 5280: 20 bytes at most
_Withdraw = Callable[[Callable[[str], bool]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """`fingerprint` is the SHA-256 of its certificate; `revoked_serials` are hexadecimal, lower case."""

    id: str
    name: str
    fingerprint: str
    certificate: str
    revoked_serials: tuple[str, ...]
    expires_at: datetime
    created_by: str
    created_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "certificate": self.certificate,
            "revoked_serials": list(self.revoked_serials),
            "expires_at": rfc3339(self.expires_at),
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
        }


class Authorities:
    """Those registered, also in memory: at each login with a certificate they are asked."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock, trust: Trust) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._trust = trust
        self._registered: tuple[Authority, ...] = ()
        self.on_withdrawn: _Withdraw | None = None
        """Told which sources ("authority:serial") may not let anybody in any more."""

    async def load(self) -> None:
        """Read them all from the database; drop who came in by what is gone."""
        before = {authority.id: authority for authority in self._registered}
        found = []
        for row in await CertificateAuthorityRow.all().order_by("id"):
            self._trust.add(row.certificate)
            found.append(_authority(row))
        self._registered = tuple(found)
        now = {authority.id: authority for authority in found}
        withdrawn = {id_ for id_, old in before.items() if id_ not in now or now[id_].revoked - old.revoked}
        if withdrawn and self.on_withdrawn is not None:
            await self.on_withdrawn(lambda source: source.partition(":")[0] in withdrawn and not self._stands(source))

    def vouch(self, certificate: x509.Certificate, device_id: str, now: datetime) -> tuple[str, datetime] | None:
        """(source, until when) a certificate proves to be this device's by one of the authorities; None: by none."""
        if not names(certificate, device_id):
            return None
        for authority in self._registered:
            if is_issued_by(certificate, authority, now):
                until = min(certificate.not_valid_after_utc, authority.certificate.not_valid_after_utc)
                return f"{authority.id}:{certificate.serial_number:x}", until
        return None

    async def list(self) -> list[CertificateAuthority]:
        """All of them, oldest first: there are few."""
        return [_view(row) for row in await CertificateAuthorityRow.all().order_by("id")]

    async def get(self, id: str) -> CertificateAuthority:  # noqa: A002
        """Raises NotFound."""
        return _view(await _row(id))

    async def create(self, actor: Actor, *, name: str, certificate: str) -> CertificateAuthority:
        """Devices may show certificates of this authority from their next connection on.

        Raises Invalid, AlreadyExists, and Conflict when there are too many.
        """
        read = read_certificate(certificate)
        now = self._clock.utc()
        check_authority(read, now)
        row = CertificateAuthorityRow(
            id=new_id(),
            name=checked_text("name", name),
            fingerprint=fingerprint_of(read),
            certificate=pem_of(read),
            expires_at=read.not_valid_after_utc,
            created_by=actor.id,
            created_at=now,
        )
        try:
            async with self._database.transaction():
                if await CertificateAuthorityRow.all().count() >= AUTHORITIES_LIMIT:
                    raise Conflict(f"there are {AUTHORITIES_LIMIT} authorities: delete one first")
                await row.save(force_create=True)
                await self._audit.record(actor, "authority.create", "authority", row.id, None, _audited(row))
        except IntegrityError as error:
            raise AlreadyExists("certificate authority", row.fingerprint) from error
        await self.load()
        return _view(row)

    async def update(
        self,
        actor: Actor,
        id: str,  # noqa: A002
        *,
        name: str | None = None,
        revoked_serials: Sequence[str] | None = None,
    ) -> CertificateAuthority:
        """Change what is not None. Who is connected by a certificate that is revoked now is dropped.

        Raises NotFound, Invalid, Conflict.
        """
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = checked_text("name", name)
        if revoked_serials is not None:
            changes["revoked_serials"] = orjson.dumps(_serials(revoked_serials)).decode()
        async with self._database.transaction():
            row = await _row(id)
            before = _audited(row)
            fresh = {**changes, "version": row.version + 1}
            if not await CertificateAuthorityRow.filter(id=id, version=row.version).update(**fresh):
                raise Conflict("somebody else changed it in between: try again")
            row.update_from_dict(fresh)
            await self._audit.record(actor, "authority.update", "authority", id, before, _audited(row))
        await self.load()
        return _view(row)

    async def delete(self, actor: Actor, id: str) -> None:  # noqa: A002
        """Its certificates let nobody in any more; who is connected by one is dropped. Raises NotFound."""
        async with self._database.transaction():
            row = await _row(id)
            await row.delete()
            await self._audit.record(actor, "authority.delete", "authority", id, _audited(row), None)
        await self.load()

    def _stands(self, source: str) -> bool:
        id_, _, serial = source.partition(":")
        return any(each.id == id_ and int(serial, 16) not in each.revoked for each in self._registered)


async def _row(id_: str) -> CertificateAuthorityRow:
    row = await CertificateAuthorityRow.get_or_none(id=id_)
    if row is None:
        raise NotFound("certificate authority", id_)
    return row


def _serials(given: Sequence[str]) -> Sequence[str]:
    """Hexadecimal as openssl prints it, with or without colons."""
    if len(given) > SERIALS_LIMIT:
        raise Invalid("revoked_serials", f"are more than {SERIALS_LIMIT}")
    plain = [serial.replace(":", "") for serial in given]
    if not all(_SERIAL.fullmatch(serial) for serial in plain):
        raise Invalid("revoked_serials", "must be serial numbers in hexadecimal")
    return sorted({f"{int(serial, 16):x}" for serial in plain})


def _authority(row: CertificateAuthorityRow) -> Authority:
    revoked = frozenset(int(serial, 16) for serial in orjson.loads(row.revoked_serials))
    return Authority(row.id, read_certificate(row.certificate), revoked)


def _audited(row: CertificateAuthorityRow) -> dict[str, Any]:
    return {"name": row.name, "fingerprint": row.fingerprint, "revoked_serials": orjson.loads(row.revoked_serials)}


def _view(row: CertificateAuthorityRow) -> CertificateAuthority:
    return CertificateAuthority(
        id=row.id,
        name=row.name,
        fingerprint=row.fingerprint,
        certificate=row.certificate,
        revoked_serials=tuple(orjson.loads(row.revoked_serials)),
        expires_at=row.expires_at,
        created_by=row.created_by,
        created_at=row.created_at,
    )

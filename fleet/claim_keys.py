"""Claim keys: what a batch of devices is made with, and exchanges for credentials of its own (fleet/provisioning.py).

A key is good for so many devices, until a time, from some networks. Its mode says who decides: "open" lets every
device in that shows it, "listed" those whose ids were told before, "approval" those that an operator accepts.
The key itself is known to its devices alone; kept is its SHA-256, as of any random token.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import orjson
from tortoise.expressions import F

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock, rfc3339, rfc3339_or_none
from fleet.credentials import digest_of
from fleet.database import Database
from fleet.errors import Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.limits import checked_text
from fleet.models import ClaimKeyRow, ExpectedDeviceRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from gateway.channels import is_device_id

KEYS_LIMIT = 1_000
USES_LIMIT = 1_000_000
LIFE_LIMIT = timedelta(days=3_650)
NETWORKS_LIMIT = 32
EXPECTED_LIMIT = 100_000
EXPECTED_AT_ONCE = 10_000
_PREFIX = "mrc_"  # as mrd_ of the devices' tokens: secret scanners know what they have found
_KEY_BYTES = 32
_KEY_LENGTH_LIMIT = 256


class ClaimMode(StrEnum):
    """Who decides that a device may come in."""

    OPEN = "open"
    LISTED = "listed"
    APPROVAL = "approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimKey:
    """`hint` is the end of the key. `networks` are CIDR; none: from anywhere."""

    id: str
    name: str
    hint: str
    mode: ClaimMode
    profile: str | None
    tags: tuple[str, ...]
    networks: tuple[str, ...]
    uses: int
    uses_limit: int
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "hint": self.hint,
            "mode": self.mode.value,
            "profile": self.profile,
            "tags": list(self.tags),
            "networks": list(self.networks),
            "uses": self.uses,
            "uses_limit": self.uses_limit,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.expires_at),
            "revoked_at": rfc3339_or_none(self.revoked_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDevice:
    """A device told of before it comes."""

    device_id: str
    claimed_at: datetime | None


class ClaimKeys:
    """Made, listed, revoked by operators; found by what a device shows."""

    def __init__(self, *, database: Database, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        mode: ClaimMode,
        expires_at: datetime,
        uses_limit: int,
        profile: str | None = None,
        tags: Sequence[str] = (),
        networks: Sequence[str] = (),
    ) -> tuple[ClaimKey, str]:
        """The new key's record, and the key, which nobody can read again. Raises Invalid, Conflict (too many keys)."""
        now = self._clock.utc()
        if not now < expires_at <= now + LIFE_LIMIT:
            raise Invalid("expires_at", f"must lie within the next {LIFE_LIMIT.days} days")
        if not 1 <= uses_limit <= USES_LIMIT:
            raise Invalid("uses_limit", f"must be 1 to {USES_LIMIT}")
        key = _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        row = ClaimKeyRow(
            id=new_id(),
            name=checked_text("name", name),
            digest=digest_of(key),
            hint=key[-4:],
            mode=mode,
            profile=checked_text("profile", profile or "", empty=True),
            tags=orjson.dumps([checked_text("tags", tag, limit=64) for tag in tags]).decode(),
            networks=orjson.dumps(_checked_networks(networks)).decode(),
            uses_limit=uses_limit,
            created_by=actor.id,
            created_at=now,
            expires_at=expires_at,
        )
        async with self._database.transaction():
            if await ClaimKeyRow.filter(revoked_at=None, expires_at__gt=now).count() >= KEYS_LIMIT:
                raise Conflict(f"{KEYS_LIMIT} claim keys are valid already: revoke some first")
            await row.save(force_create=True)
            after = {"name": row.name, "mode": row.mode, "uses_limit": uses_limit, "hint": row.hint}
            await self._audit.record(actor, "claim_key.create", "claim_key", row.id, None, after)
        return claim_key_view(row), key

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[ClaimKey]:
        """Newest first, with those that are no longer valid."""
        limit = page_limit(limit)
        rows = ClaimKeyRow.all()
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=[claim_key_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=await ClaimKeyRow.all().count(),
        )

    async def get(self, id: str) -> ClaimKey:  # noqa: A002
        """Raises NotFound."""
        return claim_key_view(await self._row(id))

    async def revoke(self, actor: Actor, id: str) -> None:  # noqa: A002
        """No device comes in with it any more; those that have stay. Again: nothing. Raises NotFound."""
        async with self._database.transaction():
            row = await self._row(id)
            if await ClaimKeyRow.filter(id=id, revoked_at=None).update(revoked_at=self._clock.utc()):
                before = {"name": row.name, "hint": row.hint, "uses": row.uses}
                await self._audit.record(actor, "claim_key.revoke", "claim_key", id, before, None)

    async def expect(self, actor: Actor, id: str, device_ids: Sequence[str]) -> int:  # noqa: A002
        """Tell of devices that may come with a "listed" key; returns how many are new. Raises NotFound, Invalid."""
        wanted = list(dict.fromkeys(device_ids))
        if not 1 <= len(wanted) <= EXPECTED_AT_ONCE:
            raise Invalid("devices", f"must be 1 to {EXPECTED_AT_ONCE}")
        for device_id in wanted:
            if not is_device_id(device_id):
                raise Invalid("devices", f"{device_id[:80]!r} cannot be a device's id")
        async with self._database.transaction():
            row = await self._row(id)
            if row.mode != ClaimMode.LISTED:
                raise Conflict(f'only keys of mode "listed" have a list; this one is "{row.mode}"')
            here: set[str] = set()
            for start in range(0, len(wanted), 1_000):
                part = ExpectedDeviceRow.filter(claim_key_id=id, device_id__in=wanted[start : start + 1_000])
                here |= {str(found) for found in await part.values_list("device_id", flat=True)}
            new = [device_id for device_id in wanted if device_id not in here]
            if await ExpectedDeviceRow.filter(claim_key_id=id).count() + len(new) > EXPECTED_LIMIT:
                raise Conflict(f"a key's list holds {EXPECTED_LIMIT} devices at most")
            await self._database.insert(
                "expected_device", ("claim_key_id", "device_id"), [(id, device_id) for device_id in new]
            )
            await self._audit.record(actor, "claim_key.expect", "claim_key", id, None, {"devices": len(new)})
        return len(new)

    async def expected(self, id: str, *, cursor: str | None = None, limit: int = 50) -> Page[ExpectedDevice]:  # noqa: A002
        """A key's list, by device id. Raises NotFound."""
        await self._row(id)
        limit = page_limit(limit)
        rows = ExpectedDeviceRow.filter(claim_key_id=id)
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(device_id__gt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("device_id").limit(limit + 1)
        return Page(
            items=[ExpectedDevice(device_id=row.device_id, claimed_at=row.claimed_at) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].device_id) if len(found) > limit else None,
            total=total,
        )

    # ---- for provisioning

    async def find(self, key: str, address: str) -> ClaimKey | None:
        """The key, if it is one that is good now and from this address; it may be used up."""
        if not key or len(key) > _KEY_LENGTH_LIMIT:
            return None
        row = await ClaimKeyRow.get_or_none(digest=digest_of(key), revoked_at=None, expires_at__gt=self._clock.utc())
        if row is None or not _is_within(address, orjson.loads(row.networks)):
            return None
        return claim_key_view(row)

    async def take(self, key: ClaimKey, device_id: str) -> bool:
        """One use less, and off the list if there is one, in the caller's transaction. False when it cannot be."""
        now = self._clock.utc()
        valid = ClaimKeyRow.filter(id=key.id, revoked_at=None, expires_at__gt=now, uses__lt=F("uses_limit"))
        if not await valid.update(uses=F("uses") + 1):
            return False
        if key.mode is not ClaimMode.LISTED:
            return True
        waiting = ExpectedDeviceRow.filter(claim_key_id=key.id, device_id=device_id, claimed_at=None)
        return bool(await waiting.update(claimed_at=now))

    async def expects(self, key: ClaimKey, device_id: str) -> bool:
        """Whether the device is on the key's list and has not come yet."""
        return await ExpectedDeviceRow.exists(claim_key_id=key.id, device_id=device_id, claimed_at=None)

    async def _row(self, id: str) -> ClaimKeyRow:  # noqa: A002
        row = await ClaimKeyRow.get_or_none(id=id)
        if row is None:
            raise NotFound("claim key", id)
        return row


def claim_key_view(row: ClaimKeyRow) -> ClaimKey:
    return ClaimKey(
        id=row.id,
        name=row.name,
        hint=row.hint,
        mode=ClaimMode(row.mode),
        profile=row.profile or None,
        tags=tuple(orjson.loads(row.tags)),
        networks=tuple(orjson.loads(row.networks)),
        uses=row.uses,
        uses_limit=row.uses_limit,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _checked_networks(networks: Sequence[str]) -> list[str]:
    if len(networks) > NETWORKS_LIMIT:
        raise Invalid("networks", f"are more than {NETWORKS_LIMIT}")
    return [str(_network(text)) for text in networks]


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Invalid("networks", f"{text[:80]!r} is no network in CIDR form, such as 10.20.0.0/16") from error


def _is_within(address: str, networks: Sequence[str]) -> bool:
    """An address that cannot be read, as of a Unix socket, is within no network."""
    if not networks:
        return True
    try:
        asker = ip_address(address)
    except ValueError:
        return False
    if isinstance(asker, IPv6Address) and asker.ipv4_mapped is not None:
        asker = asker.ipv4_mapped
    return any(asker in ip_network(network) for network in networks)

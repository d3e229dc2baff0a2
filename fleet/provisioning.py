"""Provisioning: how devices that nobody has created get in, and to credentials of their own.

A device applies for an id, with the claim key of its batch or without one. Without one, or when its key asks for
approval, the application waits until an operator has accepted or rejected it; the device asks again meanwhile.

It may say a `nonce`, a secret of its own making that proves to us that it is the same device that asks again: one
that lost power before it had written its token down asks again with the same nonce and gets a new one, as long as
nothing has ever come from the device. Without a nonce an id is given out once.

pending --accept--> accepted --asks--> provisioned        pending --reject--> rejected
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hmac import compare_digest
from typing import Any

import orjson
from tortoise.exceptions import IntegrityError

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.claim_keys import ClaimKey, ClaimKeys, ClaimMode, claim_key_view
from fleet.clock import Clock, rfc3339
from fleet.credentials import Credentials, digest_of
from fleet.database import Database
from fleet.devices import Devices
from fleet.errors import AlreadyExists, Conflict, FleetError, Invalid, NotFound, TooManyAttempts
from fleet.limits import checked_object, checked_text, peer_text
from fleet.models import ADDRESS, ApplicationRow, ClaimKeyRow, CredentialRow, DeviceRow
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.presence import Presence
from fleet.throttle import Throttle
from fleet.views import DeviceStatus
from gateway.channels import CLAIMANT, is_device_id

logger = logging.getLogger(__name__)

PENDING_LIMIT = 1_000
PENDING_PER_ADDRESS = 50
NONCE_LENGTH = (16, 256)
INFO_LIMIT_BYTES = 2_048
ASK_AGAIN_S = 30.0
_PENDING_KEPT = timedelta(days=7)  # without asking again
_PROVISIONED_KEPT = timedelta(days=1)  # for a device that asks for its token again
_NO_GUESS = frozenset({"rejected", "queue_full", "claim_key_used_up"})  # refused with the right key, or nonce
_FREE_FAILURES = 20  # a batch behind one address, some of them wrong, is not locked out by the first


class ApplicationStatus(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PROVISIONED = "provisioned"


class Refused(FleetError):
    """The device is not let in. `reason` is a slug that devices may act on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a device asks: to be let in under this id."""

    device_id: str
    claim_key: str = ""
    nonce: str = ""
    info: dict[str, Any]
    address: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The answer: a token, or that it waits for an operator (`token` None)."""

    device_id: str
    token: str | None

    def json(self) -> dict[str, Any]:
        if self.token is None:
            return {"status": "pending", "id": self.device_id, "retry_after": int(ASK_AGAIN_S)}
        credentials = {"type": "token", "token": self.token}
        return {"status": "provisioned", "id": self.device_id, "credentials": credentials}


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application as operators see it. `info` is what the device says of itself: not to be trusted."""

    device_id: str
    status: ApplicationStatus
    claim_key_id: str | None
    info: dict[str, Any]
    address: str
    link: str
    decided_by: str | None
    created_at: datetime
    updated_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "device_id": self.device_id,
            "status": self.status.value,
            "claim_key_id": self.claim_key_id,
            "info": self.info,
            "address": self.address,
            "link": self.link,
            "decided_by": self.decided_by,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


class Provisioning:
    """Answers devices, and lets operators decide."""

    def __init__(
        self,
        *,
        database: Database,
        claim_keys: ClaimKeys,
        devices: Devices,
        credentials: Credentials,
        presence: Presence,
        audit: Audit,
        clock: Clock,
        ask_about_unknown: bool,
    ) -> None:
        """`ask_about_unknown`: devices without a claim key may wait for an operator, too."""
        self._database = database
        self._claim_keys = claim_keys
        self._devices = devices
        self._credentials = credentials
        self._presence = presence
        self._audit = audit
        self._clock = clock
        self.ask_about_unknown = ask_about_unknown
        self._throttle = Throttle(free=_FREE_FAILURES)

    # ---- devices

    async def ask(self, asked: Asked) -> Given:
        """Let a device in, or put its application down. Asking for what is pending again costs nothing.

        Raises Refused, Invalid, TooManyAttempts (too many refusals for this address), Conflict (try again).
        """
        now = self._clock.monotonic()
        wait_s = self._throttle.wait_s(asked.address, now)
        if wait_s > 0:
            raise TooManyAttempts(wait_s)
        self._throttle.begin(asked.address, now)
        refused = False
        try:
            return await self._ask(asked)
        except Refused as error:
            # One device that asks on in vain must not throttle all that are behind its address.
            refused = error.reason not in _NO_GUESS
            raise
        except Invalid:
            refused = True
            raise
        finally:
            if not refused:
                self._throttle.take_back(asked.address)

    async def may_connect(self, claim_key: str, address: str) -> bool:
        """Whether somebody with this key, "" for none, is worth listening to."""
        if not claim_key:
            return self.ask_about_unknown
        return await self._claim_keys.find(claim_key, address) is not None

    async def _ask(self, asked: Asked) -> Given:
        if not is_device_id(asked.device_id) or asked.device_id == CLAIMANT:
            raise Invalid("id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
        if asked.nonce and not NONCE_LENGTH[0] <= len(asked.nonce) <= NONCE_LENGTH[1]:
            raise Invalid("nonce", f"must have {NONCE_LENGTH[0]} to {NONCE_LENGTH[1]} characters")
        key = None
        if asked.claim_key:
            key = await self._claim_keys.find(asked.claim_key, asked.address)
            if key is None:
                raise Refused("claim_key_invalid", "this claim key is not valid here and now")
        row = await ApplicationRow.get_or_none(device_id=asked.device_id)
        if row is None:
            return await self._first(asked, key)
        if not asked.nonce or not compare_digest(row.nonce, digest_of(asked.nonce)):
            raise Refused("already_asked", "another device has asked for this id")
        match row.status:
            case ApplicationStatus.REJECTED:
                raise Refused("rejected", "an operator has rejected this device")
            case ApplicationStatus.PENDING:
                await ApplicationRow.filter(device_id=row.device_id).update(updated_at=self._clock.utc())
                return Given(device_id=row.device_id, token=None)
            case ApplicationStatus.ACCEPTED:
                return await self._let_in_accepted(asked, row)
            case _:
                return await self._give_again(asked)

    async def _first(self, asked: Asked, key: ClaimKey | None) -> Given:
        if await DeviceRow.exists(id=asked.device_id):
            raise Refused("already_provisioned", "there is a device of this id already")
        parts = asked.device_id.split(":")
        elders = [":".join(parts[:n]) for n in range(1, len(parts))]
        if elders and await DeviceRow.exists(id__in=elders):
            # "pump-7:b" is a client id of pump-7: who took it as an id would shut that device out.
            raise Refused("already_provisioned", "this id belongs to another device")
        if key is None and not self.ask_about_unknown:
            raise Refused("claim_key_invalid", "a claim key is wanted")
        if key is None or key.mode is ClaimMode.APPROVAL:
            return await self._wait(asked, key)
        if key.mode is ClaimMode.LISTED and not await self._claim_keys.expects(key, asked.device_id):
            raise Refused("not_expected", "this id is not on the list of this claim key, or has come already")
        return await self._let_in(asked, key, profile=key.profile, tags=key.tags)

    async def _wait(self, asked: Asked, key: ClaimKey | None) -> Given:
        """Put the application down, for an operator to decide."""
        if not asked.nonce:
            raise Invalid("nonce", "is wanted of a device that waits for approval: a secret of its own making")
        pending = ApplicationRow.filter(status=ApplicationStatus.PENDING)
        if await pending.count() >= PENDING_LIMIT:
            raise Refused("queue_full", f"{PENDING_LIMIT} devices wait already")
        if await pending.filter(address=peer_text(asked.address, ADDRESS)).count() >= PENDING_PER_ADDRESS:
            raise Refused("queue_full", f"{PENDING_PER_ADDRESS} devices of this address wait already")
        row = self._row_for(asked, ApplicationStatus.PENDING, key)
        try:
            await row.save(force_create=True)
        except IntegrityError as error:
            raise Conflict("asked twice at once: try again") from error
        logger.info("%s at %s asks to be let in", asked.device_id, asked.address)
        return Given(device_id=asked.device_id, token=None)

    async def _let_in_accepted(self, asked: Asked, row: ApplicationRow) -> Given:
        key = None
        if row.claim_key_id:
            key_row = await ClaimKeyRow.get_or_none(id=row.claim_key_id)
            key = None if key_row is None else claim_key_view(key_row)
        return await self._let_in(asked, key, profile=row.profile or None, tags=orjson.loads(row.tags), accepted=row)

    async def _let_in(
        self,
        asked: Asked,
        key: ClaimKey | None,
        *,
        profile: str | None,
        tags: Sequence[str],
        accepted: ApplicationRow | None = None,
    ) -> Given:
        """Create the device; the claim key's use and the application's end are in the same transaction."""

        async def claim() -> None:
            if key is not None and not await self._claim_keys.take(key, asked.device_id):
                raise Refused("claim_key_used_up", "this claim key has let in as many devices as it may")
            if accepted is not None:
                news = {"status": ApplicationStatus.PROVISIONED, "version": accepted.version + 1}
                same = ApplicationRow.filter(device_id=asked.device_id, version=accepted.version)
                if not await same.update(**news, updated_at=self._clock.utc()):
                    raise Conflict("asked twice at once: try again")
            elif asked.nonce:
                await self._row_for(asked, ApplicationStatus.PROVISIONED, key).save(force_create=True)

        actor = Actor(kind="device", id=asked.device_id, address=asked.address)
        try:
            device, token = await self._devices.create(
                actor, id=asked.device_id, profile=profile, tags=tags, also=claim
            )
        except AlreadyExists as error:
            raise Refused("already_provisioned", "there is a device of this id already") from error
        logger.info("%s at %s was let in", device.id, asked.address)
        return Given(device_id=device.id, token=token)

    async def _give_again(self, asked: Asked) -> Given:
        """A new token instead of one that was never used: the answer with it was lost."""
        device_id = asked.device_id
        used = Refused("already_provisioned", "this device has been let in, and has been here since")
        if self._presence.heard_at(device_id) is not None or self._presence.is_connected(device_id):
            raise used
        async with self._database.transaction():
            if not await DeviceRow.exists(id=device_id, presence=DeviceStatus.NEVER_SEEN, disabled=False):
                raise used
            valid = CredentialRow.filter(device_id=device_id, revoked_at=None)
            if await valid.exclude(last_used_at=None).exists():
                raise used
            await valid.update(revoked_at=self._clock.utc())
            row, token = await self._credentials.issue(device_id)
            actor = Actor(kind="device", id=device_id, address=asked.address)
            after = {"credential": row.id, "hint": row.hint}
            await self._audit.record(actor, "credential.replace", "device", device_id, None, after)
        self._credentials.forget_device(device_id)
        return Given(device_id=device_id, token=token)

    def _row_for(self, asked: Asked, status: ApplicationStatus, key: ClaimKey | None) -> ApplicationRow:
        now = self._clock.utc()
        return ApplicationRow(
            device_id=asked.device_id,
            status=status,
            nonce=digest_of(asked.nonce),
            claim_key_id="" if key is None else key.id,
            profile="" if key is None else key.profile or "",
            tags=orjson.dumps([] if key is None else key.tags).decode(),
            info=checked_object("info", asked.info, limit_bytes=INFO_LIMIT_BYTES),
            address=peer_text(asked.address, ADDRESS),
            link=asked.link,
            created_at=now,
            updated_at=now,
        )

    # ---- operators

    async def list(self, *, status: str = "", cursor: str | None = None, limit: int = 50) -> Page[Application]:
        """By device id. Raises Invalid."""
        limit = page_limit(limit)
        if status and status not in set(ApplicationStatus):
            raise Invalid("status", f"must be one of {', '.join(ApplicationStatus)}")
        rows = ApplicationRow.filter(status=status) if status else ApplicationRow.all()
        total = await rows.count()
        if cursor is not None:
            rows = rows.filter(device_id__gt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("device_id").limit(limit + 1)
        return Page(
            items=[_view(row) for row in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].device_id) if len(found) > limit else None,
            total=total,
        )

    async def accept(
        self, actor: Actor, device_id: str, *, profile: str | None = None, tags: Sequence[str] | None = None
    ) -> Application:
        """The device gets its token when it asks again. None: as its claim key says. Raises NotFound, Conflict."""
        news: dict[str, Any] = {}
        if profile is not None:
            news["profile"] = checked_text("profile", profile, empty=True)
        if tags is not None:
            news["tags"] = orjson.dumps([checked_text("tags", tag, limit=64) for tag in tags]).decode()
        return await self._decide(actor, device_id, ApplicationStatus.ACCEPTED, news)

    async def reject(self, actor: Actor, device_id: str) -> Application:
        """The device is refused until the application is deleted. Raises NotFound, Conflict."""
        return await self._decide(actor, device_id, ApplicationStatus.REJECTED, {})

    async def delete(self, actor: Actor, device_id: str) -> None:
        """Forget the application: the device may ask anew. Raises NotFound."""
        async with self._database.transaction():
            row = await self._row(device_id)
            await ApplicationRow.filter(device_id=device_id).delete()
            before = {"status": row.status}
            await self._audit.record(actor, "application.delete", "application", device_id, before, None)

    async def pending(self) -> int:
        """How many wait for an operator."""
        return await ApplicationRow.filter(status=ApplicationStatus.PENDING).count()

    async def forget_device(self, device_id: str) -> None:
        """The device was deleted: who has a valid claim key may come in under its id again."""
        await ApplicationRow.filter(device_id=device_id).delete()

    async def prune(self) -> None:
        """For the timers: forget who has given up asking, and who has its token."""
        now = self._clock.utc()
        for status, kept in (
            (ApplicationStatus.PENDING, _PENDING_KEPT),
            (ApplicationStatus.PROVISIONED, _PROVISIONED_KEPT),
        ):
            await ApplicationRow.filter(status=status, updated_at__lt=now - kept).delete()

    async def _decide(
        self, actor: Actor, device_id: str, status: ApplicationStatus, news: dict[str, Any]
    ) -> Application:
        async with self._database.transaction():
            row = await self._row(device_id)
            if row.status == ApplicationStatus.PROVISIONED:
                raise Conflict("the device has been let in already: disable or delete it")
            before = {"status": row.status}
            news = {
                **news,
                "status": status,
                "decided_by": actor.id,
                "version": row.version + 1,
                "updated_at": self._clock.utc(),
            }
            if not await ApplicationRow.filter(device_id=device_id, version=row.version).update(**news):
                raise Conflict("somebody else decided at the same time: look again")
            row.update_from_dict(news)
            await self._audit.record(
                actor,
                f"application.{'accept' if status is ApplicationStatus.ACCEPTED else 'reject'}",
                "application",
                device_id,
                before,
                {"status": status},
            )
        return _view(row)

    async def _row(self, device_id: str) -> ApplicationRow:
        row = await ApplicationRow.get_or_none(device_id=device_id)
        if row is None:
            raise NotFound("application", device_id)
        return row


def _view(row: ApplicationRow) -> Application:
    return Application(
        device_id=row.device_id,
        status=ApplicationStatus(row.status),
        claim_key_id=row.claim_key_id or None,
        info=orjson.loads(row.info),
        address=row.address,
        link=row.link,
        decided_by=row.decided_by or None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

"""Profiles: what payloads mean, and a try without a device."""

import binascii
from base64 import b64decode
from itertools import count

from fleet.clock import rfc3339
from fleet.profiles import StoredProfile
from fleet.views import Role
from gateway.documents import DEFAULT_LIMITS, Undecodable
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.etags import ETAG, IF_MATCH, if_version, put_etag
from web.routes.telemetry import now_ms
from web.schemas.base import Paged
from web.schemas.profiles import (
    DraftTest,
    PayloadTest,
    PayloadTested,
    ProfileCreate,
    ProfileDelete,
    ProfileName,
    ProfilePage,
    ProfileReplace,
    ProfileStored,
    TestedReading,
    TestedRefusal,
    TestedRefused,
)

profiles = Routes("Profiles", "What the payloads of devices mean, said once for all devices that name the profile.")


@profiles.get("/api/v1/profiles", summary="All profiles, by name", role=Role.VIEWER)
async def list_profiles(call: Call, query: Paged) -> ProfilePage:
    page = await call.fleet.profiles.list(cursor=query.cursor, limit=query.limit)
    return ProfilePage(items=[_shape(one) for one in page.items], next_cursor=page.next_cursor, total=page.total)


@profiles.post(
    "/api/v1/profiles",
    summary="Make a profile",
    role=Role.OPERATOR,
    status=201,
    idempotent=True,
    answer_headers=(ETAG,),
)
async def create_profile(call: Call, body: ProfileCreate) -> ProfileStored:
    """In force at once, for the devices that name it."""
    return _answer(call, await call.fleet.profiles.create(call.actor, body))


@profiles.post("/api/v1/profiles:test", summary="Try a draft on a payload", role=Role.OPERATOR)
async def test_draft(call: Call, body: DraftTest) -> PayloadTested:
    """What the draft makes of the payload; nothing is stored."""
    return _tested(Profile(name="draft", **dict(body.profile)), body)


@profiles.get("/api/v1/profiles/{name}", summary="One profile", role=Role.VIEWER, raises=(404,), answer_headers=(ETAG,))
async def get_profile(call: Call, name: ProfileName) -> ProfileStored:
    return _answer(call, await call.fleet.profiles.get(name))


@profiles.add(
    "PUT",
    "/api/v1/profiles/{name}",
    summary="Replace a profile",
    role=Role.OPERATOR,
    raises=(404, 409, 412),
    request_headers=(IF_MATCH,),
    answer_headers=(ETAG,),
)
async def replace_profile(call: Call, name: ProfileName, body: ProfileReplace) -> ProfileStored:
    """Holds from the next message on, for all devices that name it."""
    if body.name not in (None, name):
        raise Problem(422, "name: is another than the address has", errors=[("name", "names do not change")])
    profile = Profile(**{**dict(body), "name": name})
    return _answer(
        call, await call.fleet.profiles.replace(call.actor, profile, if_version=if_version(call, "a profile"))
    )


@profiles.delete(
    "/api/v1/profiles/{name}",
    summary="Delete a profile",
    role=Role.OPERATOR,
    raises=(404, 409, 412),
    request_headers=(IF_MATCH,),
)
async def delete_profile(call: Call, name: ProfileName, query: ProfileDelete) -> None:
    """409 while devices name it, unless forced; then their messages mean what they say."""
    await call.fleet.profiles.delete(call.actor, name, if_version=if_version(call, "a profile"), force=query.force)


@profiles.post(
    "/api/v1/profiles/{name}/test", summary="Try a profile on a payload", role=Role.OPERATOR, raises=(404, 409)
)
async def test_profile(call: Call, name: ProfileName, body: PayloadTest) -> PayloadTested:
    """What the profile makes of the payload; nothing is stored."""
    stored = await call.fleet.profiles.get(name)
    if not stored.is_readable:
        raise Problem(409, "a newer server wrote this profile: try it there")
    return _tested(stored.profile, body)


def _answer(call: Call, stored: StoredProfile) -> ProfileStored:
    put_etag(call, stored.version)
    return _shape(stored)


def _shape(stored: StoredProfile) -> ProfileStored:
    return ProfileStored(
        **dict(stored.profile),
        devices=stored.devices,
        version=stored.version,
        created_at=rfc3339(stored.created_at),
        updated_at=rfc3339(stored.updated_at),
        readable=stored.is_readable,
    )


def _tested(profile: Profile, test: PayloadTest) -> PayloadTested:
    compiled = CompiledProfile(profile)
    at_ms = now_ms()
    try:
        readings, unfit = compiled.read(
            test.channel,
            test.content_type,
            _payload(test),
            device_id="draft",
            now_ms=at_ms,
            limits=DEFAULT_LIMITS,
            stamp=count(at_ms).__next__,
        )
    except Undecodable as error:
        refusal = TestedRefusal(reason=error.reason.value, detail=error.detail)
        return PayloadTested(readings=[], refused=[], refusal=refusal)
    return PayloadTested(
        readings=[
            TestedReading(metric=one.metric, ts=one.ts_ms, value=one.value, unit=compiled.units.get(one.metric))
            for one in readings
        ],
        refused=[TestedRefused(metric=one.metric, reason=reason.value, detail=detail) for one, reason, detail in unfit],
        refusal=None,
    )


def _payload(test: PayloadTest) -> bytes:
    if test.encoding == "text":
        return test.payload.encode()
    try:
        return b64decode("".join(test.payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(422, "payload: is not base64", errors=[("payload", "is not base64")]) from error

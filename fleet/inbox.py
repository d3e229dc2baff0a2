"""Control messages from devices: reports, replies, requests and events, each handed to the service it is for.

Handlers are quick and idempotent, since QoS 1 delivers again whatever was not seen to be acknowledged. An outcome is
given after the commit; what cannot be read is refused with a reason, and our own failures ask for another try.
"""

import hashlib
import logging
from collections import Counter
from typing import Any

import orjson

from broker.reason import ReasonCode
from fleet.claimants import Claimants
from fleet.commands import Commands
from fleet.database import trouble
from fleet.directory import Directory
from fleet.downloads import Downloads
from fleet.errors import Conflict, Invalid, NotFound
from fleet.jobs import Jobs
from fleet.limits import checked_json, peer_text
from fleet.presence import Presence
from fleet.timeline import Timeline
from fleet.twins import Twins
from fleet.views import Level, TimelineKind
from gateway.channels import (
    EVENTS,
    OTA_CHUNK_GET,
    OTA_STATUS,
    PROVISION,
    TWIN_CHANNELS,
    TWIN_GET,
    TWIN_REPORTED,
    command_of,
)
from gateway.link import REPLAY, TAKEN, Outcome, Uplink
from gateway.refusals import (
    Refusal,
    busy,
    internal_error,
    quarantined,
    refuse,
    store_full,
    unknown_channel,
    unknown_device,
)

logger = logging.getLogger(__name__)

PAYLOAD_LIMIT_BYTES = 64 * 1024
EVENT_DATA_LIMIT_BYTES = 8 * 1024
_BUSY_RETRY_S = 2.0
_TROUBLE_RETRY_S = 5.0

_LEVELS = {
    "debug": Level.INFO,
    "info": Level.INFO,
    "notice": Level.INFO,
    "warn": Level.WARNING,
    "warning": Level.WARNING,
    "error": Level.ERROR,
    "critical": Level.ERROR,
    "fatal": Level.ERROR,
}


class Inbox:
    """Implements gateway.Control."""

    def __init__(
        self,
        *,
        directory: Directory,
        presence: Presence,
        twins: Twins,
        commands: Commands,
        jobs: Jobs,
        downloads: Downloads,
        timeline: Timeline,
        claimants: Claimants,
    ) -> None:
        self._directory = directory
        self._presence = presence
        self._twins = twins
        self._commands = commands
        self._jobs = jobs
        self._downloads = downloads
        self._timeline = timeline
        self._claimants = claimants
        self.refusals: Counter[str] = Counter()
        """Messages refused, by reason; the reasons are a fixed set of slugs."""

    async def handle(self, uplink: Uplink) -> Outcome:
        """One control message; its outcome, after its commit."""
        if uplink.channel == PROVISION:
            return await self._claimants.handle(uplink)
        if not self._directory.is_active(uplink.device_id):
            return unknown_device(uplink.device_id)
        if self._directory.is_quarantined(uplink.device_id) and uplink.channel not in TWIN_CHANNELS:
            return quarantined(uplink.device_id)
        if uplink.link != REPLAY:
            self._presence.heard(uplink.device_id)
        try:
            return await self._handle(uplink)
        except Invalid as error:
            return refuse(Refusal.UNSUPPORTED_VALUE, str(error))
        except NotFound as error:
            if error.kind == "device":
                return unknown_device(uplink.device_id)
            return Outcome(
                code=ReasonCode.PAYLOAD_FORMAT_INVALID, reason=f"unknown_{error.kind}", detail=peer_text(error, 200)
            )
        except Conflict as error:
            return Outcome(
                code=ReasonCode.SERVER_BUSY, reason="conflict", detail=str(error), retry_after_s=_BUSY_RETRY_S
            )
        except Exception as error:
            if (why := trouble(error)) is not None:
                logger.debug("%s: %s waits: %s", uplink.device_id, uplink.channel, why)
                return store_full(_TROUBLE_RETRY_S, str(why)) if why.full else busy(_TROUBLE_RETRY_S, str(why))
            logger.exception("%s: %s could not be handled", uplink.device_id, uplink.channel)
            return internal_error()

    def connected(self, device_id: str, link: str, address: str) -> None:
        self._presence.connected(device_id, link, address)

    def disconnected(self, device_id: str, link: str, reason: str) -> None:
        self._presence.disconnected(device_id, link, reason)

    def refused(self, uplink: Uplink, outcome: Outcome) -> None:
        """A message was refused, here or on the telemetry lane: count it."""
        self.refusals[outcome.reason] += 1

    async def _handle(self, uplink: Uplink) -> Outcome:
        device_id, channel = uplink.device_id, uplink.channel
        if channel == TWIN_GET:
            await self._twins.send_whole(device_id)
            return TAKEN
        if len(uplink.payload) > PAYLOAD_LIMIT_BYTES:
            return refuse(Refusal.TOO_LARGE, f"the limit is {PAYLOAD_LIMIT_BYTES} bytes")
        try:
            message = orjson.loads(uplink.payload)
        except orjson.JSONDecodeError as error:
            return refuse(Refusal.INVALID_JSON, str(error))
        if not isinstance(message, dict):
            return refuse(Refusal.UNSUPPORTED_VALUE, "a JSON object is wanted")
        command_id = command_of(channel)
        if command_id is not None:
            await self._commands.reply(device_id, command_id, message)
        elif channel == TWIN_REPORTED:
            twin = await self._twins.report(device_id, message)
            return Outcome(data={"version": twin.version})
        elif channel == OTA_STATUS:
            await self._jobs.report(device_id, message)
        elif channel == OTA_CHUNK_GET:
            await self._downloads.send_chunk(device_id, message)
        elif channel == EVENTS:
            await self._event(uplink, message)
        else:
            return unknown_channel(channel)
        return TAKEN

    async def _event(self, uplink: Uplink, message: dict[str, Any]) -> None:
        """An entry of the device's own log."""
        text, ts = message.get("message"), message.get("ts")
        if not isinstance(text, str) or not text.strip():
            raise Invalid("message", "must be text")
        if ts is not None and (isinstance(ts, bool) or not isinstance(ts, int | float)):
            raise Invalid("ts", "must be a time in ms")
        level = message.get("level", "info")
        if not isinstance(level, str) or level.lower() not in _LEVELS:
            raise Invalid("level", f"must be one of {', '.join(_LEVELS)}")
        data = message.get("data")
        checked_json("data", data, limit_bytes=EVENT_DATA_LIMIT_BYTES)
        # One that has a time is the same one when it comes again, however much later.
        digest = hashlib.sha256(f"{uplink.device_id}\0".encode() + uplink.payload).hexdigest()[:32]
        details = {"ts": ts, "data": data}
        await self._timeline.record(
            uplink.device_id,
            TimelineKind.EVENT,
            text,
            level=_LEVELS[level.lower()],
            data={key: value for key, value in details.items() if value is not None},
            identity=None if ts is None else digest,
        )

"""Commands: orders to one device, each with one end.

The row is the outbox. A command is marked `sent`, with one attempt more, before it is handed to the gateway, and
marked back when nobody took it: after a crash in between it goes out again and says that it is the second attempt.
While the device is connected and does not answer it is sent again with back-off, and once more at each reconnect.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from tortoise.exceptions import IntegrityError
from tortoise.expressions import Q

from fleet.actor import Actor
from fleet.audit import Audit
from fleet.clock import Clock, unix_ms
from fleet.command_queue import CommandQueue
from fleet.database import Database
from fleet.errors import Conflict, Invalid, NotFound
from fleet.ids import new_id
from fleet.limits import PARAMS_LIMIT_BYTES, checked_json, checked_progress, checked_text, peer_text
from fleet.machines.command import COMMAND, COMMAND_UNFINISHED, CommandEffect, CommandEvent, CommandState
from fleet.machines.machine import Answer
from fleet.models import CommandRow, DeviceRow
from fleet.outbox import Greeting
from fleet.page import Page, decode_cursor, encode_cursor, page_limit
from fleet.ports import Sender
from fleet.presence import Presence
from fleet.profiles import Profiles
from fleet.timeline import Timeline
from fleet.views import Command, Level, TimelineKind
from gateway.bus import Bus, Event
from gateway.channels import COMMANDS
from gateway.profiles.commands import NO_RULE, TTL_LIMIT_S, CommandRule, Delivery, UnfitCommand

logger = logging.getLogger(__name__)

_TTL_S = 3600  # of a command of which neither its sender nor a profile says anything
_TRIES = 10  # compare-and-swap losers; each loss means that somebody else got on
_RESEND_FIRST_S = 10.0
_RESEND_CAP_S = 300.0
_TURN = 500  # rows a timer's turn

_REPLIES = {
    "accepted": CommandEvent.ACCEPT,
    "running": CommandEvent.RUN,
    "succeeded": CommandEvent.SUCCEED,
    "failed": CommandEvent.FAIL,
    "rejected": CommandEvent.REJECT,
}
_LEVELS = {
    CommandState.FAILED: Level.ERROR,
    CommandState.REJECTED: Level.WARNING,
    CommandState.EXPIRED: Level.WARNING,
}


def resend_delay_s(attempts: int) -> float:
    """Seconds to wait for an answer to attempt number `attempts` (1 = the first) before the next one."""
    return float(min(_RESEND_CAP_S, _RESEND_FIRST_S * 2.0 ** min(attempts - 1, 10)))


class Commands:
    """Create, follow and cancel commands; the Outbox's part that sends them."""

    def __init__(
        self,
        *,
        database: Database,
        presence: Presence,
        sender: Sender,
        audit: Audit,
        timeline: Timeline,
        bus: Bus,
        clock: Clock,
        profiles: Profiles,
        pending_limit: int,
    ) -> None:
        self._database = database
        self._presence = presence
        self._sender = sender
        self._audit = audit
        self._timeline = timeline
        self._bus = bus
        self._clock = clock
        self._profiles = profiles
        self._pending_limit = pending_limit
        self._queue = CommandQueue(presence)
        self._sequence = asyncio.Lock()
        self.nudge: Callable[..., None] = lambda device_id, *owed: None
        """Tells the outbox that a device is owed something."""

    async def create(
        self,
        actor: Actor,
        device_id: str,
        name: str,
        params: Any = None,
        ttl_s: float | None = None,
        delivery: Delivery | None = None,
        also: Callable[[str], Awaitable[None]] | None = None,
    ) -> Command:
        """Queue a command and, if the device is there, send it; what is None is as the device's profile says.

        `also` is called with the command's id in the transaction that makes it, and may undo it by raising.
        Raises NotFound, Invalid (also: not as the profile has it), Conflict (the device is disabled, or has too many
        unfinished commands).
        """
        name = checked_text("name", name)
        params = {} if params is None else params
        text = checked_json("params", params, limit_bytes=PARAMS_LIMIT_BYTES)
        rule = self._checked_rule(device_id, name, params)
        if ttl_s is None:
            ttl_s = rule.ttl_s or _TTL_S
        if not 1 <= ttl_s <= TTL_LIMIT_S:
            raise Invalid("ttl", f"must be from 1 to {TTL_LIMIT_S} seconds")
        now = self._clock.utc()
        row = CommandRow(
            id=new_id(),
            device_id=device_id,
            name=name,
            params=text,
            sequential=(delivery or rule.delivery) is Delivery.SEQUENTIAL,
            timeout_s=rule.timeout_s,
            status=COMMAND.initial,
            created_by=actor.id,
            created_at=now,
            updated_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
        )
        try:
            async with self._database.transaction():
                device = await DeviceRow.get_or_none(id=device_id)
                if device is None:
                    raise NotFound("device", device_id)
                if device.disabled:
                    raise Conflict("the device is disabled")
                pending = await CommandRow.filter(device_id=device_id, status__in=COMMAND_UNFINISHED).count()
                if pending >= self._pending_limit:
                    raise Conflict(f"{pending} commands of this device are unfinished: cancel some or wait")
                await row.save(force_create=True)
                await self._audit.record(
                    actor, "command.create", "command", row.id, None, {"device": device_id, "name": name}
                )
                if also is not None:
                    await also(row.id)
        except IntegrityError as error:
            raise NotFound("device", device_id) from error
        self._tell(row, f"{name}: {actor.id} asked for it")
        if self._presence.is_connected(device_id) and not await self._send(row):
            self.nudge(device_id)
        return await self._view(row)

    async def get(self, id: str) -> Command:  # noqa: A002
        """Raises NotFound."""
        return await self._view(await self._row(id))

    async def list(
        self,
        device_id: str | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        status: str = "",
        with_total: bool = True,
    ) -> Page[Command]:
        """Newest first; those of all devices when `device_id` is None."""
        limit = page_limit(limit)
        if status and status not in set(CommandState):
            raise Invalid("status", f"must be one of {', '.join(CommandState)}")
        rows = CommandRow.all()
        if device_id is not None:
            rows = rows.filter(device_id=device_id)
        if status:
            rows = rows.filter(status=status)
        total = await rows.count() if with_total else None
        if cursor is not None:
            rows = rows.filter(id__lt=decode_cursor(cursor, str)[0])
        found = await rows.order_by("-id").limit(limit + 1)
        return Page(
            items=await self._queue.views(found[:limit]),
            next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None,
            total=total,
        )

    async def cancel(self, actor: Actor, id: str) -> Command:  # noqa: A002
        """Give it up; a device that has it already may still carry it out. Raises NotFound, Conflict (it has ended)."""
        for _ in range(_TRIES):
            row = await self._row(id)
            before = row.status
            async with self._database.transaction():
                answer = await self._step(row, CommandEvent.CANCEL)
                if answer is None:
                    continue
                if answer is Answer.ILLEGAL:
                    raise Conflict(f"the command is {row.status} already")
                if answer is Answer.IGNORED:
                    return await self._view(row)
                await self._audit.record(
                    actor, "command.cancel", "command", id, {"status": before}, {"status": row.status}
                )
            self._tell(row, f"{row.name}: cancelled by {actor.id}")
            return await self._view(row)
        raise Conflict("too many changes at once: try again")

    async def pending(self) -> int:
        """How many are unfinished."""
        return await CommandRow.filter(status__in=COMMAND_UNFINISHED).count()

    async def reply(self, device_id: str, id: str, report: dict[str, Any]) -> None:  # noqa: A002
        """Take over what the device says of a command. Raises NotFound, Invalid; late ones are no error."""
        status = report.get("status")
        event = _REPLIES.get(status) if isinstance(status, str) else None
        if event is None:
            raise Invalid("status", f"must be one of {', '.join(_REPLIES)}")
        progress = checked_progress(report.get("progress"))
        result = checked_json("result", report.get("result"), limit_bytes=PARAMS_LIMIT_BYTES)
        for _ in range(_TRIES):
            row = await CommandRow.get_or_none(id=id, device_id=device_id)
            if row is None:
                raise NotFound("command", id)
            changes: dict[str, Any] = {}
            if progress is not None and progress > (row.progress or 0):
                changes["progress"] = progress
            elif event is CommandEvent.RUN and row.status == CommandState.RUNNING:
                return  # nothing new
            if event in (CommandEvent.SUCCEED, CommandEvent.FAIL, CommandEvent.REJECT):
                changes["result"] = result
                changes["error"] = peer_text(report.get("error"))
            if event is CommandEvent.SUCCEED:
                changes["progress"] = 100
            before = row.status
            answer = await self._step(row, event, **changes)
            if answer is None:
                continue
            if answer is Answer.MOVED:
                detail = f": {row.error}" if row.error else ""
                self._tell(row, f"{row.name}: {row.status}{detail}" if row.status != before else "")
            elif row.status in COMMAND.final and row.status != status:
                await self._record_late(row, str(status), result)
            return
        raise Conflict("too many changes at once: try again")

    async def serve(self, greetings: Sequence[Greeting]) -> None:
        """For the outbox: send what is queued, and at a reconnect everything unfinished once more."""
        due = {greeting.device_id: greeting for greeting in greetings}
        rows = await CommandRow.filter(device_id__in=list(due), status__in=COMMAND_UNFINISHED).order_by("id")
        for row in rows:
            greeting = due[row.device_id]
            wanted = greeting.again or row.status == CommandState.QUEUED or row.id in greeting.owed
            if wanted and not await self._send(row):
                greeting.left.add(row.id)

    async def expire(self) -> None:
        """For the timers: end what has run out of time."""
        now = self._clock.utc()
        over = Q(expires_at__lte=now) | Q(answer_by__lte=now)
        for row in await CommandRow.filter(over, status__in=COMMAND_UNFINISHED).limit(_TURN):
            if await self._step(row, CommandEvent.EXPIRE) is Answer.MOVED:
                self._tell(row, f"{row.name}: expired after {row.attempts} attempts")

    async def resend(self) -> None:
        """For the timers: once more to connected devices that have not answered."""
        now = self._clock.utc()
        for row in await CommandRow.filter(next_send_at__lte=now, expires_at__gt=now).order_by("id").limit(_TURN):
            if not self._presence.is_connected(row.device_id):
                # It is sent when the device is back.
                await CommandRow.filter(id=row.id, version=row.version).update(next_send_at=None)
            elif not await self._send(row):
                self.nudge(row.device_id, row.id)

    async def _send(self, row: CommandRow) -> bool:
        """Hand it to the gateway, after the row says so; True when there is nothing left to do for it now."""
        if not row.sequential:
            return await self._send_now(row)
        async with self._sequence:  # between asking whether it is its turn and writing that it is
            # One that waits is nobody's debt: the end of the one before it has it sent.
            return await self._queue.is_held_back(row) or await self._send_now(row)

    async def _send_now(self, row: CommandRow) -> bool:
        now = self._clock.utc()
        if row.expires_at <= now or (row.answer_by is not None and row.answer_by <= now):
            return True
        if await self._step(row, CommandEvent.SEND) is not Answer.MOVED:
            return True  # ended, or somebody else is at it
        message: dict[str, Any] = {
            "name": row.name,
            "params": orjson.loads(row.params),
            "expires_at": unix_ms(row.expires_at),
        }
        if row.attempts > 1:
            message["attempt"] = row.attempts
        if await self._sender.send(row.device_id, f"{COMMANDS}/{row.id}", orjson.dumps(message)):
            self._tell(row, f"{row.name}: sent" if row.attempts == 1 else f"{row.name}: sent again")
            return True
        for _ in range(_TRIES):
            if await self._step(row, CommandEvent.UNSEND) is not None:
                return row.status in COMMAND.final
            row = await self._row(row.id)
        return False

    async def _step(self, row: CommandRow, event: CommandEvent, **changes: Any) -> Answer | None:
        """One step, written by compare-and-swap; `row` is then as written. None: somebody was faster, read it again."""
        step = COMMAND.step(CommandState(row.status), event)
        if not step.moved:
            return step.answer
        now = self._clock.utc()
        news: dict[str, Any] = {**changes, "status": step.state, "updated_at": now, "version": row.version + 1}
        for effect in step.effects:
            news |= _effect(row, effect, now)
        if not await CommandRow.filter(id=row.id, version=row.version).update(**news):
            return None
        row.update_from_dict(news)
        if row.sequential and step.state in COMMAND.final:
            self.nudge(row.device_id)  # the next one's turn
        return step.answer

    def _checked_rule(self, device_id: str, name: str, params: Any) -> CommandRule:
        profile = self._profiles.of(device_id)
        if profile is None:
            return NO_RULE
        try:
            profile.commands.check(name, params)
        except UnfitCommand as error:
            raise Invalid(error.field, error.detail) from error
        return profile.commands.rule_of(name)

    async def _view(self, row: CommandRow) -> Command:
        [view] = await self._queue.views([row])
        return view

    async def _record_late(self, row: CommandRow, status: str, result: str) -> None:
        """The answer to a command that has ended: kept once, for people to see, and not applied."""
        if await CommandRow.filter(id=row.id, late="").update(late=status):
            summary = f"{row.name}: answered {status} after it was {row.status}"
            data = {"command": row.id, "status": status, "result": orjson.loads(result)}
            self._timeline.note(row.device_id, TimelineKind.COMMAND, summary, level=Level.WARNING, data=data)

    async def _row(self, id: str) -> CommandRow:  # noqa: A002
        row = await CommandRow.get_or_none(id=id)
        if row is None:
            raise NotFound("command", id)
        return row

    def _tell(self, row: CommandRow, summary: str) -> None:
        """After a commit: the live views, and the timeline when there is something to say."""
        if self._bus.watched("commands"):
            self._bus.publish(Event(channel="commands", device_id=row.device_id, data=self._queue.view(row).json()))
        if summary:
            level = _LEVELS.get(CommandState(row.status), Level.INFO)
            data = {"command": row.id, "name": row.name, "status": str(row.status)}
            self._timeline.note(row.device_id, TimelineKind.COMMAND, summary, level=level, data=data)


def _effect(row: CommandRow, effect: CommandEffect, now: datetime) -> dict[str, Any]:
    """What an effect writes."""
    match effect:
        case CommandEffect.COUNT_ATTEMPT:
            attempts = row.attempts + 1
            waits = row.status in (CommandState.QUEUED, CommandState.SENT)
            times_out = row.timeout_s is not None and row.sent_at is None
            return {
                "attempts": attempts,
                "sent_at": row.sent_at or now,
                "answer_by": now + timedelta(seconds=row.timeout_s or 0) if times_out else row.answer_by,
                "next_send_at": now + timedelta(seconds=resend_delay_s(attempts)) if waits else None,
            }
        case CommandEffect.FORGET_ATTEMPT:
            return {
                "attempts": row.attempts - 1,
                "sent_at": row.sent_at if row.attempts > 1 else None,
                "answer_by": row.answer_by if row.attempts > 1 else None,
                "next_send_at": None,
            }
        case CommandEffect.STOP_SENDING:
            return {"next_send_at": None}
        case CommandEffect.FINISH:
            return {"finished_at": now}

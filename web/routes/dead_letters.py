"""Refused messages of the whole fleet: find them, look at one, forget them, try them again."""

from datetime import UTC, datetime
from typing import Any

from fleet.clock import rfc3339
from fleet.views import Role
from gateway.letters import DeadLetter as Letter
from gateway.letters import LetterFilter
from gateway.replays import Replay as Job
from gateway.replays import ReplayRunning
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.schemas.base import Id
from web.schemas.dead_letters import (
    DeadLetter,
    DeadLetterPage,
    Deleted,
    LetterChoice,
    LetterId,
    LetterQuery,
    Replay,
    ReplayCreate,
)

dead_letters = Routes("Dead letters", "Messages that were refused, with the reason; bounded in number, bytes and age.")


@dead_letters.get("/api/v1/dead-letters", summary="Find refused messages, newest first", role=Role.VIEWER)
async def find_dead_letters(call: Call, query: LetterQuery) -> DeadLetterPage:
    letters, which = call.gateway.dead_letters, _filter(query)
    reasons = await letters.counts(which)
    found = await letters.find(which, limit=query.limit + 1, before=int(query.cursor) if query.cursor else None)
    items = [_shape(letter) for letter in found[: query.limit]]
    next_cursor = str(items[-1].id) if len(found) > query.limit else None
    return DeadLetterPage(items=items, next_cursor=next_cursor, total=sum(reasons.values()), reasons=reasons)


@dead_letters.get("/api/v1/dead-letters/{id}", summary="One of them, whole", role=Role.VIEWER, raises=(404,))
async def get_dead_letter(call: Call, letter_id: LetterId) -> DeadLetter:
    found = await call.gateway.dead_letters.get(letter_id)
    if found is None:
        raise Problem(404, f"there is no dead letter {letter_id}")
    return _shape(found)


@dead_letters.delete("/api/v1/dead-letters/{id}", summary="Forget one", role=Role.OPERATOR, raises=(404,))
async def delete_dead_letter(call: Call, letter_id: LetterId) -> None:
    if not await call.gateway.dead_letters.delete(LetterFilter(ids=(letter_id,))):
        raise Problem(404, f"there is no dead letter {letter_id}")
    await call.fleet.audit.record(call.actor, "dead_letter.delete", "dead_letter", str(letter_id))


@dead_letters.delete("/api/v1/dead-letters", summary="Forget some", role=Role.OPERATOR)
async def delete_dead_letters(call: Call, query: LetterChoice) -> Deleted:
    """At least one condition is wanted; `until` with the time of now means all of them."""
    if query.is_empty:
        raise Problem(422, "say which: device, reason, since or until")
    deleted = await call.gateway.dead_letters.delete(_filter(query))
    await call.fleet.audit.record(
        call.actor, "dead_letter.delete", "dead_letter", "", before={**_chosen(query), "deleted": deleted}
    )
    return Deleted(deleted=deleted)


@dead_letters.post(
    "/api/v1/dead-letters:replay", summary="Try some again", role=Role.OPERATOR, status=202, raises=(409,)
)
async def replay_dead_letters(call: Call, body: ReplayCreate) -> Replay:
    """Each goes its way once more as if it came now; readings without a time of their own get that of the letter.

    What is taken is no dead letter any more, what is refused again stays. One replay runs at a time: 409.
    """
    which = LetterFilter(ids=tuple(body.ids)) if body.ids is not None else _filter(body.filter or LetterChoice())
    try:
        job = await call.gateway.replays.start(which)
    except ReplayRunning as error:
        raise Problem(409, "a replay is running; wait for its end") from error
    chosen: dict[str, Any] = {"ids": len(body.ids)} if body.ids is not None else _chosen(body.filter or LetterChoice())
    await call.fleet.audit.record(
        call.actor, "dead_letter.replay", "replay", job.id, after={**chosen, "total": job.total}
    )
    return _replay(job)


@dead_letters.get("/api/v1/dead-letters/replays/{id}", summary="How a replay does", role=Role.VIEWER, raises=(404,))
async def get_replay(call: Call, replay_id: Id) -> Replay:
    """The newest 20 since the start of the server are known."""
    job = call.gateway.replays.get(replay_id)
    if job is None:
        raise Problem(404, f"there is no replay {replay_id}")
    return _replay(job)


def _filter(choice: LetterChoice) -> LetterFilter:
    return LetterFilter(
        device_id=choice.device,
        reason=choice.reason,
        since_ms=None if choice.since is None else _ms(choice.since),
        until_ms=None if choice.until is None else _ms(choice.until),
    )


def _chosen(choice: LetterChoice) -> dict[str, Any]:
    """A filter as the audit keeps it."""
    return choice.model_dump(mode="json", exclude_none=True, include=set(LetterChoice.model_fields))


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _shape(letter: Letter) -> DeadLetter:
    return DeadLetter(
        id=letter.id,
        device=letter.device_id,
        received_at=rfc3339(datetime.fromtimestamp(letter.at_ms / 1000, UTC)),
        channel=letter.channel,
        reason=letter.reason,
        detail=letter.detail,
        payload=letter.payload,
        encoding=letter.encoding,
        size=letter.size,
        content_type=letter.content_type,
        link=letter.link,
        replays=letter.replays,
        replayable=not letter.cut,
    )


def _replay(job: Job) -> Replay:
    return Replay(
        id=job.id,
        state=job.state,
        total=job.total,
        taken=job.taken,
        refused=job.refused,
        skipped=job.skipped,
        detail=job.detail,
    )

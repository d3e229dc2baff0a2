"""A campaign's life: what its operator does to it, and the end of its last job. No I/O, no clock."""

from enum import StrEnum

from fleet.machines.machine import Machine


class CampaignState(StrEnum):
    DRAFT = "draft"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


class CampaignEvent(StrEnum):
    START = "start"
    SETTLE = "settle"
    """The last unfinished job ended."""
    ABORT = "abort"
    RETRY = "retry"


class CampaignEffect(StrEnum):
    STAMP_START = "stamp start"
    STAMP_FINISH = "stamp finish"
    CLEAR_FINISH = "clear finish"
    QUEUE_JOBS = "queue jobs"
    CANCEL_JOBS = "cancel jobs"
    RETRY_JOBS = "retry jobs"


_S, _E, _F = CampaignState, CampaignEvent, CampaignEffect

CAMPAIGN = Machine(
    name="campaign",
    initial=_S.DRAFT,
    final=frozenset({_S.ABORTED}),
    table={
        (_S.DRAFT, _E.START): (_S.RUNNING, (_F.STAMP_START, _F.QUEUE_JOBS)),
        (_S.DRAFT, _E.ABORT): (_S.ABORTED, (_F.CANCEL_JOBS, _F.STAMP_FINISH)),
        (_S.RUNNING, _E.ABORT): (_S.ABORTED, (_F.CANCEL_JOBS, _F.STAMP_FINISH)),
        (_S.RUNNING, _E.SETTLE): (_S.FINISHED, (_F.STAMP_FINISH,)),
        (_S.RUNNING, _E.RETRY): (_S.RUNNING, (_F.RETRY_JOBS,)),
        (_S.FINISHED, _E.RETRY): (_S.RUNNING, (_F.RETRY_JOBS, _F.CLEAR_FINISH)),
    },
)

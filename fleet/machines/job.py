"""The life of one device's firmware update: a job of a campaign. No I/O, no clock.

Promise: an update always ends. Every unfinished state has a deadline; success is never claimed, only seen, as the
device reporting exactly the version it should run.
"""

from enum import StrEnum

from fleet.machines.machine import IGNORED, Ignored, Machine


class JobState(StrEnum):
    QUEUED = "queued"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    """The server's doing (offer, unoffer, time out, cancel, retry), the device's reports, and its version as seen."""

    OFFER = "offer"
    UNOFFER = "unoffer"
    DOWNLOAD = "download"
    VERIFY = "verify"
    INSTALL = "install"
    REBOOT = "reboot"
    CONFIRM = "confirm"
    """The device reports the wanted version."""
    MISMATCH = "mismatch"
    """The device is back from its reboot with another version."""
    FAIL = "fail"
    REJECT = "reject"
    TIME_OUT = "time out"
    CANCEL = "cancel"
    RETRY = "retry"


class JobEffect(StrEnum):
    """What the row's writer does besides storing the new state."""

    ARM_DEADLINE = "arm deadline"
    """Give the new step its time; an offer repeated after nobody took it keeps the time of the first one."""
    DISARM_DEADLINE = "disarm deadline"
    PLAN_OFFER = "plan offer"
    """Offer again after a back-off, until the device reports something."""
    STOP_OFFERING = "stop offering"
    FREE_DEVICE = "free device"
    """The device may be offered another job."""
    COUNT_ATTEMPT = "count attempt"
    """A new try, with a wire id of its own, so that late reports of the last try miss it."""
    FINISH = "finish"
    """Stamp the end."""


JOB_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.REJECTED, JobState.CANCELLED})
JOB_UNFINISHED = frozenset(JobState) - JOB_FINAL
JOB_ACTIVE = JOB_UNFINISHED - {JobState.QUEUED}
"""The device has the offer: it may fetch the artifact, and no other job of its is offered."""
JOB_RETRIABLE = frozenset({JobState.FAILED, JobState.TIMED_OUT, JobState.REJECTED})

_S, _E, _F = JobState, JobEvent, JobEffect
# The order of the steps. A device may leave steps out and may go ahead, never back: an update that begins anew after
# a power cut reports `downloading` while it was `installing`; it has its deadline, and the report is a late one.
_STEPS = (_S.OFFERED, _S.DOWNLOADING, _S.VERIFYING, _S.INSTALLING, _S.REBOOTING)
_REPORTS = {
    _E.DOWNLOAD: _S.DOWNLOADING,
    _E.VERIFY: _S.VERIFYING,
    _E.INSTALL: _S.INSTALLING,
    _E.REBOOT: _S.REBOOTING,
}
_ENDS = {
    _E.CONFIRM: _S.SUCCEEDED,
    _E.FAIL: _S.FAILED,
    _E.REJECT: _S.REJECTED,
    _E.TIME_OUT: _S.TIMED_OUT,
    _E.CANCEL: _S.CANCELLED,
}
_END_EFFECTS = (_F.DISARM_DEADLINE, _F.STOP_OFFERING, _F.FREE_DEVICE, _F.FINISH)


_Table = dict[tuple[JobState, JobEvent], tuple[JobState, tuple[JobEffect, ...]] | Ignored]


def _table() -> _Table:
    table: _Table = {
        (_S.QUEUED, _E.OFFER): (_S.OFFERED, (_F.ARM_DEADLINE, _F.PLAN_OFFER)),
        (_S.OFFERED, _E.OFFER): (_S.OFFERED, (_F.PLAN_OFFER,)),  # again: the deadline stays that of the first
        (_S.OFFERED, _E.UNOFFER): (_S.QUEUED, (_F.STOP_OFFERING, _F.FREE_DEVICE)),
        (_S.QUEUED, _E.UNOFFER): IGNORED,
        # It runs the wanted version already.
        (_S.QUEUED, _E.CONFIRM): (_S.SUCCEEDED, _END_EFFECTS),
        (_S.QUEUED, _E.TIME_OUT): (_S.TIMED_OUT, _END_EFFECTS),
        (_S.QUEUED, _E.CANCEL): (_S.CANCELLED, _END_EFFECTS),
        (_S.QUEUED, _E.MISMATCH): IGNORED,
        # Nothing was offered: whatever it reports belongs to an earlier try.
        (_S.QUEUED, _E.FAIL): IGNORED,
        (_S.QUEUED, _E.REJECT): IGNORED,
    }
    for event in _REPORTS:
        table[_S.QUEUED, event] = IGNORED
    for position, state in enumerate(_STEPS):
        for event, step in _REPORTS.items():
            ahead = _STEPS.index(step) > position
            table[state, event] = (step, (_F.ARM_DEADLINE, _F.STOP_OFFERING)) if ahead else IGNORED
        for event, end in _ENDS.items():
            table[state, event] = (end, _END_EFFECTS)
        table[state, _E.MISMATCH] = IGNORED  # the old version, before it had to change
        if state is not _S.OFFERED:
            # It had the offer a while ago and asks again: answering changes nothing here.
            table[state, _E.OFFER] = IGNORED
            table[state, _E.UNOFFER] = IGNORED
    table[_S.REBOOTING, _E.MISMATCH] = (_S.FAILED, _END_EFFECTS)
    for state in JOB_FINAL:
        for event in _E:
            table[state, event] = IGNORED
        del table[state, _E.RETRY]
        if state is not _S.CANCELLED:
            del table[state, _E.CANCEL]
    for state in JOB_RETRIABLE:
        table[state, _E.RETRY] = (_S.QUEUED, (_F.COUNT_ATTEMPT, _F.ARM_DEADLINE))
    return table


JOB = Machine(name="job", initial=JobState.QUEUED, final=JOB_FINAL, table=_table())

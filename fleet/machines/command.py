"""A command's life. No I/O, no clock.

Promise: only the device's own reply moves a command past `sent`; a silent device's command ends in `expired`; and a
final state is final, whatever comes late.
"""

from enum import StrEnum

from fleet.machines.machine import IGNORED, Ignored, Machine


class CommandState(StrEnum):
    QUEUED = "queued"
    SENT = "sent"
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class CommandEvent(StrEnum):
    """The server's doing (send, unsend, expire, cancel) and the device's replies."""

    SEND = "send"
    UNSEND = "unsend"
    ACCEPT = "accept"
    RUN = "run"
    SUCCEED = "succeed"
    FAIL = "fail"
    REJECT = "reject"
    EXPIRE = "expire"
    CANCEL = "cancel"


class CommandEffect(StrEnum):
    """What the row's writer does besides storing the new state."""

    COUNT_ATTEMPT = "count attempt"
    """One more attempt, with its time, and the next one planned with back-off."""
    FORGET_ATTEMPT = "forget attempt"
    """Nobody took it: the attempt did not happen."""
    STOP_SENDING = "stop sending"
    """The device has it: no further attempts while it stays connected."""
    FINISH = "finish"
    """Stamp the end."""


COMMAND_FINAL = frozenset(
    {
        CommandState.SUCCEEDED,
        CommandState.FAILED,
        CommandState.REJECTED,
        CommandState.EXPIRED,
        CommandState.CANCELLED,
    }
)
COMMAND_UNFINISHED = frozenset(CommandState) - COMMAND_FINAL

_S, _E, _F = CommandState, CommandEvent, CommandEffect
_ENDS = {
    _E.SUCCEED: _S.SUCCEEDED,
    _E.FAIL: _S.FAILED,
    _E.REJECT: _S.REJECTED,
    _E.EXPIRE: _S.EXPIRED,
    _E.CANCEL: _S.CANCELLED,
}


_Table = dict[tuple[CommandState, CommandEvent], tuple[CommandState, tuple[CommandEffect, ...]] | Ignored]


def _table() -> _Table:
    table: _Table = {
        (_S.QUEUED, _E.SEND): (_S.SENT, (_F.COUNT_ATTEMPT,)),
        (_S.SENT, _E.SEND): (_S.SENT, (_F.COUNT_ATTEMPT,)),
        # Sent again after a reconnect, for a device that lost its memory: the reply it gave before still holds.
        (_S.ACCEPTED, _E.SEND): (_S.ACCEPTED, (_F.COUNT_ATTEMPT,)),
        (_S.RUNNING, _E.SEND): (_S.RUNNING, (_F.COUNT_ATTEMPT,)),
        (_S.SENT, _E.UNSEND): (_S.QUEUED, (_F.FORGET_ATTEMPT,)),
        # The device answered before the link said that it had not taken the message: the device is right.
        (_S.QUEUED, _E.UNSEND): IGNORED,
        (_S.ACCEPTED, _E.UNSEND): IGNORED,
        (_S.RUNNING, _E.UNSEND): IGNORED,
        (_S.QUEUED, _E.ACCEPT): (_S.ACCEPTED, (_F.STOP_SENDING,)),
        (_S.SENT, _E.ACCEPT): (_S.ACCEPTED, (_F.STOP_SENDING,)),
        (_S.ACCEPTED, _E.ACCEPT): IGNORED,
        (_S.RUNNING, _E.ACCEPT): IGNORED,
        (_S.QUEUED, _E.RUN): (_S.RUNNING, (_F.STOP_SENDING,)),
        (_S.SENT, _E.RUN): (_S.RUNNING, (_F.STOP_SENDING,)),
        (_S.ACCEPTED, _E.RUN): (_S.RUNNING, (_F.STOP_SENDING,)),
        (_S.RUNNING, _E.RUN): (_S.RUNNING, ()),  # progress; the service drops a report that says nothing new
    }
    for state in COMMAND_UNFINISHED:
        for event, end in _ENDS.items():
            table[state, event] = (end, (_F.STOP_SENDING, _F.FINISH))
    for state in COMMAND_FINAL:
        for event in _E:
            table[state, event] = IGNORED
        if state is not _S.CANCELLED:
            del table[state, _E.CANCEL]  # the one thing that a person asks for, and must be told is too late
    return table


COMMAND = Machine(name="command", initial=CommandState.QUEUED, final=COMMAND_FINAL, table=_table())

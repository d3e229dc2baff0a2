"""The state machines, as tables: every state with every event, and what they promise as a whole."""

import itertools

import pytest

from fleet.machines.campaign import CAMPAIGN, CampaignEvent, CampaignState
from fleet.machines.command import COMMAND, COMMAND_FINAL, CommandEffect, CommandEvent, CommandState
from fleet.machines.job import JOB, JOB_ACTIVE, JOB_UNFINISHED, JobEffect, JobEvent, JobState
from fleet.machines.machine import Answer, mermaid

# Rows are states, columns events; a word is the next state, "." is ignored, "!" is illegal.
COMMAND_EVENTS = ["send", "unsend", "accept", "run", "succeed", "fail", "reject", "expire", "cancel"]
COMMAND_TABLE = """
queued    sent     .      accepted running succeeded failed rejected expired cancelled
sent      sent     queued accepted running succeeded failed rejected expired cancelled
accepted  accepted .      .        running succeeded failed rejected expired cancelled
running   running  .      .        running succeeded failed rejected expired cancelled
succeeded .        .      .        .       .         .      .        .       !
failed    .        .      .        .       .         .      .        .       !
rejected  .        .      .        .       .         .      .        .       !
expired   .        .      .        .       .         .      .        .       !
cancelled .        .      .        .       .         .      .        .       .
"""
JOB_EVENTS = ["offer", "unoffer", "download", "verify", "install", "reboot"]
JOB_EVENTS += ["confirm", "mismatch", "fail", "reject", "time_out", "cancel", "retry"]
JOB_TABLE = """
queued      offered . . . . . succeeded . . . timed_out cancelled !
offered     offered queued downloading verifying installing rebooting succeeded . failed rejected timed_out cancelled !
downloading . . . verifying installing rebooting succeeded . failed rejected timed_out cancelled !
verifying   . . . . installing rebooting succeeded . failed rejected timed_out cancelled !
installing  . . . . . rebooting succeeded . failed rejected timed_out cancelled !
rebooting   . . . . . . succeeded failed failed rejected timed_out cancelled !
succeeded   . . . . . . . . . . . ! !
failed      . . . . . . . . . . . ! queued
timed_out   . . . . . . . . . . . ! queued
rejected    . . . . . . . . . . . ! queued
cancelled   . . . . . . . . . . . . !
"""
CAMPAIGN_EVENTS = ["start", "settle", "abort", "retry"]
CAMPAIGN_TABLE = """
draft    running !        aborted !
running  !       finished aborted running
finished !       !        !       running
aborted  !       !        !       !
"""


@pytest.mark.parametrize(
    ("machine", "states", "events", "names", "table"),
    [
        (COMMAND, CommandState, CommandEvent, COMMAND_EVENTS, COMMAND_TABLE),
        (JOB, JobState, JobEvent, JOB_EVENTS, JOB_TABLE),
        (CAMPAIGN, CampaignState, CampaignEvent, CAMPAIGN_EVENTS, CAMPAIGN_TABLE),
    ],
    ids=["command", "job", "campaign"],
)
def test_every_state_with_every_event(machine, states, events, names, table) -> None:  # type: ignore[no-untyped-def]
    expected = {}
    for line in table.strip().splitlines():
        state, *cells = line.split()
        assert len(cells) == len(names), line
        expected |= {(state, name.replace("_", " ")): cell for name, cell in zip(names, cells, strict=True)}
    assert set(expected) == {(str(state), str(event)) for state, event in itertools.product(states, events)}
    for (state, event), cell in expected.items():
        step = machine.step(states(state), events(event))
        if cell == ".":
            assert (step.answer, step.state, step.effects) == (Answer.IGNORED, state, ()), (state, event)
        elif cell == "!":
            assert (step.answer, step.state, step.effects) == (Answer.ILLEGAL, state, ()), (state, event)
        else:
            assert (step.answer, step.state) == (Answer.MOVED, cell), (state, event)


def test_only_the_device_moves_a_command_past_sent() -> None:
    ours = {CommandEvent.SEND, CommandEvent.UNSEND, CommandEvent.EXPIRE, CommandEvent.CANCEL}
    reachable, before = {CommandState.QUEUED}, set()
    while reachable != before:
        before = set(reachable)
        reachable |= {COMMAND.step(state, event).state for state in before for event in ours}
    assert reachable == {CommandState.QUEUED, CommandState.SENT, CommandState.EXPIRED, CommandState.CANCELLED}


@pytest.mark.parametrize("machine", [COMMAND, JOB])
def test_a_finished_one_is_stamped_and_stays(machine) -> None:  # type: ignore[no-untyped-def]
    for state, event in machine.table:
        step = machine.step(state, event)
        if step.moved and step.state in machine.final:
            assert "finish" in step.effects, (state, event)
        if step.moved and state in machine.final:
            assert event == "retry"


def test_every_unfinished_job_has_a_deadline() -> None:
    for state, event in JOB.table:
        step = JOB.step(state, event)
        if step.moved and step.state != state and step.state in JOB_UNFINISHED and event is not JobEvent.UNOFFER:
            assert JobEffect.ARM_DEADLINE in step.effects, (state, event)
    assert all(JOB.step(state, JobEvent.TIME_OUT).state is JobState.TIMED_OUT for state in JOB_UNFINISHED)


def test_a_device_is_free_for_another_job_exactly_when_it_has_none() -> None:
    for state, event in JOB.table:
        step = JOB.step(state, event)
        if step.moved and state in JOB_ACTIVE and step.state not in JOB_ACTIVE:
            assert JobEffect.FREE_DEVICE in step.effects, (state, event)


def test_success_is_only_ever_seen() -> None:
    reaches = {event for (state, event) in JOB.table if JOB.step(state, event).state is JobState.SUCCEEDED}
    assert {event for event in reaches if event is not JobEvent.CONFIRM} <= {
        event for (state, event) in JOB.table if state is JobState.SUCCEEDED
    }


def test_the_attempt_is_counted_with_each_sending() -> None:
    for state in CommandState:
        step = COMMAND.step(state, CommandEvent.SEND)
        assert (CommandEffect.COUNT_ATTEMPT in step.effects) == (state not in COMMAND_FINAL)


def test_the_diagram_has_every_state_and_the_way_in_and_out() -> None:
    diagram = mermaid(COMMAND)
    assert diagram.startswith("stateDiagram-v2\n    [*] --> queued\n")
    assert "    queued --> sent: send\n" in diagram
    assert "    expired --> [*]\n" in diagram
    assert "    installing --> timed_out: time out\n" in mermaid(JOB)

"""What a profile says of commands: parameters, times, and the order in which they go."""

import asyncio
from typing import Any

import pytest

from broker.reason import ReasonCode
from fleet.errors import Conflict, Invalid
from fleet.machines.command import COMMAND_FINAL, CommandEvent
from fleet.models import CommandRow
from fleet.views import Command
from gateway.profiles.commands import Delivery
from gateway.profiles.document import Profile
from tests.fleet.conftest import ANNA, MovableClock, Rig, running
from tests.fleet.test_machines import COMMAND_EVENTS, COMMAND_TABLE

REBOOT = {
    "params": {
        "type": "object",
        "properties": {
            "delay_s": {"type": "integer", "minimum": 0},
            "why": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
    },
    "ttl_s": 120,
    "timeout_s": 20,
}


async def device_of(rig: Rig, **rules: Any) -> None:
    await rig.fleet.profiles.create(ANNA, Profile.model_validate({"name": "pump", **rules}))
    await rig.device(profile="pump")


@pytest.mark.parametrize(
    ("name", "params", "field"),
    [
        ("reboot", {"delay_s": "soon"}, "params/delay_s"),
        ("reboot", {"delay_s": -1}, "params/delay_s"),
        ("reboot", {"why": ["a", 1]}, "params/why/1"),
        ("reboot", {"now": True}, "params"),
        ("reboot", [], "params"),
        ("explode", None, "name"),
        ("reboot", {"why": [["a"] * 100] * 40}, "params/why/0"),
    ],
)
async def test_what_the_profile_does_not_allow_is_refused_with_its_place(
    lite: Rig, name: str, params: Any, field: str
) -> None:
    await device_of(lite, commands={"reboot": REBOOT}, unknown_commands="refuse")
    with pytest.raises(Invalid) as caught:
        await lite.fleet.commands.create(ANNA, "pump-7", name, params)
    assert caught.value.field == field
    assert await CommandRow.all().count() == 0


async def test_what_it_allows_is_sent_and_unknown_ones_too_unless_it_says_otherwise(lite: Rig) -> None:
    await device_of(lite, commands={"reboot": REBOOT})
    await lite.connect()
    made = await lite.fleet.commands.create(ANNA, "pump-7", "reboot", {"delay_s": 5})
    assert (made.status, made.expires_at) == ("sent", made.created_at.replace(minute=2))
    assert (await lite.fleet.commands.create(ANNA, "pump-7", "explode")).status == "sent"
    await lite.device("plain")
    assert (await lite.fleet.commands.create(ANNA, "plain", "reboot", {"delay_s": "soon"})).status == "queued"


async def test_the_time_to_answer_begins_with_the_sending(rig: Rig) -> None:
    await device_of(rig, commands={"reboot": REBOOT})
    made = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    assert (made.answer_by, made.waiting_for) == (None, "device to connect")
    await rig.later(60)
    rig.gateway.deaf.add("pump-7")
    await rig.connect()
    made = await rig.fleet.commands.get(made.id)
    assert (made.status, made.answer_by, made.waiting_for) == ("queued", None, "device to take it"), "nobody took it"
    rig.gateway.deaf.clear()
    await rig.later(1)
    made = await rig.fleet.commands.get(made.id)
    assert made.answer_by is not None
    assert ((made.answer_by - rig.clock.utc()).total_seconds(), made.waiting_for) == (20, "device to answer")
    await rig.uplink(f"commands/{made.id}/status", {"status": "running"})
    assert (await rig.fleet.commands.get(made.id)).waiting_for == "device to finish"
    await rig.later(19)
    assert (await rig.fleet.commands.get(made.id)).status == "running"
    await rig.later(2)
    made = await rig.fleet.commands.get(made.id)
    assert (made.status, made.waiting_for) == ("expired", None)


async def test_sequential_ones_go_one_at_a_time_whatever_ends_the_one_before(rig: Rig) -> None:
    await device_of(rig, delivery="sequential", commands={"ping": {"delivery": "parallel"}})
    create = rig.fleet.commands.create
    made = [await create(ANNA, "pump-7", f"step {n}", ttl_s=50 if n == 2 else 1000) for n in range(5)]
    await rig.connect()
    assert sent(rig) == ["step 0"]
    assert [c.waiting_for for c in (await rig.fleet.commands.list("pump-7")).items] == [
        *["the command before it to end"] * 4,
        "device to answer",
    ]
    assert (await create(ANNA, "pump-7", "ping")).status == "sent", "parallel ones pass by"
    assert (await create(ANNA, "pump-7", "last")).status == "queued"
    await reply(rig, made[0], "succeeded")
    assert sent(rig)[2:] == ["step 1"]
    await rig.fleet.commands.cancel(ANNA, made[1].id)
    await rig.settle()
    assert sent(rig)[3:] == ["step 2"]
    await rig.later(51)
    assert (await rig.fleet.commands.get(made[2].id)).status == "expired"
    assert [name for name in sent(rig)[4:] if name not in ("step 2", "ping")] == ["step 3"]
    await reply(rig, made[3], "failed")
    await reply(rig, made[4], "rejected")
    assert sent(rig)[-1] == "last"


async def test_of_many_sequential_ones_made_at_once_one_is_sent(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    made = [rig.fleet.commands.create(ANNA, "pump-7", "step", delivery=Delivery.SEQUENTIAL) for _ in range(20)]
    await asyncio.gather(*made)
    await rig.settle()
    assert sent(rig) == ["step"]


@pytest.mark.parametrize("reached", ["queued", "sent", "accepted", "running", "succeeded", "failed", "cancelled"])
async def test_the_order_outlives_a_kill_at_each_state_of_the_first(tmp_path, sqlite_url: str, reached: str) -> None:  # type: ignore[no-untyped-def]
    clock = MovableClock()
    async with running(tmp_path, sqlite_url, clock=clock) as rig:
        await device_of(rig, delivery="sequential")
        if reached != "queued":
            await rig.connect()
        first = await rig.fleet.commands.create(ANNA, "pump-7", "first")
        second = await rig.fleet.commands.create(ANNA, "pump-7", "second")
        rig.fleet.outbox.nudge = lambda device_id, *owed: None  # type: ignore[method-assign]
        rig.fleet.commands.nudge = rig.fleet.outbox.nudge  # killed before it would have come to the second one
        if reached == "cancelled":
            await rig.fleet.commands.cancel(ANNA, first.id)
        elif reached not in ("queued", "sent"):
            await reply(rig, first, reached)
        assert (await rig.fleet.commands.get(first.id)).status == reached
        assert (await rig.fleet.commands.get(second.id)).status == "queued"
    async with running(tmp_path, sqlite_url, clock=clock) as rig:
        await rig.connect()
        over = reached in ("succeeded", "failed", "cancelled")
        assert sent(rig) == (["second"] if over else ["first"])
        if not over:
            await reply(rig, first, "succeeded")
        assert sent(rig)[-1] == "second"
        assert (await rig.fleet.commands.get(second.id)).attempts == 1


def sent(rig: Rig) -> list[str]:
    return [message["name"] for message in rig.gateway.messages("pump-7", "commands/")]


async def reply(rig: Rig, command: Command, status: str) -> None:
    await rig.uplink(f"commands/{command.id}/status", {"status": status})
    await rig.settle()


_REPLIES = {"accept": "accepted", "run": "running", "succeed": "succeeded", "fail": "failed", "reject": "rejected"}


async def test_every_state_takes_every_event_after_a_kill_as_the_table_says(tmp_path, database_url: str) -> None:  # type: ignore[no-untyped-def]
    """The table of the machine once more, through rows, a dead process, and the ways by which events really come."""
    clock, expected = MovableClock(), {}
    async with running(tmp_path, database_url, clock=clock, commands_pending_limit=1_000) as rig:
        await rig.device()
        for line in COMMAND_TABLE.strip().splitlines():
            state, *cells = line.split()
            for event, cell in zip(COMMAND_EVENTS, cells, strict=True):
                made = await rig.fleet.commands.create(ANNA, "pump-7", f"{state} {event}")
                await CommandRow.filter(id=made.id).update(status=state, attempts=int(state != "queued"))
                expected[made.id] = (state, event, state if cell in ".!" else cell, cell == "!")
    async with running(tmp_path, database_url, clock=clock, commands_pending_limit=1_000) as rig:
        commands = rig.fleet.commands
        for id_, (state, event, after, is_refused) in expected.items():
            if event in _REPLIES:
                outcome = await rig.uplink(f"commands/{id_}/status", {"status": _REPLIES[event]})
                assert outcome.code is ReasonCode.SUCCESS, (state, event)
            elif event == "cancel" and is_refused:
                with pytest.raises(Conflict):
                    await commands.cancel(ANNA, id_)
            elif event == "cancel":
                await commands.cancel(ANNA, id_)
            elif event == "expire":
                await CommandRow.filter(id=id_).update(expires_at=clock.utc())
                await commands.expire()
            else:
                await commands._step(await CommandRow.get(id=id_), CommandEvent(event))
            row = await CommandRow.get(id=id_)
            assert row.status == after, (state, event)
            assert (row.finished_at is not None) == (after in COMMAND_FINAL and after != state), (state, event)
            assert row.next_send_at is None or row.status == "sent", (state, event)
        await rig.connect()
        unfinished = {id_ for id_ in expected if (await CommandRow.get(id=id_)).status not in COMMAND_FINAL}
        went = {channel.removeprefix("commands/") for _, channel, _ in rig.gateway.sent if channel.startswith("comm")}
        assert went == unfinished, "and at the next connection each that has not ended goes out, and no other"

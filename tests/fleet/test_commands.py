"""Commands: from the operator to the device and back, with everything that goes wrong in between."""

import asyncio

import pytest

from broker.reason import ReasonCode
from fleet.actor import Actor
from fleet.errors import Conflict, Invalid, NotFound
from fleet.models import CommandRow
from fleet.views import Command
from tests.fleet.conftest import ANNA, MovableClock, Rig, running


async def test_a_command_is_sent_and_answered(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot", {"delay": 5}, ttl_s=60)
    assert (command.status, command.attempts, command.created_by) == ("sent", 1, "anna")
    [(_, channel, _)] = rig.gateway.sent
    assert channel == f"commands/{command.id}"
    [message] = rig.gateway.messages("pump-7")
    assert message == {
        "name": "reboot",
        "params": {"delay": 5},
        "expires_at": int(command.expires_at.timestamp() * 1000),
    }
    assert await _reply(rig, command, status="accepted") is ReasonCode.SUCCESS
    assert await _reply(rig, command, status="running", progress=40) is ReasonCode.SUCCESS
    assert (await rig.fleet.commands.get(command.id)).progress == 40
    assert await _reply(rig, command, status="succeeded", result={"uptime": 0}) is ReasonCode.SUCCESS
    done = await rig.fleet.commands.get(command.id)
    assert (done.status, done.progress, done.result, done.finished_at) == (
        "succeeded",
        100,
        {"uptime": 0},
        rig.clock.utc(),
    )
    statuses = [event.data["status"] for event in rig.events("commands")]
    assert statuses == ["queued", "sent", "accepted", "running", "succeeded"]
    assert await rig.summaries("pump-7", "command") == [
        "reboot: succeeded",
        "reboot: running",
        "reboot: accepted",
        "reboot: sent",
        "reboot: anna asked for it",
    ]


async def test_it_waits_for_a_device_that_is_away(rig: Rig) -> None:
    await rig.device()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    assert (command.status, rig.gateway.sent) == ("queued", [])
    await rig.connect()
    assert (await rig.fleet.commands.get(command.id)).status == "sent"
    assert "attempt" not in rig.gateway.messages("pump-7")[0]


async def test_what_nobody_took_is_not_called_sent(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    rig.gateway.deaf.add("pump-7")
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    assert (command.status, command.attempts, command.sent_at) == ("queued", 0, None)
    await rig.settle()
    rig.gateway.deaf.clear()
    await rig.later(0.3)
    command = await rig.fleet.commands.get(command.id)
    assert (command.status, command.attempts) == ("sent", 1)
    assert "attempt" not in rig.gateway.messages("pump-7")[0]


async def test_a_broken_link_is_as_good_as_nobody(lite: Rig) -> None:
    await lite.device()
    await lite.connect()
    lite.gateway.failing = True
    assert (await lite.fleet.commands.create(ANNA, "pump-7", "reboot")).status == "queued"


async def test_a_silent_device_is_asked_again_with_growing_pauses_and_then_it_expires(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot", ttl_s=100)
    for _ in range(90):
        await rig.later(1)
    assert [message.get("attempt") for message in rig.gateway.messages("pump-7")] == [None, 2, 3, 4]
    assert (await rig.fleet.commands.get(command.id)).status == "sent"
    await rig.later(11)
    command = await rig.fleet.commands.get(command.id)
    assert (command.status, command.attempts) == ("expired", 4)
    assert (await rig.summaries())[0] == "reboot: expired after 4 attempts"
    await rig.disconnect()
    await rig.connect()
    assert len(rig.gateway.messages("pump-7")) == 4


async def test_an_answer_ends_the_asking(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    await _reply(rig, command, status="accepted")
    await rig.later(500)
    assert len(rig.gateway.messages("pump-7")) == 1


async def test_after_a_reconnect_it_is_sent_again_and_says_so(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    silent = await rig.fleet.commands.create(ANNA, "pump-7", "silent")
    running_ = await rig.fleet.commands.create(ANNA, "pump-7", "running")
    await _reply(rig, running_, status="running", progress=10)
    rig.gateway.sent.clear()
    await rig.disconnect()
    await rig.later(60)
    assert rig.gateway.sent == [], "nothing to one that is away"
    await rig.connect()
    assert [(each["name"], each["attempt"]) for each in rig.gateway.messages("pump-7")] == [
        ("silent", 2),
        ("running", 2),
    ]
    assert (await rig.fleet.commands.get(running_.id)).status == "running", "it said so, and it still holds"
    assert (await rig.fleet.commands.get(silent.id)).status == "sent"


@pytest.mark.parametrize("reached", ["queued", "sent", "accepted", "running", "succeeded"])
async def test_a_restart_loses_no_command(tmp_path, database_url: str, reached: str) -> None:  # type: ignore[no-untyped-def]
    clock = MovableClock()
    async with running(tmp_path, database_url, clock=clock) as rig:
        await rig.device()
        if reached != "queued":
            await rig.connect()
        command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
        if reached not in ("queued", "sent"):
            await _reply(rig, command, status=reached)
        assert (await rig.fleet.commands.get(command.id)).status == reached
    clock.move(5)
    async with running(tmp_path, database_url, clock=clock) as rig:
        assert (await rig.fleet.commands.get(command.id)).status == reached
        await rig.connect()
        expected = {"queued": [None], "succeeded": []}.get(reached, [2])
        assert [message.get("attempt") for message in rig.gateway.messages("pump-7")] == expected


async def test_a_crash_between_the_commit_and_the_sending_says_that_it_may_be_the_second_time(
    tmp_path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    async with running(tmp_path, database_url) as rig:
        await rig.device()
        await rig.connect()

        async def crash(*message: object, **options: object) -> bool:
            raise asyncio.CancelledError

        monkeypatch.setattr(rig.fleet._sender, "send", crash)
        with pytest.raises(asyncio.CancelledError):
            await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
        monkeypatch.undo()
    async with running(tmp_path, database_url) as rig:
        await rig.connect()
        assert [message.get("attempt") for message in rig.gateway.messages("pump-7")] == [2]


async def test_duplicates_change_nothing(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    for _ in range(3):
        assert await _reply(rig, command, status="succeeded", result=1) is ReasonCode.SUCCESS
    assert await _reply(rig, command, status="accepted") is ReasonCode.SUCCESS
    after = await CommandRow.get(id=command.id)
    assert (after.status, after.version) == ("succeeded", 3)
    assert (await rig.summaries()).count("reboot: succeeded") == 1
    assert not [each for each in await rig.summaries() if "succeeded after" in each]


@pytest.mark.parametrize("end", ["expired", "cancelled"])
async def test_a_late_answer_is_recorded_once_and_not_applied(rig: Rig, end: str) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot", ttl_s=10)
    if end == "expired":
        await rig.later(11)
    else:
        await rig.fleet.commands.cancel(ANNA, command.id)
    for _ in range(2):
        assert await _reply(rig, command, status="succeeded", result={"uptime": 0}) is ReasonCode.SUCCESS
    command = await rig.fleet.commands.get(command.id)
    assert (command.status, command.result) == (end, None)
    late = [
        entry for entry in (await _entries(rig)) if entry.summary == f"reboot: answered succeeded after it was {end}"
    ]
    assert len(late) == 1
    assert late[0].data["result"] == {"uptime": 0}


async def test_reports_out_of_order_do_not_move_it_back(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    await _reply(rig, command, status="running", progress=50)
    await _reply(rig, command, status="accepted")
    await _reply(rig, command, status="running", progress=20)
    command = await rig.fleet.commands.get(command.id)
    assert (command.status, command.progress) == ("running", 50)


async def test_cancel(rig: Rig) -> None:
    await rig.device()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    assert (await rig.fleet.commands.cancel(ANNA, command.id)).status == "cancelled"
    assert (await rig.fleet.commands.cancel(ANNA, command.id)).status == "cancelled", "twice is once"
    await rig.connect()
    assert rig.gateway.sent == []
    other = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    await _reply(rig, other, status="failed", error="no\nway")
    assert (await rig.fleet.commands.get(other.id)).error == "no way"
    with pytest.raises(Conflict):
        await rig.fleet.commands.cancel(ANNA, other.id)
    with pytest.raises(NotFound):
        await rig.fleet.commands.cancel(ANNA, "nothing")


async def test_one_of_many_ends_wins(rig: Rig) -> None:
    await rig.device()
    await rig.connect()
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    await asyncio.gather(
        _reply(rig, command, status="succeeded"),
        _reply(rig, command, status="failed", error="x"),
        rig.fleet.commands.cancel(Actor(kind="user", id="ben"), command.id),
        return_exceptions=True,
    )
    row = await CommandRow.get(id=command.id)
    assert row.version == 3, "queued, sent, one end"
    assert row.status in ("succeeded", "failed", "cancelled")


async def test_another_devices_command_is_unknown(rig: Rig) -> None:
    await rig.device()
    await rig.device("other")
    command = await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    outcome = await rig.uplink(f"commands/{command.id}/status", {"status": "succeeded"}, device_id="other")
    assert (outcome.code, outcome.reason) == (ReasonCode.PAYLOAD_FORMAT_INVALID, "unknown_command")
    assert (await rig.fleet.commands.get(command.id)).status == "queued"


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"status": "done"},
        {"status": ["succeeded"]},
        {"status": "running", "progress": 101},
        {"status": "running", "progress": "1"},
        {"status": "running", "progress": True},
        {"status": "succeeded", "result": "x" * 40_000},
    ],
)
async def test_odd_answers_are_refused(lite: Rig, report: dict[str, object]) -> None:
    await lite.device()
    command = await lite.fleet.commands.create(ANNA, "pump-7", "reboot")
    assert await _reply(lite, command, **report) is ReasonCode.PAYLOAD_FORMAT_INVALID


async def test_what_may_be_asked_of_whom(rig: Rig) -> None:
    await rig.device()
    create = rig.fleet.commands.create
    with pytest.raises(NotFound):
        await create(ANNA, "nobody", "reboot")
    for name, params, ttl_s in (
        ("", None, 60),
        ("a\nb", None, 60),
        ("x", "y" * 40_000, 60),
        ("x", 1, 0),
        ("x", 1, 1e9),
    ):
        with pytest.raises(Invalid):
            await create(ANNA, "pump-7", name, params, ttl_s)
    for number in range(100):
        await create(ANNA, "pump-7", f"c{number}")
    with pytest.raises(Conflict, match="100 commands"):
        await create(ANNA, "pump-7", "one too many")
    assert await rig.fleet.commands.pending() == 100
    await rig.fleet.devices.update(ANNA, "pump-7", disabled=True)
    with pytest.raises(Conflict, match="disabled"):
        await create(ANNA, "pump-7", "reboot")


async def test_lists(rig: Rig) -> None:
    await rig.device()
    await rig.device("other")
    made = [await rig.fleet.commands.create(ANNA, "pump-7", f"c{number}") for number in range(5)]
    await rig.fleet.commands.create(ANNA, "other", "x")
    page = await rig.fleet.commands.list("pump-7", limit=3)
    assert ([each.name for each in page.items], page.total) == (["c4", "c3", "c2"], 5)
    page = await rig.fleet.commands.list("pump-7", limit=3, cursor=page.next_cursor)
    assert ([each.name for each in page.items], page.next_cursor) == (["c1", "c0"], None)
    await rig.fleet.commands.cancel(ANNA, made[2].id)
    assert [each.name for each in (await rig.fleet.commands.list(status="cancelled")).items] == ["c2"]
    assert (await rig.fleet.commands.list()).total == 6


async def test_who_asked_is_in_the_audit(lite: Rig) -> None:
    await lite.device()
    command = await lite.fleet.commands.create(ANNA, "pump-7", "reboot")
    await lite.fleet.commands.cancel(ANNA, command.id)
    entries = (await lite.fleet.audit.list(target_kind="command")).items
    assert [(entry.action, entry.target_id) for entry in entries] == [
        ("command.cancel", command.id),
        ("command.create", command.id),
    ]


async def _reply(rig: Rig, command: Command, **report: object) -> ReasonCode:
    return (await rig.uplink(f"commands/{command.id}/status", report)).code


async def _entries(rig: Rig):  # type: ignore[no-untyped-def]
    await rig.fleet.timeline.flush()
    return (await rig.fleet.timeline.list("pump-7")).items

"""Control messages that are nobody's in particular: events, odd payloads, unknown devices; and our own failures."""

import asyncio

import pytest

from broker.reason import ReasonCode
from fleet.batcher import Batcher
from fleet.models import TimelineRow
from tests.fleet.conftest import Rig


async def test_an_event_is_kept_and_shown(rig: Rig) -> None:
    await rig.device()
    await rig.fleet.timeline.flush()
    rig.events("messages")
    event = {"ts": 1_700_000_000_000, "level": "warn", "message": "bearing is <b>hot</b>", "data": {"t": 91}}
    outcome = await rig.uplink("events", event)
    assert outcome.code is ReasonCode.SUCCESS
    row = await TimelineRow.get(kind="event")  # committed before the outcome
    assert (row.level, row.summary) == ("warning", "bearing is <b>hot</b>")
    [live] = rig.events("messages")
    assert live.data["data"] == {"ts": 1_700_000_000_000, "data": {"t": 91}}


async def test_an_event_with_a_time_is_one_event_however_often_it_comes(rig: Rig) -> None:
    await rig.device()
    for _ in range(3):
        assert (await rig.uplink("events", {"ts": 1, "message": "door"})).code is ReasonCode.SUCCESS
        assert (await rig.uplink("events", {"message": "no time"})).code is ReasonCode.SUCCESS
    assert (await rig.summaries("pump-7", "event")).count("door") == 1
    assert (await rig.summaries("pump-7", "event")).count("no time") == 3


@pytest.mark.parametrize(
    ("channel", "payload", "reason"),
    [
        ("events", b"", "invalid_json"),
        ("events", b"{", "invalid_json"),
        ("events", b"\xff", "invalid_json"),
        ("events", b'{"message": NaN}', "invalid_json"),
        ("events", b'{"message": "\\ud800"}', "invalid_json"),
        ("events", b"[" * 60_000, "invalid_json"),
        ("events", b"[1]", "unsupported_value"),
        ("events", b"{}", "unsupported_value"),
        ("events", b'{"message": 1}', "unsupported_value"),
        ("events", b'{"message": "x", "level": "loud"}', "unsupported_value"),
        ("events", b'{"message": "x", "ts": "now"}', "unsupported_value"),
        ("events", b'{"message": "x", "data": "' + b"y" * 9000 + b'"}', "unsupported_value"),
        ("events", b'{"message": "' + b"x" * 70_000 + b'"}', "too_large"),
        ("twin/reported", b"null", "unsupported_value"),
        ("twin/reported", b'{"a":' * 20 + b"1" + b"}" * 20, "unsupported_value"),
        ("commands/nothing/status", b'{"status": "succeeded"}', "unknown_command"),
        ("ota/status", b"[]", "unsupported_value"),
        ("somewhere", b"{}", "unknown_channel"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_reason(
    lite: Rig, channel: str, payload: bytes, reason: str
) -> None:
    await lite.device()
    outcome = await lite.uplink(channel, payload)
    assert outcome.code.is_error
    assert outcome.reason == reason
    assert outcome.retry_after_s is None, "the same again would be refused again"


async def test_unknown_and_disabled_devices_are_refused(lite: Rig) -> None:
    assert (await lite.uplink("events", {"message": "x"}, device_id="nobody")).reason == "unknown_device"


async def test_our_own_failure_asks_for_another_try(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await lite.device()
    monkeypatch.setattr(lite.fleet.twins, "report", None)
    outcome = await lite.uplink("twin/reported", {"a": 1})
    assert (outcome.code, outcome.retry_after_s) == (ReasonCode.UNSPECIFIED_ERROR, 5.0)


async def test_an_event_that_was_not_stored_is_not_acknowledged(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await lite.device()
    await lite.fleet.timeline.flush()

    async def fail(*arguments: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(lite.fleet.database, "insert", fail)
        outcome = await lite.uplink("events", {"ts": 5, "message": "x"})
    assert outcome.retry_after_s is not None
    assert (await lite.uplink("events", {"ts": 5, "message": "x"})).code is ReasonCode.SUCCESS
    assert (await lite.summaries("pump-7", "event")) == ["x"]


async def test_a_timer_that_fails_does_not_stop_the_others(lite: Rig) -> None:
    ran = []

    async def fail() -> None:
        raise OSError("no room")

    async def work() -> None:
        ran.append(lite.clock.monotonic())

    lite.fleet.timers.add("fails", 1, fail)
    lite.fleet.timers.add("works", 1, work)
    for _ in range(3):
        await lite.later(1)
    assert len(ran) == 3


# The batcher


async def test_a_batcher_writes_in_order_and_few_batches() -> None:
    batches: list[list[int]] = []

    async def write(items: object) -> None:
        batches.append(list(items))  # type: ignore[call-overload]
        await asyncio.sleep(0)

    batcher: Batcher[int] = Batcher("test", write, limit=1000, batch=100)
    batcher.start()
    assert all(batcher.offer(number) for number in range(250))
    await batcher.put(250)
    assert [item for batch in batches for item in batch] == list(range(251))
    assert len(batches) == 3
    await batcher.stop()


async def test_a_full_batcher_drops_offers_and_lets_puts_wait() -> None:
    go_on = asyncio.Event()
    written: list[int] = []

    async def write(items: object) -> None:
        await go_on.wait()
        written.extend(items)  # type: ignore[arg-type]

    batcher: Batcher[int] = Batcher("test", write, limit=2, batch=1)
    batcher.start()
    assert [batcher.offer(number) for number in range(4)] == [True, True, False, False]
    putting = asyncio.create_task(batcher.put(9))
    await asyncio.sleep(0)
    assert not putting.done()
    go_on.set()
    await putting
    assert (written, batcher.dropped) == ([0, 1, 9], 2)
    await batcher.stop()


async def test_what_waits_is_written_at_the_stop() -> None:
    written: list[int] = []

    async def write(items: object) -> None:
        written.extend(items)  # type: ignore[arg-type]

    batcher: Batcher[int] = Batcher("test", write, limit=10, batch=1)
    batcher.start()
    for number in range(5):
        batcher.offer(number)
    await batcher.stop()
    assert written == [0, 1, 2, 3, 4]

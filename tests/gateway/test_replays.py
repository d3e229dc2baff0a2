"""Dead letters tried again: once taken they are gone, refused again they stay, and no point comes twice."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.reason import ReasonCode
from gateway.drain import DrainOptions
from gateway.gateway import Gateway
from gateway.letters import LetterFilter
from gateway.link import Outcome, Uplink
from gateway.readings import Reading
from gateway.refusals import busy
from gateway.replays import Replay, ReplayRunning, ReplayState
from gateway.store import Query, StoreRejected
from tests.gateway.fakes import START_MS, Answers, Clock, Fleet, MemoryStore, until, uplink

EVERYTHING = LetterFilter()
WRONG = Outcome(code=ReasonCode.PAYLOAD_FORMAT_INVALID, reason="unsupported_value", detail="not yet")


async def send(gateway: Gateway, *uplinks: Uplink) -> None:
    answers = Answers()
    gateway.uplinks(uplinks, answers)
    await answers.wait()


async def replay(gateway: Gateway, which: LetterFilter = EVERYTHING) -> tuple[int, int, int, int]:
    """(total, taken, refused, skipped) of a replay that was let run to its end."""
    job = await gateway.replays.start(which)
    await until(lambda: job.state is not ReplayState.RUNNING)
    assert job.state is ReplayState.DONE
    assert gateway.replays.get(job.id) is job
    return job.total, job.taken, job.refused, job.skipped


async def points(gateway: Gateway, device_id: str = "a") -> dict[str, list[tuple[int, object]]]:
    found = await gateway.history.query(Query(device_id=device_id, start_ms=0, end_ms=1 << 50))
    return {metric: list(zip(series.t, series.v, strict=True)) for metric, series in found.items()}


async def test_what_is_taken_now_vanishes_and_has_the_time_it_came_at_first(start_gateway, clock: Clock) -> None:
    gateway = await start_gateway(metrics_per_device=1)
    await send(gateway, uplink("a", b'{"t": 1}'), uplink("b", b"nonsense"))
    came_ms = clock.now_ms()
    await send(gateway, uplink("a", b'{"u": 2}'))
    assert await gateway.dead_letters.counts() == {"invalid_json": 1, "too_many_metrics": 1}
    clock.move(3600)
    gateway.ingest.kinds._metrics_per_device = 10  # the mended limit
    assert await replay(gateway) == (2, 1, 1, 0)
    ((at_ms, value),) = (await points(gateway))["u"]
    assert value == 2
    assert came_ms <= at_ms < came_ms + 10
    (letter,) = await gateway.dead_letters.find()
    assert (letter.device_id, letter.reason, letter.replays) == ("b", "invalid_json", 1)
    assert await replay(gateway) == (1, 0, 1, 0)
    (letter,) = await gateway.dead_letters.find()
    assert letter.replays == 2
    assert gateway.stats().messages == 3
    assert gateway.stats().refused == {"invalid_json": 1, "too_many_metrics": 1}


async def test_refused_messages_of_one_moment_become_as_many_points(start_gateway, clock: Clock) -> None:
    gateway = await start_gateway(metrics_per_device=0)
    await send(gateway, *(uplink("a", b'{"t": %d}' % number) for number in range(20)))
    clock.move(60)
    gateway.ingest.kinds._metrics_per_device = 10
    assert await replay(gateway) == (20, 20, 0, 0)
    assert [value for _, value in (await points(gateway))["t"]] == list(range(20))


async def test_a_message_taken_in_part_gives_no_point_twice(start_gateway, clock: Clock) -> None:
    gateway = await start_gateway(metrics_per_device=1)
    for number in range(5):  # of one moment: the stamps run ahead of the clock
        await send(gateway, uplink("a", b'{"t": %d, "u": %d}' % (number, number)))
    before = (await points(gateway))["t"]
    clock.move(60)
    gateway.ingest.kinds._metrics_per_device = 10
    assert await replay(gateway) == (5, 5, 0, 0)
    found = await points(gateway)
    assert found["t"] == before
    assert found["u"] == before


async def test_a_message_refused_in_part_again_stays(start_gateway, clock: Clock) -> None:
    gateway = await start_gateway(metrics_per_device=1)
    await send(gateway, uplink("a", b'{"t": 1, "u": 2}'))
    assert await replay(gateway) == (1, 0, 1, 0)
    (letter,) = await gateway.dead_letters.find()
    assert (letter.reason, letter.replays) == ("too_many_metrics", 1)


async def test_a_replay_broken_off_before_its_letters_are_deleted_repeats_nothing(start_gateway) -> None:
    gateway = await start_gateway(metrics_per_device=0)
    await send(gateway, uplink("a", b'[{"t": 1}, {"t": 2}]'))
    gateway.ingest.kinds._metrics_per_device = 10
    delete = gateway.dead_letters.delete

    async def crash(which: LetterFilter) -> int:
        raise OSError("gone")

    gateway.dead_letters.delete = crash
    job = await gateway.replays.start(EVERYTHING)
    await until(lambda: job.state is not ReplayState.RUNNING)
    assert (job.state, job.detail) == (ReplayState.FAILED, "failed: OSError")
    first = await points(gateway)
    assert [value for _, value in first["t"]] == [1, 2]
    gateway.dead_letters.delete = delete
    assert await replay(gateway) == (1, 1, 0, 0)
    assert await points(gateway) == first


async def test_a_letter_that_was_cut_is_skipped(start_gateway) -> None:
    gateway = await start_gateway()
    await send(gateway, uplink("a", b" " * 70_000), uplink("a", b"nonsense"))
    assert await replay(gateway) == (2, 0, 1, 1)
    assert await gateway.dead_letters.counts() == {"invalid_json": 1, "too_large": 1}


async def test_letters_are_chosen_by_id_device_and_reason(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.outcome = WRONG
    await send(gateway, *(uplink(device, b"%d" % n, channel="events") for device in "ab" for n in range(3)))
    fleet.outcome = Outcome()
    fleet.handled.clear()
    ids = sorted(letter.id for letter in await gateway.dead_letters.find())
    assert await replay(gateway, LetterFilter(ids=(ids[0], ids[-1], 999))) == (2, 2, 0, 0)
    assert await replay(gateway, LetterFilter(device_id="a", reason="unsupported_value")) == (2, 2, 0, 0)
    assert await replay(gateway, LetterFilter(reason="invalid_json")) == (0, 0, 0, 0)
    assert {(up.channel, up.link) for up in fleet.handled} == {("events", "replay")}
    assert len(fleet.handled) == await gateway.dead_letters.count() + 2 == 4


async def test_what_the_store_rejected_is_written_again(start_gateway, memory_store: MemoryStore, clock: Clock) -> None:
    def reject(readings: Sequence[Reading]) -> None:
        if any(reading.metric == "bad" for reading in readings):
            raise StoreRejected("no such column")

    memory_store.fail = reject
    gateway = await start_gateway(drain=DrainOptions(linger_s=0.0))
    await send(gateway, uplink("a", b'{"good": 1, "bad": 2}'))
    await until(lambda: gateway.drain.stats().rejected == 1)
    memory_store.fail = lambda readings: None
    clock.move(5)
    assert await replay(gateway) == (1, 1, 0, 0)
    await until(lambda: len(memory_store.points) == 2)
    assert {(key[1], key[2]) for key in memory_store.points} == {("good", START_MS), ("bad", START_MS)}


async def test_a_busy_server_is_asked_again_and_given_up_on_in_the_end(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.outcome = WRONG
    await send(gateway, uplink("a", b"{}", channel="events"))
    pauses: list[float] = []

    async def pause(delay_s: float) -> None:
        pauses.append(delay_s)
        if len(pauses) == 3:
            fleet.outcome = Outcome()

    gateway.replays._sleep = pause
    fleet.outcome = busy(retry_after_s=60.0)
    assert await replay(gateway) == (1, 1, 0, 0)
    assert pauses == [5.0] * 3
    fleet.outcome = WRONG
    await send(gateway, uplink("a", b"{}", channel="events"))
    fleet.outcome = busy(retry_after_s=2.0)
    job = await gateway.replays.start(EVERYTHING)
    await until(lambda: job.state is not ReplayState.RUNNING)
    assert (job.state, job.taken, job.detail) == (ReplayState.FAILED, 0, "busy: too many messages are waiting")
    assert await gateway.dead_letters.counts() == {"unsupported_value": 1}


async def test_one_replay_runs_at_a_time_and_stopping_breaks_it_off(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.outcome = WRONG
    await send(gateway, uplink("a", b"{}", channel="events"))
    fleet.gate = asyncio.Event()
    job: Replay = await gateway.replays.start(EVERYTHING)
    assert gateway.replays.running() is job
    with pytest.raises(ReplayRunning):
        await gateway.replays.start(EVERYTHING)
    await gateway.replays.stop()
    assert (job.state, job.detail) == (ReplayState.FAILED, "the server was stopped")
    assert gateway.replays.running() is None


async def test_a_message_that_is_refused_after_its_replay_was_broken_off_makes_no_second_letter(
    start_gateway, fleet: Fleet
) -> None:
    gateway = await start_gateway()
    fleet.outcome = WRONG
    await send(gateway, uplink("a", b"{}", channel="events"))
    fleet.gate = asyncio.Event()
    await gateway.replays.start(EVERYTHING)
    await until(lambda: gateway._lanes.queued == 1)
    await gateway.replays.stop()
    fleet.gate.set()
    await until(lambda: gateway._lanes.queued == 0)
    (letter,) = await gateway.dead_letters.find()
    assert letter.replays == 0


async def test_letters_outlive_a_restart_and_the_newest_jobs_are_remembered(start_gateway, tmp_path: Path) -> None:
    gateway = await start_gateway(data_dir=tmp_path / "one")
    await send(gateway, uplink("a", b"nonsense"))
    jobs = [await gateway.replays.start(LetterFilter(ids=()))]
    for _ in range(24):
        await until(lambda: gateway.replays.running() is None)
        await asyncio.sleep(0)
        jobs.append(await gateway.replays.start(LetterFilter(ids=())))
    assert [gateway.replays.get(job.id) is job for job in jobs] == [False] * 5 + [True] * 20
    await gateway.stop()
    again = await start_gateway(data_dir=tmp_path / "one")
    assert await again.dead_letters.counts() == {"invalid_json": 1}

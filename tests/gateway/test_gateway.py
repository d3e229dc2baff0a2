"""The whole gateway over a memory store: dispatch, order, back-pressure, the way down, start and stop, erasure."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.reason import ReasonCode
from gateway.bus import Bus
from gateway.drain import DrainOptions
from gateway.gateway import Gateway, GatewayOptions
from gateway.journal import JournalOptions
from gateway.journal_file import JournalLocked
from gateway.link import Outcome, Uplink
from gateway.readings import Reading
from gateway.store import Query, StoreRejected, StoreUnavailable
from tests.gateway.fakes import START_MS, Answers, Clock, FakeLink, Fleet, MemoryStore, until, uplink

NO_LINGER = DrainOptions(linger_s=0.0)
ALL = Query(device_id="a", start_ms=0, end_ms=1 << 50)


async def send(gateway: Gateway, *uplinks: Uplink) -> list[Outcome]:
    answers = Answers()
    gateway.uplinks(uplinks, answers)
    outcomes = await answers.wait()
    assert len(answers.batches) == 1
    return outcomes


async def test_a_mixed_batch_goes_to_its_lanes_and_is_answered_once_in_order(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.disabled.add("gone")
    outcomes = await send(
        gateway,
        uplink("a", b'{"t": 1}'),
        uplink("a", b"{}", channel="twin/reported"),
        uplink("gone", b'{"t": 1}'),
        uplink("a", b"{}", channel="commands/c1/status"),
        uplink("a", b"{}", channel="twin/desired"),
        uplink("a", b"nonsense"),
        uplink("gone", b"{}", channel="events"),
    )
    assert [(o.code, o.reason) for o in outcomes] == [
        (ReasonCode.SUCCESS, ""),
        (ReasonCode.SUCCESS, ""),
        (ReasonCode.NOT_AUTHORIZED, "unknown_device"),
        (ReasonCode.SUCCESS, ""),
        (ReasonCode.TOPIC_NAME_INVALID, "unknown_channel"),
        (ReasonCode.PAYLOAD_FORMAT_INVALID, "invalid_json"),
        (ReasonCode.NOT_AUTHORIZED, "unknown_device"),
    ]
    assert [up.channel for up in fleet.handled] == ["twin/reported", "commands/c1/status"]
    assert [told[0] for told in fleet.told] == ["refused"] * 4
    letters = await gateway.dead_letters.list()
    assert sorted((letter.device_id, letter.reason) for letter in letters) == [
        ("a", "invalid_json"),
        ("a", "unknown_channel"),
    ]
    stats = gateway.stats()
    assert stats.messages == 7
    assert stats.readings == 1
    assert stats.refused == {"unknown_device": 2, "unknown_channel": 1, "invalid_json": 1}


async def test_in_quarantine_a_device_reaches_its_twin_alone(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.quarantined.add("a")
    [alone] = await send(gateway, uplink("a", b'{"t": 1}'))
    outcomes = await send(
        gateway,
        uplink("a", b'{"t": 1}'),
        uplink("b", b'{"t": 1}'),
        uplink("a", b"{}", channel="events"),
        uplink("a", b"{}", channel="twin/reported"),
        uplink("a", b"{}", channel="twin/get"),
        uplink("a", b"{}", channel="commands/c1/status"),
    )
    refused = (ReasonCode.NOT_AUTHORIZED, "quarantined")
    taken = (ReasonCode.SUCCESS, "")
    assert (alone.code, alone.reason) == refused
    assert [(o.code, o.reason) for o in outcomes] == [refused, taken, refused, taken, taken, refused]
    assert [up.channel for up in fleet.handled] == ["twin/reported", "twin/get"]
    assert await gateway.dead_letters.list() == []
    assert gateway.stats().readings == 1


async def test_an_acknowledged_reading_is_in_the_next_answer_of_a_slow_store(
    start_gateway, memory_store: MemoryStore, clock: Clock
) -> None:
    memory_store.visible_after_s = 5.0
    gateway = await start_gateway(drain=NO_LINGER)
    for number in range(30):
        await send(gateway, uplink("a", b'{"t": %d}' % number))
        assert (await gateway.history.latest("a"))["t"][1] == number
        series = (await gateway.history.query(ALL))["t"]
        assert series.v == list(range(number + 1))
        buckets = Query(device_id="a", start_ms=START_MS, end_ms=START_MS + 100_000, buckets=3)
        assert sum((await gateway.history.query(buckets))["t"].v) > 0 or number == 0
        clock.move(0.4)
        gateway.drain.wake()


async def test_control_messages_keep_their_order_per_device(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    batches = []
    for number in range(30):
        answers = Answers()
        batches.append(answers)
        gateway.uplinks([uplink(f"d{device}", b"%d" % number, channel="twin/reported") for device in range(5)], answers)
    for answers in batches:
        await answers.wait()
    for device in range(5):
        numbers = [int(up.payload) for up in fleet.handled if up.device_id == f"d{device}"]
        assert numbers == list(range(30))


async def test_a_slow_device_s_control_message_does_not_hold_up_another_lane(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway(control_workers=2)
    fleet.gate = asyncio.Event()
    stuck = Answers()
    gateway.uplinks([uplink("a", b"{}", channel="twin/get")], stuck)
    await asyncio.sleep(0)
    assert [o.reason for o in await send(gateway, uplink("a", b'{"t": 1}'))] == [""]  # telemetry flows
    assert stuck.batches == []
    fleet.gate.set()
    await stuck.wait()


async def test_full_control_queues_answer_busy_at_once_and_are_bounded_in_bytes(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway(control_workers=1, control_queue_limit=10, control_limit_bytes=5000)
    fleet.gate = asyncio.Event()
    answers = [Answers() for _ in range(40)]
    for number, one in enumerate(answers):
        gateway.uplinks([uplink("a", b"%d" % number, channel="twin/reported")], one)
    busy = [outcome for one in answers for batch in one.batches for outcome in batch]
    assert len(busy) == 30
    assert {(o.code, o.reason, o.retry_after_s) for o in busy} == {(ReasonCode.SERVER_BUSY, "busy", 1.0)}
    assert gateway.stats().control_busy == 30
    assert gateway.stats().control_queued == 10
    fleet.gate.set()
    await until(lambda: gateway.stats().control_queued == 0)
    assert len(fleet.handled) == 10
    fleet.gate.clear()
    big = [Answers() for _ in range(4)]
    for one in big:
        gateway.uplinks([uplink("a", b"x" * 2000, channel="twin/reported")], one)
    assert [len(one.batches) for one in big] == [0, 0, 1, 1]
    fleet.gate.set()
    await big[1].wait()
    assert await gateway.dead_letters.count() == 0  # temporary: not the message's fault


async def test_a_control_message_that_breaks_the_fleet_is_our_fault_and_may_come_again(
    start_gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway()
    (outcome,) = await send(gateway, uplink("a", b"boom", channel="twin/reported"))
    assert (outcome.code, outcome.reason) == (ReasonCode.UNSPECIFIED_ERROR, "internal_error")
    assert outcome.retry_after_s
    assert "handling a message on twin/reported failed" in caplog.text
    assert (await send(gateway, uplink("a", b"{}", channel="twin/reported")))[0].reason == ""


async def test_what_the_fleet_refuses_becomes_a_dead_letter_and_a_live_message(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.outcome = Outcome(code=ReasonCode.PAYLOAD_FORMAT_INVALID, reason="invalid_json", detail="not an object")
    with gateway.bus.subscribe(["messages"]) as subscription:
        await send(gateway, uplink("a", b"[]", channel="twin/reported"))
        (event,) = subscription.drain()
    assert event.data["kind"] == "message_refused"
    assert event.data["data"]["channel"] == "twin/reported"
    assert fleet.told == [("refused", "a", "invalid_json")]


async def test_telemetry_waits_then_is_refused_when_the_journal_is_full_and_the_store_down(
    start_gateway, memory_store: MemoryStore, clock: Clock
) -> None:
    def refuse(readings: Sequence[Reading]) -> None:
        raise StoreUnavailable("down")

    memory_store.fail = refuse
    gateway = await start_gateway(
        journal=JournalOptions(limit_bytes=2000, wait_limit_s=0.05), drain=DrainOptions(linger_s=0.0, retry_cap_s=0.01)
    )
    taken = []
    while True:
        answers = Answers()
        number = len(taken)
        gateway.uplinks([uplink("a", b'{"t": %d}' % number)], answers)
        await asyncio.sleep(0.003)
        (outcome,) = await answers.wait()
        if outcome.code.is_error:
            break
        taken.append(number)
    assert outcome.reason == "held_back"
    assert 3 < len(taken) < 100
    assert gateway.stats().journal.state == "full"
    # Devices that go on sending are answered at once, and control still works.
    assert (await send(gateway, uplink("b", b'{"t": 1}')))[0].reason == "held_back"
    assert (await send(gateway, uplink("b", b"{}", channel="twin/get")))[0].reason == ""
    memory_store.fail = lambda readings: None
    clock.move(60)
    gateway.drain.wake()
    await until(lambda: gateway.stats().journal.state == "ok")
    assert (await send(gateway, uplink("a", b'{"t": -1}')))[0].reason == ""
    assert sorted((await gateway.history.query(ALL))["t"].v) == [-1, *taken]


async def test_a_rejected_reading_becomes_a_dead_letter(start_gateway, memory_store: MemoryStore) -> None:

    def reject(readings: Sequence[Reading]) -> None:
        if any(reading.metric == "bad" for reading in readings):
            raise StoreRejected("field type conflict")

    memory_store.fail = reject
    gateway = await start_gateway(drain=NO_LINGER)
    await send(gateway, uplink("a", b'{"good": 1, "bad": 2, "fine": 3}'))
    await until(lambda: gateway.drain.stats().rejected == 1)
    (letter,) = await gateway.dead_letters.list("a")
    assert (letter.reason, letter.detail) == ("store_rejected", "field type conflict")
    assert '"bad":2' in letter.payload
    assert {key[1] for key in memory_store.points} == {"good", "fine"}


async def test_a_late_reading_is_stored_and_never_becomes_the_latest(start_gateway, clock: Clock) -> None:
    gateway = await start_gateway(drain=NO_LINGER)
    for age_ms in (0, 60_000, 10_000, 86_400_000):
        await send(gateway, uplink("a", b'{"ts": %d, "values": {"t": %d}}' % (START_MS - age_ms, age_ms)))
        clock.move(1)
        assert (await gateway.history.latest("a"))["t"][1] == 0
    await until(lambda: gateway.stats().journal.batches == 0)
    assert (await gateway.history.latest("a"))["t"][1] == 0
    series = (await gateway.history.query(ALL))["t"]
    assert series.v == [86_400_000, 60_000, 10_000, 0]


async def test_our_own_clock_set_back_and_forward_loses_and_refuses_nothing(start_gateway, clock: Clock) -> None:
    gateway = await start_gateway(drain=NO_LINGER)
    for number, jump_s in enumerate((0, -86_400, 10 * 365 * 86_400, -20 * 365 * 86_400, 1)):
        clock.ms += jump_s * 1000
        (outcome,) = await send(gateway, uplink("a", b'{"t": %d}' % number))
        assert not outcome.code.is_error, jump_s
        await send(gateway, uplink("a", b"nonsense"))
        stats = gateway.stats()
        assert stats.drain.lag_s >= 0.0
        assert stats.messages_per_s >= 0.0
    series = (await gateway.history.query(ALL))["t"]
    assert sorted(series.v) == [0, 1, 2, 3, 4]
    ids = [letter.id for letter in await gateway.dead_letters.find()]
    assert ids == sorted(set(ids), reverse=True)


async def test_a_restart_with_the_clock_set_back_uses_no_id_again_and_loses_nothing(
    start_gateway, memory_store: MemoryStore, clock: Clock
) -> None:
    ids: list[int] = []
    seqs: list[int] = []
    for number, jump_s in enumerate((0, -86_400, -365 * 86_400)):
        clock.ms += jump_s * 1000
        gateway = await start_gateway(drain=NO_LINGER)
        (outcome,) = await send(gateway, uplink("a", b'{"t": %d}' % number))
        assert not outcome.code.is_error
        await send(gateway, uplink("a", b"nonsense"))
        ids.append((await gateway.dead_letters.find(limit=1))[0].id)
        seqs.append(gateway.journal.last_seq)
        await until(lambda g=gateway: g.stats().journal.batches == 0)  # type: ignore[misc] # nothing left to count from
        assert gateway.stats().drain.lag_s >= 0.0
        await gateway.stop()
    assert ids == sorted(set(ids))
    assert seqs == sorted(set(seqs))
    assert sorted(value for value, _ in memory_store.points.values()) == [0, 1, 2]


async def test_messages_go_down_every_link_and_one_that_fails_stops_no_other(start_gateway) -> None:
    class Broken(FakeLink):
        async def send(self, downlink: object) -> bool:
            raise OSError("gone")

    links = [Broken("broken"), FakeLink("here", ["a"]), FakeLink("there")]
    gateway = await start_gateway(links=links)
    assert await gateway.send("a", "twin/desired", b"{}") is True
    assert await gateway.send("b", "status", b"{}", retain=True) is False
    assert [downlink.retain for downlink in links[2].sent] == [False, True]
    assert await gateway.kick("a", "revoked") == 1
    assert await gateway.kick("b", "revoked") == 0


async def test_comings_and_goings_are_passed_on(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    gateway.connected("a", "fake", "10.0.0.1")
    gateway.disconnected("a", "fake", "bye")
    assert fleet.told == [("connected", "a", "fake", "10.0.0.1"), ("disconnected", "a", "fake", "bye")]


async def test_stop_lets_everything_taken_over_reach_the_store(
    start_gateway, memory_store: MemoryStore, fleet: Fleet
) -> None:
    link = FakeLink()
    gateway = await start_gateway(links=[link])
    answers = Answers()
    gateway.uplinks([uplink("a", b'{"t": %d}' % n) for n in range(50)], answers)
    gateway.uplinks([uplink("a", b"{}", channel="twin/get")], Answers())
    await gateway.stop()
    assert answers.codes == [ReasonCode.SUCCESS] * 50
    assert len(memory_store.points) == 50
    assert len(fleet.handled) == 1
    assert not link.running
    assert memory_store.opened == 0
    late = Answers()
    gateway.uplinks([uplink("a", b'{"t": 1}'), uplink("a", b"{}", channel="twin/get")], late)
    assert late.codes == [ReasonCode.SERVER_SHUTTING_DOWN] * 2
    await gateway.stop()


async def test_stop_answers_control_messages_that_are_stuck(start_gateway, fleet: Fleet) -> None:
    gateway = await start_gateway()
    fleet.gate = asyncio.Event()
    answers = Answers()
    for _ in range(3):
        gateway.uplinks([uplink("a", b"{}", channel="twin/get")], answers)
    await asyncio.sleep(0)
    await gateway._lanes.stop(limit_s=0.01)
    assert answers.codes == [ReasonCode.SERVER_SHUTTING_DOWN] * 3
    assert gateway.stats().control_queued == 0


async def test_after_an_outage_and_a_restart_nothing_is_missing(
    start_gateway, memory_store: MemoryStore, clock: Clock
) -> None:
    def refuse(readings: Sequence[Reading]) -> None:
        raise StoreUnavailable("down")

    memory_store.fail = refuse
    first = await start_gateway()
    for number in range(10):
        await send(first, uplink("a", b'{"t": %d}' % number))
    clock.move(1)
    assert first.stats().drain.lag_s == 1
    await first.stop()
    memory_store.fail_open = lambda: refuse([])
    second = await start_gateway(drain=NO_LINGER)
    with pytest.raises(StoreUnavailable):
        await second.history.query(ALL)
    assert second.stats().drain.lag_s == 1
    await send(second, uplink("a", b'{"t": 10}'))
    memory_store.fail = lambda readings: None
    memory_store.fail_open = lambda: None
    clock.move(120)
    second.drain.wake()
    await until(lambda: second.stats().journal.batches == 0)
    assert (await second.history.query(ALL))["t"].v == list(range(11))


async def test_a_second_gateway_on_the_same_directory_is_told_so_and_leaves_nothing_running(start_gateway) -> None:
    await start_gateway()
    link = FakeLink()
    with pytest.raises(JournalLocked):
        await start_gateway(links=[link])
    assert link.receiver is None


async def test_a_link_that_cannot_start_leaves_nothing_running(start_gateway, memory_store: MemoryStore) -> None:
    class Broken(FakeLink):
        async def start(self, receiver: object) -> None:
            raise OSError("address in use")

    with pytest.raises(OSError, match="address in use"):
        await start_gateway(links=[FakeLink(), Broken()])
    assert memory_store.opened == 0
    await start_gateway()  # the journal is free


async def test_a_forgotten_device_is_gone_everywhere_and_may_begin_anew(
    start_gateway, memory_store: MemoryStore, clock: Clock
) -> None:
    memory_store.visible_after_s = 5.0
    gateway = await start_gateway(drain=NO_LINGER)
    await send(gateway, uplink("a", b'{"t": 1}'), uplink("b", b'{"t": 1}'), uplink("a", b"nonsense"))
    await until(lambda: len(memory_store.points) == 2)
    await send(gateway, uplink("a", b'{"t": 2}'))
    await gateway.history.latest("a")
    await gateway.forget_device("a")
    assert await gateway.history.query(ALL) == {}
    assert await gateway.history.latest("a") == {}
    assert await gateway.dead_letters.count("a") == 0
    clock.move(10)
    gateway.drain.wake()
    await until(lambda: gateway.stats().journal.batches == 0)
    assert {key[0] for key in memory_store.points} == {"b"}
    (outcome,) = await send(gateway, uplink("a", b'{"t": "text now"}'))
    assert outcome.reason == ""
    assert (await gateway.history.latest("a"))["t"][1] == "text now"
    assert (await gateway.history.latest("b"))["t"][1] == 1


async def test_before_start_messages_are_refused_for_now(tmp_path: Path, memory_store: MemoryStore) -> None:

    gateway = Gateway(GatewayOptions(data_dir=tmp_path), store=memory_store, links=[], bus=Bus())
    answers = Answers()
    gateway.uplinks([uplink("a", b"{}")], answers)
    assert answers.codes == [ReasonCode.UNSPECIFIED_ERROR]
    await gateway.stop()

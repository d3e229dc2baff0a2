"""Clocks of devices: found off when they stay off, and not because a message was late."""

import time
from collections.abc import Iterable

from gateway.clocks import WINDOW_MS, Clocks
from tests.gateway.fakes import START_MS, Answers, uplink

HOUR_MS = 3_600_000
Change = tuple[str, int, bool]


def heard(
    clocks: Clocks, skews_ms: Iterable[int], *, every_ms: int = WINDOW_MS, start_ms: int = START_MS
) -> list[Change]:
    """The changes told of while a device gives times that are off by so much, one message after another."""
    changes: list[Change] = []
    clocks.on_change = lambda *change: changes.append(change)
    for number, skew_ms in enumerate(skews_ms):
        now_ms = start_ms + number * every_ms
        clocks.saw("a", now_ms + skew_ms, now_ms)
    return changes


def test_a_clock_is_off_when_two_windows_are_and_right_at_the_first_that_is() -> None:
    clocks = Clocks()
    assert clocks.skew_ms("a") is None
    assert heard(clocks, [HOUR_MS]) == []
    assert clocks.skew_ms("a") == HOUR_MS
    clocks = Clocks()
    assert heard(clocks, [HOUR_MS] * 3) == [("a", HOUR_MS, True)]
    assert (clocks.off, clocks.is_off("a")) == (1, True)
    clocks = Clocks()
    assert heard(clocks, [-HOUR_MS] * 5 + [0, 0, 0]) == [("a", -HOUR_MS, True), ("a", 0, False)]
    assert (clocks.off, clocks.is_off("a"), clocks.skew_ms("a")) == (0, False, 0)


def test_a_clock_within_the_limit_is_right() -> None:
    assert heard(Clocks(), [60_000, -60_000, 59_000] * 3) == []


def test_a_device_that_sends_what_it_had_buffered_is_not_off() -> None:
    clocks = Clocks()
    skews = [-HOUR_MS + n * 60_000 for n in range(60)] + [-200]
    assert heard(clocks, skews * 5, every_ms=WINDOW_MS // len(skews)) == []
    assert clocks.skew_ms("a") == -200


def test_our_own_clock_set_back_judges_nobody() -> None:
    clocks = Clocks()
    heard(clocks, [0] * 3)
    assert heard(clocks, [0] * 3, start_ms=START_MS - 24 * HOUR_MS) == []
    assert clocks.skew_ms("a") == 0
    day = 24 * HOUR_MS
    assert heard(clocks, [day, day], start_ms=START_MS - 2 * day) == []  # one window is not enough


def test_only_so_many_devices_are_kept() -> None:
    clocks = Clocks(devices_kept=100)
    for number in range(1000):
        for minute in range(3):
            clocks.saw(f"d{number}", HOUR_MS, minute * WINDOW_MS)
    assert len(clocks._windows) == 100
    assert clocks.off == 100
    assert clocks.skew_ms("d0") is None
    for number in range(1000):
        clocks.forget(f"d{number}")
    assert clocks.off == 0


def test_hearing_a_device_costs_little() -> None:
    clocks = Clocks()
    began = time.perf_counter()
    for number in range(100_000):
        clocks.saw("a", number, number)
    assert (time.perf_counter() - began) / 100_000 < 5e-6  # 0.2 us on a machine that is idle


async def test_the_gateway_watches_times_that_devices_give_and_no_others(start_gateway, clock) -> None:
    gateway = await start_gateway()

    async def send(device_id: str, payload: bytes) -> None:
        answers = Answers()
        gateway.uplinks([uplink(device_id, payload)], answers)
        await answers.wait()

    for _ in range(3):
        for device_id, ts_ms in (("late", clock.now_ms() - HOUR_MS), ("right", clock.now_ms())):
            await send(device_id, b'{"ts": %d, "values": {"t": 1}}' % ts_ms)
        await send("none", b'{"t": 1}')
        clock.move(61)
    assert [gateway.clocks.skew_ms(name) for name in ("late", "right", "none")] == [-HOUR_MS, 0, None]
    assert gateway.stats().clocks_off == 1
    await gateway.forget_device("late")
    assert gateway.clocks.skew_ms("late") is None

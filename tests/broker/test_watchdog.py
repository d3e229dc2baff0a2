"""A loop that stands still is told of, with the place; one that turns is not."""

import asyncio
import gc
import logging
import threading
import time
import weakref

import pytest

from broker.watchdog import BUCKETS_S, Watchdog


def stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_loop_that_stands_still_is_told_of_once_with_the_guilty_function(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watchdog = Watchdog(stall_s=0.2)
    watchdog.start()
    with caplog.at_level(logging.WARNING, "broker.watchdog"):
        await asyncio.sleep(0.15)
        stand_still(1.0)
        await asyncio.sleep(0.15)
    watchdog.stop()
    where = [record.getMessage() for record in caplog.records if "here:" in record.getMessage()]
    assert len(where) == 1
    assert "stand_still" in where[0]
    assert "stood still for" in caplog.records[-1].getMessage()
    assert watchdog.stalls == 1
    assert sum(watchdog.counts[BUCKETS_S.index(0.5) + 1 :]) == 1  # later than 0.5 s
    assert watchdog.late_s > 0.5


class Heavy:
    """What a callback holds."""


async def test_what_the_loop_was_doing_is_not_kept_alive_by_having_been_told_of() -> None:
    watchdog = Watchdog(stall_s=0.1)
    watchdog.start()

    def hold_and_stand_still() -> weakref.ref[Heavy]:
        heavy = Heavy()
        stand_still(0.5)
        return weakref.ref(heavy)

    held = hold_and_stand_still()
    await asyncio.sleep(0.3)
    assert watchdog.stalls == 1
    gc.collect()
    assert held() is None
    watchdog.stop()


async def test_a_loop_that_turns_is_not_told_of_and_the_thread_ends(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog(stall_s=5.0)
    watchdog.start()
    await asyncio.sleep(0.35)
    watchdog.stop()
    assert sum(watchdog.counts) >= 1
    assert not watchdog.stalls
    assert not caplog.records
    assert "loop watchdog" not in {thread.name for thread in threading.enumerate()}

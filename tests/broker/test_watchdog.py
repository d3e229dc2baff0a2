"""A loop that stands still is told of, with the place; one that turns is not."""

import asyncio
import logging
import threading
import time

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


async def test_a_loop_that_turns_is_not_told_of_and_the_thread_ends(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog(stall_s=5.0)
    watchdog.start()
    await asyncio.sleep(0.35)
    watchdog.stop()
    assert sum(watchdog.counts) >= 1
    assert not watchdog.stalls
    assert not caplog.records
    assert "loop watchdog" not in {thread.name for thread in threading.enumerate()}

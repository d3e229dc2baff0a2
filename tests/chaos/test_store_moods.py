"""A store that refuses, breaks off, is slow, or writes and does not say so, while data comes at full rate.

`CHAOS_SECONDS` is how long each mood lasts (`make chaos`).
"""

import asyncio
import os
import statistics
import time
from pathlib import Path

import psutil
import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.paper_store import Mood, PaperStore, paper_store
from tests.chaos.senders import Fleet, sending
from tests.e2e.running import MooringProcess, operator, until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "3"))
DEVICES = 6
MIB = 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 20 * SECONDS)]


async def test_nothing_is_lost_twice_or_out_of_order_whatever_the_store_does(tmp_path: Path) -> None:
    async with paper_store() as store:
        server = MooringProcess(
            tmp_path / "data", MOORING_STORE__KIND="influxdb", MOORING_STORE__URL=store.url, MOORING_STORE__API="v2"
        )
        server.start()
        try:
            async with operator(server) as api:
                tokens = {f"load-{n}": await api.add_device(f"load-{n}") for n in range(DEVICES)}
            ledger = Ledger(int(time.time() * 1000) - 3_600_000)
            with sending(server, tokens, ledger) as fleet:
                await _stored(store, 500)
                resident: list[int] = []
                for mood in (Mood.REFUSING, Mood.CONFUSED, Mood.RESETTING, Mood.SLOW, Mood.SILENT):
                    await _in_mood(store, mood, fleet, server, resident)
                behind = fleet.acknowledged - store.count
                await _caught_up(store, fleet, behind)
                await asyncio.to_thread(fleet.stop)
            await until(lambda: _all_in(store, ledger), timeout_s=60)
        finally:
            assert server.stop() == 0
        ledger.close(store.of_devices())
        for device_id, account in ledger.accounts.items():
            assert not account.open, f"{device_id}: {len(account.open)} messages without an end"
            if account.refused:
                assert account.refused == {n for n in range(account.published) if n % 10 == 9}
        assert store.changed == 0
        assert store.repeated > 0, "what was written and not answered was not written again: the test is blind"
        assert all(times == sorted(times) for times in store.order.values()), "a series out of order"
        assert max(resident) < 300 * MIB
        assert statistics.median(resident[-5:]) - statistics.median(resident[:5]) < 64 * MIB
        assert "Traceback" not in server.log.read_text()


async def _in_mood(store: PaperStore, mood: Mood, fleet: Fleet, server: MooringProcess, resident: list[int]) -> None:
    """So many seconds of a mood: data goes on coming, memory is watched, and the store is not asked all the time."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    before, asked = fleet.acknowledged, len(store.requests)
    store.mood = mood
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        await asyncio.sleep(0.1)
        resident.append(process.memory_info().rss)
    assert fleet.acknowledged - before > 50 * SECONDS, f"{mood}: live data was starved"
    if mood is not Mood.SLOW:  # full jitter: the first tries may come at once, and never in a hot loop
        assert len(store.requests) - asked < 8 + 2 * SECONDS, mood


async def _caught_up(store: PaperStore, fleet: Fleet, behind: int) -> None:
    """In a good mood again the store gets what is owed at three times the live rate at least, and live data goes on."""
    store.mood = Mood.WELL
    had = store.count
    await _stored(store, 1, timeout_s=60 + SECONDS)  # the drain's own patience
    began, live = time.monotonic(), fleet.acknowledged
    await _stored(store, behind - (store.count - had), timeout_s=60)
    took_s = max(0.05, time.monotonic() - began)
    live_per_s = max(1.0, (fleet.acknowledged - live) / took_s)
    caught_per_s = (store.count - had) / took_s
    assert caught_per_s > 3 * live_per_s, f"{caught_per_s:.0f}/s caught up, {live_per_s:.0f}/s live"


async def _stored(store: PaperStore, more: int, timeout_s: float = 30.0) -> None:
    before = store.count

    async def claim() -> bool:
        return store.count >= before + more

    await until(claim, timeout_s, every_s=0.01)


async def _all_in(store: PaperStore, ledger: Ledger) -> bool:
    return store.count >= ledger.acknowledged

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

SECONDS = float(os.environ.get("CHAOS_SECONDS", "1.5"))
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
                    await _caught_up(store, fleet, fleet.acknowledged - store.count)
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
    """So many seconds of a mood, and until the store was asked in it: data goes on coming, and memory is watched."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    before, asked = fleet.acknowledged, len(store.requests)
    store.mood = mood
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends or len(store.requests) == asked or fleet.acknowledged == before:
        assert time.monotonic() < ends + 30, f"{mood}: live data was starved, or the store not asked"
        await asyncio.sleep(0.1)
        resident.append(process.memory_info().rss)
    if mood is not Mood.SLOW:  # full jitter: the first tries may come at once, and never in a hot loop
        in_mood_s = time.monotonic() - ends + SECONDS
        assert len(store.requests) - asked < 10 + 2 * in_mood_s, mood


async def _caught_up(store: PaperStore, fleet: Fleet, behind: int) -> None:
    """In a good mood again the store gets what is owed, and live data goes on meanwhile."""
    store.mood = Mood.WELL
    live = fleet.acknowledged
    await _stored(store, behind, timeout_s=60 + SECONDS)  # the drain's own patience, and the rest
    await until(lambda: _more(fleet, live), timeout_s=30)


async def _more(fleet: Fleet, than: int) -> bool:
    return fleet.acknowledged > than


async def _stored(store: PaperStore, more: int, timeout_s: float = 30.0) -> None:
    before = store.count

    async def claim() -> bool:
        return store.count >= before + more

    await until(claim, timeout_s, every_s=0.01)


async def _all_in(store: PaperStore, ledger: Ledger) -> bool:
    return store.count >= ledger.acknowledged

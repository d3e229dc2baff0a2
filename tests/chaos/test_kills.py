"""kill -9 of the server and of the store's own process at random moments, the drain in the middle of its writes.

Senders over MQTT 3.1.1, MQTT 5 and HTTP go on all the while. `CHAOS_KILLS` is how many times; with those of
tests/e2e/test_kill.py and tests/gateway/test_journal_kill.py a plain run makes more than fifty.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.chaos.ledger import Ledger, Point
from tests.chaos.senders import Fleet, sending
from tests.e2e.running import MooringProcess, Operator, operator, until
from tests.e2e.test_kill import stored
from tests.servers import Server, influxdb, victoria_metrics

KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
DEVICES = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180 + 20 * KILLS)]


@contextmanager
def no_store() -> Iterator[None]:
    """The embedded store: it is killed with the server."""
    yield None


STORES: dict[str, tuple[Callable[[], AbstractContextManager[Server | None]], dict[str, str]]] = {
    "embedded": (no_store, {}),
    "influxdb": (influxdb, {"MOORING_STORE__API": "v1"}),
    "victoriametrics": (victoria_metrics, {}),
}


@pytest.mark.parametrize(
    "kind",
    [
        "embedded",
        pytest.param("influxdb", marks=pytest.mark.servers),
        pytest.param("victoriametrics", marks=pytest.mark.servers),
    ],
)
async def test_what_was_acknowledged_outlives_kills_of_server_and_store(tmp_path: Path, kind: str) -> None:
    start_store, settings = STORES[kind]
    chance = random.Random(kind)
    with start_store() as store:
        if store is not None:
            settings = {**settings, "MOORING_STORE__KIND": kind, "MOORING_STORE__URL": store.url}
        server = MooringProcess(tmp_path / "data", **settings)
        server.start()
        try:
            async with operator(server) as api:
                tokens = {f"{kind}-{n}": await api.add_device(f"{kind}-{n}") for n in range(DEVICES)}
            ledger = Ledger(int(time.time() * 1000) - 3_600_000)
            with sending(server, tokens, ledger) as fleet:
                for number in range(KILLS):
                    await _more(fleet, 50)
                    await asyncio.sleep(chance.uniform(0.05, 0.4))
                    await asyncio.to_thread(_kill, server, store, number)
                await _more(fleet, 50)
                await asyncio.to_thread(fleet.stop)
            if store is not None:
                # Alone, and last: no start of the server comes after it that would bring the journal's rows once more.
                await asyncio.sleep(1.0)
                store.kill()
                store.start()
            async with operator(server) as api:
                # With the store back, and what is only journalled laid over its answers
                await until(lambda: _drained(api), timeout_s=90, every_s=0.2)
                found = await _found(api, ledger)
            ledger.close(found)
            assert all(len(account.acknowledged) > KILLS for account in ledger.accounts.values())
            assert "Traceback" not in server.log.read_text()
        finally:
            server.stop()


def _kill(server: MooringProcess, store: Server | None, number: int) -> None:
    """The server, the store, or both; what was killed is started again, and not at once."""
    if store is not None and number % 3 != 2:
        store.kill()
    if store is None or number % 3:
        server.kill()
        server.start()
    if store is not None and number % 3 != 2:
        store.start()


async def _more(fleet: Fleet, count: int) -> None:
    before = fleet.acknowledged

    async def claim() -> bool:
        return fleet.acknowledged >= before + count

    await until(claim, timeout_s=30)


async def _drained(api: Operator) -> bool:
    """Whether the journal has forgotten everything, so that what is found is found in the store."""
    async with api.session.get("/metrics") as answer:
        return "\nmooring_journal_batches 0.0\n" in await answer.text()


async def _found(api: Operator, ledger: Ledger) -> dict[str, list[Point]]:
    return {
        device_id: await stored(api, device_id, ledger.base_ms, ledger.base_ms + account.published)
        for device_id, account in ledger.accounts.items()
    }

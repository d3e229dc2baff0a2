"""Everything at once, by chance, for as long as is asked for: kills, a bad disk, a bad network, a clock that is set.

In the end every message of every device is accounted for: stored once and unchanged, or refused. `LEDGER_SECONDS` is
how long it goes on (`make ledger`: an hour), `LEDGER_SEED` which chance it is.
"""

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.senders import Fleet, sending
from tests.chaos.test_kills import _drained, _found
from tests.chaos.wires import Wire, wire
from tests.e2e.running import MooringProcess, operator, until
from tests.gateway.test_journal_faults import EIO, ENOSPC, LIBRARIES, need_libfiu

SECONDS = float(os.environ.get("LEDGER_SECONDS", "12"))
SEED = int(os.environ.get("LEDGER_SEED", "11"))
DEVICES = 6
PER_S = 100.0  # of one device over MQTT; those over HTTP take their turns
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("/no/libfaketime.so.1"))  # by machine
FAULTS = [
    ("posix/io/rw/pwrite", ENOSPC),
    ("posix/io/rw/pwrite/reduce", 0),
    ("posix/io/sync/fsync", EIO),
    ("posix/io/sync/fdatasync", EIO),
]
_NOT_OURS = (
    "time.sleep(_YIELD_S)",  # libfaketime lets it fail now and then after a leap; no clock of a real machine does
    "_handler_waiter.set_result",  # aiohttp 3.14, when a request ends as the server stops: logged, and nothing lost
)
LEAPS = ("+2d", "+3650d", "-12h")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + 3 * SECONDS)]


def need_faketime() -> None:
    if not FAKETIME.exists():
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("libfaketime is not installed; with CI=true that is a failure", pytrace=False)
        pytest.skip("libfaketime is not installed: no clock was set (Debian: apt-get install libfaketime)")


class Trouble:
    """What may happen, each for a moment; afterwards all is well again."""

    def __init__(self, server: MooringProcess, wires: list[Wire], clock: Path, control: Path, seed: int) -> None:
        self._server = server
        self._wires = wires
        self._clock = clock
        self._control = control
        self._chance = random.Random(seed)
        self.happened: Counter[str] = Counter()
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self.kill,
            self.stop,
            self.bad_disk,
            self.cut_network,
            self.held_network,
            self.slow_network,
            self.clock_set,
            self.killed_with_the_clock_set,
        ]

    async def next(self) -> None:
        """All kinds in turn, in an order that chance gives."""
        if not self.happened or sum(self.happened.values()) % len(self._kinds) == 0:
            self._chance.shuffle(self._kinds)
        kind = self._kinds[sum(self.happened.values()) % len(self._kinds)]
        self.happened[kind.__name__] += 1
        await kind()

    async def _moment(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, 1.0))

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        assert await asyncio.to_thread(self._server.stop) == 0
        await asyncio.to_thread(self._server.start)

    async def bad_disk(self) -> None:
        assert self._server.process is not None
        on = [f"enable_random name={name},probability=0.05,failinfo={number}" for name, number in FAULTS]
        off = [f"disable name={name}" for name, _ in FAULTS]
        for commands in (on, off):
            arguments = [argument for command in commands for argument in ("-c", command)]
            call = ["fiu-ctrl", "-f", str(self._control), *arguments, str(self._server.process.pid)]
            await asyncio.to_thread(subprocess.run, call, check=True, capture_output=True)
            await self._moment()

    async def cut_network(self) -> None:
        for one in self._wires:
            one.cut()

    async def held_network(self) -> None:
        for one in self._wires:
            one.hold()
        await self._moment()
        for one in self._wires:
            one.release()

    async def slow_network(self) -> None:
        for one in self._wires:
            one.delay_s = 0.05
        await self._moment()
        for one in self._wires:
            one.delay_s = 0.0

    async def clock_set(self) -> None:
        self._clock.write_text(self._chance.choice(LEAPS))
        await self._moment()
        self._clock.write_text("+0")

    async def killed_with_the_clock_set(self) -> None:
        self._clock.write_text(self._chance.choice(LEAPS))
        await self.kill()
        self._clock.write_text("+0")


async def test_every_message_is_accounted_for_whatever_happens(tmp_path: Path) -> None:
    need_libfiu()
    need_faketime()
    clock, control = tmp_path / "clock", tmp_path / "control"
    clock.write_text("+0")
    server = MooringProcess(
        tmp_path / "data",
        LD_PRELOAD=" ".join((*LIBRARIES, str(FAKETIME))),
        FIU_CTRL_FIFO=str(control),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        FAKETIME_NO_CACHE="1",
        NO_FAKE_STAT="1",
    )
    server.start()
    try:
        async with operator(server) as api:
            tokens = {f"load-{n}": await api.add_device(f"load-{n}") for n in range(DEVICES)}
        ledger = Ledger(int(time.time() * 1000) - 86_400_000 * 7)
        async with (
            wire(lambda: server.mqtt_port) as mqtt,
            wire(lambda: server.endpoints["device_http_port"]) as http,
        ):
            trouble = Trouble(server, [mqtt, http], clock, control, SEED)
            ports = SimpleNamespace(mqtt_port=mqtt.port, endpoints={"device_http_port": http.port})
            with sending(ports, tokens, ledger, per_s=PER_S) as fleet:  # type: ignore[arg-type]
                ends = time.monotonic() + SECONDS
                while time.monotonic() < ends or len(trouble.happened) < len(trouble._kinds):
                    await _more(fleet, 20)
                    await trouble.next()
                await _more(fleet, 20)
                await asyncio.to_thread(fleet.stop)
        async with operator(server) as api:
            await until(lambda: _drained(api), timeout_s=90, every_s=0.2)
            found = await _found(api, ledger)
        ledger.close(found)
        for device_id, account in ledger.accounts.items():
            assert account.acknowledged, device_id
        total = sum(account.published for account in ledger.accounts.values())
        print(f"{total:,} messages accounted for, through {dict(trouble.happened)}")  # noqa: T201
        faults = [line for line in server.log.read_text().splitlines() if "Traceback" in line]
        assert not [fault for fault in faults if not any(known in fault for known in _NOT_OURS)]
    finally:
        server.stop()


async def _more(fleet: Fleet, count: int) -> None:
    before = fleet.acknowledged

    async def claim() -> bool:
        return fleet.acknowledged >= before + count

    await until(claim, timeout_s=60)

"""A store that answers before it has written to its disk, killed in between: what it forgot is written again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store import Buffering, StoreUnavailable
from tests.gateway.fakes import Clock, MemoryStore
from tests.gateway.test_drain import Rig, reading


class BufferingStore(MemoryStore):
    """Has on disk what is five seconds old; `kill` starts it anew with that alone."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, visible_after_s=5.0)
        self.runs = 1
        self.asked = 0
        self.is_away = False
        self.tells = True

    def kill(self) -> None:
        self.runs += 1
        self.points = {key: (value, at) for key, (value, at) in self.points.items() if at + 5.0 <= self._clock.seconds}

    async def run(self) -> str | None:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return str(self.runs) if self.tells else None


@pytest.fixture
async def rig(tmp_path: Path, clock: Clock) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "journal.db", clock, BufferingStore(clock), linger_s=0.0, run_check_s=2.0)
    await rig.open()
    yield rig
    await rig.journal.close()


async def pass_by(rig: Rig, seconds: int) -> None:
    for _ in range(seconds):
        rig.clock.move(1)
        await rig.settle()


def numbers(rig: Rig) -> list[int]:
    return sorted(ts for _, _, ts in rig.store.points)


async def test_what_a_killed_store_forgot_is_written_again_though_no_write_failed(rig: Rig) -> None:
    store = rig.store
    assert isinstance(store, BufferingStore)
    assert isinstance(store, Buffering)
    await rig.put(reading(1))
    await rig.settle()
    await pass_by(rig, 4)
    await rig.put(reading(2))
    await rig.settle()
    store.kill()
    assert numbers(rig) == []
    await pass_by(rig, 12)
    assert numbers(rig) == [1, 2]
    assert rig.rows == 0


async def test_what_is_on_its_disk_is_not_written_again(rig: Rig) -> None:
    store = rig.store
    assert isinstance(store, BufferingStore)
    await rig.put(reading(1))
    await rig.settle()
    await pass_by(rig, 6)
    assert rig.rows == 0
    store.kill()
    await rig.put(reading(2))
    await rig.settle()
    await pass_by(rig, 8)
    assert numbers(rig) == [1, 2]
    assert [[r.ts_ms for r in write] for write in store.writes] == [[1], [2]]


async def test_killed_again_and_again_nothing_is_missing_at_last(rig: Rig) -> None:
    store = rig.store
    assert isinstance(store, BufferingStore)
    for number in range(30):
        await rig.put(reading(number))
        await pass_by(rig, 1)
        if number % 4 == 3:
            store.kill()
    await pass_by(rig, 12)
    assert numbers(rig) == list(range(30))
    assert rig.rows == 0


async def test_nothing_is_forgotten_while_the_store_is_away(rig: Rig) -> None:
    store = rig.store
    assert isinstance(store, BufferingStore)
    await rig.put(reading(1))
    await rig.settle()
    store.is_away = True
    await pass_by(rig, 20)
    assert rig.rows == 1
    store.is_away = False
    await pass_by(rig, 5)
    assert rig.rows == 0


async def test_a_store_is_not_asked_all_the_time_and_one_that_does_not_say_is_believed(rig: Rig) -> None:
    store = rig.store
    assert isinstance(store, BufferingStore)
    for number in range(60):
        await rig.put(reading(number))
        await pass_by(rig, 1)
    assert store.asked < 40
    store.tells = False
    await pass_by(rig, 20)
    assert numbers(rig) == list(range(60))
    assert rig.rows == 0

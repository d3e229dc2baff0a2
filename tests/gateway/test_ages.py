"""Nothing grows old by a leap of the clock, until the clock has stood for a day."""

import logging
from pathlib import Path

import pytest

from gateway.ages import Ages
from gateway.readings import Reading
from gateway.store import Query
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore

DAY_MS = 86_400_000
YEARS_MS = 3_653 * DAY_MS
NOW_MS = 1_763_000_000_000


class Clocks:
    def __init__(self) -> None:
        self.wall_ms = NOW_MS
        self.running_s = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.wall_ms += int(seconds * 1000)
        self.running_s += seconds

    def ages(self, last_ran_ms: int | None = None, file: Path | None = None) -> Ages:
        return Ages(lambda: self.wall_ms, lambda: self.running_s, last_ran_ms=last_ran_ms, file=file)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_time_passes(clocks: Clocks) -> None:
    ages = clocks.ages()
    for seconds in (0, 1, 60, 40_000, 40_000, 7 * 86_400):  # asked for every minute; a suspended machine is later
        clocks.pass_by(seconds)
        assert ages.now_ms() == clocks.wall_ms
    assert not ages.doubts


@pytest.mark.parametrize("leap_ms", [DAY_MS + 1000, 30 * DAY_MS, YEARS_MS])
def test_a_leap_counts_when_it_has_stood_for_a_day(
    clocks: Clocks, leap_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    ages = clocks.ages()
    clocks.wall_ms += leap_ms
    with caplog.at_level(logging.INFO):
        for _ in range(23):
            assert ages.now_ms() == clocks.wall_ms - leap_ms
            clocks.pass_by(3600)
        assert ages.doubts
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "leapt ahead" in caplog.text
        clocks.pass_by(3600)
        assert ages.now_ms() == clocks.wall_ms
    assert not ages.doubts
    assert "stood for a day" in caplog.text


@pytest.mark.parametrize("leap_ms", [-YEARS_MS, -DAY_MS, -1000, 1000, 3_600_000, DAY_MS - 1000])
def test_small_corrections_and_a_clock_set_back_are_followed_at_once(clocks: Clocks, leap_ms: int) -> None:
    ages = clocks.ages()
    clocks.wall_ms += leap_ms
    assert ages.now_ms() == clocks.wall_ms


def test_a_clock_that_comes_back_is_believed_again(clocks: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    ages = clocks.ages()
    clocks.wall_ms += YEARS_MS
    assert ages.now_ms() == NOW_MS
    clocks.wall_ms -= YEARS_MS
    with caplog.at_level(logging.INFO):
        assert ages.now_ms() == NOW_MS
    assert "is back" in caplog.text
    clocks.wall_ms += YEARS_MS  # and leaps again: the day begins anew
    clocks.pass_by(86_000)
    assert ages.now_ms() == clocks.wall_ms - YEARS_MS


@pytest.mark.parametrize(("gap_ms", "doubts"), [(0, False), (6 * DAY_MS, False), (8 * DAY_MS, True), (YEARS_MS, True)])
def test_a_server_that_starts_long_after_it_last_ran_waits(clocks: Clocks, gap_ms: int, doubts: bool) -> None:
    ages = clocks.ages(last_ran_ms=NOW_MS - gap_ms)
    assert ages.now_ms() == (NOW_MS - gap_ms if doubts else NOW_MS)
    clocks.pass_by(86_400)
    assert ages.now_ms() == clocks.wall_ms


def test_a_server_that_last_ran_in_the_future_is_not_held_up(clocks: Clocks) -> None:
    assert clocks.ages(last_ran_ms=NOW_MS + YEARS_MS).now_ms() == NOW_MS


def test_a_restart_does_not_make_a_doubted_clock_right(clocks: Clocks, tmp_path: Path) -> None:
    file = tmp_path / "believed_time"
    ages = clocks.ages(file=file)
    clocks.wall_ms += 3 * DAY_MS
    assert ages.now_ms() == NOW_MS
    for _ in range(3):  # what has been written since is stamped by the doubtful clock
        clocks.pass_by(3600)
        ages = clocks.ages(last_ran_ms=clocks.wall_ms, file=file)
        assert ages.now_ms() <= NOW_MS
        assert ages.doubts
    clocks.pass_by(86_400)
    assert ages.now_ms() == clocks.wall_ms
    assert not file.exists()
    assert clocks.ages(last_ran_ms=clocks.wall_ms, file=file).now_ms() == clocks.wall_ms


def test_a_clock_that_was_set_right_while_no_server_ran_is_believed(clocks: Clocks, tmp_path: Path) -> None:
    file = tmp_path / "believed_time"
    ages = clocks.ages(file=file)
    clocks.wall_ms += YEARS_MS
    ages.now_ms()
    clocks.wall_ms -= YEARS_MS
    assert clocks.ages(last_ran_ms=NOW_MS + YEARS_MS, file=file).now_ms() == clocks.wall_ms
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"soon", b"\xff\x00"])
def test_a_broken_note_is_as_none(clocks: Clocks, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "believed_time"
    file.write_bytes(content)
    assert clocks.ages(last_ran_ms=NOW_MS, file=file).now_ms() == NOW_MS


def test_a_note_that_cannot_be_written_is_told_of(
    clocks: Clocks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ages = clocks.ages(file=tmp_path / "nowhere" / "believed_time")
    clocks.wall_ms += YEARS_MS
    assert ages.now_ms() == NOW_MS
    assert "cannot be written" in caplog.text


def test_each_leap_has_to_stand_for_a_day_of_its_own(clocks: Clocks) -> None:
    ages = clocks.ages()
    clocks.wall_ms += 3 * DAY_MS
    ages.now_ms()
    clocks.pass_by(86_000)
    clocks.wall_ms += YEARS_MS
    ages.now_ms()
    clocks.pass_by(86_000)
    assert ages.now_ms() == clocks.wall_ms - YEARS_MS - 3 * DAY_MS
    clocks.pass_by(400)
    assert ages.now_ms() == clocks.wall_ms


@pytest.fixture
def ten_days() -> list[Reading]:
    return [Reading("pump-7", "t", NOW_MS - day * DAY_MS, float(day)) for day in range(10)]


async def test_a_store_keeps_its_days_when_the_clock_leaps(
    tmp_path: Path, clocks: Clocks, ten_days: list[Reading]
) -> None:
    ages = clocks.ages()
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "readings"), now_ms=ages.now_ms)
    await store.open()
    await store.write(ten_days)
    clocks.wall_ms += YEARS_MS

    async def kept() -> int:
        await store._writing(store._days.sweep)
        query = Query(device_id="pump-7", metrics=("t",), start_ms=NOW_MS - 20 * DAY_MS, end_ms=NOW_MS + 1)
        return sum(len(series.t) for series in (await store.query(query)).values())

    assert await kept() == 10
    assert store.kept_since_ms("pump-7") < NOW_MS  # and goes on taking what devices with a right clock send
    clocks.pass_by(86_400)
    assert await kept() == 0  # it was right after all
    await store.close()

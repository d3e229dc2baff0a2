"""A file system that lies to the journal: cut short anywhere, a bit flipped anywhere. It opens, what is sound comes
back as it was, and what is lost is said aloud.

`CHAOS_FLIPS` sets how many places are tried (`make chaos`).
"""

import contextlib
import errno
import logging
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.frames import Readings, frames_of
from gateway.journal_file import JournalFile, JournalUnwritable
from gateway.journal_wal import mend_wal
from gateway.kinds import Fixed
from gateway.readings import Kind, Reading
from gateway.recent import EVERY_DEVICE

FLIPS = int(os.environ.get("CHAOS_FLIPS", "120"))
ROWS = 16
FRAME = 24 + 4096
PAGES = 20
"""More than the journal of these tests has."""


class Found(NamedTuple):
    lost: list[int]
    is_set_aside: bool
    is_said: bool


def reading(seq: int) -> Reading:
    return Reading(f"d{seq % 3}", "text", 1_700_000_000_000 + seq, random.Random(seq).randbytes(300).hex())


@pytest.fixture(scope="module")
def saved() -> Iterator[Path]:
    """A journal as kill -9 leaves it (`killed`: all in the log) and as it is closed (`closed`: no log).

    In memory where there is a place for it: a thousand journals are opened and written, each with its fsync.
    """
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="mooring-journal-", dir=shared if shared.is_dir() else None) as name:
        _make(Path(name))
        yield Path(name)


def _make(directory: Path) -> None:
    file = JournalFile(directory / "journal.db")
    for seq in range(1, ROWS + 1):
        file.write(seq, seq, frames_of([reading(seq)]), [Fixed(f"d{seq}", "text", Kind.TEXT)])
    (directory / "killed").mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(directory / name, directory / "killed" / name)
    file.close()
    (directory / "closed").mkdir()
    shutil.copy(directory / "journal.db", directory / "closed" / "journal.db")


def damaged(saved: Path, name: str, damage: Callable[[bytearray], None], log: pytest.LogCaptureFixture) -> Found:
    """Open the journal after its file `name` was damaged; every reading it gives is one that was written."""
    log.clear()
    with _copy(saved, name, damage) as path:
        file = JournalFile(path)
        try:
            assert [summary.seq for summary in file.summaries] == sorted({summary.seq for summary in file.summaries})
            found = {row.seq: list(Readings(row.frames)) for row in file.read(0, 1 << 60) if row.frames}
            assert all(found[seq] == [reading(seq)] for seq in found), "a reading that nobody sent"
            is_said = any(record.levelno >= logging.WARNING for record in log.records)
            # it works on
            after = max([file.last_number(), *found]) + 1
            file.write(after, 1, frames_of([reading(after)]), [])
            assert file.read(after - 1, 10)[-1].seq == after
            return Found(sorted(set(range(1, ROWS + 1)) - set(found)), file.set_aside is not None, is_said)
        finally:
            file.close()


@contextlib.contextmanager
def _copy(saved: Path, name: str, damage: Callable[[bytearray], None]) -> Iterator[Path]:
    directory = saved / "tried"
    shutil.copytree(saved / ("killed" if name.endswith("-wal") else "closed"), directory)
    try:
        content = bytearray((directory / name).read_bytes())
        damage(content)
        (directory / name).write_bytes(content)
        yield directory / "journal.db"
    finally:
        shutil.rmtree(directory)


def flip(place: int, bit: int) -> Callable[[bytearray], None]:
    def damage(content: bytearray) -> None:
        content[place] ^= 1 << bit

    return damage


def cut(size: int) -> Callable[[bytearray], None]:
    def damage(content: bytearray) -> None:
        del content[size:]

    return damage


def places(size: int, seed: int) -> list[tuple[int, int]]:
    chance = random.Random(seed)
    return [(place, chance.randrange(8)) for place in sorted(chance.sample(range(size), min(FLIPS, size)))]


def test_a_bit_flipped_in_the_log_costs_one_row_at_most(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = (saved / "killed" / "journal.db-wal").stat().st_size
    for place, bit in places(size, 1):
        found = damaged(saved, "journal.db-wal", flip(place, bit), caplog)
        assert len(found.lost) <= 1, (place, bit, found)
        assert found.is_said, (place, bit)


@pytest.mark.parametrize("start", [0, 32, 32 + 5 * FRAME])
def test_every_bit_of_a_header_may_flip_and_each_page_stays_where_it_belongs(saved: Path, start: int) -> None:
    before = (saved / "killed" / "journal.db-wal").read_bytes()
    log = saved / "log"
    for place in range(start, start + (24 if start else 32)):
        for bit in range(8):
            content = bytearray(before)
            flip(place, bit)(content)
            log.write_bytes(content)
            found = mend_wal(log)
            assert found.damaged in (1, 2), (place, bit, found)
            assert not found.given_up
            after = log.read_bytes()
            for at in range(32, len(after), FRAME):
                assert after[at + 24 : at + FRAME] == before[at + 24 : at + FRAME]
                page = int.from_bytes(after[at : at + 4], "big")
                # Of a word's highest bits the sums do not tell the word: a page that exists may stay wrong.
                is_told = place - at != 3 or page > PAGES
                assert after[at : at + 4] == before[at : at + 4] or not is_told, (place, bit)
            assert mend_wal(log) == (0, 0, False)


@pytest.mark.parametrize("place", [0, 5, 10, 15, 20, 24, 28, 32 + 5 * FRAME, 32 + 5 * FRAME + 17])
def test_a_bit_flipped_in_a_header_costs_nothing(saved: Path, caplog: pytest.LogCaptureFixture, place: int) -> None:
    for bit in range(8):
        found = damaged(saved, "journal.db-wal", flip(place, bit), caplog)
        assert found == Found([], is_set_aside=False, is_said=True)


def test_a_bit_flipped_in_the_file_costs_one_row_or_the_file_is_set_aside(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = (saved / "closed" / "journal.db").stat().st_size
    lost = 0
    for place, bit in places(size, 2):
        found = damaged(saved, "journal.db", flip(place, bit), caplog)
        assert len(found.lost) <= 1 or found.is_set_aside, (place, bit, found)
        assert found.is_said or not found.lost, (place, bit, found)
        lost += len(found.lost)
    assert lost, "no flip did any harm: the test is blind"


def test_a_log_cut_within_its_last_commit_keeps_every_commit_before(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = (saved / "killed" / "journal.db-wal").stat().st_size
    for end in range(size - FRAME, size, max(1, FRAME // FLIPS)):
        assert damaged(saved, "journal.db-wal", cut(end), caplog).lost == [ROWS]
    assert damaged(saved, "journal.db-wal", cut(size), caplog) == Found([], is_set_aside=False, is_said=False)


def test_a_file_cut_anywhere_keeps_the_rows_before_the_cut(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = (saved / "closed" / "journal.db").stat().st_size
    content = (saved / "closed" / "journal.db").read_bytes()
    # lost is what ends behind the beginning of the page that was cut (rindex: a split leaves copies in older pages)
    ends = {seq: content.rindex(body) + len(body) for seq in range(1, ROWS + 1) if (body := _body(saved, seq))}
    for end in range(8192, size, max(1, (size - 8192) // FLIPS)):
        found = damaged(saved, "journal.db", cut(end), caplog)
        page = end // 4096 * 4096
        assert all(ends[seq] >= page for seq in found.lost), (end, found)
        assert found.is_said or not found.lost


def _body(saved: Path, seq: int) -> bytes:
    with contextlib.closing(sqlite3.connect(saved / "closed" / "journal.db")) as database:
        body: bytes = database.execute("SELECT body FROM row WHERE seq = ?", (seq,)).fetchone()[0]
    return body


def test_a_row_whose_sketch_is_damaged_is_still_found_by_every_query(saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved / "closed" / "journal.db", tmp_path / "journal.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        database.execute("UPDATE row SET devices = x'00' WHERE seq = 3")
        database.commit()
    file = JournalFile(tmp_path / "journal.db")
    sketch = file.summaries[2]
    assert (sketch.seq, sketch.first_ms, sketch.devices) == (3, 0, EVERY_DEVICE)
    assert [list(Readings(row.frames)) for row in file.read(2, 1)] == [[reading(3)]]
    file.close()


def test_numbers_of_rows_lost_with_a_corrupt_file_are_not_given_out_again(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    shutil.copy(saved / "closed" / "journal.db", path)
    content = bytearray(path.read_bytes())
    place = content.index(_body(saved, ROWS))
    page = place // 4096 * 4096
    content[page : page + 4096] = bytes(4096)
    path.write_bytes(content)
    file = JournalFile(path, now_ms=7)
    assert file.set_aside == tmp_path / "journal.db.corrupt-7"
    assert ROWS not in [summary.seq for summary in file.summaries]
    assert file.last_number() == ROWS
    file.close()


def test_a_log_that_is_sound_is_left_as_it_is(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert mend_wal(path) == (0, 0, False)
    shutil.copy(saved / "killed" / "journal.db-wal", path)
    before = path.read_bytes()
    assert mend_wal(path) == (0, 0, False)
    assert path.read_bytes() == before


def test_mending_that_fails_leaves_the_log_as_it_was_and_the_start_says_so(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(saved / "killed" / name, tmp_path / name)
    log = tmp_path / "journal.db-wal"
    content = bytearray(log.read_bytes())
    flip(32 + 8 * FRAME + 2000, 3)(content)
    log.write_bytes(content)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(JournalUnwritable) as caught:
            JournalFile(tmp_path / "journal.db")
    assert caught.value.disk_full
    assert log.read_bytes() == content
    assert mend_wal(log) == (1, 0, False)
    assert mend_wal(log) == (0, 0, False)


@pytest.mark.parametrize("place", [32 + 8 * FRAME, 32 + 8 * FRAME + 2000])
def test_what_is_more_than_a_flipped_bit_is_not_mended_and_is_said(
    saved: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    def garble(content: bytearray) -> None:
        content[place : place + 512] = b"\x5a" * 512

    found = damaged(saved, "journal.db-wal", garble, caplog)
    assert found.lost
    assert not found.is_set_aside
    assert found.is_said == (place > 32 + 8 * FRAME)  # without its salts it is no frame of this log


def test_leftovers_of_a_refused_commit_are_not_taken_for_newer_pages(saved: Path, tmp_path: Path) -> None:
    """A commit whose fsync failed lies in the log, whole; the next, a shorter one, covers its beginning alone."""
    before = (saved / "killed" / "journal.db-wal").read_bytes()
    log, refused, retried = tmp_path / "log", tmp_path / "refused", tmp_path / "retried"
    for directory, message in ((refused, [reading(seq) for seq in range(100, 140)]), (retried, [reading(200)])):
        shutil.copytree(saved / "killed", directory)
        file = JournalFile(directory / "journal.db")
        file.write(ROWS + 1, 1, frames_of(message), [])
        (directory / "log").write_bytes((directory / "journal.db-wal").read_bytes())
        file.close()
    longer, shorter = (refused / "log").read_bytes(), (retried / "log").read_bytes()
    assert longer.startswith(before)
    assert shorter.startswith(before)
    assert len(longer) > len(shorter) + FRAME
    content = shorter + longer[len(shorter) :]
    log.write_bytes(content)
    assert mend_wal(log) == (0, (len(longer) - len(shorter)) // FRAME, False)
    assert log.read_bytes() == content

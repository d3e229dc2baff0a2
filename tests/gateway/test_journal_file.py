"""The journal's file: rows in and out, locks, damage said aloud, what can be saved of a broken file."""

import logging
import random
import shutil
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import orjson
import pytest

from gateway.frames import Frame, Readings, frames_of
from gateway.journal_file import JournalFile, JournalLocked, JournalTooNew, JournalUnwritable, Synchronous
from gateway.kinds import Fixed
from gateway.readings import Kind, Reading
from gateway.recent import device_bits

ROOT = Path(__file__).parents[2]


def message(device_id: str, number: int, count: int = 1) -> list[Frame]:
    return frames_of(Reading(device_id, f"m{i}", 1_700_000_000_000 + number, number + i / 2) for i in range(count))


def fill(path: Path, rows: int, noise_bytes: int = 0) -> JournalFile:
    file = JournalFile(path)
    for seq in range(1, rows + 1):
        noise = random.Random(seq).randbytes(noise_bytes).hex()
        extra = frames_of([Reading("d", "text", seq, noise)]) if noise_bytes else []
        file.write(seq, seq, [*message("d", seq), *message("e", seq, 2), *extra], [])
    return file


def numbers(file: JournalFile) -> list[int]:
    return [row.seq for row in file.read(0, 1 << 60) if row.frames]


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    readings = [
        *(Reading("a", "n", 5, 1), Reading("a", "f", 5, 1.0), Reading("a", "b", 5, True), Reading("a", "t", 5, 'ü\n"')),
        *(Reading("b", "z", 3, -0.0), Reading("b", "tiny", 4, 5e-324), Reading("b", "big", 9, 1e308)),
    ]
    file = JournalFile(tmp_path / "journal.db")
    summary = file.write(1, 1234, frames_of(readings), [Fixed("a", "n", Kind.NUMBER), Fixed('b"', "t", Kind.TEXT)])
    assert (summary.readings, summary.first_ms, summary.last_ms) == (7, 3, 9)
    file.close()

    again = JournalFile(tmp_path / "journal.db")
    row = again.read(0, 100)[0]
    assert repr(list(Readings(row.frames))) == repr(readings)
    assert row.at_ms == 1234
    assert again.summaries == [summary]
    assert summary.devices == device_bits(("a", "b"))
    assert again.kinds_of("a") == {"n": Kind.NUMBER}
    assert again.kinds_of('b"') == {"t": Kind.TEXT}
    again.close()


def test_reading_stops_at_the_limit_but_gives_one_row_at_least(tmp_path: Path) -> None:
    file = fill(tmp_path / "journal.db", 5)
    assert [row.seq for row in file.read(0, 6)] == [1, 2]
    assert [row.seq for row in file.read(2, 1)] == [3]
    assert [row.seq for row in file.read(1, 100, upto=3)] == [2, 3]
    assert file.read(5, 100) == []
    file.close()


def test_numbers_are_not_used_again_after_everything_was_forgotten(tmp_path: Path) -> None:
    file = fill(tmp_path / "journal.db", 3)
    file.forget(3)
    file.close()
    again = JournalFile(tmp_path / "journal.db")
    assert again.summaries == []
    assert again.last_number() == 3
    again.close()


def test_forgotten_rows_give_their_space_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    file = fill(path, 40, noise_bytes=5000)
    file.close()
    before = path.stat().st_size
    again = JournalFile(path)
    again.forget(40)
    again.close()
    assert path.stat().st_size < before / 2


def test_a_second_process_is_told_that_the_journal_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    file = JournalFile(path)
    script = (
        "import sys; from pathlib import Path; from gateway.journal_file import *\n"
        "try: JournalFile(Path(sys.argv[1]))\n"
        "except JournalLocked as error: print('locked:', error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert told.startswith("locked:")
    assert "another process" in told
    with pytest.raises(JournalLocked):
        JournalFile(path)
    file.close()
    JournalFile(path).close()


def test_a_journal_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    JournalFile(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    content = path.read_bytes()
    with pytest.raises(JournalTooNew):
        JournalFile(path)
    assert path.read_bytes() == content


def test_a_write_ahead_log_cut_anywhere_keeps_all_whole_commits(tmp_path: Path) -> None:
    file = fill(tmp_path / "journal.db", 1)
    sizes = []
    wal = tmp_path / "journal.db-wal"
    for seq in range(2, 8):
        file.write(seq, seq, message("d", seq, 40), [])
        sizes.append(wal.stat().st_size)
    saved = tmp_path / "saved"
    saved.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(tmp_path / name, saved / name)
    file.close()
    # Every place in the last commit, at steps that also hit frame boundaries and their neighbours.
    cuts = sorted({*range(sizes[-2], sizes[-1], 509), sizes[-2], sizes[-2] + 1, sizes[-1] - 1, sizes[-1]})
    for cut in cuts:
        directory = tmp_path / f"cut{cut}"
        shutil.copytree(saved, directory)
        with (directory / "journal.db-wal").open("r+b") as log:
            log.truncate(cut)
        again = JournalFile(directory / "journal.db")
        assert numbers(again) == list(range(1, 8 if cut == sizes[-1] else 7))
        assert again.set_aside is None
        again.write(8, 8, message("d", 8), [])
        assert numbers(again)[-1] == 8
        again.close()
        shutil.rmtree(directory)


def test_a_damaged_row_is_reported_and_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.db"
    fill(path, 5).close()
    with sqlite3.connect(path) as database:
        body = bytearray(database.execute("SELECT body FROM row WHERE seq = 3").fetchone()[0])
        for place, bit in ((len(body) // 2, 4), (len(body) - 1, 1)):
            flipped = bytearray(body)
            flipped[place] ^= bit
            database.execute("UPDATE row SET body = ? WHERE seq = 3", (bytes(flipped),))
            database.commit()
            again = JournalFile(path)
            assert numbers(again) == [1, 2, 4, 5]
            assert again.damaged_rows == 1
            again.close()
    database.close()
    assert "row 3 is damaged" in caplog.text


@pytest.mark.parametrize("content", [b"not a database at all " * 500, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_a_file_that_is_no_journal_is_set_aside_and_said_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    file = JournalFile(path, now_ms=42)
    file.write(1, 1, message("d", 1), [])
    assert numbers(file) == [1]
    file.close()
    assert file.set_aside == tmp_path / "journal.db.corrupt-42"
    assert file.set_aside.read_bytes() == content
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "set aside" in caplog.text


def test_what_can_be_read_of_a_corrupt_journal_is_carried_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.db"
    file = fill(path, 400)
    file.write(401, 1, message("d", 401), [Fixed("d", "m0", Kind.NUMBER)])
    file.close()
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    start = (pages - 4) * 4096  # pages near the end hold late rows
    content[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    again = JournalFile(path, now_ms=43)
    kept = numbers(again)
    assert again.set_aside is not None
    assert len(kept) > 300
    lost = sorted(set(range(1, 402)) - set(kept))
    assert lost == list(range(lost[0], lost[0] + len(lost)))  # those of the page, and none behind it
    assert kept[-1] == 401
    assert len(again.summaries) == len(kept)
    assert again.kinds_of("d") == {"m0": Kind.NUMBER}
    again.close()
    assert f"{len(kept)} rows could be read back" in caplog.text


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    file = JournalFile(tmp_path / "journal.db")
    assert file.set_aside is None
    file.close()


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
def test_the_promise_chosen_is_the_one_in_force(tmp_path: Path, synchronous: Synchronous, level: int) -> None:
    file = JournalFile(tmp_path / "journal.db", synchronous=synchronous)
    assert file._writer.execute("PRAGMA synchronous").fetchone() == (level,)
    assert file._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()


def test_after_a_failed_write_a_new_connection_takes_over(tmp_path: Path) -> None:
    file = fill(tmp_path / "journal.db", 1)
    for fixed in ([], [Fixed("d", "m0", Kind.NUMBER)]):
        file._writer.close()
        with pytest.raises(JournalUnwritable) as caught:
            file.write(2, 1, message("d", 2), fixed)
        assert not caught.value.disk_full
    file.write(2, 1, message("d", 2), [])
    assert numbers(file) == [1, 2]
    assert file._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    file.close()


def test_a_group_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    file = fill(tmp_path / "journal.db", 1)
    file._writer.execute("DROP TABLE kind")
    with pytest.raises(JournalUnwritable):
        file.write(2, 1, message("d", 2), [Fixed("d", "m0", Kind.NUMBER)])
    assert numbers(file) == [1]
    file.close()


def test_rows_of_the_first_format_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    fill(path, 1).close()
    readings = [Reading("a", "n", 5, 1), Reading("a", "b", 5, True), Reading("b", "t", 6, "x"), Reading("a", "n", 5, 2)]
    body = zlib.compress(orjson.dumps(list(zip(*readings, strict=True))))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 1")
        database.execute("UPDATE row SET body = ?", (body,))
    database.close()
    file = JournalFile(path)
    (row,) = file.read(0, 100)
    assert repr(list(Readings(row.frames))) == repr(readings)
    file.write(2, 2, message("d", 2), [])
    file.close()
    again = JournalFile(path)
    assert numbers(again) == [1, 2]
    again.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()

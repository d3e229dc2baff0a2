"""kill -9 in the middle of journalling: whatever was acknowledged is there, once, and can be read."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from gateway.frames import Readings
from gateway.journal_file import JournalFile

ROOT = Path(__file__).parents[2]


def kill_a_child(path: Path, first: int, after: int) -> list[int]:
    """Start a child that journals, kill it at its acknowledgement number `after`; gives what it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("journaling_child.py")), str(path), str(first)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    with child:
        assert child.stdout is not None
        text = b"".join(child.stdout.readline() for _ in range(after))
        child.send_signal(signal.SIGKILL)
        text += child.stdout.read()
    assert child.returncode == -signal.SIGKILL
    whole = text[: text.rindex(b"\n")]  # the last line may have been cut
    return [int(number) for number in whole.split()]


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    chance = random.Random(7)
    acknowledged: list[int] = []
    first = 0
    for _ in range(12):
        numbers = kill_a_child(path, first, chance.randrange(1, 3000))
        assert numbers == list(range(first, first + len(numbers)))  # order was kept
        acknowledged += numbers
        first += 1_000_000
    started = time.monotonic()
    file = JournalFile(path)
    opened_in = time.monotonic() - started
    rows = file.read(0, 1 << 60)
    stored = [reading for row in rows for reading in Readings(row.frames)]
    file.close()
    assert file.set_aside is None
    assert file.damaged_rows == 0
    found = {reading.value for reading in stored}
    assert [number for number in acknowledged if number not in found] == []
    assert len(found) == len(stored)
    assert all(reading.ts_ms == 1_700_000_000_000 + reading.value for reading in stored)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert opened_in < 5

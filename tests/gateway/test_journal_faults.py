"""A disk that fails one time in twenty, under the real process (libfiu): what is acknowledged is on it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.frames import Readings
from gateway.journal_file import JournalFile

ROOT = Path(__file__).parents[2]
LIBRARIES = ("/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so")
ENOSPC, EIO = 28, 5
FAULTS = {
    "no space": [("posix/io/rw/pwrite", ENOSPC)],
    "input output error": [("posix/io/rw/pwrite", EIO), ("posix/io/rw/pread", EIO)],
    "short writes": [("posix/io/rw/pwrite/reduce", 0)],
    "failed fsync": [("posix/io/sync/fsync", EIO), ("posix/io/sync/fdatasync", EIO)],
    "all of it": [
        ("posix/io/rw/pwrite", ENOSPC),
        ("posix/io/rw/pwrite/reduce", 0),
        ("posix/io/sync/fsync", EIO),
        ("posix/io/sync/fdatasync", EIO),
        ("posix/io/rw/ftruncate", EIO),
    ],
}
GAPS = 3
SECONDS = float(os.environ.get("CHAOS_SECONDS", "3"))


def need_libfiu() -> None:
    missing = [name for name in LIBRARIES if not Path(name).exists()]
    if missing and os.environ.get("CI", "").lower() == "true":
        pytest.fail("libfiu is not installed; with CI=true that is a failure", pytrace=False)
    if missing:
        pytest.skip("libfiu is not installed: no disk was made to fail (Debian: apt-get install fiu-utils)")


def journal_on_a_bad_disk(
    path: Path, faults: list[tuple[str, int]], first: int, limit_s: float
) -> tuple[list[int], int]:
    """Journal on a good disk, then on a bad one until messages were refused or for `limit_s`, then kill -9.

    Gives what was acknowledged, and how often something in between was not.
    """
    control = path.with_name("control")
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("journaling_child.py")), str(path), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_PRELOAD": " ".join(LIBRARIES),
            "FIU_CTRL_FIFO": str(control),
        },
    )
    numbers: list[int] = []
    with child:
        assert child.stdout is not None
        numbers.append(int(child.stdout.readline()))
        commands = [f"enable_random name={name},probability=0.05,failinfo={number}" for name, number in faults]
        enable = [argument for command in commands for argument in ("-c", command)]
        subprocess.run(["fiu-ctrl", "-f", str(control), *enable, str(child.pid)], check=True, capture_output=True)
        gaps = 0
        deadline = time.monotonic() + limit_s
        while gaps < GAPS and time.monotonic() < deadline:
            line = child.stdout.readline()
            assert line, "the process ended by itself"
            number = int(line)
            gaps += number != numbers[-1] + 1
            numbers.append(number)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
    numbers += [int(number) for number in rest[: rest.rindex(b"\n") + 1 if b"\n" in rest else 0].split()]
    return numbers, gaps


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_what_was_acknowledged_on_a_disk_that_fails_is_on_it(tmp_path: Path, name: str) -> None:
    need_libfiu()
    path = tmp_path / "journal.db"
    acknowledged: list[int] = []
    gaps = 0
    for start in range(2):
        # SQLite writes the rest of a short write itself, and nobody hears of it.
        limit_s = SECONDS if name == "short writes" else 10 * SECONDS
        numbers, found = journal_on_a_bad_disk(path, FAULTS[name], start * 10_000_000, limit_s)
        acknowledged += numbers
        gaps += found
    assert gaps or name == "short writes", "the disk never failed: the test is blind"
    file = JournalFile(path)
    stored = [reading.value for row in file.read(0, 1 << 60) for reading in Readings(row.frames)]
    file.close()
    assert file.set_aside is None
    assert file.damaged_rows == 0
    assert len(stored) == len(set(stored))
    lost = set(acknowledged) - set(stored)
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged are not there, such as {sorted(lost)[:5]}"
    assert acknowledged

"""The data directory is one process's: a second server would call its devices offline and clear its uploads away."""

import sys
from pathlib import Path
from typing import IO

from fleet.errors import SetupError

_NAME = "fleet.lock"


class DataDir:
    """A directory that is ours between `claim` and `release`, and until the process ends at the latest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: IO[bytes] | None = None

    def claim(self) -> None:
        """Make the directory and keep others out. Raises SetupError where another process was first."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = (self.path / _NAME).open("ab")
        except OSError as error:
            raise SetupError(f"data_dir {self.path} cannot be used: {error.strerror or error}") from error
        try:
            _lock(held)
        except OSError as error:
            held.close()
            raise SetupError(f"data_dir {self.path} is in use by another process; stop it first") from error
        self._held = held

    def release(self) -> None:
        """Let others in. May be called without a claim."""
        held, self._held = self._held, None
        if held is not None:
            held.close()


def _lock(file: IO[bytes]) -> None:
    """Raises OSError when another process, or another claim of this one, holds the lock. It goes with the file."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

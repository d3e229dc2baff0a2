"""A file of readings into a store while no server runs on it: read in pieces, resumed by its offset.

What is done is kept beside the file, in `FILE.import.json`: the offset behind the last record whose readings are
stored. Running it again from an older offset is harmless, since a point is the same point again.
"""

import gzip
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gateway.importing import Import, Imported
from gateway.journal_file import JournalFile
from gateway.kinds import Fixed, Kinds
from gateway.store import Store
from gateway.stores.transfer import Window
from gateway.stores.transfer_lines import Mapping

_CHUNK = 256 * 1024


async def import_file(
    store: Store,
    journal: JournalFile | None,
    window: Window,
    file: BinaryIO,
    *,
    is_known: Callable[[str], Awaitable[bool]],
    lines: Mapping | None,
    resumable: Path | None,
    progress: Callable[[int], None],
) -> Imported:
    """Import what is left of the file. Raises StoreError, JournalError, BadRecord (the header).

    `journal`: of the same data directory, where kinds are kept; None is a dry run. `resumable`: where the file is,
    with its checkpoint beside it. `progress` is told the bytes read.
    """

    async def fix(fixed: Sequence[Fixed]) -> None:
        if journal is not None:
            journal.fix(fixed)

    checkpoint = resumable and resumable.with_name(resumable.name + ".import.json")
    done = _Checkpoint(checkpoint, resumable)

    def stored(end: int) -> None:
        progress(end)
        done.save(end)

    importing = Import(
        store,
        window,
        is_known=is_known,
        kinds=Kinds(lambda device_id: {} if journal is None else journal.kinds_of(device_id)),
        fix=fix,
        lines=lines,
        stored=stored,
        dry_run=journal is None,
    )
    importing.skip_to = done.offset
    while chunk := file.read(_CHUNK):
        await importing.feed(chunk)
    result = await importing.finish()
    done.remove()
    return result


def opened(path: Path) -> BinaryIO:
    """The file, unpacked if it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


class _Checkpoint:
    """The place reached in a file. One of a file that has changed since does not count: it begins anew."""

    def __init__(self, path: Path | None, file: Path | None) -> None:
        self._path = path
        status = None if file is None else file.stat()
        self._file = None if status is None else [status.st_size, status.st_mtime_ns]
        self.offset = 0
        if path is not None and path.exists():
            with suppress(ValueError, KeyError, TypeError):  # cut off or foreign: from the beginning, which is harmless
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["file"] == self._file:
                    self.offset = int(kept["offset"])

    def save(self, offset: int) -> None:
        if self._path is not None:
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_text(json.dumps({"offset": offset, "file": self._file}), encoding="utf-8")
            fresh.replace(self._path)

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

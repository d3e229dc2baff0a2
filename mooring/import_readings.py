"""A file of readings into a store: read in pieces, checked point by point, written in batches, resumed by its offset.

What is done is kept beside the file, in `FILE.import.json`: the offset behind the last record whose readings are
stored. Running it again from an older offset is harmless, since a point is the same point again.
"""

import gzip
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gateway.kinds import Kinds
from gateway.readings import Kind, Reading, kind_of
from gateway.store import Store
from gateway.stores.transfer import BadRecord, Record, Records, Unfinished, Window, checked
from gateway.stores.transfer_csv import CsvReader
from gateway.stores.transfer_lines import Mapping, parse_line, readings_of

BATCH = 5_000
ERRORS_KEPT = 1_000
_CHUNK = 256 * 1024
_JOINED_LINES = 1_000


@dataclass(frozen=True, slots=True)
class LineError:
    """A record that was left out."""

    line: int
    reason: str


@dataclass(slots=True)
class Imported:
    """What came of a file. `errors` keeps the first 1,000 of `bad_records`."""

    points: int = 0
    bad_records: int = 0
    resumed_at: int = 0
    errors: list[LineError] = field(default_factory=list)

    def bad(self, line: int, reason: str) -> None:
        self.bad_records += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(LineError(line, reason))


class Import:
    """One import. `is_known` says whether a device may have readings; a dry run writes nothing."""

    def __init__(
        self,
        store: Store,
        window: Window,
        *,
        is_known: Callable[[str], Awaitable[bool]],
        lines: Mapping | None,
        dry_run: bool = False,
    ) -> None:
        """`lines`: how line protocol is mapped; None for CSV."""
        self._store = store
        self._window = window
        self._is_known = is_known
        self._lines = lines
        self._dry_run = dry_run
        self._seen: dict[str, dict[str, Kind] | None] = {}  # None: not a device of the fleet
        self._kinds = Kinds(lambda device_id: self._seen.get(device_id) or {})
        self._csv: CsvReader | None = None
        self.result = Imported()

    async def run(self, file: BinaryIO, path: Path | None, progress: Callable[[int], None]) -> Imported:
        """Import what is left of it. `progress` is told the bytes read. Raises StoreError, BadRecord (the header).

        `path`: where the file is, with its checkpoint beside it; None: it cannot be resumed.
        """
        done = _Checkpoint(None if path is None else path.with_name(path.name + ".import.json"), path)
        batch: list[Reading] = []
        for record in self._records(file):
            if self._lines is None and self._csv is None:
                self._csv = CsvReader(record.text)
                continue
            if record.end <= done.offset:
                self.result.resumed_at = done.offset
                continue
            try:
                batch += await self._taken(record)
            except BadRecord as error:
                self.result.bad(record.line, str(error))
            if len(batch) >= BATCH:
                await self._write(batch)
                batch = []
                progress(record.end)
                if not self._dry_run:
                    done.save(record.end)
        await self._write(batch)
        done.remove()
        return self.result

    async def _taken(self, record: Record) -> list[Reading]:
        if self._csv is not None:
            found = self._csv.read(record.text)
        else:
            assert self._lines is not None  # noqa: S101
            line = parse_line(record.text)
            found = [] if line is None else readings_of(line, self._lines)
        for reading in found:
            checked(reading, self._window)
        for device_id in {reading.device_id for reading in found}:
            if await self._kinds_of(device_id) is None:
                raise BadRecord(f"{device_id} is not a device of the fleet: add it, or give --any-device")
        taken: list[Reading] = []
        for reading in found:
            sorted_out = self._kinds.sort(reading.device_id, [reading])
            if sorted_out.unfit:
                self.result.bad(record.line, sorted_out.unfit[0][2])
            taken += sorted_out.fit
        return taken

    async def _kinds_of(self, device_id: str) -> dict[str, Kind] | None:
        if device_id not in self._seen:
            if await self._is_known(device_id):
                latest = await self._store.latest(device_id)
                self._seen[device_id] = {metric: kind_of(value) for metric, (_, value) in latest.items()}
            else:
                self._seen[device_id] = None
        return self._seen[device_id]

    async def _write(self, batch: list[Reading]) -> None:
        if batch and not self._dry_run:
            await self._store.write(batch)
        self.result.points += len(batch)

    def _records(self, file: BinaryIO) -> Iterator[Record]:
        """The file's records; lines of line protocol that a quoted text spans are joined."""
        splitter = Records(quoted=self._lines is None)

        def all_of_it() -> Iterator[Record]:
            while chunk := file.read(_CHUNK):
                yield from splitter.feed(chunk)
            yield from splitter.finish()

        if self._lines is None:
            yield from all_of_it()
            return
        begun: Record | None = None
        joined = 0
        for record in all_of_it():
            whole = record if begun is None else Record(begun.line, record.end, f"{begun.text}\n{record.text}")
            try:
                parse_line(whole.text)
            except Unfinished:
                joined += 1
                if joined <= _JOINED_LINES:
                    begun = whole
                    continue
            except BadRecord:
                pass
            begun, joined = None, 0
            yield whole
        if begun is not None:
            yield begun


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

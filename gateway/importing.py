"""Readings of the past on their way into a store: fed in pieces, checked point by point, written in batches.

They go straight into the store and not through the journal: a file of years would fill the journal that live readings
need, and there is somebody to tell when the store refuses. What `run` or `finish` has counted as stored is stored: a
store that answers before it has written (Buffering) is waited for. The file's sender is held back by each write and,
on a server, while live readings wait for the store.

A metric's kind is that of its first reading, imported or live: what an import fixes is in force for live messages
from then on, and what the store holds already is asked for at a device's first record.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.documents import shown
from gateway.kinds import Fixed, Kinds
from gateway.profiles.compiled import CompiledProfile
from gateway.readings import Reading, kind_of
from gateway.store import Buffering, Store, StoreUnavailable
from gateway.stores.transfer import BadRecord, Record, Records, Unfinished, Window, checked
from gateway.stores.transfer_csv import CsvReader
from gateway.stores.transfer_lines import Mapping, parse_line, readings_of

BATCH = 5_000
ERRORS_KEPT = 1_000
REASONS_KEPT = 100
# Of line protocol that a quoted text spans: each more is parsed again from the beginning.
_JOINED_LINES = 200
_JOINED_CHARS = 64 * 1024
_DEVICES_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class LineError:
    """A record that was left out."""

    line: int
    reason: str


@dataclass(slots=True)
class Refused:
    """How many records were left out for a reason, and the line of the first."""

    reason: str
    first_line: int
    count: int = 0


@dataclass(slots=True)
class Imported:
    """What came of a file, so far. `errors` keeps the first 1,000 of `bad_records`, `reasons` the first 100 reasons."""

    records: int = 0
    points: int = 0
    bad_records: int = 0
    resumed_at: int = 0
    errors: list[LineError] = field(default_factory=list)
    reasons: dict[str, Refused] = field(default_factory=dict)

    def bad(self, line: int, reason: str) -> None:
        self.bad_records += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(LineError(line, reason))
        if reason in self.reasons or len(self.reasons) < REASONS_KEPT:
            self.reasons.setdefault(reason, Refused(reason, line)).count += 1


async def _at_once() -> None:
    """Nothing to wait for."""


class Import:
    """One import. Feed it the file in pieces, then `finish`; `abandon` whatever happened."""

    def __init__(
        self,
        store: Store,
        window: Window,
        *,
        is_known: Callable[[str], Awaitable[bool]],
        kinds: Kinds,
        fix: Callable[[Sequence[Fixed]], Awaitable[None]],
        lines: Mapping | None,
        oldest_ms_of: Callable[[str], int] | None = None,
        profile_of: Callable[[str], CompiledProfile | None] = lambda device_id: None,
        hold: Callable[[], Awaitable[None]] = _at_once,
        stored: Callable[[int], None] = lambda end: None,
        dry_run: bool = False,
    ) -> None:
        """`is_known`: whether a device may have readings; asked again after each batch, it may create the device, or
        raise BadRecord. `kinds`: those in force; of a dry run, a copy. `fix` makes durable what they got here. `lines`:
        how line protocol is mapped; None for CSV. `oldest_ms_of`: since when a device's readings are kept. `hold` is
        awaited before each write, `stored` told the file's offset after it. A dry run writes nothing.
        """
        self._store = store
        self._window = window
        self._is_known = is_known
        self._kinds = kinds
        self._fix = fix
        self._lines = lines
        self._oldest_ms_of = oldest_ms_of
        self._profile_of = profile_of
        self._hold = hold
        self._stored = stored
        self._dry_run = dry_run
        self._known: dict[str, bool] = {}  # of this batch
        self._learned: set[str] = set()
        self._fixed: list[Fixed] = []  # not yet durable
        self._splitter = Records(quoted=lines is None)
        self._begun: Record | None = None
        self._joined = 0
        self._csv: CsvReader | None = None
        self._batch: list[Reading] = []
        self._run: str | None = None
        self.skip_to = 0
        """Records up to this offset of the file are taken to be stored."""
        self.result = Imported()

    async def feed(self, chunk: bytes) -> None:
        """Take the records that end in this piece. Raises StoreError, BadRecord (the header), JournalError."""
        await self._take(self._splitter.feed(chunk))

    async def finish(self) -> Imported:
        """Take what is left and wait until all of it is stored. Raises as `feed`."""
        await self._take(self._splitter.finish())
        if self._begun is not None:
            begun, self._begun = self._begun, None
            await self._take_record(begun)
            await self._make_fast()
        await self._write()
        await self._settle_store()
        return self.result

    def abandon(self) -> None:
        """It ends here, however it ended: kinds that were not made durable are free again."""
        fixed, self._fixed = self._fixed, []
        self._kinds.abandon(fixed)

    # ---- private

    async def _take(self, records: Iterable[Record]) -> None:
        for record in records if self._lines is None else self._whole(records):
            await self._take_record(record)
            if len(self._batch) >= BATCH:
                await self._write()
                self._stored(record.end)
        await self._make_fast()

    async def _take_record(self, record: Record) -> None:
        if self._lines is None and self._csv is None:
            self._csv = CsvReader(record.text)
            return
        if record.end <= self.skip_to:
            self.result.resumed_at = self.skip_to
            return
        self.result.records += 1
        try:
            self._batch += await self._readings(record)
        except BadRecord as error:
            self.result.bad(record.line, str(error))

    async def _readings(self, record: Record) -> list[Reading]:
        if self._csv is not None:
            found = self._csv.read(record.text)
        else:
            assert self._lines is not None  # noqa: S101
            line = parse_line(record.text)
            found = [] if line is None else readings_of(line, self._lines)
        for reading in found:
            checked(reading, self._window)
            if self._oldest_ms_of is not None and reading.ts_ms < self._oldest_ms_of(reading.device_id):
                raise BadRecord("older than the device's readings are kept")
        by_device: dict[str, list[Reading]] = {}
        for reading in found:
            by_device.setdefault(reading.device_id, []).append(reading)
        taken: list[Reading] = []
        for device_id, readings in by_device.items():
            await self._know(device_id)
            profile = self._profile_of(device_id)
            if profile is not None:
                readings, strange = profile.check(readings)
                for _, _, detail in strange:
                    self.result.bad(record.line, detail)
            sorted_out = self._kinds.sort(device_id, readings)
            for _, _, detail in sorted_out.unfit:
                self.result.bad(record.line, detail)
            self._fixed += sorted_out.fixed
            taken += sorted_out.fit
        return taken

    async def _know(self, device_id: str) -> None:
        """Raises BadRecord where the device may have no readings."""
        if device_id not in self._known:
            self._known[device_id] = await self._is_known(device_id)
        if not self._known[device_id]:
            raise BadRecord(f"{shown(device_id)} is not a device that is known here")
        if device_id not in self._learned:
            latest = await self._store.latest(device_id)
            held = {metric: kind_of(value) for metric, (_, value) in latest.items()}
            self._fixed += self._kinds.learn(device_id, held)
            if len(self._learned) >= _DEVICES_REMEMBERED:
                self._learned.clear()
            self._learned.add(device_id)

    async def _make_fast(self) -> None:
        if self._fixed and not self._dry_run:
            await self._fix(self._fixed)
            self._kinds.settle(self._fixed)
            self._fixed = []

    async def _write(self) -> None:
        batch, self._batch = self._batch, []
        self._known.clear()  # a device may be deleted while its readings come
        if not batch:
            return
        if not self._dry_run:
            await self._make_fast()
            await self._hold()
            if self._run is None and isinstance(self._store, Buffering):
                self._run = await self._store.run()
            await self._store.write(batch)
        self.result.points += len(batch)

    async def _settle_store(self) -> None:
        if self._run is None or not isinstance(self._store, Buffering):
            return
        await asyncio.sleep(self._store.visible_after_s)
        if await self._store.run() != self._run:
            raise StoreUnavailable("the store was started again meanwhile and may have lost some: import it again")

    def _whole(self, records: Iterable[Record]) -> Iterator[Record]:
        """Records of line protocol, lines that a quoted text spans joined."""
        for record in records:
            begun = self._begun
            whole = record if begun is None else Record(begun.line, record.end, f"{begun.text}\n{record.text}")
            try:
                parse_line(whole.text)
            except Unfinished:
                self._joined += 1
                if self._joined <= _JOINED_LINES and len(whole.text) <= _JOINED_CHARS:
                    self._begun = whole
                    continue
            except BadRecord:
                pass
            self._begun, self._joined = None, 0
            yield whole

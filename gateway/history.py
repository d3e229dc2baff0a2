"""What a device measured: the store's answer, completed by what is acknowledged but not yet to be seen there.

An acknowledged reading is in the next answer, whichever store is behind, however late its writes become visible
and however long it is down for writing. Recent readings are noted down before the store is asked: a row that is
forgotten in between was visible in the store before that.
"""

import asyncio
import bisect
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

from gateway.buckets import Bucket, Points, Run, fits, parts_of, runs
from gateway.journal import Journal
from gateway.journal_file import JournalError
from gateway.readings import Reading, Value
from gateway.recent import Recent, Row
from gateway.store import Aggregate, Query, Series, Store, StoreUnavailable

Latest = dict[str, tuple[int, Value]]

_PAGE = 10_000
_READ_READINGS = 20_000


class History:
    """Queries. `latest` is kept in memory for the devices asked for last."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        recent: Recent,
        *,
        store_opened: Callable[[], bool] = lambda: True,
        devices_cached: int = 10_000,
    ) -> None:
        self._store = store
        self._journal = journal
        self._recent = recent
        self._store_opened = store_opened
        self._devices_cached = devices_cached
        self._latest: OrderedDict[str, Latest] = OrderedDict()
        self._loading: dict[str, list[Latest]] = {}

    async def query(self, query: Query) -> dict[str, Series]:
        """As Store.query, with every acknowledged reading. Raises StoreUnavailable."""
        self._need_store()
        points = await self._recent_points(query)
        answer = await self._store.query(query)
        if not points:
            return answer
        if query.buckets is None:
            for metric, values in points.items():
                answer[metric] = _merged(answer.get(metric), values, query.limit)
            return answer
        points = {
            metric: values for metric, values in points.items() if fits(next(iter(values.values())), query.aggregate)
        }
        for run in runs({ts for values in points.values() for ts in values}, query):
            for metric, buckets in (await self._run_buckets(query, run, points)).items():
                answer[metric] = _with_buckets(answer.get(metric), buckets, query.aggregate)
        return answer

    async def latest(self, device_id: str) -> Latest:
        """(ts_ms, value) of each metric's newest acknowledged reading. Raises StoreUnavailable on the first call."""
        known = self._latest.get(device_id)
        if known is not None:
            self._latest.move_to_end(device_id)
            return dict(known)
        self._need_store()
        # What is committed from here on, `saw` adds to this too.
        table: Latest = {}
        loading = self._loading.setdefault(device_id, [])
        loading.append(table)
        try:
            # Memory and spans at one moment: a row that leaves the one for the other is then missed by neither.
            _note_latest(table, self._recent.of_device(device_id))
            spans = self._recent.spans(device_id, 0, 1 << 62)
            stored: Latest = {}
            async for readings in self._stored_recent(device_id, spans):
                _note_latest(stored, readings)
            _complete(table, stored)
            _complete(table, await self._store.latest(device_id))
            if self._loading.get(device_id) is loading:  # else the device was forgotten meanwhile
                self._latest[device_id] = table
                if len(self._latest) > self._devices_cached:
                    self._latest.popitem(last=False)
            return dict(table)
        finally:
            # By identity: two tables being loaded may be equal.
            loading[:] = [other for other in loading if other is not table]
            if not loading and self._loading.get(device_id) is loading:
                del self._loading[device_id]

    def saw(self, row: Row) -> None:
        """A row was committed: keep the tables in memory current."""
        if not self._latest and not self._loading:
            return
        for frame in row.frames:
            table = self._latest.get(frame.device_id)
            if table is not None:
                _note_latest(table, frame.readings())
            for loading in self._loading.get(frame.device_id, ()):
                _note_latest(loading, frame.readings())

    def forget_device(self, device_id: str) -> None:
        self._latest.pop(device_id, None)
        self._loading.pop(device_id, None)

    # ---- private

    def _need_store(self) -> None:
        if not self._store_opened():
            raise StoreUnavailable("the store could not be opened yet")

    async def _recent_points(self, query: Query) -> Points:
        # Memory and spans at one moment, as in latest().
        in_memory = [reading for reading in self._recent.of_device(query.device_id) if _asked(reading, query)]
        spans = self._recent.spans(query.device_id, query.start_ms, query.end_ms)
        points: Points = {}
        async for readings in self._stored_recent(query.device_id, spans):
            _note(points, (reading for reading in readings if _asked(reading, query)))
        _note(points, in_memory)  # after the older rows: a later value for a point replaces it
        return points

    async def _stored_recent(self, device_id: str, spans: list[tuple[int, int]]) -> AsyncIterator[list[Reading]]:
        """Readings of the device in rows that are on disk only, a few rows at a time."""
        for first, last in spans:
            after = first - 1
            while after < last:
                try:
                    rows = await self._journal.read(after, _READ_READINGS, last)
                except JournalError as error:
                    raise StoreUnavailable(f"the journal cannot be read: {error}") from error
                if not rows:
                    break
                after = rows[-1].seq
                frames = [frame for row in rows for frame in row.frames if frame.device_id == device_id]
                found = [reading for frame in frames for reading in frame.readings()]
                if found:
                    yield found

    async def _run_buckets(self, query: Query, run: Run, points: Points) -> dict[str, dict[int, Bucket]]:
        width = query.width_ms or 1
        metrics = tuple(
            metric for metric, values in points.items() if any(run.first_ms <= ts < run.end_ms for ts in values)
        )
        buckets: dict[str, dict[int, Bucket]] = {metric: {} for metric in metrics}

        def bucket(metric: str, ts: int) -> Bucket:
            start = query.start_ms + (ts - query.start_ms) // width * width
            known = buckets[metric].get(start)
            if known is None:
                known = buckets[metric][start] = Bucket(numbers=None if query.aggregate.percent is None else [])
            return known

        for start, stop in ((run.start_ms, run.first_ms), (run.end_ms, run.stop_ms)):
            if start < stop:
                for metric, part in (await self._parts(query, start, stop, metrics)).items():
                    bucket(metric, start).add_part(part, start)
        async for metric, series in self._raw(query, run, metrics):
            values = points[metric]
            for ts, value in zip(series.t, series.v, strict=True):
                if ts not in values:
                    bucket(metric, ts).add(ts, value)
        for metric in metrics:
            for ts, value in points[metric].items():
                if run.first_ms <= ts < run.end_ms:
                    bucket(metric, ts).add(ts, value)
        return buckets

    async def _parts(
        self, query: Query, start_ms: int, end_ms: int, metrics: tuple[str, ...]
    ) -> dict[str, dict[Aggregate, Value]]:
        """The store's aggregates of [start_ms, end_ms) by metric."""
        parts: dict[str, dict[Aggregate, Value]] = {}
        for aggregate in parts_of(query.aggregate):
            one = replace(query, start_ms=start_ms, end_ms=end_ms, metrics=metrics, buckets=1, aggregate=aggregate)
            for metric, series in (await self._store.query(one)).items():
                if metric in metrics and series.v:
                    parts.setdefault(metric, {})[aggregate] = series.v[0]
        return parts

    async def _raw(self, query: Query, run: Run, metrics: tuple[str, ...]) -> AsyncIterator[tuple[str, Series]]:
        """The store's raw readings of a run, newest page first: memory holds one page a metric."""
        ends = dict.fromkeys(metrics, run.end_ms)
        while ends:
            end_ms = max(ends.values())
            asked = tuple(metric for metric, end in ends.items() if end == end_ms)
            page = replace(query, start_ms=run.first_ms, end_ms=end_ms, metrics=asked, buckets=None, limit=_PAGE)
            found = await self._store.query(page)
            for metric in asked:
                series = found.get(metric)
                if series is not None and series.t:
                    yield metric, series
                if series is None or len(series.t) < _PAGE or series.t[0] <= run.first_ms:
                    del ends[metric]
                else:
                    ends[metric] = series.t[0]
            await asyncio.sleep(0)


def _asked(reading: Reading, query: Query) -> bool:
    return query.start_ms <= reading[2] < query.end_ms and (not query.metrics or reading[1] in query.metrics)


def _note(points: Points, readings: Iterable[Reading]) -> None:
    for _, metric, ts, value in readings:
        points.setdefault(metric, {})[ts] = value


def _note_latest(table: Latest, readings: Iterable[Reading]) -> None:
    for _, metric, ts, value in readings:
        known = table.get(metric)
        if known is None or ts >= known[0]:
            table[metric] = (ts, value)


def _complete(table: Latest, older: Latest) -> None:
    """What `older` has and the table does not; of the same time the table's value is the later one."""
    for metric, (ts, value) in older.items():
        if metric not in table or ts > table[metric][0]:
            table[metric] = (ts, value)


def _merged(series: Series | None, values: dict[int, Value], limit: int) -> Series:
    """Both, each time once, recent readings over the store's; the newest `limit`."""
    if series is None or not series.t:
        times: Sequence[int] = sorted(values)
        return Series(list(times[-limit:]), [values[ts] for ts in times[-limit:]])
    # Only the part from the oldest recent reading on has to be woven together.
    split = bisect.bisect_left(series.t, min(values))
    tail = dict(zip(series.t[split:], series.v[split:], strict=True)) | values
    times = sorted(tail)
    t = series.t[:split] + list(times)
    v = series.v[:split] + [tail[ts] for ts in times]
    return Series(t[-limit:], v[-limit:])


def _with_buckets(series: Series | None, buckets: dict[int, Bucket], aggregate: Aggregate) -> Series:
    known = dict(zip(series.t, series.v, strict=True)) if series is not None else {}
    for start, bucket in buckets.items():
        value = bucket.result(aggregate)
        if value is not None:
            known[start] = value
    times = sorted(known)
    return Series(times, [known[ts] for ts in times])

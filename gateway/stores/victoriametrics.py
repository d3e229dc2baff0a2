"""VictoriaMetrics as the store of readings: line protocol in by influxdb-client, /api/v1/export and MetricsQL out.

Queries read raw samples from /api/v1/export and fold buckets here, as they stream in: that is exact at both ends of a
range, needs no flag on the server, and counts a point once however often it was written. query_range would do the
work on the server, but shifts the newest 30 s (-search.latencyOffset) and counts every copy of a point. The price is
the raw samples on the wire: 19 MB and 1.2 to 2.2 s a million, in slices of the event loop.

What VictoriaMetrics does differently, whatever is done here:

* A sample once written is not replaced. Of several values for one point one is given, mostly the last written, after
  a merge in the background possibly another. Writing the same value again is harmless.
* Numbers keep 12 to 18 significant digits, fewer where one series holds very large and very small ones.
* A write is seen a second later, of a new series two to ten seconds later.
* A write is answered before it is on disk (-inmemoryDataFlushInterval, 5 s): killed, the server forgets it. `run` tells
  the drain of that, which then writes it again.
* Text and JSON are labels (line_protocol.py), so each different text of a metric is a series of its own: fit for
  states and versions, not for free text or for a position a second.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.readings import Reading, Value
from gateway.store import Query, Series, StoreError, StoreStats, StoreUnavailable
from gateway.stores.buckets import ANY_KIND, Buckets
from gateway.stores.line_protocol import (
    BOOLEAN,
    JSON_TEXTS,
    MEASUREMENTS,
    NUMBER,
    LineEncoder,
    Texts,
    tag_of,
    text_of,
)
from gateway.stores.transport import Transport, authorization_of

#: Samples on one line of an export: folding them takes 2 to 4 ms of the event loop.
ROWS_A_LINE = 2000
_NAMES = {f"{name}_value": name for name in MEASUREMENTS.values()}
_LOOK_BACK = "40y"  # for the latest reading; the server refuses ranges that begin before 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class VictoriaOptions:
    """`token` is a bearer token, or `user:password`, for a proxy such as vmauth in front."""

    url: str
    token: str = field(default="", repr=False)
    timeout_s: float = 30.0


class VictoriaStore:
    """A VictoriaMetrics server, single node (or vmauth in front of a cluster's paths)."""

    write_readings = 20_000
    visible_after_s = 15.0  # measured: 1.0 s for a known series, 2 s for a new one, 10 s if it was asked for before

    def __init__(self, options: VictoriaOptions) -> None:
        self._encoder = LineEncoder(Texts.LABEL)
        self._transport = Transport(
            options.url,
            name="VictoriaMetrics",
            bucket="mooring",  # not used by the server, but influxdb-client sends one
            org="mooring",
            authorization=authorization_of(options.token, scheme="Bearer"),
            timeout_s=options.timeout_s,
        )

    async def open(self) -> None:
        self._transport.open()

    async def close(self) -> None:
        await self._transport.close()

    async def write(self, readings: Sequence[Reading]) -> None:
        """Never raises StoreRejected for the server's sake: VictoriaMetrics answers 204 to any line."""
        if readings:
            await self._transport.write_v2(self._encoder.encode(readings))

    async def query(self, query: Query) -> dict[str, Series]:
        any_kind = query.buckets is None or query.aggregate in ANY_KIND
        names = _NAMES if any_kind else {f"{NUMBER}_value": NUMBER}
        form = [("match[]", selector) for selector in _selectors(names, query.device_id, query.metrics)]
        # the server cuts times to whole ms after a multiplication in floats: ask for one more on either side
        form += [("start", f"{(query.start_ms - 1) / 1000:.3f}"), ("end", f"{(query.end_ms + 1) / 1000:.3f}")]
        form += [("max_rows_per_line", str(ROWS_A_LINE))]
        found: dict[str, _Folded] = {}
        texts: dict[tuple[str, str], dict[int, str]] = {}
        async with aclosing(self._transport.lines("POST", "/api/v1/export", body=form)) as lines:
            async for line in lines:
                if not line:
                    continue
                row = _json(line)
                labels, times, values = row["metric"], row["timestamps"], row["values"]
                metric, kind = text_of(labels["metric"]), _NAMES[labels["__name__"]]
                if kind not in (NUMBER, BOOLEAN):
                    _collect(texts.setdefault((metric, kind), {}), text_of(labels.get("text", "")), times, query)
                    continue
                if metric not in found:
                    found[metric] = _Folded(query)
                found[metric].add(times, [value == 1 for value in values] if kind == BOOLEAN else values)
                await asyncio.sleep(0)  # lines that have already come in do not wait by themselves
        for (metric, kind), points in texts.items():
            folded = found.setdefault(metric, _Folded(query))
            folded.add(order := sorted(points), [_value_of(kind, points[ts_ms]) for ts_ms in order])
        answers = {metric: folded.series() for metric, folded in found.items()}
        return {metric: series for metric, series in answers.items() if series.t}

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        (selector,) = _selectors(_NAMES, device_id, ())
        window = f"{selector}[{_LOOK_BACK}]"
        ask = (
            f'label_set(tlast_over_time({window}) keep_metric_names, "of", "time")'
            f' or label_set(last_over_time({window}), "of", "value")'
        )
        # two days ahead, for devices whose clocks are fast; nocache, or the answer is 30 s old
        form = {"query": ask, "time": str(int(time.time()) + 2 * 86400), "nocache": "1"}
        answer = _json(await self._transport.request("POST", "/api/v1/query", body=form))
        times: dict[tuple[str, str, str], int] = {}
        values: dict[tuple[str, str, str], Value] = {}
        for sample in answer["data"]["result"]:
            labels, number = sample["metric"], float(sample["value"][1])
            series = (labels["metric"], labels["__name__"], labels.get("text", ""))
            if labels["of"] == "time":
                times[series] = round(number * 1000)
            else:
                kind = _NAMES[labels["__name__"]]
                values[series] = (
                    number
                    if kind == NUMBER
                    else number == 1
                    if kind == BOOLEAN
                    else _value_of(kind, text_of(series[2]))
                )
        found: dict[str, tuple[int, Value]] = {}
        for series, ts_ms in sorted(times.items(), key=lambda item: (item[1], item[0])):
            if series in values:
                found[text_of(series[0])] = (ts_ms, values[series])
        return found

    async def delete_device(self, device_id: str) -> None:
        # what was written in the last seconds is not yet seen by a deletion; where flushing is not allowed, it stays
        with suppress(StoreError):
            await self._transport.request("GET", "/internal/force_flush")
        (selector,) = _selectors(_NAMES, device_id, ())
        await self._transport.request("POST", "/api/v1/admin/tsdb/delete_series", body={"match[]": selector})

    async def run(self) -> str | None:
        """When the server was started; None behind a proxy that keeps /metrics back."""
        try:
            async with aclosing(self._transport.lines("GET", "/metrics")) as lines:
                async for line in lines:
                    if line.startswith(b"process_start_time_seconds "):
                        return line.decode()
        except StoreUnavailable as error:
            if error.status in (400, 401, 403, 404):
                return None
            raise
        return None

    async def stats(self) -> StoreStats:
        """Its kind alone: what the server tells of its size is of everything in it."""
        return StoreStats(kind="victoriametrics")


class _Folded:
    """One metric's answer in the making, from samples in order of time with possible repetitions of a time."""

    def __init__(self, query: Query) -> None:
        self._start_ms, self._end_ms = query.start_ms, query.end_ms
        width_ms = query.width_ms
        self._raw: deque[tuple[int, Value]] = deque(maxlen=query.limit)
        self._buckets = None if width_ms is None else Buckets(query.aggregate, query.start_ms, width_ms)
        self._take: Callable[[int, Value], None] = (
            self._buckets.add_reading if self._buckets else lambda ts_ms, value: self._raw.append((ts_ms, value))
        )
        self._pending: tuple[int, Value] | None = None  # taken once no later sample has its time

    def add(self, times: Sequence[int], values: Sequence[Value]) -> None:
        pending, take = self._pending, self._take
        for sample in zip(times, values, strict=True):
            if not self._start_ms <= sample[0] < self._end_ms:
                continue
            if pending is not None and pending[0] != sample[0]:
                take(*pending)
            pending = sample
        self._pending = pending

    def series(self) -> Series:
        if self._pending is not None:
            self._take(*self._pending)
            self._pending = None
        if self._buckets is not None:
            return self._buckets.series()
        return Series(t=[ts_ms for ts_ms, _ in self._raw], v=[value for _, value in self._raw])


def _selectors(names: Sequence[str] | dict[str, str], device_id: str, metrics: Sequence[str]) -> list[str]:
    common = f'__name__=~"{"|".join(names)}",device={_quoted(device_id)}'
    if not metrics:
        return [f"{{{common}}}"]
    return [f"{{{common},metric={_quoted(metric)}}}" for metric in metrics]


def _quoted(text: str) -> str:
    """A label's value in a selector. Tags hold neither quotes, backslashes nor control characters."""
    return f'"{tag_of(text)}"'


def _collect(points: dict[int, str], text: str, times: Sequence[int], query: Query) -> None:
    """Lay one text's series into its metric's; at the same time the greater text wins, so that answers are stable."""
    for ts_ms in times:
        if query.start_ms <= ts_ms < query.end_ms:
            known = points.get(ts_ms)
            if known is None or text > known:
                points[ts_ms] = text


def _value_of(kind: str, text: str) -> Value:
    """What a label holds."""
    value: Value = orjson.loads(text) if kind in JSON_TEXTS else text
    return value


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise StoreUnavailable("VictoriaMetrics did not answer in JSON: is store.url right?") from error

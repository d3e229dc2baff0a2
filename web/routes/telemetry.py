"""Readings: ranges of them, and the latest."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from fleet.errors import NotFound
from fleet.views import Role
from gateway.edges import on_whole_edges, with_empty_buckets
from gateway.store import Aggregate, Query
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.keys import EXPORTS
from web.readings_csv import Asked
from web.schemas.base import DeviceId
from web.schemas.telemetry import (
    ExportQuery,
    Fill,
    FleetTelemetry,
    FleetTelemetryQuery,
    Latest,
    LatestValue,
    RangeQuery,
    Series,
    Telemetry,
    TelemetryQuery,
)

telemetry = Routes("Telemetry", "Readings, by device and metric.")

_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_MAX_METRICS = 100
_MAX_DEVICES = 50
_MAX_POINTS = 200_000
"""Of an answer about several devices."""
_AT_ONCE = 8
"""Devices that are asked about at the same time."""
_MAX_MS = 253_402_300_800_000
"""The end of year 9999: what a date can say."""


@telemetry.get("/api/v1/devices/{id}/telemetry", summary="Readings in a range", role=Role.VIEWER, raises=(404, 503))
async def get_telemetry(call: Call, device_id: DeviceId, query: TelemetryQuery) -> Telemetry:
    """With `buckets`, one value a bucket; without, the raw readings, the newest of each metric.

    Buckets of a minute or more are whole minutes of UTC, and from an hour on whole hours: the range is widened to them.
    """
    asked = _query(query, device_id)
    await call.fleet.devices.get(device_id)
    return await _telemetry(call, query, asked)


@telemetry.get(
    "/api/v1/telemetry", summary="Readings of several devices in a range", role=Role.VIEWER, raises=(404, 409, 503)
)
async def get_fleet_telemetry(call: Call, query: FleetTelemetryQuery) -> FleetTelemetry:
    """Of the devices named and of those with the tag or of the group, at most 50; else as for one device."""
    asked = _query(query, "")
    wanted = list(dict.fromkeys(part for part in query.devices.split(",") if part))
    if not wanted and not query.tag and not query.group:
        detail = "name some, or a tag, or a group"
        raise Problem(422, f"devices: {detail}", errors=[("devices", detail)])
    if len(wanted) > _MAX_DEVICES:
        raise Problem(422, f"devices: at most {_MAX_DEVICES} at once", errors=[("devices", f"at most {_MAX_DEVICES}")])
    known, missing = [], []
    for device_id in wanted:
        try:
            await call.fleet.devices.get(device_id)
            known.append(device_id)
        except NotFound:
            missing.append(device_id)
    for filters in ({"tag": query.tag}, {"group": query.group}):
        if any(filters.values()):
            found_so = await call.fleet.devices.list(**filters, limit=_MAX_DEVICES + 1, with_total=False)
            known = list(dict.fromkeys([*known, *(device.id for device in found_so.items)]))
    if len(known) > _MAX_DEVICES:
        raise Problem(422, f"devices: at most {_MAX_DEVICES} at once", errors=[("devices", f"at most {_MAX_DEVICES}")])
    found: dict[str, Telemetry] = {}
    points = 0
    for at in range(0, len(known), _AT_ONCE):
        some = known[at : at + _AT_ONCE]
        answers = await asyncio.gather(*(_telemetry(call, query, replace(asked, device_id=one)) for one in some))
        found |= zip(some, answers, strict=True)
        points += sum(len(series.t) for answer in answers for series in answer.series.values())
        if points > _MAX_POINTS:
            raise Problem(422, f"more than {_MAX_POINTS:,} points: ask for buckets, fewer devices or a shorter range")
    return FleetTelemetry(devices=found, missing=missing)


@telemetry.get(
    "/api/v1/devices/{id}/telemetry/export",
    summary="Readings in a range as a file",
    role=Role.VIEWER,
    raises=(404, 503),
    produces="text/csv",
)
async def export_telemetry(call: Call, device_id: DeviceId, query: ExportQuery) -> web.StreamResponse:
    """Every raw reading, as CSV: device, metric, ts, time, type, value. Sent as it is read; four at once.

    Texts that a spreadsheet would run as a formula have an apostrophe in front.
    """
    start_ms, end_ms, metrics = _asked(query, _DAY_MS)
    await call.fleet.devices.get(device_id)
    asked = Asked(device_id=device_id, start_ms=start_ms, end_ms=end_ms, metrics=metrics, wide=query.wide)
    return await call.request.app[EXPORTS].send(call.request, call.gateway.history, asked)


@telemetry.get(
    "/api/v1/devices/{id}/latest",
    summary="The newest reading of each metric",
    role=Role.VIEWER,
    raises=(404, 503),
)
async def get_latest(call: Call, device_id: DeviceId) -> Latest:
    await call.fleet.devices.get(device_id)
    fresh_from_ms = now_ms() - int(call.parts.options.stale_after_s * 1000)
    found = await call.gateway.history.latest(device_id)
    profile = call.fleet.profiles.of(device_id)
    units = {} if profile is None else profile.units
    return Latest(
        {
            metric: LatestValue(ts=ts, value=value, stale=ts < fresh_from_ms, unit=units.get(metric))
            for metric, (ts, value) in found.items()
        }
    )


def _query(query: RangeQuery, device_id: str) -> Query:
    start_ms, end_ms, metrics = _asked(query, _HOUR_MS)
    return on_whole_edges(
        Query(
            device_id=device_id,
            start_ms=start_ms,
            end_ms=end_ms,
            metrics=metrics,
            buckets=query.buckets,
            aggregate=Aggregate(query.agg.value),
            limit=query.max_points + 1,  # one more tells whether there are more
        )
    )


async def _telemetry(call: Call, query: RangeQuery, asked: Query) -> Telemetry:
    found = await call.gateway.history.query(asked)
    series = {}
    for metric, one in found.items():
        if asked.buckets is None:
            keep = query.max_points
            series[metric] = Series(t=one.t[-keep:], v=one.v[-keep:], truncated=len(one.t) > keep)
        elif query.fill is Fill.NULL:
            times, values = with_empty_buckets(one, asked)
            series[metric] = Series(t=list(times), v=list(values))
        else:
            series[metric] = Series(t=one.t, v=one.v)
    return Telemetry(series=series)


def now_ms() -> int:
    """Unix time in ms."""
    return time.time_ns() // 1_000_000


def _asked(query: RangeQuery | ExportQuery, span_ms: int) -> tuple[int, int, tuple[str, ...]]:
    """(start_ms, end_ms, metrics) of a query; without a start, `span_ms` before the end."""
    end_ms = _ms("end", query.end) if query.end else now_ms()
    start_ms = _ms("start", query.start) if query.start else max(0, end_ms - span_ms)
    if start_ms >= end_ms:
        raise Problem(422, "start: must be before end", errors=[("start", "must be before end")])
    metrics = tuple(dict.fromkeys(part for part in query.metrics.split(",") if part))
    if len(metrics) > _MAX_METRICS:
        raise Problem(422, f"metrics: at most {_MAX_METRICS}", errors=[("metrics", f"at most {_MAX_METRICS}")])
    return start_ms, end_ms, metrics


def _ms(field: str, text: str) -> int:
    """Unix time in ms from the same, or from RFC 3339 with an offset."""
    try:
        if text.lstrip("-").isascii() and text.lstrip("-").isdigit():
            value = int(text)
        else:
            # A plus in a URL that was not encoded arrives as a space.
            at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
            if at.tzinfo is None:
                raise ValueError("no offset")
            value = round(at.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        detail = "Unix time in ms, or RFC 3339 with Z or an offset"
        raise Problem(422, f"{field}: {detail}", errors=[(field, detail)]) from error
    if not 0 <= value < _MAX_MS:
        raise Problem(422, f"{field}: out of range", errors=[(field, "out of range")])
    return value

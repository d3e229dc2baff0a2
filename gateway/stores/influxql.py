"""InfluxQL: the statements that ask for readings, and the answers read back. No I/O, no clock.

InfluxQL because 1.x, 2.x and 3.x all answer it (Flux is gone in 3, SQL is not in 1 and 2). The layout is
line_protocol's. One statement a kind: statements of a request may be joined by `;`, and a kind that cannot be
averaged is not asked for an average.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.readings import Value
from gateway.store import Query, Series, StoreUnavailable
from gateway.stores.buckets import ANY_KIND
from gateway.stores.line_protocol import JSON_TEXTS, MEASUREMENTS, NUMBER, tag_of, text_of

_ALL = tuple(MEASUREMENTS.values())


def select(query: Query) -> str:
    """The statements that answer a query."""
    where = [f"{identifier('device')} = {literal(tag_of(query.device_id))}"]
    where += [f"time >= {query.start_ms}ms", f"time < {query.end_ms}ms"]
    if query.metrics:
        wanted = " OR ".join(f"{identifier('metric')} = {literal(tag_of(metric))}" for metric in query.metrics)
        where.append(f"({wanted})")
    condition = " AND ".join(where)
    width_ms = query.width_ms
    measurements: tuple[str, ...]
    if width_ms is None:
        # LIMIT counts for each series of a GROUP BY
        what, measurements = identifier("value"), _ALL
        tail = f"GROUP BY {identifier('metric')} ORDER BY time DESC LIMIT {query.limit}"
    else:
        percent = query.aggregate.percent
        function, more = (query.aggregate.value, "") if percent is None else ("percentile", f", {percent}")
        what = f"{function}({identifier('value')}{more})"
        measurements = _ALL if query.aggregate in ANY_KIND else (NUMBER,)
        # the second argument moves the buckets, so that the first begins at start_ms and not at a multiple of the width
        offset_ms = query.start_ms % width_ms
        tail = f"GROUP BY time({width_ms}ms, {offset_ms}ms), {identifier('metric')} fill(none)"
    return "; ".join(f"SELECT {what} FROM {identifier(name)} WHERE {condition} {tail}" for name in measurements)  # noqa: S608 # escaped


def select_latest(device_id: str) -> str:
    """The statements for each metric's newest reading. Without GROUP BY time, last() gives its own time."""
    where = f"{identifier('device')} = {literal(tag_of(device_id))}"
    return "; ".join(
        f"SELECT last({identifier('value')}) FROM {identifier(name)} WHERE {where} GROUP BY {identifier('metric')}"  # noqa: S608 # escaped
        for name in _ALL
    )


def create_database(name: str) -> str:
    """The statement that makes a database, and changes nothing where there is one (1.x)."""
    return f"CREATE DATABASE {identifier(name)}"


def delete_device(device_id: str) -> str:
    """The statements that forget a device (1.x)."""
    where = f"{identifier('device')} = {literal(tag_of(device_id))}"
    return "; ".join(f"DELETE FROM {identifier(name)} WHERE {where}" for name in _ALL)  # noqa: S608 # escaped


def delete_predicates(device_id: str) -> list[str]:
    """The same for /api/v2/delete (2.x), which takes one conjunction a request."""
    device = tag_of(device_id)  # holds neither quote nor backslash
    return [f'_measurement="{name}" AND device="{device}"' for name in _ALL]


def read_series(answer: Mapping[str, Any]) -> dict[str, Series]:
    """metric -> readings, ascending, of a whole /query answer.

    Raises StoreUnavailable when a statement failed: InfluxDB says so inside an answer with status 200.
    """
    found: dict[str, dict[int, Value]] = {}
    for result in answer.get("results", ()):
        if "error" in result:
            raise StoreUnavailable(f"InfluxDB could not answer: {result['error']}")
        for series in result.get("series", ()):
            if series.get("partial"):
                raise StoreUnavailable("InfluxDB cut its answer: raise its max-row-limit")
            # a metric has one kind, and so one series; were there two, their readings are laid together
            points = found.setdefault(text_of(series["tags"]["metric"]), {})
            is_json = series["name"] in JSON_TEXTS
            for ts_ms, value in series["values"]:
                if ts_ms not in points:
                    # a count of JSON is a number
                    points[ts_ms] = orjson.loads(value) if is_json and isinstance(value, str) else value
    return {
        metric: Series(t=(order := sorted(points)), v=[points[ts_ms] for ts_ms in order])
        for metric, points in found.items()
        if points
    }


def identifier(name: str) -> str:
    """A name in double quotes."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def literal(text: str) -> str:
    """A string in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"

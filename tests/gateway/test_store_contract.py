"""What every store does: the embedded one, InfluxDB (1.x, which answers InfluxQL as 2.x and 3.x do), VictoriaMetrics.

Where a store cannot keep the contract, the difference has a name in `Bench` and a test that says what it does instead.
"""

import asyncio
import math
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from gateway.readings import Reading, Value
from gateway.store import Aggregate, Query, Store, StoreRejected, StoreUnavailable
from gateway.stores import (
    EmbeddedOptions,
    InfluxOptions,
    VictoriaOptions,
    make_store,
)
from tests.servers import Server, influxdb, victoria_metrics

#: 2.5 s before a UTC midnight, so that ranges cross from one day's file into the next; no multiple of any width used.
BASE = 19_675 * 86_400_000 - 2_477
FAR = BASE + 3_600_000
DEVICE = "pump-7"
NUMBERS = [1, 2.5, -4, 0.0, 1e-9, 123456.789, 2**53, -(2**53), 21.5]
_names = count()

HOSTILE_NAMES = [
    "plain",
    "with space",
    "a,b=c d",
    'q"uo"te',
    "'single'",
    "'; DROP MEASUREMENT mooring_number; --",
    '" OR 1=1',
    "back\\slash",
    "ends with \\",
    "\\",
    "\\n",
    "new\nline",
    "carriage\rreturn",
    "tab\ttab",
    "percent %",
    "%0A",
    "%25",
    "100%AF",
    "humidity [%]",
    "größe/Ω·m",
    "温度",
    "🚢",
    "a.*",
    "a|b",
    "{x=~'y'}",
    "#comment",
    "_field",
    "time",
    "value",
    "device",
    "__name__",
    "\u2028line separator",
    "$1",
    " leading and trailing ",
    "m" * 128,
]


@dataclass
class Bench:
    """A store under test."""

    kind: str
    make: Callable[[], Store]
    settle: Callable[[], None]
    store: Store
    #: VictoriaMetrics keeps all values ever written for a point, and numbers to 12 digits or so.
    replaces: bool
    exact: bool

    async def write(self, readings: Sequence[Reading]) -> None:
        await self.store.write(readings)
        await asyncio.to_thread(self.settle)

    async def put(self, metric: str, points: Sequence[tuple[int, Value]], device: str = DEVICE) -> None:
        """Write points given as (ms after BASE, value)."""
        await self.write([Reading(device, metric, BASE + after, value) for after, value in points])

    async def raw(self, metric: str = "m", device: str = DEVICE, **options: object) -> list[tuple[int, Value]]:
        """One metric's points as (ms after BASE, value)."""
        answer = await self.store.query(a_query(device, **options))
        series = answer.get(metric)
        return [] if series is None else [(t - BASE, v) for t, v in zip(series.t, series.v, strict=True)]

    async def reopen(self) -> None:
        await self.store.close()
        self.store = self.make()
        await self.store.open()


def a_query(device: str = DEVICE, **options: object) -> Query:
    return Query(**{"device_id": device, "start_ms": BASE - 10_000, "end_ms": FAR, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def influx_server() -> Iterator[Server]:
    with influxdb() as server:
        yield server


@pytest.fixture(scope="module")
def victoria_server() -> Iterator[Server]:
    with victoria_metrics() as server:
        yield server


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("influxdb", marks=pytest.mark.servers),
        pytest.param("victoriametrics", marks=pytest.mark.servers),
    ]
)
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    def nothing() -> None:
        pass

    if request.param == "embedded":
        options = EmbeddedOptions(directory=tmp_path / "readings", retention_days=36_500)
        make, settle = (lambda: make_store(options)), nothing
    elif request.param == "influxdb":
        server: Server = request.getfixturevalue("influx_server")
        bucket = f"b{next(_names)}"
        call(f"{server.url}/query?" + urllib.parse.urlencode({"q": f"CREATE DATABASE {bucket}"}), b"")
        influx_options = InfluxOptions(url=server.url, bucket=bucket, api="v1")
        make, settle = (lambda: make_store(influx_options)), nothing
    else:
        url = request.getfixturevalue("victoria_server").url
        wipe(url)
        make, settle = (
            (lambda: make_store(VictoriaOptions(url=url))),
            (lambda: call(f"{url}/internal/force_flush")),
        )
    own = request.param != "victoriametrics"
    return Bench(request.param, make, settle, make(), replaces=own, exact=own)


@pytest.fixture
async def bench(plan: Bench) -> AsyncIterator[Bench]:
    await plan.store.open()
    yield plan
    await plan.store.close()


def call(url: str, body: bytes | None = None) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as response:
        response.read()


def wipe(url: str) -> None:
    call(f"{url}/internal/force_flush")
    call(f"{url}/api/v1/admin/tsdb/delete_series", urllib.parse.urlencode({"match[]": '{device!=""}'}).encode())


async def test_nothing_written_is_an_empty_answer(bench: Bench) -> None:
    assert await bench.store.query(a_query()) == {}
    assert await bench.store.query(a_query(buckets=10)) == {}
    assert await bench.store.latest(DEVICE) == {}
    await bench.store.write([])
    await bench.store.delete_device(DEVICE)


async def test_numbers_come_back_equal_in_order_of_time(bench: Bench) -> None:
    for index, value in enumerate(NUMBERS):  # a metric each: VictoriaMetrics rounds within a series
        await bench.write([Reading(DEVICE, f"m{index}", BASE, value)])
    answer = await bench.store.query(a_query())
    assert {metric: (series.t, series.v) for metric, series in answer.items()} == {
        f"m{index}": ([BASE], [value]) for index, value in enumerate(NUMBERS)
    }
    assert not any(isinstance(series.v[0], bool) for series in answer.values())


async def test_every_float_comes_back_exactly_or_as_close_as_the_store_can(bench: Bench) -> None:
    values = [0.1 + 0.2, 1 / 3, math.pi, -1 / 7 * 1e-10, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e23]
    if not bench.exact:
        values = values[:4]
    for index, value in enumerate(values):
        await bench.write([Reading(DEVICE, f"m{index}", BASE, value)])
    answer = await bench.store.query(a_query())
    got = [answer[f"m{index}"].v[0] for index in range(len(values))]
    assert got == (values if bench.exact else pytest.approx(values, rel=1e-11))


async def test_booleans_and_text_keep_their_types(bench: Bench) -> None:
    await bench.put("ok", [(0, True), (1, False)])
    await bench.put("state", [(0, "open"), (1, ""), (2, "1"), (3, "true")])
    answer = await bench.store.query(a_query())
    assert [value is True for value in answer["ok"].v] == [True, False]
    assert answer["ok"].v == [True, False]
    assert all(isinstance(value, bool) for value in answer["ok"].v)
    assert answer["state"].v == ["open", "", "1", "true"]


async def test_positions_and_json_come_back_as_they_were(bench: Bench) -> None:
    places: list[Value] = [{"lat": 54.3, "lon": 10.125}, {"alt": -2, "lat": -90, "lon": 180.0}]
    trees: list[Value] = [[], {}, [1, 2.5, None, "x"], {"b": {"a": [True, False]}, 'ä "q\\uote"': "a,b=c \\ d"}]
    trees.append(['"' * 500])
    await bench.put("place", list(enumerate(places)))
    await bench.put("tree", list(enumerate(trees)))
    await bench.put("text", [(0, "[]"), (1, '{"lat":1,"lon":2}')])
    answer = await bench.store.query(a_query())
    assert (answer["place"].v, answer["tree"].v) == (places, trees)
    assert answer["text"].v == ["[]", '{"lat":1,"lon":2}']
    latest = await bench.store.latest(DEVICE)
    assert (latest["place"][1], latest["tree"][1], latest["text"][1]) == (places[-1], trees[-1], '{"lat":1,"lon":2}')
    last = await bench.store.query(a_query(buckets=1, aggregate=Aggregate.LAST))
    assert (last["place"].v, last["tree"].v) == ([places[-1]], [trees[-1]])
    counts = await bench.store.query(a_query(buckets=1, aggregate=Aggregate.COUNT))
    assert (counts["place"].v, counts["tree"].v) == ([2], [5])
    assert await bench.store.query(a_query(buckets=1, aggregate=Aggregate.MEAN)) == {}
    await bench.store.delete_device(DEVICE)
    assert await bench.store.query(a_query()) == {}


async def test_writing_the_same_again_changes_nothing(bench: Bench) -> None:
    points = [(0, 1.5), (1000, 2.5), (4000, 4.5)]
    await bench.put("m", points)
    await bench.put("m", points)
    await bench.put("m", [*points, *points])
    assert await bench.raw() == points
    assert await bench.raw(buckets=1, aggregate=Aggregate.COUNT) == [(-10_000, 3)]
    assert await bench.raw(buckets=1, aggregate=Aggregate.SUM) == [(-10_000, 8.5)]


@pytest.mark.parametrize(("first", "second"), [(1.5, 2.5), (2.5, 1.5), (True, False), ("b", "a"), ([1], [2])])
async def test_a_later_value_for_a_point_replaces_the_earlier(bench: Bench, first: Value, second: Value) -> None:
    await bench.put("m", [(0, first)])
    await bench.put("m", [(0, second)])
    points = await bench.raw()
    assert len(points) == 1
    assert await bench.raw(buckets=1, aggregate=Aggregate.COUNT) == [(-10_000, 1)]
    if bench.replaces:
        assert points == [(0, second)]
        assert (await bench.store.latest(DEVICE))["m"] == (BASE, second)
    else:
        assert points[0][1] in (first, second)


async def test_of_two_values_in_one_batch_the_last_stays(bench: Bench) -> None:
    await bench.put("m", [(0, 1), (5, 9), (0, 2)])
    assert await bench.raw() == [(0, 2), (5, 9)]


@pytest.mark.parametrize("aggregate", list(Aggregate))
@pytest.mark.parametrize("buckets", [1, 3, 7, 300])
async def test_buckets_hold_exact_aggregates(bench: Bench, aggregate: Aggregate, buckets: int) -> None:
    points = [(after, float((after * 7) % 64) / 4 - 5) for after in range(0, 9_000, 37)]
    points += [(after, 3.25) for after in range(60_000, 60_040)]
    await bench.put("m", points)
    start, end = 500, 61_003
    query = a_query(start_ms=BASE + start, end_ms=BASE + end, buckets=buckets, aggregate=aggregate)
    series = (await bench.store.query(query))["m"]
    width = query.width_ms
    assert width
    expected: dict[int, list[float]] = {}
    for after, value in points:
        if start <= after < end:
            expected.setdefault(BASE + start + (after - start) // width * width, []).append(value)
    fold = {
        Aggregate.MEAN: lambda values: sum(values) / len(values),
        Aggregate.MIN: min,
        Aggregate.MAX: max,
        Aggregate.SUM: sum,
        Aggregate.COUNT: len,
        Aggregate.FIRST: lambda values: values[0],
        Aggregate.LAST: lambda values: values[-1],
        Aggregate.P50: lambda values: sorted(values)[max(0, math.floor(len(values) * 0.5 + 0.5) - 1)],
        Aggregate.P95: lambda values: sorted(values)[max(0, math.floor(len(values) * 0.95 + 0.5) - 1)],
    }[aggregate]
    assert series.t == list(expected)
    if aggregate is Aggregate.MEAN:  # summed in another order than here
        assert series.v == pytest.approx([fold(values) for values in expected.values()], rel=1e-12)
    else:
        assert series.v == [fold(values) for values in expected.values()]


async def test_empty_buckets_are_left_out(bench: Bench) -> None:
    await bench.put("m", [(0, 1), (9_999, 2), (50_000, 3)])
    options = {"start_ms": BASE, "end_ms": BASE + 100_000, "buckets": 10, "aggregate": Aggregate.SUM}
    assert await bench.raw(**options) == [(0, 3), (50_000, 3)]


async def test_text_and_booleans_know_first_last_and_count_only(bench: Bench) -> None:
    await bench.put("state", [(0, "a"), (1, "b"), (2_000, "c"), (2_001, "a")])
    await bench.put("ok", [(0, True), (1, False), (2_000, True)])
    await bench.put("m", [(0, 1)])
    options = {"start_ms": BASE, "end_ms": BASE + 4_000, "buckets": 4}
    last = await bench.store.query(a_query(aggregate=Aggregate.LAST, **options))
    assert (last["state"].t, last["state"].v) == ([BASE, BASE + 2_000], ["b", "a"])
    assert last["ok"].v == [False, True]
    assert isinstance(last["ok"].v[0], bool)
    first = await bench.store.query(a_query(aggregate=Aggregate.FIRST, **options))
    assert (first["state"].v, first["ok"].v, first["m"].v) == (["a", "c"], [True, True], [1])
    counts = await bench.store.query(a_query(aggregate=Aggregate.COUNT, **options))
    assert {metric: series.v for metric, series in counts.items()} == {"state": [2, 2], "ok": [2, 1], "m": [1]}
    for aggregate in set(Aggregate) - {Aggregate.FIRST, Aggregate.LAST, Aggregate.COUNT}:
        assert list(await bench.store.query(a_query(aggregate=aggregate, **options))) == ["m"]


async def test_a_range_takes_its_start_and_leaves_its_end(bench: Bench) -> None:
    await bench.put("m", [(after, after) for after in range(20)])
    for start, end in [(0, 20), (3, 4), (3, 3), (7, 19), (19, 20)]:
        expected = [(after, after) for after in range(start, end)]
        assert await bench.raw(start_ms=BASE + start, end_ms=BASE + end) == expected
        if end > start:
            options = {"start_ms": BASE + start, "end_ms": BASE + end, "buckets": 1, "aggregate": Aggregate.COUNT}
            assert await bench.raw(**options) == [(start, end - start)]


async def test_readings_out_of_order_come_back_in_order(bench: Bench) -> None:
    await bench.put("m", [(5_000, 5), (1_000, 1)])
    await bench.put("m", [(3_000, 3), (0, 0), (4_000, 4)])
    assert await bench.raw() == [(0, 0), (1_000, 1), (3_000, 3), (4_000, 4), (5_000, 5)]
    assert (await bench.store.latest(DEVICE))["m"] == (BASE + 5_000, 5)


async def test_latest_is_each_metrics_newest_whenever_that_was(bench: Bench) -> None:
    await bench.put("a", [(0, 1), (5_000, 2)])
    await bench.put("b", [(-86_400_000 * 3, "old")])
    await bench.put("c", [(10, True)])
    await bench.put("a", [(4_000, 9)])
    latest = await bench.store.latest(DEVICE)
    assert latest == {"a": (BASE + 5_000, 2), "b": (BASE - 86_400_000 * 3, "old"), "c": (BASE + 10, True)}
    assert latest["c"][1] is True
    await bench.put("b", [(20, "new")])
    assert (await bench.store.latest(DEVICE))["b"] == (BASE + 20, "new")


async def test_only_the_metrics_asked_for_come_back(bench: Bench) -> None:
    for metric in ("a", "b", "c"):
        await bench.put(metric, [(0, 1), (1, 2)])
    assert sorted(await bench.store.query(a_query())) == ["a", "b", "c"]
    assert sorted(await bench.store.query(a_query(metrics=("c", "a", "unknown")))) == ["a", "c"]
    assert list(await bench.store.query(a_query(metrics=("b",), buckets=5))) == ["b"]
    assert await bench.store.query(a_query(metrics=("unknown",))) == {}


async def test_another_devices_readings_are_never_mixed_in(bench: Bench) -> None:
    devices = ["a", "a.b", "a_b", "A", "aa", "a.", "a:1", ".*", "a-b"]
    for index, device in enumerate(devices):
        await bench.put("m", [(0, index), (1, index)], device)
    for index, device in enumerate(devices):
        assert await bench.raw(device=device) == [(0, index), (1, index)]
        assert await bench.raw(device=device, buckets=1, aggregate=Aggregate.SUM) == [(-10_000, 2 * index)]
        assert await bench.store.latest(device) == {"m": (BASE + 1, index)}
    assert await bench.raw(device="a*") == []


async def test_hostile_metric_names_are_only_names(bench: Bench) -> None:
    await bench.write([Reading(DEVICE, name, BASE, index) for index, name in enumerate(HOSTILE_NAMES)])
    expected = {name: index for index, name in enumerate(HOSTILE_NAMES)}
    answer = await bench.store.query(a_query())
    assert {metric: series.v for metric, series in answer.items()} == {name: [i] for name, i in expected.items()}
    assert await bench.store.latest(DEVICE) == {name: (BASE, i) for name, i in expected.items()}
    for name, index in expected.items():
        one = await bench.store.query(a_query(metrics=(name,), buckets=1, aggregate=Aggregate.LAST))
        assert {metric: series.v for metric, series in one.items()} == {name: [index]}


async def test_hostile_text_is_only_text(bench: Bench) -> None:
    texts = [*HOSTILE_NAMES, "", "\x00", "a\x00b", "x" * 1024, "ü" * 512, '\\"', "\\\\", "\r\n\r\n", 'a" 1\nb,c=d e="']
    await bench.put("t", list(enumerate(texts)))
    assert await bench.raw("t") == list(enumerate(texts))


async def test_hostile_device_ids_are_only_ids(bench: Bench) -> None:
    for index, device in enumerate(HOSTILE_NAMES):
        await bench.store.write([Reading(device, "m", BASE, index)])
    await bench.put("m", [(0, -1)])
    for index, device in enumerate(HOSTILE_NAMES):
        assert await bench.raw(device=device) == [(0, index)]
    await bench.store.delete_device(HOSTILE_NAMES[5])
    assert await bench.raw(device=HOSTILE_NAMES[5]) == []
    assert await bench.raw() == [(0, -1)]


async def test_raw_answers_hold_the_newest_up_to_the_limit_for_each_series(bench: Bench) -> None:
    for metric in ("m", "n"):
        await bench.put(metric, [(after * 100, after) for after in range(60)])  # crosses midnight after 25
    answer = await bench.store.query(a_query(limit=50))
    for metric in ("m", "n"):
        assert [t - BASE for t in answer[metric].t] == [after * 100 for after in range(10, 60)]
    assert await bench.raw(limit=1) == [(5_900, 59)]
    assert await bench.raw(limit=2, end_ms=BASE + 2_600) == [(2_400, 24), (2_500, 25)]


async def test_a_deleted_device_is_forgotten_and_may_come_back(bench: Bench) -> None:
    for device in (DEVICE, "other"):
        await bench.put("m", [(0, 1), (5_000, 2)], device)
        await bench.put("state", [(0, "a")], device)
    await bench.store.delete_device(DEVICE)
    assert await bench.store.query(a_query()) == {}
    assert await bench.store.query(a_query(buckets=1)) == {}
    assert await bench.store.latest(DEVICE) == {}
    assert await bench.raw(device="other") == [(0, 1), (5_000, 2)]
    await bench.put("m", [(7_000, 3)])
    assert await bench.raw() == [(7_000, 3)]


async def test_readings_are_there_after_closing_and_opening(bench: Bench) -> None:
    await bench.put("m", [(0, 1), (5_000, 2)])
    await bench.put("ok", [(0, True)])
    await bench.reopen()
    assert await bench.raw() == [(0, 1), (5_000, 2)]
    await bench.put("m", [(6_000, 3)])
    assert await bench.raw() == [(0, 1), (5_000, 2), (6_000, 3)]
    assert (await bench.store.latest(DEVICE))["ok"] == (BASE, True)


async def test_a_number_that_is_not_finite_is_rejected_and_leaves_no_trace(bench: Bench) -> None:
    for value in (math.nan, math.inf, -math.inf, "lone \ud800"):
        with pytest.raises(StoreRejected):
            await bench.store.write([Reading(DEVICE, "m", BASE, value)])
    await bench.put("m", [(0, 1)])
    assert await bench.raw() == [(0, 1)]


async def test_writes_and_queries_at_the_same_time(bench: Bench) -> None:
    async def write(device: str) -> None:
        for start in range(0, 200, 20):
            await bench.store.write([Reading(device, "m", BASE + n, n) for n in range(start, start + 20)])

    async def ask(device: str) -> None:
        for _ in range(20):
            await bench.store.query(a_query(device, buckets=10))
            await bench.store.latest(device)

    devices = [f"d{n}" for n in range(4)]
    await asyncio.gather(*(write(device) for device in devices), *(ask(device) for device in devices))
    await asyncio.to_thread(bench.settle)
    for device in devices:
        assert await bench.raw(device=device) == [(n, n) for n in range(200)]


async def test_stats_name_the_store(bench: Bench) -> None:
    await bench.put("m", [(0, 1), (1, 2)])
    stats = await bench.store.stats()
    assert stats.kind == bench.kind
    assert stats.points in (2, None)


async def test_a_closed_store_says_so(bench: Bench) -> None:
    await bench.store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await bench.store.write([Reading(DEVICE, "m", BASE, 1)])
    with pytest.raises(StoreUnavailable, match="closed"):
        await bench.store.query(a_query())
    await bench.store.close()

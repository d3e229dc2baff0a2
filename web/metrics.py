"""Metrics for Prometheus. No label has a device, a user or an address in it: their number is not bounded.

What the parts count is read from them at each scrape; only HTTP requests are counted here.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from broker.watchdog import BUCKETS_S, Watchdog
from gateway.store import StoreStats
from web.broker_figures import MEANINGS, FigureKind, prometheus_name
from web.overview import Fleetwide, Overviews, count_sessions
from web.parts import BrokerOperations, Parts, Sessions

if TYPE_CHECKING:
    from gateway.gateway import GatewayStats

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE"})
_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0)


class LiveCounts(Protocol):
    """What the live views count."""

    dropped: int

    @property
    def clients(self) -> int: ...


class Metrics:
    """Counts requests, and renders everything at a scrape."""

    def __init__(self, parts: Parts, overviews: Overviews, live: LiveCounts) -> None:
        self._parts = parts
        self._overviews = overviews
        self._live = live
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._requests = Counter(
            "mooring_http_requests_total", "Requests", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mooring_http_request_seconds", "Time of requests", ["route"], buckets=_BUCKETS, registry=self._registry
        )

    def observe(self, request: web.Request, status: int, seconds: float) -> None:
        """Count one answered request, under its route as declared, never under its path."""
        resource = request.match_info.route.resource
        route = "other" if resource is None or not resource.canonical.startswith("/") else resource.canonical
        method = request.method if request.method in _METHODS else "OTHER"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) in the format that the scraper prefers."""
        encode, content_type = choose_encoder(accept)
        families = [
            *_of_gateway(self._overviews.gateway()),
            *_of_fleet(await self._overviews.fleetwide()),
            _of_letters(await self._overviews.letters()),
            *_of_store(await self._overviews.store()),
            *self._of_server(),
            *self._registry.collect(),
        ]
        return encode(_Given(families)), content_type

    def _of_server(self) -> Iterator[Metric]:
        yield _gauge("mooring_build_info", "The version that runs", {(self._parts.version,): 1}, ["version"])
        yield _gauge("mooring_uptime_seconds", "Since the start", self._overviews.uptime_s())
        yield _gauge("mooring_live_clients", "Live views connected", self._live.clients)
        yield _counter("mooring_live_dropped_total", "Events that live views lost in the hub", self._live.dropped)
        if self._parts.watchdog is not None:
            yield from _of_loop(self._parts.watchdog)
        if self._parts.sessions is not None:
            yield from _of_broker(self._parts.sessions)


def _of_loop(watchdog: Watchdog) -> Iterator[Metric]:
    edges = [*(str(edge) for edge in BUCKETS_S), "+Inf"]
    lag = HistogramMetricFamily("mooring_loop_lag_seconds", "How late the event loop was, looked at ten times a second")
    lag.add_metric([], list(zip(edges, accumulate(watchdog.counts), strict=True)), watchdog.late_s)
    yield lag
    yield _counter("mooring_loop_stalls_total", "Times the event loop stood still for over 0.5 s", watchdog.stalls)


class _Given:
    """Metric families as prometheus_client's encoders want them: behind collect()."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_gateway(stats: "GatewayStats") -> Iterator[Metric]:
    journal, drain = stats.journal, stats.drain
    yield _gauge("mooring_control_queued", "Messages for the fleet that wait", stats.control_queued)
    yield _counter("mooring_control_busy_total", "Messages refused because too many waited", stats.control_busy)
    yield _counter("mooring_dead_letters_dropped_total", "Dead letters not kept", stats.dead_letters_dropped)
    yield _gauge("mooring_devices_clock_off", "Devices whose clock is off by more than the limit", stats.clocks_off)
    yield _gauge("mooring_recent_readings", "Readings in memory until the store shows them", stats.recent_readings)
    yield _counter("mooring_messages_total", "Messages from devices", stats.messages)
    yield _counter("mooring_readings_total", "Readings taken over", stats.readings)
    refused = {(str(reason),): count for reason, count in stats.refused.items()}
    yield _counter("mooring_refused_total", "Messages refused", refused, ["reason"])
    yield _gauge("mooring_journal_bytes", "Readings not in the store yet", journal.bytes)
    yield _gauge("mooring_journal_limit_bytes", "What the journal may hold", journal.limit_bytes)
    yield _gauge("mooring_journal_batches", "Batches not in the store yet", journal.batches)
    yield _gauge("mooring_journal_pending_bytes", "Readings waiting to be committed", journal.pending_bytes)
    yield _counter("mooring_journal_commits_total", "Commits", journal.commits)
    yield _counter("mooring_journal_failed_commits_total", "Commits that the disk refused", journal.failed_commits)
    yield _counter("mooring_journal_damaged_rows_total", "Rows that could not be read back", journal.damaged_rows)
    yield _gauge("mooring_drain_lag_seconds", "Age of the oldest reading not in the store", drain.lag_s)
    yield _counter("mooring_drain_written_total", "Readings written to the store", drain.written)
    yield _counter("mooring_drain_rejected_total", "Readings that the store would not have", drain.rejected)
    yield _counter("mooring_drain_retries_total", "Writes tried again", drain.retries)
    yield _gauge("mooring_store_up", "Whether the store takes readings", float(drain.state == "ok"))


def _of_broker(broker: Sessions) -> Iterator[Metric]:
    connected, kept = count_sessions(broker)
    states = {("connected",): connected, ("kept",): kept}
    yield _gauge("mooring_broker_sessions", "MQTT sessions", states, ["state"])
    if not isinstance(broker, BrokerOperations):
        return
    for name, value in broker.metrics().items():
        if name in MEANINGS and name not in ("sessions", "sessions_away"):
            make = _counter if MEANINGS[name].kind is FigureKind.COUNTER else _gauge
            yield make(prometheus_name(name), MEANINGS[name].about, value)
    bounds = {(name,): bound for name, bound in broker.bounds().items()}
    yield _gauge("mooring_broker_bound", "The most there may be of something that has a gauge", bounds, ["of"])


def _of_fleet(fleet: Fleetwide) -> Iterator[Metric]:
    devices = {(status,): count for status, count in fleet.devices.items() if status != "total"}
    yield _gauge("mooring_devices", "Devices", devices, ["status"])
    yield _gauge("mooring_commands_pending", "Commands without an end yet", fleet.commands_pending)
    yield _gauge("mooring_campaigns_running", "Campaigns running", fleet.campaigns_running)


def _of_letters(letters: Mapping[str, int]) -> Metric:
    counts = {(reason,): count for reason, count in letters.items()}
    return _gauge("mooring_dead_letters", "Refused messages that are kept", counts, ["reason"])


def _of_store(store: StoreStats) -> Iterator[Metric]:
    if store.points is not None:
        yield _gauge("mooring_store_points", "Points in the store", store.points)
    if store.size_bytes is not None:
        yield _gauge("mooring_store_bytes", "Size of the store", store.size_bytes)
    if store.loose_points is not None:
        yield _gauge(
            "mooring_store_loose_points", "Points in the store that are not compressed yet", store.loose_points
        )
        yield _counter("mooring_store_dropped_days_total", "Days deleted to keep within its limit", store.dropped_days)
    if store.damaged_chunks:
        yield _counter("mooring_store_damaged_chunks_total", "Chunks found that cannot be read", store.damaged_chunks)


Values = float | Mapping[tuple[str], float]


def _gauge(name: str, about: str, values: Values, labels: Iterable[str] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, about, labels=list(labels)), values)


def _counter(name: str, about: str, values: Values, labels: Iterable[str] = ()) -> Metric:
    return _filled(CounterMetricFamily(name, about, labels=list(labels)), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    items = values.items() if isinstance(values, Mapping) else [((), values)]
    for labels, value in items:
        family.add_metric(labels, value)
    return family

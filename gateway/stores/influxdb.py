"""InfluxDB 1.x, 2.x and 3.x as the store of readings: line protocol in, InfluxQL out.

Writing goes through influxdb-client's asynchronous client to /api/v2/write (2.x, 3.x), with lines made here: its own
Point costs twelve times as much, and its batching mode drops what it could not deliver, where the drain keeps it.
`api="v1"` writes to /write?db= for InfluxDB 1.x, where the bucket is the database, made at first use. Reading is GET
/query with InfluxQL everywhere.

Opening makes no connection: a server that is down delays the drain, not the gateway's start. Limits of 1.x worth
knowing: max-values-per-tag (100,000) bounds devices, max-series-per-database (1,000,000) devices times metrics.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import orjson

from gateway.readings import Reading, Value
from gateway.store import Query, Series, StoreStats, StoreUnavailable
from gateway.stores import influxql
from gateway.stores.line_protocol import LineEncoder
from gateway.stores.transport import Transport, authorization_of

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxOptions:
    """`token` of a 1.x server with authentication is `user:password`. `bucket` is a 1.x or 3.x server's database."""

    url: str
    token: str = field(default="", repr=False)
    org: str = "mooring"
    bucket: str = "mooring"
    api: Literal["v2", "v1"] = "v2"
    timeout_s: float = 10.0


class InfluxStore:
    """An InfluxDB server."""

    write_readings = 20_000
    visible_after_s = 0.0  # a write is answered once queries see it

    def __init__(self, options: InfluxOptions) -> None:
        self._options = options
        self._encoder = LineEncoder()
        self._transport = Transport(
            options.url,
            name="InfluxDB",
            bucket=options.bucket,
            org=options.org,
            authorization=authorization_of(options.token, scheme="Token"),
            timeout_s=options.timeout_s,
        )

    async def open(self) -> None:
        self._transport.open()

    async def close(self) -> None:
        await self._transport.close()

    async def write(self, readings: Sequence[Reading]) -> None:
        if not readings:
            return
        lines = self._encoder.encode(readings)
        if self._options.api == "v1":
            parameters = {"db": self._options.bucket, "precision": "ms"}
            await self._in_database(
                lambda: self._transport.request("POST", "/write", parameters=parameters, body=lines)
            )
        else:
            await self._transport.write_v2(lines)

    async def query(self, query: Query) -> dict[str, Series]:
        return await self._series("GET", influxql.select(query))

    async def latest(self, device_id: str) -> dict[str, tuple[int, Value]]:
        found = await self._series("GET", influxql.select_latest(device_id))
        return {metric: (series.t[-1], series.v[-1]) for metric, series in found.items()}

    async def delete_device(self, device_id: str) -> None:
        """Forget a device. Raises StoreRejected where the server never will: InfluxDB 3 Core has no deletion."""
        if self._options.api == "v1":
            await self._series("POST", influxql.delete_device(device_id))
            return
        stop = datetime.now(UTC) + timedelta(days=2)  # readings may be a day ahead of the clock
        for predicate in influxql.delete_predicates(device_id):
            await self._transport.delete_v2(datetime(1970, 1, 1, tzinfo=UTC), stop, predicate)

    async def stats(self) -> StoreStats:
        """Its kind alone: no version tells the rest cheaply."""
        return StoreStats(kind="influxdb")

    async def _series(self, method: str, statements: str) -> dict[str, Series]:
        async def ask() -> dict[str, Series]:
            return influxql.read_series(await self._ask(method, statements))

        return await self._in_database(ask)

    async def _in_database(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it; where a 1.x server has no such database yet, make it and do it again."""
        try:
            return await work()
        except StoreUnavailable as error:
            # To several statements at once 1.6 says only that the first one was not executed.
            missing = any(words in str(error) for words in ("database not found", "not executed"))
            if self._options.api != "v1" or not missing:
                raise
        logger.info("%s: making database %s", self._transport.url, self._options.bucket)
        influxql.read_series(await self._ask("POST", influxql.create_database(self._options.bucket)))
        return await work()

    async def _ask(self, method: str, statements: str) -> Mapping[str, Any]:
        parameters = {"db": self._options.bucket, "epoch": "ms", "q": statements}
        body = await self._transport.request(method, "/query", parameters=parameters)
        try:
            answer: Mapping[str, Any] = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise StoreUnavailable(f"{self._transport.url} did not answer in JSON: is it InfluxDB?") from error
        return answer

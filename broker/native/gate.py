"""How many connections there may be: in all, from one address, before the CONNACK, and CONNECTs a second. No I/O."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from broker.native.counters import Counters
from broker.native.options import BrokerOptions

if TYPE_CHECKING:
    from broker.native.connection import Connection


class Gate:
    """Counts the connections in and out."""

    def __init__(self, options: BrokerOptions, counters: Counters, now: float) -> None:
        self._options = options
        self._counters = counters
        self.connections: set[Connection] = set()
        self._connecting: set[Connection] = set()  # those not let in yet
        self._shaking: dict[asyncio.Task[None], str] = {}  # those whose TLS is not agreed on yet, and their addresses
        self._connecting_of: Counter[str] = Counter()
        self._shaking_of: Counter[str] = Counter()
        self.closed = False
        """Nobody comes in any more."""
        self._per_address: Counter[str] = Counter()
        self._tokens = float(options.max_connects_per_s)
        self._tokens_at = now
        self._deserted: asyncio.Future[None] | None = None

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room for another connection."""
        options, counters, address = self._options, self._counters, connection.address
        counters.connections += 1
        if (
            self.closed
            or len(self.connections) >= options.max_connections
            or len(self._connecting) >= options.max_connecting
        ):
            counters.refused_connections += 1
            return False
        if (
            self._per_address[address] >= options.max_connections_per_address
            or self._connecting_of[address] >= options.max_connecting_per_address
        ):
            counters.refused_connections += 1
            counters.refused_per_address += 1
            return False
        self.connections.add(connection)
        self._connecting.add(connection)
        self._connecting_of[address] += 1
        self._per_address[address] += 1
        return True

    @property
    def waiting(self) -> int:
        """How many have not been let in yet."""
        return len(self._connecting) + len(self._shaking)

    def may_shake(self, address: str) -> bool:
        """Whether there is room for another TLS handshake; counted as a connection when it is done."""
        options = self._options
        if (
            self.closed
            or self.waiting >= options.max_connecting
            or len(self.connections) + len(self._shaking) >= options.max_connections
        ):
            self._counters.refused_connections += 1
            return False
        if self._connecting_of[address] + self._shaking_of[address] >= options.max_connecting_per_address:
            self._counters.refused_connections += 1
            self._counters.refused_per_address += 1
            return False
        return True

    def shakes(self, task: "asyncio.Task[None]", address: str) -> None:
        """A TLS handshake has begun; the task is what does it."""
        self._shaking[task] = address
        self._shaking_of[address] += 1
        task.add_done_callback(self._shaken)

    def stop_shaking(self) -> None:
        """End the TLS handshakes under way."""
        for task in list(self._shaking):
            task.cancel()

    def let_in(self, connection: "Connection") -> None:
        """It waits no longer."""
        if connection in self._connecting:
            self._connecting.discard(connection)
            _less(self._connecting_of, connection.address)

    def leave(self, connection: "Connection") -> None:
        """The connection's transport is gone."""
        self.let_in(connection)
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        _less(self._per_address, connection.address)
        if not self.connections and self._deserted is not None and not self._deserted.done():
            self._deserted.set_result(None)

    def _shaken(self, task: "asyncio.Task[None]") -> None:
        _less(self._shaking_of, self._shaking.pop(task))

    async def deserted(self) -> None:
        """Wait until the last connection is gone."""
        if self.connections:
            self._deserted = asyncio.get_running_loop().create_future()
            await self._deserted

    def connect_allowed(self, now: float) -> bool:
        """Whether another CONNECT may come now."""
        rate = self._options.max_connects_per_s
        if not rate:
            return True
        self._tokens = min(rate, self._tokens + (now - self._tokens_at) * rate)
        self._tokens_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _less(counts: Counter[str], address: str) -> None:
    counts[address] -= 1
    if not counts[address]:
        del counts[address]

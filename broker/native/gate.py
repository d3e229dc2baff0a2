"""How many connections there may be: in all, from one address, before the CONNACK, and CONNECTs a second. No I/O."""

import asyncio
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
        self.connecting: set[Connection] = set()
        """Those not let in yet."""
        self.shaking: set[asyncio.Task[None]] = set()
        """Those whose TLS is not agreed on yet."""
        self.closed = False
        """Nobody comes in any more."""
        self._per_address: dict[str, int] = {}
        self._tokens = float(options.max_connects_per_s)
        self._tokens_at = now
        self._deserted: asyncio.Future[None] | None = None

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room for another connection."""
        options, counters, address = self._options, self._counters, connection.address
        counters.connections += 1
        mine = self._per_address.get(address, 0)
        if (
            self.closed
            or len(self.connections) >= options.max_connections
            or len(self.connecting) >= options.max_connecting
            or mine >= options.max_connections_per_address
        ):
            counters.refused_connections += 1
            return False
        self.connections.add(connection)
        self.connecting.add(connection)
        self._per_address[address] = mine + 1
        return True

    def may_shake(self) -> bool:
        """Whether there is room for another TLS handshake; counted as a connection when it is done."""
        options, waiting = self._options, len(self.connecting) + len(self.shaking)
        if (
            self.closed
            or waiting >= options.max_connecting
            or len(self.connections) + len(self.shaking) >= options.max_connections
        ):
            self._counters.refused_connections += 1
            return False
        return True

    def leave(self, connection: "Connection") -> None:
        """The connection's transport is gone."""
        self.connecting.discard(connection)
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        left = self._per_address[connection.address] - 1
        if left:
            self._per_address[connection.address] = left
        else:
            del self._per_address[connection.address]
        if not self.connections and self._deserted is not None and not self._deserted.done():
            self._deserted.set_result(None)

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

"""The native broker alone, for what the judge cannot be asked: its options, its hooks, its hot path."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from broker import Broker, BrokerOptions
from tests.broker.blackbox.brokers import AllowAll, Subject

_COUNT = itertools.count(1)


class Remembered(AllowAll):
    """A Guard whose answers may be remembered: so plain messages take the hot path."""

    rules_version = 1


@dataclass
class Native(Subject):
    engine: Any = None
    """The Broker, to be asked in process."""


@contextlib.asynccontextmanager
async def native(
    *, guard: Any = None, sink: Any = None, auth_methods: Any = None, **options: Any
) -> AsyncIterator[Native]:
    """A broker of one test's own, with `options` (BrokerOptions)."""
    engine = Broker(
        BrokerOptions(**{"port": 0, "sys_interval_s": 0, **options}),
        guard=guard or Remembered(),
        sink=sink,
        auth_methods=auth_methods,
    )
    await engine.start()
    try:
        yield Native("native", engine.port, f"n{next(_COUNT)}", engine=engine)
    finally:
        await engine.stop()

"""Fixtures of the gateway's core; the parts themselves are in fakes.py."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.bus import Bus
from gateway.gateway import Gateway, GatewayOptions
from tests.gateway.fakes import Clock, FakeLink, Fleet, MemoryStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory_store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
async def start_gateway(
    tmp_path: Path, clock: Clock, memory_store: MemoryStore, fleet: Fleet
) -> AsyncIterator[Callable[..., Awaitable[Gateway]]]:
    """Start a gateway over the memory store; its options may be given by name. Stopped at the end."""
    started: list[Gateway] = []

    async def start(**options: object) -> Gateway:
        links = options.pop("links", None) or [FakeLink()]
        gateway = Gateway(
            GatewayOptions(data_dir=options.pop("data_dir", None) or tmp_path, **options),  # type: ignore[arg-type]
            store=memory_store,
            links=links,  # type: ignore[arg-type]
            bus=Bus(),
            now_ms=clock.now_ms,
            monotonic=clock.monotonic,
        )
        started.append(gateway)
        await gateway.start(fleet, fleet)
        return gateway

    yield start
    for gateway in started:
        await gateway.stop()

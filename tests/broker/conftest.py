"""One engine per test, of each kind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker import Broker, BrokerOptions
from broker.amqtt_engine import AmqttEngine, AmqttOptions
from broker.engine import Engine
from tests.broker.clients import OwnTopics, RecordingSink, RecordingTap

ENGINES: dict[str, Callable[..., Engine]] = {
    "native": lambda guard, sink, taps, **options: Broker(
        BrokerOptions(**{"port": 0, "queue_full": "drop_newest", **options}), guard=guard, sink=sink, taps=taps
    ),
    "amqtt": lambda guard, sink, taps, **options: AmqttEngine(
        AmqttOptions(**{"port": 0, **options}), guard=guard, sink=sink, taps=taps
    ),
}

StartEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture
def guard() -> OwnTopics:
    return OwnTopics()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def tap() -> RecordingTap:
    return RecordingTap()


@pytest.fixture(params=list(ENGINES))
async def start_engine(
    request: pytest.FixtureRequest, guard: OwnTopics, sink: RecordingSink, tap: RecordingTap
) -> AsyncIterator[StartEngine]:
    """Start an engine with options of its own; stopped at the end."""
    started: list[Engine] = []

    async def start(**options: Any) -> Engine:
        parts: dict[str, Any] = {"guard": guard, "sink": sink, "taps": [tap]}
        parts.update({name: options.pop(name) for name in list(options) if name in parts})
        engine = ENGINES[request.param](**parts, **options)
        await engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await engine.stop()


@pytest.fixture
async def engine(start_engine: StartEngine) -> Engine:
    return await start_engine()

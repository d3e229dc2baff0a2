"""Each test against the native broker in this process and against a real Mosquitto.

`native` is the broker at its fastest: a Guard whose answers it may remember, and no sink. Modules that say
`WITH_A_SINK = True` are also run with a Guard that is asked each time, and acknowledgements that wait for a sink.
A module may say `NATIVE = {...}` (BrokerOptions) and `MOSQUITTO = "..."` (lines of mosquitto.conf).
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from broker.engine import Done, Publish
from broker.reason import ReasonCode

pytest.register_assert_rewrite("tests.broker.blackbox.brokers", "tests.broker.blackbox.wire")

from tests.broker.blackbox.brokers import DIFFERS_SOON_S, AllowAll, Subject, excuse  # noqa: E402
from tests.broker.blackbox.native import native  # noqa: E402
from tests.broker.clients import SOON_S  # noqa: E402
from tests.servers import Server, mosquitto  # noqa: E402

_COUNT = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mosquitto_differs(instead, when): Mosquitto does not do what the test asks for")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if instead := excuse(item):
            raises = (AssertionError, TimeoutError)
            item.add_marker(pytest.mark.xfail(reason=f"Mosquitto {instead}", strict=True, raises=raises))


@pytest.fixture(scope="module")
def mosquitto_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    config = "set_tcp_nodelay true\nsys_interval 0\n" + getattr(request.module, "MOSQUITTO", "")
    with mosquitto(config) as server:
        yield server
        server.kill()  # it takes 0.1 s to go by itself, and has nothing to save


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker" in metafunc.fixturenames:
        kinds = ["native", "sink"] if getattr(metafunc.module, "WITH_A_SINK", False) else ["native"]
        judge = pytest.param("mosquitto", marks=pytest.mark.servers)
        metafunc.parametrize("broker", [*kinds, judge], indirect=True)


def settle_later(batch: Sequence[Publish], done: Done) -> None:
    """A Sink that takes everything, in the next turn of the loop."""
    asyncio.get_running_loop().call_soon(done, [ReasonCode.SUCCESS] * len(batch))


@pytest.fixture
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "mosquitto":
        server = request.getfixturevalue("mosquitto_server")
        soon_s = DIFFERS_SOON_S if excuse(request.node) else SOON_S
        yield Subject("mosquitto", server.port, f"m{next(_COUNT)}", soon_s, late_s=1.2)
        return
    hooks: dict[str, Any] = {"guard": AllowAll(), "sink": settle_later} if request.param == "sink" else {}
    async with native(**hooks, **getattr(request.module, "NATIVE", {})) as subject:
        yield subject


@pytest.fixture
def topic() -> str:
    """A topic of this test's own, which may have levels below it."""
    return f"t{next(_COUNT)}"

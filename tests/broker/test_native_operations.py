"""What operators ask of the native broker: topics as a tree, one client dropped, listeners, bounds, metrics."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import Broker, BrokerOptions, Publish
from tests.broker.clients import OwnTopics, RecordingTap, device, publish, subscribe, until


@pytest.fixture
def tap() -> RecordingTap:
    return RecordingTap()


@pytest.fixture
async def broker(tap: RecordingTap, tmp_path: Path) -> AsyncIterator[Broker]:
    options = BrokerOptions(port=0, ws_port=0, sys_interval_s=0, persistence=tmp_path, max_sessions_per_username=2)
    broker = Broker(options, guard=OwnTopics(), taps=[tap])
    await broker.start()
    yield broker
    await broker.stop()


async def test_the_topics_in_use_are_a_tree(broker: Broker) -> None:
    async with device(broker, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#"), b"\x90\x03\x00\x01\x00")
        for topic in ("devices/pump-7/a", "devices/pump-7/a", "devices/pump-7/b/c"):
            await client.ask(publish(topic), publish(topic))
        await broker.publish(Publish(topic="devices/pump-8/a", payload=b"x", retain=True))
        root = await broker.topic_levels()
        assert [(each.level, each.below, each.messages, each.retained, each.subscribers) for each in root.items] == [
            ("devices", 3, 4, 1, None)
        ]
        below = await broker.topic_levels("devices/pump-7/")
        assert [(each.topic, each.below, each.messages, each.subscribers) for each in below.items] == [
            ("devices/pump-7/a", 0, 2, 1),
            ("devices/pump-7/b", 1, 1, None),
        ]
        page = await broker.topic_levels("devices/", limit=1)
        assert ([each.level for each in page.items], page.total, page.more) == (["pump-7"], 2, True)


async def test_one_client_of_a_user_is_dropped_and_the_others_stay(broker: Broker, tap: RecordingTap) -> None:
    async with device(broker, "pump-7:old", clean=False):
        pass
    async with device(broker, "pump-7", will=("devices/pump-7/gone", b"x")) as client:
        heard: list[Publish] = []
        broker.subscribe("devices/#", heard.append)
        assert not await broker.kick_client("pump-8", "pump-7")
        assert not await broker.kick_client("pump-7", "nobody")
        assert await broker.kick_client("pump-7", "pump-7")
        await client.expect_end()
        assert [session.client_id for session in broker.sessions()] == ["pump-7:old"]
        assert ("pump-7", "administrative action") in tap.of("disconnected")
        assert await broker.kick_client("pump-7", "pump-7:old")
        assert broker.sessions() == []
        assert heard == []


async def test_it_says_where_it_listens_and_how_much_there_may_be(broker: Broker) -> None:
    assert broker.listeners() == {"tcp": f"127.0.0.1:{broker.port}", "ws": f"127.0.0.1:{broker.ws_port}"}
    assert broker.disk_trouble is None
    metrics = broker.metrics()
    assert set(broker.bounds()) <= set(metrics)
    assert all(metrics[name] <= bound for name, bound in broker.bounds().items())


async def test_sessions_that_gave_way_are_counted(broker: Broker) -> None:
    for number in range(3):
        async with device(broker, f"pump-7:{number}", clean=False):
            pass
        await until(lambda: not any(session.connected for session in broker.sessions()))
    assert broker.metrics()["sessions_displaced"] == 1
    assert [session.client_id for session in broker.sessions()] == ["pump-7:1", "pump-7:2"]


async def test_clients_that_are_not_read_from_are_counted(tmp_path: Path) -> None:
    broker = Broker(BrokerOptions(port=0, max_publishes_per_s=1), guard=OwnTopics())
    await broker.start()
    async with device(broker, "pump-7") as client:
        assert broker.metrics()["held_back"] == 0
        assert [session.slowed for session in broker.sessions()] == [False]
        client.send(publish("devices/pump-7/a") * 5)
        await until(lambda: broker.metrics()["held_back"] == 1)
        assert [session.slowed for session in broker.sessions()] == [True]
    await broker.stop()


async def test_routes_that_were_forgotten_are_counted() -> None:
    broker = Broker(BrokerOptions(port=0, max_routes_bytes=10_000, sys_interval_s=0))
    await broker.start()
    for number in range(20):
        await broker.publish(Publish(topic=f"t/{number}", payload=b"x"))
    assert broker.metrics()["routes_forgotten"] >= 1
    await broker.stop()

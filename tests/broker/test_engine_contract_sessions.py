"""What every engine does: taking over, kicking, stopping, and what the taps hear of it."""

import asyncio

import pytest

from broker.engine import Engine, Publish
from broker.errors import EngineStopped, ListenError
from tests.broker.clients import (
    DISCONNECT,
    HOST,
    OwnTopics,
    RecordingSink,
    RecordingTap,
    connect,
    device,
    publish,
    raw,
    subscribe,
    until,
)
from tests.broker.conftest import StartEngine


async def test_a_second_connect_closes_the_first_connection(engine: Engine, tap: RecordingTap) -> None:
    async with device(engine, "pump-7") as first, device(engine, "pump-7") as second:
        await first.expect_end()
        await second.settled()
        assert tap.events == [
            ("connected", "pump-7"),
            ("disconnected", "pump-7", "taken over"),
            ("connected", "pump-7"),
        ]
        assert len(engine.sessions()) == 1


async def test_a_kept_session_survives_a_takeover(engine: Engine) -> None:
    async with device(engine, "pump-7", clean=False) as first, raw(engine) as second:
        await first.ask(subscribe("devices/pump-7/#"), b"\x90\x03\x00\x01\x00")
        await second.ask(connect("pump-7", clean=False), b"\x20\x02\x01\x00")
        assert await engine.publish(Publish(topic="devices/pump-7/x", payload=b"p")) == 1
        await second.expect(publish("devices/pump-7/x", b"p"))


async def test_a_kick_drops_connections_and_sessions_at_once(
    engine: Engine, tap: RecordingTap, sink: RecordingSink
) -> None:
    async with device(engine, "pump-7:old", clean=False) as client:
        await client.ask(subscribe("devices/pump-7/#"), b"\x90\x03\x00\x01\x00")
    async with device(engine, "pump-7", will=("devices/pump-7/gone", b"")) as client, device(engine, "pump-8") as other:
        await until(lambda: len(engine.sessions()) == 3)
        assert await engine.kick("pump-7") == 2
        assert [session.client_id for session in engine.sessions()] == ["pump-8"]
        async with asyncio.timeout(1):
            await client.expect_end()
        await other.settled()
        assert await engine.publish(Publish(topic="devices/pump-7/x", payload=b"p")) == 0
    assert ("pump-7", "administrative action") in tap.of("disconnected")
    assert sink.messages == []
    assert await engine.kick("nobody") == 0


async def test_a_kick_reaches_a_client_that_does_not_read(engine: Engine) -> None:
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#"), b"\x90\x03\x00\x01\x00")
        client.writer.transport.pause_reading()
        for _ in range(100):
            await engine.publish(Publish(topic="devices/pump-7/x", payload=b"x" * 100_000))
            await asyncio.sleep(0)
        assert await engine.kick("pump-7") == 1
        assert engine.sessions() == []


async def test_a_kick_reaches_a_client_the_guard_is_still_thinking_about(engine: Engine, guard: OwnTopics) -> None:
    guard.gate = asyncio.Event()
    async with raw(engine) as client:
        client.send(connect("pump-7"))
        await until(lambda: guard.requests)
        assert await engine.kick("pump-7") == 1
        guard.gate.set()
        await client.expect_end()
    assert engine.sessions() == []


async def test_a_kick_reaches_a_client_the_sink_keeps_waiting(start_engine: StartEngine, sink: RecordingSink) -> None:
    engine = await start_engine(max_undone=1)
    sink.hold = True
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", qos=1))
        await until(lambda: sink.held)
        await engine.kick("pump-7")
        await client.expect_end()
    sink.release()  # late, and harmless


async def test_sessions_tell_what_is_known(engine: Engine) -> None:
    async with device(engine, "pump-7:main", clean=False, keepalive_s=30) as client:
        await client.ask(subscribe("devices/pump-7/#", qos=1), b"\x90\x03\x00\x01\x01")
        (session,) = engine.sessions()
        assert (session.client_id, session.username, session.address) == ("pump-7:main", "pump-7", HOST)
        assert (session.connected, session.keepalive_s, session.clean_start) == (True, 30, False)
        assert session.connected_at is not None
        assert session.connected_at.tzinfo is not None
        assert session.subscriptions == ("devices/pump-7/#",)


@pytest.mark.parametrize("ending", ["goodbye", "lost"])
async def test_the_taps_hear_how_a_client_left(engine: Engine, tap: RecordingTap, ending: str) -> None:
    async with device(engine, "pump-7") as client:
        if ending == "goodbye":
            client.send(DISCONNECT)
            await client.expect_end()
    reason = {"goodbye": "client disconnected", "lost": "connection lost"}[ending]
    await until(lambda: tap.of("disconnected") == [("pump-7", reason)])


async def test_a_tap_that_fails_harms_nobody(start_engine: StartEngine, tap: RecordingTap) -> None:
    class Failing(RecordingTap):
        def connected(self, session: object) -> None:
            raise RuntimeError("tap")

    engine = await start_engine(taps=[Failing(), tap])
    async with device(engine, "pump-7") as client:
        await client.settled()
    assert tap.of("connected") == [("pump-7",)]


async def test_stopping_closes_everything_and_leaves_no_task(start_engine: StartEngine, tap: RecordingTap) -> None:
    before = asyncio.all_tasks()
    engine = await start_engine(ws_port=0)
    async with device(engine, "pump-7") as client, raw(engine) as unknown:
        await engine.stop()
        await client.expect_end()
        await unknown.expect_end()
    assert tap.of("disconnected") == [("pump-7", "server shutting down")]
    assert asyncio.all_tasks() == before


async def test_a_stopped_engine_says_so_and_can_start_again(engine: Engine) -> None:
    await engine.stop()
    with pytest.raises(EngineStopped):
        await engine.publish(Publish(topic="a", payload=b""))
    with pytest.raises(EngineStopped):
        _ = engine.port
    await engine.stop()
    await engine.start()
    async with device(engine, "pump-7") as client:
        await client.settled()


async def test_a_busy_port_is_a_listen_error(engine: Engine, start_engine: StartEngine) -> None:
    before = asyncio.all_tasks()
    for options in ({"port": engine.port}, {"ws_port": engine.port}):
        with pytest.raises(ListenError, match=str(engine.port)):
            await start_engine(**options)
    assert asyncio.all_tasks() == before


async def test_the_taps_hear_of_a_subscription_once_it_counts(engine: Engine, tap: RecordingTap) -> None:
    reached: list[int] = []
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#", "devices/pump-8/#"), b"\x90\x04\x00\x01\x00\x80")
        await client.settled()
        reached.append(await engine.publish(Publish(topic="devices/pump-7/x", payload=b"p")))
    assert tap.of("subscribed") == [("pump-7", "devices/pump-7/#")]
    assert reached == [1]

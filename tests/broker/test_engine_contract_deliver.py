"""What every engine does: what clients subscribe to and what they get, also those that are slow or away."""

import asyncio

from broker.engine import Engine, Publish
from broker.reason import ReasonCode
from tests.broker.clients import (
    OwnTopics,
    RecordingTap,
    answer,
    connect,
    device,
    mqtt,
    next_message,
    publish,
    raw,
    subscribe,
    unsubscribe,
    until,
)
from tests.broker.conftest import StartEngine


async def test_a_denied_subscription_is_answered_0x80(engine: Engine, tap: RecordingTap) -> None:
    async with device(engine, "pump-7") as client:
        sent = subscribe("devices/pump-8/#", "devices/pump-7/#", "#", "devices/pump-7/a#", qos=1, packet_id=9)
        await client.ask(sent, b"\x90\x06\x00\x09\x80\x01\x80\x80")
        await engine.publish(Publish(topic="devices/pump-8/x", payload=b"secret"))
        await client.expect_nothing()
    assert [(target, reason) for _, _, target, reason in tap.of("refused")] == [
        ("devices/pump-8/#", ReasonCode.NOT_AUTHORIZED),
        ("#", ReasonCode.NOT_AUTHORIZED),
        ("devices/pump-7/a#", ReasonCode.TOPIC_FILTER_INVALID),
    ]


async def test_wildcards_match_as_they_should(engine: Engine) -> None:
    async with mqtt(engine, "pump-7") as client:
        await client.subscribe("devices/pump-7/commands/+", qos=1)
        for topic in ("commands/1/status", "commands", "twin", "commands/2"):
            await engine.publish(Publish(topic=f"devices/pump-7/{topic}", payload=b"go", qos=1))
        message = await next_message(client)
    assert (message.topic.value, message.qos, message.retain) == ("devices/pump-7/commands/2", 1, False)


async def test_a_client_hears_another(engine: Engine) -> None:
    async with mqtt(engine, "admin") as listener, mqtt(engine, "pump-7") as client:
        await listener.subscribe("devices/+/telemetry", qos=2)
        for qos in (0, 1, 2):
            await client.publish("devices/pump-7/telemetry", str(qos), qos=qos)
        heard = [await next_message(listener) for _ in range(3)]
    assert [(message.payload, message.qos) for message in heard] == [(b"0", 0), (b"1", 1), (b"2", 2)]


async def test_a_delivery_has_the_lower_qos_and_comes_once(engine: Engine) -> None:
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#", "devices/pump-7/+"), b"\x90\x04\x00\x01\x00\x00")
        assert await engine.publish(Publish(topic="devices/pump-7/x", payload=b"p", qos=2)) == 1
        await client.expect(publish("devices/pump-7/x", b"p"))
        await client.expect_nothing()


async def test_nothing_comes_after_unsubscribing(engine: Engine) -> None:
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#"), b"\x90\x03\x00\x01\x00")
        await client.ask(unsubscribe("devices/pump-7/#", "never/there", packet_id=2), answer(0xB0, 2))
        assert await engine.publish(Publish(topic="devices/pump-7/x", payload=b"p")) == 0
        await client.expect_nothing()


async def test_publishing_does_not_wait_for_puback_and_keeps_a_bounded_window(start_engine: StartEngine) -> None:
    engine = await start_engine(max_inflight=2, max_queued=3)
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#", qos=1), b"\x90\x03\x00\x01\x01")
        reached = [await engine.publish(Publish(topic="devices/pump-7/x", payload=b"%d" % i, qos=1)) for i in range(7)]
        assert reached == [1, 1, 1, 1, 1, 0, 0]
        for i in (0, 1):
            await client.expect(publish("devices/pump-7/x", b"%d" % i, qos=1, packet_id=i + 1))
        await client.expect_nothing()
        (session,) = engine.sessions()
        assert (session.inflight, session.queued) == (2, 3)
        await client.ask(answer(0x40, 1), publish("devices/pump-7/x", b"2", qos=1, packet_id=3))


async def test_a_subscriber_that_does_not_read_costs_no_more_than_its_bounds(start_engine: StartEngine) -> None:
    engine = await start_engine(max_outgoing_bytes=100_000)
    async with device(engine, "pump-7") as client:
        await client.ask(subscribe("devices/pump-7/#"), b"\x90\x03\x00\x01\x00")
        client.writer.transport.pause_reading()
        big = Publish(topic="devices/pump-7/x", payload=b"x" * 100_000)
        reached = []
        for _ in range(200):  # 20 MB, more than a socket takes
            reached.append(await engine.publish(big))
            await asyncio.sleep(0)
        assert reached[0] == 1
        assert reached[-1] == 0


async def test_a_kept_session_gets_what_came_meanwhile_and_what_was_not_acknowledged(engine: Engine) -> None:
    async with device(engine, "pump-7", clean=False) as client:
        await client.ask(subscribe("devices/pump-7/#", qos=1), b"\x90\x03\x00\x01\x01")
        await engine.publish(Publish(topic="devices/pump-7/x", payload=b"1", qos=1))
        await client.expect(publish("devices/pump-7/x", b"1", qos=1, packet_id=1))
    await until(lambda: not engine.sessions()[0].connected)
    assert await engine.publish(Publish(topic="devices/pump-7/x", payload=b"2", qos=1)) == 0
    await engine.publish(Publish(topic="devices/pump-7/x", payload=b"lost", qos=0))
    async with raw(engine) as client:
        await client.ask(connect("pump-7", clean=False), b"\x20\x02\x01\x00")
        await client.expect(publish("devices/pump-7/x", b"1", qos=1, packet_id=1, dup=True))
        await client.expect(publish("devices/pump-7/x", b"2", qos=1, packet_id=2))
        await client.expect_nothing()


async def test_a_kept_session_loses_the_subscriptions_it_may_no_longer_have(engine: Engine, guard: OwnTopics) -> None:
    async with device(engine, "pump-7", clean=False) as client:
        await client.ask(subscribe("devices/pump-7/a", "devices/pump-7/b"), b"\x90\x04\x00\x01\x00\x00")
    guard.revoked_filters.add("devices/pump-7/a")
    async with raw(engine) as client:
        await client.ask(connect("pump-7", clean=False), b"\x20\x02\x01\x00")
        assert engine.sessions()[0].subscriptions == ("devices/pump-7/b",)


async def test_a_clean_connect_forgets_the_kept_session(engine: Engine) -> None:
    async with device(engine, "pump-7", clean=False) as client:
        await client.ask(subscribe("devices/pump-7/a"), b"\x90\x03\x00\x01\x00")
    async with device(engine, "pump-7", clean=True):
        assert engine.sessions()[0].subscriptions == ()

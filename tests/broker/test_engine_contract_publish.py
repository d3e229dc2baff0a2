"""What every engine does: what clients publish: the sink, its acknowledgements, and what is refused."""

import pytest

from broker.engine import Engine, Publish
from broker.reason import ReasonCode
from tests.broker.clients import (
    RecordingSink,
    RecordingTap,
    answer,
    connect,
    device,
    mqtt,
    publish,
    raw,
    subscribe,
    until,
)
from tests.broker.conftest import StartEngine


async def test_a_publish_reaches_the_sink_with_its_fields(engine: Engine, sink: RecordingSink) -> None:
    async with mqtt(engine, "pump-7:main") as client:
        await client.publish("devices/pump-7/telemetry", b'{"t": 1}', qos=1)
    message = sink.messages[0]
    assert message == Publish(
        topic="devices/pump-7/telemetry",
        payload=b'{"t": 1}',
        qos=1,
        client_id="pump-7:main",
        username="pump-7",
    )
    assert type(message.payload) is bytes


async def test_what_one_read_held_is_one_batch(engine: Engine, sink: RecordingSink) -> None:
    sink.hold = True
    async with device(engine, "pump-7") as client:
        client.send(*(publish("devices/pump-7/x", qos=1, packet_id=i) for i in range(1, 6)))
        await until(lambda: sink.held)
        assert [count for count, _ in sink.held] == [5]


async def test_puback_is_sent_only_after_done(engine: Engine, sink: RecordingSink) -> None:
    sink.hold = True
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", qos=1, packet_id=5))
        await until(lambda: sink.held)
        await client.expect_nothing()
        await client.settled()  # other packets of the client are not held up
        sink.release()
        await client.expect(answer(0x40, 5))


async def test_acknowledgements_keep_the_order_of_the_messages(engine: Engine, sink: RecordingSink) -> None:
    sink.hold = True
    async with device(engine, "pump-7") as client:
        for packet_id in (1, 2, 3):
            client.send(publish("devices/pump-7/x", qos=1, packet_id=packet_id))
            await client.settled()
        client.send(publish("devices/other/x", qos=1, packet_id=4))  # denied: acknowledged, in its turn
        await client.settled()
        sink.release(2)
        sink.release(1)
        await client.expect_nothing()
        sink.release(0)
        await client.expect(b"".join(answer(0x40, packet_id) for packet_id in (1, 2, 3, 4)))


async def test_a_message_the_sink_could_take_later_is_not_acknowledged(
    engine: Engine, sink: RecordingSink, tap: RecordingTap
) -> None:
    sink.code = ReasonCode.SERVER_BUSY
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", qos=1))
        await client.expect_end()
    assert tap.of("disconnected") == [("pump-7", "server busy")]


async def test_a_message_refused_for_good_is_acknowledged(engine: Engine, sink: RecordingSink) -> None:
    sink.code = ReasonCode.PAYLOAD_FORMAT_INVALID
    async with device(engine, "pump-7") as client:
        await client.ask(publish("devices/pump-7/x", qos=1), answer(0x40, 1))


async def test_a_sink_that_fails_acknowledges_nothing(start_engine: StartEngine) -> None:
    def failing(batch: object, done: object) -> None:
        raise RuntimeError("the journal is broken")

    engine = await start_engine(sink=failing)
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", qos=1))
        await client.expect_end()


async def test_a_client_with_too_much_outstanding_is_not_read_from(
    start_engine: StartEngine, sink: RecordingSink
) -> None:
    engine = await start_engine(max_undone=3)
    sink.hold = True
    async with device(engine, "pump-7") as client:
        client.send(*(publish("devices/pump-7/x", qos=1, packet_id=i) for i in range(1, 8)))
        await until(lambda: len(sink.messages) == 3)
        await client.expect_nothing()
        assert len(sink.messages) == 3
        sink.release()
        await client.expect(b"".join(answer(0x40, i) for i in (1, 2, 3)))
        await until(lambda: len(sink.messages) == 6)


async def test_qos_2_is_delivered_once_however_often_it_is_sent(engine: Engine, sink: RecordingSink) -> None:
    async with device(engine, "pump-7") as client:
        await client.ask(publish("devices/pump-7/x", qos=2, packet_id=5), answer(0x50, 5))
        for _ in range(2):
            await client.ask(publish("devices/pump-7/x", qos=2, packet_id=5, dup=True), answer(0x50, 5))
        await client.ask(answer(0x62, 5), answer(0x70, 5))
        assert len(sink.messages) == 1
        await client.ask(publish("devices/pump-7/x", qos=2, packet_id=5), answer(0x50, 5))
        assert len(sink.messages) == 2


async def test_pubrec_is_sent_only_after_done(engine: Engine, sink: RecordingSink) -> None:
    sink.hold = True
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", qos=2, packet_id=5))
        await until(lambda: sink.held)
        await client.expect_nothing()
        sink.release()
        await client.expect(answer(0x50, 5))


async def test_qos_2_sent_again_after_a_reconnect_is_delivered_once(engine: Engine, sink: RecordingSink) -> None:
    sink.hold = True
    async with device(engine, "pump-7", clean=False) as client:
        client.send(publish("devices/pump-7/x", qos=2, packet_id=5))
        await until(lambda: sink.held)
    async with raw(engine) as client:
        await client.ask(connect("pump-7", clean=False), b"\x20\x02\x01\x00")
        client.send(publish("devices/pump-7/x", qos=2, packet_id=5, dup=True))
        await client.settled()
        sink.release()
        await client.expect(answer(0x50, 5))
        await client.ask(answer(0x62, 5), answer(0x70, 5))
    assert len(sink.messages) == 1


async def test_a_denied_publish_reaches_nobody_and_is_acknowledged(
    engine: Engine, sink: RecordingSink, tap: RecordingTap
) -> None:
    async with device(engine, "pump-8") as neighbour, device(engine, "pump-7") as client:
        await neighbour.ask(subscribe("devices/pump-8/#"), b"\x90\x03\x00\x01\x00")
        await client.ask(publish("devices/pump-8/x", qos=1, packet_id=2), answer(0x40, 2))
        await client.ask(publish("devices/pump-8/x", qos=2, packet_id=3), answer(0x50, 3))
        await client.ask(answer(0x62, 3), answer(0x70, 3))
        client.send(publish("devices/pump-8/x"))
        await client.settled()
        await neighbour.expect_nothing()
    assert sink.messages == []
    assert tap.of("refused") == [("pump-7", "publish", "devices/pump-8/x", ReasonCode.NOT_AUTHORIZED)] * 3


@pytest.mark.parametrize("topic", ["$SYS/x", "$share/g/x", "$CONTROL/x"])
async def test_reserved_topics_are_closed_to_clients(engine: Engine, sink: RecordingSink, topic: str) -> None:
    async with device(engine, "admin") as client:
        await client.ask(publish(topic, qos=1, packet_id=2), answer(0x40, 2))
        await client.ask(subscribe("$CONTROL/x"), b"\x90\x03\x00\x01\x80")
    assert sink.messages == []


@pytest.mark.parametrize("topic", [b"", b"a/+", b"a\x00", b"a\xff", b"a/" * 200])
async def test_an_invalid_topic_ends_the_connection(engine: Engine, sink: RecordingSink, topic: bytes) -> None:
    async with device(engine, "admin") as client:
        client.send(publish(topic))
        await client.expect_end()
    assert sink.messages == []


async def test_what_came_before_a_fault_is_taken(engine: Engine, sink: RecordingSink) -> None:
    async with device(engine, "pump-7") as client:
        client.send(publish("devices/pump-7/x", qos=1, packet_id=1), b"\xf0\x00")
        await client.expect(answer(0x40, 1))
        await client.expect_end()
    assert len(sink.messages) == 1

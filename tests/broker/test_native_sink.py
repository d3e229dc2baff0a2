"""Sinks, taps and subscriptions in process that fail, come late, come twice, or call back into the native broker."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import pytest

from broker import Broker, BrokerOptions, Done, Publish, ReasonCode
from tests.broker.blackbox import wire
from tests.broker.blackbox.native import Remembered, native
from tests.broker.clients import RecordingSink, RecordingTap, until

KEPT = {"clean": False, "session_expiry_interval": 60}
SUCCESS, BUSY, TOPIC_NAME_INVALID = ReasonCode.SUCCESS, ReasonCode.SERVER_BUSY, ReasonCode.TOPIC_NAME_INVALID


@pytest.fixture(autouse=True)
def nothing_goes_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Unless a test says that it does, by clearing the log."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def at_once(work: Coroutine[Any, Any, Any]) -> None:
    """Run what does not wait, from within a callback."""
    with contextlib.suppress(StopIteration):
        work.send(None)
        raise AssertionError("it waits")


# --- done


async def test_done_called_twice_counts_once() -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink) as broker, broker.client() as client:
        for packet_id in (1, 2):
            client.send(wire.publish("a", qos=1, packet_id=packet_id))
            await until(lambda packet_id=packet_id: len(sink.held) == packet_id)
        for _, done in reversed(sink.held):
            done([SUCCESS])
            with contextlib.suppress(ValueError):
                done([BUSY])
        await client.expect(wire.puback(1))
        await client.expect(wire.puback(2))
        await client.settled()


async def test_done_with_the_wrong_number_of_codes_is_refused_and_can_be_put_right() -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink) as broker, broker.client() as client:
        client.send(wire.publish("a", qos=1, packet_id=1) + wire.publish("a"))
        await until(lambda: sink.held)
        _, done = sink.held[0]
        for wrong in ([], [SUCCESS], [SUCCESS] * 3):
            with pytest.raises(ValueError, match="one code"):
                done(wrong)
        await client.expect_nothing()
        done([SUCCESS, SUCCESS])
        await client.expect(wire.puback(1))


async def test_a_sink_that_fails_after_done_has_not_failed_the_client(caplog: pytest.LogCaptureFixture) -> None:
    def sink(batch: Sequence[Publish], done: Done) -> None:
        done([SUCCESS] * len(batch))
        raise RuntimeError("too late")

    async with native(sink=sink) as broker, broker.client() as client:
        client.send(wire.publish("a", qos=1, packet_id=1) + wire.publish("a", qos=1, packet_id=2))
        assert [(await client.next()).packet_id for _ in range(2)] == [1, 2]
        await client.settled()
    caplog.clear()


@pytest.mark.parametrize("code", [SUCCESS, BUSY])
async def test_done_for_a_client_that_has_gone_harms_nobody(code: ReasonCode) -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink) as broker:
        async with broker.client("p", **KEPT) as client:
            client.send(wire.publish("a", qos=1, packet_id=1), wire.publish("a", qos=2, packet_id=2))
            await until(lambda: len(sink.messages) == 2)
        async with broker.client("p", present=True, **KEPT) as client:
            client.send(wire.publish("a", qos=2, packet_id=2, dup=True))  # whose fate is not known yet
            await client.expect_nothing()
            sink.code = code
            while sink.held:
                sink.release()
            got = await client.next()
            assert (got.first, got.packet_id, got.reason >= 0x80) == (wire.PUBREC, 2, code.is_error)
            await client.settled()
        assert len(sink.messages) == 2


async def test_a_sink_that_takes_nothing_is_told_of_once_and_the_client_waits_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("broker.native.broker._UNDONE_WARNING_S", 0.2)
    sink = RecordingSink(hold=True)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    def age_s() -> float:
        return float(broker.engine.metrics()["undone_age_s"])

    async with native(sink=sink, sys_interval_s=0.02) as broker, broker.client(username="late") as client:
        assert age_s() == 0.0
        for turn in (1, 2):
            client.send(wire.publish("a", qos=1, packet_id=1))
            await until(lambda turn=turn: len(told()) == turn)
            client.send(wire.publish("a", qos=1, packet_id=2))  # a younger one changes nothing
            await until(lambda: len(sink.held) == 2)
            assert age_s() > 0.2
            for packet_id in (1, 2):
                sink.release()
                await client.expect(wire.puback(packet_id))
            await until(lambda: age_s() == 0.0)
            await until(lambda: not broker.engine._told_undone)  # it has looked, and seen that nothing waits
        assert len(told()) == 2
        assert all("'late'" in line and "not taken over" in line for line in told())


async def test_done_after_the_broker_has_stopped_harms_nobody() -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink) as broker, broker.client() as client:
        client.send(wire.publish("a", qos=1), wire.publish("a", qos=2, packet_id=2))
        await until(lambda: len(sink.messages) == 2)
        await broker.engine.stop()
        while sink.held:
            sink.release()


async def test_a_sink_may_settle_others_messages_while_it_is_given_some() -> None:
    waiting: list[tuple[int, Done]] = []

    def sink(batch: Sequence[Publish], done: Done) -> None:
        """The last of a hundred settles all, the newest first."""
        waiting.append((len(batch), done))
        if batch[-1].payload == b"go":
            while waiting:
                count, earlier = waiting.pop()
                earlier([SUCCESS] * count)

    async with native(sink=sink, max_undone=4) as broker, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(broker.client(f"p{number}")) for number in range(20)]
        for client in clients:
            client.send(*(wire.publish("a", qos=1, packet_id=number) for number in range(1, 4)))
        await until(lambda: sum(count for count, _ in waiting) == 60)
        clients[7].send(wire.publish("a", b"go", qos=1, packet_id=4))
        for client in clients:
            assert [(await client.next()).packet_id for _ in range(3)] == [1, 2, 3]
        assert (await clients[7].next()).packet_id == 4


async def test_who_is_held_back_by_the_sink_goes_on_where_it_was() -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink, max_undone=3) as broker, broker.client(level=4) as client:
        client.send(*(wire.publish("a", b"%d" % number, qos=1, packet_id=number, level=4) for number in range(1, 21)))
        while len(sink.messages) < 20 or sink.held:
            await until(lambda: sink.held)
            assert sum(count for count, _ in sink.held) <= 3
            sink.release(len(sink.held) - 1)  # which may bring the next ones
        assert [(await client.next()).packet_id for _ in range(20)] == list(range(1, 21))
        assert [int(message.payload) for message in sink.messages] == list(range(1, 21))


# --- calling back in


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("place", ["sink", "subscription"])
async def test_a_publisher_may_be_kicked_by_what_its_message_sets_off(place: str, qos: int) -> None:
    engine: Broker | None = None

    def kick(*_: Any) -> None:
        assert engine is not None
        at_once(engine.kick("bad"))

    def sink(batch: Sequence[Publish], done: Done) -> None:
        if place == "sink" and batch[0].topic == "a":
            kick()
        done([SUCCESS] * len(batch))

    async with native(sink=sink) as broker, broker.client("s") as listener:
        engine = broker.engine
        await listener.subscribe("a", qos=qos)
        if place == "subscription":
            broker.engine.subscribe("a", kick)
        async with broker.client("p", username="bad", will=wire.Will("w"), **KEPT) as client:
            sent = [wire.publish("a", qos=qos, packet_id=number + 1) for number in range(50)]
            client.send(*sent, wire.subscribe("b"))
            await client.closed(ReasonCode.ADMINISTRATIVE_ACTION)
        await listener.gets("a", qos=qos, ack=False)
        assert [each.username for each in broker.engine.sessions()] == [""]
        assert broker.engine.metrics()["subscriptions"] == 1


async def test_a_will_may_kick_its_own_client() -> None:
    async with native(max_sessions=1) as broker:
        broker.engine.subscribe("w", lambda will: at_once(broker.engine.kick("bad")))
        async with broker.client("p", username="bad", will=wire.Will("w"), **KEPT) as client:
            client.writer.transport.abort()
            await until(lambda: not broker.engine.sessions())
        assert broker.engine.metrics()["sessions_away"] == 0
        async with broker.client("q"):
            pass


async def test_subscriptions_in_process_may_come_go_and_fail_while_they_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []
    async with native() as broker:
        engine = broker.engine

        def again(message: Publish) -> None:
            heard.append("first")
            first.close()
            first.close()
            engine.subscribe("a", lambda message: heard.append("second"))
            raise RuntimeError("no matter")

        first = engine.subscribe("a", again)
        for _ in range(2):
            await engine.publish(Publish(topic="a", payload=b"x"))
        assert heard == ["first", "second"]
    caplog.clear()


async def test_a_tap_may_kick_and_publish_and_look() -> None:
    class Meddler(RecordingTap):
        def connected(self, session: Any) -> None:
            super().connected(session)
            at_once(engine.publish(Publish(topic="t", payload=b"in", qos=1)))
            if session.client_id == "unwanted":
                at_once(engine.kick(session.username))

        def disconnected(self, client_id: str, username: str, reason: str) -> None:
            super().disconnected(client_id, username, reason)
            assert client_id not in [each.client_id for each in engine.sessions() if each.connected]
            at_once(engine.publish(Publish(topic="t", payload=b"out", qos=1)))

    tap = Meddler()
    engine = Broker(BrokerOptions(port=0, sys_interval_s=0), guard=Remembered(), taps=[tap])
    await engine.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    writer.write(wire.connect("unwanted", username="u", **KEPT))
    async with asyncio.timeout(5):
        raw = await reader.read(-1)
    assert raw[0] == wire.CONNACK
    writer.close()
    assert tap.events == [("connected", "unwanted"), ("disconnected", "unwanted", "administrative action")]
    assert engine.sessions() == []
    await engine.stop()

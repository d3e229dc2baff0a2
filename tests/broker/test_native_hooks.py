"""Guards of the native broker that fail, hang, talk nonsense or come late, and rights that are taken away."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from broker import ConnectRequest, Publish, ReasonCode
from tests.broker.blackbox import wire
from tests.broker.blackbox.native import Remembered, native
from tests.broker.clients import RecordingSink, until

KEPT = {"clean": False, "session_expiry_interval": 60}
NOT_AUTHORIZED = 0x87


class Gated(Remembered):
    """A Guard that waits, and that can be told to take a right away or to fail."""

    def __init__(self) -> None:
        self.connecting = asyncio.Event()
        self.subscribing = asyncio.Event()
        for gate in (self.connecting, self.subscribing):
            gate.set()
        self.asked = 0
        self.denied: set[str] = set()
        self.wrong: Callable[[], Any] | None = None

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        self.asked += 1
        await self.connecting.wait()
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return self._answer(topic)

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        self.asked += 1
        await self.subscribing.wait()
        return self._answer(topic_filter)

    def deny(self, *names: str) -> None:
        self.denied |= set(names)
        self.rules_version += 1

    def _answer(self, name: str) -> ReasonCode:
        if self.wrong is not None:
            return self.wrong()  # type: ignore[no-any-return]
        return ReasonCode.NOT_AUTHORIZED if name in self.denied else ReasonCode.SUCCESS


async def no_task_left(before: set[asyncio.Task[Any]]) -> None:
    await until(lambda: asyncio.all_tasks() <= before)


# --- the Guard


@pytest.mark.parametrize("wrong", [lambda: 1 / 0, lambda: None, lambda: True, lambda: "yes"])
async def test_a_guard_that_fails_or_talks_nonsense_allows_nothing(wrong: Callable[[], Any]) -> None:
    guard, sink = Gated(), RecordingSink()
    async with native(guard=guard, sink=sink) as broker:
        guard.wrong = wrong
        async with broker.client("p") as client:
            client.send(wire.publish("a", qos=1))
            with contextlib.suppress(AssertionError):
                assert (await client.next()).reason >= 0x80
        async with broker.client("s") as client:
            client.send(wire.subscribe("a"))
            with contextlib.suppress(AssertionError):
                answer = await client.next()
                assert answer.first == wire.DISCONNECT or answer.rest[-1] >= 0x80
        assert sink.messages == []
        assert broker.engine.metrics()["subscriptions"] == 0


async def test_a_guard_that_never_answers_a_connect_costs_its_time_limit_only() -> None:
    guard = Gated()
    before = asyncio.all_tasks()
    async with native(guard=guard, connect_timeout_s=0.2) as broker:
        guard.connecting.clear()
        async with broker.raw() as client:
            client.send(wire.connect("x"))
            await client.expect_end()
        await no_task_left(before)
        assert broker.engine.sessions() == []


async def test_who_leaves_while_the_guard_thinks_has_no_session() -> None:
    guard = Gated()
    before = asyncio.all_tasks()
    async with native(guard=guard) as broker:
        guard.connecting.clear()
        async with broker.raw() as client:
            client.send(wire.connect("x", will=wire.Will("w")))
            await until(lambda: guard.asked)
            client.writer.transport.abort()
        guard.connecting.set()  # it was not read from, so nobody knows
        await no_task_left(before)
        await until(lambda: not broker.engine.metrics()["connections_now"])
        assert broker.engine.sessions() == []


@pytest.mark.parametrize("how", ["lost", "kick", "takeover", "stop"])
async def test_a_subscription_whose_client_goes_while_the_guard_thinks_is_none(how: str) -> None:
    guard = Gated()
    before = asyncio.all_tasks()
    async with native(guard=guard) as broker, broker.client("s", username="u") as client:
        guard.subscribing.clear()
        client.send(wire.subscribe("a"))
        asked = guard.asked
        await until(lambda: guard.asked > asked)
        if how == "lost":
            client.writer.transport.abort()
        elif how == "kick":
            await broker.engine.kick("u")
        elif how == "stop":
            await asyncio.wait_for(broker.engine.stop(), 2)
            await no_task_left(before)
            return
        else:
            async with broker.client("s", username="u"):
                guard.subscribing.set()
                await asyncio.sleep(0.05)
                assert broker.engine.metrics()["subscriptions"] == 0
        guard.subscribing.set()
        await no_task_left(before)
        assert broker.engine.metrics()["subscriptions"] == 0


async def test_of_two_connections_of_a_client_the_one_let_in_last_stays() -> None:
    guard = Gated()
    async with native(guard=guard) as broker, broker.raw("x") as first, broker.raw("x") as second:
        guard.connecting.clear()
        first.send(wire.connect("x"))
        second.send(wire.connect("x"))
        await until(lambda: guard.asked == 2)
        guard.connecting.set()
        ends = {(await client.next()).first for client in (first, second)}
        assert ends == {wire.CONNACK}
        assert (await first.next()).reason == ReasonCode.SESSION_TAKEN_OVER
        await second.settled()
        assert len(broker.engine.sessions()) == 1


# --- rights taken away


async def test_what_was_remembered_of_the_rules_is_forgotten_with_them() -> None:
    guard, sink = Gated(), RecordingSink()
    async with native(guard=guard, sink=sink) as broker, broker.client() as client:
        for _ in range(3):
            await client.publish("a", qos=1)
        guard.deny("a")
        client.send(wire.publish("a", qos=1, packet_id=9), wire.publish("b", qos=1, packet_id=10))
        assert [(await client.next()).reason for _ in range(2)] == [NOT_AUTHORIZED, 0]
        assert [message.topic for message in sink.messages] == ["a", "a", "a", "b"]
        assert broker.engine.metrics()["refused_publishes"] == 1


async def test_a_retained_message_whose_publisher_lost_the_right_is_withdrawn() -> None:
    guard = Gated()
    async with native(guard=guard) as broker:
        async with broker.client("p", username="u") as publisher:
            await publisher.publish("a", b"mine", qos=1, retain=True)
            await publisher.publish("b", b"mine", qos=1, retain=True)
        guard.deny("a")
        async with broker.client("s") as client:
            await client.subscribe("#")
            await client.gets("b", b"mine", retain=True)
            await client.settled()
        assert broker.engine.metrics()["retained_messages"] == 1


async def test_a_kept_session_loses_what_it_may_no_longer_have() -> None:
    guard = Gated()
    async with native(guard=guard) as broker:
        async with broker.client("s", **KEPT) as client:
            await client.subscribe("a", "b", qos=1)
            await broker.engine.publish(Publish(topic="a", payload=b"in flight", qos=1))
            await client.gets("a", b"in flight", qos=1, ack=False)
            await client.leave()
        for topic in ("a", "b"):
            await broker.engine.publish(Publish(topic=topic, payload=b"queued", qos=1))
        guard.deny("a")
        async with broker.client("s", present=True, **KEPT) as client:
            await client.gets("b", b"queued", qos=1)
            await broker.engine.publish(Publish(topic="a", payload=b"new", qos=1))
            await client.settled()
            assert broker.engine.sessions()[0].subscriptions == ("b",)


async def test_the_will_of_a_client_that_lost_the_right_is_not_published() -> None:
    guard, heard = Gated(), list[Publish]()
    async with native(guard=guard) as broker:
        broker.engine.subscribe("w", heard.append)
        async with broker.client("x", will=wire.Will("w")) as client:
            guard.deny("w")
            client.writer.transport.abort()
            await until(lambda: not broker.engine.sessions())
        assert heard == []


@pytest.mark.parametrize("delay_s", [0, 60])
async def test_the_will_of_a_client_that_was_kicked_is_not_published(delay_s: int) -> None:
    heard: list[Publish] = []
    async with native() as broker:
        broker.engine.subscribe("w", heard.append)
        will = wire.Will("w", properties={"will_delay_interval": delay_s})
        async with broker.client("here", username="u", will=will, **KEPT) as client:
            if delay_s:
                async with broker.client("away", username="u", will=will, **KEPT) as other:
                    other.writer.transport.abort()
                    await until(lambda: sum(each.connected for each in broker.engine.sessions()) == 1)
            await broker.engine.kick("u")
            await client.closed(ReasonCode.ADMINISTRATIVE_ACTION)
        assert broker.engine.sessions() == []
        assert heard == []

"""16: enhanced authentication (MQTT 5, section 4.12), with a method that asks for one word."""

import asyncio
import contextlib

import pytest

from broker.engine import ConnectRequest
from broker.native.auth import AuthStep
from broker.reason import ReasonCode
from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import AllowAll, Client
from tests.broker.blackbox.native import Native, native
from tests.broker.clients import until

METHOD = "ONE-WORD"
CONTINUE, AGAIN = 0x18, 0x19
NOT_AUTHORIZED, WRONG_PASSWORD, ERROR = 0x87, 0x86, 0x82


class OneWord:
    """Begins with a question, lets in who answers "right", and says thank you."""

    def begin(self, request: ConnectRequest) -> "OneWord":
        return self

    async def step(self, data: bytes | None) -> AuthStep:
        if data is None:
            return AuthStep(reason=ReasonCode.CONTINUE_AUTHENTICATION, data=b"the word?")
        if data == b"right":
            return AuthStep(reason=ReasonCode.SUCCESS, data=b"thanks", username="bob")
        if data == b"alice's":
            return AuthStep(reason=ReasonCode.SUCCESS, username="alice")
        if data == b"poison":
            raise RuntimeError("a fault of the method")
        return AuthStep(reason=ReasonCode.BAD_USER_NAME_OR_PASSWORD)


def says(reason: int, data: bytes | None = None, method: str = METHOD) -> bytes:
    return wire.auth(reason, authentication_method=method, authentication_data=data)


QUESTION, RIGHT, WRONG = says(CONTINUE, b"the word?"), says(CONTINUE, b"right"), says(CONTINUE, b"wrong")
ONCE_MORE = says(AGAIN)


def with_method() -> dict[str, OneWord]:
    return {METHOD: OneWord()}


async def ask(client: Client) -> None:
    """CONNECT, and be asked."""
    await client.ask(wire.connect(client.client_id, authentication_method=METHOD), QUESTION)


async def come_in(client: Client) -> None:
    """All of it, with the right word."""
    await ask(client)
    client.send(RIGHT)
    connack = await client.next()
    assert (connack.first, connack.reason) == (wire.CONNACK, 0)
    assert connack.get("authentication_method") == METHOD
    assert connack.get("authentication_data") == b"thanks"
    await client.settled()


def users(broker: Native) -> list[str]:
    return [session.username for session in broker.engine.sessions()]


async def test_who_knows_the_word_is_let_in() -> None:
    """[MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.15.2-1] [MQTT-3.2.0-1]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        assert users(broker) == ["bob"]


async def test_who_does_not_is_refused() -> None:
    """[MQTT-4.12.0-4]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await ask(client)
        await client.ask(WRONG, wire.connack(WRONG_PASSWORD))
        await client.expect_end()
        assert users(broker) == []


@pytest.mark.parametrize(
    "answer",
    [
        says(CONTINUE, b"right", method="TWO-WORDS"),
        wire.auth(CONTINUE, authentication_data=b"right"),
        says(AGAIN, b"right"),
        says(0x00, b"right"),
    ],
    ids=["another method", "no method", "another reason", "success"],
)
async def test_an_auth_that_does_not_fit_ends_the_connection(answer: bytes) -> None:
    """[MQTT-4.12.0-3] [MQTT-4.12.0-5]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await ask(client)
        client.send(answer)
        await client.expect(wire.connack(ERROR))
        await client.expect_end()
        assert users(broker) == []


@pytest.mark.parametrize("early", [wire.pingreq(), wire.publish("a"), wire.subscribe("a")])
async def test_nothing_but_auth_is_taken_until_connack(early: bytes) -> None:
    """[MQTT-3.1.2-30] [MQTT-3.2.0-1]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await ask(client)
        client.send(early, RIGHT)
        await client.expect(wire.connack(ERROR))
        await client.expect_end()
        assert users(broker) == []


async def test_a_client_may_authenticate_again() -> None:
    """[MQTT-4.12.1-1] [MQTT-4.12.0-5] [MQTT-3.15.2-1] [MQTT-3.2.0-2]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        for _ in range(2):
            await client.ask(ONCE_MORE, QUESTION)
            await client.publish("a", qos=1)  # goes on meanwhile
            await client.ask(RIGHT, says(0x00, b"thanks"))


async def test_again_by_another_method_is_a_protocol_error() -> None:
    """[MQTT-4.12.1-1]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        client.send(says(AGAIN, method="TWO-WORDS"))
        await client.closed(ERROR)


async def test_failing_at_that_ends_the_connection() -> None:
    """[MQTT-4.12.1-2]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        await client.ask(ONCE_MORE, QUESTION)
        client.send(WRONG)
        await client.closed(NOT_AUTHORIZED)  # DISCONNECT has no code for a wrong password
        assert users(broker) == []


@pytest.mark.parametrize(
    "raw",
    [
        says(AGAIN, method="TWO-WORDS"),
        wire.auth(AGAIN),
        RIGHT,
        says(0x00, b"right"),
        ONCE_MORE + ONCE_MORE,
        ONCE_MORE + says(CONTINUE, b"right", method="TWO-WORDS"),
        ONCE_MORE + says(0x00, b"right"),
        ONCE_MORE + RIGHT + RIGHT,
    ],
    ids=[
        "another method", "no method", "unasked", "success",
        "twice", "another method half-way", "success half-way", "unasked afterwards",
    ],
)  # fmt: skip
async def test_an_auth_that_does_not_fit_ends_the_connection_of_who_is_in(raw: bytes) -> None:
    """[MQTT-4.12.0-5] [MQTT-4.12.1-1]"""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        client.send(raw)
        heard = [wire.parse(one) for one in wire.packets(await client.everything())]
        assert all(packet.first == wire.AUTH for packet in heard[:-1])
        assert (heard[-1].first, heard[-1].reason) == (wire.DISCONNECT, ERROR)
        assert users(broker) == []


async def test_who_proves_to_be_somebody_else_the_second_time_is_out() -> None:
    """[MQTT-4.12.1-2]: what was allowed and subscribed is the first one's."""
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        await client.ask(ONCE_MORE, QUESTION)
        client.send(says(CONTINUE, b"alice's"))
        await client.closed(NOT_AUTHORIZED)
        assert users(broker) == []


async def test_a_method_that_fails_the_second_time_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with native(auth_methods=with_method()) as broker, broker.raw() as client:
        await come_in(client)
        await client.ask(ONCE_MORE, QUESTION)
        client.send(says(CONTINUE, b"poison"))
        await client.closed(0x80)
        assert users(broker) == []
    assert "a fault of the method" in caplog.text


class OnesOwn(AllowAll):
    """A Guard: below one's own name."""

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return ReasonCode.SUCCESS if topic.startswith(f"{username}/") else ReasonCode.NOT_AUTHORIZED


async def test_the_rights_are_those_of_who_was_proved_before_and_after() -> None:
    async with native(auth_methods=with_method(), guard=OnesOwn()) as broker, broker.raw() as client:
        await come_in(client)
        for packet_id in (1, 3):
            for topic, answers in (("bob/a", (0x00, 0x10)), ("alice/a", (NOT_AUTHORIZED,))):
                client.send(wire.publish(topic, qos=1, packet_id=packet_id))
                assert (await client.next()).reason in answers
            await client.ask(ONCE_MORE, QUESTION)
            await client.ask(RIGHT, says(0x00, b"thanks"))


class Hesitant(OneWord):
    """Lets everybody in at once, and takes its time at the second look."""

    def __init__(self, verdict: ReasonCode) -> None:
        self.verdict = verdict
        self.looks = 0
        self.go_on = asyncio.Event()

    async def step(self, data: bytes | None) -> AuthStep:
        self.looks += 1
        if self.looks == 2:
            with contextlib.suppress(asyncio.CancelledError):  # a method that does not let itself be disturbed
                await self.go_on.wait()
            return AuthStep(reason=self.verdict)
        return AuthStep(reason=ReasonCode.SUCCESS, username="bob")


@pytest.mark.parametrize("verdict", [ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.SUCCESS])
async def test_what_becomes_of_it_does_not_touch_the_connection_that_took_over(verdict: ReasonCode) -> None:
    """Neither ends it, nor is answered on it."""
    method = Hesitant(verdict)
    async with native(auth_methods={METHOD: method}) as broker, broker.raw() as old, broker.raw() as new:
        for client in (old, new):
            client.send(wire.connect("c", authentication_method=METHOD, clean=False, session_expiry_interval=60))
            connack = await client.next()
            assert (connack.first, connack.reason) == (wire.CONNACK, 0)
            if client is old:
                old.send(ONCE_MORE)
                await until(lambda: method.looks == 2)
        method.go_on.set()
        await new.settled()
        assert users(broker) == ["bob"]

"""16: answers: none is larger than its client takes, and each has a reason code of its packet."""

from collections.abc import Callable

import pytest

from broker.reason import ReasonCode
from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import AllowAll, Client
from tests.broker.blackbox.native import native
from tests.broker.blackbox.wire import Packet
from tests.broker.clients import RecordingSink, until

TOO_LARGE = 0x95
ERRORS = [code for code in ReasonCode if code.is_error]
SMALL = 20  # bytes; no packet with a reason string is as small


class SaysNo(AllowAll):
    """A Guard that lets everybody in, and nobody do anything."""

    def __init__(self, code: ReasonCode = ReasonCode.NOT_AUTHORIZED) -> None:
        self.code = code

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        return self.code

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        return self.code


async def answer(client: Client) -> Packet:
    """The next packet, which must not be larger than the client takes."""
    raw = await client.read_packet()
    assert len(raw) <= SMALL
    return wire.parse(raw)


# --- the client's Maximum Packet Size


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        (wire.publish("a", qos=1), wire.PUBACK),
        (wire.publish("a", qos=2), wire.PUBREC),
        (wire.subscribe("a"), wire.SUBACK),
        (wire.unsubscribe("a"), wire.UNSUBACK),
        (wire.suback(0), wire.DISCONNECT),
    ],
    ids=["PUBACK", "PUBREC", "SUBACK", "UNSUBACK", "DISCONNECT"],
)
async def test_an_answer_is_not_larger_than_its_client_takes(asked: bytes, first: int) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1] [MQTT-3.14.2-3]"""
    async with native(guard=SaysNo()) as broker, broker.client(maximum_packet_size=SMALL) as client:
        client.send(asked)
        got = await answer(client)
        assert got.first == first
        assert got.get("reason_string") is None


async def test_a_connack_is_not_larger_than_its_client_takes() -> None:
    """[MQTT-3.1.2-24] [MQTT-3.2.2-19]"""
    async with native() as broker, broker.raw() as client:
        client.send(wire.connect("c", maximum_packet_size=SMALL, authentication_method="unknown"))
        got = await answer(client)
        assert (got.first, got.reason, got.get("reason_string")) == (wire.CONNACK, 0x8C, None)
        await client.expect_end()


async def test_a_client_that_takes_no_connack_is_not_let_in() -> None:
    """[MQTT-3.1.2-24]"""
    async with native() as broker, broker.raw() as client:
        client.send(wire.connect("c", maximum_packet_size=5))
        await client.expect(wire.connack(TOO_LARGE))
        await client.expect_end()


@pytest.mark.parametrize("ask", [wire.subscribe, wire.unsubscribe])
async def test_an_answer_that_cannot_be_small_enough_is_not_sent(ask: Callable[..., bytes]) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    async with native() as broker, broker.client(maximum_packet_size=SMALL) as client:
        client.send(ask(*[f"f{number}" for number in range(SMALL)]))
        await client.settled()


# --- what is said, and what is not


async def test_where_no_aliases_are_taken_one_ends_the_connection() -> None:
    """[MQTT-3.2.2-18] [MQTT-3.3.2-9]"""
    async with native(topic_alias_maximum=0) as broker, broker.client() as client:
        assert client.connack.get("topic_alias_maximum") is None
        client.send(wire.publish("a", topic_alias=1))
        await client.closed(0x94)


async def test_the_servers_disconnect_says_nothing_about_the_session() -> None:
    """[MQTT-3.14.2-2] [MQTT-3.14.2-1] [MQTT-3.14.4-1]"""
    async with native() as broker, broker.client(session_expiry_interval=60) as client:
        await broker.engine.stop()
        farewell = await client.next()
        assert (farewell.first, farewell.reason) == (wire.DISCONNECT, 0x8B)
        assert farewell.get("session_expiry_interval") is None
        await client.expect_end()


@pytest.mark.parametrize("code", ERRORS)
async def test_whatever_the_guard_says_is_answered_with_a_code_of_its_packet(code: ReasonCode) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.9.3-2] [MQTT-3.8.4-7]"""
    acknowledged = {0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
    subscribed = {0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}
    async with native(guard=SaysNo(code)) as broker, broker.client() as client:
        client.send(wire.publish("a", qos=1), wire.publish("a", qos=2))
        for first in (wire.PUBACK, wire.PUBREC):
            got = await client.next()
            assert got.first == first
            assert got.reason in acknowledged
        client.send(wire.subscribe("a"))
        got = await client.next()
        assert got.first == wire.SUBACK
        assert got.rest[0] in subscribed


@pytest.mark.parametrize("code", ERRORS)
async def test_whatever_the_reason_a_kick_has_a_code_of_disconnect(code: ReasonCode) -> None:
    """[MQTT-3.14.2-1] [MQTT-4.13.2-1]"""
    allowed = {0x80, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3), 0x81}
    async with native() as broker, broker.client(username="bob") as client:
        assert await broker.engine.kick("bob", code) == 1
        farewell = await client.next()
        assert farewell.first == wire.DISCONNECT
        assert farewell.reason in allowed
        await client.expect_end()


async def test_a_guards_refusal_at_connect_has_a_code_of_connack() -> None:
    """[MQTT-3.2.2-8] [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT-4.13.2-1]"""

    class Shut(AllowAll):
        code = ReasonCode.SUCCESS

        async def connect(self, request: object) -> ReasonCode:
            return self.code

    allowed = {*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F}
    guard = Shut()
    async with native(guard=guard) as broker:
        for guard.code in ERRORS:
            async with broker.raw() as client:
                client.send(wire.connect("c"), wire.publish("a", retain=True))
                got = await client.next()
                assert (got.first, got.head[0]) == (wire.CONNACK, 0)
                assert got.reason in allowed
                await client.expect_end()


async def test_a_fault_of_ours_ends_the_connection_before_mqtt_5() -> None:
    """3.1.1: [MQTT-4.8.0-2]"""
    sink = RecordingSink(code=ReasonCode.UNSPECIFIED_ERROR)
    async with native(sink=sink) as broker, broker.client(level=4) as client:
        client.send(wire.publish("a", qos=1, level=4))
        await client.expect_end()
        await until(lambda: broker.engine.sessions() == [])

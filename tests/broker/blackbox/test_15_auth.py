"""15: enhanced authentication where the server has no method (MQTT 5, sections 3.15 and 4.12)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, mosquitto_differs

METHODS = ["SCRAM-SHA-1", "unknown", "x" * 1000, "ü"]


@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_method_is_refused(broker: Subject, method: str) -> None:
    """[MQTT-4.12.0-1] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8]: 0x8C, bad authentication method."""
    async with broker.raw() as client:
        client.send(wire.connect(client.client_id, authentication_method=method))
        await client.expect(wire.connack(0x8C))
        await client.expect_end()


async def test_an_unknown_method_is_refused_whatever_data_comes_with_it(broker: Subject) -> None:
    """[MQTT-4.12.0-1]"""
    async with broker.raw() as client:
        asked = {"authentication_method": "unknown", "authentication_data": bytes(range(256))}
        client.send(wire.connect(client.client_id, username="ada", password=b"secret", **asked))
        await client.expect(wire.connack(0x8C))
        await client.expect_end()


async def test_what_follows_a_refused_method_is_not_worked_off(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.4-6] [MQTT-4.12.0-1]"""
    async with broker.client("two") as watcher, broker.raw() as client:
        await watcher.subscribe(topic)
        client.send(wire.connect(client.client_id, authentication_method="unknown"), wire.publish(topic))
        await client.expect(wire.connack(0x8C))
        await client.expect_end()
        await watcher.settled()


async def test_a_refused_method_takes_over_no_session(broker: Subject) -> None:
    """[MQTT-3.1.4-2] [MQTT-4.12.0-1]"""
    async with broker.client() as first, broker.raw("one") as second:
        second.send(wire.connect(first.client_id, authentication_method="unknown"))
        await second.expect(wire.connack(0x8C))
        await first.settled()


async def test_without_a_method_connack_names_none(broker: Subject) -> None:
    """[MQTT-4.12.0-6]"""
    async with broker.client() as client:
        assert client.connack.get("authentication_method") is None
        assert client.connack.get("authentication_data") is None


unasked_auths = pytest.mark.parametrize(
    "raw",
    [
        wire.packet(wire.AUTH),
        wire.auth(0x00),
        wire.auth(0x18, authentication_method="unknown"),
        wire.auth(0x18, authentication_method="unknown", authentication_data=b"x"),
        wire.auth(0x19, authentication_method="unknown"),
        wire.auth(0x19, authentication_method="unknown", user_property=("a", "b")),
    ],
    ids=["empty", "success", "continue", "continue with data", "again", "again with a property"],
)


@unasked_auths
async def test_an_auth_without_a_method_in_connect_closes_the_connection(broker: Subject, raw: bytes) -> None:
    """[MQTT-4.12.0-7] [MQTT-4.13.1-1]"""
    async with broker.client() as client:
        await client.dies_of(raw)


@unasked_auths
@mosquitto_differs("closes without a DISCONNECT")
async def test_an_auth_without_a_method_in_connect_is_said_to_be_a_protocol_error(broker: Subject, raw: bytes) -> None:
    """[MQTT-4.12.0-7] [MQTT-3.14.2-1]: 0x82."""
    async with broker.client() as client:
        await client.dies_of(raw, 0x82)


@pytest.mark.parametrize("reason", [0x01, 0x17, 0x1A, 0x80, 0x8C, 0xFF])
async def test_an_auth_with_another_reason_code_closes_the_connection(broker: Subject, reason: int) -> None:
    """[MQTT-3.15.2-1]"""
    async with broker.client() as client:
        await client.dies_of(wire.auth(reason, authentication_method="unknown"))


@pytest.mark.parametrize("reason", [0x18, 0x19])
async def test_an_auth_that_names_no_method_closes_the_connection(broker: Subject, reason: int) -> None:
    """[MQTT-4.12.0-7]: a protocol error (section 3.15.2.2.2)."""
    async with broker.client() as client:
        await client.dies_of(wire.auth(reason, authentication_data=b"x"))


async def test_an_auth_cut_off_closes_the_connection(broker: Subject) -> None:
    """[MQTT-4.13.1-1]"""
    whole = wire.auth(0x18, authentication_method="m", authentication_data=b"x")
    first, body = wire.split(whole)
    for size in range(1, len(body)):
        async with broker.client() as client:
            await client.dies_of(wire.packet(first, body[:size]))


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_before_mqtt_5_there_is_no_auth(broker: Subject, level: int) -> None:
    """3.1.1: [MQTT-2.2.2-2]: packet type 15 is reserved."""
    async with broker.client(level=level) as client:
        await client.dies_of(wire.packet(wire.AUTH))

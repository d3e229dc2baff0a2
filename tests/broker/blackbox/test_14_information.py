"""14: response information, reasons in words, assigned client ids (MQTT 5, sections 3.1.2.11 and 3.2.2.3)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, mosquitto_differs

NATIVE = {"response_information": "answers/"}


# --- response information


@mosquitto_differs("has none")
async def test_a_client_that_asks_is_told_where_answers_go(broker: Subject) -> None:
    """MQTT 5, section 3.2.2.3.15."""
    async with broker.client(request_response_information=1) as client:
        assert client.connack.get("response_information") == "answers/"


@pytest.mark.parametrize("asked", [None, 0])
async def test_a_client_that_does_not_ask_is_not_told(broker: Subject, asked: int | None) -> None:
    """[MQTT-3.1.2-28]"""
    async with broker.client(request_response_information=asked) as client:
        assert client.connack.get("response_information") is None


async def test_a_request_is_answered_where_it_says(broker: Subject, topic: str) -> None:
    """[MQTT-3.3.2-15] [MQTT-3.3.2-16]: section 4.10."""
    async with broker.client("ask") as asking, broker.client("say") as answering:
        await asking.subscribe(f"{topic}/answers", qos=1)
        await answering.subscribe(f"{topic}/questions", qos=1)
        said = {"response_topic": f"{topic}/answers", "correlation_data": b"\x00\x2a"}
        await asking.publish(f"{topic}/questions", b"?", qos=1, **said)
        await answering.gets(f"{topic}/questions", b"?", qos=1, **said)
        await answering.publish(f"{topic}/answers", b"!", qos=1, correlation_data=b"\x00\x2a")
        await asking.gets(f"{topic}/answers", b"!", qos=1, correlation_data=b"\x00\x2a")


# --- reasons in words

REFUSED = {
    "PUBACK": wire.publish("$x", qos=1, packet_id=9),
    "PUBREC": wire.publish("$x", qos=2, packet_id=9),
    "PUBREL": wire.pubrec(9),
    "PUBCOMP": wire.pubrel(9),
    "SUBACK": wire.subscribe("$share/+/x", packet_id=9),
    "UNSUBACK": wire.unsubscribe("never", packet_id=9),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
async def test_a_client_that_wants_no_reasons_in_words_gets_none(broker: Subject, raw: bytes) -> None:
    """[MQTT-3.1.2-29]"""
    async with broker.client(request_problem_information=0) as client:
        client.send(raw)
        answer = await client.next()
        assert answer.packet_id == 9
        assert answer.properties == ()


async def test_user_properties_of_messages_come_all_the_same(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-29]: not on any packet other than PUBLISH, CONNACK or DISCONNECT."""
    async with broker.client(request_problem_information=0) as client, broker.client("two") as publisher:
        await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1, user_property=("a", "b"))
        await client.gets(topic, b"p", qos=1, user_property=("a", "b"))


@pytest.mark.parametrize("kind", ["PUBACK", "PUBREC", "SUBACK"])
@mosquitto_differs("gives a code, if that")
async def test_a_refusal_has_a_reason_in_words(broker: Subject, kind: str) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.9.3-2]: 0x80 and above, with a reason string."""
    async with broker.client(request_problem_information=1) as client:
        client.send(REFUSED[kind])
        answer = await client.next()
        assert (answer.rest[0] if kind == "SUBACK" else answer.reason) >= 0x80
        assert answer.get("reason_string")


@mosquitto_differs("gives a code only")
async def test_a_disconnect_has_a_reason_in_words(broker: Subject, topic: str) -> None:
    """[MQTT-4.13.2-1]: section 3.14.2.2.3."""
    async with broker.client() as client:
        client.send(wire.subscribe(topic, packet_id=0))
        farewell = await client.next()
        assert farewell.first == wire.DISCONNECT
        assert farewell.get("reason_string")


async def test_success_needs_no_words(broker: Subject, topic: str) -> None:
    async with broker.client() as client:
        for raw in (
            wire.subscribe(topic, packet_id=9),
            wire.publish(f"{topic}/x", qos=1, packet_id=9),
            wire.publish(f"{topic}/x", qos=2, packet_id=9),
            wire.pubrel(9),
            wire.unsubscribe(topic, packet_id=9),
        ):
            client.send(raw)
            assert (await client.next()).properties == ()


# --- assigned client ids


@pytest.mark.parametrize("clean", [True, False])
async def test_a_client_without_an_id_is_given_one(broker: Subject, clean: bool) -> None:
    """[MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]"""
    async with broker.raw() as client:
        client.client_id = ""
        await client.connect(clean=clean)
        assert client.connack.get("assigned_client_identifier")


async def test_every_client_without_an_id_is_given_another_one(broker: Subject) -> None:
    """[MQTT-3.2.2-16]"""
    given = set()
    for _ in range(20):
        async with broker.raw() as client:
            client.client_id = ""
            given.add((await client.connect(session_expiry_interval=60)).get("assigned_client_identifier"))
    assert len(given) == 20


async def test_an_id_that_was_given_brings_the_session_back(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.3-7] [MQTT-3.1.3-2]"""
    async with broker.raw() as client:
        client.client_id = ""
        await client.connect(session_expiry_interval=60)
        await client.subscribe(topic, qos=1)
        given = client.connack.get("assigned_client_identifier")
    async with broker.raw() as client:
        client.client_id = given
        await client.connect(present=True, **kept(5))
        assert client.connack.get("assigned_client_identifier") is None


async def test_an_id_that_was_given_can_be_taken_over(broker: Subject) -> None:
    """[MQTT-3.1.4-3] [MQTT-3.1.3-7]"""
    async with broker.raw() as first, broker.raw() as second:
        first.client_id = ""
        second.client_id = (await first.connect()).get("assigned_client_identifier")
        await second.connect()
        await first.ended()
        await second.settled()


async def test_a_client_with_an_id_is_given_none(broker: Subject) -> None:
    """[MQTT-3.2.2-16]"""
    async with broker.client() as client:
        assert client.connack.get("assigned_client_identifier") is None

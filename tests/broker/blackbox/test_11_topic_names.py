"""11: what may not be a topic, topics beginning with $, text that is not UTF-8 (MQTT 5, sections 1.5.4 and 4.7)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, levels, mosquitto_differs
from tests.broker.blackbox.wire import Will

NATIVE = {"max_topic_bytes": 400, "max_topic_levels": 20}

ILL_FORMED = {
    "a lone continuation byte": b"a\x80",
    "a start without an end": b"a\xc3",
    "an overlong slash": b"a\xc0\xaf",
    "an overlong NUL": b"a\xc0\x80",
    "an overlong three-byte sequence": b"a\xe0\x80\xaf",
    "the first surrogate": b"a\xed\xa0\x80",
    "the last surrogate": b"a\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "a byte that is never UTF-8": b"a\xff",
    "NUL": b"a\x00b",
}
"""[MQTT-1.5.4-1] [MQTT-1.5.4-2]; 3.1.1: [MQTT-1.5.3-1] [MQTT-1.5.3-2]"""

FAULTS = (0x81, 0x82, 0x90)  # malformed packet, protocol error, topic name invalid


@levels
async def test_an_ill_formed_topic_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [MQTT-4.7.3-2]; 3.1.1: [MQTT-1.5.3-1] [MQTT-1.5.3-2]
    3.1.1: [MQTT-3.3.2-1] [MQTT-4.7.3-2]"""
    async with broker.client("two", level=level) as watcher:
        await watcher.subscribe("#")
        for raw in ILL_FORMED.values():
            async with broker.client(level=level) as client:
                client.send(wire.publish(raw, level=level))
                await client.closed(*FAULTS)
            assert not [packet for packet in await watcher.all_before_pingresp() if raw in packet.head]


@levels
async def test_an_ill_formed_filter_is_refused_or_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-3.8.3-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2]; 3.1.1: [MQTT-3.8.3-1] [MQTT-1.5.3-1] [MQTT-1.5.3-2]"""
    for raw in ILL_FORMED.values():
        async with broker.client(level=level) as client:
            await client.refused_filter(raw)


@levels
async def test_unsubscribing_from_an_ill_formed_filter_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-3.10.3-1]; 3.1.1: [MQTT-3.10.3-1]"""
    for raw in ILL_FORMED.values():
        async with broker.client(level=level) as client:
            client.send(wire.unsubscribe(raw, level=level))
            await client.closed(0x81, 0x82, 0x8F)


@levels
async def test_an_ill_formed_client_id_is_not_let_in(broker: Subject, level: int) -> None:
    """[MQTT-3.1.3-4]; 3.1.1: [MQTT-3.1.3-4]"""
    for raw in ILL_FORMED.values():
        async with broker.raw(level=level) as client:
            client.send(wire.connect(raw, level=level))
            await client.not_let_in()


@levels
@mosquitto_differs("lets it in", level=3)
async def test_an_ill_formed_user_name_is_not_let_in(broker: Subject, level: int) -> None:
    """[MQTT-3.1.3-12]; 3.1.1: [MQTT-3.1.3-11]"""
    for raw in ILL_FORMED.values():
        async with broker.raw(level=level) as client:
            client.send(wire.connect(client.client_id, level=level, username=raw), wire.pingreq())
            await client.not_let_in()


@levels
async def test_an_ill_formed_will_topic_is_not_let_in(broker: Subject, level: int) -> None:
    """[MQTT-3.1.3-11]; 3.1.1: [MQTT-3.1.3-10]"""
    for raw in ILL_FORMED.values():
        async with broker.raw(level=level) as client:
            client.send(wire.connect(client.client_id, level=level, will=Will(raw)))
            await client.not_let_in()


async def test_an_ill_formed_property_closes_the_connection(broker: Subject, topic: str) -> None:
    """[MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-1.5.4-1] [MQTT-1.5.4-2]"""
    for raw in ILL_FORMED.values():
        for name, said in (
            ("content_type", raw),
            ("response_topic", raw),
            ("user_property", (raw, "v")),
            ("user_property", ("n", raw)),
        ):
            async with broker.client() as client:
                client.send(wire.publish(topic, **{name: said}))
                await client.ended()


@mosquitto_differs("closes without a DISCONNECT")
async def test_an_ill_formed_property_is_said_to_be_so(broker: Subject, topic: str) -> None:
    """[MQTT-1.5.7-1] [MQTT-4.13.1-1]: 0x81, malformed packet."""
    async with broker.client() as client:
        client.send(wire.publish(topic, user_property=(b"\xff", "v")))
        await client.closed(0x81)


@levels
async def test_unusual_characters_are_left_as_they_are(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-1.5.4-3] [MQTT-4.7.3-4]; 3.1.1: [MQTT-1.5.3-3] [MQTT-4.7.3-4]"""
    async with broker.client(level=level) as client:
        for name in ("\ufeff", "a\ufeffb", "\ufffd", "\U0010fffd", "e\u0301", "\ud7ff", "\ue000"):
            await client.subscribe(f"{topic}/{name}")
            client.send(wire.publish(f"{topic}/{name}", level=level))
            await client.gets(f"{topic}/{name}")


@levels
@pytest.mark.parametrize("wrong", ["+", "#", "a/+", "a/#", "+/a", "a/+/b", "a+", "a#b"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_topic_with_a_wildcard_closes_the_connection(broker: Subject, level: int, wrong: str, qos: int) -> None:
    """[MQTT-3.3.2-2] [MQTT-4.7.0-1]; 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1]"""
    async with broker.client(level=level) as client:
        client.send(wire.publish(wrong, qos=qos, level=level))
        await client.closed(*FAULTS)


@levels
async def test_an_empty_topic_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-4.7.3-1]; 3.1.1: [MQTT-4.7.3-1]; CVE-2021-34432"""
    async with broker.client(level=level) as client:
        client.send(wire.publish("", level=level))
        await client.closed(*FAULTS)


@levels
async def test_an_empty_filter_is_refused_or_closes_the_connection(broker: Subject, level: int) -> None:
    """[MQTT-4.7.3-1]; 3.1.1: [MQTT-4.7.3-1]"""
    async with broker.client(level=level) as client:
        await client.refused_filter("")


@levels
@pytest.mark.parametrize("wrong", ["", "+", "a/#"])
async def test_a_will_to_no_topic_is_not_let_in(broker: Subject, level: int, wrong: str) -> None:
    """[MQTT-3.3.2-2] [MQTT-4.7.3-1]; 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.3-1]"""
    async with broker.raw(level=level) as client:
        client.send(wire.connect(client.client_id, level=level, will=Will(wrong)))
        await client.not_let_in()


# --- topics beginning with $


@levels
@pytest.mark.parametrize("topic_filter", ["#", "+/#", "+", "+/{}", "+/+", "/#"])
@pytest.mark.parametrize("root", ["$SYS", "$x", "$"])
async def test_a_leading_wildcard_does_not_match_what_begins_with_a_dollar(
    broker: Subject, topic: str, level: int, topic_filter: str, root: str
) -> None:
    """[MQTT-4.7.2-1]; 3.1.1: [MQTT-4.7.2-1]"""
    async with broker.client("two", level=level) as watcher, broker.client(level=level) as client:
        await watcher.subscribe(topic_filter.format(topic))
        client.send(wire.publish(f"{root}/{topic}", level=level))
        await client.settled()
        await watcher.settled()


@levels
async def test_what_a_client_publishes_below_sys_is_dropped(broker: Subject, topic: str, level: int) -> None:
    """MQTT 5, section 4.7.2: a server should prevent it."""
    async with broker.client("two", level=level) as watcher, broker.client(level=level) as client:
        await watcher.subscribe("$SYS/#")
        for qos in (0, 1, 2):
            client.send(wire.publish(f"$SYS/{topic}", qos=qos, packet_id=3, level=level))
        await client.all_before_pingresp()
        assert not [packet for packet in await watcher.all_before_pingresp() if packet.topic == f"$SYS/{topic}"]


@pytest.mark.parametrize("root", ["$SYS", "$CONTROL", "$share/g", "$x", "$"])
@mosquitto_differs("takes it", root=("$CONTROL", "$x", "$"))
async def test_a_publish_to_what_begins_with_a_dollar_is_refused(broker: Subject, topic: str, root: str) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-4.3.3-9]: 0x87; PUBREC with an error ends the exchange."""
    async with broker.client() as client:
        await client.ask(wire.publish(f"{root}/{topic}", qos=1, packet_id=3), wire.puback(3, 0x87))
        for _ in range(2):
            await client.ask(wire.publish(f"{root}/{topic}", qos=2, packet_id=3), wire.pubrec(3, 0x87))


@pytest.mark.parametrize("level", [3, 4], ids=["v31", "v311"])
async def test_an_older_client_is_not_told_of_the_refusal(broker: Subject, topic: str, level: int) -> None:
    """3.1.1: [MQTT-3.3.5-2]: acknowledged and dropped."""
    async with broker.client(level=level) as client:
        await client.ask(wire.publish(f"$SYS/{topic}", qos=1, packet_id=3, level=level), wire.puback(3))


@levels
@pytest.mark.parametrize("root", ["$SYS", "$CONTROL", "$share/g", "$x"])
async def test_a_will_to_what_begins_with_a_dollar_is_not_published(
    broker: Subject, topic: str, level: int, root: str
) -> None:
    """MQTT 5, section 4.7.2: nobody listening to everything gets it."""
    async with broker.client("two", level=level) as watcher, broker.raw(level=level) as client:
        await watcher.subscribe("#")
        client.send(wire.connect(client.client_id, level=level, will=Will(f"{root}/{topic}")))
        await client.next()
        await client.vanish()
        await watcher.settled()


@levels
async def test_dollar_is_nothing_special_elsewhere(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.7.2-1]; 3.1.1: [MQTT-4.7.2-1]"""
    async with broker.client(level=level) as client:
        await client.subscribe(f"{topic}/#")
        client.send(wire.publish(f"{topic}/$x/a", level=level), wire.publish(f"{topic}/$", level=level))
        await client.gets(f"{topic}/$x/a")
        await client.gets(f"{topic}/$")


# --- long and deep


@levels
async def test_a_topic_of_the_greatest_depth_and_length_is_taken(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.7.3-3]; 3.1.1: [MQTT-4.7.3-3]"""
    deep = (topic + "/a" * 19).ljust(400, "x")
    async with broker.client(level=level) as client:
        await client.subscribe(deep)
        client.send(wire.publish(deep, level=level))
        await client.gets(deep)


@levels
@pytest.mark.parametrize("shape", ["deep", "long"])
@mosquitto_differs("takes 200 levels and 65,535 bytes")
async def test_a_deeper_or_longer_topic_closes_the_connection(
    broker: Subject, topic: str, level: int, shape: str
) -> None:
    """Our bound: 0x90, topic name invalid; CVE-2019-11779."""
    async with broker.client(level=level) as client:
        longer = topic + "/a" * 20 if shape == "deep" else topic.ljust(401, "x")
        await client.dies_of(wire.publish(longer, level=level), 0x90)


@levels
@pytest.mark.parametrize("shape", ["deep", "long"])
@mosquitto_differs("takes 200 levels and 65,535 bytes")
async def test_a_deeper_or_longer_filter_is_refused(broker: Subject, topic: str, level: int, shape: str) -> None:
    """[MQTT-3.9.3-2]: our bound: 0x8F, topic filter invalid."""
    async with broker.client(level=level) as client:
        await client.ask(
            wire.subscribe(topic + "/+" * 20 if shape == "deep" else topic.ljust(401, "x"), level=level),
            wire.suback(0x8F if level == 5 else 0x80, level=level),
        )


@levels
async def test_a_topic_of_32_767_levels_is_not_taken(broker: Subject, level: int) -> None:
    """CVE-2019-11779"""
    async with broker.client(level=level) as client:
        client.send(wire.publish("/" * 65_535, level=level))
        await client.closed(*FAULTS)


@levels
async def test_a_filter_of_32_767_levels_is_refused(broker: Subject, level: int) -> None:
    """CVE-2019-11779"""
    async with broker.client(level=level) as client:
        await client.refused_filter("+/" * 32_767)

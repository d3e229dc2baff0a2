"""11: which filters match which topics (MQTT 5 and 3.1.1, section 4.7)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, levels

MATCHES = [
    ("a", "a"),
    ("a/b", "a/b"),
    ("#", "a"),
    ("#", "a/b/c"),
    ("#", "/"),
    ("a/#", "a"),
    ("a/#", "a/"),
    ("a/#", "a/b/c"),
    ("+", "a"),
    ("+/+", "a/b"),
    ("+/+", "/a"),
    ("+/+", "/"),
    ("/+", "/a"),
    ("/#", "/a/b"),
    ("+/#", "a"),
    ("+/#", "a/b/c"),
    ("a/+", "a/"),
    ("a/+/c", "a/b/c"),
    ("a/+/c", "a//c"),
    ("a/+/#", "a/b"),
    ("a//b", "a//b"),
    ("a/", "a/"),
    (" ", " "),
    ("a b/c d", "a b/c d"),
    ("ü/日本/😀", "ü/日本/😀"),
    ("$a", "$a"),
    ("a/$b", "a/$b"),
    ("a/+", "a/$b"),
]
"""Filters and topics they match, below a topic of the test's own."""

MISMATCHES = [
    ("a", "A"),
    ("a", "a/"),
    ("a", "/a"),
    ("a", "a/b"),
    ("a/", "a"),
    ("a/b", "a"),
    ("+", "a/b"),
    ("+", "/a"),
    ("a/+", "a"),
    ("a/+", "a/b/c"),
    ("a/+/c", "a/b/d"),
    ("a/+/c", "a/c"),
    ("a/#", "b/a"),
    ("a/#", "ab"),
    ("x/+/#", "x"),
    ("/+", "a"),
    ("a/b", "a//b"),
    ("a//b", "a/b"),
    ("a", "a "),
    # the same to the eye, composed and decomposed, are two topics
    ("\u00e9", "e\u0301"),
    ("\u212b", "\u00c5"),
    ("a", "\ufeffa"),
]


@levels
async def test_a_filter_matches(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-4] [MQTT-1.5.4-3]; 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3]
    3.1.1: [MQTT-4.7.3-4]"""
    async with broker.client(level=level) as client:
        for number, (topic_filter, name) in enumerate(MATCHES):
            await client.subscribe(f"{topic}/{number}/{topic_filter}")
            client.send(wire.publish(f"{topic}/{number}/{name}", level=level))
            await client.gets(f"{topic}/{number}/{name}")


@levels
async def test_a_filter_does_not_match(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.7.3-4] [MQTT-4.7.1-2] [MQTT-1.5.4-3]; 3.1.1: [MQTT-4.7.3-4] [MQTT-4.7.1-3] [MQTT-1.5.3-3]"""
    async with broker.client(level=level) as client:
        for number, (topic_filter, name) in enumerate(MISMATCHES):
            await client.subscribe(f"{topic}/{number}/{topic_filter}")
            client.send(wire.publish(f"{topic}/{number}/{name}", level=level))
            assert await client.all_before_pingresp() == [], (topic_filter, name)


@levels
@pytest.mark.parametrize("topic_filter", ["#", "+", "+/+", "/#", "/+", "+/#"])
async def test_wildcards_alone_are_filters(broker: Subject, topic: str, level: int, topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2]; 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-3.8.3-2]"""
    async with broker.client(level=level) as client:
        await client.subscribe(topic_filter)
        name = topic_filter.replace("+", topic).replace("#", topic)
        client.send(wire.publish(name, level=level))
        await client.gets(name)


@levels
async def test_a_hash_alone_matches_everything(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.7.1-1]; 3.1.1: [MQTT-4.7.1-2]"""
    async with broker.client(level=level) as client:
        await client.subscribe("#")
        for name in (topic, f"{topic}/", f"/{topic}", f"//{topic}", f"{topic}/a", f"{topic}//"):
            client.send(wire.publish(name, level=level))
            await client.gets(name)


@levels
@pytest.mark.parametrize(
    "wrong",
    ["a#", "#a", "a/b#", "a/#b", "#/", "#/a", "a/#/b", "##", "+#", "a+", "+a", "a/b+", "a/+b", "a/b+/c", "++", "+/a+"],
)
async def test_a_wildcard_fills_its_level_and_a_hash_the_last(broker: Subject, level: int, wrong: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2]; 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3]"""
    async with broker.client(level=level) as client:
        await client.refused_filter(wrong)


@levels
async def test_a_refused_filter_does_not_hinder_the_others(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.8.4-6]; 3.1.1: [MQTT-3.8.4-5]: unless the whole packet is malformed for it."""
    async with broker.client(level=level) as client:
        client.send(wire.subscribe(topic, "$share/+a/x", f"{topic}/b", level=level), wire.pingreq())
        raw = await client.everything(stop=wire.pingresp())
        if raw.endswith(wire.pingresp()):
            suback = wire.parse(wire.packets(raw)[0], level)
            assert suback.rest[0] == suback.rest[2] == 0
            assert suback.rest[1] >= 0x80

"""05: a client that connects again while it is connected (MQTT 5 and 3.1.1, section 3.1.4)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, levels, mosquitto_differs

WITH_A_SINK = True


@mosquitto_differs("closes without a DISCONNECT")
async def test_the_first_connection_is_told_that_its_session_was_taken_over(broker: Subject) -> None:
    """[MQTT-3.1.4-3]: 0x8E, session taken over."""
    async with broker.client() as first, broker.client():
        await first.closed(0x8E)


@levels
async def test_a_second_connection_closes_the_first(broker: Subject, level: int) -> None:
    """[MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2]"""
    async with broker.client(level=level) as first, broker.client(level=level) as second:
        await first.ended()
        await second.settled()


@pytest.mark.parametrize(("old", "new"), [(3, 4), (4, 5), (5, 4), (5, 3)])
async def test_the_protocol_level_does_not_matter(broker: Subject, old: int, new: int) -> None:
    """[MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2]"""
    async with broker.client(level=old) as first, broker.client(level=new) as second:
        await first.ended()
        await second.settled()


@levels
async def test_ten_connections_one_after_the_other_leave_the_last(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2]"""
    async with broker.client("two", level=level) as publisher, broker.client(level=level) as last:
        for _ in range(9):
            async with broker.client(level=level):
                pass
        await last.ended()
        async with broker.client(level=level) as last:
            await last.subscribe(topic)
            await publisher.publish(topic)
            await last.gets(topic)
            await last.settled()


@levels
async def test_a_kept_session_goes_over_to_the_second_connection(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-5] [MQTT-3.2.2-3]; 3.1.1: [MQTT-3.1.2-4] [MQTT-3.2.2-2]"""
    async with broker.client("two", level=level) as publisher, broker.client(level=level, **kept(level)) as first:
        await first.subscribe(topic, qos=1)
        async with broker.client(level=level, present=True, **kept(level)) as second:
            await first.ended()
            await publisher.publish(topic, b"p", qos=1)
            await second.gets(topic, b"p", qos=1)
            await second.settled()


@levels
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_the_first_has_not_acknowledged_goes_to_the_second(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """[MQTT-4.4.0-1]; 3.1.1: [MQTT-4.4.0-1]"""
    async with broker.client("two", level=level) as publisher, broker.client(level=level, **kept(level)) as first:
        await first.subscribe(topic, qos=2)
        await publisher.publish(topic, b"p", qos=qos)
        packet_id = await first.gets(topic, b"p", qos=qos, ack=False)
        async with broker.client(level=level, present=True, **kept(level)) as second:
            await first.ended()
            assert await second.gets(topic, b"p", qos=qos, dup=True) == packet_id
            await second.settled()


@levels
async def test_a_clean_second_connection_has_nothing_of_the_first(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.2.2-2]; 3.1.1: [MQTT-3.1.2-6] [MQTT-3.2.2-1]"""
    async with broker.client("two", level=level) as publisher, broker.client(level=level, **kept(level)) as first:
        await first.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1)
        await first.gets(topic, b"p", qos=1, ack=False)
        async with broker.client(level=level, clean=True, present=False) as second:
            await first.ended()
            await publisher.publish(topic, b"p", qos=1)
            await second.settled()


@levels
async def test_what_the_first_had_sent_is_worked_off(broker: Subject, topic: str, level: int) -> None:
    async with broker.client("two", level=level) as watcher, broker.client(level=level) as first:
        await watcher.subscribe(topic)
        first.send(*[wire.publish(topic, bytes([number]), level=level) for number in range(20)])
        await first.settled()
        async with broker.client(level=level):
            await first.ended()
        for number in range(20):
            await watcher.gets(topic, bytes([number]))


async def test_a_connection_that_has_left_is_not_taken_over(broker: Subject) -> None:
    async with broker.client(**kept(5)) as first:
        await first.leave()
        async with broker.client(present=True, **kept(5)) as second:
            await second.settled()

"""05: sessions that outlive their connection (MQTT 5 and 3.1.1, sections 3.1.2 and 4.1)."""

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Subject, kept, levels, pause, together


@levels
async def test_a_kept_session_is_there_when_its_client_is_back(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-3.2.2-3] [MQTT-3.1.3-2]; 3.1.1: [MQTT-3.1.2-4] [MQTT-3.2.2-2]
    3.1.1: [MQTT-3.1.3-2]"""
    async with broker.client(level=level, **kept(level)) as client:
        await client.subscribe(topic, qos=1)
        await client.leave()
    async with broker.client(level=level, present=True, **kept(level)) as client:
        client.send(wire.publish(topic, b"p", qos=0, level=level))
        await client.gets(topic, b"p")


@levels
async def test_the_subscriptions_of_a_kept_session_hold(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-5]; 3.1.1: [MQTT-3.1.2-4]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe((f"{topic}/a", 1), (f"{topic}/+/b", 2))
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await publisher.publish(f"{topic}/a", qos=2)
            await client.gets(f"{topic}/a", qos=1)
            await publisher.publish(f"{topic}/a/b", qos=2)
            await client.gets(f"{topic}/a/b", qos=2)


@levels
@pytest.mark.parametrize("qos", [1, 2])
async def test_messages_wait_in_order_for_a_client_that_is_away(
    broker: Subject, topic: str, level: int, qos: int
) -> None:
    """[MQTT-4.5.0-1] [MQTT-4.6.0-6]; 3.1.1: [MQTT-3.1.2-5] [MQTT-4.5.0-1] [MQTT-4.6.0-6]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=qos)
        for number in range(15):
            await publisher.publish(topic, bytes([number]), qos=qos)
        async with broker.client(level=level, present=True, **kept(level)) as client:
            ids = [await client.gets(topic, bytes([number]), qos=qos, ack=False) for number in range(15)]
            assert len(set(ids)) == 15
            await client.acknowledge(*ids, qos=qos)
            await client.settled()


@levels
async def test_what_was_acknowledged_is_not_sent_again(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.3.2-3]; 3.1.1: [MQTT-4.3.2-1]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=2)
            for qos in (1, 2):
                await publisher.publish(topic, b"p", qos=qos)
                await client.gets(topic, b"p", qos=qos)
            await client.settled()
        async with broker.client(level=level, present=True, **kept(level)) as client:
            await client.settled()


@levels
async def test_a_clean_start_discards_the_session(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2]; 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.4-3] [MQTT-3.2.2-1]"""
    async with broker.client("two", level=level) as publisher:
        async with broker.client(level=level, **kept(level)) as client:
            await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"lost", qos=1)
        async with broker.client(level=level, clean=True) as client:
            await client.settled()
            await publisher.publish(topic, b"lost", qos=1)
            await client.settled()
        async with broker.client(level=level, present=False, **kept(level)) as client:
            await client.settled()


@levels
async def test_a_clean_session_ends_with_its_connection(broker: Subject, topic: str, level: int) -> None:
    """[MQTT-4.1.0-2]; 3.1.1: [MQTT-3.1.2-6]"""
    async with broker.client(level=level, clean=True) as client:
        await client.subscribe(topic, qos=1)
        await client.leave()
    async with broker.client(level=level, present=False, **kept(level)) as client:
        await client.settled()


async def test_without_an_expiry_interval_a_session_ends_with_its_connection(broker: Subject, topic: str) -> None:
    """[MQTT-4.1.0-2]: absent is 0 (section 3.1.2.11.2)."""
    for expiry in (None, 0):
        async with broker.client(clean=False, session_expiry_interval=expiry) as client:
            await client.subscribe(topic, qos=1)
            await client.leave()
        async with broker.client(clean=False, present=False) as client:
            await client.settled()


async def test_a_session_begun_with_a_clean_start_lasts_too(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-23]"""
    async with broker.client("two") as publisher:
        async with broker.client(clean=True, session_expiry_interval=60) as client:
            await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1)
        async with broker.client(clean=False, present=True, session_expiry_interval=60) as client:
            await client.gets(topic, b"p", qos=1)


async def test_a_session_passes_from_311_to_5_and_back(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.3-2]: it belongs to the client identifier."""
    async with broker.client("two") as publisher:
        async with broker.client(level=4, clean=False) as client:
            await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"1", qos=1, content_type="text/plain")
        async with broker.client(level=5, present=True, **kept(5)) as client:
            await client.gets(topic, b"1", qos=1, content_type="text/plain")
            await client.settled()
        await publisher.publish(topic, b"2", qos=1, content_type="text/plain")
        async with broker.client(level=4, clean=False, present=True) as client:
            await client.gets(topic, b"2", qos=1)


async def test_a_disconnect_may_end_the_session(broker: Subject, topic: str) -> None:
    """[MQTT-4.1.0-2]: section 3.14.2.2.2."""
    async with broker.client(**kept(5)) as client:
        await client.subscribe(topic, qos=1)
        await client.leave(session_expiry_interval=0)
    async with broker.client(clean=False, present=False) as client:
        await client.settled()


async def test_a_disconnect_may_not_begin_to_keep_the_session(broker: Subject) -> None:
    """[MQTT-4.13.1-1]: a protocol error where CONNECT said 0 (section 3.14.2.2.2)."""
    async with broker.client() as client:
        client.send(wire.disconnect(session_expiry_interval=60))
        await client.closed(0x82)


async def test_a_session_outlives_its_connection_as_long_as_asked(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-23] [MQTT-4.1.0-1] [MQTT-4.1.0-2]"""

    async def it_is_gone_after_its_expiry(name: str) -> None:
        async with broker.client(name, clean=False, session_expiry_interval=1) as client:
            await client.subscribe(topic, qos=1)
        await pause(1 + broker.late_s)
        async with broker.client(name, clean=False, present=False) as client:
            await client.settled()

    async def it_is_there_before_its_expiry(name: str) -> None:
        async with broker.client(name, clean=False, session_expiry_interval=1) as client:
            await client.subscribe(topic, qos=1)
            await pause(1.2)  # does not count while it is connected
        async with broker.client(name, clean=False, present=True, session_expiry_interval=60) as client:
            await client.settled()

    async def a_disconnect_shortens_it(name: str) -> None:
        async with broker.client(name, clean=False, session_expiry_interval=60) as client:
            await client.leave(session_expiry_interval=1)
        await pause(1 + broker.late_s)
        async with broker.client(name, clean=False, present=False) as client:
            await client.settled()

    async def a_disconnect_lengthens_it(name: str) -> None:
        async with broker.client(name, clean=False, session_expiry_interval=1) as client:
            await client.leave(session_expiry_interval=60)
        await pause(1 + broker.late_s)
        async with broker.client(name, clean=False, present=True) as client:
            await client.settled()

    async def the_greatest_interval_never_ends(name: str) -> None:
        async with broker.client(name, clean=False, session_expiry_interval=0xFFFF_FFFF):
            pass
        await pause(1 + broker.late_s)
        async with broker.client(name, clean=False, present=True) as client:
            await client.settled()

    await together(
        it_is_gone_after_its_expiry("a"),
        it_is_there_before_its_expiry("b"),
        a_disconnect_shortens_it("c"),
        a_disconnect_lengthens_it("d"),
        the_greatest_interval_never_ends("e"),
    )

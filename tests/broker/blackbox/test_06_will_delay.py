"""06: wills with a delay (MQTT 5, section 3.1.3.2.2)."""

import asyncio

from tests.broker.blackbox.brokers import Subject, kept, mosquitto_differs, pause, together
from tests.broker.blackbox.wire import Will


def late(topic: str, *, delay_s: int = 60) -> Will:
    return Will(topic, b"gone", properties={"will_delay_interval": delay_s})


async def seconds_until_the_will(
    broker: Subject, name: str, topic: str, *, delay_s: int, expiry_s: int, reason: int | None = None
) -> float:
    """How long after its client's end a will was published."""
    async with broker.client(f"w{name}") as watcher:
        await watcher.subscribe(f"{topic}/{name}")
        will = late(f"{topic}/{name}", delay_s=delay_s)
        async with broker.client(name, session_expiry_interval=expiry_s, will=will) as client:
            if reason is not None:
                await client.leave(reason)
            began = asyncio.get_running_loop().time()
        await watcher.gets(f"{topic}/{name}", b"gone")
        return asyncio.get_running_loop().time() - began


async def test_a_will_waits_for_its_delay_or_for_the_end_of_the_session(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.3-9] [MQTT-4.1.0-2] [MQTT-3.14.4-3]"""

    async def it_comes_after_its_delay() -> None:
        waited_s = await seconds_until_the_will(broker, "a", topic, delay_s=1, expiry_s=60)
        assert 0.9 < waited_s < 3

    async def it_comes_at_the_end_of_its_session_when_that_is_sooner() -> None:
        waited_s = await seconds_until_the_will(broker, "b", topic, delay_s=60, expiry_s=1)
        assert 0.9 < waited_s < 3

    async def it_comes_at_once_without_a_delay() -> None:
        waited_s = await seconds_until_the_will(broker, "d", topic, delay_s=0, expiry_s=60)
        assert waited_s < 0.9

    async def a_disconnect_with_will_message_starts_the_delay() -> None:
        waited_s = await seconds_until_the_will(broker, "e", topic, delay_s=1, expiry_s=60, reason=0x04)
        assert 0.9 < waited_s < 3

    async def a_disconnect_deletes_it() -> None:
        async with broker.client("wf") as watcher:
            await watcher.subscribe(f"{topic}/f")
            async with broker.client("f", **kept(5), will=late(f"{topic}/f", delay_s=1)) as client:
                await client.leave()
            await pause(1 + broker.late_s)
            await watcher.settled()

    async def it_is_dropped_when_the_client_is_back() -> None:
        async with broker.client("wg") as watcher:
            await watcher.subscribe(f"{topic}/g")
            async with broker.client("g", **kept(5), will=late(f"{topic}/g", delay_s=1)):
                pass
            async with broker.client("g", present=True, **kept(5)):
                await pause(1 + broker.late_s)
                await watcher.settled()

    await together(
        it_comes_after_its_delay(),
        it_comes_at_the_end_of_its_session_when_that_is_sooner(),
        it_comes_at_once_without_a_delay(),
        a_disconnect_with_will_message_starts_the_delay(),
        a_disconnect_deletes_it(),
        it_is_dropped_when_the_client_is_back(),
    )


@mosquitto_differs("never publishes it")
async def test_a_will_does_not_wait_where_the_session_ends_with_its_connection(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-8]: the delay has not passed, but the session has ended."""
    assert await seconds_until_the_will(broker, "c", topic, delay_s=60, expiry_s=0) < 1


@mosquitto_differs("never publishes it")
async def test_a_clean_start_ends_the_session_and_so_the_wait_of_its_will(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.2-4]"""
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic)
        async with broker.client(**kept(5), will=late(topic)):
            pass
        async with broker.client(clean=True):
            await watcher.gets(topic, b"gone")


@mosquitto_differs("never publishes it")
async def test_a_takeover_with_a_clean_start_publishes_a_will_that_has_a_delay(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.2-4]: section 3.1.4, the session of the first connection ends."""
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic)
        async with broker.client(**kept(5), will=late(topic)) as first, broker.client(clean=True):
            await first.ended()
            await watcher.gets(topic, b"gone")


async def test_a_takeover_of_the_session_drops_a_will_that_has_a_delay(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.3-9]: a new connection to the session before the delay has passed."""
    async with broker.client("two") as watcher:
        await watcher.subscribe(topic)
        async with broker.client(**kept(5), will=late(topic)) as first:
            async with broker.client(present=True, **kept(5)) as second:
                await first.ended()
                await second.settled()
                await watcher.settled()

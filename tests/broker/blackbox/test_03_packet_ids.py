"""03: the 65,535 packet ids of the broker's deliveries (MQTT 5, section 2.2.1)."""

import asyncio

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, Subject, mosquitto_differs

BATCH = 90  # as many as both brokers have under way at once, but a few
DELIVERIES = 65_535 + BATCH
MOSQUITTO = "max_inflight_messages 100"


async def read_ids(client: Client, topic: str, count: int) -> list[int]:
    """The packet ids of the next messages, which all are of the same size."""
    message = wire.publish(topic, b"p", qos=1, level=4)
    async with asyncio.timeout(client.soon_s):
        raw = await client.reader.readexactly(count * len(message))
    assert raw[: len(message) - 3] == message[:-3]
    high = raw[len(message) - 3 :: len(message)]
    low = raw[len(message) - 2 :: len(message)]
    return [upper << 8 | lower for upper, lower in zip(high, low, strict=True)]


@mosquitto_differs("uses the id of a delivery that is not acknowledged yet")
async def test_packet_ids_wrap_around_those_in_use(broker: Subject, topic: str) -> None:
    """[MQTT-2.2.1-4] [MQTT-4.3.2-1]; 3.1.1: [MQTT-2.3.1-4]"""
    async with broker.client(level=4) as client, broker.client("two", level=4) as publisher:
        await client.subscribe(topic, qos=1)
        await publisher.publish(topic, b"p", qos=1)
        busy = await read_ids(client, topic, 1)
        seen: list[int] = []
        while len(seen) < DELIVERIES:
            publisher.send(wire.publish(topic, b"p", level=4, qos=1) * BATCH)
            ids = await read_ids(client, topic, BATCH)
            client.send(*map(wire.puback, ids))
            seen += ids
        assert not set(seen) & {0, *busy}
        assert len(set(seen)) == 65_534

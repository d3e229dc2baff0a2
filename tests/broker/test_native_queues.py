"""What waits for clients of the native broker: how much, what gives way, packet identifiers, and what takeovers do."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from broker import BrokerOptions, Publish
from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client
from tests.broker.blackbox.native import Native, native
from tests.broker.clients import until
from tests.broker.test_native_bounds import QUOTA_EXCEEDED

KEPT = {"clean": False, "session_expiry_interval": 60}


async def publish(broker: Native, *payloads: bytes, qos: int = 1, topic: str = "q") -> None:
    for payload in payloads:
        await broker.engine.publish(Publish(topic=topic, payload=payload, qos=qos))


def numbers(beginning: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(beginning, end)]


@contextlib.asynccontextmanager
async def away(broker: Native, name: str = "s", *, qos: int = 1) -> AsyncIterator[None]:
    """Make a kept session that has subscribed to q, and whose client has left."""
    async with broker.client(name, **KEPT) as client:
        await client.subscribe("q", qos=qos)
        await client.leave()
    await until(lambda: not any(each.connected for each in broker.engine.sessions()))
    yield


# --- full queues


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", numbers(2, 5)), ("drop_newest", numbers(0, 3))])
async def test_a_full_queue_gives_way_where_it_was_told_to(policy: str, kept: list[bytes]) -> None:
    async with native(max_queued=3, queue_full=policy) as broker, away(broker):
        await publish(broker, *numbers(0, 5))
        assert broker.engine.metrics()["dropped_queue"] == 2
        async with broker.client("s", present=True, **KEPT) as client:
            for payload in kept:
                await client.gets("q", payload, qos=1)
            await client.expect_nothing()
        assert broker.engine.metrics()["queued_bytes"] == 0


@pytest.mark.parametrize("connected", [False, True])
async def test_a_full_queue_ends_its_session_where_it_was_told_to(connected: bool) -> None:
    async with native(max_queued=3, max_inflight=1, queue_full="disconnect") as broker:
        async with broker.client("s", **KEPT) as client:
            await client.subscribe("q", qos=1)
            if not connected:
                await client.leave()
                await until(lambda: not broker.engine.sessions()[0].connected)
            await publish(broker, *numbers(0, 8))
            if connected:
                await client.gets("q", b"0", qos=1, ack=False)
                assert (await client.next()).reason == QUOTA_EXCEEDED
                await client.expect_end()
        await until(lambda: not broker.engine.sessions())
        assert broker.engine.metrics()["queued_bytes"] == 0
        async with broker.client("s", present=False, **KEPT):
            pass


async def test_a_full_queue_of_bytes_gives_way_too() -> None:
    async with native(max_queued_bytes=1000) as broker, away(broker):
        await publish(broker, *(bytes([each]) * 300 for each in range(5)))
        assert broker.engine.metrics()["queued_bytes"] <= 1000
        await publish(broker, b"x" * 2000)  # which never fits
        metrics = broker.engine.metrics()
        assert (metrics["queued_bytes"], metrics["dropped_queue"]) == (909, 3)  # what is there stays


async def test_all_queues_together_are_bounded() -> None:
    async with native(max_queued_bytes_in_all=1000) as broker, away(broker, "a"), away(broker, "b"):
        await publish(broker, *(b"x" * 100 for _ in range(20)))
        assert 800 < broker.engine.metrics()["queued_bytes"] <= 1000
        assert broker.engine.metrics()["dropped_queue"] > 0
        for name in ("a", "b"):
            async with broker.client(name):
                pass
        await until(lambda: not broker.engine.sessions())
        assert broker.engine.metrics()["queued_bytes"] == 0


async def test_one_user_takes_no_more_than_its_part_of_all_queues() -> None:
    async with native(max_queued_bytes_per_username=1000, max_queued_bytes_in_all=3000) as broker:
        for name in ("greedy 1", "greedy 2", "greedy 3", "modest"):
            async with broker.client(name, username=name.split()[0], **KEPT) as client:
                await client.subscribe("modest" if name == "modest" else "q", qos=1)
                await client.leave()
        await until(lambda: not any(each.connected for each in broker.engine.sessions()))
        await publish(broker, *(b"x" * 100 for _ in range(50)))
        assert 800 < broker.engine.metrics()["queued_bytes_of_one"] <= 1000
        dropped = broker.engine.metrics()["dropped_queue"]
        await publish(broker, *(b"x" * 100 for _ in range(8)), topic="modest")
        metrics = broker.engine.metrics()
        assert (metrics["dropped_queue"], metrics["queued_bytes_of_one"]) == (
            dropped,
            metrics["queued_bytes"] - 8 * 108,
        )
        assert await broker.engine.kick("greedy") == 3
        assert broker.engine.metrics()["queued_bytes_of_one"] == 8 * 108


async def test_retained_messages_all_come_however_small_the_queue() -> None:
    async with native(max_queued=10, max_inflight=10) as broker, broker.client("s") as client:
        for number in range(100):
            await broker.engine.publish(Publish(topic=f"r/{number}", payload=b"x", qos=1, retain=True))
        await client.subscribe("r/#", qos=1)
        for _ in range(100):
            await client.acknowledge((await client.next()).packet_id, qos=1)
        assert broker.engine.metrics()["dropped_queue"] == 0


# --- clients that do not read


async def test_a_client_that_does_not_read_is_closed_in_the_end() -> None:
    async with native(write_timeout_s=0.5, max_outgoing_bytes=10_000) as broker, broker.client("s") as slow:
        await slow.subscribe("q")
        slow.writer.transport.pause_reading()
        began = time.monotonic()
        while not broker.engine.metrics()["dropped_slow"]:
            await publish(broker, b"x" * 100_000, qos=0)
            await asyncio.sleep(0)
        async with broker.client("other") as other:  # who is served meanwhile
            await other.subscribe("q")
            await publish(broker, b"y", qos=0)
            await other.gets("q", b"y")
        await until(lambda: broker.engine.metrics()["slow_closed"] == 1)
        assert 0.4 < time.monotonic() - began < 4
        assert broker.engine.metrics()["sessions"] == 0


async def test_a_client_that_reads_again_gets_all_of_qos_1_in_order() -> None:
    async with native(max_outgoing_bytes=10_000) as broker, broker.client("s") as slow:
        await slow.subscribe("q", qos=1)
        slow.writer.transport.pause_reading()
        for number in range(200):
            await publish(broker, b"%d" % number + b"x" * 50_000)
            await asyncio.sleep(0)
        await until(lambda: broker.engine.sessions()[0].queued > 0)
        slow.writer.transport.resume_reading()
        got = []
        for _ in range(200 - broker.engine.metrics()["dropped_queue"]):
            packet = await slow.next()
            got.append(int(packet.rest.rstrip(b"x")))
            await slow.acknowledge(packet.packet_id, qos=1)
        assert got == sorted(set(got))
        assert got[-1] == 199


# --- packet identifiers


async def test_packet_ids_come_round_without_meeting_one_in_use() -> None:
    total = 65_535 + 50
    async with native(max_inflight=500) as broker, broker.client("s", level=4) as client:
        await client.subscribe("q", qos=1)
        await publish(broker, b"x")
        busy = await client.gets("q", b"x", qos=1, ack=False)
        seen = 0
        for beginning in range(0, total, 400):
            count = min(400, total - beginning)
            await publish(broker, *[b"x"] * count)
            raw = await client.reader.readexactly(8 * count)  # each 32 06 00 01 71 id id 78
            ids = [int.from_bytes(raw[at + 5 : at + 7], "big") for at in range(0, 8 * count, 8)]
            assert busy not in ids
            assert 0 not in ids
            assert len(set(ids)) == count
            client.send(b"".join(map(wire.puback, ids)))
            seen += count
        assert seen == total
        await client.acknowledge(busy, qos=1)
        await client.settled()
        assert broker.engine.sessions()[0].inflight == 0


def test_options_without_a_packet_id_left_are_refused() -> None:
    for wrong in ({"max_queued": 70_000}, {"max_queued": 60_000, "max_inflight": 65_535}, {"max_inflight": 0}):
        with pytest.raises(ValueError, match="max_"):
            BrokerOptions(**wrong)


# --- takeover


async def collect(client: Client, got: list[int], half: set[int], *, qos: int) -> None:
    """Take messages and acknowledge them, until the server ends the connection. `half`: begun at QoS 2."""
    with contextlib.suppress(AssertionError, ConnectionError):
        while True:
            packet = await client.next()
            if packet.first & 0xF0 == wire.PUBLISH:
                if packet.packet_id not in half:
                    got.append(int(packet.rest))
                if qos == 2:
                    half.add(packet.packet_id)
                client.send(wire.puback(packet.packet_id) if qos == 1 else wire.pubrec(packet.packet_id))
            elif packet.first == wire.PUBREL:
                half.discard(packet.packet_id)
                client.send(wire.pubcomp(packet.packet_id))


@pytest.mark.parametrize("qos", [1, 2])
async def test_takeovers_lose_nothing_and_double_nothing(qos: int) -> None:
    """The client remembers over its connections, as it must, which messages of QoS 2 it has begun to receive."""
    rounds, got, half = 25, list[int](), set[int]()
    async with native() as broker, contextlib.AsyncExitStack() as connections:
        collecting: asyncio.Task[None] | None = None
        for round_ in range(rounds):
            if collecting:  # its process crashes, and the next one connects before the broker can know
                collecting.cancel()
            client = await connections.enter_async_context(broker.client("s", present=round_ > 0, **KEPT))
            if not round_:
                await client.subscribe("q", qos=qos)
            assert [each.connected for each in broker.engine.sessions()] == [True]
            collecting = asyncio.create_task(collect(client, got, half, qos=qos))
            await publish(broker, *numbers(round_ * 20, round_ * 20 + 20), qos=qos)
            await asyncio.sleep(0.005 * (round_ % 3))
        await until(lambda: len(set(got)) == rounds * 20)
        await until(lambda: not broker.engine.sessions()[0].inflight)
        once = list(dict.fromkeys(got))
        assert once == list(range(rounds * 20))
        assert qos == 1 or got == once
        assert broker.engine.metrics()["takeovers"] == rounds - 1

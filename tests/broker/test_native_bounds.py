"""The native broker's bounds on connections, sessions, topics and rates: what happens at each, and what it counts."""

import asyncio
import time
from typing import Any

import pytest

from broker import Publish
from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, levels, together
from tests.broker.blackbox.native import Native, native
from tests.broker.clients import HOST, RecordingSink, until

QUOTA_EXCEEDED, CONNECTION_RATE_EXCEEDED = 0x97, 0x9F
Metrics = dict[str, Any]


async def is_closed_unheard(port: int | None) -> bool:
    """Whether a new connection is closed at once."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        async with asyncio.timeout(0.2):
            return await reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    finally:
        writer.close()


# --- connections


async def test_connections_over_the_limit_are_closed_until_one_leaves() -> None:
    async with native(max_connections=2) as broker, broker.client("one") as one, broker.client("two"):
        assert await is_closed_unheard(broker.port)
        assert broker.engine.metrics()["refused_connections"] == 1
        await one.leave()
        await until(lambda: broker.engine.metrics()["connections_now"] == 1)
        async with broker.client("three"):
            pass


async def test_connections_of_one_address_over_the_limit_are_closed() -> None:
    async with native(max_connections_per_address=1, ws_port=0) as broker, broker.client("one") as one:
        assert await is_closed_unheard(broker.port)
        assert await is_closed_unheard(broker.engine.ws_port)
        await one.leave()
        await until(lambda: broker.engine.metrics()["connections_now"] == 0)
        async with broker.client("two"):
            pass


async def test_connections_that_say_nothing_leave_room_for_nobody_but_themselves() -> None:
    async with native(max_connecting=2, connect_timeout_s=0.3) as broker, broker.client("in") as inside:
        async with broker.raw("a"), broker.raw("b"):
            await until(lambda: broker.engine.metrics()["connecting"] == 2)
            assert await is_closed_unheard(broker.port)
            await inside.settled()  # who is in is not disturbed
            await until(lambda: broker.engine.metrics()["connecting"] == 0)
        async with broker.client("later"):
            pass


@pytest.mark.parametrize("listener", ["port", "ws_port"])
async def test_one_address_takes_no_more_than_its_part_of_that_room(listener: str) -> None:
    async with native(max_connecting_per_address=2, ws_port=0) as broker, broker.client("in"):
        port = getattr(broker.engine, listener)
        silent = [await asyncio.open_connection(HOST, port) for _ in range(2)]
        await until(lambda: broker.engine.metrics()["connecting"] == 2)
        assert await is_closed_unheard(port)
        assert broker.engine.metrics()["refused_per_address"] == 1
        silent[0][1].close()
        await until(lambda: broker.engine.metrics()["connecting"] == 1)
        async with broker.client("another"):  # as soon as it is let in, it makes room
            assert not await is_closed_unheard(port)
        silent[1][1].close()


@pytest.mark.parametrize("shakes_hands", [False, True])
async def test_a_websocket_without_a_connect_is_closed(shakes_hands: bool) -> None:
    async with native(ws_port=0, connect_timeout_s=0.3) as broker:
        reader, writer = await asyncio.open_connection(HOST, broker.engine.ws_port)
        writer.write(wire_handshake() if shakes_hands else b"GET /mqtt HTTP/1.1\r\nHost: x\r\n")
        async with asyncio.timeout(3):
            got = await reader.read(-1)  # to the end
        assert got.startswith(b"HTTP/1.1 101") == shakes_hands
        writer.close()
        await until(lambda: broker.engine.metrics()["connections_now"] == 0)


def wire_handshake() -> bytes:
    lines = [
        "GET /mqtt HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@levels
async def test_connects_that_come_too_fast_are_refused_until_there_is_room(level: int) -> None:
    async with native(max_connects_per_s=3) as broker:
        refused = 0
        for _ in range(6):
            async with broker.raw(level=level) as client:
                client.send(wire.connect("x", level=level))
                if (code := (await client.next()).reason) != 0:
                    assert code == (CONNECTION_RATE_EXCEEDED if level == 5 else 3)
                    refused += 1
                    await client.expect_end()
        assert refused >= 2
        assert broker.engine.metrics()["rate_refused"] == refused
        await asyncio.sleep(0.4)
        async with broker.client(level=level):
            pass


@pytest.mark.parametrize(("level", "code"), [(4, 3), (5, QUOTA_EXCEEDED)])
async def test_sessions_over_the_limit_push_out_the_one_longest_away(level: int, code: int) -> None:
    kept: Metrics = {"clean": False, **({"session_expiry_interval": 60} if level == 5 else {})}
    async with native(max_sessions=2) as broker:
        for name in ("old", "new"):
            async with broker.client(name, level=level, **kept):
                pass
            await until(lambda: broker.engine.metrics()["connections_now"] == 0)
        async with broker.client("a", level=level, **kept):
            assert [each.client_id[-3:] for each in broker.engine.sessions() if not each.connected] == ["new"]
            async with broker.client("b", level=level, **kept), broker.raw("c", level=level) as third:
                third.send(wire.connect("c", level=level))
                assert (await third.next()).reason == code
                await third.expect_end()
                assert broker.engine.metrics()["sessions"] == 2


async def test_a_user_has_no_more_sessions_than_allowed() -> None:
    async with native(max_sessions_per_username=1) as broker:
        async with broker.client("a", username="u"), broker.raw("b") as second:
            second.send(wire.connect("b", username="u"))
            assert (await second.next()).reason == QUOTA_EXCEEDED
            async with broker.client("c", username="v"):
                pass


# --- keep-alive


async def test_no_client_keeps_silent_longer_than_the_cap() -> None:
    async def silent(broker: Native, level: int, asked_s: int) -> None:
        name = f"s{level}{asked_s}"
        async with broker.client(name, level=level, keepalive_s=asked_s, will=wire.Will("gone")) as client:
            assert client.connack.get("server_keep_alive") == (1 if level == 5 else None)
            await client.ended()

    async with native(keepalive_cap_s=1) as broker:
        wills: list[Publish] = []
        broker.engine.subscribe("gone", wills.append)
        began = time.monotonic()
        await together(*(silent(broker, level, asked_s) for level in (4, 5) for asked_s in (0, 65_535)))
        assert 1.4 < time.monotonic() - began < 4
        assert len(wills) == 4


# --- subscriptions


@levels
async def test_subscriptions_over_the_limit_are_refused_one_by_one(level: int) -> None:
    code = QUOTA_EXCEEDED if level == 5 else 0x80
    async with native(max_subscriptions=2) as broker, broker.client(level=level) as client:
        await client.subscribe("a", "b", "c", granted=(0, 0, code))
        await client.subscribe("b", qos=1)  # one that is there may be replaced
        await client.unsubscribe("a")
        await client.subscribe("c")
        assert broker.engine.metrics()["subscriptions"] == 2
        assert broker.engine.metrics()["refused_subscribes"] == 1


# --- topics that are remembered


async def test_random_topics_are_forgotten_at_the_bound_and_routed_on() -> None:
    limit = 1_000_000
    async with native(max_routes_bytes=limit) as broker, broker.client("s") as listener, broker.client() as client:
        await listener.subscribe("last/#")
        for beginning in range(0, 3000, 100):
            client.send(*(wire.publish(f"random/{number}") for number in range(beginning, beginning + 100)))
            await client.settled()
            assert broker.engine.metrics()["routes"] < limit / 600
        await client.publish("last/one")
        await listener.gets("last/one")


# --- retained messages


async def retain(client: Client, topic: str, payload: bytes = b"x", **values: Any) -> int:
    """The reason code in its PUBACK."""
    client.send(wire.publish(topic, payload, qos=1, packet_id=1, retain=True, **values))
    return (await client.next()).reason


@pytest.mark.parametrize(
    "bound", [{"max_retained": 2}, {"max_retained_per_username": 2}, {"max_retained_bytes": 2500}], ids=str
)
async def test_retained_messages_over_a_bound_are_refused_and_counted(bound: dict[str, int]) -> None:
    payload = b"x" * (300 if "max_retained_bytes" in bound else 1)
    async with native(**bound) as broker, broker.client(username="u") as client:
        assert [await retain(client, name, payload) for name in ("a", "b", "c")] == [0x10, 0x10, QUOTA_EXCEEDED]
        assert await retain(client, "a", payload) == 0x10  # one that is there may be replaced
        assert await retain(client, "b", b"") == 0x10
        assert await retain(client, "c", payload) == 0x10  # and one that was cleared makes room
        metrics = broker.engine.metrics()
        assert (metrics["dropped_retained"], metrics["retained_messages"]) == (1, 2)


async def test_what_is_refused_at_the_bound_goes_to_nobody_and_what_cannot_be_refused_is_routed() -> None:
    """An error says that nothing was done; at QoS 0, and before MQTT 5, there is no way to say it."""
    sink = RecordingSink()
    async with (
        native(max_retained=0, sink=sink) as broker,
        broker.client("s") as listener,
        broker.client("old", level=4) as old,
        broker.client("p") as client,
    ):
        await listener.subscribe("a")
        assert await retain(client, "a", b"refused") == QUOTA_EXCEEDED
        client.send(wire.publish("a", b"qos 0", retain=True))
        await listener.gets("a", b"qos 0")
        old.send(wire.publish("a", b"old", qos=1, packet_id=1, retain=True, level=4))
        await old.accepted(wire.PUBACK, 1)
        await listener.gets("a", b"old")
        assert [message.payload for message in sink.messages] == [b"qos 0", b"old"]
        assert broker.engine.metrics()["dropped_retained"] == 3


async def test_retained_messages_that_have_expired_make_room() -> None:
    async with native(max_retained_per_username=2) as broker, broker.client(username="u") as client:
        for name in ("a", "b"):
            assert await retain(client, name, message_expiry_interval=1) == 0x10
        await asyncio.sleep(1.1)
        assert await retain(client, "c") == 0x10


async def test_ones_own_retained_messages_count_towards_nobody() -> None:
    async with native(max_retained_per_username=1, max_retained=10) as broker:
        for number in range(5):
            await broker.engine.publish(Publish(topic=f"ours/{number}", payload=b"x", retain=True))
        async with broker.client(username="u") as client:
            assert await retain(client, "mine") == 0x10


# --- rates


async def send_too_fast(broker: Native, client: Client, messages: int) -> None:
    client.send(*(wire.publish("a", level=client.level) for _ in range(messages)))
    await until(lambda: broker.engine.metrics()["throttled"] > 0)


async def test_who_publishes_too_fast_is_slowed_alone() -> None:
    async with native(max_publishes_per_s=50) as broker, broker.client("fast") as fast, broker.client("calm") as calm:
        await fast.settled()
        await send_too_fast(broker, fast, 60)  # a burst of 50, and 10 to wait 0.2 s for
        for _ in range(5):
            await calm.publish("b", qos=1)
        began = time.monotonic()
        await fast.settled()
        assert 0.05 < time.monotonic() - began < 3
        assert broker.engine.metrics()["messages_received"] == 65


async def test_connecting_again_gives_no_second_burst() -> None:
    async with native(max_publishes_per_s=50) as broker:
        for turn in range(6):
            kept: Metrics = {"clean": False, "session_expiry_interval": 60, "present": turn > 0}
            async with broker.client(username="u", **kept) as client:
                client.send(*(wire.publish("a") for _ in range(50)))
                await asyncio.sleep(0.02)
        assert broker.engine.metrics()["messages_received"] < 200


async def test_the_time_a_client_is_slowed_is_not_its_silence() -> None:
    async with native(max_publishes_per_s=20) as broker, broker.client(keepalive_s=1) as client:
        await send_too_fast(broker, client, 64)  # 2.2 s to wait
        await client.settled()


# --- the sink


async def test_a_slow_sink_holds_its_publishers_back_by_bytes() -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink, max_undone_bytes=100_000) as broker, broker.client() as client:
        client.send(*(wire.publish("a", b"x" * 10_000, qos=1, packet_id=number + 1) for number in range(100)))
        await until(lambda: len(sink.messages) >= 10)
        await asyncio.sleep(0.1)
        assert len(sink.messages) < 40  # the bound, and what the one read held
        while sink.held:
            sink.release()
            await asyncio.sleep(0.01)
        assert len(sink.messages) == 100


async def test_properties_count_towards_what_a_sink_has_not_taken() -> None:
    sink = RecordingSink(hold=True)
    async with native(sink=sink, max_undone_bytes=100_000) as broker, broker.client() as client:
        large = wire.publish("a", b"", qos=1, user_property=[("k", "x" * 50_000)] * 10)
        client.send(large * 20)
        await asyncio.sleep(0.5)
        assert 0 < len(sink.messages) < 5
        client.writer.transport.abort()  # what it has not sent yet is not for anybody
        assert broker.engine.metrics()["connections_now"] <= 1

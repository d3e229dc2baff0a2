"""13: keep alive, and the server's own (MQTT 5, sections 3.1.2.10 and 3.2.2.3.14; 3.1.1, section 3.1.2.10)."""

import asyncio

import pytest

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client, Subject, kept, levels, mosquitto_differs, pause, together
from tests.broker.blackbox.wire import Will

CAPS_S = {"native": 1, "mosquitto": 10}  # 10 is the least that Mosquitto takes
NATIVE = {"keepalive_cap_s": CAPS_S["native"]}
MOSQUITTO = f"max_keepalive {CAPS_S['mosquitto']}"
MOSQUITTO_LOOKS_EVERY_S = 6


async def seconds_until_closed(client: Client) -> float:
    began = asyncio.get_running_loop().time()
    await client.ended()
    return asyncio.get_running_loop().time() - began


async def test_who_is_silent_is_closed_and_who_is_not_is_not(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-22] [MQTT-3.1.2-8] [MQTT-3.1.2-23]; 3.1.1: [MQTT-3.1.2-24] [MQTT-3.1.2-8] [MQTT-4.1.0-1]"""

    async def silence_closes_it(level: int) -> None:
        async with broker.client(f"a{level}", level=level, keepalive_s=1) as client:
            client.soon_s = 1.5 + MOSQUITTO_LOOKS_EVERY_S
            assert await seconds_until_closed(client) > 1

    async def its_will_is_published(level: int) -> None:
        where = f"{topic}/{level}"
        async with broker.client(f"w{level}", level=level) as watcher:
            await watcher.subscribe(where)
            async with broker.client(f"b{level}", level=level, keepalive_s=1, will=Will(where)):
                for _ in range(int(1.5 + MOSQUITTO_LOOKS_EVERY_S) * 4):
                    if got := await watcher.all_before_pingresp():
                        break
                    await pause(0.25)
                assert [packet.topic for packet in got] == [where]

    async def its_session_is_kept(level: int) -> None:
        async with broker.client(f"s{level}", level=level, **kept(level), keepalive_s=1) as client:
            client.soon_s = 1.5 + MOSQUITTO_LOOKS_EVERY_S
            await client.ended()
        async with broker.client(f"s{level}", level=level, present=True, **kept(level)) as client:
            await client.settled()

    async def pinging_keeps_it(level: int) -> None:
        async with broker.client(f"c{level}", level=level, keepalive_s=1) as client:
            for _ in range(5):
                await pause(0.4)
                await client.settled()

    async def any_other_packet_keeps_it(level: int) -> None:
        async with broker.client(f"d{level}", level=level, keepalive_s=1) as client:
            for qos in (0, 1, 2, 0, 1):
                await pause(0.4)
                client.send(wire.publish(topic, qos=qos, packet_id=9, level=level))
                if qos == 1:
                    await client.accepted(wire.PUBACK, 9)
                if qos == 2:
                    await client.accepted(wire.PUBREC, 9)
            await client.settled()

    await together(
        *[
            sentence(level)
            for level in (3, 4, 5)
            for sentence in (
                silence_closes_it,
                its_will_is_published,
                its_session_is_kept,
                pinging_keeps_it,
                any_other_packet_keeps_it,
            )
        ],
    )


@mosquitto_differs(f"looks only every {MOSQUITTO_LOOKS_EVERY_S - 1} s, and closes without a DISCONNECT")
async def test_silence_of_one_and_a_half_keep_alives_is_enough(broker: Subject, topic: str) -> None:
    """[MQTT-3.1.2-22]; 3.1.1: [MQTT-3.1.2-24]: 0x8D, keep alive timeout; also of who asked for none or for more than
    the server grants, which before MQTT 5 it cannot say [CVE-2020-13849]."""

    async def is_closed_in_time(client: Client) -> None:
        client.soon_s = 2.6
        began = asyncio.get_running_loop().time()
        await client.closed(0x8D)
        assert 1 < asyncio.get_running_loop().time() - began < 2.6

    async def silence(level: int, asked: int) -> None:
        async with broker.client(f"a{level}n{asked}", level=level, keepalive_s=asked) as client:
            await is_closed_in_time(client)

    async def messages_to_it_do_not_count() -> None:
        async with broker.client("b", level=4, keepalive_s=1) as client, broker.client("p", level=4) as publisher:
            await client.subscribe(topic)
            began = asyncio.get_running_loop().time()
            while not client.reader.at_eof():
                assert asyncio.get_running_loop().time() - began < 2.6
                await publisher.publish(topic)
                await client.reader.read(100)
            assert asyncio.get_running_loop().time() - began > 1

    async def a_packet_that_never_ends_does_not_count() -> None:
        async with broker.client("c", level=4, keepalive_s=1) as client:
            client.send(wire.publish(topic, b"x" * 100, level=4)[:50])
            for _ in range(4):
                await pause(0.25)
                client.send(b"x")
            await is_gone_in_time(client)

    async def is_gone_in_time(client: Client) -> None:
        client.soon_s = 1.6
        await client.ended()

    await together(
        *[silence(level, asked) for level in (3, 4, 5) for asked in (0, 1, 10)],
        messages_to_it_do_not_count(),
        a_packet_that_never_ends_does_not_count(),
    )


# --- the server's keep alive


@pytest.mark.parametrize("asked", [11, 3600, 65_535])
async def test_a_longer_keep_alive_is_cut_to_the_servers(broker: Subject, asked: int) -> None:
    """MQTT 5, section 3.2.2.3.14."""
    async with broker.client(keepalive_s=asked) as client:
        assert client.connack.get("server_keep_alive") == CAPS_S[broker.name]


async def test_a_client_that_asks_for_no_keep_alive_gets_the_servers(broker: Subject) -> None:
    """MQTT 5, section 3.2.2.3.14; CVE-2020-13849"""
    async with broker.client(keepalive_s=0) as client:
        assert client.connack.get("server_keep_alive") == CAPS_S[broker.name]


async def test_a_shorter_keep_alive_is_left_to_the_client(broker: Subject) -> None:
    """[MQTT-3.2.2-22]"""
    for asked in (1, CAPS_S[broker.name]):
        async with broker.client(keepalive_s=asked) as client:
            assert client.connack.get("server_keep_alive") in (None, asked)


@levels
@pytest.mark.parametrize("asked", [0, 11, 65_535])
async def test_whatever_the_keep_alive_the_client_is_let_in(broker: Subject, level: int, asked: int) -> None:
    """MQTT 3.1.1, section 3.1.2.10: a server may disconnect a silent client; it cannot say when."""
    async with broker.client(level=level, keepalive_s=asked) as client:
        await client.settled()

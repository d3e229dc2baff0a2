"""What the native broker has acknowledged survives its death: the whole way, from publisher to subscriber.

The broker is a process of its own, which is killed with kill -9 at random moments.
"""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.broker.blackbox import wire
from tests.broker.blackbox.brokers import Client
from tests.broker.broker_child import BrokerChild, broker_child
from tests.broker.test_native_memory import client

KEPT = {"clean": False, "session_expiry_interval": 600}
ROOMY = {"max_queued": 50_000, "max_queued_bytes": 2**27}
SERVER_SHUTTING_DOWN = 0x8B


def store(tmp_path: Path, **options: Any) -> Any:
    return broker_child(persistence=str(tmp_path), **{**ROOMY, **options})


# --- a publisher and a subscriber that behave as MQTT says


@dataclass
class Publisher:
    """Sends numbers, of QoS 1 and 2 in turn, and sends again what it does not know the fate of."""

    number: int = 0
    open: dict[int, bytes] = field(default_factory=dict)
    """By packet identifier, in order: what to send again. The number that was sent is the identifier."""
    acknowledged: set[int] = field(default_factory=set)

    async def run(self, broker: BrokerChild) -> None:
        """Until the connection breaks."""
        with contextlib.suppress(AssertionError, ConnectionError, asyncio.IncompleteReadError):
            async with client(broker, "publisher", present=self.number > 0, **KEPT) as inside:
                inside.send(*self.open.values())
                while True:
                    while len(self.open) < 40:
                        self._send_next(inside)
                    self._take(inside, await inside.next())

    def _send_next(self, inside: Client) -> None:
        self.number += 1
        qos = 1 + self.number % 2
        fields = {"qos": qos, "packet_id": self.number, "retain": self.number % 10 < 2}
        topic, payload = f"q/{qos}/{self.number % 10}", b"%d" % self.number
        inside.send(wire.publish(topic, payload, **fields))
        self.open[self.number] = wire.publish(topic, payload, dup=True, **fields)

    def _take(self, inside: Client, packet: wire.Packet) -> None:
        packet_id = packet.packet_id
        assert packet.reason in (0, 0x10, 0x92)
        if packet.first == wire.PUBREC:
            self.open[packet_id] = wire.pubrel(packet_id)
            inside.send(wire.pubrel(packet_id))
        if packet.first in (wire.PUBACK, wire.PUBREC):
            self.acknowledged.add(packet_id)
        if packet.first in (wire.PUBACK, wire.PUBCOMP):
            del self.open[packet_id]


@dataclass
class Subscriber:
    """Takes numbers, and remembers which ones of QoS 2 it has begun to receive."""

    got: list[int] = field(default_factory=list)
    half: set[int] = field(default_factory=set)

    async def run(self, broker: BrokerChild) -> None:
        with contextlib.suppress(AssertionError, ConnectionError, asyncio.IncompleteReadError):
            async with client(broker, "subscriber", present=True, **KEPT) as inside:
                while True:
                    packet = await inside.next()
                    if packet.first & 0xF0 == wire.PUBLISH:
                        self._take(inside, packet)
                    elif packet.first == wire.PUBREL:
                        self.half.discard(packet.packet_id)
                        inside.send(wire.pubcomp(packet.packet_id))

    def _take(self, inside: Client, packet: wire.Packet) -> None:
        if not packet.first & 0x04:
            self.got.append(int(packet.rest))
            inside.send(wire.puback(packet.packet_id))
            return
        if packet.packet_id not in self.half:
            self.got.append(int(packet.rest))
            self.half.add(packet.packet_id)
        inside.send(wire.pubrec(packet.packet_id))


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(7)
    publisher, subscriber = Publisher(), Subscriber()
    async with store(tmp_path) as broker:
        async with client(broker, "subscriber", **KEPT) as inside:
            await inside.subscribe("q/#", qos=2)
        for round_ in range(15):
            publishing = asyncio.create_task(publisher.run(broker))
            both = chance.random() < 0.6
            taking = asyncio.create_task(subscriber.run(broker)) if both else None
            await asyncio.sleep(0.02 + chance.random() * 0.15)
            await broker.kill()
            await publishing
            if taking:
                await taking
            broker.settings["loop"] = "uvloop" if round_ % 2 else "asyncio"
            await broker.start()
        taking = asyncio.create_task(subscriber.run(broker))
        missing = publisher.acknowledged
        async with asyncio.timeout(20):
            while missing:
                await asyncio.sleep(0.1)
                missing = publisher.acknowledged.difference(subscriber.got)
        await check_retained(broker, publisher)
        taking.cancel()
        await asyncio.wait([taking])
    assert len(publisher.acknowledged) > 300
    for qos in (1, 2):
        got = [number for number in subscriber.got if 1 + number % 2 == qos]
        once = list(dict.fromkeys(got))
        assert once == sorted(once)
        assert qos == 1 or got == once


async def check_retained(broker: BrokerChild, publisher: Publisher) -> None:
    """On each topic the last message that was acknowledged, or one sent after it."""
    async with client(broker, "reader") as reader:
        await reader.subscribe("q/#")
        for packet in await reader.all_before_pingresp():
            last = int(packet.rest)
            assert packet.first == wire.PUBLISH | 0x01
            assert last >= max(number for number in publisher.acknowledged if number % 10 == last % 10)


async def test_what_was_in_flight_comes_again_with_its_packet_id(tmp_path: Path) -> None:
    async with store(tmp_path) as broker, contextlib.AsyncExitStack() as stack:
        inside = await stack.enter_async_context(client(broker, "s", **KEPT))
        await inside.subscribe("q", qos=2)
        async with client(broker, "p") as publisher:
            for number in range(4):
                await publisher.publish("q", b"%d" % number, qos=1 + number % 2)
        ids = [await inside.gets("q", b"%d" % number, qos=1 + number % 2, ack=False) for number in range(4)]
        inside.send(wire.pubrec(ids[1]))
        await inside.expect(wire.pubrel(ids[1]))
        await broker.kill()
        await broker.start()
        async with client(broker, "s", present=True, **KEPT) as again:
            await again.expect(wire.pubrel(ids[1]))
            for number in (0, 2, 3):
                qos = 1 + number % 2
                assert await again.gets("q", b"%d" % number, qos=qos, dup=True, ack=False) == ids[number]
            again.send(wire.puback(ids[0]), wire.pubcomp(ids[1]), wire.puback(ids[2]), wire.pubrec(ids[3]))
            await again.expect(wire.pubrel(ids[3]))
            again.send(wire.pubcomp(ids[3]))
            await again.settled()
            assert (await broker.sessions())[0]["inflight"] == 0


async def test_qos_2_sent_three_times_over_a_reconnect_and_a_restart_is_delivered_once(tmp_path: Path) -> None:
    async with store(tmp_path) as broker:
        async with client(broker, "s", **KEPT) as listener:
            await listener.subscribe("q", qos=2)
        for turn in range(3):
            if turn == 2:
                await broker.kill()
                await broker.start()
            async with client(broker, "p", present=turn > 0, **KEPT) as publisher:
                publisher.send(wire.publish("q", qos=2, packet_id=9, dup=turn > 0))
                await publisher.accepted(wire.PUBREC, 9)
                if turn == 2:
                    await publisher.ask(wire.pubrel(9), wire.pubcomp(9))
        async with client(broker, "s", present=True, **KEPT) as listener:
            await listener.gets("q", qos=2)
            assert await listener.all_before_pingresp() == []


async def test_qos_2_that_the_sink_had_not_taken_is_offered_to_it_again(tmp_path: Path) -> None:
    async with store(tmp_path, sink="never") as broker:
        with contextlib.suppress(AssertionError):
            async with client(broker, "p", **KEPT) as publisher:
                publisher.send(wire.publish("q", b"precious", qos=2, packet_id=9))
                await broker.until(lambda metrics: metrics["persistence_commits"] > 1)
                assert await broker.ask("taken") == ["precious"]
                await broker.kill()
        broker.settings["sink"] = "instant"
        await broker.start()
        async with client(broker, "p", present=True, **KEPT) as publisher:
            publisher.send(wire.publish("q", b"precious", qos=2, packet_id=9, dup=True))
            await publisher.accepted(wire.PUBREC, 9)
            assert await broker.ask("taken") == ["precious"]


async def test_a_session_that_is_to_end_with_its_connection_ends_with_the_broker_too(tmp_path: Path) -> None:
    async with store(tmp_path) as broker:
        async with client(broker, "s", **KEPT) as listener:
            await listener.subscribe("q", qos=2)
            await listener.leave()
        async with client(broker, "p") as publisher:
            await publisher.publish("q", qos=2)
        async with client(broker, "s", clean=False, present=True) as listener:
            await listener.gets("q", qos=2)
            await listener.settled()
            await broker.until(lambda metrics: not metrics["persistence_pending_bytes"])
            await broker.kill()
        await broker.start()
        assert await broker.sessions() == []
        async with client(broker, "s", clean=False) as listener:
            assert await listener.all_before_pingresp() == []


async def test_time_goes_on_while_the_broker_is_dead(tmp_path: Path) -> None:
    """Session expiry, message expiry and will delay."""
    async with store(tmp_path) as broker:
        will = wire.Will("w", b"gone", 1, properties={"will_delay_interval": 5})
        async with client(broker, "s", **KEPT) as listener:
            await listener.subscribe("q", "w", qos=1)
            await listener.leave()
        async with client(broker, "p") as publisher:
            await publisher.publish("q", b"short", qos=1, message_expiry_interval=2)
            await publisher.publish("q", b"long", qos=1, message_expiry_interval=100)
        async with client(broker, "brief", clean=False, session_expiry_interval=5) as brief:
            await brief.leave()
        async with client(broker, "dies", will=will, **KEPT) as dies:
            dies.writer.transport.abort()
        began = time.monotonic()  # 5 s: longer than a busy machine takes to start it again
        # a CONNACK does not wait for the disk: what is killed at once may not know of the last session
        await broker.until(lambda metrics: metrics["sessions_away"] == 3 and metrics["persistence_pending_bytes"] == 0)
        await asyncio.sleep(0.5)
        await broker.kill()
        await asyncio.sleep(1.0)
        await broker.start()
        assert len(await broker.sessions()) == 3
        await broker.until(lambda metrics: metrics["wills"] == 1)
        assert 4.5 < time.monotonic() - began < 9
        await broker.until(lambda metrics: metrics["sessions"] == 2)
        assert 4.5 < time.monotonic() - began < 9
        async with client(broker, "s", present=True, **KEPT) as listener:
            packet = await listener.next()
            assert packet.rest == b"long"
            assert 85 < packet.get("message_expiry_interval") < 99
            listener.send(wire.puback(packet.packet_id))
            await listener.gets("w", b"gone", qos=1)


async def test_what_was_read_at_the_start_is_not_kept_twice(tmp_path: Path) -> None:
    async with store(tmp_path) as broker:
        fresh = await broker.mark()
        async with client(broker, "s", **KEPT) as listener:
            await listener.subscribe("q", qos=1)
            await listener.leave()
        async with client(broker, "p") as publisher:
            for number in range(60):
                await publisher.publish("q", b"%d" % number + b"x" * 500_000, qos=1)
        await broker.stop()
        await broker.start()
        assert (await broker.sessions())[0]["queued"] == 60
        assert await broker.mark() - fresh < 50_000_000


async def test_a_broker_that_is_told_to_stop_says_so_and_keeps_its_sessions(tmp_path: Path) -> None:
    async with store(tmp_path) as broker:
        async with client(broker, "s", **KEPT) as listener, client(broker, "p") as publisher:
            await listener.subscribe("q", qos=1)
            await publisher.publish("q", b"1", qos=1)
            await listener.gets("q", b"1", qos=1, ack=False)
            stopping = asyncio.create_task(broker.stop())
            for each in (listener, publisher):
                await each.closed(SERVER_SHUTTING_DOWN)
            await stopping
        await broker.start()
        assert [each["client_id"] for each in await broker.sessions()] == ["s"]
        async with client(broker, "s", present=True, **KEPT) as listener:
            await listener.gets("q", b"1", qos=1, dup=True)

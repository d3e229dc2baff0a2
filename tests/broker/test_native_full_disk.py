"""The native broker on a disk that is full: whom it holds back, who is served on, and what it costs."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.blackbox import wire
from tests.broker.broker_child import BrokerChild
from tests.broker.test_native_memory import MB, client, flood

KEPT = {"clean": False, "session_expiry_interval": 600}
PAYLOAD = b"x" * 20_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, of which 4 MB can be freed by deleting `ballast`."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("SKIPPED: a full disk is tried on a tmpfs, and only root on Linux can mount one")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"SKIPPED: no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    (path / "ballast").write_bytes(b"x" * 4_000_000)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


async def filled(small_disk: Path) -> tuple[BrokerChild, int]:
    """A broker whose disk is full, and how many messages for an absent client it has acknowledged before."""
    broker = BrokerChild(persistence=str(small_disk), max_queued_bytes=2**27)
    await broker.start()
    async with client(broker, "s", **KEPT) as subscriber:
        await subscriber.subscribe("q", qos=1)
        await subscriber.leave()
    acknowledged = 0
    async with client(broker, "filler", level=4) as publisher:
        while not (await broker.metrics())["persistence_failing"]:
            publisher.send(wire.publish("q", PAYLOAD, qos=1, packet_id=acknowledged + 1, level=4))
            try:
                async with asyncio.timeout(1.0):
                    await publisher.reader.readexactly(4)
            except TimeoutError:
                continue
            acknowledged += 1
            assert acknowledged < 1000
    return broker, acknowledged


async def test_a_full_disk_holds_back_those_who_need_it_alone_and_loses_nothing(small_disk: Path) -> None:
    broker, acknowledged = await filled(small_disk)
    assert acknowledged > 20
    async with client(broker, "listener") as listener, client(broker, "p") as publisher:
        await listener.subscribe("other", qos=1)
        await publisher.publish("other", qos=1)
        await listener.gets("other", qos=1)
        publisher.send(wire.publish("q", PAYLOAD, qos=1, packet_id=77), wire.pingreq())
        await publisher.expect(wire.pingresp())
        await publisher.expect_nothing()
        (small_disk / "ballast").unlink()
        async with asyncio.timeout(10):
            await publisher.accepted(wire.PUBACK, 77)
    assert not (await broker.metrics())["persistence_failing"]
    await broker.kill()
    await broker.start()
    (kept,) = await broker.sessions()
    assert kept["queued"] >= acknowledged + 1  # and the one on which the disk was full
    await broker.stop()
    assert "cannot be written" in broker.log


async def test_a_broker_killed_on_a_full_disk_has_all_it_acknowledged(small_disk: Path) -> None:
    broker, acknowledged = await filled(small_disk)
    await broker.kill()
    (small_disk / "ballast").unlink()
    await broker.start()
    (kept,) = await broker.sessions()
    assert acknowledged <= kept["queued"] <= acknowledged + 1
    await broker.stop()


@pytest.mark.parametrize(
    "packets",
    [
        wire.publish("q", b"x" * 1000, qos=1, level=4),
        wire.publish("q", b"x", qos=2, level=4) + wire.pubrel(1),
        wire.publish("r", b"x" * 1000, retain=True, level=4),
        wire.unsubscribe("nothing", level=4),
    ],
    ids=["qos 1", "qos 2", "retained", "unsubscribe"],
)
async def test_whoever_goes_on_while_the_disk_is_full_is_left_in_the_network(small_disk: Path, packets: bytes) -> None:
    broker, _ = await filled(small_disk)
    before = await broker.mark()
    hello = wire.connect("greedy", level=4, clean=False)
    await flood(broker.port, hello, packets * (4 * MB // len(packets)), seconds=1.5)
    assert await broker.peak() - before < 16 * MB
    (small_disk / "ballast").unlink()
    await broker.stop()

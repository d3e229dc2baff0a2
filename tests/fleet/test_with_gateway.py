"""The fleet behind a real gateway: what the parts promise each other holds when they are joined."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from fleet.fleet import Fleet
from fleet.options import FleetOptions
from gateway.bus import Bus
from gateway.gateway import Gateway, GatewayOptions
from gateway.links.memory import MemoryLink
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from tests.fleet.conftest import ANNA


@pytest.fixture
async def joined(tmp_path: Path, sqlite_url: str) -> AsyncIterator[tuple[Fleet, Gateway, MemoryLink]]:
    bus, link = Bus(), MemoryLink()
    fleet = Fleet(FleetOptions(data_dir=tmp_path, database_url=sqlite_url), bus=bus)
    store = EmbeddedStore(EmbeddedOptions(directory=tmp_path / "store"))
    gateway = Gateway(GatewayOptions(data_dir=tmp_path), store=store, links=[link], bus=bus)
    await fleet.start(gateway)
    await gateway.start(fleet, fleet.inbox)
    yield fleet, gateway, link
    await gateway.stop()
    await fleet.stop()


async def test_from_a_command_to_its_answer_and_a_refused_message(
    joined: tuple[Fleet, Gateway, MemoryLink],
) -> None:
    fleet, gateway, link = joined
    await fleet.devices.create(ANNA, id="pump-7")
    device = link.device("pump-7")
    device.connect()
    await fleet.presence.flush()
    command = await fleet.commands.create(ANNA, "pump-7", "reboot")
    assert any(each.channel == f"commands/{command.id}" for each in device.received)
    outcome = await device.publish(f"commands/{command.id}/status", {"status": "succeeded"})
    assert not outcome.code.is_error
    assert (await fleet.commands.get(command.id)).status == "succeeded"
    assert (await device.publish("events", b"{")).reason == "invalid_json"
    assert not (await device.publish("telemetry", {"temperature": 21.5})).code.is_error
    await fleet.timeline.flush()
    kinds = [entry.kind for entry in (await fleet.timeline.list("pump-7")).items]
    assert "message_refused" in kinds
    assert "connected" in kinds
    assert (await gateway.history.latest("pump-7"))["temperature"][1] == 21.5


async def test_a_deleted_device_is_gone_everywhere(joined: tuple[Fleet, Gateway, MemoryLink]) -> None:
    fleet, gateway, link = joined
    await fleet.devices.create(ANNA, id="pump-7")
    device = link.device("pump-7")
    device.connect()
    await device.publish("telemetry", {"temperature": 21.5})
    await device.publish("events", b"{")
    await fleet.devices.delete(ANNA, "pump-7")
    assert not device.is_connected
    assert await gateway.history.latest("pump-7") == {}
    assert await gateway.dead_letters.count("pump-7") == 0
    device.connect()
    assert (await device.publish("events", {"message": "still here"})).reason == "unknown_device"


async def test_the_twin_is_given_to_who_asks(joined: tuple[Fleet, Gateway, MemoryLink]) -> None:
    fleet, _, link = joined
    await fleet.devices.create(ANNA, id="pump-7")
    device = link.device("pump-7")
    device.connect()
    await fleet.twins.patch_desired(ANNA, "pump-7", {"speed": 3})
    await device.publish("twin/get", b"")
    twins = [orjson.loads(each.payload) for each in device.received if each.channel == "twin"]
    assert twins == [{"desired": {"speed": 3}, "reported": {}, "version": 2}]

"""Profiles in the fleet: kept, in force at once, and what the gateway makes of messages by them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound, PreconditionFailed
from fleet.fleet import Fleet
from fleet.models import ProfileRow
from fleet.options import FleetOptions
from fleet.profiles import Profiles
from gateway.bus import Bus
from gateway.gateway import Gateway, GatewayOptions
from gateway.links.memory import MemoryLink
from gateway.profiles.document import Profile
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from tests.fleet.conftest import ANNA, Rig


def profile(name: str = "pump", retention_days: int | None = None, **telemetry: Any) -> Profile:
    return Profile.model_validate({"name": name, "retention_days": retention_days, "telemetry": telemetry})


BINARY = {"fields": [{"type": "i16", "metric": "temperature", "scale": 0.01}]}
UNITS = {"temperature": {"unit": "Cel", "max": 100}}


async def test_profiles_are_kept_changed_and_deleted_with_their_audit(rig: Rig) -> None:
    fleet = rig.fleet
    made = await fleet.profiles.create(ANNA, profile(binary=BINARY))
    assert (made.version, made.devices) == (1, 0)
    with pytest.raises(AlreadyExists):
        await fleet.profiles.create(ANNA, profile())
    changed = await fleet.profiles.replace(ANNA, profile(metrics=UNITS), if_version=1)
    assert changed.version == 2
    assert (await fleet.profiles.get("pump")).profile == profile(metrics=UNITS)
    with pytest.raises(PreconditionFailed):
        await fleet.profiles.replace(ANNA, profile(), if_version=1)
    with pytest.raises(PreconditionFailed):
        await fleet.profiles.delete(ANNA, "pump", if_version=1)
    await fleet.profiles.delete(ANNA, "pump", if_version=2)
    with pytest.raises(NotFound):
        await fleet.profiles.get("pump")
    with pytest.raises(NotFound):
        await fleet.profiles.replace(ANNA, profile())
    actions = [entry.action for entry in (await fleet.audit.list(target_kind="profile")).items]
    assert actions == ["profile.delete", "profile.update", "profile.create"]


async def test_profiles_are_listed_by_name_page_by_page(rig: Rig) -> None:
    fleet = rig.fleet
    for name in ("c", "a", "b"):
        await fleet.profiles.create(ANNA, profile(name))
    first = await fleet.profiles.list(limit=2)
    assert [one.profile.name for one in first.items] == ["a", "b"]
    rest = await fleet.profiles.list(limit=2, cursor=first.next_cursor)
    assert ([one.profile.name for one in rest.items], rest.next_cursor, rest.total) == (["c"], None, 3)


async def test_a_profile_in_use_is_deleted_by_force_only(rig: Rig) -> None:
    fleet = rig.fleet
    await fleet.profiles.create(ANNA, profile(metrics=UNITS))
    await fleet.devices.create(ANNA, id="d", profile="pump")
    with pytest.raises(Conflict, match="1 device names"):
        await fleet.profiles.delete(ANNA, "pump")
    await fleet.profiles.delete(ANNA, "pump", force=True)
    assert fleet.profiles.of("d") is None


async def test_what_is_in_force_follows_devices_and_profiles_at_once(rig: Rig) -> None:
    fleet = rig.fleet
    await fleet.devices.create(ANNA, id="d", profile="pump")
    assert fleet.profiles.of("d") is None
    await fleet.profiles.create(ANNA, profile(retention_days=7, metrics={"t": {"unit": "Cel"}}))
    compiled = fleet.profiles.of("d")
    assert compiled is not None
    assert compiled.units == {"t": "Cel"}
    assert fleet.profiles.reader_of("d") is None
    await fleet.profiles.replace(ANNA, profile(binary=BINARY))
    assert fleet.profiles.reader_of("d") is fleet.profiles.of("d") is not compiled
    await fleet.devices.update(ANNA, "d", profile="")
    assert fleet.profiles.of("d") is None


async def test_retention_is_the_devices_own_or_its_profiles(rig: Rig) -> None:
    fleet = rig.fleet
    await fleet.profiles.create(ANNA, profile(retention_days=7))
    await fleet.devices.create(ANNA, id="d", profile="pump")
    assert fleet.retention_days_of("d") == 7
    assert (await fleet.devices.update(ANNA, "d", retention_days=30)).retention_days == 30
    assert fleet.retention_days_of("d") == 30
    assert (await fleet.devices.update(ANNA, "d", retention_days=0)).retention_days is None
    assert fleet.retention_days_of("d") == 7
    with pytest.raises(Invalid, match="retention_days"):
        await fleet.devices.update(ANNA, "d", retention_days=40_000)
    await fleet.devices.delete(ANNA, "d")
    assert fleet.retention_days_of("d") is None


async def test_another_reading_of_the_database_finds_the_same(rig: Rig) -> None:
    fleet = rig.fleet
    await fleet.profiles.create(ANNA, profile(retention_days=7, binary=BINARY))
    await fleet.profiles.create(ANNA, profile("gone"))
    await fleet.devices.create(ANNA, id="d", profile="pump")
    await fleet.devices.create(ANNA, id="e", profile="gone")
    await fleet.devices.update(ANNA, "e", retention_days=3)
    before = fleet.profiles.of("d")
    await fleet.profiles.load()
    assert fleet.profiles.of("d") is before is not None
    assert (fleet.retention_days_of("d"), fleet.retention_days_of("e")) == (7, 3)


async def test_another_node_sees_a_profile_that_was_deleted_and_made_again(rig: Rig) -> None:
    fleet = rig.fleet
    await fleet.profiles.create(ANNA, profile(metrics={"t": {"unit": "Cel"}}))
    await fleet.devices.create(ANNA, id="d", profile="pump")
    other = Profiles(database=fleet.database, audit=fleet.audit, clock=rig.clock)
    await other.load()
    await fleet.profiles.delete(ANNA, "pump", force=True)
    rig.clock.move(1)
    await fleet.profiles.create(ANNA, profile(metrics={"t": {"unit": "[degF]"}}))
    await other.load()
    compiled = other.of("d")
    assert compiled is not None
    assert compiled.units == {"t": "[degF]"}
    await fleet.database.execute("DELETE FROM profile WHERE name = ?", ["gone"])
    await fleet.profiles.load()
    assert fleet.profiles.of("e") is None


# ---- behind a gateway


@pytest.fixture
async def joined(tmp_path: Path, sqlite_url: str) -> AsyncIterator[tuple[Fleet, Gateway, MemoryLink]]:
    bus, link = Bus(), MemoryLink()
    fleet = Fleet(FleetOptions(data_dir=tmp_path, database_url=sqlite_url), bus=bus)
    gateway = Gateway(
        GatewayOptions(data_dir=tmp_path),
        store=EmbeddedStore(EmbeddedOptions(directory=tmp_path / "store"), retention_of=fleet.retention_days_of),
        links=[link],
        bus=bus,
        profile_of=fleet.profiles.reader_of,
    )
    await fleet.start(gateway)
    await gateway.start(fleet, fleet.inbox)
    yield fleet, gateway, link
    await gateway.stop()
    await fleet.stop()


async def test_bytes_become_readings_by_the_profile(joined: tuple[Fleet, Gateway, MemoryLink]) -> None:
    fleet, gateway, link = joined
    await fleet.devices.create(ANNA, id="d", profile="pump")
    device = link.device("d")
    device.connect()
    assert (await device.publish("telemetry/binary", b"\x08\x69")).reason == "unsupported_content_type"
    await fleet.profiles.create(ANNA, profile(binary=BINARY))
    assert not (await device.publish("telemetry/binary", b"\x08\x69")).code.is_error
    assert (await gateway.history.latest("d"))["temperature"][1] == 21.53
    outcome = await device.publish("telemetry/binary", b"\x08")
    assert (outcome.reason, outcome.detail) == ("binary_mismatch", "1 bytes, the layout has 2 bytes")


async def test_a_mended_profile_takes_the_next_message(joined: tuple[Fleet, Gateway, MemoryLink]) -> None:
    fleet, gateway, link = joined
    await fleet.profiles.create(ANNA, profile(schema={"properties": {"t": {"maximum": 50}}}))
    await fleet.devices.create(ANNA, id="d", profile="pump")
    device = link.device("d")
    device.connect()
    assert (await device.publish("telemetry", {"t": 51})).reason == "schema_violation"
    (letter,) = await gateway.dead_letters.list("d")
    assert (letter.reason, letter.detail) == ("schema_violation", "/t: 51 is greater than the maximum of 50")
    await fleet.profiles.replace(ANNA, profile(schema={"properties": {"t": {"maximum": 60}}}))
    assert not (await device.publish("telemetry", {"t": 51})).code.is_error
    assert (await gateway.history.latest("d"))["t"][1] == 51


async def test_a_metric_that_does_not_fit_is_refused_alone(joined: tuple[Fleet, Gateway, MemoryLink]) -> None:
    fleet, gateway, link = joined
    await fleet.profiles.create(ANNA, profile(metrics=UNITS))
    await fleet.devices.create(ANNA, id="d", profile="pump")
    device = link.device("d")
    device.connect()
    outcome = await device.publish("telemetry", {"temperature": 101, "level": 3})
    assert not outcome.code.is_error
    assert outcome.data["refused"][0]["reason"] == "out_of_range"
    assert set(await gateway.history.latest("d")) == {"level"}
    assert (await device.publish("telemetry", {"temperature": 101})).reason == "out_of_range"
    assert gateway.stats().refused == {"out_of_range": 2}


@pytest.mark.parametrize(
    ("document", "known"),
    [
        ('{"name": "pump", "description": "by 2.0", "telemetry": {}, "novelty": 1}', "by 2.0"),
        ('{"name": "pump", "description": ["by 3.0"]}', ""),
        ("[1]", ""),
        ("{", ""),
    ],
)
async def test_a_profile_of_a_newer_node_is_listed_and_deleted_but_not_overwritten(
    rig: Rig, document: str, known: str
) -> None:
    profiles = rig.fleet.profiles
    await profiles.create(ANNA, profile())
    await ProfileRow.filter(name="pump").update(document=document)
    await profiles.load()
    (found,) = (await profiles.list()).items
    assert (found.profile.name, found.profile.description, found.is_readable) == ("pump", known, False)
    assert await profiles.get("pump") == found
    with pytest.raises(Conflict, match="newer"):
        await profiles.replace(ANNA, profile())
    await profiles.delete(ANNA, "pump")
    assert (await profiles.list()).items == []

"""How long lists, queries and groups of a large fleet take: 100,000 devices in SQLite, medians of the rounds."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from fleet.actor import SYSTEM
from fleet.clock import SystemClock, rfc3339
from fleet.database import Database
from fleet.fleet import Fleet
from fleet.options import FleetOptions
from fleet.page import encode_cursor
from fleet.query.leaves import leaves
from fleet.query.versions import version_key
from fleet.views import DeviceStatus
from gateway.bus import Bus

DEVICES = 100_000
LIST_BOUND_MS, GROUP_BOUND_MS = 50, 100
_SITES, _PROFILES = "ABCDEFGHIJKLMNOPQRST", ("pump", "fan", "tank", "meter")
_VERSIONS = ("1.0.0", "1.9.2", "1.10.0", "2.0.0-rc1", "2.0.0", "2.1.0")


async def seed(database: Database, count: int) -> None:
    """Devices of 20 sites, four profiles and six versions; a third of them offline."""
    chance, now = random.Random(1), SystemClock().utc()
    devices, tags, attributes = [], [], []
    for n in range(count):
        id_, site, firmware = f"device-{n:07}", chance.choice(_SITES), chance.choice(_VERSIONS)
        status = chance.choice((DeviceStatus.ONLINE, DeviceStatus.ONLINE, DeviceStatus.OFFLINE)).value
        own = {"floor": chance.randrange(20), "serial": f"S{chance.randrange(10**9):09}"}
        names = [f"site={site}", *(["outdoor"] if n % 10 == 0 else [])]
        tags += [(tag, id_) for tag in names]
        attributes += [(id_, leaf.path, leaf.value, leaf.number) for leaf in leaves(own)]
        devices.append(
            (
                id_,
                f"{chance.choice(_PROFILES)} {n}",
                chance.choice(_PROFILES),
                orjson.dumps(names).decode(),
                orjson.dumps(own).decode(),
                status,
                status,
                False,
                now - timedelta(seconds=chance.randrange(86_400)),
                "",
                "",
                firmware,
                version_key(firmware),
                "",
                1,
                now,
                now,
            )
        )
    columns = "id name profile tags attributes status presence disabled last_seen_at address link firmware firmware_key"
    await database.insert("device", f"{columns} target_firmware version created_at updated_at".split(), devices)
    await database.insert("device_tag", ("tag", "device_id"), tags)
    await database.insert("device_attribute", ("device_id", "path", "value", "number"), attributes)


def run(rounds: int, *, docs: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        asyncio.run(_run(Path(directory), rounds))


async def _run(directory: Path, rounds: int) -> None:
    database = Database(f"sqlite://{directory}/fleet.db")
    await database.open()
    begun = time.perf_counter()
    await seed(database, DEVICES)
    await database.execute("ANALYZE", ())
    print(f"\nfleet: {DEVICES:,} devices seeded in {time.perf_counter() - begun:.1f} s")
    fleet = Fleet(FleetOptions(data_dir=directory / "unused"), bus=Bus())
    # The services alone, on this database: nothing is started that would work beside them.
    fleet.devices._selections._database = database
    fleet.groups._database = database
    group = await fleet.groups.create(
        SYSTEM, name="north", query="tags.site = A and firmware < 2.0 and status = offline"
    )
    listed = await fleet.groups.create(SYSTEM, name="listed")
    await fleet.groups.add(SYSTEM, listed.id, [f"device-{n:07}" for n in range(0, 50_000, 50)])
    first = await fleet.devices.list(sort="-last_seen")
    middle = encode_cursor("device-0050000", "device-0050000")
    ago = rfc3339(SystemClock().utc() - timedelta(hours=2))
    for name, bound_ms, wanted in (
        ("first page", LIST_BOUND_MS, {}),
        ("page in the middle", LIST_BOUND_MS, {"cursor": middle}),
        ("sorted by last seen, page 2", LIST_BOUND_MS, {"sort": "-last_seen", "cursor": first.next_cursor}),
        ("status, sorted by name", LIST_BOUND_MS, {"status": "offline", "sort": "name"}),
        ("tag", LIST_BOUND_MS, {"tag": "site=A"}),
        (
            "query: one site, old, offline",
            LIST_BOUND_MS,
            {"query": 'status=offline and tags.site="A" and firmware<2.0'},
        ),
        ("query: an attribute", LIST_BOUND_MS, {"query": "attributes.floor = 3 and profile = pump"}),
        ("query: heard of lately", LIST_BOUND_MS, {"query": f'last_seen > "{ago}"'}),
        ("search", LIST_BOUND_MS, {"q": "S00012"}),
        ("a dynamic group", GROUP_BOUND_MS, {"group": group.id}),
        ("a static group of 1,000", GROUP_BOUND_MS, {"group": listed.id}),
    ):
        await _show(name, bound_ms, rounds, lambda wanted=wanted: fleet.devices.list(**wanted))
    await database.close()


async def _show(name: str, bound_ms: int, rounds: int, ask: Callable[[], Awaitable[Any]]) -> None:
    taken_ms = []
    for _ in range(rounds):
        begun = time.perf_counter()
        page = await ask()
        taken_ms.append((time.perf_counter() - begun) * 1_000)
    print(f"  {name:30} {statistics.median(taken_ms):6.1f} ms of {bound_ms:3}   ({page.total:,} devices)")

"""The schema: migrated, compared with the models, backed up, refused when it is newer."""

import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from tortoise.context import TortoiseContext
from tortoise.exceptions import IntegrityError
from tortoise.migrations.autodetector import MigrationAutodetector

from fleet import database as database_module
from fleet.database import Database, tortoise_config
from fleet.errors import SetupError
from fleet.models import DeviceRow, DeviceTagRow
from tests.fleet.conftest import ANNA, Rig, running
from tests.servers import Server


async def test_a_fresh_database_is_migrated_and_private(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "") as rig:
        await rig.device()
    assert stat.S_IMODE((tmp_path / "data" / "fleet.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "jwt.key").stat().st_mode) == 0o600


async def test_the_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    migrated, generated = tmp_path / "migrated.db", tmp_path / "generated.db"
    await Database(f"sqlite://{migrated}").migrate()
    async with TortoiseContext() as context:
        await context.init(config=tortoise_config(f"sqlite://{generated}"))
        await context.generate_schemas()
    assert _schema(migrated) == _schema(generated)


async def test_no_model_has_changed_without_a_migration() -> None:
    config = tortoise_config("sqlite://:memory:")
    async with TortoiseContext() as context:
        await context.init(config=config)
        assert context.apps is not None
        detector = MigrationAutodetector(context.apps, config["apps"])
        assert not [migration for migration in await detector.changes() if migration]


async def test_a_database_that_is_newer_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path, ""):
        pass
    with closing(sqlite3.connect(tmp_path / "fleet.db")) as database:
        database.execute("INSERT INTO tortoise_migrations (app, name, applied_at) VALUES ('fleet', '9999_x', '2030')")
        database.commit()
    with pytest.raises(SetupError, match="newer"):
        async with running(tmp_path, ""):
            pass


async def test_a_migration_that_rebuilds_a_table_loses_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "data", "") as rig:
        await rig.device(tags=["north"])
        await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    package = tmp_path / "migrations_ahead"
    package.mkdir()
    (package / "__init__.py").touch()
    known = sorted((Path(database_module.__file__).parent / "migrations").glob("0*.py"))
    for file in known:
        shutil.copy(file, package)
    (package / "9999_longer_names.py").write_text(_LONGER_NAMES.replace("NEWEST", known[-1].stem))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(database_module, "MIGRATIONS", "migrations_ahead")
    path = tmp_path / "data" / "fleet.db"
    assert await Database(f"sqlite://{path}").migrate() == ["9999_longer_names"]
    assert await Database(f"sqlite://{path}").migrate() == []
    backup = path.with_name("fleet.db.before-9999_longer_names")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    for file in (path, backup):
        with closing(sqlite3.connect(file)) as database:
            for table in ("device", "credential", "device_tag", "command", "twin"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,), (file, table)


async def test_devices_of_before_are_found_by_attributes_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "migrations_before"
    package.mkdir()
    (package / "__init__.py").touch()
    for file in sorted((Path(database_module.__file__).parent / "migrations").glob("000[1-4]_*.py")):
        shutil.copy(file, package)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "data" / "fleet.db"
    path.parent.mkdir()
    with monkeypatch.context() as before:
        before.setattr(database_module, "MIGRATIONS", "migrations_before")
        await Database(f"sqlite://{path}").migrate()
    with closing(sqlite3.connect(path)) as database:
        columns = "id, name, profile, tags, attributes, status, presence, disabled, last_seen_at, address, link"
        database.executemany(
            f"INSERT INTO device ({columns}, firmware, target_firmware, version, created_at, updated_at) VALUES "
            "(?, ?, '', '[]', '{\"floor\": 3}', 'offline', 'offline', 0, '2026-01-01 00:00:00+00:00', '', '', "
            "?, '', 1, '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')",
            [(f"d{n:04}", f"d{n}", "1.10" if n == 1_500 else "") for n in range(2_001)],
        )
        database.commit()
    async with running(tmp_path / "data", "") as rig:
        assert (await rig.fleet.devices.list(query="attributes.floor = 3")).total == 2_001
        found = await rig.fleet.devices.list(query="firmware > 1.9")
        assert [each.id for each in found.items] == ["d1500"]


async def test_deleting_a_device_takes_its_rows_along(rig: Rig) -> None:
    await rig.device(tags=["north"])
    await rig.fleet.commands.create(ANNA, "pump-7", "reboot")
    await rig.fleet.devices.delete(ANNA, "pump-7")
    assert await DeviceTagRow.all().count() == 0


async def test_a_failing_transaction_leaves_nothing(rig: Rig) -> None:
    await rig.device("a")
    with pytest.raises(IntegrityError):
        async with rig.fleet.database.transaction():
            await DeviceRow.filter(id="a").update(name="changed")
            await DeviceTagRow.create(device_id="nobody", tag="x")
    assert (await rig.fleet.devices.get("a")).name == "a"


async def test_two_nodes_that_start_at_once_migrate_one_after_the_other(postgres: Server) -> None:
    import asyncio

    import asyncpg

    connection = await asyncpg.connect(postgres.url)
    await connection.execute("CREATE DATABASE fleet_race")
    await connection.close()
    url = postgres.url.rpartition("/")[0] + "/fleet_race"
    applied = await asyncio.gather(Database(url).migrate(), Database(url).migrate())
    assert sorted(len(names) for names in applied) == [0, len(applied[0]) or len(applied[1])]


async def test_an_unknown_kind_of_database_is_refused() -> None:
    with pytest.raises(SetupError, match="mysql"):
        Database("mysql://localhost/fleet")


_LONGER_NAMES = """
from tortoise import fields, migrations
from tortoise.migrations import operations as ops

class Migration(migrations.Migration):
    dependencies = [("fleet", "NEWEST")]
    operations = [ops.AlterField(model_name="DeviceRow", name="name", field=fields.CharField(max_length=200))]
"""


def _schema(path: Path) -> dict[str, object]:
    """Tables with their columns, keys and indexes, whatever the statements look like."""
    with closing(sqlite3.connect(path)) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            if name not in ("tortoise_migrations", "sqlite_sequence")
        ]
        schema: dict[str, object] = {}
        for table in tables:
            columns = sorted(row[1:] for row in database.execute(f"PRAGMA table_info('{table}')"))
            keys = sorted(row[2:] for row in database.execute(f"PRAGMA foreign_key_list('{table}')"))
            indexes = sorted(
                (row[2], tuple(each[2] for each in database.execute(f"PRAGMA index_info('{row[1]}')")))
                for row in database.execute(f"PRAGMA index_list('{table}')")
            )
            schema[table] = (columns, keys, indexes)
        return schema

"""The audit's chain: written with each change, and whatever is done to the table is found."""

import asyncio
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet import database as database_module
from fleet.audit import Audit
from fleet.audit_chain import COLUMNS, FAULTS_LIMIT, GENESIS, START, Mark, Walk, link_of, parse_mark
from fleet.database import Database
from fleet.models import AuditRow
from tests.fleet.conftest import ANNA, MovableClock, Rig, running
from tests.servers import Server


async def _entries(rig: Rig, count: int = 5) -> Mark:
    for number in range(count):
        await rig.fleet.audit.record(ANNA, "device.update", "device", f"d{number}", {"name": "a"}, {"name": "ä\r\n"})
    return await rig.fleet.audit.head()


async def _do(rig: Rig, statement: str, *values: object) -> None:
    await rig.fleet.database.client.execute_query(statement, list(values))


async def test_each_change_is_an_entry_that_follows_the_one_before(rig: Rig) -> None:
    await rig.device("a")
    await rig.device("b")
    rows = await AuditRow.all().order_by("seq")
    assert [row.seq for row in rows] == [1, 2]
    assert (rows[0].prev, rows[1].prev) == (GENESIS, rows[0].digest)
    report = await rig.fleet.audit.verify()
    assert (report.ok, report.entries, report.head, report.anchor) == (True, 2, await rig.fleet.audit.head(), START)
    assert report.head == Mark(seq=2, digest=rows[1].digest or "")


async def test_an_empty_audit_is_in_order(lite: Rig) -> None:
    report = await lite.fleet.audit.verify()
    assert report.ok
    assert report.entries == 0
    assert str(report.head) == f"0:{GENESIS}"


async def test_a_change_that_is_rolled_back_leaves_no_entry_and_no_gap(rig: Rig) -> None:
    async def failing(number: int) -> None:
        async with rig.fleet.database.transaction():
            await rig.fleet.audit.record(ANNA, "device.update", "device", f"d{number}")
            raise RuntimeError

    await rig.device("a")
    answers = await asyncio.gather(*(failing(number) for number in range(5)), return_exceptions=True)
    assert all(isinstance(answer, RuntimeError) for answer in answers)
    async with rig.fleet.database.transaction():
        with pytest.raises(RuntimeError):
            await failing(9)
        await rig.fleet.audit.record(ANNA, "device.update", "device", "kept")
    assert [row.target_id for row in await AuditRow.all().order_by("seq")] == ["a", "kept"]
    assert (await rig.fleet.audit.verify()).ok


async def test_many_writers_at_once_make_one_chain(rig: Rig) -> None:
    await asyncio.gather(*(rig.device(f"d{number}") for number in range(30)))
    report = await rig.fleet.audit.verify()
    assert report.ok
    assert report.entries == 30


async def test_a_writer_at_work_does_not_disturb_a_walk(rig: Rig) -> None:
    async def write() -> None:
        for number in range(20):
            await rig.fleet.audit.record(ANNA, "x", "device", str(number))

    async def walk() -> bool:
        return all([(await rig.fleet.audit.verify()).ok for _ in range(10)])

    _, ok = await asyncio.gather(write(), walk())
    assert ok


_OTHER: dict[str, object] = {
    "seq": 99,
    "prev": "0" * 64,
    "digest": "f" * 64,
    "id": "01JD2Z4K8X0000000000000000",
    "actor_kind": "system",
    "actor_id": "eve",
    "actor_address": "203.0.113.1",
    "action": "device.delete",
    "target_kind": "user",
    "target_id": "other",
    "before": '{"name":"b"}',
    "after": None,
}


async def test_an_edit_of_any_column_of_any_entry_is_found(rig: Rig) -> None:
    await _entries(rig, 3)
    kept = await rig.fleet.database.execute("SELECT * FROM audit ORDER BY seq", ())
    assert set(COLUMNS) == set(kept[0]) == set(_OTHER) | {"at"}
    for row in kept:
        for column, value in _OTHER.items():
            if row[column] == value:
                value = "1" * 64
            place = ("$1", "$2") if rig.fleet.database.is_postgres else ("?", "?")
            key = "id" if column != "id" else "seq"
            change = f"UPDATE audit SET {column} = {place[0]} WHERE {key} = {place[1]}"
            await _do(rig, change, value, row[key])
            assert not (await rig.fleet.audit.verify()).ok, (row["seq"], column)
            await _do(rig, change, row[column], row[key])
        await AuditRow.filter(id=row["id"]).update(at=rig.clock.utc().replace(year=2020))
        assert not (await rig.fleet.audit.verify()).ok, (row["seq"], "at")
        await AuditRow.filter(id=row["id"]).update(at=rig.clock.utc())
    assert (await rig.fleet.audit.verify()).ok


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["DELETE FROM audit WHERE seq = 1"], "entry 1 is missing"),
        (["DELETE FROM audit WHERE seq IN (2, 3)"], "entries 2 to 3 are missing"),
        (["DELETE FROM audit WHERE seq = 5"], "entry 5 is missing at the end"),
        (["DELETE FROM audit"], "entries 1 to 5 are missing at the end"),
        (
            [
                "UPDATE audit SET seq = 100 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = 100",
            ],
            "was changed",
        ),
        (["UPDATE audit SET seq = NULL WHERE seq = 5"], "outside the chain"),
        (["UPDATE audit SET seq = 7 WHERE seq = 5"], "outside the chain"),
        (["UPDATE audit_chain SET head_seq = 4"], "is not what the chain's head says"),
        (["DELETE FROM audit_chain"], "5 entries are outside the chain"),
        (["DELETE FROM audit WHERE seq <= 2", "UPDATE audit_chain SET anchor_seq = 2"], "does not follow"),
        (
            [
                "UPDATE audit_chain SET anchor_seq = 2, anchor_digest = (SELECT digest FROM audit WHERE seq = 2)",
                "DELETE FROM audit WHERE seq <= 2",
            ],
            "no entry says that the older ones were dropped",
        ),
    ],
)
async def test_deleting_reordering_and_cutting_is_found(rig: Rig, statements: list[str], says: str) -> None:
    await _entries(rig)
    for statement in statements:
        await _do(rig, statement)
    report = await rig.fleet.audit.verify()
    assert not report.ok
    assert any(says in fault.detail for fault in report.faults), report.faults


async def test_an_entry_of_a_strange_hand_is_found(rig: Rig) -> None:
    await _entries(rig, 1)
    await AuditRow.create(
        id="Z", at=rig.clock.utc(), actor_kind="user", actor_id="anna", action="x", target_kind="y", target_id="z"
    )
    [fault] = (await rig.fleet.audit.verify()).faults
    assert "1 entries are outside the chain" in fault.detail


async def test_values_that_no_column_should_hold_are_a_finding_and_no_failure(lite: Rig) -> None:
    for column, value in (("at", "'yesterday'"), ("seq", "'two'"), ("before", "x'ff'"), ("actor_id", "7.5")):
        await _entries(lite, 3)
        head = await lite.fleet.audit.head()
        # SQLite keeps what it is given.
        await _do(lite, f"UPDATE audit SET {column} = {value} WHERE seq = {head.seq - 1}")
        assert not (await lite.fleet.audit.verify()).ok, column
        await _do(lite, "DELETE FROM audit")
        await _do(lite, f"UPDATE audit_chain SET anchor_seq = {head.seq}, anchor_digest = head_digest")


async def _cut_off(rig: Rig) -> None:
    await _do(rig, "DELETE FROM audit WHERE seq > 3")
    await _do(rig, "UPDATE audit_chain SET head_seq = 3, head_digest = (SELECT digest FROM audit WHERE seq = 3)")


async def _write_anew(rig: Rig) -> None:
    rows = await AuditRow.all().order_by("seq")
    digest = GENESIS
    for row in rows:
        name = "innocent" if row.seq == 2 else row.target_id
        values = dict(row) | {"target_id": name, "prev": digest}
        digest = link_of(values).computed()
        await AuditRow.filter(id=row.id).update(target_id=name, prev=values["prev"], digest=digest)
    await _do(rig, f"UPDATE audit_chain SET head_digest = '{digest}'")


@pytest.mark.parametrize(("attack", "says"), [(_cut_off, "was cut off"), (_write_anew, "was written anew")])
async def test_a_head_that_was_kept_elsewhere_finds_what_else_nobody_could(
    rig: Rig, attack: Callable[[Rig], Awaitable[None]], says: str
) -> None:
    head = await _entries(rig)
    await attack(rig)
    assert (await rig.fleet.audit.verify()).ok
    report = await rig.fleet.audit.verify(head)
    assert any(says in fault.detail for fault in report.faults)


async def test_a_kept_head_holds_while_the_audit_grows(rig: Rig) -> None:
    head = await _entries(rig)
    await _entries(rig)
    assert (await rig.fleet.audit.verify(head)).ok
    assert not (await rig.fleet.audit.verify(Mark(seq=head.seq, digest="f" * 64))).ok
    assert not (await rig.fleet.audit.verify(Mark(seq=1_000_000, digest=head.digest))).ok


async def test_pruning_says_so_and_the_rest_still_holds(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url, audit_limit=10) as rig:
        old = await _entries(rig, 3)
        await _entries(rig, 20)
        await rig.fleet.audit.prune()
        await rig.fleet.audit.prune()
        report = await rig.fleet.audit.verify()
        assert (report.ok, report.entries, report.anchor.seq, report.head.seq) == (True, 11, 13, 24)
        [entry] = (await rig.fleet.audit.list(action="audit.prune")).items
        assert entry.before == {"seq": 13, "digest": report.anchor.digest}
        assert [fault.detail for fault in (await rig.fleet.audit.verify(old)).faults] == [
            "is the kept head, and was dropped for its age: keep newer ones"
        ]
        await _entries(rig, 30)
        await rig.fleet.audit.prune()
        assert (await rig.fleet.audit.verify()).ok
        # Who helps himself to the oldest has to move the anchor, which the audit itself contradicts.
        anchor = (await rig.fleet.audit.anchor()).seq + 2
        await _do(
            rig,
            f"UPDATE audit_chain SET anchor_seq = {anchor},"
            f" anchor_digest = (SELECT digest FROM audit WHERE seq = {anchor})",
        )
        await _do(rig, f"DELETE FROM audit WHERE seq <= {anchor}")
        assert not (await rig.fleet.audit.verify()).ok


async def test_nodes_that_prune_and_write_at_once_leave_one_chain(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url, audit_limit=10) as rig:
        nodes = [Audit(database=rig.fleet.database, clock=rig.clock, limit=limit) for limit in (10, 12, 8)]
        for _ in range(4):
            await asyncio.gather(
                _entries(rig, 20),
                *(node.prune() for node in nodes),
                _entries(rig, 5),
                *(node.prune() for node in nodes),
            )
        report = await rig.fleet.audit.verify()
        assert report.ok, report.faults
        assert report.anchor.seq > 0


_WRITER = """
import asyncio, sys
from pathlib import Path
from fleet.actor import SYSTEM
from fleet.audit import Audit
from fleet.clock import SystemClock
from fleet.database import Database

async def write():
    database = Database(f"sqlite://{sys.argv[1]}")
    await database.open()
    audit = Audit(database=database, clock=SystemClock(), limit=50)
    while True:
        await audit.record(SYSTEM, "x", "device", "d")
        print(await audit.head(), flush=True)
        await audit.prune()

asyncio.run(write())
"""


async def test_a_writer_that_is_killed_leaves_a_whole_chain_with_all_it_had_said(
    tmp_path: Path, migrated: Path
) -> None:
    file = tmp_path / "fleet.db"
    shutil.copy(migrated, file)
    for rounds in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(file), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(40 + 7 * rounds):
            said = await writer.stdout.readline()
        writer.kill()
        await writer.wait()
        for line in (await writer.stdout.read()).splitlines(keepends=True):
            said = line if line.endswith(b"\n") else said
        database = Database(f"sqlite://{file}")
        await database.attach()
        try:
            report = await Audit(database=database, clock=MovableClock(), limit=50).verify(parse_mark(said.decode()))
        finally:
            await database.close()
        assert report.ok, report.faults


async def test_changes_go_on_when_the_head_was_taken_away_and_it_is_found(rig: Rig) -> None:
    head = await _entries(rig)
    await _do(rig, "DELETE FROM audit_chain")
    await _entries(rig)
    assert (await rig.fleet.audit.verify(head)).ok
    await _do(rig, "DELETE FROM audit WHERE seq > 4")
    await _do(rig, "DELETE FROM audit_chain")
    await _entries(rig)
    assert not (await rig.fleet.audit.verify(head)).ok


def _before_people(package: Path) -> None:
    package.mkdir()
    for file in (Path(database_module.__file__).parent / "migrations").glob("*.py"):
        if file.name < "0008_people":
            shutil.copy(file, package)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
async def test_entries_of_an_older_version_are_chained_by_the_migration(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite://{tmp_path}/fleet.db"
    if kind == "postgres":
        import asyncpg

        server: Server = request.getfixturevalue("postgres")
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE DATABASE fleet_chained")
        await connection.close()
        url = server.url.rpartition("/")[0] + "/fleet_chained"
    _before_people(tmp_path / "migrations_before")
    monkeypatch.syspath_prepend(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", "migrations_before")
        old = Database(url)
        await old.open()
        columns = ("id", "at", "actor_kind", "actor_id", "actor_address", "action", "target_kind", "target_id")
        at = MovableClock().utc() if kind == "postgres" else "2026-11-20 12:00:00.123456+00:00"
        rows = [(f"{n:026}", at, "user", "anna", "", "device.create", "device", f"d{n}") for n in range(1_100)]
        await old.insert("audit", columns, rows)
        await old.close()
    new = Database(url)
    await new.open()
    try:
        report = await Audit(database=new, clock=MovableClock(), limit=10).verify()
        assert (report.ok, report.entries, report.head.seq) == (True, 1_100, 1_100)
        assert (await AuditRow.get(seq=7)).target_id == "d6"
    finally:
        await new.close()


async def test_an_export_is_enough_to_check_it_elsewhere(rig: Rig) -> None:
    head = await _entries(rig)
    lines = [orjson.dumps(link_of(row).json()) async for rows in rig.fleet.audit.links(START) for row in rows]

    def check(lines: list[bytes], known: Mark | None = None) -> bool:
        walk = Walk(START, known=known)
        for line in lines:
            walk.step(orjson.loads(line))
        return walk.end().ok

    assert len(lines) == 5
    assert check(lines, head)
    assert b"\r" not in lines[0]
    assert b"\n" not in lines[0]
    assert not check([lines[0], lines[2], lines[1], *lines[3:]])
    assert not check([*lines[:2], lines[1], *lines[2:]])
    assert not check(lines[:-1], head)
    assert check(lines[:-1])
    assert not check([line.replace(b"anna", b"eve") for line in lines])


async def test_the_digest_is_made_as_the_docs_say(lite: Rig) -> None:
    await _entries(lite, 2)
    page = (Path(__file__).parents[2] / "docs" / "people.md").read_text()
    [said] = re.findall(r"`(seq, prev, [^`]*)`", page)
    async for lines in lite.fleet.audit.export():
        for line in lines.splitlines():
            entry = json.loads(line)
            values = [entry[name] for name in re.split(r",\s+", said)]
            text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
            assert hashlib.sha256(text.encode()).hexdigest() == entry["digest"]


def test_many_faults_are_counted_and_few_are_kept() -> None:
    walk = Walk(START)
    for _ in range(500):
        walk.step({"seq": "x" * 1_000})
    report: dict[str, Any] = walk.end().json()
    assert (len(report["faults"]), report["faults_total"], report["ok"]) == (FAULTS_LIMIT, 500, False)


@pytest.mark.parametrize("text", ["", "5", "5:", ":" + "a" * 64, "-1:" + "a" * 64, "1:" + "g" * 64, "٣:" + "a" * 64])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        parse_mark(text)
    assert parse_mark(f" {START}\n") == START

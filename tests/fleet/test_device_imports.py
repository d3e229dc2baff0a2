"""Imports of devices on both databases: what becomes of each, cancelled, taken up again, handed out and undone."""

import asyncio
from pathlib import Path

import pytest

from fleet.device_file import FileForm
from fleet.device_import_views import DeviceImport, ImportStatus, OnConflict, Outcome
from fleet.device_imports import KEPT, UNFINISHED_LIMIT
from fleet.errors import Conflict, Invalid, NotFound
from fleet.models import DeviceImportEntryRow, DeviceImportRow
from tests.fleet.conftest import ANNA, Rig, running

FILE = b"id,name,profile,tags,attributes.floor\npump-7,P,pump,x;y,3\nno/id,,,,\npump-8,,,,\npump-7,,,,\n"

AT_WORK = (ImportStatus.RUNNING, ImportStatus.UNDOING)


async def begun(rig: Rig, data: bytes, on_conflict: OnConflict = OnConflict.REFUSE, *, dry_run: bool = False) -> str:
    receiving = await rig.fleet.device_imports.receive(ANNA, FileForm.CSV, on_conflict=on_conflict, dry_run=dry_run)
    try:
        await receiving.feed(data)
        await receiving.finish()
        return (await rig.fleet.device_imports.begin(ANNA, receiving)).id
    finally:
        await receiving.abandon()


async def ended(rig: Rig, id_: str) -> DeviceImport:
    async with asyncio.timeout(60):
        while (found := await rig.fleet.device_imports.get(id_)).status in AT_WORK:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # it works in a task of its own
    return found


async def outcomes(rig: Rig, id_: str) -> list[str]:
    await ended(rig, id_)
    return [row.outcome.value for row in (await rig.fleet.device_imports.rows(id_)).items]


async def tokens(rig: Rig, id_: str, *, again: bool = False) -> dict[str, str]:
    return {pair[0]: pair[1] async for pair in await rig.fleet.device_imports.hand_out(ANNA, id_, again=again)}


async def test_each_device_is_created_or_refused_and_a_dry_run_says_so_and_does_nothing(rig: Rig) -> None:
    expected = ["created", "refused", "created", "refused"]
    dry = await begun(rig, FILE, dry_run=True)
    assert await outcomes(rig, dry) == expected
    assert (await rig.fleet.devices.list()).total == 0
    done = await begun(rig, FILE)
    assert await outcomes(rig, done) == expected
    device = await rig.fleet.devices.get("pump-7")
    assert (device.name, device.profile, device.tags, device.attributes) == ("P", "pump", ("x", "y"), {"floor": 3})
    assert [one.id for one in (await rig.fleet.devices.list(tag="x")).items] == ["pump-7"]
    assert rig.fleet.is_active("pump-8")
    assert (await rig.fleet.twins.get("pump-8")).version == 1
    page = await rig.fleet.device_imports.rows(done, outcome="refused", limit=1)
    assert [(row.line, row.column) for row in page.items] == [(3, "id")]
    rest = await rig.fleet.device_imports.rows(done, outcome="refused", cursor=page.next_cursor)
    assert [(row.line, row.reason, page.total) for row in rest.items] == [(5, "is on line 2 already", 2)]
    actions = [entry.action for entry in (await rig.fleet.audit.list()).items]
    assert sorted(actions) == ["device.create"] * 2 + ["device_import.create"] * 2


@pytest.mark.parametrize(
    ("on_conflict", "expected", "name"),
    [
        (OnConflict.REFUSE, ["refused", "refused", "created"], "Old"),
        (OnConflict.SKIP, ["skipped", "skipped", "created"], "Old"),
        (OnConflict.UPDATE, ["updated", "unchanged", "created"], "New"),
    ],
)
async def test_devices_that_are_there_are_refused_skipped_or_updated(
    rig: Rig, on_conflict: OnConflict, expected: list[str], name: str
) -> None:
    await rig.device("a", name="Old", tags=["t"], attributes={"kept": 1, "floor": 1})
    await rig.device("b")
    file = b"id,name,tags,attributes.floor\na,New,u,2\nb,b,,\nc,,,\n"
    assert await outcomes(rig, await begun(rig, file, on_conflict, dry_run=True)) == expected
    assert (await rig.fleet.devices.get("a")).name == "Old"
    assert await outcomes(rig, await begun(rig, file, on_conflict)) == expected
    device = await rig.fleet.devices.get("a")
    assert device.name == name
    if on_conflict is OnConflict.UPDATE:
        assert (device.tags, device.attributes) == (("u",), {"kept": 1, "floor": 2})
        assert await outcomes(rig, await begun(rig, file, on_conflict)) == ["unchanged"] * 3


async def test_tokens_are_handed_out_once_and_again_only_while_nobody_used_them(rig: Rig) -> None:
    done = await begun(rig, b"id\na\nb\n")
    await ended(rig, done)
    assert not await rig.fleet.devices.credentials("a")
    first = await tokens(rig, done)
    assert [await rig.fleet.devices.authenticate(id_, token) for id_, token in first.items()] == [True, True]
    assert await tokens(rig, done) == {}
    await rig.fleet.stop()
    await rig.fleet.start(rig.gateway)
    assert await tokens(rig, done, again=True) == {}, "they have been used"
    other = await begun(rig, b"id\nc\nd\n")
    await ended(rig, other)
    lost = await tokens(rig, other)
    await rig.connect("d")
    found = await tokens(rig, other, again=True)
    assert list(found) == ["c"]
    assert [await rig.fleet.devices.authenticate("c", token) for token in (lost["c"], found["c"])] == [False, True]
    with pytest.raises(Conflict):
        await rig.fleet.device_imports.hand_out(ANNA, await begun(rig, b"id\nx\n", dry_run=True))


async def test_undoing_deletes_what_was_created_and_never_seen(rig: Rig) -> None:
    await rig.device("old")
    done = await begun(rig, b"id\nold\nseen\nnew\ngone\nanew\n")
    await ended(rig, done)
    await rig.connect("seen")
    await rig.fleet.devices.delete(ANNA, "gone")
    await rig.fleet.devices.delete(ANNA, "anew")
    rig.clock.move(60)
    await rig.device("anew")
    assert (await rig.fleet.device_imports.undo(ANNA, done)).status in (ImportStatus.UNDOING, ImportStatus.UNDONE)
    assert await outcomes(rig, done) == ["refused", "kept", "deleted", "deleted", "kept"]
    reasons = [row.reason for row in (await rig.fleet.device_imports.rows(done, outcome="kept")).items]
    assert reasons == ["it has been seen since", "it was deleted, and created anew since"]
    assert [one.id for one in (await rig.fleet.devices.list()).items] == ["anew", "old", "seen"]
    assert not rig.fleet.is_active("new") or not rig.fleet._directory.is_known("new")
    with pytest.raises(Conflict, match="undone"):
        await rig.fleet.device_imports.undo(ANNA, done)


async def test_one_that_was_broken_off_goes_on_after_a_restart_and_doubles_nothing(
    tmp_path: Path, database_url: str
) -> None:
    data = b"id\n" + b"".join(b"d-%d\n" % n for n in range(120))
    async with running(tmp_path, database_url) as rig:
        await rig.fleet.device_imports.stop()
        done = await begun(rig, data)
        half = await rig.fleet.device_imports.receive(ANNA, FileForm.CSV, on_conflict=OnConflict.SKIP, dry_run=False)
        await half.feed(data)
        assert await rig.fleet.device_imports._turn(await DeviceImportRow.get(id=done))
        assert (await rig.fleet.device_imports.get(done)).counts[Outcome.CREATED] == 50
    async with running(tmp_path, database_url, clock=rig.clock) as rig:
        assert (await ended(rig, done)).counts[Outcome.CREATED] == 120
        assert (await rig.fleet.devices.list()).total == 120
        assert len((await rig.fleet.audit.list(action="device.create", limit=500)).items) == 120
        if not rig.fleet.database.is_shared:
            assert not await DeviceImportRow.filter(status=ImportStatus.RECEIVING).exists()


async def test_a_cancelled_one_stays_where_it_is(rig: Rig) -> None:
    await rig.fleet.device_imports.stop()
    done = await begun(rig, b"id\n" + b"".join(b"d-%d\n" % n for n in range(60)))
    row = await DeviceImportRow.get(id=done)
    await rig.fleet.device_imports._turn(row)
    assert (await rig.fleet.device_imports.cancel(ANNA, done)).status is ImportStatus.CANCELLED
    assert not await rig.fleet.device_imports._turn(row)
    counts = (await rig.fleet.device_imports.get(done)).counts
    assert (counts[Outcome.CREATED], counts[Outcome.CANCELLED]) == (50, 10)
    with pytest.raises(Conflict):
        await rig.fleet.device_imports.cancel(ANNA, done)
    assert len(await tokens(rig, done)) == 50


async def test_a_file_that_is_refused_leaves_nothing(rig: Rig) -> None:
    for data in (b"id\na\n\xff\n", b"id\n" + b"a\n" * 3 + b'"'):
        with pytest.raises(Invalid):
            await begun(rig, data)
    assert not await DeviceImportRow.all().exists()
    assert not await DeviceImportEntryRow.all().exists()
    for wanted in (rig.fleet.device_imports.get, rig.fleet.device_imports.rows):
        with pytest.raises(NotFound):
            await wanted("01JD2Z4K8X0000000000000000")


async def test_so_many_are_unfinished_or_kept_and_no_more(lite: Rig) -> None:
    await lite.fleet.device_imports.stop()
    for _ in range(UNFINISHED_LIMIT):
        await begun(lite, b"id\n")
    with pytest.raises(Conflict, match="unfinished"):
        await begun(lite, b"id\n")
    await lite.fleet.device_imports.start()
    for _ in range(KEPT + 3):
        for row in await DeviceImportRow.all():
            await ended(lite, row.id)
        await begun(lite, b"id\n")
    assert await DeviceImportRow.all().count() == KEPT + 1

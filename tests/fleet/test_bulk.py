"""Bulk jobs: whom they are about, what becomes of each device, cancelling, and a kill in the middle."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet import bulk as bulk_module
from fleet.bulk import BulkJob, BulkStatus, Selection, TargetStatus
from fleet.bulk_actions import ActionType, BulkAction, action_of
from fleet.errors import Conflict, FleetError, Invalid, NotFound
from fleet.models import BulkJobRow, CommandRow, DeviceRow
from tests.fleet.conftest import ANNA, Rig, running

EVERYBODY = Selection(query='id ~ "*"')


def action(type_: str, **fields: Any) -> BulkAction:
    return BulkAction(type=ActionType(type_), **fields)


async def ended(rig: Rig, id_: str) -> BulkJob:
    while True:
        job = await rig.fleet.bulk.get(id_)
        if job.finished_at is not None and not job.counts[TargetStatus.ACTING]:
            return job
        await asyncio.sleep(0.01)


async def done(rig: Rig, selection: Selection, action_: BulkAction) -> BulkJob:
    return await ended(rig, (await rig.fleet.bulk.create(ANNA, selection, action_)).id)


def held(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """(at work, go on): actions wait in their middle."""
    at_work, go_on = asyncio.Event(), asyncio.Event()
    act = rig.fleet.bulk._actions.act

    async def waiting(*args: Any) -> None:
        at_work.set()
        await go_on.wait()
        await act(*args)

    monkeypatch.setattr(rig.fleet.bulk._actions, "act", waiting)
    return at_work, go_on


async def test_each_action_is_done_to_each_device(rig: Rig) -> None:
    for id_ in ("a", "b", "c"):
        await rig.device(id_, tags=["old"] if id_ == "a" else [])
    devices = rig.fleet.devices
    job = await done(rig, EVERYBODY, action("tag", tags=("new", "old")))
    assert (job.status, job.total, job.counts[TargetStatus.SUCCEEDED]) == (BulkStatus.FINISHED, 3, 3)
    await done(rig, Selection(query="tag = old and id != b"), action("untag", tags=("old",)))
    assert [each.tags for each in (await devices.list()).items] == [("new",), ("new", "old"), ("new",)]
    await done(rig, Selection(ids=("a", "b")), action("set_profile", profile="pump"))
    assert (await devices.list(query="profile = pump")).total == 2
    await done(rig, EVERYBODY, action("command", name="reboot", params={"in_s": 5}))
    assert await CommandRow.filter(name="reboot").count() == 3
    await done(rig, EVERYBODY, action("twin_desired", desired={"interval": 5}))
    assert (await rig.fleet.twins.get("c")).desired == {"interval": 5}
    await done(rig, Selection(ids=("a",)), action("disable"))
    assert (await devices.get("a")).disabled
    await done(rig, Selection(ids=("a",)), action("enable"))
    assert not (await devices.get("a")).disabled
    group = await rig.fleet.groups.create(ANNA, name="out", query="id in (a, b)")
    await done(rig, Selection(group=group.id), action("delete"))
    assert [each.id for each in (await devices.list()).items] == ["c"]
    assert (await rig.fleet.bulk.list()).total == 8


async def test_each_device_has_its_own_result(rig: Rig) -> None:
    for id_ in ("a", "b"):
        await rig.device(id_)
    await rig.fleet.devices.update(ANNA, "a", disabled=True)
    job = await done(rig, Selection(ids=("a", "b", "nobody")), action("command", name="reboot"))
    assert (job.counts[TargetStatus.FAILED], job.counts[TargetStatus.SUCCEEDED]) == (2, 1)
    first = await rig.fleet.bulk.results(job.id, limit=2)
    assert [(each.device_id, each.status, each.error) for each in first.items] == [
        ("a", "failed", "the device is disabled"),
        ("b", "succeeded", None),
    ]
    rest = await rig.fleet.bulk.results(job.id, cursor=first.next_cursor, status="failed")
    assert [each.error for each in rest.items] == ["there is no device 'nobody'"]


async def test_whom_it_is_about_is_fixed_when_it_is_made(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await lite.device("a")
    at_work, go_on = held(lite, monkeypatch)
    job = await lite.fleet.bulk.create(ANNA, Selection(query="not has tag"), action("tag", tags=("x",)))
    await at_work.wait()
    await lite.device("b")
    go_on.set()
    assert (await ended(lite, job.id)).total == 1
    assert (await lite.fleet.devices.get("b")).tags == ()


async def test_a_dry_run_says_how_many_and_does_nothing(rig: Rig) -> None:
    for n in range(25):
        await rig.device(f"d{n:02}")
    assert await rig.fleet.bulk.preview(EVERYBODY) == (25, [f"d{n:02}" for n in range(20)])
    assert await rig.fleet.bulk.preview(Selection(ids=("b", "a", "b"))) == (2, ["a", "b"])
    assert await BulkJobRow.all().count() == 0


async def test_a_cancelled_job_leaves_the_rest_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(25):
        await rig.device(f"d{n:02}")
    at_work, go_on = held(rig, monkeypatch)
    job = await rig.fleet.bulk.create(ANNA, EVERYBODY, action("tag", tags=("x",)))
    await at_work.wait()
    await rig.fleet.bulk.cancel(ANNA, job.id)
    go_on.set()
    job = await ended(rig, job.id)
    assert job.status is BulkStatus.CANCELLED
    assert (job.counts[TargetStatus.CANCELLED], job.counts[TargetStatus.SUCCEEDED]) == (5, 20)
    assert (await rig.fleet.devices.list(tag="x")).total == 20
    with pytest.raises(Conflict, match="cancelled"):
        await rig.fleet.bulk.cancel(ANNA, job.id)
    actions = [each.action for each in (await rig.fleet.audit.list(target_id=job.id)).items]
    assert actions == ["bulk.cancel", "bulk.create"]


@pytest.mark.parametrize(
    ("selection", "wanted", "error"),
    [
        (Selection(), action("delete"), "name one of"),
        (Selection(query="id = a", group="x"), action("delete"), "name one of"),
        (Selection(group="x"), action("delete"), "there is no group"),
        (Selection(query="id ="), action("delete"), "column 5"),
        (Selection(query="id = nobody"), action("delete"), "are 0"),
        (Selection(ids=tuple(str(n) for n in range(5_001))), action("delete"), "more than 5,000"),
        (EVERYBODY, action("tag"), "name some"),
        (EVERYBODY, action("tag", tags=("x" * 65,)), "longer than 64"),
        (EVERYBODY, action("command", name=""), "must not be empty"),
        (EVERYBODY, action("command", name="x", ttl_s=0), "from 1 to"),
        (EVERYBODY, action("twin_desired", desired={"x": "y" * 40_000}), "larger than"),
    ],
)
async def test_what_is_no_job_is_refused(lite: Rig, selection: Selection, wanted: BulkAction, error: str) -> None:
    await lite.device("a")
    with pytest.raises(FleetError, match=error):
        await lite.fleet.bulk.create(ANNA, selection, wanted)
    assert await BulkJobRow.all().count() == 0


async def test_jobs_wait_in_a_line_of_bounded_length(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await lite.device("a")
    _, go_on = held(lite, monkeypatch)
    jobs = [await lite.fleet.bulk.create(ANNA, EVERYBODY, action("tag", tags=(str(n),))) for n in range(20)]
    with pytest.raises(Conflict, match="20 bulk jobs"):
        await lite.fleet.bulk.create(ANNA, EVERYBODY, action("delete"))
    go_on.set()
    for job in jobs:
        assert (await ended(lite, job.id)).status is BulkStatus.FINISHED
    assert len((await lite.fleet.devices.get("a")).tags) == 20


async def test_old_jobs_go_and_too_large_ones_do_not_come(lite: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for id_ in ("a", "b"):
        await lite.device(id_)
    monkeypatch.setattr(bulk_module, "KEPT", 2)
    first, *_, last = [await done(lite, Selection(ids=("a",)), action("enable")) for _ in range(4)]
    with pytest.raises(NotFound):
        await lite.fleet.bulk.get(first.id)
    assert (await lite.fleet.bulk.get(last.id)).total == 1
    monkeypatch.setattr(bulk_module, "DEVICES_LIMIT", 1)
    with pytest.raises(Invalid, match="are 2"):
        await lite.fleet.bulk.create(ANNA, EVERYBODY, action("enable"))


async def test_a_change_in_between_is_not_lost(lite: Rig) -> None:
    await lite.device("a")
    tags = [f"t{n}" for n in range(8)]
    await asyncio.gather(
        *(lite.fleet.bulk._actions.act(ANNA, "a", action("tag", tags=(tag,))) for tag in tags[:4]),
        *(lite.fleet.bulk._actions.act(ANNA, "a", action("tag", tags=(tag,))) for tag in tags[4:]),
    )
    assert (await lite.fleet.devices.get("a")).tags == tuple(tags)


@pytest.mark.parametrize("type_", list(ActionType))
def test_an_action_is_stored_as_it_was_asked_for(type_: ActionType) -> None:
    fields: dict[str, Any] = {
        "tag": {"tags": ("x",)},
        "untag": {"tags": ("x",)},
        "set_profile": {"profile": "p"},
        "command": {"name": "n", "params": [1], "ttl_s": 5.0},
        "twin_desired": {"desired": {"x": None}},
    }
    wanted = BulkAction(type=type_, **fields.get(type_, {}))
    assert action_of(orjson.loads(orjson.dumps(wanted.json()))) == wanted


async def test_a_stopped_server_goes_on_where_it_was(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "fleet.db")
    async with running(tmp_path, "") as rig:
        for n in range(60):
            await rig.device(f"d{n:02}")
        begun, act = asyncio.Semaphore(0), rig.fleet.bulk._actions.act

        async def told(*args: Any) -> None:
            begun.release()
            await act(*args)

        rig.fleet.bulk._actions.act = told  # type: ignore[method-assign]
        job = await rig.fleet.bulk.create(ANNA, EVERYBODY, action("command", name="reboot"))
        for _ in range(5):
            await asyncio.wait_for(begun.acquire(), 60)
    async with running(tmp_path, "") as rig:
        found = await ended(rig, job.id)
        assert found.counts[TargetStatus.SUCCEEDED] == 60
        assert await CommandRow.all().count() == 60


async def test_a_killed_server_does_each_device_once_or_says_so(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "fleet.db")
    async with running(tmp_path, "") as rig:
        for n in range(100):
            await rig.device(f"d{n:02}")
    root = Path(__file__).parents[2]
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fleet.bulk_victim",
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert victim.stdout is not None
    for _ in range(50):
        assert await victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    await victim.communicate()
    async with running(tmp_path, "") as rig:
        (row,) = await BulkJobRow.all()
        job = await ended(rig, row.id)
        assert job.status is BulkStatus.FINISHED
        assert job.counts[TargetStatus.UNKNOWN] <= 20
        assert job.counts[TargetStatus.UNKNOWN] + job.counts[TargetStatus.SUCCEEDED] == 100
        results = (await rig.fleet.bulk.results(job.id, limit=500)).items
        assert {each.device_id for each in results} == {each.id for each in await DeviceRow.all()}
        for each in results:
            sent = await CommandRow.filter(device_id=each.device_id).count()
            assert sent == 1 if each.status is TargetStatus.SUCCEEDED else sent <= 1, each

"""Firmware campaigns: from the draft to the version that the device reports, and every way to fail."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.reason import ReasonCode
from fleet.errors import Conflict, Invalid, NotFound
from fleet.machines.job import JOB_FINAL, JobState
from fleet.models import JobRow
from fleet.views import Campaign, Job, StepTimeouts
from tests.fleet.conftest import ANNA, MovableClock, Rig, running

TIMEOUTS = StepTimeouts(offered_s=100, downloading_s=200, verifying_s=30, installing_s=40, rebooting_s=50)
STEPS = ["downloading", "verifying", "installing", "rebooting"]


async def test_an_update_that_goes_well(rig: Rig) -> None:
    campaign = await _campaign(rig)
    assert (campaign.status, campaign.total, campaign.counts[JobState.QUEUED]) == ("draft", 1, 1)
    assert rig.gateway.sent == [], "a draft offers nothing"
    await rig.connect()
    assert rig.gateway.sent == []
    campaign = await rig.fleet.campaigns.start(ANNA, campaign.id)
    assert campaign.status == "running"
    await rig.settle()
    [offer] = rig.gateway.messages("pump-7", "ota/offer")
    job = await _job(rig, campaign)
    artifact = campaign.artifact
    assert offer == {
        "job": job.id,
        "version": "1.1.0",
        "artifact": {
            "id": artifact.id,
            "name": "pump-1.1.0.bin",
            "size": 8000,
            "sha256": artifact.sha256,
            "signature": None,
            "url": f"http://127.0.0.1:8081/device/v1/artifacts/{artifact.id}",
        },
        "deadline": int((job.deadline or rig.clock.utc()).timestamp() * 1000),
    }
    assert (job.status, job.from_version, job.to_version) == ("offered", "1.0.0", "1.1.0")
    assert (await rig.fleet.devices.get("pump-7")).target_firmware == "1.1.0"
    for step in STEPS:
        await _report(rig, job, status=step, progress=50)
        after = await _job(rig, campaign)
        assert (after.status, after.progress) == (step, 50)
        assert after.deadline is not None
    await rig.disconnect()
    rig.clock.move(5)
    await rig.connect()
    await rig.uplink("twin/reported", {"firmware": {"version": "1.1.0"}})
    job = await _job(rig, campaign)
    assert (job.status, job.progress, job.deadline, job.finished_at) == ("succeeded", 100, None, rig.clock.utc())
    campaign = await rig.fleet.campaigns.get(campaign.id)
    assert (campaign.status, campaign.counts[JobState.SUCCEEDED], campaign.finished_at) == (
        "finished",
        1,
        rig.clock.utc(),
    )
    device = await rig.fleet.devices.get("pump-7")
    assert (device.firmware, device.target_firmware) == ("1.1.0", "1.1.0")
    assert await rig.fleet.devices.firmware_versions() == {"1.1.0": 1}
    summaries = [each for each in await rig.summaries("pump-7", "update") if each.startswith("update")]
    assert summaries[::-1] == [
        "update to 1.1.0 offered",
        *(f"update to 1.1.0: {step}" for step in STEPS),
        "update to 1.1.0: succeeded",
    ]
    events = [event.data for event in rig.events("campaigns")]
    states = [event["job"]["status"] for event in events if "job" in event]
    assert list(dict.fromkeys(states)) == ["offered", *STEPS, "succeeded"]
    assert events[-1]["campaign"]["status"] == "finished"


@pytest.mark.parametrize("by", ["twin", "status", "status after reconnect", "no status"])
async def test_another_version_after_the_reboot_is_a_failure(rig: Rig, by: str) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    await _report(rig, job, status="rebooting", version="1.0.0")
    await rig.uplink("twin/reported", {"firmware": {"version": "1.0.0"}})
    assert (await _job(rig, campaign)).status == "rebooting", "that was before the reboot"
    if by in ("twin", "status after reconnect"):
        await rig.disconnect()
        rig.clock.move(5)
        await rig.connect()
    if by == "twin":
        await rig.uplink("twin/reported", {"firmware": {"version": "1.0.0"}})
    elif by == "status after reconnect":
        await _report(rig, job, status="rebooting", version="1.0.0")
    elif by == "status":
        await _report(rig, job, status="succeeded", version="1.0.0")
    else:
        await _report(rig, job, version="1.0.0")
    job = await _job(rig, campaign)
    assert (job.status, job.error) == ("failed", "came back with 1.0.0, expected 1.1.0")
    assert (await rig.fleet.campaigns.get(campaign.id)).status == "finished"
    assert (await rig.fleet.devices.get("pump-7")).target_firmware is None


async def test_success_is_not_believed_without_the_version(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    await _report(rig, job, status="installing")
    await _report(rig, job, status="succeeded")
    assert (await _job(rig, campaign)).status == "installing"
    await _report(rig, job, status="succeeded", version="1.1.0")
    assert (await _job(rig, campaign)).status == "succeeded"


async def test_a_version_named_on_the_way_proves_nothing(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    await _report(rig, job, status="downloading", version="1.1.0")
    await _report(rig, job, status="installing", version="1.0.0")
    assert (await _job(rig, campaign)).status == "installing"
    await rig.uplink("twin/reported", {"firmware": {"version": "1.0.0"}})
    assert (await _job(rig, campaign)).status == "installing"


async def test_a_device_that_runs_it_already_has_nothing_to_do(rig: Rig) -> None:
    campaign = await _campaign(rig)
    await rig.uplink("twin/reported", {"firmware": {"version": "1.1.0"}})
    await rig.connect()
    campaign = await rig.fleet.campaigns.start(ANNA, campaign.id)
    assert campaign.status == "finished"
    assert campaign.counts[JobState.SUCCEEDED] == 1
    assert rig.gateway.messages("pump-7", "ota") == []


@pytest.mark.parametrize(("status", "error"), [("failed", "flash is worn out"), ("rejected", "battery low")])
async def test_the_device_says_no(rig: Rig, status: str, error: str) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    await _report(rig, job, status="downloading", progress=70)
    await _report(rig, job, status=status, error=error)
    job = await _job(rig, campaign)
    assert (job.status, job.error) == (status, error)


@pytest.mark.parametrize("position", range(6))
async def test_every_step_ends_by_itself(rig: Rig, position: int) -> None:
    state = ["queued", "offered", *STEPS][position]
    campaign = await _running(rig, online=state != "queued")
    job = await _job(rig, campaign)
    for step in STEPS[: max(0, position - 1)]:
        await _report(rig, job, status=step)
    assert (await _job(rig, campaign)).status == state
    limit_s = TIMEOUTS.json()[f"{'offered' if state == 'queued' else state}_s"]
    await rig.later(limit_s - 1)
    assert (await _job(rig, campaign)).status == state
    await rig.later(2)
    job = await _job(rig, campaign)
    assert job.status == "timed_out"
    assert job.error == f"no end of {state} within {limit_s + 1} s"
    assert (await rig.fleet.campaigns.get(campaign.id)).status == "finished"


async def test_progress_buys_no_time(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    for percent in range(25):
        await _report(rig, job, status="downloading", progress=percent)
        await rig.later(10)
    assert (await _job(rig, campaign)).status == "timed_out"


async def test_repeated_and_late_reports_move_nothing_back(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    for step in ("downloading", "installing", "downloading", "verifying", "installing"):
        await _report(rig, job, status=step, progress=10)
    assert (await _job(rig, campaign)).status == "installing"
    await _report(rig, job, status="installing", progress=5)
    assert (await _job(rig, campaign)).progress == 10
    await _report(rig, job, status="succeeded", version="1.1.0")
    version = (await JobRow.get(id=job.id)).version
    for status in (*STEPS, "failed", "rejected", "succeeded"):
        assert await _report(rig, job, status=status, version="1.0.0") is ReasonCode.SUCCESS
    assert (await JobRow.get(id=job.id)).version == version
    assert (await _job(rig, campaign)).status == "succeeded"


async def test_a_fall_back_after_success_is_noticed(rig: Rig) -> None:
    campaign = await _running(rig)
    await _report(rig, await _job(rig, campaign), status="succeeded", version="1.1.0")
    await rig.uplink("twin/reported", {"firmware": {"version": "1.0.0"}})
    assert (await rig.fleet.devices.get("pump-7")).firmware == "1.0.0"
    assert (await rig.summaries())[0] == "fell back from firmware 1.1.0 to 1.0.0"
    assert (await _job(rig, campaign)).status == "succeeded"


async def test_abort_cancels_what_has_not_ended(rig: Rig) -> None:
    campaign = await _running(rig, devices=("a", "b", "c"))
    jobs = {job.device_id: job for job in (await rig.fleet.campaigns.jobs(campaign.id)).items}
    await rig.uplink("ota/status", {"job": jobs["a"].id, "status": "failed"}, device_id="a")
    await rig.uplink("ota/status", {"job": jobs["b"].id, "status": "downloading"}, device_id="b")
    campaign = await rig.fleet.campaigns.abort(ANNA, campaign.id)
    assert campaign.status == "aborted"
    assert {state: count for state, count in campaign.counts.items() if count} == {"failed": 1, "cancelled": 2}
    assert (await rig.fleet.devices.get("c")).target_firmware is None
    await rig.uplink("ota/status", {"job": jobs["b"].id, "status": "installing"}, device_id="b")
    assert (await rig.fleet.campaigns.get(campaign.id)).counts == campaign.counts
    with pytest.raises(Conflict):
        await rig.fleet.campaigns.abort(ANNA, campaign.id)
    with pytest.raises(Conflict):
        await rig.fleet.campaigns.retry(ANNA, campaign.id)
    with pytest.raises(Conflict):
        await rig.fleet.campaigns.start(ANNA, campaign.id)


async def test_retry_takes_the_failed_ones_and_late_reports_of_the_first_try_miss(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    with pytest.raises(Conflict, match="no job"):
        await rig.fleet.campaigns.retry(ANNA, campaign.id)
    await _report(rig, job, status="failed", error="flash is worn out")
    rig.gateway.sent.clear()
    campaign = await rig.fleet.campaigns.retry(ANNA, campaign.id)
    assert (campaign.status, campaign.finished_at) == ("running", None)
    await rig.settle()
    [offer] = rig.gateway.messages("pump-7", "ota/offer")
    assert offer["job"] == f"{job.id}-2"
    again = await _job(rig, campaign)
    assert (again.id, again.status, again.attempt, again.error) == (job.id, "offered", 2, None)
    assert await _report(rig, job, status="failed", error="flash is worn out") is ReasonCode.SUCCESS
    assert (await _job(rig, campaign)).status == "offered"
    await rig.uplink("ota/status", {"job": offer["job"], "status": "succeeded", "version": "1.1.0"})
    assert (await rig.fleet.campaigns.get(campaign.id)).status == "finished"
    assert (await _job(rig, campaign)).status == "succeeded"


async def test_an_offer_is_repeated_until_the_device_says_something(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    await rig.later(31)
    assert len(rig.gateway.messages("pump-7", "ota/offer")) == 2
    await rig.disconnect()
    await rig.connect()
    assert len(rig.gateway.messages("pump-7", "ota/offer")) == 3
    deadline = job.deadline
    assert (await _job(rig, campaign)).deadline == deadline, "and none of that buys time"
    await _report(rig, job, status="downloading")
    await rig.later(60)
    assert len(rig.gateway.messages("pump-7", "ota/offer")) == 3
    await rig.disconnect()
    await rig.connect()
    assert len(rig.gateway.messages("pump-7", "ota/offer")) == 4, "it may have lost its memory"
    assert (await _job(rig, campaign)).status == "downloading"


async def test_an_offer_nobody_takes_ends_in_time_too(rig: Rig) -> None:
    rig.gateway.deaf.add("pump-7")
    campaign = await _running(rig)
    assert (await _job(rig, campaign)).status == "queued"
    for _ in range(11):
        await rig.later(10)
    assert (await _job(rig, campaign)).status == "timed_out"


async def test_a_device_has_one_job_at_a_time_the_oldest_first(rig: Rig) -> None:
    first = await _running(rig)
    second = await _another(rig, "1.2.0")
    await rig.settle()
    assert [offer["version"] for offer in rig.gateway.messages("pump-7", "ota/offer")] == ["1.1.0"]
    assert (await _job(rig, second)).status == "queued"
    await rig.disconnect()
    await rig.connect()
    assert {offer["version"] for offer in rig.gateway.messages("pump-7", "ota/offer")} == {"1.1.0"}
    await _report(rig, await _job(rig, first), status="succeeded", version="1.1.0")
    await rig.settle()
    assert rig.gateway.messages("pump-7", "ota/offer")[-1]["version"] == "1.2.0"
    assert (await _job(rig, second)).from_version == "1.1.0"


async def test_two_jobs_offered_in_the_same_moment_are_still_one(rig: Rig) -> None:
    await _running(rig, online=False)
    await _another(rig, "1.2.0")
    rows = await JobRow.all().order_by("id")
    answers = await asyncio.gather(*(rig.fleet.jobs._offer(row) for row in rows))
    assert answers == [True, True]
    assert len(rig.gateway.messages("pump-7", "ota/offer")) == 1
    assert await JobRow.filter(slot="pump-7").count() == 1


@pytest.mark.parametrize("state", ["queued", "offered", *STEPS])
async def test_a_restart_at_any_state_goes_on_where_it_was(tmp_path: Path, database_url: str, state: str) -> None:
    clock = MovableClock()
    async with running(tmp_path, database_url, clock=clock) as rig:
        campaign = await _running(rig, online=state != "queued")
        job = await _job(rig, campaign)
        if state in STEPS:
            await _report(rig, job, status=state)
    clock.move(5)
    async with running(tmp_path, database_url, clock=clock) as rig:
        assert (await _job(rig, campaign)).status == state
        await rig.connect()
        assert len(rig.gateway.messages("pump-7", "ota/offer")) == (0 if state == "rebooting" else 1)
        await rig.uplink("twin/reported", {"firmware": {"version": "1.1.0"}})
        assert (await rig.fleet.campaigns.get(campaign.id)).status == "finished"
        assert (await _job(rig, campaign)).status == "succeeded"


async def test_a_campaign_whose_last_job_ended_just_before_a_crash_is_finished_after_it(rig: Rig) -> None:
    campaign = await _running(rig)
    await JobRow.all().update(status=JobState.FAILED)
    await rig.later(61)
    assert (await rig.fleet.campaigns.get(campaign.id)).status == "finished"


async def test_counts_add_up_at_all_times(rig: Rig) -> None:
    devices = [f"d{number}" for number in range(12)]
    campaign = await _running(rig, devices=devices)
    jobs = {job.device_id: job for job in (await rig.fleet.campaigns.jobs(campaign.id)).items}
    reports: list[dict[str, Any]] = [
        {"status": "downloading"},
        {"status": "failed"},
        {"status": "rejected"},
        {"status": "succeeded", "version": "1.1.0"},
        {"status": "succeeded", "version": "0.9"},
    ]
    for number, device in enumerate(devices[:10]):
        await rig.uplink("ota/status", {"job": jobs[device].id, **reports[number % 5]}, device_id=device)
        campaign = await rig.fleet.campaigns.get(campaign.id)
        assert sum(campaign.counts.values()) == campaign.total == 12
    await rig.fleet.devices.delete(ANNA, "d11")
    campaign = await rig.fleet.campaigns.get(campaign.id)
    assert {state.value: count for state, count in campaign.counts.items() if count} == {
        "offered": 1,
        "downloading": 2,
        "failed": 4,
        "rejected": 2,
        "succeeded": 2,
        "cancelled": 1,
    }
    await rig.later(10_000)
    campaign = await rig.fleet.campaigns.get(campaign.id)
    assert campaign.status == "finished"
    assert all(state in JOB_FINAL for state, count in campaign.counts.items() if count)


async def test_what_may_be_created(rig: Rig) -> None:
    await rig.device()
    artifact = await rig.artifact()
    create = rig.fleet.campaigns.create
    with pytest.raises(NotFound):
        await create(ANNA, name="c", artifact_id="nothing", devices=["pump-7"])
    with pytest.raises(Invalid, match="1 unknown: ghost"):
        await create(ANNA, name="c", artifact_id=artifact, devices=["pump-7", "ghost"])
    with pytest.raises(Invalid):
        await create(ANNA, name="c", artifact_id=artifact, devices=[])
    with pytest.raises(Invalid, match=r"timeouts\.offered_s"):
        await create(ANNA, name="c", artifact_id=artifact, devices=["pump-7"], timeouts=StepTimeouts(offered_s=0))
    campaign = await create(ANNA, name="c", artifact_id=artifact, devices=["pump-7", "pump-7"])
    assert campaign.total == 1
    with pytest.raises(NotFound):
        await rig.fleet.campaigns.get("nothing")
    with pytest.raises(NotFound):
        await rig.fleet.campaigns.jobs("nothing")
    with pytest.raises(NotFound):
        await rig.fleet.campaigns.start(ANNA, "nothing")


async def test_only_one_of_two_starts_counts(rig: Rig) -> None:
    campaign = await _campaign(rig)
    answers = await asyncio.gather(
        *(rig.fleet.campaigns.start(ANNA, campaign.id) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Campaign", "Conflict"]


async def test_lists_of_campaigns_and_jobs(rig: Rig) -> None:
    first = await _running(rig, devices=[f"d{number}" for number in range(5)])
    second = await _another(rig, "1.2.0", devices=["d1"], start=False)
    page = await rig.fleet.campaigns.list(limit=1)
    assert ([each.id for each in page.items], page.total) == ([second.id], 2)
    page = await rig.fleet.campaigns.list(limit=1, cursor=page.next_cursor)
    assert [each.id for each in page.items] == [first.id]
    assert [each.id for each in (await rig.fleet.campaigns.list(status="draft")).items] == [second.id]
    assert await rig.fleet.campaigns.running() == 1
    jobs = await rig.fleet.campaigns.jobs(first.id, limit=3)
    assert ([each.device_id for each in jobs.items], jobs.total) == (["d0", "d1", "d2"], 5)
    jobs = await rig.fleet.campaigns.jobs(first.id, limit=3, cursor=jobs.next_cursor)
    assert [each.device_id for each in jobs.items] == ["d3", "d4"]
    assert (await rig.fleet.campaigns.jobs(first.id, status="failed")).items == []
    assert orjson.loads(orjson.dumps(first.json()))["timeouts"]["offered_s"] == 100


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"status": "downloading"}, "unsupported_value"),
        ({"job": 7, "status": "downloading"}, "unsupported_value"),
        ({"job": "nothing", "status": "downloading"}, "unknown_job"),
        ({"job": "nothing-99999999999", "status": "downloading"}, "unknown_job"),
        ({"job": "JOB", "status": "flying"}, "unsupported_value"),
        ({"job": "JOB"}, "unsupported_value"),
        ({"job": "JOB", "status": "downloading", "progress": -1}, "unsupported_value"),
    ],
)
async def test_odd_reports_are_refused(lite: Rig, report: dict[str, object], reason: str) -> None:
    campaign = await _running(lite)
    if report.get("job") == "JOB":
        report = report | {"job": (await _job(lite, campaign)).id}
    outcome = await lite.uplink("ota/status", report)
    assert (outcome.code, outcome.reason) == (ReasonCode.PAYLOAD_FORMAT_INVALID, reason)


async def test_another_devices_job_is_unknown(lite: Rig) -> None:
    campaign = await _running(lite)
    await lite.device("other")
    job = await _job(lite, campaign)
    outcome = await lite.uplink("ota/status", {"job": job.id, "status": "failed"}, device_id="other")
    assert outcome.reason == "unknown_job"
    assert (await _job(lite, campaign)).status == "offered"


# Downloads


async def test_chunks_over_mqtt(rig: Rig) -> None:
    campaign = await _running(rig)
    job = await _job(rig, campaign)
    rig.gateway.sent.clear()
    content, offset = b"", 0
    while offset < campaign.artifact.size:
        outcome = await rig.uplink("ota/chunk/get", {"job": job.id, "offset": offset, "length": 3000})
        assert outcome.code is ReasonCode.SUCCESS
        _, channel, chunk = rig.gateway.sent[-1]
        assert channel == f"ota/chunk/{job.id}/{offset}"
        content += chunk
        offset += 3000
    assert content == b"firmware" * 1000


@pytest.mark.parametrize(
    "request_",
    [
        {"offset": 0, "length": 0},
        {"offset": 0, "length": 65_537},
        {"offset": -1, "length": 1},
        {"offset": 8000, "length": 1},
        {"offset": 10**30, "length": 1},
        {"offset": 1.5, "length": 1},
        {"offset": True, "length": 1},
        {"offset": 0},
        {"job": "nothing", "offset": 0, "length": 1},
        {"job": None, "offset": 0, "length": 1},
    ],
)
async def test_odd_chunks_are_refused(lite: Rig, request_: dict[str, Any]) -> None:
    campaign = await _running(lite)
    lite.gateway.sent.clear()
    body = {"job": (await _job(lite, campaign)).id} | request_
    outcome = await lite.uplink("ota/chunk/get", body if body["offset"] != 10**30 else b'{"job":"x","offset":1e30}')
    assert outcome.code.is_error
    assert lite.gateway.sent == []


async def test_only_an_offered_artifact_can_be_had_and_only_until_the_end(rig: Rig) -> None:
    campaign = await _running(rig, online=False)
    artifact, job = campaign.artifact, await _job(rig, campaign)
    other = await rig.artifact("9.9")
    chunk = {"job": job.id, "offset": 0, "length": 10}
    desk = rig.fleet.desk
    assert await desk.artifact("pump-7", artifact.id) is None, "not offered yet"
    assert (await rig.uplink("ota/chunk/get", chunk)).reason == "unknown_job"
    await rig.connect()
    file = await desk.artifact("pump-7", artifact.id)
    assert file is not None
    assert (file.size, file.sha256, file.name) == (8000, artifact.sha256, "pump-1.1.0.bin")
    assert file.path.read_bytes() == b"firmware" * 1000
    assert (await rig.uplink("ota/chunk/get", chunk)).code is ReasonCode.SUCCESS
    assert await desk.artifact("pump-7", other) is None
    await rig.device("stranger")
    assert await desk.artifact("stranger", artifact.id) is None
    assert (await rig.uplink("ota/chunk/get", chunk, device_id="stranger")).reason == "unknown_job"
    await rig.fleet.campaigns.abort(ANNA, campaign.id)
    assert await desk.artifact("pump-7", artifact.id) is None
    assert (await rig.uplink("ota/chunk/get", chunk)).reason == "unknown_job"


async def test_a_damaged_file_reaches_no_device(lite: Rig) -> None:
    campaign = await _running(lite)
    job = await _job(lite, campaign)
    path = await lite.fleet.artifacts.file(campaign.artifact.id)
    path.write_bytes(b"X" * 8000)
    lite.gateway.sent.clear()
    assert await lite.fleet.desk.artifact("pump-7", campaign.artifact.id) is None
    outcome = await lite.uplink("ota/chunk/get", {"job": job.id, "offset": 0, "length": 10})
    assert outcome.code is ReasonCode.SERVER_BUSY
    assert lite.gateway.sent == []


# Shorthand


async def _campaign(rig: Rig, *, devices: Any = ("pump-7",)) -> Campaign:
    for device in devices:
        await rig.device(device)
        await rig.uplink("twin/reported", {"firmware": {"version": "1.0.0"}}, device_id=device)
    artifact = await rig.artifact()
    return await rig.fleet.campaigns.create(
        ANNA, name="Spring", artifact_id=artifact, devices=devices, timeouts=TIMEOUTS
    )


async def _running(rig: Rig, *, devices: Any = ("pump-7",), online: bool = True) -> Campaign:
    campaign = await _campaign(rig, devices=devices)
    if online:
        for device in devices:
            await rig.connect(device)
    campaign = await rig.fleet.campaigns.start(ANNA, campaign.id)
    await rig.settle()
    return campaign


async def _another(rig: Rig, version: str, *, devices: Any = ("pump-7",), start: bool = True) -> Campaign:
    artifact = await rig.artifact(version)
    campaign = await rig.fleet.campaigns.create(ANNA, name=version, artifact_id=artifact, devices=devices)
    return await rig.fleet.campaigns.start(ANNA, campaign.id) if start else campaign


async def _job(rig: Rig, campaign: Campaign) -> Job:
    return (await rig.fleet.campaigns.jobs(campaign.id)).items[0]


async def _report(rig: Rig, job: Job, **report: object) -> ReasonCode:
    return (await rig.uplink("ota/status", {"job": job.id, **report})).code

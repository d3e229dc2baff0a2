"""The update agent: every update ends, on the new version or on the old one."""

from typing import Any

import pytest

from firmware_sim.luck import Fault, Luck
from firmware_sim.update import MAX_TRIES
from tests.sim.benches import DIGEST, IMAGE, NOW, Bench, offer

WAYS = pytest.mark.parametrize("by_chunks", [False, True], ids=["http", "chunks"])
HAPPY = ["downloading", "verifying", "installing", "rebooting", "succeeded"]


def steps(bench: Bench) -> list[str]:
    """The states in order, each once in a row."""
    statuses = bench.statuses()
    return [status for index, status in enumerate(statuses) if index == 0 or statuses[index - 1] != status]


def unlucky(fault: Fault) -> Luck:
    return Luck(seed=1, device_id="sim-0001", rate=1.0, faults=(fault,))


@WAYS
def test_an_offer_is_downloaded_verified_installed_and_reported(by_chunks: bool) -> None:
    bench = Bench(by_chunks=by_chunks)
    bench.tell("ota/offer", offer())
    bench.run(60)
    assert steps(bench) == HAPPY
    assert bench.on("ota/status")[-1] == {"job": "J1", "status": "succeeded", "version": "1.1.0", "progress": 100}
    assert bench.device.firmware == "1.1.0"
    assert {"firmware": {"version": "1.1.0"}} in bench.on("twin/reported")
    progress = [fields["progress"] for fields in bench.on("ota/status") if fields["status"] == "downloading"]
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert len(progress) > 3


def test_the_new_version_is_reported_only_after_the_reboot() -> None:
    bench = Bench()
    bench.tell("ota/offer", offer())
    while not bench.restarts:
        bench._serve()
        bench.now = bench.device.due
        bench.do(bench.device.tick)
    assert bench.statuses()[-1] == "rebooting"
    assert bench.device.firmware == "1.0.0"
    assert bench.restarts[0].orderly


@WAYS
def test_a_wrong_digest_fails_and_the_old_version_stays(by_chunks: bool) -> None:
    bench = Bench(by_chunks=by_chunks)
    bench.tell("ota/offer", offer(digest="0" * 64))
    bench.run(60)
    assert steps(bench) == ["downloading", "verifying", "failed"]
    assert bench.on("ota/status")[-1]["error"] == f"sha256 is {DIGEST}, expected {'0' * 64}"
    assert bench.device.firmware == "1.0.0"
    assert bench.restarts == []


RESUMING = [Fault.INTERRUPTED, Fault.POWER_CUT_DOWNLOADING, Fault.POWER_CUT_RESUMES]
FAILING = {
    Fault.CORRUPT: "sha256 is",
    Fault.POWER_CUT_ROLLS_BACK: "power was lost while installing, stayed on 1.0.0",
    Fault.INSTALL_FAILS: "writing the second slot failed",
    Fault.BOOT_FAILS: "1.1.0 did not boot, went back to 1.0.0",
}


@WAYS
@pytest.mark.parametrize("fault", RESUMING)
def test_trouble_that_a_device_gets_over(fault: Fault, by_chunks: bool) -> None:
    bench = Bench(by_chunks=by_chunks, luck=unlucky(fault))
    bench.tell("ota/offer", offer())
    bench.run(120)
    assert bench.statuses()[-1] == "succeeded"
    assert bench.device.firmware == "1.1.0"


@WAYS
@pytest.mark.parametrize("fault", FAILING)
def test_trouble_that_ends_an_update(fault: Fault, by_chunks: bool) -> None:
    bench = Bench(by_chunks=by_chunks, luck=unlucky(fault))
    bench.tell("ota/offer", offer())
    bench.run(120)
    last = bench.on("ota/status")[-1]
    assert last["status"] == "failed"
    assert FAILING[fault] in last["error"]
    assert last["version"] == "1.0.0"
    assert bench.device.firmware == "1.0.0"
    bench.tell("ota/offer", offer("J2"))
    assert bench.statuses()[-1] == "downloading"


def test_an_interrupted_download_resumes_where_it_was() -> None:
    bench = Bench(luck=unlucky(Fault.INTERRUPTED))
    bench.answering = False
    bench.tell("ota/offer", offer())
    bench.run(0)
    first = bench.fetches.pop()
    assert first.offset == 0
    for start in range(0, len(IMAGE), 10_000):  # the bytes after the cut are lost with the connection
        bench.do(bench.device.fetched, "J1", start, IMAGE[start : start + 10_000])
        if bench.device.agent.due < 1e12:
            break
    bench.run(10)
    again = bench.fetches.pop()
    assert 0 < again.offset < len(IMAGE)
    assert again.offset % 10_000 == 0


def test_every_power_cut_ends_in_success_or_rollback() -> None:
    """Power goes at each of the moments at which the device does something."""
    for moment in range(1, 30):
        bench = Bench(interval_s=86_400.0)
        bench.tell("ota/offer", offer())
        done = 0
        while bench.device.agent.job is not None and done < moment:
            bench._serve()
            if bench.restarts:
                bench.reboot()
            elif bench.device.agent.job is not None:
                bench.now = bench.device.due
                bench.do(bench.device.tick)
            done += 1
        bench.fetches.clear()
        bench.do(bench.device.disconnected)
        bench.restarts.clear()
        bench.do(bench.device.boot)
        bench.do(bench.device.connected)
        bench.run(120)
        assert bench.statuses()[-1] in ("succeeded", "failed"), moment
        assert bench.device.agent.job is None


def test_a_download_without_answers_gives_up() -> None:
    bench = Bench(by_chunks=True)
    bench.answering = False
    bench.tell("ota/offer", offer())
    bench.run(3_600)
    assert bench.on("ota/status")[-1]["error"] == f"download gave up after {MAX_TRIES} tries: no answer within 10 s"


def test_chunks_wait_for_the_link() -> None:
    bench = Bench(by_chunks=True)
    bench.answering = False
    bench.tell("ota/offer", offer())
    bench.run(1)
    bench.do(bench.device.disconnected)
    bench.run(3_600)
    bench.answering = True
    bench.do(bench.device.connected)
    bench.run(60)
    assert bench.statuses()[-1] == "succeeded"


def test_late_and_doubled_bytes_are_passed_over() -> None:
    bench = Bench(by_chunks=True)
    bench.answering = False
    bench.tell("ota/offer", offer())
    for offset, data in [
        (500, b"late"),
        (0, IMAGE[:1000]),
        (0, IMAGE[:1000]),
        (400, IMAGE[400:900]),
        (1000, IMAGE[1000:]),
    ]:
        bench.do(bench.device.receive, f"ota/chunk/J1/{offset}", data)
    bench.do(bench.device.receive, "ota/chunk/J9/0", IMAGE)
    bench.answering = True
    bench.run(60)
    assert bench.statuses()[-1] == "succeeded"


def test_a_server_without_ranges_makes_the_download_begin_again() -> None:
    bench = Bench()
    bench.answering = False
    bench.tell("ota/offer", offer())
    bench.run(0)
    bench.do(bench.device.fetched, "J1", 0, IMAGE[:5_000])
    bench.take(bench.device.fetch_ended("J1", "reset", bench.now))
    bench.do(bench.device.fetched, "J1", 0, IMAGE)
    bench.run(60)
    assert bench.statuses()[-1] == "succeeded"


def test_more_bytes_than_announced_fail() -> None:
    bench = Bench()
    bench.tell("ota/offer", offer())
    bench.do(bench.device.fetched, "J1", 0, IMAGE + b"!")
    assert "more bytes than" in bench.on("ota/status")[-1]["error"]


def test_a_refused_download_fails_at_once() -> None:
    bench = Bench()
    bench.tell("ota/offer", offer())
    bench.take(bench.device.fetch_ended("J1", "the server answered 404", bench.now, for_good=True))
    assert bench.on("ota/status")[-1]["error"] == "download refused: the server answered 404"


def test_the_same_offer_again_is_answered_and_not_done_again() -> None:
    bench = Bench()
    bench.answering = False
    bench.tell("ota/offer", offer())
    bench.run(1)
    bench.tell("ota/offer", offer())
    assert bench.statuses() == ["downloading", "downloading"]
    assert len(bench.fetches) == 1
    bench.answering = True
    bench.run(60)
    bench.said.clear()
    bench.tell("ota/offer", offer())
    assert bench.statuses() == ["succeeded"]


def test_a_newer_offer_supersedes_a_download() -> None:
    bench = Bench()
    bench.answering = False
    bench.tell("ota/offer", offer())
    bench.run(1)
    bench.fetches.clear()
    bench.answering = True
    bench.tell("ota/offer", offer("J2", "1.2.0"))
    bench.run(60)
    ends = [
        (fields["job"], fields["status"])
        for fields in bench.on("ota/status")
        if fields["status"] in ("failed", "succeeded")
    ]
    assert ends == [("J1", "failed"), ("J2", "succeeded")]
    assert bench.device.firmware == "1.2.0"


def test_an_offer_that_comes_while_installing_waits() -> None:
    bench = Bench()
    bench.tell("ota/offer", offer())
    while bench.device.agent.step != "installing":
        bench._serve()
        bench.now = bench.device.due
        bench.do(bench.device.tick)
    bench.tell("ota/offer", offer("J2", "1.2.0"))
    bench.run(120)
    ends = [
        (fields["job"], fields["status"])
        for fields in bench.on("ota/status")
        if fields["status"] in ("failed", "succeeded")
    ]
    assert ends == [("J1", "succeeded"), ("J2", "succeeded")]


def test_the_version_it_has_is_a_success_without_a_download() -> None:
    bench = Bench()
    bench.tell("ota/offer", offer(version="1.0.0"))
    assert bench.statuses() == ["succeeded"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": None}, "offer without a version"),
        ({"artifact": "x"}, "offer without an artifact"),
        ({"artifact": {"id": "../etc", "size": 1, "sha256": DIGEST}}, "offer without an artifact id"),
        ({"artifact": {"id": "A1", "size": -1, "sha256": DIGEST}}, "offer with a size that is no number above 0"),
        ({"artifact": {"id": "A1", "size": True, "sha256": DIGEST}}, "offer with a size that is no number above 0"),
        ({"artifact": {"id": "A1", "size": 1, "sha256": "abc"}}, "offer with a sha256 that is none"),
        ({"artifact": {"id": "A1", "size": 10**9, "sha256": DIGEST}}, "1000000000 bytes do not fit into 1000000"),
        ({"deadline": int(NOW * 1000) - 1}, "the deadline had passed when the offer came"),
    ],
)
def test_offers_that_make_no_sense_are_rejected(change: dict[str, Any], error: str) -> None:
    bench = Bench()
    bench.tell("ota/offer", offer() | change)
    assert bench.on("ota/status") == [{"job": "J1", "status": "rejected", "error": error}]


def test_an_offer_without_a_job_cannot_be_answered() -> None:
    bench = Bench()
    bench.tell("ota/offer", {"version": "1.1.0"})
    assert bench.on("ota/status") == []
    assert bench.device.unreadable == 1


def test_the_share_of_unlucky_updates_is_as_asked() -> None:
    luck = Luck(seed=1, device_id="sim-0001", rate=0.3)
    faults = [luck.fault(f"J{number}") for number in range(2_000)]
    assert 0.25 < sum(fault is not None for fault in faults) / 2_000 < 0.35
    assert {fault for fault in faults if fault} == set(Fault)
    assert faults == [luck.fault(f"J{number}") for number in range(2_000)]

"""A device without its radio: measuring, the twin, commands, the outbox."""

import itertools
from typing import Any

import pytest

from firmware_sim.outbox import Message, Outbox, Sample
from firmware_sim.signals import Kind
from tests.sim.benches import NOW, Bench


def test_measures_every_interval_with_timestamps() -> None:
    bench = Bench(interval_s=10.0)
    bench.run(100)
    stamps = [fields["ts"] for fields in bench.on("telemetry")]
    assert len(stamps) == 10
    assert {b - a for a, b in itertools.pairwise(stamps)} == {10_000}
    assert set(bench.on("telemetry")[0]["values"]) == {"temperature", "pressure", "vibration", "flow", "running"}


def test_cbor_goes_to_its_own_channel() -> None:
    bench = Bench(interval_s=10.0, cbor=True)
    bench.run(10)
    assert bench.on("telemetry/cbor")[0]["values"]["temperature"]


def test_a_late_clock_does_not_send_a_burst() -> None:
    bench = Bench(interval_s=10.0)
    bench.now += 1_000
    bench.run(30)
    assert len(bench.on("telemetry")) <= 5


def test_introduces_itself_after_boot_and_connect() -> None:
    bench = Bench()
    bench.do(bench.device.disconnected)
    bench.do(bench.device.boot)
    bench.do(bench.device.connected)
    assert [channel for channel, _ in bench.said] == ["twin/reported", "events", "twin/reported"]
    assert bench.said[2][1]["firmware"] == {"version": "1.0.0"}


def test_samples_made_offline_are_sent_together() -> None:
    bench = Bench(interval_s=1.0)
    bench.do(bench.device.disconnected)
    bench.run(50)
    assert bench.said == []
    bench.do(bench.device.connected)
    sizes = [len(batch) for batch in bench.on("telemetry")]
    assert sum(sizes) == 50
    assert max(sizes) == 20


def test_some_messages_are_malformed_when_asked_for() -> None:
    bench = Bench(interval_s=1.0, malformed_rate=0.5)
    bench.run(100)
    good = [
        fields
        for fields in bench.on("telemetry")
        if isinstance(fields, dict) and "values" in fields and fields["ts"] > 5
    ]
    assert len(good) == 100
    assert 30 < len(bench.on("telemetry")) - len(good) < 70


@pytest.mark.parametrize(
    ("delta", "reported"),
    [
        ({"interval_s": 2}, {"interval_s": 2}),
        ({"led": "on", "setpoint": -21.5}, {"led": "on", "setpoint": -21.5}),
        ({"limits": {"high": 80}}, {"limits": {"high": 80}}),
    ],
)
def test_desired_settings_are_applied_and_reported(delta: dict[str, Any], reported: dict[str, Any]) -> None:
    bench = Bench(Kind.COLD_STORE)
    bench.tell("twin/desired", {"version": 3, "delta": delta})
    assert bench.on("twin/reported") == [reported]
    assert reported.items() <= bench.device.reported.items()


@pytest.mark.parametrize(
    "delta",
    [
        {"interval_s": 0},
        {"interval_s": "often"},
        {"interval_s": True},
        {"firmware": {"version": "9"}},
        {"x": "y" * 9_000},
    ],
)
def test_settings_that_make_no_sense_are_refused_with_an_event(delta: dict[str, Any]) -> None:
    bench = Bench()
    bench.tell("twin/desired", {"version": 3, "delta": delta})
    assert bench.on("twin/reported") == []
    assert bench.on("events")[0]["level"] == "warning"


def test_a_shorter_interval_counts_at_once() -> None:
    bench = Bench(interval_s=3_600.0)
    bench.tell("twin/desired", {"version": 1, "delta": {"interval_s": 1}})
    bench.run(10)
    assert len(bench.on("telemetry")) == 10


def test_a_late_delta_is_dropped_until_the_next_connection() -> None:
    bench = Bench()
    bench.tell("twin/desired", {"version": 5, "delta": {"led": "on"}})
    bench.tell("twin/desired", {"version": 4, "delta": {"led": "off"}})
    assert bench.device.reported["led"] == "on"
    bench.do(bench.device.connected)
    bench.tell("twin/desired", {"version": 1, "delta": {"led": "off"}})
    assert bench.device.reported["led"] == "off"


def test_the_whole_twin_is_compared_with_what_the_device_has() -> None:
    bench = Bench()
    desired = {"interval_s": 7, "led": "off", "limits": {"low": 1}}
    bench.tell("twin", {"desired": desired, "reported": {"interval_s": 7}, "version": 2})
    assert bench.on("twin/reported") == [{"interval_s": 7, "limits": {"low": 1}}]


COMMANDS: list[tuple[dict[str, Any], list[str], dict[str, Any]]] = [
    (
        {"name": "identify", "params": {"seconds": 1}},
        ["accepted", "running", "succeeded"],
        {"result": {"blinked_s": 1}},
    ),
    (
        {"name": "set_interval", "params": {"interval_s": 2.5}},
        ["accepted", "running", "succeeded"],
        {"result": {"interval_s": 2.5}},
    ),
    ({"name": "self_test"}, ["accepted", *["running"] * 5, "succeeded"], {"progress": 100}),
    (
        {"name": "fail_test", "params": None},
        ["accepted", "running", "running", "failed"],
        {"error": "sensor 2 does not answer"},
    ),
    ({"name": "set_interval", "params": {"interval_s": -1}}, ["rejected"], {}),
    ({"name": "set_interval", "params": {"interval_s": float("nan")}}, ["rejected"], {}),
    ({"name": "set_interval", "params": []}, ["rejected"], {"error": "params must be an object"}),
    ({"name": "dance"}, ["rejected"], {}),
    ({"params": {}}, ["rejected"], {"error": "a command needs a name"}),
    ({"name": "identify", "expires_at": int(NOW * 1000) - 1}, ["rejected"], {}),
    ({"name": "no_reply"}, [], {}),
]


@pytest.mark.parametrize(("command", "statuses", "last"), COMMANDS)
def test_commands_are_answered(command: dict[str, Any], statuses: list[str], last: dict[str, Any]) -> None:
    bench = Bench(interval_s=86_400.0)
    bench.tell("commands/C1", command)
    bench.run(30)
    said = bench.on("commands/C1/status")
    assert [fields["status"] for fields in said] == statuses
    assert not said or last.items() <= said[-1].items()


def test_set_interval_is_reported_in_the_twin() -> None:
    bench = Bench()
    bench.tell("commands/C1", {"name": "set_interval", "params": {"interval_s": 2.5}})
    bench.run(2)
    assert {"interval_s": 2.5} in bench.on("twin/reported")


def test_self_test_makes_progress() -> None:
    bench = Bench()
    bench.tell("commands/C1", {"name": "self_test"})
    bench.run(5)
    progress = [fields["progress"] for fields in bench.on("commands/C1/status") if "progress" in fields]
    assert progress == [0, 20, 40, 60, 80, 100]


def test_a_command_delivered_twice_is_done_once() -> None:
    bench = Bench()
    for _ in range(2):
        bench.tell("commands/C1", {"name": "identify", "params": {"seconds": 1}})
        bench.run(5)
    statuses = [fields["status"] for fields in bench.on("commands/C1/status")]
    assert statuses == ["accepted", "running", "succeeded", "succeeded"]
    assert bench.device.commands.ended == {"succeeded": 1}


def test_reboot_succeeds_after_the_boot_and_ends_what_else_was_going_on() -> None:
    bench = Bench()
    bench.tell("commands/C1", {"name": "identify", "params": {"seconds": 60}})
    bench.tell("commands/C2", {"name": "reboot"})
    bench.run(30)
    assert [fields["status"] for fields in bench.on("commands/C2/status")] == ["accepted", "running", "succeeded"]
    assert bench.on("commands/C1/status")[-1] == {"status": "failed", "error": "the device restarted"}
    assert any("started with firmware" in fields["message"] for fields in bench.on("events"))


def test_more_than_four_commands_at_once_are_rejected() -> None:
    bench = Bench()
    for number in range(5):
        bench.tell(f"commands/C{number}", {"name": "identify"})
    assert [bench.on(f"commands/C{number}/status")[0]["status"] for number in range(5)] == ["accepted"] * 4 + [
        "rejected"
    ]


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"\xff", b"null", b'{"a": NaN}'])
@pytest.mark.parametrize("channel", ["commands/C1", "twin", "twin/desired", "ota/offer"])
def test_unreadable_downlinks_are_counted_and_logged(channel: str, payload: bytes) -> None:
    bench = Bench()
    bench.do(bench.device.receive, channel, payload)
    assert bench.device.unreadable == 1
    assert bench.on("events")[0]["message"] == "a message could not be read"


@pytest.mark.parametrize("channel", ["", "status", "commands/", "ota/chunk/", "ota/chunk/J1/x", "somewhere/else"])
def test_other_downlinks_are_passed_over(channel: str) -> None:
    bench = Bench()
    bench.do(bench.device.receive, channel, b"{}")
    assert bench.said == []


def test_outbox_keeps_its_head_until_acknowledged() -> None:
    outbox = Outbox()
    outbox.say("events", {"n": 1})
    outbox.say("events", {"n": 2})
    assert outbox.head() is outbox.head()
    outbox.acknowledged()
    assert outbox.head() == Message(channel="events", payload=b'{"n":2}')


def test_outbox_drops_the_oldest_sample_before_any_report() -> None:
    outbox = Outbox(limit=3)
    outbox.say("ota/status", {"status": "failed"})
    for n in range(5):
        outbox.add(Sample(ts_ms=n, values={"a": n}))
    assert (len(outbox), outbox.dropped) == (3, 3)
    report = outbox.head()
    assert report is not None
    assert report.channel == "ota/status"
    outbox.acknowledged()
    telemetry = outbox.head()
    assert telemetry is not None
    assert telemetry.payload == b'[{"ts":3,"values":{"a":3}},{"ts":4,"values":{"a":4}}]'
    assert telemetry.readings == 2


def test_outbox_forgets_a_channel() -> None:
    outbox = Outbox()
    outbox.say("ota/chunk/get", {})
    outbox.say("events", {})
    outbox.head()
    outbox.forget("ota/chunk/get")
    message = outbox.head()
    assert message is not None
    assert message.channel == "events"
    assert len(outbox) == 1

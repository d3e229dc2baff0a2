"""The telemetry lane: what is stored, what is refused and how, in which order, and what the bus sees."""

import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import cbor2
import orjson
import pytest

from broker.reason import ReasonCode
from gateway.bus import Bus
from gateway.decode import Undecodable
from gateway.frames import Readings, frames_of
from gateway.ingest import Ingest, ProfileOf, Stamps, no_profile
from gateway.journal import Entry, Journal, JournalOptions
from gateway.kinds import Fixed, Kinds
from gateway.link import Outcome, Uplink
from gateway.meter import Meter
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from gateway.readings import Kind, Reading
from gateway.recent import Recent, Row, Summary, device_bits
from tests.gateway.fakes import START_MS, Answers, Clock, uplink


class Lane:
    def __init__(self, path: Path, clock: Clock, profile_of: ProfileOf = no_profile, **options: object) -> None:
        self.bus = Bus()
        self.journal = Journal(path, JournalOptions(**options), now_ms=clock.now_ms, monotonic=clock.monotonic)  # type: ignore[arg-type]
        self.rows: list[Row] = []
        self.refused: list[tuple[Uplink, Outcome]] = []
        self.kept_since_ms: dict[str, int] = {}
        self.ingest = Ingest(
            self.journal,
            self.bus,
            now_ms=clock.now_ms,
            kinds=Kinds(self.journal.kinds_of, metrics_per_device=3),
            kept_since_ms=lambda device_id: self.kept_since_ms.get(device_id, 0),
            refused=lambda up, outcome: self.refused.append((up, outcome)),
            profile_of=profile_of,
        )
        self.journal.on_commit = self.committed

    def committed(self, row: Row, fixed: list[Fixed]) -> None:
        self.rows.append(row)
        self.ingest.kinds.settle(fixed)

    async def send(self, *uplinks: Uplink) -> list[Outcome]:
        answers = Answers()
        self.ingest.uplinks(uplinks, answers)
        return await answers.wait()

    @property
    def stored(self) -> list[tuple[str, str, object]]:
        return [(r.device_id, r.metric, r.value) for row in self.rows for r in Readings(row.frames)]


@pytest.fixture
async def lane(tmp_path: Path, clock: Clock) -> AsyncIterator[Lane]:
    lane = Lane(tmp_path / "journal.db", clock)
    await lane.journal.open()
    yield lane
    await lane.journal.close()


async def test_a_batch_is_stored_in_order_and_answered_one_for_one(lane: Lane) -> None:
    outcomes = await lane.send(
        uplink("a", b'{"t": 1, "u": "x"}'),
        uplink("b", b"nonsense"),
        uplink("b", cbor2.dumps({"t": True}), channel="telemetry/cbor"),
        uplink("b", cbor2.dumps({"t": False}), content_type="application/cbor"),
        uplink("c", b"{}"),
    )
    assert [outcome.reason for outcome in outcomes] == ["", "invalid_json", "", "", ""]
    assert outcomes[1].code is ReasonCode.PAYLOAD_FORMAT_INVALID
    assert lane.stored == [("a", "t", 1), ("a", "u", "x"), ("b", "t", True), ("b", "t", False)]
    assert [(up.device_id, outcome.reason) for up, outcome in lane.refused] == [("b", "invalid_json")]


async def test_batches_are_answered_in_the_order_they_came(lane: Lane) -> None:
    order: list[int] = []
    for number in range(20):
        payload = b'{"t": 1}' if number % 3 else b"nonsense"
        lane.ingest.uplinks([uplink("a", payload)], lambda outcomes, n=number: order.append(n))  # type: ignore[misc]
    await lane.journal.barrier()
    assert order == list(range(20))


async def test_a_changed_type_refuses_that_metric_alone(lane: Lane) -> None:
    await lane.send(uplink("a", b'{"t": 1, "u": "x"}'))
    (outcome,) = await lane.send(uplink("a", b'{"t": 2.5, "u": 5}'))
    assert outcome.code is ReasonCode.SUCCESS
    assert outcome.data == {
        "refused": [{"metric": "u", "reason": "type_changed", "detail": "u is a text, not a number"}]
    }
    (outcome,) = await lane.send(uplink("a", b'{"u": true}'))
    assert (outcome.code, outcome.reason) == (ReasonCode.PAYLOAD_FORMAT_INVALID, "type_changed")
    await lane.send(uplink("b", b'{"u": 5}'))  # another device is free
    assert lane.stored == [("a", "t", 1), ("a", "u", "x"), ("a", "t", 2.5), ("b", "u", 5)]
    assert [outcome.reason for _, outcome in lane.refused] == ["type_changed"] * 2


KEPT_SINCE_MS = START_MS - 2 * 86_400_000
OLD = b'{"ts": %d, "values": {"t": 1}}' % (KEPT_SINCE_MS - 1)
FRESH = b'{"ts": %d, "values": {"t": 2}}' % KEPT_SINCE_MS
SENML_OLD = b'[{"n": "t", "t": -172801, "v": 1}]'


@pytest.mark.parametrize("before", [[], [FRESH]], ids=["first", "known"])  # the short way is for metrics that are known
@pytest.mark.parametrize(
    ("channel", "payload"),
    [("telemetry", OLD), ("telemetry", b"[" + OLD + b"]"), ("telemetry/senml", SENML_OLD)],
)
async def test_what_is_older_than_the_store_keeps_is_refused(
    lane: Lane, before: list[bytes], channel: str, payload: bytes
) -> None:
    lane.kept_since_ms["a"] = KEPT_SINCE_MS
    for each in before:
        await lane.send(uplink("a", each))
    kept = list(lane.stored)
    (outcome,) = await lane.send(uplink("a", payload, channel=channel))
    assert (outcome.code, outcome.reason) == (ReasonCode.PAYLOAD_FORMAT_INVALID, "too_old")
    assert outcome.detail == "readings are kept since 2025-11-11 02:13 UTC"
    assert outcome.retry_after_s is None  # it will not become younger
    assert [refused.reason for _, refused in lane.refused] == ["too_old"]
    assert lane.stored == kept
    (outcome,) = await lane.send(uplink("b", payload, channel=channel))  # kept for longer
    assert not outcome.code.is_error


async def test_of_a_buffer_that_is_sent_late_what_is_not_too_old_is_stored(lane: Lane) -> None:
    lane.kept_since_ms["a"] = KEPT_SINCE_MS
    (outcome,) = await lane.send(uplink("a", b"[" + b",".join([OLD, FRESH, OLD]) + b"]"))
    assert outcome.code is ReasonCode.SUCCESS
    assert [part["reason"] for part in outcome.data["refused"]] == ["too_old"] * 2
    assert [outcome.reason for _, outcome in lane.refused] == ["too_old"]  # one letter for both
    assert lane.stored == [("a", "t", 2)]


async def test_among_plain_messages_of_one_device_the_too_old_one_is_refused_alone(lane: Lane) -> None:
    lane.kept_since_ms["a"] = KEPT_SINCE_MS
    await lane.send(uplink("a", FRESH))
    outcomes = await lane.send(*(uplink("a", payload) for payload in (FRESH, OLD, FRESH)))
    assert [outcome.reason for outcome in outcomes] == ["", "too_old", ""]
    assert lane.stored == [("a", "t", 2)] * 3


async def test_a_reading_that_is_too_old_fixes_no_kind_and_its_time_still_tells_of_the_clock(lane: Lane) -> None:
    lane.kept_since_ms["a"] = KEPT_SINCE_MS
    await lane.send(uplink("a", OLD))
    assert lane.ingest.clocks.skew_ms("a") == KEPT_SINCE_MS - 1 - START_MS
    (outcome,) = await lane.send(uplink("a", b'{"t": "text"}'))
    assert not outcome.code.is_error


async def test_kinds_outlive_a_restart(lane: Lane, tmp_path: Path, clock: Clock) -> None:
    await lane.send(uplink("a", b'{"t": 1}'))
    await lane.journal.close()
    again = Lane(tmp_path / "journal.db", clock)
    await again.journal.open()
    (outcome,) = await again.send(uplink("a", b'{"t": "hot"}'))
    assert outcome.reason == "type_changed"
    (outcome,) = await again.send(uplink("a", b'{"t": 3}'))
    assert outcome.reason == ""
    await again.journal.close()


async def test_a_device_has_a_largest_number_of_metrics(lane: Lane) -> None:
    (outcome,) = await lane.send(uplink("a", b'{"m1": 1, "m2": 1, "m3": 1, "m4": 1, "m5": 1}'))
    assert outcome.code is ReasonCode.SUCCESS
    assert [(device, metric) for device, metric, _ in lane.stored] == [("a", "m1"), ("a", "m2"), ("a", "m3")]
    assert [outcome.reason for _, outcome in lane.refused] == ["too_many_metrics"]  # one for both
    (outcome,) = await lane.send(uplink("a", b'{"m6": 1}'))
    assert (outcome.code, outcome.reason) == (ReasonCode.QUOTA_EXCEEDED, "too_many_metrics")
    assert outcome.retry_after_s is None
    (outcome,) = await lane.send(uplink("a", b'{"m1": 2}'))
    assert outcome.reason == ""


async def test_a_kind_whose_reading_was_refused_is_not_fixed(tmp_path: Path, clock: Clock) -> None:
    lane = Lane(tmp_path / "journal.db", clock, pending_limit_bytes=100)
    await lane.journal.open()
    (outcome,) = await lane.send(uplink("a", b'{"t": 1}'))
    assert (outcome.code, outcome.reason) == (ReasonCode.QUOTA_EXCEEDED, "held_back")
    assert lane.ingest.kinds.sort("a", [Reading("a", "t", 1, "text")]).unfit == []
    assert lane.stored == []
    await lane.journal.close()


async def test_messages_without_a_time_stay_apart(lane: Lane, clock: Clock) -> None:
    await lane.send(*(uplink("a", b'{"t": %d}' % n) for n in range(5)), uplink("b", b'{"t": 1}'))
    times = [frame.times[0] for row in lane.rows for frame in row.frames]
    assert times == [clock.ms + n for n in range(5)] + [clock.ms]
    clock.move(1)
    await lane.send(uplink("a", b'{"t": 9}'))
    assert lane.rows[-1].frames[0].times[0] == clock.ms


def test_a_device_cannot_run_far_ahead_of_the_clock() -> None:
    stamps = Stamps()
    for _ in range(10_001):
        stamps.next("a", 1_000_000)
    with pytest.raises(Undecodable) as caught:
        stamps.next("a", 1_000_000)
    assert caught.value.reason == "too_fast"
    assert stamps.next("b", 1_000_000) == 1_000_000
    assert stamps.next("a", 1_000_001) == 1_010_001
    assert stamps.next("a", 1_020_000) == 1_020_000


def test_a_clock_set_back_holds_no_device_up() -> None:
    stamps = Stamps()
    assert stamps.next("a", 90_000_000) == 90_000_000
    assert stamps.next("a", 89_999_500) == 90_000_001  # a little: still increasing
    assert stamps.next("a", 5_000_000) == 5_000_000


def test_a_refused_message_has_a_time_of_its_own_and_holds_no_other_up() -> None:
    stamps = Stamps()
    now_ms = 90_000_000
    assert [stamps.of_refused("a", now_ms, now_ms) for _ in range(3)] == [now_ms, now_ms + 1, now_ms + 2]
    assert stamps.next("a", now_ms) == now_ms + 3
    assert (
        stamps.of_refused("a", now_ms - 60_000, now_ms + 60_000) == now_ms - 60_000
    )  # waited too long to be told apart
    assert stamps.of_refused("a", now_ms, 5_000_000) == now_ms  # came before our clock was set back
    assert stamps.next("a", 5_000_000) == 5_000_000


def test_times_given_out_do_not_fill_the_memory() -> None:
    stamps = Stamps()
    for number in range(120_000):
        stamps.next(f"d{number}", 1_000_000 + number // 10)
    assert len(stamps._last) < 60_000


async def test_the_bus_is_told_after_the_acknowledgement_and_only_when_somebody_watches(
    lane: Lane, clock: Clock
) -> None:
    await lane.send(uplink("a", b'{"t": 1}'))
    with lane.bus.subscribe(["telemetry"]) as subscription:
        await lane.send(uplink("a", b'{"ts": 1700000000000, "values": {"t": 2, "u": "x"}}'), uplink("a", b"x"))
        (event,) = subscription.drain()
    assert event.device_id == "a"
    assert event.data == {"readings": [("t", 1700000000000, 2), ("u", 1700000000000, "x")]}


async def test_a_link_that_fails_on_its_acknowledgement_holds_nobody_up(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(outcomes: object) -> None:
        raise RuntimeError("no")

    lane.ingest.uplinks([uplink("a", b'{"t": 1}')], fail)
    assert [o.reason for o in await lane.send(uplink("a", b'{"t": 2}'))] == [""]
    assert "a link failed" in caplog.text


async def test_after_close_everything_is_refused_for_now(lane: Lane) -> None:
    await lane.journal.close()
    (outcome,) = await lane.send(uplink("a", b'{"t": 1}'))
    assert outcome.code is ReasonCode.SERVER_SHUTTING_DOWN
    assert outcome.retry_after_s


# ---- kinds, meter, recent: the small parts


def test_kinds_are_read_again_for_a_device_that_left_the_cache_with_what_is_not_yet_stored() -> None:
    file: dict[str, dict[str, Kind]] = {}
    loads: list[str] = []

    def load(device_id: str) -> dict[str, Kind]:
        loads.append(device_id)
        return dict(file.get(device_id, {}))

    kinds = Kinds(load, devices_cached=2)
    (fixed,) = kinds.sort("a", [Reading("a", "m", 1, 1)]).fixed
    for device_id in ("b", "c"):
        kinds.sort(device_id, [])
    assert kinds.sort("a", [Reading("a", "m", 1, "x")]).unfit[0][1] == "type_changed"
    kinds.settle([fixed])
    file["a"] = {"m": Kind.NUMBER}
    for device_id in ("b", "c"):
        kinds.sort(device_id, [])
    assert kinds.sort("a", [Reading("a", "m", 1, 2)]).unfit == []
    assert loads.count("a") == 3
    assert kinds._unsettled == {}


def test_readings_that_fit_keep_their_order_around_those_that_do_not() -> None:
    kinds = Kinds(lambda device_id: {"b": Kind.TEXT})
    readings = [Reading("d", metric, 1, 1) for metric in "abcba"]
    found = kinds.sort("d", readings)
    assert [r.metric for r in found.fit] == ["a", "c", "a"]
    assert [r.metric for r, _, _ in found.unfit] == ["b", "b"]
    assert [one.metric for one in found.fixed] == ["a", "c"]
    assert len(readings) == 5


def test_a_meter_gives_the_rate_of_the_last_ten_seconds() -> None:
    meter = Meter()
    assert meter.per_s(5.0) == 0
    for second in range(100, 130):
        meter.add(7, second + 0.5)
    assert meter.total == 210
    assert meter.per_s(130.0) == 7
    assert meter.per_s(135.0) == 3.5
    assert meter.per_s(1000.0) == 0
    meter.add(10, 1001.0)
    assert meter.per_s(1002.0) == 1
    young = Meter()
    young.add(4, 50.0)
    assert young.per_s(50.5) == 4
    young.add(4, 51.0)
    assert young.per_s(52.0) == 4


def test_recent_lets_go_of_the_oldest_and_keeps_a_bounded_sketch() -> None:
    recent = Recent(limit_bytes=1000, limit_spans=8)
    for seq in range(1, 101):
        frames = frames_of([Reading(f"d{seq % 10}", "m", seq, seq)])
        summary = Summary(seq, seq * 10, 1, seq, seq, 50, device_bits([f"d{seq % 10}"]))
        recent.add(Row(summary, frames, 200))
    assert recent.readings == 5
    assert recent.bytes == 1000
    assert recent.row(95) is None
    assert recent.row(96) is not None
    assert recent.at_ms(96) == 960
    at = recent.at_ms(40)
    assert at is not None
    assert at <= 400
    spans = recent.spans("d3", 0, 1000)
    assert len(spans) <= 8
    covered = {seq for first, last in spans for seq in range(first, last + 1)}
    assert {seq for seq in range(1, 96) if seq % 10 == 3} <= covered
    assert all(first <= 20 for first, _ in recent.spans("d3", 0, 20))
    recent.forget(98)
    assert recent.spans("d3", 0, 1000) == []
    assert recent.readings == 2
    assert [r.ts_ms for r in recent.of_device("d9")] == [99]
    recent.forget_device("d9", 99)
    assert list(recent.of_device("d9")) == []
    recent.forget(100)
    assert (recent.bytes, recent.readings, recent._by_device) == (0, 0, {})


async def test_what_a_compressed_message_holds_counts_against_the_journals_memory(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[int] = []
    append = lane.journal.append

    def noting(entry: Entry) -> None:
        costs.append(entry.cost)
        append(entry)

    monkeypatch.setattr(lane.journal, "append", noting)
    text = "x" * 1000
    await lane.send(uplink("a", zlib.compress(orjson.dumps({"t": text, "u": text, "v": text}))))
    assert costs[0] > 3000


async def test_a_profile_is_asked_for_once_a_batch_of_one_device_and_reads_what_it_declares(
    tmp_path: Path, clock: Clock
) -> None:
    asked: list[str] = []
    strict = CompiledProfile(
        Profile.model_validate({"name": "p", "telemetry": {"metrics": {"t": {"max": 50}}, "unknown_metrics": "refuse"}})
    )

    def profile_of(device_id: str) -> CompiledProfile | None:
        asked.append(device_id)
        return strict if device_id == "strict" else None

    lane = Lane(tmp_path / "journal.db", clock, profile_of=profile_of)
    await lane.journal.open()
    plain = orjson.dumps({"ts": clock.now_ms(), "values": {"t": 51}})
    await lane.send(uplink("plain", plain))
    asked.clear()
    await lane.send(*[uplink("plain", plain)] * 50)
    assert asked == ["plain"]
    good = orjson.dumps({"ts": clock.now_ms(), "values": {"t": 50, "x": 1}})
    outcomes = await lane.send(uplink("strict", plain), uplink("strict", good), uplink("plain", plain))
    assert [outcome.reason for outcome in outcomes] == ["out_of_range", "", ""]
    assert lane.stored[-2:] == [("strict", "t", 50), ("plain", "t", 51)]
    assert [outcome.reason for _, outcome in lane.refused] == ["unknown_metric", "out_of_range"]
    await lane.journal.close()

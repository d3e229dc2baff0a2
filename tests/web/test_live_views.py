"""What a view keeps for its browser, without a socket or a clock."""

import json
from typing import Any

from web.live_views import EVENT_LIMIT, FRAMES_AT_ONCE, SERIES_LIMIT, EventView, ValueView, Watchers


def frames(view: EventView | ValueView, now: float = 0.0) -> list[Any]:
    return [json.loads(frame) for frame in view.take(now)]


def test_readings_join_to_the_newest_of_each_series() -> None:
    view = ValueView(1, "telemetry", "pump-7")
    view.offer("pump-7", [("t", 10, 1.0), ("p", 10, 5)])
    view.offer("pump-7", [("t", 12, 3.0)])
    view.offer("pump-7", [("t", 11, 2.0)])
    series = {"t": {"ts": 12, "value": 3.0}, "p": {"ts": 10, "value": 5}}
    assert frames(view) == [{"type": "event", "id": 1, "data": {"device": "pump-7", "series": series}}]
    assert not view.is_waiting


def test_an_older_reading_never_follows_a_newer_one_that_was_shown() -> None:
    view = ValueView(1, "telemetry", "pump-7")
    view.offer("pump-7", [("t", 100, 1.0), ("p", 3, 5)])
    view.begin("pump-7", {"t": 200, "p": 3})  # the snapshot is newer than what came while it was made
    assert [frame["data"]["series"] for frame in frames(view)] == [{"p": {"ts": 3, "value": 5}}]
    for now, (ts_ms, shown) in enumerate([(199, False), (201, True), (200, False), (201, True), (1, False)], start=1):
        view.offer("pump-7", [("t", ts_ms, now)])
        assert view.is_waiting is shown
        expected = [{"t": {"ts": ts_ms, "value": now}}] if shown else []
        assert [frame["data"]["series"] for frame in frames(view, float(now))] == expected


def test_the_times_that_were_shown_are_bounded() -> None:
    view = ValueView(1, "telemetry", None)
    for now in range(3):
        view.offer(f"device-{now}", [(f"m{number}", 1, number) for number in range(SERIES_LIMIT)])
        view.take(float(now))
    assert len(view._shown_ms) == SERIES_LIMIT


def test_there_are_ten_frames_a_second_at_most() -> None:
    view = ValueView(1, "telemetry", "pump-7")
    sent = 0
    for tick in range(200):
        view.offer("pump-7", [("t", tick, tick)])
        sent += len(view.take(tick / 100))
    assert sent <= 21
    view.offer("pump-7", [("t", 999, 999)])
    assert view.due_at(2.0) <= 2.1
    assert frames(view, 2.1)[-1]["data"]["series"]["t"]["value"] == 999


def test_all_devices_come_in_one_frame() -> None:
    view = ValueView("all", "telemetry", None)
    view.offer("a", [("t", 1, True)])
    view.offer("b", [("t", 2, "open")])
    assert frames(view)[0]["data"] == {
        "devices": {"a": {"t": {"ts": 1, "value": True}}, "b": {"t": {"ts": 2, "value": "open"}}}
    }


def test_series_are_bounded_and_what_is_left_out_is_told() -> None:
    view = ValueView(1, "telemetry", None)
    view.offer("a", [(f"m{number}", 1, number) for number in range(SERIES_LIMIT + 5)])
    view.offer("a", [("m0", 2, -1)])
    dropped, event = frames(view)
    assert dropped == {"type": "dropped", "id": 1, "count": 5}
    assert len(event["data"]["devices"]["a"]) == SERIES_LIMIT
    assert event["data"]["devices"]["a"]["m0"]["value"] == -1


def test_changes_keep_their_order_and_the_oldest_are_dropped() -> None:
    view = EventView(7, "commands", None)
    for number in range(EVENT_LIMIT + 3):
        view.offer(b"%d" % number)
    view.lost(2)
    found: list[Any] = []
    while view.is_waiting:
        some = frames(view)
        assert 0 < len(some) <= FRAMES_AT_ONCE
        found += some
    assert found[0] == {"type": "dropped", "id": 7, "count": 5}
    assert [frame["data"] for frame in found[1:]] == list(range(3, EVENT_LIMIT + 3))
    assert frames(view) == []


def test_an_event_finds_the_views_of_its_device_and_of_all() -> None:
    watchers = Watchers()
    one, other, every = (EventView(number, "commands", device) for number, device in ((1, "a"), (2, "b"), (3, None)))
    values = ValueView(4, "telemetry", "a")
    for view in (one, other, every, values):
        watchers.add(view)
    assert set(watchers.of_events("commands", "a")) == {one, every}
    assert watchers.of_events("commands", None) == [every]
    assert watchers.of_events("presence", "a") == []
    assert watchers.of_values("a") == [values]
    assert watchers.of_values("b") == []
    for view in (one, other, every, values):
        watchers.remove(view)
    watchers.remove(one)
    assert watchers.everybody() == []
    assert watchers.of_events("commands", "a") == []

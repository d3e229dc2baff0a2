"""A device's clock that is off is said in its timeline."""

from pathlib import Path

import pytest

from fleet.views import Level, TimelineKind
from gateway.clocks import WINDOW_MS
from mooring.server import Server
from mooring.settings import Settings


def composed(data_dir: Path, **settings: object) -> Server:
    server = Server(Settings.model_validate({"data_dir": data_dir, **settings}))
    server._compose()
    return server


@pytest.mark.parametrize(("skew_s", "off"), [(299, 0), (301, 1)])
def test_how_far_a_clock_may_be_off_is_a_setting(tmp_path: Path, skew_s: int, off: int) -> None:
    clocks = composed(tmp_path, ingest={"clock_skew_s": 300}).gateway.clocks
    clocks.on_change = lambda device_id, skew_ms, is_off: None
    for minute in range(3):
        clocks.saw("pump-7", minute * WINDOW_MS + skew_s * 1000, minute * WINDOW_MS)
    assert clocks.off == off


def test_a_clock_that_is_off_and_right_again_is_noted_in_the_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = composed(tmp_path)
    notes: list[tuple[str, TimelineKind, str, Level, object]] = []

    def note(device_id: str, kind: TimelineKind, summary: str, *, level: Level, data: object) -> None:
        notes.append((device_id, kind, summary, level, data))

    monkeypatch.setattr(server.fleet.timeline, "note", note)
    for minute, skew_ms in enumerate([-90_000] * 3 + [0, 0]):
        now_ms = minute * WINDOW_MS
        server.gateway.clocks.saw("pump-7", now_ms + skew_ms, now_ms)
    warning, info = (Level.WARNING, {"clock_skew_ms": -90_000}), (Level.INFO, {"clock_skew_ms": 0})
    assert notes == [
        ("pump-7", TimelineKind.EVENT, "its clock is 90 s behind", *warning),
        ("pump-7", TimelineKind.EVENT, "its clock is right again", *info),
    ]

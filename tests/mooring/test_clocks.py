"""A device's clock that is off is said in its timeline."""

from pathlib import Path

import pytest

from fleet.views import Level, TimelineKind
from gateway.clocks import WINDOW_MS
from mooring.server import Server
from mooring.settings import Settings


def test_a_clock_that_is_off_and_right_again_is_noted_in_the_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(Settings.model_validate({"data_dir": tmp_path}))
    server._compose()
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

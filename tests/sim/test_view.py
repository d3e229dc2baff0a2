"""The view: tables in a terminal, lines elsewhere."""

import io
from typing import Any

from rich.console import Console

from firmware_sim.runner import retry_delay_s
from firmware_sim.tally import DeviceRow, Snapshot, State
from firmware_sim.view import View, chosen


def row(number: int, state: State = State.ONLINE, **more: Any) -> DeviceRow:
    values: dict[str, Any] = {
        "device_id": f"sim-{number:04d}",
        "kind": "pump",
        "transport": "mqtt",
        "state": state,
        "firmware": "1.0.0",
        "target": None,
        "step": "idle",
        "progress": 0,
        "acked": 12_345,
        "waiting": 0,
        "error": "",
    }
    return DeviceRow(**(values | more))


def snapshot(seconds: float, *rows: DeviceRow, **more: Any) -> Snapshot:
    values: dict[str, Any] = {
        "seconds": seconds,
        "devices": len(rows),
        "states": {State.ONLINE: len(rows)},
        "firmware": {"1.0.0": len(rows)},
        "updating": 0,
        "sent": int(seconds * 10),
        "acked": int(seconds * 10),
        "readings": int(seconds * 50),
        "refused": 0,
        "received": 0,
        "losses": 0,
        "dropped": 0,
        "updates": {},
        "commands": {},
        "errors": {},
        "rows": rows,
    }
    return Snapshot(**(values | more))


class Screen:
    """A view on a console that is, or is not, a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        self.now = 100.0
        self._file = io.StringIO()
        console = Console(file=self._file, force_terminal=terminal, width=140, height=50, legacy_windows=False)
        self.view = View(console=console, clock=lambda: self.now)

    @property
    def text(self) -> str:
        return self._file.getvalue()


def test_plain_lines_every_five_seconds() -> None:
    screen = Screen(terminal=False)
    for second in range(12):
        screen.now += 1
        screen.view.show(snapshot(float(second), row(1), row(2)))
    screen.view.close()
    lines = screen.text.splitlines()
    assert len(lines) == 3
    assert (
        lines[1] == "5 s | 2 devices: 2 online | 10.0 messages/s, 10.0 acknowledged/s, 50 values/s | firmware 2 1.0.0"
    )


def test_plain_lines_name_trouble() -> None:
    screen = Screen(terminal=False)
    screen.view.show(snapshot(1.0, row(1), updating=1, losses=2, errors={"connection lost": 2, "no answer": 1}))
    assert screen.text.endswith(
        "| 1 updating | 0 refused, 2 links lost, 0 samples dropped | most often: connection lost\n"
    )


def test_a_terminal_gets_a_table_with_updates_and_errors() -> None:
    screen = Screen(terminal=True)
    updating = row(2, target="1.1.0", step="downloading", progress=40)
    refused = row(3, State.REFUSED, error="refused: [bold]not[/bold] authorised")
    screen.view.show(snapshot(1.0, row(1), updating, refused, errors={"refused: not authorised": 3}))
    screen.view.close()
    for words in (
        "sim-0001",
        "1.1.0 downloading",
        "12,345",
        "[bold]not[/bold]",
        "3x refused: not authorised",
        "messages/s",
    ):
        assert words in screen.text


def test_many_devices_show_trouble_first() -> None:
    rows = (*[row(n) for n in range(100)], row(100, State.RETRYING), row(101, target="2.0.0"))
    shown = chosen(rows, 30)
    assert len(shown) == 30
    assert [shown[0].device_id, shown[1].device_id, shown[2].device_id] == ["sim-0100", "sim-0101", "sim-0000"]
    screen = Screen(terminal=True)
    screen.view.show(snapshot(1.0, *rows))
    screen.view.close()
    assert "72 more" in screen.text


def test_back_off_grows_to_its_cap_and_jitters() -> None:
    from random import Random

    random = Random(1)
    for attempt in range(40):
        ceiling = min(60.0, 2.0**attempt)
        delays = {retry_delay_s(attempt, random) for _ in range(20)}
        assert len(delays) > 10
        assert all(0.5 * ceiling <= delay <= ceiling for delay in delays)

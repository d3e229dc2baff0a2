"""The swarm in a terminal: a live table where there is one, a plain line now and then where there is not."""

import time
from collections import deque
from collections.abc import Callable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from firmware_sim.tally import DeviceRow, Snapshot, State

MAX_ROWS = 30
RATE_OVER_S = 5.0

_COLOURS = {
    State.WAITING: "dim",
    State.CONNECTING: "yellow",
    State.ONLINE: "green",
    State.RETRYING: "yellow",
    State.RESTARTING: "cyan",
    State.REFUSED: "red",
    State.STOPPED: "dim",
}
_URGENT = (State.REFUSED, State.RETRYING, State.RESTARTING)


class View:
    """Shows snapshots of a swarm. `show` may be called as often as `every_s` says."""

    def __init__(
        self,
        *,
        console: Console | None = None,
        rows: int = MAX_ROWS,
        plain_every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console()
        self._rows = rows
        self._plain_every_s = plain_every_s
        self._clock = clock
        self._live: Live | None = None
        self._past: deque[tuple[float, int, int, int]] = deque(maxlen=64)
        self._last_line_at: float | None = None

    @property
    def every_s(self) -> float:
        """How often it wants a snapshot."""
        return 0.5 if self._console.is_terminal else min(1.0, self._plain_every_s)

    def note(self, text: str) -> None:
        """One line, before or between the pictures."""
        self._console.print(Text(text))

    def show(self, snapshot: Snapshot) -> None:
        """Draw the swarm as it is now."""
        self._past.append((snapshot.seconds, snapshot.sent, snapshot.acked, snapshot.readings))
        while len(self._past) > 2 and self._past[0][0] < snapshot.seconds - RATE_OVER_S:
            self._past.popleft()
        if not self._console.is_terminal:
            self._line(snapshot)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        self._live.update(Group(self._summary(snapshot), self._devices(snapshot)), refresh=True)

    def close(self) -> None:
        """Leave the last picture standing and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _rates(self) -> tuple[float, float, float]:
        first, last = self._past[0], self._past[-1]
        seconds = last[0] - first[0]
        if seconds <= 0:
            return 0.0, 0.0, 0.0
        return (last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds, (last[3] - first[3]) / seconds

    def _line(self, snapshot: Snapshot) -> None:
        now = self._clock()
        if self._last_line_at is not None and now - self._last_line_at < self._plain_every_s:
            return
        self._last_line_at = now
        sent, acked, readings = self._rates()
        parts = [
            f"{snapshot.seconds:.0f} s",
            f"{snapshot.devices} devices: {_counts(snapshot.states)}",
            f"{sent:.1f} messages/s, {acked:.1f} acknowledged/s, {readings:.0f} values/s",
            f"firmware {_counts(snapshot.firmware)}",
        ]
        if snapshot.updating:
            parts.append(f"{snapshot.updating} updating")
        if snapshot.refused or snapshot.losses or snapshot.dropped:
            parts.append(
                f"{snapshot.refused} refused, {snapshot.losses} links lost, {snapshot.dropped} samples dropped"
            )
        if snapshot.errors:
            parts.append(f"most often: {max(snapshot.errors, key=lambda text: snapshot.errors[text])}")
        self._console.print(Text(" | ".join(parts)), soft_wrap=True)

    def _summary(self, snapshot: Snapshot) -> Table:
        sent, acked, readings = self._rates()
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", justify="right")
        grid.add_column()
        states = Text("  ").join(
            Text(f"{count} {state}", style=_COLOURS[state]) for state, count in sorted(snapshot.states.items())
        )
        grid.add_row("devices", Text(f"{snapshot.devices}   ") + states)
        grid.add_row("traffic", f"{sent:,.1f} messages/s   {acked:,.1f} acknowledged/s   {readings:,.0f} values/s")
        totals = f"{snapshot.acked:,} acknowledged   {snapshot.received:,} received   {snapshot.losses:,} links lost"
        if snapshot.refused or snapshot.dropped:
            totals += f"   {snapshot.refused:,} refused   {snapshot.dropped:,} samples dropped"
        grid.add_row("in all", totals)
        grid.add_row(
            "firmware",
            Text(_counts(snapshot.firmware) + (f"   {snapshot.updating} updating" if snapshot.updating else "")),
        )
        if snapshot.updates:
            grid.add_row("updates", _counts(snapshot.updates))
        if snapshot.commands:
            grid.add_row("commands", _counts(snapshot.commands))
        for text, count in sorted(snapshot.errors.items(), key=lambda item: -item[1])[:3]:
            grid.add_row("error", Text(f"{count}x {text}", style="red", no_wrap=True, overflow="ellipsis"))
        return grid

    def _devices(self, snapshot: Snapshot) -> Table:
        table = Table(expand=False, header_style="bold", pad_edge=False)
        for heading in ("device", "kind", "over", "state", "firmware", "update"):
            table.add_column(heading, no_wrap=True)
        table.add_column("acked", justify="right")
        table.add_column("waiting", justify="right")
        table.add_column("last error", no_wrap=True, overflow="ellipsis", max_width=48)
        room = max(3, min(self._rows, self._console.size.height - 14))
        shown = chosen(snapshot.rows, room)
        for row in shown:
            table.add_row(
                row.device_id,
                row.kind,
                row.transport,
                Text(row.state.value, style=_COLOURS[row.state]),
                Text(row.firmware),
                _update(row),
                f"{row.acked:,}",
                str(row.waiting),
                Text(row.error, style="red"),
            )
        if len(snapshot.rows) > len(shown):
            table.caption = f"{len(snapshot.rows) - len(shown)} more"
        return table


def chosen(rows: tuple[DeviceRow, ...], room: int) -> tuple[DeviceRow, ...]:
    """The rows worth showing when there is no room for all: trouble and updates first, each in the order given."""
    if len(rows) <= room:
        return rows
    urgent = [row for row in rows if row.state in _URGENT or row.target is not None][:room]
    names = {row.device_id for row in urgent}
    calm = [row for row in rows if row.device_id not in names][: room - len(urgent)]
    return (*urgent, *calm)


def _update(row: DeviceRow) -> Table | str:
    if row.target is None:
        return ""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(f"{row.target} {row.step}"), ProgressBar(total=100, completed=row.progress, width=10))
    return grid


def _counts(counts: Mapping[str, int] | Mapping[State, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count)

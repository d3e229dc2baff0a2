"""What a swarm counts, and the pictures of it that views and reports are made from. No I/O, no clock."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_ERRORS = 50
"""Kinds of error counted by their text; the rest is counted as "other"."""


class State(StrEnum):
    """How a simulated device is, seen from its own side."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    ONLINE = "online"
    RETRYING = "retrying"
    RESTARTING = "restarting"
    REFUSED = "refused"
    STOPPED = "stopped"


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of the whole swarm, since its start."""

    sent: int = 0
    acked: int = 0
    readings: int = 0
    """Values in acknowledged messages."""
    refused: int = 0
    received: int = 0
    connects: int = 0
    losses: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def error(self, text: str) -> None:
        """Count an error by its text."""
        text = text[:160]
        self.errors[text if text in self.errors or len(self.errors) < MAX_ERRORS else "other"] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device in a picture."""

    device_id: str
    kind: str
    transport: str
    state: State
    firmware: str
    target: str | None
    step: str
    progress: int
    acked: int
    waiting: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The swarm at one moment."""

    seconds: float
    devices: int
    states: Mapping[State, int]
    firmware: Mapping[str, int]
    updating: int
    sent: int
    acked: int
    readings: int
    refused: int
    received: int
    losses: int
    dropped: int
    updates: Mapping[str, int]
    commands: Mapping[str, int]
    errors: Mapping[str, int]
    rows: tuple[DeviceRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimReport:
    """What a run came to. `acked_by_device` counts acknowledged values: what the server has promised to keep."""

    devices: int
    seconds: float
    connected: int
    """Devices that got in at least once."""
    firmware: Mapping[str, int]
    sent: int
    acked: int
    readings: int
    refused: int
    received: int
    connects: int
    losses: int
    dropped: int
    updates: Mapping[str, int]
    commands: Mapping[str, int]
    errors: Mapping[str, int]
    acked_by_device: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """Whether every device got in and none of its messages was refused."""
        return self.connected == self.devices and not self.refused

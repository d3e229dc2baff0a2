"""What each metric holds, fixed by its first reading and kept in the journal's file. No clock.

A store types a field once and then refuses others; it is said here instead, to the device, before anything is
acknowledged. Tables are kept for the devices heard last and read again when an older one comes back.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.readings import Kind, Reading, kind_of
from gateway.refusals import Refusal

KIND_OF = {bool: Kind.BOOLEAN, int: Kind.NUMBER, float: Kind.NUMBER, str: Kind.TEXT}
"""Where the type tells: of objects and arrays it does not (readings.kind_of)."""


class Fixed(NamedTuple):
    """The kind a metric got with its first reading."""

    device_id: str
    metric: str
    kind: Kind


@dataclass(slots=True)
class Sorted:
    """A message's readings: those that fit, the kinds they fix, and what does not fit with the reason."""

    fit: list[Reading]
    fixed: list[Fixed] = field(default_factory=list)
    unfit: list[tuple[Reading, Refusal, str]] = field(default_factory=list)


class Kinds:
    """The kinds in force. `load` reads a device's from the file (a call of about 50 µs, on first sight only)."""

    def __init__(
        self, load: Callable[[str], dict[str, Kind]], *, metrics_per_device: int = 1000, devices_cached: int = 20_000
    ) -> None:
        self._load = load
        self._metrics_per_device = metrics_per_device
        self._devices_cached = devices_cached
        self._tables: OrderedDict[str, dict[str, Kind]] = OrderedDict()
        # Fixed but not yet in the file: a table that left the cache is read back without these.
        self._unsettled: dict[str, dict[str, Kind]] = {}

    def sort(self, device_id: str, readings: list[Reading]) -> Sorted:
        """Part the readings of one device's message; what they fix is in force until `abandon`."""
        table = self.table(device_id)
        out = Sorted(readings)
        for index, reading in enumerate(readings):
            kind = KIND_OF.get(type(reading[3])) or kind_of(reading[3])
            known = table.get(reading[1])
            if known is kind:
                if out.unfit:
                    out.fit.append(reading)
                continue
            if known is None and len(table) < self._metrics_per_device:
                table[reading[1]] = kind
                self._unsettled.setdefault(device_id, {})[reading[1]] = kind
                out.fixed.append(Fixed(device_id, reading[1], kind))
                if out.unfit:
                    out.fit.append(reading)
                continue
            if not out.unfit:
                out.fit = readings[:index]
            if known is None:
                reason, detail = Refusal.TOO_MANY_METRICS, f"at most {self._metrics_per_device} metrics a device"
            else:
                reason, detail = Refusal.TYPE_CHANGED, f"{reading[1]} is a {known}, not a {kind}"
            out.unfit.append((reading, reason, detail))
        return out

    def table(self, device_id: str) -> dict[str, Kind]:
        """The kinds of a device's metrics that are in force, to look at. Raises JournalError."""
        table = self._tables.get(device_id)
        if table is None:
            table = {**self._load(device_id), **self._unsettled.get(device_id, {})}
            self._tables[device_id] = table
            if len(self._tables) > self._devices_cached:
                self._tables.popitem(last=False)
        else:
            self._tables.move_to_end(device_id)
        return table

    def learn(self, device_id: str, held: Mapping[str, Kind]) -> list[Fixed]:
        """Fix what a store holds already, where nothing is fixed; in force until `abandon`. Raises JournalError."""
        table = self.table(device_id)
        fixed: list[Fixed] = []
        for metric, kind in held.items():
            if metric not in table and len(table) < self._metrics_per_device:
                table[metric] = kind
                self._unsettled.setdefault(device_id, {})[metric] = kind
                fixed.append(Fixed(device_id, metric, kind))
        return fixed

    def settle(self, fixed: Iterable[Fixed]) -> None:
        """These are in the file now."""
        for device_id, metric, _ in fixed:
            waiting = self._unsettled.get(device_id)
            if waiting is not None:
                waiting.pop(metric, None)
                if not waiting:
                    del self._unsettled[device_id]

    def abandon(self, fixed: Iterable[Fixed]) -> None:
        """These will not come into the file: their readings were refused after all."""
        fixed = list(fixed)
        self.settle(fixed)
        for device_id, metric, _ in fixed:
            self._tables.get(device_id, {}).pop(metric, None)

    def forget_device(self, device_id: str) -> None:
        """The device is gone; so are its kinds, here as in the file."""
        self._tables.pop(device_id, None)
        self._unsettled.pop(device_id, None)

"""Believable signals for four kinds of device. No I/O, no clock.

Every value is a function of (seed, device id, time): a day curve, something like a random walk, a little noise, and a
fault now and then. Asking twice gives the same answer; asking later goes on with the same curve.
"""

from collections.abc import Callable
from enum import StrEnum
from math import cos, pi, sin

from firmware_sim.chance import key, lattice, slope, smooth, unit, wander

Value = float | int | bool | str

DAY_S = 86_400.0
FAULT_SLOT_S = 1_200.0
"""A device is in order or has its fault for a slot of 20 minutes."""
FAULT_SHARE = 0.04
"""About one slot in 25: a fleet of 25 devices shows one fault at any time."""
EPOCH_S = 1_735_689_600.0
"""2025-01-01: where the energy meters began to count."""


class Kind(StrEnum):
    """What a simulated device is."""

    PUMP = "pump"
    COLD_STORE = "cold-store"
    WEATHER_STATION = "weather-station"
    ENERGY_METER = "energy-meter"


FAULTS = {
    Kind.PUMP: "bearing runs hot",
    Kind.COLD_STORE: "compressor does not start",
    Kind.WEATHER_STATION: "gale",
    Kind.ENERGY_METER: "voltage sags",
}
"""The one fault each kind has, in the words its event log uses."""


class Signals:
    """The signals of one device."""

    def __init__(self, kind: Kind, device_id: str, seed: int) -> None:
        self.kind = kind
        self._id = device_id
        self._seed = seed
        self._streams = [key(seed, device_id, n) for n in range(8)]
        self._offset = 2.0 * unit(seed, device_id, "offset") - 1.0
        self._samplers: dict[Kind, Callable[[float, float | None], dict[str, Value]]] = {
            Kind.PUMP: self._pump,
            Kind.COLD_STORE: self._cold_store,
            Kind.WEATHER_STATION: self._weather_station,
            Kind.ENERGY_METER: self._energy_meter,
        }

    def sample(self, t: float, *, setpoint: float | None = None) -> dict[str, Value]:
        """All metrics at Unix time `t` in seconds. `setpoint` in °C moves a cold store's temperature."""
        return self._samplers[self.kind](t, setpoint)

    def fault(self, t: float) -> str | None:
        """The fault the device has at `t`, or None."""
        return FAULTS[self.kind] if self._has_fault(t) else None

    def _has_fault(self, t: float) -> bool:
        return self._chance("fault", t, FAULT_SLOT_S) < FAULT_SHARE

    def _fault(self, t: float) -> float:
        """0 in order, 1 at the worst: it comes and goes within its slot, as real trouble does."""
        return sin(pi * (t % FAULT_SLOT_S) / FAULT_SLOT_S) if self._has_fault(t) else 0.0

    def _chance(self, name: str, t: float, slot_s: float) -> float:
        return unit(self._seed, self._id, name, int(t // slot_s))

    def _wander(self, n: int, t: float, period_s: float) -> float:
        return wander(self._streams[n], t, period_s)

    def _noise(self, n: int, t: float) -> float:
        return lattice(self._streams[n] ^ 0xA5A5A5A5, int(t * 1000))

    def _runs(self, t: float) -> bool:
        return self._chance("runs", t, 1_800.0) < 0.85

    def _pump(self, t: float, _setpoint: float | None) -> dict[str, Value]:
        running, fault = self._runs(t), self._fault(t)
        load = 0.75 + 0.25 * self._wander(0, t, 3_600.0)
        # The housing warms and cools over a quarter of an hour, so its heat is the mean of the recent past.
        heat = sum(self._runs(t - 150.0 * n) for n in range(6)) / 6.0
        day = _day(t, peak_h=15.0)
        return {
            "temperature": round(
                34 + 3 * self._offset + 24 * load * heat + 4 * day + 18 * fault + 0.3 * self._noise(1, t), 2
            ),
            "pressure": round((3.0 + 0.9 * load - fault if running else 0.3) + 0.04 * self._noise(2, t), 3),
            "vibration": round((1.1 + 0.7 * load + 5 * fault if running else 0.05) * (1 + 0.1 * self._noise(3, t)), 3),
            "flow": round((18.0 * load - 5 * fault) * (1 + 0.02 * self._noise(4, t)), 2) if running else 0.0,
            "running": running,
        }

    def _cold_store(self, t: float, setpoint: float | None) -> dict[str, Value]:
        fault = self._fault(t)
        hour = (t % DAY_S) / 3_600.0
        opened = self._chance("door", t, 300.0) < (0.25 if 6 <= hour < 20 else 0.04)
        since = t % 300.0
        open_s = 20.0 + 70.0 * self._chance("open", t, 300.0)
        warmth = (
            (min(since, open_s) / open_s * (1.0 if since < open_s else (300.0 - since) / (300.0 - open_s)))
            if opened
            else 0.0
        )
        # It cools for two thirds of every cycle and warms for the rest.
        cycle = (t / 720.0 + self._offset) % 1.0
        cooling = cycle < 0.66 and not self._has_fault(t)
        swing = 1.0 - cycle / 0.66 if cycle < 0.66 else (cycle - 0.66) / 0.34
        base = -19.0 + self._offset if setpoint is None else setpoint
        return {
            "temperature": round(
                base
                + 1.4 * swing
                + 2.0 * warmth
                + 7 * fault
                + 0.3 * self._wander(0, t, 1_800.0)
                + 0.05 * self._noise(1, t),
                2,
            ),
            "humidity": round(
                _clamp(62 + 6 * self._wander(2, t, 5_400.0) + 14 * warmth + self._noise(3, t), 20, 100), 1
            ),
            "door": "open" if opened and since < open_s else "closed",
            "compressor": cooling,
        }

    def _weather_station(self, t: float, _setpoint: float | None) -> dict[str, Value]:
        fault = self._fault(t)
        temperature = (
            12
            + 3 * self._offset
            + 6 * _day(t, peak_h=15.0)
            + 4 * self._wander(0, t, 6 * 3_600.0)
            + 0.15 * self._noise(1, t)
        )
        wind = max(0.0, 4.5 + 3.5 * self._wander(2, t, 3_600.0) + 1.2 * smooth(self._streams[3], t / 20.0) + 16 * fault)
        return {
            "temperature": round(temperature, 2),
            "humidity": round(_clamp(72 - 2.0 * (temperature - 12) + 9 * self._wander(4, t, 4 * 3_600.0), 8, 100), 1),
            "wind": round(wind, 2),
            "pressure": round(1_013 + 14 * self._wander(5, t, 2 * DAY_S) - 8 * fault, 1),
        }

    def _energy_meter(self, t: float, _setpoint: float | None) -> dict[str, Value]:
        """Power is the exact derivative of energy, so that a dashboard that divides the one finds the other."""
        # Mean 2.4 kW, half of it following the day; the ripple's slope stays below what is left, so energy only rises.
        mean_w = 2_400.0 + 600.0 * self._offset
        swing_w, ripple_w, ripple_s = 0.5 * mean_w, 0.12 * mean_w, 240.0
        since = t - EPOCH_S
        angle = 2 * pi * (since / DAY_S - 13.0 / 24.0)
        power = mean_w + swing_w * cos(angle) + ripple_w * slope(self._streams[0], t / ripple_s)
        energy_ws = (
            mean_w * since
            + swing_w * DAY_S / (2 * pi) * sin(angle)
            + ripple_w * ripple_s * smooth(self._streams[0], t / ripple_s)
        )
        voltage = 230 + 2.5 * self._wander(1, t, 1_800.0) - 28 * self._fault(t) + 0.2 * self._noise(2, t)
        return {
            "power": round(power, 1),
            "voltage": round(voltage, 2),
            "current": round(power / voltage, 3),
            "energy": round(energy_ws / 3.6e6 + 1_000.0, 4),
        }


def _day(t: float, *, peak_h: float) -> float:
    """1 at `peak_h` o'clock UTC, -1 twelve hours later."""
    return cos(2 * pi * (t / DAY_S - peak_h / 24.0))


def _clamp(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))

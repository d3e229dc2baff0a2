"""Signals are reproducible, believable, and the meter never runs backwards."""

import itertools

import pytest

from firmware_sim.chance import lattice, slope, smooth, unit, wander
from firmware_sim.signals import DAY_S, FAULTS, Kind, Signals

START = 1_790_000_000.0

RANGES = {
    Kind.PUMP: {"temperature": (10, 90), "pressure": (0, 6), "vibration": (0, 9), "flow": (0, 25)},
    Kind.COLD_STORE: {"temperature": (-24, -4), "humidity": (20, 100)},
    Kind.WEATHER_STATION: {"temperature": (-5, 30), "humidity": (8, 100), "wind": (0, 30), "pressure": (980, 1040)},
    Kind.ENERGY_METER: {"power": (300, 6_000), "voltage": (195, 240), "current": (1, 30), "energy": (1_000, 100_000)},
}


def week(signals: Signals, step_s: float = 617.0) -> list[dict[str, object]]:
    return [dict(signals.sample(START + n * step_s)) for n in range(int(7 * DAY_S / step_s))]


@pytest.mark.parametrize("kind", Kind)
def test_same_seed_device_and_time_give_the_same_values(kind: Kind) -> None:
    one, other = Signals(kind, "sim-0001", 1), Signals(kind, "sim-0001", 1)
    later = one.sample(START + 500)
    assert one.sample(START) == other.sample(START)
    assert other.sample(START + 500) == later


@pytest.mark.parametrize("kind", Kind)
def test_another_device_or_seed_gives_another_curve(kind: Kind) -> None:
    curve = week(Signals(kind, "sim-0001", 1))
    assert curve != week(Signals(kind, "sim-0002", 1))
    assert curve != week(Signals(kind, "sim-0001", 2))


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("device", range(5))
def test_a_week_stays_in_believable_ranges(kind: Kind, device: int) -> None:
    for sample in week(Signals(kind, f"sim-{device}", 3)):
        for metric, (low, high) in RANGES[kind].items():
            value = sample[metric]
            assert isinstance(value, float)
            assert low <= value <= high, (metric, sample)


@pytest.mark.parametrize("kind", Kind)
def test_a_metric_keeps_its_kind_of_value(kind: Kind) -> None:
    samples = week(Signals(kind, "sim-0001", 1))
    for metric, value in samples[0].items():
        assert {type(sample[metric]) for sample in samples} == {type(value)}


def test_energy_only_rises_and_matches_power() -> None:
    for device in range(5):
        signals = Signals(Kind.ENERGY_METER, f"sim-{device}", 1)
        samples = [signals.sample(START + 30.0 * n) for n in range(5_000)]
        energy = [sample["energy"] for sample in samples]
        assert energy == sorted(energy)  # type: ignore[type-var]
        kwh = sum(float(sample["power"]) for sample in samples[:-1]) * 30 / 3.6e6
        assert float(energy[-1]) - float(energy[0]) == pytest.approx(kwh, rel=0.01)


def test_neighbouring_samples_are_close() -> None:
    signals = Signals(Kind.WEATHER_STATION, "sim-0001", 1)
    values = [float(signals.sample(START + 5.0 * n)["temperature"]) for n in range(2_000)]
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 0.5


def test_afternoons_are_warmer_than_nights() -> None:
    signals = Signals(Kind.WEATHER_STATION, "sim-0001", 1)
    midnight = START - START % DAY_S
    days = range(60)
    noon = sum(float(signals.sample(midnight + day * DAY_S + 15 * 3_600)["temperature"]) for day in days) / 60
    night = sum(float(signals.sample(midnight + day * DAY_S + 3 * 3_600)["temperature"]) for day in days) / 60
    assert noon > night + 8


def test_faults_happen_now_and_then_and_show() -> None:
    signals = Signals(Kind.PUMP, "sim-0001", 1)
    times = [START + 600.0 * n for n in range(4_000)]
    faulty = [t for t in times if signals.fault(t)]
    assert 0.02 < len(faulty) / len(times) < 0.07
    assert {signals.fault(t) for t in faulty} == {FAULTS[Kind.PUMP]}
    assert max(float(signals.sample(t)["vibration"]) for t in faulty) > 4


def test_doors_open_and_compressors_run() -> None:
    samples = [Signals(Kind.COLD_STORE, "sim-0001", 1).sample(START + 10.0 * n) for n in range(9_000)]
    doors = [sample["door"] for sample in samples]
    assert set(doors) == {"open", "closed"}
    assert doors.count("open") < 0.2 * len(doors)
    assert 0.4 < sum(sample["compressor"] is True for sample in samples) / len(samples) < 0.8


def test_setpoint_moves_a_cold_store() -> None:
    signals = Signals(Kind.COLD_STORE, "sim-0001", 1)
    cold, warm = signals.sample(START, setpoint=-25.0), signals.sample(START, setpoint=-5.0)
    assert float(warm["temperature"]) - float(cold["temperature"]) == pytest.approx(20, abs=0.02)


def test_chance_stays_in_its_bounds() -> None:
    for n in range(2_000):
        assert 0 <= unit("a", n) < 1
        assert -1 <= lattice(99, n) < 1
        assert -1 <= smooth(99, n * 0.37) <= 1
        assert -1 <= wander(99, n * 11.0, 60) <= 1


def test_slope_is_the_derivative_of_smooth() -> None:
    for n in range(200):
        x = n * 0.137 + 0.01
        assert slope(7, x) == pytest.approx((smooth(7, x + 1e-6) - smooth(7, x - 1e-6)) / 2e-6, abs=1e-4)

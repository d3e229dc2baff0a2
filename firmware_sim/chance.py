"""Chance without state: the same names give the same number, in every run. No I/O, no clock.

A generator with state would make a device's signals depend on how often it was asked. Here a value is a function of
(seed, names, time), so a device that was restarted goes on with the curve it left.
"""

from hashlib import blake2b

_MASK = (1 << 64) - 1
_SCALE = float(1 << 64)


def key(*names: object) -> int:
    """64 bits that stand for these names."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def unit(*names: object) -> float:
    """A number in [0, 1) that stands for these names."""
    return key(*names) / _SCALE


def lattice(stream: int, index: int) -> float:
    """Number `index` of a stream, in [-1, 1): the finalizer of SplitMix64, three times faster here than a hash."""
    z = (stream + index * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) / _SCALE * 2.0 - 1.0


def smooth(stream: int, x: float) -> float:
    """Smooth noise in [-1, 1], one hill or valley per unit of `x`."""
    index = int(x // 1)
    f = x - index
    a, b = lattice(stream, index), lattice(stream, index + 1)
    return a + (b - a) * f * f * (3.0 - 2.0 * f)


def slope(stream: int, x: float) -> float:
    """The derivative of `smooth` at `x`; within [-3, 3]."""
    index = int(x // 1)
    f = x - index
    return (lattice(stream, index + 1) - lattice(stream, index)) * 6.0 * f * (1.0 - f)


def wander(stream: int, t: float, period_s: float) -> float:
    """Something like a bounded random walk, in [-1, 1]: three layers of smooth noise, each finer and weaker."""
    x = t / period_s
    return (
        smooth(stream, x) + 0.5 * smooth(stream ^ 0x5851F42D, x * 2.7) + 0.25 * smooth(stream ^ 0x14057B7E, x * 7.1)
    ) / 1.75

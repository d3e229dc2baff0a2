"""Sealed readings of one series: times and values as columns, each in the form that deflates best. No I/O, no clock.

Times are kept as the differences of their differences: all zero where a device is regular. Numbers are kept as whole
numbers where they are some, or become some when their decimal point is moved (sensors mostly have one to three
decimals), and as differences of these; other numbers lose nothing as XORs of their bits. Each column goes in bytes of
one significance after the other into zlib, whose checksum tells a damaged chunk from a sound one.

A value comes back as it went in, 1 not as 1.0, -0.0 with its sign: `decode(encode(t, v))` is t and v.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from gateway.readings import Value

Array = npt.NDArray[Any]

FORMAT = 1
_LEVEL = 6
_HEAD = struct.Struct("<BbI")  # what the values are, decimal exponent, how many
_WHOLE, _DECIMAL, _FLOAT, _MIXED, _BOOLEAN, _JSON = range(6)
_EXACT = 2.0**53
_EXPONENTS = range(1, 8)
_PROBE = 64  # values looked at before all are
_NUMBERS = {int, float}
_MINUS_ZERO = 0x10  # some are -0.0, which a whole number is not
_WIDTHS = ("<i1", "<i2", "<i4", "<i8")


class DamagedChunk(ValueError):
    """These bytes are no chunk, or not the one they were."""


@dataclass(slots=True)
class Column:
    """Readings of one series in order of time, each time once."""

    times: Array
    """Unix time in ms, int64."""
    numbers: Array | None
    """As float64; None where not all are numbers."""
    whole: bool
    """All are integers."""
    values: Callable[[], Sequence[Value]]
    """Of the types they had; made when they are asked for."""

    def between(self, start_ms: int, end_ms: int) -> "Column":
        """The readings in [start_ms, end_ms)."""
        first, end = (int(place) for place in np.searchsorted(self.times, (start_ms, end_ms)))
        return self.part(first, max(first, end))

    def part(self, first: int, end: int) -> "Column":
        """The readings at these places."""
        if first == 0 and end >= len(self.times):
            return self
        numbers = None if self.numbers is None else self.numbers[first:end]
        return Column(self.times[first:end], numbers, self.whole, lambda: self.values()[first:end])


def column_of(times: Sequence[int] | Array, values: Sequence[Value]) -> Column:
    """Readings in order of time as a column."""
    kinds = set(map(type, values))
    numbers = np.array(values, dtype=np.float64) if kinds <= _NUMBERS and values else None
    return Column(np.array(times, dtype=np.int64), numbers, kinds == {int}, lambda: values)


def numbers_of(column: Column) -> Column | None:
    """Those of its readings that are numbers, if any: a series may have changed its kind."""
    if column.numbers is not None:
        return column
    pairs = zip(column.times.tolist(), column.values(), strict=True)
    found = [(ts_ms, value) for ts_ms, value in pairs if type(value) in _NUMBERS]
    return column_of(*zip(*found, strict=True)) if found else None


def merged(older: Column, newer: Column) -> Column:
    """Both, in order of time; of one time the newer one's reading."""
    kept = ~np.isin(older.times, newer.times)
    times = np.concatenate([older.times[kept], newer.times])
    order = np.argsort(times, kind="stable")
    numbers = None
    if older.numbers is not None and newer.numbers is not None:
        numbers = np.concatenate([older.numbers[kept], newer.numbers])[order]

    def values() -> Sequence[Value]:
        both = [value for value, keep in zip(older.values(), kept.tolist(), strict=True) if keep]
        both += newer.values()
        return [both[place] for place in order.tolist()]

    return Column(times[order], numbers, older.whole and newer.whole, values)


def concatenated(columns: Sequence[Column]) -> Column:
    """Columns one behind the other in time as one; at least one."""
    if len(columns) == 1:
        return columns[0]
    numbers = [column.numbers for column in columns if column.numbers is not None]

    def values() -> Sequence[Value]:
        return [value for column in columns for value in column.values()]

    return Column(
        np.concatenate([column.times for column in columns]),
        np.concatenate(numbers) if len(numbers) == len(columns) else None,
        all(column.whole for column in columns),
        values,
    )


def encode(times: Sequence[int], values: Sequence[Value]) -> bytes:
    """At least one reading, in order of time, each time once. Values of any JSON type; integers within 64 bits."""
    head, body = _encoded_values(values)
    moments = np.array(times, dtype=np.int64)
    steps = np.diff(moments)
    parts = [_HEAD.pack(*head, len(values)), moments[:1].tobytes(), _packed(steps[:1]), _packed(np.diff(steps)), *body]
    return bytes((FORMAT,)) + zlib.compress(b"".join(parts), _LEVEL)


def decode(chunk: bytes) -> Column:
    """What was encoded. Raises DamagedChunk."""
    try:
        if chunk[0] != FORMAT:
            raise DamagedChunk(f"format {chunk[0]}")
        data = zlib.decompress(chunk[1:])
        what, exponent, count = _HEAD.unpack_from(data)
        source = _Source(data, _HEAD.size)
        first = source.numbers("<i8", 1)
        steps = np.concatenate([source.packed(min(1, count - 1)), source.packed(max(0, count - 2))]).cumsum()
        times = np.concatenate([first, first + steps.cumsum()])
        return _decoded_values(source, what, exponent, count, times)
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise DamagedChunk(str(error)) from error


def is_sound(chunk: bytes) -> bool:
    """Whether it can be decoded."""
    try:
        decode(chunk)
    except DamagedChunk:
        return False
    return True


def _encoded_values(values: Sequence[Value]) -> tuple[tuple[int, int], list[bytes]]:
    """((what they are, exponent), bytes)"""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return (_BOOLEAN, 0), [np.packbits(np.array(values, dtype=np.bool_)).tobytes()]
    if kinds == {int} and max(values) < 1 << 63:  # type: ignore[operator, type-var]
        return (_WHOLE, 0), _differences(np.array(values, dtype=np.int64))
    if kinds == {float} or (kinds == {int, float} and all(abs(v) <= _EXACT for v in values if type(v) is int)):
        numbers = np.array(values, dtype=np.float64)
        which = []
        if kinds != {float}:
            which = [np.packbits(np.array([type(value) is int for value in values])).tobytes()]
        minus_zero = np.signbit(numbers) & (numbers == 0.0)
        mark = 0
        if bool(minus_zero.any()):
            mark = _MINUS_ZERO
            which.append(np.packbits(minus_zero).tobytes())
        scaled = _scaled(numbers)
        if scaled is None:
            bits = numbers.view(np.uint64)
            body = [bits[:1].tobytes(), _transposed(bits[1:] ^ bits[:-1], "<u8")]
            return (mark | (_FLOAT if kinds == {float} else _MIXED), -1), which + body
        exponent, whole = scaled
        return (mark | (_DECIMAL if kinds == {float} else _MIXED), exponent), which + _differences(whole)
    return (_JSON, 0), [orjson.dumps(values)]


def _decoded_values(source: "_Source", what: int, exponent: int, count: int, times: Array) -> Column:
    if what == _JSON:
        found: list[Value] = orjson.loads(source.rest())
        if len(found) != count:
            raise DamagedChunk("values are missing")
        return column_of(times, found)
    if what == _BOOLEAN:
        flags = source.flags(count)
        return Column(times, None, False, lambda: flags.tolist())
    if what == _WHOLE:
        whole = source.sums(count)
        return Column(times, whole.astype(np.float64), True, lambda: whole.tolist())
    integers = source.flags(count) if what & ~_MINUS_ZERO == _MIXED else None
    minus_zero = source.flags(count) if what & _MINUS_ZERO else None
    if exponent < 0:
        first = source.numbers("<u8", 1)
        bits = np.bitwise_xor.accumulate(np.concatenate([first, source.transposed("<u8", count - 1)]))
        numbers = bits.view(np.float64)
    else:
        numbers = source.sums(count) / 10.0**exponent
    if minus_zero is not None:
        numbers = np.where(minus_zero, -0.0, numbers)
    if integers is None:
        return Column(times, numbers, False, lambda: numbers.tolist())
    which = integers.tolist()
    return Column(
        times,
        numbers,
        False,
        lambda: [int(value) if whole else value for value, whole in zip(numbers.tolist(), which, strict=True)],
    )


def _scaled(numbers: Array) -> tuple[int, Array] | None:
    """(exponent, whole numbers) where moving the decimal point gives the very same numbers back, or None."""
    for exponent in (0, *_EXPONENTS):
        power = 10.0**exponent
        for some in (numbers[:_PROBE], numbers):
            with np.errstate(over="ignore"):  # infinity is no whole number that fits
                moved = np.rint(some * power)
            if not bool((np.abs(moved) <= _EXACT).all() and (moved / power == some).all()):
                break
        else:
            return exponent, moved.astype(np.int64)
    return None


def _differences(whole: Array) -> list[bytes]:
    """The first one, and how the others differ from the one before: modulo 2**64, so that none is too large."""
    return [whole[:1].tobytes(), _packed(np.diff(whole))]


def _packed(whole: Array) -> bytes:
    """Signed integers in the narrowest width that holds all, said in a byte in front."""
    if not len(whole):
        return b""
    low, high = int(whole.min()), int(whole.max())
    width = next(place for place, bits in enumerate((7, 15, 31, 63)) if -(1 << bits) <= low and high < 1 << bits)
    return bytes((width,)) + _transposed(whole.astype(_WIDTHS[width]), _WIDTHS[width])


def _transposed(numbers: Array, form: str) -> bytes:
    """All lowest bytes, then all second ones, and so on: like ones stand together, which deflates better."""
    size = np.dtype(form).itemsize
    return numbers.astype(form).view(np.uint8).reshape(-1, size).T.tobytes() if len(numbers) else b""


class _Source:
    """Reads what was packed."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def rest(self) -> bytes:
        return self._data[self._at :]

    def numbers(self, form: str, count: int) -> Array:
        size = np.dtype(form).itemsize * count
        found = np.frombuffer(self._data, dtype=form, count=count, offset=self._at)
        self._at += size
        return found

    def flags(self, count: int) -> Array:
        return np.unpackbits(self.numbers("u1", -(-count // 8)), count=count).astype(np.bool_)

    def transposed(self, form: str, count: int) -> Array:
        size = np.dtype(form).itemsize
        return np.ascontiguousarray(self.numbers("u1", size * count).reshape(size, count).T).view(form).reshape(count)

    def packed(self, count: int) -> Array:
        if not count:
            return np.empty(0, dtype=np.int64)
        width = self._data[self._at]
        self._at += 1
        return self.transposed(_WIDTHS[width], count).astype(np.int64)

    def sums(self, count: int) -> Array:
        """What `_differences` took apart."""
        first = self.numbers("<i8", 1)
        return np.concatenate([first, first + self.packed(count - 1).cumsum()])

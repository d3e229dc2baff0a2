"""Binary payloads by their layout: a plan made once, run over the bytes of each message. No I/O, no clock.

A field is read on its own, at a place that is known before the payload is: nothing a device sends moves a field, and
the length of the payload is checked before its first byte is looked at.
"""

import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import isfinite

from gateway.documents import EXACT, DecodeLimits, Undecodable, not_finite
from gateway.profiles.document import (
    INDEX,
    BinaryLayout,
    BitRule,
    ByteOrder,
    RepeatField,
    SkipField,
    ValueField,
    size_of_type,
)
from gateway.readings import Value
from gateway.refusals import Refusal

Row = tuple[int | None, list[tuple[str, Value]]]
"""Values of one time, in ms; None: none was sent."""

_FLOATS = {"f16": "e", "f32": "f", "f64": "d"}
_PER_MS = {"s": 1000, "ms": 1, "us": 1000, "ns": 1_000_000}
_LATEST = 2**64
_Read = Callable[[bytes], int | float]


class BinaryReader:
    """Reads payloads of one layout."""

    def __init__(self, layout: BinaryLayout) -> None:
        self._head: list[tuple[int, _Field]] = []
        self._groups: list[tuple[int, _Group]] = []
        place = 0
        for each in layout.fields:
            if isinstance(each, RepeatField):
                group = _Group(each, layout.byte_order)
                self._groups.append((place, group))
                place += group.size * group.times
            elif isinstance(each, SkipField):
                place += each.skip
            else:
                self._head.append((place, _Field(each, layout.byte_order)))
                place += size_of_type(each.type)
        self.size = place
        """Bytes of a payload; of one that repeats for the rest, the least."""
        self._rest = self._groups[-1][1] if self._groups and self._groups[-1][1].is_rest else None

    def read(self, payload: bytes, limits: DecodeLimits) -> list[Row]:
        """The rows of a payload. Raises Undecodable (binary_mismatch, or what is wrong with a number)."""
        over = len(payload) - self.size
        if over < 0 or (over and (self._rest is None or over % self._rest.size)):
            wanted = f"{self.size} bytes" + (f" and a multiple of {self._rest.size} more" if self._rest else "")
            raise Undecodable(Refusal.BINARY_MISMATCH, f"{len(payload)} bytes, the layout has {wanted}")
        head: Row = _read_row(self._head, payload, 0, None)
        rows = [head]
        for start, group in self._groups:
            times = over // group.size if group.is_rest else group.times
            if times * group.values > limits.values:
                raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limits.values} values")
            for n in range(times):
                row = _read_row(group.fields, payload, start + n * group.size, n)
                if group.timed:
                    rows.append(row)
                else:
                    head[1].extend(row[1])
        rows = [row for row in rows if row[1]]
        if sum([len(values) for _, values in rows]) > limits.values:
            raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limits.values} values")
        return rows


class _Group:
    def __init__(self, group: RepeatField, byte_order: ByteOrder) -> None:
        self.fields: list[tuple[int, _Field]] = []
        self.size = 0
        for each in group.fields:
            if isinstance(each, SkipField):
                self.size += each.skip
            else:
                self.fields.append((self.size, _Field(each, byte_order)))
                self.size += size_of_type(each.type)
        self.is_rest = group.repeat == "rest"
        self.times = 0 if group.repeat == "rest" else group.repeat
        self.timed = any(field.per_ms for _, field in self.fields)
        self.values = sum(len(field.outputs) for _, field in self.fields)


class _Field:
    """One field: how its bytes become a number, and what the number is for."""

    __slots__ = ("const", "outputs", "per_ms", "read", "size", "unit")

    def __init__(self, field: ValueField, byte_order: ByteOrder) -> None:
        self.size = size_of_type(field.type)
        self.read = _reader(field.type, field.byte_order or byte_order)
        self.const = field.const
        self.unit = field.time
        self.per_ms = _PER_MS[field.time] if field.time else 0
        self.outputs: list[tuple[str, Callable[[int | float], int | float]]] = []
        if field.metric is not None:
            convert = bool if field.type == "bool" else scaler(field.scale, field.offset)
            self.outputs.append((field.metric, convert))
        self.outputs += [(bit.metric, _bits(bit)) for bit in field.bits]


def _read_row(fields: Sequence[tuple[int, _Field]], payload: bytes, start: int, n: int | None) -> Row:
    ts_ms: int | None = None
    values: list[tuple[str, Value]] = []
    for place, field in fields:
        at = start + place
        raw = field.read(payload[at : at + field.size])
        if field.const is not None and raw != field.const:
            raise Undecodable(Refusal.BINARY_MISMATCH, f"byte {at}: {raw}, the layout has {field.const}")
        if field.per_ms:
            if not -_LATEST <= raw <= _LATEST:  # NaN neither
                raise Undecodable(Refusal.BAD_TIMESTAMP, f"byte {at}: no time")
            ts_ms = round(raw * field.per_ms) if field.unit == "s" else round(raw) // field.per_ms
        for metric, convert in field.outputs:
            value = convert(raw)
            if not isfinite(value):
                raise not_finite(metric, value)
            if type(value) is int and not -EXACT <= value <= EXACT:
                raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"byte {at}: an integer beyond 2**53")
            values.append((metric if n is None else metric.replace(INDEX, str(n)), value))
    return ts_ms, values


def _reader(type_: str, byte_order: ByteOrder) -> _Read:
    if type_ in _FLOATS:
        unpack = struct.Struct((">" if byte_order is ByteOrder.BIG else "<") + _FLOATS[type_]).unpack
        return lambda data: float(unpack(data)[0])
    signed = type_[0] == "i"
    if byte_order is ByteOrder.BIG:
        return lambda data: int.from_bytes(data, "big", signed=signed)
    return lambda data: int.from_bytes(data, "little", signed=signed)


def _bits(rule: BitRule) -> Callable[[int | float], int | float]:
    mask, sign = (1 << rule.count) - 1, 1 << (rule.count - 1) if rule.signed else 0
    scale = scaler(rule.scale, rule.offset)

    def read(raw: int | float) -> int | float:
        bits = ((int(raw) >> rule.low) & mask ^ sign) - sign
        return bits != 0 if rule.type == "boolean" else scale(bits)

    return read


def scaler(scale: float, offset: float) -> Callable[[int | float], int | float]:
    """value * scale + offset; of a whole number with the decimals of the two, so that 2153 * 0.01 is 21.53."""
    if scale == 1 and offset == 0:
        return lambda raw: raw
    digits = max(0, -_exponent(scale), -_exponent(offset))

    def convert(raw: int | float) -> int | float:
        value = raw * scale + offset
        return round(value, digits) if type(raw) is int and digits <= 15 else value

    return convert


def _exponent(number: float) -> int:
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0

"""A profile ready for messages: payload in, readings out, each checked. No I/O, no clock."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.compressed import FIRST_BYTES, decompress, is_compressed
from gateway.decode import decode, document_form, is_binary
from gateway.documents import DecodeLimits, Undecodable, printable, read_cbor, read_json, read_json_strictly, shown
from gateway.kinds import KIND_OF
from gateway.profiles.binary import BinaryReader, Row
from gateway.profiles.commands import CompiledCommands
from gateway.profiles.document import MetricRule, Profile
from gateway.profiles.mapping import MappingReader
from gateway.profiles.schema import Schema
from gateway.profiles.twins import CompiledTwins
from gateway.readings import Kind, Reading, kind_of
from gateway.refusals import Refusal

Unfit = tuple[Reading, Refusal, str]


class _Bounds(NamedTuple):
    kind: Kind | None
    low: float | None
    high: float | None


class CompiledProfile:
    """What a profile makes of the messages of its devices.

    A message that is not as declared is refused whole (schema_violation, mapping_failed, binary_mismatch); of one that
    is, a metric that is not as declared is refused alone (unknown_metric, wrong_type, out_of_range).
    """

    def __init__(self, profile: Profile) -> None:
        telemetry = profile.telemetry
        self.name = profile.name
        self.retention_days = profile.retention_days
        self.expected_interval_s = profile.expected_interval_s
        self.commands = CompiledCommands(profile, profile.name)
        self.twins = CompiledTwins(profile.twin)
        self.units = {metric: rule.unit for metric, rule in telemetry.metrics.items() if rule.unit is not None}
        self.reads = not telemetry.says_nothing
        """Whether messages have to be read here at all."""
        self._metrics = {metric: _bounds(rule) for metric, rule in telemetry.metrics.items()}
        self._accepts_unknown = telemetry.unknown_metrics == "accept"
        self._schema = None if telemetry.json_schema is None else Schema(telemetry.json_schema)
        self._mapping = MappingReader(telemetry) if telemetry.mapping else None
        self._binary = None if telemetry.binary is None else BinaryReader(telemetry.binary)

    def read(
        self,
        channel: str,
        content_type: str | None,
        payload: bytes,
        *,
        device_id: str,
        now_ms: int,
        limits: DecodeLimits,
        stamp: Callable[[], int],
    ) -> tuple[list[Reading], list[Unfit]]:
        """The readings of a message that fit, in order, and those that do not. Arguments as `decode`, which see.

        Raises Undecodable.
        """
        if len(payload) > limits.payload_bytes:
            raise Undecodable(Refusal.TOO_LARGE, f"{len(payload)} bytes, at most {limits.payload_bytes}")
        rows: list[Row] | None = None
        if self._binary is not None and is_binary(channel, content_type):
            rows = self._binary.read(payload, limits)
        elif (self._schema or self._mapping) and not is_binary(channel, content_type):
            rows = self._read_document(channel, content_type, payload, limits)
        if rows is None:
            readings = decode(
                channel, content_type, payload, device_id=device_id, now_ms=now_ms, limits=limits, stamp=stamp
            )
        else:
            readings = _readings(rows, device_id, now_ms + limits.ahead_ms, limits, stamp)
        return self.check(readings)

    def _read_document(
        self, channel: str, content_type: str | None, payload: bytes, limits: DecodeLimits
    ) -> list[Row] | None:
        """None: the document is as it should be, and `decode` reads it; or it is SenML, which has its own schema."""
        form = document_form(channel, content_type)
        if form is None:
            return None
        if payload[:1] in FIRST_BYTES and is_compressed(payload):
            payload = decompress(payload, limits.payload_bytes)
        document = read_cbor(payload) if form == "cbor" else read_json(payload)
        if self._schema is not None:
            if self._schema.is_too_much(document, len(payload)):
                raise Undecodable(Refusal.TOO_LARGE, "too much for the profile's schema: send less at once")
            if (wrong := self._schema.wrong(document)) is not None:
                raise Undecodable(Refusal.SCHEMA_VIOLATION, printable(wrong))
        if self._mapping is None:
            return None
        if form == "json":
            read_json_strictly(payload, exact=False)
        return self._mapping.read(document, limits)

    def check(self, readings: list[Reading]) -> tuple[list[Reading], list[Unfit]]:
        """Readings that are as the profile declares its metrics, in order, and those that are not."""
        fit: list[Reading] = []
        unfit: list[Unfit] = []
        for reading in readings:
            bounds = self._metrics.get(reading.metric)
            if bounds is None:
                if self._accepts_unknown:
                    fit.append(reading)
                else:
                    detail = f"{shown(reading.metric)} is none of the profile {self.name}"
                    unfit.append((reading, Refusal.UNKNOWN_METRIC, detail))
                continue
            value = reading.value
            kind = KIND_OF.get(type(value)) or kind_of(value)
            if bounds.kind is not None and kind is not bounds.kind:
                detail = f"{shown(reading.metric)} is a {kind}, the profile {self.name} has {bounds.kind}"
                unfit.append((reading, Refusal.WRONG_TYPE, detail))
            elif bounds.low is not None and (not isinstance(value, int | float) or value < bounds.low):
                detail = f"{shown(reading.metric)}: {value} is below {bounds.low:g}"
                unfit.append((reading, Refusal.OUT_OF_RANGE, detail))
            elif bounds.high is not None and (not isinstance(value, int | float) or value > bounds.high):
                detail = f"{shown(reading.metric)}: {value} is above {bounds.high:g}"
                unfit.append((reading, Refusal.OUT_OF_RANGE, detail))
            else:
                fit.append(reading)
        return fit, unfit


def _bounds(rule: MetricRule) -> _Bounds:
    """A type that readings do not have yet is not checked. Bounds alone say that it is a number."""
    kind = None if rule.type is None or rule.type.value not in set(Kind) else Kind(rule.type.value)
    if rule.type is None and (rule.min is not None or rule.max is not None):
        kind = Kind.NUMBER
    return _Bounds(kind, rule.min, rule.max)


def _readings(
    rows: list[Row], device_id: str, latest_ms: int, limits: DecodeLimits, stamp: Callable[[], int]
) -> list[Reading]:
    readings: list[Reading] = []
    for at_ms, values in rows:
        if len({metric for metric, _ in values}) != len(values):
            raise Undecodable(Refusal.DUPLICATE_KEY, "the profile gives one metric two values, by a name with {n}")
        if at_ms is None:
            at_ms = stamp()
        elif not limits.oldest_ms <= at_ms <= latest_ms:
            raise Undecodable(Refusal.BAD_TIMESTAMP, "the time lies before 2000 or more than a day ahead")
        readings += [Reading(device_id, metric, at_ms, value) for metric, value in values]
    return readings

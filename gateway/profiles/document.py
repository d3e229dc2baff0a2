"""A profile as people write it and as the API takes and gives it: a document, checked at the edge. No I/O, no clock.

Whatever is wrong is said with its path. What passes here compiles (compiled.py); docs/profiles.md tells the meaning.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from gateway.profiles.commands import CommandRules
from gateway.profiles.schema import checked_schema
from gateway.profiles.twins import TwinRules

PROFILE_NAME = r"^[A-Za-z0-9._-]{1,64}$"
METRICS_LIMIT = 1000
RULES_LIMIT = 256
FIELDS_LIMIT = 256
ITEMS_LIMIT = 256
_NUMBER_LIMIT = 1e300
INDEX = "{n}"
"""Stands in a metric's name for the place of an item, from 0."""


def _whole_number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


def _pointer(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError("a JSON pointer (RFC 6901) is empty or begins with /")
    if re.search(r"~(?![01])", text):
        raise ValueError("in a JSON pointer ~ is written ~0, and / in a name ~1")
    if text.split("/").count("*") > 1:
        raise ValueError("at most one * a pointer")
    return text


Number = Annotated[
    float, Field(ge=-_NUMBER_LIMIT, le=_NUMBER_LIMIT, allow_inf_nan=False), BeforeValidator(_whole_number)
]
Metric = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_printable)]
Pointer = Annotated[str, Field(max_length=256), AfterValidator(_pointer)]
PlainPointer = Annotated[Pointer, Field(pattern=r"^[^*]*$")]


class MetricType(StrEnum):
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    POSITION = "position"
    JSON = "json"


class ByteOrder(StrEnum):
    BIG = "big"
    LITTLE = "little"


class TimeUnit(StrEnum):
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    ISO8601 = "iso8601"


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class MetricRule(_Part):
    """What is known of a metric; what is left out is not checked."""

    type: MetricType | None = None
    unit: str | None = Field(default=None, min_length=1, max_length=32, description="UCUM or any other: it is shown.")
    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        if (self.min is not None or self.max is not None) and self.type not in (None, MetricType.NUMBER):
            raise ValueError("only a number has min and max")
        return self


class MappingRule(_Part):
    """One value of a foreign document, and the metric it becomes."""

    pointer: Pointer = Field(alias="from", description="JSON pointer; one * stands for every item of an array.")
    metric: Metric = Field(description="With {n} for the item's place where `from` has a *.")
    scale: Number = 1.0
    offset: Number = 0.0
    type: Literal["number", "boolean", "text"] | None = Field(default=None, description="What to make of the value.")
    required: bool = Field(default=False, description="Whether a message without it is refused.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if ("*" in self.pointer.split("/")) != (INDEX in self.metric):
            raise ValueError("a * in `from` and {n} in `metric` go together")
        if self.type in ("boolean", "text") and (self.scale != 1 or self.offset != 0):
            raise ValueError("only a number has scale and offset")
        return self


class MappingTime(_Part):
    pointer: PlainPointer = Field(alias="from")
    unit: TimeUnit = TimeUnit.MS


class BitRule(_Part):
    """Some bits of an integer, the lowest being bit 0."""

    low: int = Field(ge=0, le=63)
    count: int = Field(default=1, ge=1, le=63)
    metric: Metric
    signed: bool = False
    scale: Number = 1.0
    offset: Number = 0.0
    type: Literal["number", "boolean"] = "number"


FieldType = Literal[
    "u8", "u16", "u24", "u32", "u40", "u48", "u56", "u64",
    "i8", "i16", "i24", "i32", "i40", "i48", "i56", "i64",
    "f16", "f32", "f64", "bool",
]  # fmt: skip
_SIZES = {"bool": 1}


def size_of_type(type_: str) -> int:
    """Bytes of a FieldType."""
    return _SIZES.get(type_) or int(type_[1:]) // 8


class ValueField(_Part):
    """A number in the payload, and what it is: a metric, the time, bits, a constant; or nothing, then it is skipped."""

    type: FieldType
    byte_order: ByteOrder | None = Field(default=None, description="Left out: that of the layout.")
    metric: Metric | None = None
    scale: Number = 1.0
    offset: Number = 0.0
    time: Literal["s", "ms", "us", "ns"] | None = Field(default=None, description="The readings' time, since 1970.")
    bits: list[BitRule] = Field(default_factory=list, max_length=64)
    const: int | None = Field(default=None, description="The value that must stand here.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        roles = [self.metric is not None, self.time is not None, bool(self.bits), self.const is not None]
        if sum(roles) > 1:
            raise ValueError("a field is one of metric, time, bits and const")
        size_bits = size_of_type(self.type) * 8
        is_bool = self.type == "bool"
        is_whole = self.type[0] != "f" and not is_bool
        if not is_whole and (self.bits or self.const is not None or (self.time and is_bool)):
            raise ValueError(f"bits, const and time are not for {self.type}")
        if is_bool and (self.scale != 1 or self.offset != 0):
            raise ValueError("only a number has scale and offset")
        if self.const is not None:
            low, high = (0, 2**size_bits) if self.type[0] == "u" else (-(2 ** (size_bits - 1)), 2 ** (size_bits - 1))
            if not low <= self.const < high:
                raise ValueError(f"const does not fit into {self.type}")
        for bit in self.bits:
            if bit.low + bit.count > size_bits:
                raise ValueError(f"bits {bit.low} to {bit.low + bit.count - 1} are not in {self.type}")
        return self


class SkipField(_Part):
    skip: int = Field(ge=1, le=4096, description="Bytes to pass over.")


def _kind(field: object) -> str:
    """Which of the three a field is meant to be: what is wrong is then said of that one alone."""
    for kind in ("repeat", "skip"):
        if kind in field if isinstance(field, dict) else hasattr(field, kind):
            return kind
    return "field"


_InnerField = Annotated[
    Annotated[ValueField, Tag("field")] | Annotated[SkipField, Tag("skip")],
    Discriminator(lambda field: "skip" if _kind(field) == "skip" else "field"),
]


class RepeatField(_Part):
    """Fields that come again and again: {n} in their metrics is the place, or each time has its own time field."""

    repeat: int | Literal["rest"] = Field(description='How often, 1 to 256, or "rest": to the end of the payload.')
    fields: list[_InnerField] = Field(min_length=1, max_length=FIELDS_LIMIT)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.repeat, int) and not 1 <= self.repeat <= ITEMS_LIMIT:
            raise ValueError(f"repeat is 1 to {ITEMS_LIMIT}")
        timed = any(isinstance(each, ValueField) and each.time for each in self.fields)
        for metric in _metrics_of(self.fields):
            if (INDEX in metric) == timed:
                need = "has no {n}, since each item has its time" if timed else "needs {n}, or the items a time"
                raise ValueError(f"metric {metric} {need}")
        return self


_OuterField = Annotated[
    Annotated[ValueField, Tag("field")] | Annotated[SkipField, Tag("skip")] | Annotated[RepeatField, Tag("repeat")],
    Discriminator(_kind),
]


class BinaryLayout(_Part):
    """A payload of bytes, from its first to its last."""

    byte_order: ByteOrder = ByteOrder.BIG
    fields: list[_OuterField] = Field(min_length=1, max_length=FIELDS_LIMIT)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for each in self.fields[:-1]:
            if isinstance(each, RepeatField) and each.repeat == "rest":
                raise ValueError('a field that repeats for the "rest" is the last one')
        times = [each for each in self.fields if isinstance(each, ValueField) and each.time]
        if len(times) > 1:
            raise ValueError("more than one time outside of what repeats")
        metrics = list(_metrics_of(self.fields))
        for metric in _metrics_of([each for each in self.fields if isinstance(each, ValueField)]):
            if INDEX in metric:
                raise ValueError(f"metric {metric}: {INDEX} is for what repeats")
        if not metrics:
            raise ValueError("no field is a metric")
        if len(set(metrics)) != len(metrics):
            raise ValueError("a metric comes twice")
        return self


def _metrics_of(fields: "list[Any]") -> Iterator[str]:
    for each in fields:
        if isinstance(each, RepeatField):
            yield from _metrics_of(each.fields)
        elif isinstance(each, ValueField):
            if each.metric is not None:
                yield each.metric
            yield from (bit.metric for bit in each.bits)


class TelemetryRules(_Part):
    """What a device of this kind sends as telemetry."""

    metrics: dict[Metric, MetricRule] = Field(default_factory=dict, max_length=METRICS_LIMIT)
    unknown_metrics: Literal["accept", "refuse"] = "accept"
    json_schema: Annotated[dict[str, Any] | None, AfterValidator(checked_schema)] = Field(
        default=None, alias="schema", description="JSON Schema (2020-12) of JSON and CBOR messages."
    )
    each: PlainPointer | None = Field(
        default=None, description="JSON pointer to an array: every item is mapped as a document of its own."
    )
    mapping: list[MappingRule] = Field(default_factory=list, max_length=RULES_LIMIT)
    time: MappingTime | None = Field(default=None, description="Where mapped readings have their time.")
    binary: BinaryLayout | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.mapping and (self.time is not None or self.each is not None):
            raise ValueError("time and each are for a mapping, and there is none")
        names = [rule.metric for rule in self.mapping]
        if len(set(names)) != len(names):
            raise ValueError("mapping: a metric comes twice")
        return self

    @property
    def says_nothing(self) -> bool:
        """Whether messages need no closer look than without a profile; units alone change nothing about them."""
        bounds = (
            rule.type is not None or rule.min is not None or rule.max is not None for rule in self.metrics.values()
        )
        declared = self.json_schema is not None or bool(self.mapping) or self.binary is not None
        return not declared and self.unknown_metrics == "accept" and not any(bounds)


class ProfileBody(CommandRules, _Part):
    """A profile without its name."""

    description: str = Field(default="", max_length=1024)
    retention_days: int | None = Field(default=None, ge=1, le=36_500, description="null: the server's default.")
    expected_interval_s: Annotated[Number, Field(gt=0, le=31_536_000)] | None = Field(
        default=None, description="How often a device of this kind should be heard of."
    )
    telemetry: TelemetryRules = Field(default_factory=TelemetryRules)
    twin: TwinRules = Field(default_factory=TwinRules)


class Profile(ProfileBody):
    name: str = Field(pattern=PROFILE_NAME, examples=["pump"])

    def json_document(self) -> dict[str, Any]:
        """As written, with every default said."""
        return self.model_dump(mode="json", by_alias=True)

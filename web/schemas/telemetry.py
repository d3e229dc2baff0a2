"""Readings as the API asks for and gives them. Times of points are Unix time in ms. No I/O."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, RootModel

from web.schemas.base import In, Out

Value = float | int | bool | str | dict[str, Any] | list[Any]


class Agg(StrEnum):
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    COUNT = "count"
    LAST = "last"
    FIRST = "first"
    P50 = "p50"
    P95 = "p95"


class Fill(StrEnum):
    NONE = "none"
    NULL = "null"


class RangeQuery(In):
    metrics: str = Field(default="", max_length=4096, description="Comma-separated names; none for all.")
    start: str | None = Field(default=None, max_length=40, description="ms or RFC 3339; default: an hour before end.")
    end: str | None = Field(default=None, max_length=40, description="ms or RFC 3339, exclusive; default: now.")
    buckets: int | None = Field(default=None, ge=1, le=2000, description="How many; left out: the raw readings.")
    agg: Agg = Field(default=Agg.MEAN, description="What a bucket shows; all but numbers know first, last and count.")
    fill: Fill = Field(default=Fill.NONE, description="Buckets without readings: left out, or null.")
    max_points: int = Field(
        default=10_000, ge=1, le=10_000, description="Of raw readings: the newest so many a series."
    )


class TelemetryQuery(RangeQuery):
    pass


class FleetTelemetryQuery(RangeQuery):
    devices: str = Field(default="", max_length=4096, description="Comma-separated ids.")
    tag: str = Field(default="", max_length=64, description="And those with this tag.")
    group: str = Field(default="", max_length=64, description="And those of the group with this id.")


class ExportQuery(In):
    metrics: str = Field(default="", max_length=4096, description="Comma-separated names; none for all.")
    start: str | None = Field(default=None, max_length=40, description="ms or RFC 3339; default: a day before end.")
    end: str | None = Field(default=None, max_length=40, description="ms or RFC 3339, exclusive; default: now.")
    wide: bool = Field(default=False, description="One row a time and one column a metric.")
    format: Literal["csv"] = "csv"


class Series(Out):
    t: list[int] = Field(description="Unix time in ms, ascending; a bucket's time is its beginning.")
    v: list[Value | None]
    truncated: bool = Field(default=False, description="Whether there are more raw readings, older than these.")


class Telemetry(Out):
    series: dict[str, Series]


class FleetTelemetry(Out):
    devices: dict[str, Telemetry]
    missing: list[str] = Field(description="Ids that were asked for and are no devices.")


class LatestValue(Out):
    ts: int = Field(description="Unix time in ms.")
    value: Value
    stale: bool = Field(description="Whether the reading is older than the server's limit (5 minutes by default).")
    unit: str | None = Field(default=None, description="As the device's profile says.")


class Latest(RootModel[dict[str, LatestValue]]):
    """The newest reading of each metric."""

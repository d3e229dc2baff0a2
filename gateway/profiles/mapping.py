"""Foreign documents as readings: JSON pointers (RFC 6901) to values, and what each becomes. No I/O, no clock."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from gateway.documents import EXACT, DecodeLimits, Undecodable, check_text, not_finite, shown
from gateway.profiles.binary import Row, scaler
from gateway.profiles.document import INDEX, MappingRule, TelemetryRules, TimeUnit
from gateway.readings import Value
from gateway.refusals import Refusal

_LOOK_UPS = 20_000
"""Of one message, some 1 µs each: rules times the items of arrays would be millions in 64 KiB."""

_ABSENT = object()
_MS = {TimeUnit.S: (1000, 1), TimeUnit.MS: (1, 1), TimeUnit.US: (1, 1000), TimeUnit.NS: (1, 1_000_000)}
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")  # RFC 6901: no leading zeros; 64 KiB hold no more items
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "on": True, "off": False}


class MappingReader:
    """Reads documents by the mapping of one profile."""

    def __init__(self, telemetry: TelemetryRules) -> None:
        self._each = None if telemetry.each is None else _parts(telemetry.each)
        self._each_text = telemetry.each
        self._rules = [_Rule(rule) for rule in telemetry.mapping]
        self._time = telemetry.time
        self._time_parts = None if telemetry.time is None else _parts(telemetry.time.pointer)

    def read(self, document: Any, limits: DecodeLimits) -> list[Row]:
        """The rows of a document. Raises Undecodable (mapping_failed, bad_timestamp, or what is wrong with a value)."""
        items = [document]
        if self._each is not None:
            items = _find(document, self._each)
            if type(items) is not list:
                raise Undecodable(Refusal.MAPPING_FAILED, f"{shown(self._each_text)}: there is no array")
        rows: list[Row] = []
        count = looks = 0
        for item in items:
            values: list[tuple[str, Value]] = []
            for rule in self._rules:
                places = rule.places(item)
                looks += 1 + len(places)
                if looks > _LOOK_UPS or count + len(values) > limits.values:
                    raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limits.values} values, or items to look in")
                values += rule.values(places, limits)
            count += len(values)
            if count > limits.values:
                raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limits.values} values")
            if values:
                rows.append((self._at_ms(item), values))
        if not rows:
            raise Undecodable(Refusal.MAPPING_FAILED, "none of the mapping's pointers leads to a value")
        return rows

    def _at_ms(self, item: Any) -> int | None:
        if self._time is None or self._time_parts is None:
            return None
        found = _find(item, self._time_parts)
        if found is _ABSENT or found is None:
            return None
        try:
            if isinstance(found, datetime):
                return round(found.timestamp() * 1000)
            if self._time.unit is TimeUnit.ISO8601:
                at = datetime.fromisoformat(found)
                return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
            number = _number(found)
            times, per = _MS[self._time.unit]
            return round(number * times) // per
        except (ValueError, TypeError, OverflowError) as error:
            where = shown(self._time.pointer)
            raise Undecodable(Refusal.BAD_TIMESTAMP, f"{where}: not a time in {self._time.unit}") from error


class _Rule:
    def __init__(self, rule: MappingRule) -> None:
        self._rule = rule
        parts = _parts(rule.pointer)
        star = parts.index("*") if "*" in parts else None
        self._array = None if star is None else parts[:star]
        self._parts = parts if star is None else parts[star + 1 :]
        self._scale = scaler(rule.scale, rule.offset)
        self._scaled = rule.scale != 1 or rule.offset != 0

    def places(self, item: Any) -> Sequence[Any]:
        """Where to look for values: in the document, or in each item of its array."""
        if self._array is None:
            return (item,)
        array = _find(item, self._array)
        return array if type(array) is list else ()

    def values(self, places: Sequence[Any], limits: DecodeLimits) -> list[tuple[str, Value]]:
        found = [(n, value) for n, place in enumerate(places) if (value := _find(place, self._parts)) is not _ABSENT]
        found = [(n, value) for n, value in found if value is not None]
        if len(found) > limits.values:
            raise Undecodable(Refusal.TOO_MANY_VALUES, f"more than {limits.values} values")
        if self._rule.required and not found:
            raise Undecodable(Refusal.MAPPING_FAILED, f"{shown(self._rule.pointer)}: there is no value")
        metric = self._rule.metric
        if self._array is None:
            return [(metric, self._value(value, limits)) for _, value in found]
        return [(metric.replace(INDEX, str(n)), self._value(value, limits)) for n, value in found]

    def _value(self, value: Any, limits: DecodeLimits) -> Value:
        rule = self._rule
        where = shown(rule.pointer)
        try:
            made = _as(rule.type or ("number" if self._scaled else None), value)
        except (ValueError, TypeError, KeyError) as error:
            kind = shown(type(value).__name__)
            raise Undecodable(Refusal.MAPPING_FAILED, f"{where}: {kind} is no {rule.type or 'value'}") from error
        if isinstance(made, str):
            check_text(rule.pointer, made, limits)
            return made
        if isinstance(made, bool):
            return made
        if isinstance(made, dict | list):
            raise Undecodable(Refusal.MAPPING_FAILED, f"{where}: an object or an array is no value here")
        if isinstance(made, int) and not -EXACT <= made <= EXACT:
            raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{where}: an integer beyond 2**53")
        made = self._scale(made)
        if isinstance(made, float) and not isfinite(made):
            raise not_finite(rule.pointer, made)
        if isinstance(made, int) and not -EXACT <= made <= EXACT:
            raise Undecodable(Refusal.NUMBER_OUT_OF_RANGE, f"{where}: an integer beyond 2**53")
        return made


def _as(type_: str | None, value: Any) -> Value:
    """Raises ValueError or TypeError where it cannot be."""
    if type_ == "number":
        return _number(value)
    if type_ == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
    if isinstance(value, bool):
        return str(value).lower() if type_ == "text" else value
    if isinstance(value, int | float):
        return str(value) if type_ == "text" else value
    if isinstance(value, str):
        return value
    raise TypeError("neither number, boolean nor text")


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    # int() and float() would also take "1_000" and "٣"; what is not finite is refused by that name.
    if not isinstance(value, str) or len(value) > 40 or not _NUMBER.fullmatch(value):
        raise TypeError("no number")
    return int(value) if value.lstrip("+-").isdigit() else float(value)


def _parts(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _find(value: Any, parts: tuple[str, ...]) -> Any:
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, _ABSENT)
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value

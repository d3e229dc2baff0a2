"""The fields that a query may name, and what their values have to look like. No I/O, no clock."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from fleet.query.terms import ORDERING, Field, Literal, Operator
from fleet.query.versions import version_key
from fleet.views import DeviceStatus


class FieldKind(StrEnum):
    TEXT = "text"
    VERSION = "version"
    TIME = "time"
    FLAG = "flag"
    TAG = "tag"
    ATTRIBUTE = "attribute"


FIELDS = {
    "id": FieldKind.TEXT,
    "name": FieldKind.TEXT,
    "profile": FieldKind.TEXT,
    "status": FieldKind.TEXT,
    "address": FieldKind.TEXT,
    "link": FieldKind.TEXT,
    "firmware": FieldKind.VERSION,
    "target_firmware": FieldKind.TEXT,
    "disabled": FieldKind.FLAG,
    "last_seen": FieldKind.TIME,
    "created_at": FieldKind.TIME,
    "tag": FieldKind.TAG,
    "tags": FieldKind.TAG,
    "attributes": FieldKind.ATTRIBUTE,
}
KEYED = frozenset({"tags", "attributes"})

_MATCHING = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE})
_OPERATORS = {
    FieldKind.TEXT: _MATCHING,
    FieldKind.VERSION: _MATCHING | ORDERING,
    FieldKind.TIME: ORDERING,
    FieldKind.FLAG: frozenset({Operator.EQUAL, Operator.UNEQUAL}),
    FieldKind.TAG: _MATCHING,
    FieldKind.ATTRIBUTE: _MATCHING | ORDERING,
}
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION_LIMIT_S = 36_500 * 86_400  # 100 years: still a year that dates can say


def number_of(value: Literal) -> float | None:
    """The number that a value without quotes is."""
    return float(value.text) if not value.quoted and _NUMBER.fullmatch(value.text) else None


def flag_of(value: Literal) -> bool | None:
    return {"true": True, "false": False}.get(value.text)


def time_of(value: Literal, now: datetime) -> tuple[datetime, bool] | None:
    """The instant that is meant, and whether it was given as an age: 2h is the instant two hours before `now`."""
    if match := _DURATION.fullmatch(value.text):
        age_s = int(match[1]) * _UNIT_S[match[2]]
        return (now - timedelta(seconds=age_s), True) if age_s <= _DURATION_LIMIT_S else None
    try:
        instant = datetime.fromisoformat(value.text)
        return None if instant.tzinfo is None else (instant.astimezone(UTC), False)
    except (ValueError, OverflowError):
        return None


def fault_of(field: Field, operator: Operator, value: Literal) -> str | None:
    """Why this comparison means nothing; None when it does."""
    kind = FIELDS[field.name]
    if operator not in _OPERATORS[kind]:
        return f"{field.name} is compared with {', '.join(each for each in Operator if each in _OPERATORS[kind])}"
    if kind is FieldKind.FLAG and flag_of(value) is None:
        return f"{field.name} is true or false"
    if kind is FieldKind.TIME and time_of(value, datetime(2026, 1, 1, tzinfo=UTC)) is None:
        return f"{field.name} is compared with an age such as 90s, 15m, 2h, 7d, or an instant of RFC 3339"
    if operator in ORDERING:
        if kind is FieldKind.VERSION and not version_key(value.text):
            return "no version: one begins with a number, such as 2.1.0"
        if kind is FieldKind.ATTRIBUTE and number_of(value) is None:
            return f"{operator} wants a number without quotes"
    elif field.name == "status" and operator is not Operator.LIKE and value.text not in set(DeviceStatus):
        return f"status is one of {', '.join(DeviceStatus)}"
    return None

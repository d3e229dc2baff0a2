"""What a query means, said once more in plain Python: the SQL has to find the same devices."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fleet.clock import EPOCH
from fleet.query.fields import FIELDS, FieldKind, flag_of, number_of, time_of
from fleet.query.leaves import leaves
from fleet.query.terms import And, Compare, Field, Has, Literal, Not, OneOf, Operator, Or, Term
from fleet.query.versions import version_key


@dataclass(frozen=True, kw_only=True)
class Facts:
    id: str
    profile: str
    status: str
    firmware: str
    disabled: bool
    last_seen: datetime
    tags: list[str]
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        return self.id


def matches(term: Term, device: Facts, now: datetime) -> bool:
    match term:
        case And():
            return all(matches(each, device, now) for each in term.terms)
        case Or():
            return any(matches(each, device, now) for each in term.terms)
        case Not():
            return not matches(term.term, device, now)
        case Has():
            return _has(term.field, device)
        case OneOf():
            return any(_compare(term.field, Operator.EQUAL, value, device, now) for value in term.values)
        case Compare(operator=Operator.UNEQUAL):
            return not _compare(term.field, Operator.EQUAL, term.value, device, now)
        case Compare():
            return _compare(term.field, term.operator, term.value, device, now)


def _has(field: Field, device: Facts) -> bool:
    match FIELDS[field.name]:
        case FieldKind.TAG:
            return bool(_tags(field, device))
        case FieldKind.ATTRIBUTE:
            return any(leaf.path == field.key for leaf in leaves(device.attributes))
        case FieldKind.TIME:
            return bool(getattr(device, field.name) > EPOCH)
        case FieldKind.FLAG:
            return True
        case _:
            return bool(getattr(device, field.name))


def _compare(field: Field, operator: Operator, value: Literal, device: Facts, now: datetime) -> bool:
    match FIELDS[field.name]:
        case FieldKind.VERSION if operator.value[0] in "<>":
            key = version_key(device.firmware)
            return bool(key) and _ordered(key, operator, version_key(value.text))
        case FieldKind.TIME:
            meant = time_of(value, now)
            assert meant is not None
            instant, is_age = meant
            seen = getattr(device, field.name)
            return _ordered(now - seen, operator, now - instant) if is_age else _ordered(seen, operator, instant)
        case FieldKind.FLAG:
            return bool(getattr(device, field.name) == flag_of(value))
        case FieldKind.TAG:
            return any(_text(tag, operator, value.text) for tag in _tags(field, device))
        case FieldKind.ATTRIBUTE:
            found = [leaf for leaf in leaves(device.attributes) if leaf.path == field.key]
            number = number_of(value)
            if number is not None and operator is not Operator.LIKE:
                return any(leaf.number is not None and _ordered(leaf.number, operator, number) for leaf in found)
            return any(leaf.number is None and _text(leaf.value, operator, value.text) for leaf in found)
        case _:
            return _text(getattr(device, field.name), operator, value.text)


def _tags(field: Field, device: Facts) -> list[str]:
    if not field.key:
        return device.tags
    starts = tuple(field.key + sign for sign in "=:")
    return [tag[len(field.key) + 1 :] for tag in device.tags if tag.startswith(starts)]


def _text(text: str, operator: Operator, pattern: str) -> bool:
    if operator is not Operator.LIKE:
        return text == pattern
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(each) or re.escape(each) for each in pattern), text, re.DOTALL) is not None


def _ordered(one: Any, operator: Operator, other: Any) -> bool:
    return {"=": one == other, "<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator]

"""A term as a condition over the table `device`, its values apart: not one character of a query gets into the SQL.

No I/O; the time is an argument. Conditions are never NULL, so that NOT means the opposite on both databases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import EPOCH
from fleet.query.fields import FIELDS, FieldKind, flag_of, number_of, time_of
from fleet.query.terms import ORDERING, And, Compare, Field, Has, Literal, Not, OneOf, Operator, Or, Term
from fleet.query.versions import version_key

_COLUMNS = {"last_seen": "last_seen_at"}
_TURNED = {
    Operator.LESS: Operator.GREATER,
    Operator.LESS_OR_EQUAL: Operator.GREATER_OR_EQUAL,
    Operator.GREATER: Operator.LESS,
    Operator.GREATER_OR_EQUAL: Operator.LESS_OR_EQUAL,
}
_SEPARATORS = ("=", ":")  # both ways of writing a key and a value into one tag


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL with a ? for each of `values`."""

    sql: str
    values: tuple[object, ...] = ()


def condition_of(term: Term, *, now: datetime, postgres: bool) -> Condition:
    """What of `device` the term means at `now` (aware UTC)."""
    return _Writer(now, postgres).term(term)


def all_of(conditions: Sequence[Condition]) -> Condition:
    return _joined(" AND ", conditions) if conditions else Condition("1 = 1")


def any_of(conditions: Sequence[Condition]) -> Condition:
    return _joined(" OR ", conditions) if conditions else Condition("1 = 0")


def _joined(word: str, conditions: Sequence[Condition]) -> Condition:
    sql = word.join(f"({each.sql})" for each in conditions)
    return Condition(sql, tuple(value for each in conditions for value in each.values))


def _not(condition: Condition) -> Condition:
    return Condition(f"NOT ({condition.sql})", condition.values)


class _Writer:
    def __init__(self, now: datetime, postgres: bool) -> None:
        self._now = now
        self._postgres = postgres

    def term(self, term: Term) -> Condition:
        match term:
            case And():
                return all_of([self.term(each) for each in term.terms])
            case Or():
                return any_of([self.term(each) for each in term.terms])
            case Not():
                return _not(self.term(term.term))
            case Has():
                return self._has(term.field)
            case OneOf():
                return any_of([self._compare(term.field, Operator.EQUAL, value) for value in term.values])
            case Compare(operator=Operator.UNEQUAL):
                return _not(self._compare(term.field, Operator.EQUAL, term.value))
            case Compare():
                return self._compare(term.field, term.operator, term.value)

    def _has(self, field: Field) -> Condition:
        column = _COLUMNS.get(field.name, field.name)
        match FIELDS[field.name]:
            case FieldKind.TEXT | FieldKind.VERSION:
                return Condition(f"{column} <> ''")
            case FieldKind.TIME:
                return Condition(f"{column} > ?", (EPOCH,))
            case FieldKind.FLAG:
                return Condition("1 = 1")
            case FieldKind.ATTRIBUTE:
                return _attribute(field, Condition("1 = 1"))
            case FieldKind.TAG:
                if not field.key:
                    return _tag([Condition("1 = 1")])
                return _tag([self._like("tag", field.key + sign, "*") for sign in _SEPARATORS])

    def _compare(self, field: Field, operator: Operator, value: Literal) -> Condition:
        column = _COLUMNS.get(field.name, field.name)
        match FIELDS[field.name]:
            case FieldKind.VERSION if operator in ORDERING:
                sql = f"firmware_key IS NOT NULL AND firmware_key <> '' AND firmware_key {operator} ?"
                return Condition(sql, (version_key(value.text),))
            case FieldKind.TEXT | FieldKind.VERSION:
                return self._matched(column, operator, "", value.text)
            case FieldKind.FLAG:
                return Condition(f"{column} = ?", (flag_of(value),))
            case FieldKind.TIME:
                meant = time_of(value, self._now)
                assert meant is not None, "checked by the parser"  # noqa: S101
                instant, is_age = meant
                return Condition(f"{column} {_TURNED[operator] if is_age else operator} ?", (instant,))
            case FieldKind.TAG:
                starts = [field.key + sign for sign in _SEPARATORS] if field.key else [""]
                return _tag([self._matched("tag", operator, start, value.text) for start in starts])
            case FieldKind.ATTRIBUTE:
                number = number_of(value)
                if number is not None and operator is not Operator.LIKE:
                    return _attribute(field, Condition(f"number IS NOT NULL AND number {operator} ?", (number,)))
                matched = self._matched("value", operator, "", value.text)
                return _attribute(field, all_of([Condition("number IS NULL"), matched]))

    def _matched(self, column: str, operator: Operator, start: str, text: str) -> Condition:
        if operator is Operator.LIKE:
            return self._like(column, start, text)
        return Condition(f"{column} = ?", (start + text,))

    def _like(self, column: str, start: str, pattern: str) -> Condition:
        """`start` as it stands, then `pattern` with its * and ?; capitals count."""
        if self._postgres:
            escaped = _escaped_like(pattern).replace("*", "%").replace("?", "_")
            return Condition(f"{column} LIKE ?", (_escaped_like(start) + escaped,))
        plain = "".join(f"[{each}]" if each in "*?[" else each for each in start)
        return Condition(f"{column} GLOB ?", (plain + pattern.replace("[", "[[]"),))


def _escaped_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _tag(conditions: Sequence[Condition]) -> Condition:
    wanted = any_of(conditions)
    return Condition(f"id IN (SELECT device_id FROM device_tag WHERE {wanted.sql})", wanted.values)  # noqa: S608


def _attribute(field: Field, condition: Condition) -> Condition:
    wanted = all_of([Condition("path = ?", (field.key,)), condition])
    return Condition(f"id IN (SELECT device_id FROM device_attribute WHERE {wanted.sql})", wanted.values)  # noqa: S608

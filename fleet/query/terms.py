"""What a query says, as values, and how it is written. No I/O, no clock."""

import re
from dataclasses import dataclass
from enum import StrEnum

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_:+-]+(?:\.[A-Za-z0-9_:+-]+)*")


class Operator(StrEnum):
    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    LIKE = "~"


ORDERING = frozenset({Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL})


@dataclass(frozen=True, slots=True)
class Field:
    """`key` says which of the `tags` or `attributes`; "" for all other fields."""

    name: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written: without quotes it may be a number, a duration, an instant or a plain word."""

    text: str
    quoted: bool = True


@dataclass(frozen=True, slots=True)
class Compare:
    field: Field
    operator: Operator
    value: Literal


@dataclass(frozen=True, slots=True)
class OneOf:
    field: Field
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Has:
    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    term: "Term"


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple["Term", ...]


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple["Term", ...]


Term = Compare | OneOf | Has | Not | And | Or


def text_of(term: Term) -> str:
    """The query that says this: parsed, it is the same term again."""
    match term:
        case Compare():
            return f"{_field(term.field)} {term.operator} {_literal(term.value)}"
        case OneOf():
            return f"{_field(term.field)} in ({', '.join(map(_literal, term.values))})"
        case Has():
            return f"has {_field(term.field)}"
        case Not():
            return f"not ({text_of(term.term)})"
        case And():
            return " and ".join(map(_inner, term.terms))
        case Or():
            return " or ".join(map(_inner, term.terms))


def _inner(term: Term) -> str:
    return f"({text_of(term)})" if isinstance(term, And | Or) else text_of(term)


def _field(field: Field) -> str:
    if not field.key:
        return field.name
    return f"{field.name}.{field.key if _PLAIN_KEY.fullmatch(field.key) else _quoted(field.key)}"


def _literal(value: Literal) -> str:
    return _quoted(value.text) if value.quoted else value.text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

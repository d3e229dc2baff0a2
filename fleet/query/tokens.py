"""A query cut into words, texts in quotes and signs, each with its column. No I/O, no clock."""

import re
from dataclasses import dataclass
from enum import StrEnum

LENGTH_LIMIT = 2_000  # characters of a query
VALUE_LIMIT = 128  # characters of one value: no name of ours is longer

_TOKEN = re.compile(
    r"""[ \t\r\n]+
    | (?P<sign> <= | >= | != | [=<>~(),] )
    | (?P<word> [A-Za-z0-9_.:+-]+ )
    | "(?P<text> (?: [^"\\\x00-\x1f\x7f-\x9f\ud800-\udfff] | \\["\\] )* )"
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")


class QueryError(ValueError):
    """The query says nothing that there is; `column` (from 1) is where, `detail` why."""

    def __init__(self, column: int, detail: str) -> None:
        super().__init__(f"column {column}: {detail}")
        self.column = column
        self.detail = detail


class Kind(StrEnum):
    SIGN = "sign"
    WORD = "word"
    TEXT = "text"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """`column` counts from 1; a text is without its quotes and escapes."""

    kind: Kind
    text: str
    column: int
    end: int

    def __str__(self) -> str:
        return "the end" if self.kind is Kind.END else repr(self.text)


def tokens(query: str) -> list[Token]:
    """All of them, and END. Raises QueryError."""
    if len(query) > LENGTH_LIMIT:
        raise QueryError(LENGTH_LIMIT + 1, f"a query has at most {LENGTH_LIMIT:,} characters")
    found: list[Token] = []
    at = 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        if match is None:
            detail = "a text that does not end, or holds a control character or a \\ of no use"
            raise QueryError(at + 1, detail if query[at] == '"' else f"{query[at]!r} has to be in quotes")
        if match.lastgroup is not None:
            text = match[match.lastgroup]
            if match.lastgroup == "text":
                text = _ESCAPED.sub(r"\1", text)
            if len(text) > VALUE_LIMIT:
                raise QueryError(at + 1, f"a value has at most {VALUE_LIMIT} characters")
            found.append(Token(Kind(match.lastgroup), text, at + 1, match.end() + 1))
        at = match.end()
    return [*found, Token(Kind.END, "", len(query) + 1, len(query) + 1)]

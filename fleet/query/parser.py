"""A query read by recursive descent, at most 16 deep. No I/O, no clock.

query      = conjunct { "or" conjunct }
conjunct   = factor { "and" factor }
factor     = "not" factor | "(" query ")" | "has" field | field operator value
           | field [ "not" ] "in" "(" value { "," value } ")"
"""

from fleet.query.fields import FIELDS, KEYED, fault_of
from fleet.query.terms import And, Compare, Field, Has, Literal, Not, OneOf, Operator, Or, Term
from fleet.query.tokens import Kind, QueryError, Token, tokens

DEPTH_LIMIT = 16  # parentheses and nots inside one another
TERMS_LIMIT = 50  # comparisons of a query
VALUES_LIMIT = 100  # values of all lists together

_RESERVED = frozenset({"and", "or", "not", "in", "has"})


def parse(query: str) -> Term:
    """Raises QueryError, and nothing else, for whatever text."""
    parser = _Parser(tokens(query))
    term = parser.query(0)
    if parser.next.kind is not Kind.END:
        raise QueryError(parser.next.column, f'"and", "or" or the end was expected, not {parser.next}')
    return term


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._terms = 0
        self._values = 0

    @property
    def next(self) -> Token:
        return self._tokens[self._at]

    def query(self, depth: int) -> Term:
        terms = [self._conjunct(depth)]
        while self._took("or"):
            terms.append(self._conjunct(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _conjunct(self, depth: int) -> Term:
        terms = [self._factor(depth)]
        while self._took("and"):
            terms.append(self._factor(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _factor(self, depth: int) -> Term:
        if depth > DEPTH_LIMIT:
            raise QueryError(self.next.column, f"nested deeper than {DEPTH_LIMIT} levels")
        if self._took("not"):
            return Not(self._factor(depth + 1))
        if self._took("("):
            term = self.query(depth + 1)
            self._expect(")")
            return term
        self._terms += 1
        if self._terms > TERMS_LIMIT:
            raise QueryError(self.next.column, f"more than {TERMS_LIMIT} comparisons")
        if self._took("has"):
            return Has(self._field())
        return self._comparison()

    def _comparison(self) -> Term:
        field = self._field()
        if self._took("not"):
            self._expect("in")
            return Not(self._one_of(field))
        if self._took("in"):
            return self._one_of(field)
        token = self.next
        if token.kind is not Kind.SIGN or token.text not in set(Operator):
            raise QueryError(token.column, f"one of {' '.join(Operator)} in was expected, not {token}")
        self._at += 1
        operator = Operator(token.text)
        return Compare(field, operator, self._value(field, operator))

    def _one_of(self, field: Field) -> Term:
        operator = self._tokens[self._at - 1]
        self._expect("(")
        values = [self._value(field, Operator.EQUAL)]
        while self._took(","):
            values.append(self._value(field, Operator.EQUAL))
        self._expect(")")
        self._values += len(values)
        if self._values > VALUES_LIMIT:
            raise QueryError(operator.column, f"more than {VALUES_LIMIT} values in lists")
        return OneOf(field, tuple(values))

    def _field(self) -> Field:
        token = self.next
        name, dot, key = token.text.partition(".")
        if token.kind is not Kind.WORD or name.lower() in _RESERVED:
            raise QueryError(token.column, f"a field was expected, not {token}")
        if name not in FIELDS:
            raise QueryError(token.column, f"there is no field {name!r}; there are {', '.join(FIELDS)}")
        self._at += 1
        if dot and not key and self.next.kind is Kind.TEXT and self.next.column == token.end:
            key = self.next.text
            self._at += 1
        if name in KEYED and not key:
            raise QueryError(token.column, f"{name} wants a key, such as {name}.site")
        if name not in KEYED and dot:
            raise QueryError(token.column, f"{name} has no keys")
        return Field(name, key)

    def _value(self, field: Field, operator: Operator) -> Literal:
        token = self.next
        if token.kind not in (Kind.WORD, Kind.TEXT):
            raise QueryError(token.column, f"a value was expected, not {token}")
        if token.kind is Kind.WORD and token.text.lower() in _RESERVED:
            raise QueryError(token.column, f"the word {token} has to be in quotes here")
        self._at += 1
        value = Literal(token.text, token.kind is Kind.TEXT)
        if (fault := fault_of(field, operator, value)) is not None:
            raise QueryError(token.column, fault)
        return value

    def _took(self, text: str) -> bool:
        token = self.next
        if token.kind is Kind.TEXT or token.kind is Kind.END or token.text.lower() != text:
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._took(text):
            raise QueryError(self.next.column, f'"{text}" was expected, not {self.next}')

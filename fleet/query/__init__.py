"""The language in which devices are asked for: `status = offline and tags.site = "A" and firmware < 2.1.0`.

A text becomes tokens (tokens.py), terms (parser.py, terms.py) and a condition for the database with its values apart
(sql.py); nothing of it is ever run as code. Described for people in docs/queries.md. No I/O, no clock, no ORM.
"""

from fleet.query.parser import parse
from fleet.query.terms import Term, text_of
from fleet.query.tokens import QueryError

__all__ = ["QueryError", "Term", "parse", "text_of"]

"""The books notice what they are kept for."""

import pytest

from tests.chaos.ledger import Account, Ledger

BASE_MS = 1_700_000_000_000


def points(*numbers: int) -> list[tuple[int, float]]:
    return [(BASE_MS + number, float(number)) for number in numbers]


def test_books_that_balance_close() -> None:
    ledger = Ledger(BASE_MS)
    ledger.accounts["d"] = Account(5, {0, 1, 3}, {2})
    assert ledger.accounts["d"].open == {4}
    ledger.close({"d": points(0, 1, 3)})
    ledger.close({"d": points(0, 1, 3, 4)})  # sent, and no answer came: stored or not


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (points(0, 1), "1 acknowledged points lost"),
        (points(0, 1, 3, 3), "1 points twice"),
        (points(0, 1, 2, 3), "refused or never sent"),
        (points(0, 1, 3, 9), "refused or never sent"),
        ([*points(0, 1), (BASE_MS + 3, 4.0)], "d"),
    ],
)
def test_what_is_lost_doubled_changed_or_made_up_shows(stored: list[tuple[int, float]], said: str) -> None:
    ledger = Ledger(BASE_MS)
    ledger.accounts["d"] = Account(5, {0, 1, 3}, {2})
    with pytest.raises(AssertionError, match=said):
        ledger.close({"d": stored})

"""Ids and cursors."""

import pytest

from fleet.errors import Invalid
from fleet.ids import encode, is_id, new_id
from fleet.page import decode_cursor, encode_cursor, page_limit

NUL = encode_cursor("a\0", 7)


def test_ids_grow_even_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_id() for _ in range(1000)]
    monkeypatch.setattr("fleet.ids.time.time_ns", lambda: 0)
    ids += [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert all(is_id(each) for each in ids)


def test_ids_sort_as_their_numbers_do() -> None:
    assert encode(0) == "0" * 26
    assert encode(31) == "0" * 25 + "Z"
    assert encode((1 << 128) - 1) == "7" + "Z" * 25
    assert not is_id("../../etc/passwd")


def test_cursors_come_back_and_others_are_refused() -> None:
    assert decode_cursor(encode_cursor("a", 7), str, int) == ("a", 7)
    for odd in ("", "x", "e30", "!!!", "\u00e4", encode_cursor("a"), encode_cursor(1, 7), encode_cursor("a", "7"), NUL):
        with pytest.raises(Invalid):
            decode_cursor(odd, str, int)
    assert (page_limit(0), page_limit(10**9), page_limit(7)) == (1, 500, 7)

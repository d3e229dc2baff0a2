"""Loose blocks: what goes in comes out, of the series asked for; a flipped bit costs its block and is told of."""

import pytest

from gateway.readings import Value
from gateway.store import StoreRejected
from gateway.stores.chunk import Column
from gateway.stores.loose import SHELF, Block, Laying, columns_of, on_shelf, shelf_of

NOON = 1_699_963_200_000


def rows_of(blocks: list[Block]) -> list[bytes]:
    """As the table gives them."""
    fields = [(block.crc, *block[:6], block.body) for block in blocks]
    return [",".join(map(str, row)).encode() for row in fields]


def points(columns: dict[int, Column]) -> dict[int, list[tuple[int, Value]]]:
    return {sid: list(zip(column.times.tolist(), column.values(), strict=True)) for sid, column in columns.items()}


def laid(
    seq: int, *, own: dict[int, list[Value]] | None = None, shelved: dict[int, Value] | None = None
) -> list[Block]:
    laying = Laying()
    for sid, values in (own or {}).items():
        laying.add_own([sid], range(NOON, NOON + len(values)), [values])
    for sid, value in (shelved or {}).items():
        laying.add_shelved([sid], [NOON + sid], [[value]])
    return laying.blocks(seq)


def test_a_write_of_a_reading_of_many_series_is_a_block_a_shelf() -> None:
    blocks = laid(1, shelved={sid: sid / 4 for sid in range(1, 3 * SHELF)})
    assert [block.readings for block in blocks] == [SHELF, SHELF, SHELF - 1]
    found = points(columns_of(rows_of(blocks)))
    assert found == {sid: [(NOON + sid, sid / 4)] for sid in range(1, 3 * SHELF)}


def test_every_series_is_on_the_shelf_that_says_so() -> None:
    for sid in range(1, 200):
        assert on_shelf(shelf_of(sid), 1 << sid % SHELF) == [sid]


def test_only_the_series_asked_for_come_out() -> None:
    rows = rows_of(laid(1, shelved={5: "a", 6: "b", 40: "c"}))
    assert points(columns_of(rows, {6, 40})) == {6: [(NOON + 6, "b")], 40: [(NOON + 40, "c")]}


def test_of_one_time_the_later_block_wins_wherever_it_lies() -> None:
    first, second = laid(1, shelved={1: "older", 7: 1}), laid(2, own={1: ["older"] + ["newer"] * 4})
    for rows in (rows_of(first + second), rows_of(second + first)):
        assert points(columns_of(rows))[1][1] == (NOON + 1, "newer")
    third = laid(3, shelved={1: "newest"})
    assert points(columns_of(rows_of(third + second + first)))[1][1] == (NOON + 1, "newest")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 64, "\ud800", None])
def test_what_json_cannot_hold_is_refused(value: Value) -> None:
    with pytest.raises(StoreRejected):
        laid(1, shelved={1: 1, 2: value})
    with pytest.raises(StoreRejected):
        laid(1, own={1: [value]})


def test_a_flipped_bit_costs_its_block_alone_and_is_told_of() -> None:
    blocks = laid(3, own={1: [1.5, "text", True, -0.0, 2**53]}) + laid(4, shelved={2: 20.5, 3: "open", 4: False})
    rows = rows_of(blocks)
    whole = points(columns_of(rows))
    for number, row in enumerate(rows):
        others = points(columns_of(rows[1 - number : 2 - number]))
        for at in range(len(row)):
            for bit in range(8):
                flipped = row[:at] + bytes([row[at] ^ 1 << bit]) + row[at + 1 :]
                told: list[str] = []
                text = b"\n".join([*rows[:number], flipped, *rows[number + 1 :]])
                found = columns_of(
                    text.split(b"\n"), damaged=lambda place, seq, problem, told=told: told.append(problem)
                )
                assert told, (row, at, bit)
                assert points(found) == others, (row, at, bit)
    assert len(whole) == 4

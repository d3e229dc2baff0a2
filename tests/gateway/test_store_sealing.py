"""Sealing as pure steps: what is folded into which chunk, what is joined, what damage costs."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.readings import Value
from gateway.stores.chunk import DamagedChunk, column_of, decode
from gateway.stores.folding import Sealed
from gateway.stores.sealing import CHUNK_READINGS, Change, folded_in, joined_up, next_to_join

Points = dict[int, Value]


def folded(points: Points, chunks: list[Sealed]) -> tuple[Change, list[Sealed]]:
    """The change, and the chunks after it."""
    times = sorted(points)
    change = folded_in(column_of(times, [points[ts_ms] for ts_ms in times]), chunks)
    return change, after(change, chunks)


def after(change: Change, chunks: list[Sealed]) -> list[Sealed]:
    kept = [one for one in chunks if one.first_ms not in change.gone]
    kept += [Sealed(first, last, readings, body, False) for first, last, readings, _, _, body in change.rows]
    kept.sort(key=lambda one: one.first_ms)
    for one, following in pairwise(kept):
        assert one.last_ms < following.first_ms
    return kept


def held(chunks: list[Sealed]) -> Points:
    points: Points = {}
    for one in chunks:
        column = decode(one.data)
        assert (one.first_ms, one.last_ms, one.readings) == (column.times[0], column.times[-1], len(column.times))
        points.update(zip(column.times.tolist(), column.values(), strict=True))
    return points


def dense(first: int, count: int, value: float = 1.5) -> Points:
    return {ts_ms: value + ts_ms % 7 for ts_ms in range(first, first + count)}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_the_chunks_hold_the_newest_of_each_time_and_never_overlap(seed: int) -> None:
    chance = random.Random(seed)
    points: Points = {}
    chunks: list[Sealed] = []
    for n in range(60):
        start = chance.choice([n * 100, chance.randrange(6000)])
        some = {chance.randrange(start, start + 200): chance.choice([n, n / 2]) for _ in range(chance.randint(1, 80))}
        points |= some
        _, chunks = folded(some, chunks)
        assert held(chunks) == points


def test_a_late_reading_packs_its_own_chunk_again_and_no_other() -> None:
    chunks: list[Sealed] = []
    for n in range(10):
        _, chunks = folded(dense(n * 10_000, 3_000), chunks)
    change, chunks = folded({45_000: -1.0, 40_500: -2.0}, chunks)
    assert change.gone == [40_000]
    assert [row[:3] for row in change.rows] == [(40_000, 45_000, 3_001)]
    assert len(held(chunks)) == 30_001


def test_many_small_sealings_make_few_chunks_and_pack_each_reading_a_few_times() -> None:
    chunks: list[Sealed] = []
    packed = 0
    for n in range(1000):
        change, chunks = folded(dense(n * 10, 10), chunks)
        packed += sum(row[2] for row in change.rows)
    assert len(held(chunks)) == 10_000
    assert len(chunks) < 20
    assert packed < 10_000 * 9


def test_many_readings_at_once_become_chunks_of_one_size() -> None:
    change, chunks = folded(dense(0, 100_000), [])
    assert [one.readings for one in chunks[:-1]] == [CHUNK_READINGS] * 12
    assert held(chunks) == dense(0, 100_000)
    assert change.left == []


def test_over_a_damaged_chunk_readings_stay_loose_and_beside_it_they_are_sealed() -> None:
    _, chunks = folded(dense(5000, 3000), [])
    damaged = Sealed(1000, 1099, 100, b"\x01 not zlib", False)
    change, chunks = folded({900: 1.0, 1050: 2.0, 1500: 3.0, 5001: 4.0}, [damaged, chunks[-1]])
    assert change.gone == [5000]
    assert [column.times.tolist() for column in change.left] == [[1050]]
    assert held([one for one in chunks if one is not damaged]) == dense(5000, 3000) | {900: 1.0, 1500: 3.0, 5001: 4.0}
    with pytest.raises(DamagedChunk):
        joined_up([damaged, chunks[-1]])


@given(st.lists(st.integers(1, CHUNK_READINGS), min_size=1, max_size=60), st.data())
def test_joining_ends_with_as_few_chunks_as_hold_the_readings(sizes: list[int], data: st.DataObject) -> None:
    """By their sizes alone. What is damaged stays where it is."""
    chunks = [(place * CHUNK_READINGS, size) for place, size in enumerate(sizes)]
    damaged = frozenset(data.draw(st.sets(st.sampled_from([first_ms for first_ms, _ in chunks]), max_size=2)))
    for _ in range(3 * len(sizes)):
        run = next_to_join(chunks, damaged)
        if not run:
            break
        assert len(run) > 1
        assert not damaged & {*run}
        total = sum(size for first_ms, size in chunks if first_ms in run)
        assert run == [first_ms for first_ms, _ in chunks if run[0] <= first_ms <= run[-1]]
        pieces = [min(CHUNK_READINGS, total - at) for at in range(0, total, CHUNK_READINGS)]
        chunks = [chunk for chunk in chunks if chunk[0] not in run]
        chunks += [(run[0] + place, size) for place, size in enumerate(pieces)]
        chunks.sort()
    assert next_to_join(chunks, damaged) == []
    assert sum(size for _, size in chunks) == sum(sizes)
    if not damaged:
        assert len(chunks) == -(-sum(sizes) // CHUNK_READINGS)

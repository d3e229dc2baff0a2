"""Deadlines: never early, at most two slots late, and nobody's fault is another one's."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.native.wheel import SLOT_S, Wheel

START = 1000.0
TIMES = st.floats(0, 30, allow_nan=False).map(lambda seconds: START + seconds)


class Item:
    """Notes when it was asked, and does what it is told to then."""

    def __init__(self, act: Callable[[float], float | None] = lambda now: None) -> None:
        self.slot = 0
        self.asked: list[float] = []
        self._act = act

    def due(self, now: float) -> float | None:
        self.asked.append(now)
        return self._act(now)


def turned(wheel: Wheel, until: float, now: float = START) -> None:
    """Turn it every slot, as the loop does, and a little later each time."""
    while now < until:
        now += SLOT_S * 1.02
        wheel.turn(now)


@given(st.lists(TIMES, max_size=30))
def test_a_deadline_comes_up_after_it_and_at_most_two_slots_later(deadlines: list[float]) -> None:
    wheel = Wheel(START)
    items = [Item() for _ in deadlines]
    for item, when in zip(items, deadlines, strict=True):
        wheel.set(item, when)
    assert len(wheel) == len(items)
    turned(wheel, START + 31)
    for item, when in zip(items, deadlines, strict=True):
        assert len(item.asked) == 1
        assert when <= item.asked[0] <= when + 2.1 * SLOT_S
    assert len(wheel) == 0


@given(st.lists(TIMES, min_size=1, max_size=30), st.lists(st.floats(0, 40), min_size=1, max_size=30))
def test_turning_at_any_times_is_never_early_and_forgets_nothing(deadlines: list[float], turns: list[float]) -> None:
    wheel = Wheel(START)
    items = [Item() for _ in deadlines]
    for item, when in zip(items, deadlines, strict=True):
        wheel.set(item, when)
    for seconds in turns:  # also backwards, and after long sleeps
        wheel.turn(START + seconds)
    for item, when in zip(items, deadlines, strict=True):
        assert len(item.asked) <= 1
        assert all(when <= asked for asked in item.asked)
    wheel.turn(START + 100)
    assert all(len(item.asked) == 1 for item in items)


def test_a_deadline_in_the_past_comes_up_in_the_next_slot() -> None:
    wheel, item = Wheel(START), Item()
    wheel.set(item, START - 50)
    wheel.turn(START)
    assert not item.asked
    wheel.turn(START + SLOT_S * 1.1)
    assert item.asked


def test_setting_again_replaces_the_deadline() -> None:
    wheel, item = Wheel(START), Item()
    wheel.set(item, START + 1)
    wheel.set(item, START + 5)
    assert len(wheel) == 1
    turned(wheel, START + 4)
    assert not item.asked
    turned(wheel, START + 6, START + 4)
    assert len(item.asked) == 1


def test_a_cleared_item_is_not_asked() -> None:
    wheel, item = Wheel(START), Item()
    wheel.set(item, START + 1)
    wheel.clear(item)
    wheel.clear(item)
    assert len(wheel) == item.slot == 0
    turned(wheel, START + 2)
    assert not item.asked


def test_what_due_returns_is_the_next_deadline() -> None:
    wheel = Wheel(START)
    item = Item(lambda now: now + 1 if now < START + 3 else None)
    wheel.set(item, START + 1)
    turned(wheel, START + 9)
    assert len(item.asked) == 3
    assert len(wheel) == 0


def test_due_may_set_its_own_deadline() -> None:
    wheel = Wheel(START)

    def again(now: float) -> None:
        if len(item.asked) < 2:
            wheel.set(item, now + 1)

    item = Item(again)
    wheel.set(item, START + 1)
    turned(wheel, START + 5)
    assert len(item.asked) == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_due_may_take_another_one_out_of_the_same_slot(replaced: bool) -> None:
    wheel, other = Wheel(START), Item()

    def take_out(now: float) -> None:
        if replaced:
            wheel.set(other, now + 5)
        else:
            wheel.clear(other)

    wheel.set(Item(take_out), START + 1)
    wheel.set(other, START + 1)
    turned(wheel, START + 4)
    assert not other.asked
    turned(wheel, START + 9, START + 4)
    assert len(other.asked) == replaced


def test_those_due_at_once_are_asked_in_the_order_in_which_they_were_set() -> None:
    wheel, order = Wheel(START), []
    items = [Item(lambda now, place=place: order.append(place)) for place in range(5)]  # type: ignore[misc]
    for item in items:
        wheel.set(item, START + 1)
    turned(wheel, START + 2)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("sleep_s", [1.0, 60.0])
def test_what_one_raises_loses_no_other_deadline(sleep_s: float) -> None:
    def fail(now: float) -> None:
        raise RuntimeError

    wheel, others = Wheel(START), [Item() for _ in range(4)]
    wheel.set(others[0], START + 0.5)
    wheel.set(Item(fail), START + 0.5)
    wheel.set(others[1], START + 0.5)
    wheel.set(others[2], START + 0.8)
    wheel.set(others[3], START + 0.5)
    wheel.clear(others[3])
    with pytest.raises(RuntimeError):
        wheel.turn(START + sleep_s)
    wheel.turn(START + sleep_s + SLOT_S)
    assert [len(other.asked) for other in others] == [1, 1, 1, 0]
    assert len(wheel) == 0


def test_a_long_sleep_costs_no_more_than_what_waits() -> None:
    wheel, item = Wheel(START), Item()
    wheel.set(item, START + 5)
    wheel.turn(START + 10_000_000)  # a hundred million slots
    assert item.asked

"""Holdings name every day that has a device, and after forgetting no day that cannot have it."""

import random

import pytest

from gateway.stores.holdings import Holdings


def test_what_was_added_is_named_and_the_newest_day_of_each_metric_with_it() -> None:
    holdings = Holdings()
    holdings.add(20_000, [("d", "m"), ("d", "n"), ("e", "m")])
    holdings.add(20_010, [("d", "m")])
    holdings.add(11_000, [("d", "m"), ("d", "old")])  # before all others
    assert holdings.days_of("d") == {11_000, 20_000, 20_010}
    assert holdings.newest_of("d") == {"m": 20_010, "n": 20_000, "old": 11_000}
    assert (holdings.days_of("nobody"), holdings.newest_of("nobody")) == (set(), {})


def test_only_days_that_were_learned_are_known() -> None:
    holdings = Holdings()
    holdings.add(3, [("d", "m")])
    holdings.learn(4, [])
    assert holdings.knows([4])
    assert not holdings.knows([3, 4])
    assert holdings.unknown([1, 3, 4, 7]) == [7, 3, 1]
    holdings.forget_day(4)
    assert not holdings.knows([4])


def test_expired_devices_are_told_by_day_and_days_that_are_kept_for_somebody() -> None:
    holdings = Holdings()
    for day in range(10, 16):
        holdings.learn(day, [("short", "m"), ("long", "m")] if day > 11 else [("short", "m")])
    expired, kept = holdings.expired({"short": 15, "long": 13}.__getitem__)
    assert {day: sorted(devices) for day, devices in expired.items()} == {
        10: ["short"],
        11: ["short"],
        12: ["long", "short"],
        13: ["short"],
        14: ["short"],
    }
    assert kept == {13, 14, 15}


@pytest.mark.parametrize("seed", range(5))
def test_holdings_are_those_of_a_set_of_pairs(seed: int) -> None:
    chance = random.Random(seed)
    holdings, model = Holdings(), set[tuple[int, str]]()
    for _ in range(500):
        day, device_id = chance.randrange(19_000 - chance.choice([0, 5_000]), 19_050), chance.choice("abcd")
        match chance.randrange(6):
            case 0:
                holdings.forget_day(day)
                model = {pair for pair in model if pair[0] != day}
            case 1 if model:
                pair = chance.choice(sorted(model))
                holdings.forget_device(*pair)
                model.discard(pair)
            case _:
                holdings.add(day, [(device_id, "m")])
                model.add((day, device_id))
        for each in "abcd":
            days = {day for day, other in model if other == each}
            assert holdings.days_of(each) == days
            assert holdings.newest_of(each).get("m", 0) >= max(days, default=0)

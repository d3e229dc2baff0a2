"""Presence by signs of life, and the spread of retries: pure parts of the links."""

from gateway.links.activity import Activity
from gateway.links.backoff import retry_delay_s


def test_only_the_first_sign_of_life_is_news() -> None:
    activity = Activity(timeout_s=60, limit=10)
    assert activity.seen("a", 0)
    assert not activity.seen("a", 59)
    assert activity.expire(118.9) == []
    assert activity.expire(119) == ["a"]
    assert activity.seen("a", 120)


def test_the_longest_silent_go_first() -> None:
    activity = Activity(timeout_s=60, limit=10)
    for number, name in enumerate("abc"):
        activity.seen(name, number)
    activity.seen("a", 30)
    assert activity.expire(62) == ["b", "c"]
    assert "a" in activity
    assert activity.forget("a")
    assert not activity.forget("a")
    assert len(activity) == 0


def test_beyond_the_limit_nobody_is_kept() -> None:
    activity = Activity(timeout_s=60, limit=1)
    assert activity.seen("a", 0)
    assert not activity.seen("b", 0)
    assert "b" not in activity
    assert activity.turned_away == 1


def test_retries_slow_down_to_the_cap_and_are_spread() -> None:
    for attempt, longest in [(0, 1), (1, 2), (5, 32), (6, 60), (10_000, 60)]:
        delays = [retry_delay_s(attempt) for _ in range(200)]
        assert longest / 2 <= min(delays) <= max(delays) <= longest
        assert len(set(delays)) > 100

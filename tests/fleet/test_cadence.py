"""When cron lines come, above all at the change of the hour."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cadence import Cadence
from fleet.errors import Invalid


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# In Berlin 02:00 to 03:00 is left out on 2026-03-29, and there twice on 2026-10-25.
@pytest.mark.parametrize(
    ("cron", "zone", "start", "expected"),
    [
        ("0 3 * * *", "UTC", "2026-11-20T12:00", ["2026-11-21T03:00", "2026-11-22T03:00"]),
        ("0 3 * * *", "Europe/Berlin", "2026-07-01T12:00", ["2026-07-02T01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", ["2026-10-26T01:30"]),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:00",
            ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"],
        ),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:45", ["2026-03-29T01:00", "2026-03-29T01:30"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 * * MON#1", "Asia/Kathmandu", "2026-11-20T12:00", ["2026-12-06T18:15"]),
        ("0 12 L * *", "UTC", "2026-11-20T12:00", ["2026-11-30T12:00", "2026-12-31T12:00"]),
    ],
)
def test_when_it_comes(cron: str, zone: str, start: str, expected: list[str]) -> None:
    cadence, moment = Cadence(cron, zone), utc(start)
    for each in expected:
        found = cadence.after(moment)
        assert found is not None
        moment = found
        assert moment == utc(each)


@pytest.mark.parametrize(
    ("cron", "zone", "field"),
    [
        ("", "UTC", "cron"),
        ("* * * *", "UTC", "cron"),
        ("* * * * * *", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("*/0 * * * *", "UTC", "cron"),
        ("5-1 * * * *", "UTC", "cron"),
        ("\u00b2 * * * *", "UTC", "cron"),
        ("0 0 31 2 *", "UTC", "cron"),
        ("1," * 5_000 + "1 * * * *", "UTC", "cron"),
        ("* * * * *", "Mars/Olympus", "time_zone"),
        ("* * * * *", "../../etc/passwd", "time_zone"),
        ("* * * * *", "America", "time_zone"),
        ("* * * * *", "", "time_zone"),
        ("* * * * *", "UTC\0", "time_zone"),
    ],
)
def test_what_is_no_cron_line_or_zone_is_refused_with_the_field(cron: str, zone: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Cadence(cron, zone)
    assert caught.value.field == field


def test_what_never_comes_says_so() -> None:
    assert Cadence("0 0 */31 * SUN#2", "UTC").after(utc("2026-01-01T00:00")) is None


FIELD = st.text("0123456789*/,-#LWMONSU?", min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(FIELD, min_size=5, max_size=5))
def test_any_text_is_a_line_or_refused(parts: list[str]) -> None:
    try:
        cadence = Cadence(" ".join(parts), "Europe/Berlin")
    except Invalid:
        return
    cadence.after(utc("2026-03-28T23:00"))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 * * * *", "15,45 1-3 * * *", "0 0 * * 0"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.integers(0, 365 * 24 * 60),
)
def test_it_is_always_later_and_on_a_minute_of_the_line(cron: str, zone: str, minutes: int) -> None:
    moment = utc("2026-01-01T00:00") + timedelta(minutes=minutes, seconds=17)
    found = Cadence(cron, zone).after(moment)
    assert found is not None
    assert moment < found <= moment + timedelta(days=8)
    assert found.astimezone(ZoneInfo(zone)).second == 0

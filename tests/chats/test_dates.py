"""Dates as texts write them: calendars, halves of the day, which number is the day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.chats.dates import (
    DayOrder,
    calendar_of,
    clock_time,
    day_of,
    half_of,
    hour_of,
    month_of,
    weekdays_of,
)


@pytest.mark.parametrize(
    ("year", "month", "day", "era", "expected"),
    [
        ("2023", 12, 31, "", date(2023, 12, 31)),
        ("23", 12, 31, "", date(2023, 12, 31)),
        ("70", 1, 1, "", date(1970, 1, 1)),
        ("2566", 12, 31, "", date(2023, 12, 31)),
        ("1402", 10, 10, "", date(2023, 12, 31)),
        ("1403", 12, 30, "", date(2025, 3, 20)),  # a leap year of the Persian calendar
        ("1402", 12, 30, "", None),
        ("1445", 9, 5, "", date(2024, 3, 15)),
        ("1446", 9, 1, "", date(2025, 3, 1)),
        ("112", 12, 31, "", date(2023, 12, 31)),
        ("5", 12, 31, "令和", date(2023, 12, 31)),
        ("31", 4, 30, "H", date(2019, 4, 30)),
        ("2023", 2, 29, "", None),
        ("0000", 1, 1, "", None),
        ("9999", 12, 31, "", date(9999, 12, 31)),
    ],
)
def test_days_of_calendars(
    year: str, month: int, day: int, era: str, expected: date | None
) -> None:
    assert day_of(year, month, day, calendar_of(year, era)) == expected


@given(st.integers(0, 60 * 365))
def test_persian_days_follow_each_other(number: int) -> None:
    """Every day from 1388 on is the day after the one before it."""
    today = date(2009, 3, 21) + timedelta(days=number)
    found = [
        day_of(str(year), month, day, "persian")
        for year in (today.year - 622, today.year - 621)
        for month in range(1, 13)
        for day in range(1, 32)
    ]

    assert found.count(today) == 1


@pytest.mark.parametrize(
    ("said", "half", "rest"),
    [
        (" p. m.", "pm", ""),
        ("\u202fAM", "am", ""),
        (", 오후 ", "pm", ""),
        ("日下午", "pm", "日"),
        (" г., ", "", "г"),
        (" قبل\u200cازظهر", "am", ""),
        (" at dinner ", "", "at dinner"),
    ],
)
def test_halves_of_the_day(said: str, half: str, rest: str) -> None:
    assert half_of(said) == (half, rest)


def test_hours_of_twelve_and_of_twenty_four() -> None:
    assert [hour_of(hour, "am") for hour in (12, 1, 11)] == [0, 1, 11]
    assert [hour_of(hour, "pm") for hour in (12, 1, 11, 21)] == [12, 13, 23, 21]
    assert [hour_of(hour, "night") for hour in (7, 11, 12, 1)] == [19, 23, 0, 1]
    assert clock_time("25", "00", None, "") is None


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("Feb.", 2),
        ("dezembro", 12),
        ("Mär", 3),
        ("ago.", 8),
        ("мая", 5),
        ("ม.ค.", 1),
        ("Mon", None),
    ],
)
def test_months(word: str, number: int | None) -> None:
    assert month_of(word) == number


def test_weekdays() -> None:
    assert [weekdays_of(word) for word in ("Wednesday", "(日)", "월요일", "星期六", "x")] == [
        {2},
        {6},
        {0},
        {5},
        set(),
    ]


def told(*dates: str, sign: str = "/") -> tuple[str, str]:
    order = DayOrder(sign)
    for said in dates:
        first, second, third = said.split(sign)
        order.see(first, second, third)
    return order.decide(None)


@pytest.mark.parametrize(
    ("dates", "order"),
    [
        (["1/2/24", "14/2/24"], "dmy"),
        (["1/2/24", "2/14/24"], "mdy"),
        (["14/02/24"], "dmy"),
        (["24/02/14", "24/03/01"], "ymd"),
        (["24/01/05", "24/01/06", "24/02/07"], "ymd"),
        (["1/2/24", "2/2/24", "1/3/24"], "dmy"),
        (["2/1/24", "2/2/24", "3/1/24"], "mdy"),
        (["2024/3/1", "2024/4/2"], "ymd"),
        (["2024/31/12"], "ydm"),
        # one line from elsewhere does not turn a file round
        (["14/2/24", "15/2/24", "16/2/24", "2/17/24"], "dmy"),
    ],
)
def test_orders(dates: list[str], order: str) -> None:
    assert told(*dates)[0] == order


@given(
    st.lists(st.dates(date(2009, 1, 1), date(2026, 12, 31)), min_size=1, max_size=20).map(sorted),
    st.sampled_from(["dmy", "mdy"]),
)
def test_a_day_beyond_twelve_always_tells(days: list[date], order: str) -> None:
    forms = {"dmy": "{0.day}/{0.month}/{0.year}", "mdy": "{0.month}/{0.day}/{0.year}"}
    found, why = told(*(forms[order].format(day) for day in days))

    if any(day.day > 12 for day in days):
        assert found == order
        assert "seen" in why

"""Days that questions name, and how lines lie to them."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest

from ffr.retrieval.line_times import NamedTime, day_of, named_times, time_features


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on 13 October, 2023", [NamedTime(2023, 10, (13, 13))]),
        ("on the 3rd of May 2021?", [NamedTime(2021, 5, (3, 3))]),
        ("in Sept. 2022", [NamedTime(2022, 9)]),
        ("in May or in June", [NamedTime(None, 5), NamedTime(None, 6)]),
        ("in 2023, May 4 or June 5", [NamedTime(2023, 5, (4, 4)), NamedTime(2023, 6, (5, 5))]),
        ("early-November, the beginning of March", [NamedTime(None, 11, (1, 10)), NamedTime(None, 3, (1, 10))]),
        ("at the end of July; mid-December", [NamedTime(None, 7, (21, 31)), NamedTime(None, 12, (11, 20))]),
        ("2024-06-17 and 2024/7/8", [NamedTime(2024, 6, (17, 17)), NamedTime(2024, 7, (8, 8))]),
        ("6月3日去了哪里", [NamedTime(None, 6, (3, 3))]),
        ("May I march with Jan, maybe?", []),
        ("3/4/2024", [NamedTime(2024)]),
        ("room 2024x, 2024-13-01", [NamedTime(2024)]),
        ("", []),
    ],
)  # fmt: skip
def test_what_a_text_names(text: str, expected: list[NamedTime]) -> None:
    assert named_times(text) == expected


def test_days_that_are_none_are_left_alone() -> None:
    assert NamedTime(2023, 2, (30, 30)).span(date(2023, 1, 1)) is None
    assert NamedTime(2023, 2, (21, 31)).span(date(2023, 1, 1)) == (
        date(2023, 2, 21), date(2023, 2, 28),
    )  # fmt: skip
    assert NamedTime(2023, 12).span(date(2020, 1, 1)) == (date(2023, 12, 1), date(2023, 12, 31))
    assert NamedTime(2023, 4, (0, 0)).span(date(2023, 1, 1)) is None
    assert day_of("2023-02-30") is None
    assert day_of("from 1 May 2023 to 2 May 2023") is None
    assert day_of("May 2023") is None
    assert not time_features("on 30 February 2023", [date(2023, 2, 28)]).any()


def test_how_lines_lie_by_hand() -> None:
    days = [date(2023, 5, 8), date(2023, 5, 11), date(2023, 4, 8), date(2024, 1, 1), None]
    found = time_features("What did she do on 8 May 2023?", days)
    near, far = math.exp(-3 / 7), math.exp(-30 / 7)
    expected = [[1, 1, 0, 0, 1], [1, 0, 0.1, 0, near], [1, 0, 0, 1, far]]
    assert found[:3] == pytest.approx(np.array(expected))
    assert found[3] == pytest.approx([1, 0, 1, 0, math.exp(-238 / 7)])
    assert not found[4].any()
    assert not time_features("What did she do?", days).any()


def test_of_several_times_the_nearest_counts() -> None:
    found = time_features("in May 2023 or on 2023-09-01", [date(2023, 8, 31), date(2023, 6, 3)])
    assert found[:, 1:4] == pytest.approx(np.array([[0, 0, 1 / 30], [0, 0.1, 0]]))


def test_without_a_year_it_is_that_of_the_line() -> None:
    found = time_features("in May", [date(2022, 5, 3), date(2023, 5, 3), date(2023, 7, 1)])
    assert found[:, 1].tolist() == [1, 1, 0]

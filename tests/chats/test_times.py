"""Moments and clocks as exports write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ffr.chats.times import clock, moment, zoned

AT = datetime(2024, 5, 1, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [1714550400, "1714550400", 1714550400.0, "1714550400.0", 1714550400000, 1714550400000000],
)
def test_a_moment_in_any_unit(value: object) -> None:
    assert moment(value) == AT


@pytest.mark.parametrize(
    "value", [0, -5, True, None, "", "x", "1" * 50, 1e300, float("nan"), [], {}]
)
def test_what_is_no_moment(value: object) -> None:
    assert moment(value) is None


@pytest.mark.parametrize("value", ["", "x", "2024-13-01", "0001-01-01", 7, None, "2024-05-01 " * 9])
def test_what_is_no_clock(value: object) -> None:
    assert clock(value) is None


@pytest.mark.parametrize(
    ("shown", "hours"),
    [
        ("2024-05-01 16:00:00", 8),
        ("2024-05-01T13:45:00", 5.75),
        ("2024-04-30T22:00:00", -10),
        ("2024-05-01T08:07:00", 0),  # no zone: the moment stays in UTC
        ("2024-05-03T08:00:00", 0),
    ],
)
def test_the_zone_that_follows(shown: str, hours: float) -> None:
    for at in (AT, AT.replace(microsecond=700_000)):
        found = zoned(at, clock(shown))
        assert found is not None
        assert found.utcoffset() == timedelta(hours=hours)
        assert found.replace(microsecond=0) == AT


def test_without_one_of_both() -> None:
    naive = datetime(2024, 5, 1, 16)
    assert zoned(None, naive) == naive
    assert zoned(AT, None) == AT
    other = datetime(2024, 5, 1, 16, tzinfo=timezone(timedelta(hours=8)))
    assert zoned(None, other) == other
    assert zoned(None, None) is None

"""Days that a question names, beside the days on which lines were said, as `lines` sees them.

Shapes: N lines with words of a dialogue.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = re.compile(
    r"\b(?:(?P<part>early|mid|late|beginning of|start of|middle of|end of)[\s-]+(?:the )?)?"
    r"(?:(?P<before>\d{1,2})(?:st|nd|rd|th)?(?: of)?[\s,]+)?"
    r"\b(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
    r"(?:[\s,]+(?P<after>\d{1,2})(?:st|nd|rd|th)?\b)?"
    r"(?:[\s,]+(?:of )?(?P<year>(?:19|20)\d\d)\b)?",
    re.IGNORECASE,
)
_NUMERIC = re.compile(
    r"\b(?P<year>(?:19|20)\d\d)[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})(?!\d)|"
    r"(?:(?P<han_year>(?:19|20)\d\d)年)?(?P<han_month>\d{1,2})月(?:(?P<han_day>\d{1,2})[日号])?"
)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_BEFORE_MONTHS = re.compile(r"\b(?:in|of|since|until|by|during|last|next|this)\s+$", re.IGNORECASE)
_PARTS = {"e": (1, 10), "b": (1, 10), "s": (1, 10), "m": (11, 20), "l": (21, 31)}
"""Days of a month that its early, middle and late part have, by their words' first letters."""

NUM_TIMES = 5
_MONTH_DAYS, _WEEK_DAYS = 30.0, 7.0


@dataclass(frozen=True, slots=True)
class NamedTime:
    """What a text names of a calendar.

    Args:
        year: None where it is not said.
        month: None of a year alone.
        days: The first and the last day of the month that are meant.
    """

    year: int | None
    month: int | None = None
    days: tuple[int, int] = (1, 31)

    def span(self, near: date) -> tuple[date, date] | None:
        """The first and the last day that are meant; None where there is no such day.

        Args:
            near: Whose year it is where none is said.

        >>> NamedTime(None, 2).span(date(2024, 5, 1))
        (datetime.date(2024, 2, 1), datetime.date(2024, 2, 29))
        """
        year = self.year or near.year
        if self.month is None:
            return date(year, 1, 1), date(year, 12, 31)
        following = date(year + self.month // 12, self.month % 12 + 1, 1)
        last = (following - timedelta(days=1)).day
        first_day, last_day = self.days
        if not 1 <= first_day <= last:
            return None
        return date(year, self.month, first_day), date(year, self.month, min(last_day, last))


def named_times(text: str) -> list[NamedTime]:
    """The days, months and years that a text names, in English, Chinese or numbers, year first.

    Numbers whose order is not sure (3/4/2024) are left alone.

    >>> named_times("What did Ann paint on May 8, 2023?")
    [NamedTime(year=2023, month=5, days=(8, 8))]
    >>> named_times("in late June"), named_times("2024年6月"), named_times("May I come in 2022?")
    ([NamedTime(year=None, month=6, days=(21, 31))], [NamedTime(year=2024, month=6, days=(1, 31))], [NamedTime(year=2022, month=None, days=(1, 31))])
    """
    found = [*_numeric(text), *_worded(text)]
    return found or [NamedTime(int(match[0])) for match in _YEAR.finditer(text)]


def _numeric(text: str) -> Iterator[NamedTime]:
    for match in _NUMERIC.finditer(text):
        year = match["year"] or match["han_year"]
        month = int(match["month"] or match["han_month"])
        day = match["day"] or match["han_day"]
        if 1 <= month <= 12:
            days = (int(day), int(day)) if day else (1, 31)
            yield NamedTime(int(year) if year else None, month, days)


def _worded(text: str) -> Iterator[NamedTime]:
    years = _YEAR.findall(text)
    for match in _MONTH.finditer(text):
        number = match["before"] or match["after"]
        is_alone = not (number or match["year"] or match["part"])
        if is_alone and not _is_month(text, match["month"], match.start("month")):
            continue
        days = (1, 31)
        if number:
            days = (int(number), int(number))
        elif match["part"]:
            is_end = match["part"].lower().startswith("end")
            days = _PARTS["l" if is_end else match["part"][0].lower()]
        # a year that stands elsewhere in the text is that of all its months
        year = match["year"] or (years[0] if years else None)
        month = 1 + _MONTHS.index(match["month"][:3].lower())
        yield NamedTime(int(year) if year else None, month, days)


def _is_month(text: str, word: str, start: int) -> bool:
    """Whether a word that stands by itself is a month: "may" and "march" are verbs, "Jan" a name."""
    if word.lower() not in ("may", "march", "mar", "jan"):
        return True
    return _BEFORE_MONTHS.search(text[:start]) is not None


def day_of(text: str) -> date | None:
    """The day that a time in words names; None where it names none, or several.

    >>> day_of("1:56 pm on 8 May, 2023"), day_of("2024-06-17 09:30"), day_of("Monday")
    (datetime.date(2023, 5, 8), datetime.date(2024, 6, 17), None)
    """
    days = set()
    for named in named_times(text):
        if named.year is not None and named.month is not None and named.days[0] == named.days[1]:
            span = named.span(date(named.year, 1, 1))
            if span is not None:
                days.add(span[0])
    return days.pop() if len(days) == 1 else None


def time_features(query: str, days: Sequence[date | None]) -> NDArray[np.float64]:
    """How the day of each line lies to the times that a query names.

    What happened is told afterwards, so that after and before are told apart.

    Args:
        query: The query.
        days: Of each line; None where it is not known.

    Returns:
        (N, 5): whether a time is named; whether the line's day is within the nearest one; how far
        behind it, and how far before, in months, 1 at the most; e^(−weeks away). Zeros where no
        time is named, or the line's day is not known.

    >>> time_features("in May 2023?", [date(2023, 5, 9), date(2023, 6, 15), None]).round(2).tolist()
    [[1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.5, 0.0, 0.12], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    found = np.zeros((len(days), NUM_TIMES))
    named = named_times(query)
    rows = {day: _beside(day, named) for day in {*days} if day is not None}
    for place, day in enumerate(days):
        if day is not None:
            found[place] = rows[day]
    return found


def _beside(day: date, named: Sequence[NamedTime]) -> list[float]:
    spans = [span for time in named if (span := time.span(day)) is not None]
    if not spans:
        return [0.0] * NUM_TIMES
    # days behind a span; below 0 before it
    away = min(
        (max(0, (day - last).days) or min(0, (day - first).days) for first, last in spans), key=abs
    )
    return [
        1.0,
        float(away == 0),
        min(1.0, max(0, away) / _MONTH_DAYS),
        min(1.0, max(0, -away) / _MONTH_DAYS),
        math.exp(-abs(away) / _WEEK_DAYS),
    ]

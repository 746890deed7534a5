"""The header of one line of a WhatsApp export: its style, and the numbers and names in it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ffr.chats.dates import (
    ERA,
    MARKS,
    SPACES,
    half_of,
    month_of,
    weekdays_of,
)

# bounded, so that a line of a million marks is not gone through a million times
_M = f"[{MARKS}]{{0,6}}"
_S = f"[{SPACES}{MARKS}]"
_SIGN = f"(?:{_S}{{0,4}}[./\\-\u2010-\u2015\u2044年月년월]{_S}{{0,4}}|{_S}{{1,4}})"
_BETWEEN = r"[^\d\[\]]{1,24}?"
_OPEN = rf"^{_M}(?P<open>\[)?{_S}{{0,4}}"
_CLOSE = (
    rf"(?P<after>[^\d\[\]]{{0,24}}?)(?P<close>(?(open)\][ \u00a0]{{0,2}}|(?:{_S}[-–—]{_S}|:{_S})))"
)
_TIME = (
    rf"(?P<hour>\d{{1,2}})(?P<colon>{_M}[:.：]{_M}| ?[h時时시] ?)(?P<minute>\d{{2}})"
    rf"(?:(?:{_M}[:.：]{_M}| ?(?:min|分|분) ?)(?P<second>\d{{2}}))?"
)
_DATE = (
    rf"(?P<era>(?:{ERA})\.? ?)?(?P<first>\d{{1,4}})(?P<sign>{_SIGN})(?P<middle>\d{{1,2}})"
    rf"(?P<sign2>{_SIGN})(?P<last>\d{{1,4}})"
)
_MONTH = r"[^\W\d_][^\d\[\]:/]{1,13}?"
_NAMED_DATE = (
    rf"(?:(?P<day>\d{{1,2}})[. ]*(?:de )?(?P<month>{_MONTH})|(?P<month2>{_MONTH})(?P<day2>\d{{1,2}}))"
    rf"(?:,? ?(?:de )?(?P<year>\d{{4}}))?"
)
_FORMS: tuple[re.Pattern[str], ...] = (
    re.compile(f"{_OPEN}{_DATE}(?P<join>{_BETWEEN}){_TIME}{_CLOSE}"),
    # as WhatsApp on the web copies messages, and Vietnamese phones write them
    re.compile(f"{_OPEN}{_TIME}(?P<join>{_BETWEEN}){_DATE}{_CLOSE}"),
    re.compile(f"{_OPEN}{_NAMED_DATE}(?P<join>{_BETWEEN}){_TIME}{_CLOSE}"),
    # as phones copy messages: without a year
    re.compile(
        rf"{_OPEN}(?P<first>\d{{1,2}})(?P<sign>{_SIGN})(?P<middle>\d{{1,2}})"
        rf"(?P<join>,? ){_TIME}(?P<after>[^\d\[\]]{{0,24}}?)(?P<close>\] ?)"
    ),
)
_DATE_GROUPS = ("era", "first", "sign", "middle", "sign2", "last")
_OTHER_GROUPS = ("open", "join", "hour", "colon", "minute", "second", "after", "close")
_NUMBERS, _TIME_FIRST, NAMED, NO_YEAR = range(4)
# a date with a time behind it, or the line's end, where a file was cut
LIKE_HEADER = re.compile(
    rf"^{_M}\[?{_M}\d{{1,4}}{_SIGN}\d{{1,2}}{_SIGN}\d{{1,4}}(?:[^\d\n]{{1,16}}\d{{1,2}}[:.]\d\d|[ ,]*$)"
)
_STRIP = re.compile(f"[{MARKS}{SPACES}]+")
# words between date and time that are no half of the day
_NOISE_WORDS = """
    klo kl à às as um at a las alle ore la o om ob u в г год ч óra lúc 日 일 号 號 de den ه هـ ค ศ พ
    s uhr น t il le на об у 時 点 be bce
"""
_NOISE = frozenset(_NOISE_WORDS.split())
_MAX_SENDER_CHARS = 150
_QUOTES = re.compile('["“”„«»「」『』]')


class Header(NamedTuple):
    """What stands at the beginning of a line.

    Args:
        style: The style in which it is written.
        numbers: The three numbers of the date as they stand there, the month by its number.
        clock: Hour, minute, seconds, half of the day.
        era: The word before the year.
        end: Where the rest of the line begins.
    """

    style: Style
    numbers: tuple[str, str, str]
    clock: tuple[str, str, str | None, str]
    era: str
    end: int


class Style(NamedTuple):
    """How headers of one file look; two of them are equal where one program wrote both."""

    form: int
    is_bracketed: bool
    signs: tuple[str, str]
    long_year: str
    colon: str
    has_seconds: bool
    words: str
    half_place: str
    close: str

    @property
    def is_copied(self) -> bool:
        """Whether it is that of messages copied out of the app, which no export has."""
        is_short = self.is_bracketed and not self.has_seconds
        return self.form == NO_YEAR or (self.form == _TIME_FIRST and is_short)

    def is_like(self, other: Style) -> bool:
        """Whether it is another with an unknown word for the half of the day, or without a year."""
        bare = self._replace(words=other.words, half_place=other.half_place)
        is_unknown = "?" in self.words and not self.half_place
        if self.form == NAMED and not self.long_year:
            # old phones left the year out of the dates of the year they were in
            return self._replace(long_year=other.long_year) == other
        return is_unknown and other.half_place != "" and bare == other


class HeaderReader:
    """Reads the headers of lines, and remembers what it met of their signs and words."""

    def __init__(self) -> None:
        self._styles: dict[tuple[object, ...], tuple[Style, str]] = {}
        self.form = _NUMBERS
        self.is_lettered = True

    def header(self, line: str) -> Header | None:
        """The header of a line; None where it has none."""
        if not line:
            return None
        # most lines that are no headers begin with a letter
        if not self.is_lettered and line[0].isalpha():
            return None
        match = _FORMS[self.form].match(line)
        if match is not None:
            return self._header(self.form, match)
        for form, pattern in enumerate(_FORMS):
            if form != self.form:
                match = pattern.match(line)
                if match is not None and (header := self._header(form, match)) is not None:
                    return header
        return None

    def _header(self, form: int, match: re.Match[str]) -> Header | None:
        if form == NAMED:
            number = month_of(match["month"] or match["month2"] or "")
            if number is None:
                return None
            day = match["day"] or match["day2"] or ""
            era, signs = "", ("month", "")
            numbers = (day, str(number), match["year"] or "")
        elif form == NO_YEAR:
            era, signs = "", (match["sign"], "")
            numbers = (match["first"], match["middle"], "")
        else:
            era, first, sign, middle, sign2, last = match.group(*_DATE_GROUPS)
            signs, numbers = (sign, sign2), (first, middle, last)
        opening, join, hour, colon, minute, second, after, close = match.group(*_OTHER_GROUPS)
        first, _, last = numbers
        long_year = "first" if len(first) > 2 or era else "last" if len(last) > 2 else ""
        raw = (form, opening, signs, long_year, colon, second is None, join, after, close)
        known = self._styles.get(raw)
        if known is None:
            if len(self._styles) > 10_000:
                self._styles.clear()
            known = self._styles[raw] = _style(form, match, signs, long_year, second is not None)
        style, half = known
        return Header(style, numbers, (hour, minute, second, half), era or "", match.end())


def _style(
    form: int, match: re.Match[str], signs: tuple[str, str], long_year: str, has_seconds: bool
) -> tuple[Style, str]:
    """The style of a header, and the half of the day that its words name."""
    before, words = half_of(match["join"])
    after, words_after = half_of(match["after"])
    said = [word for word in f"{words} {words_after}".split() if word not in "-–—"]
    # unknown words count as one, so that the two halves of an unknown clock are of one style
    noise = " ".join(
        word if word in _NOISE else "" if weekdays_of(word) else "?" for word in said
    ).strip()
    plain = (_STRIP.sub("", signs[0]), _STRIP.sub("", signs[1]))
    place = "before" if before else "after" if after else ""
    style = Style(
        form,
        match["open"] is not None,
        plain,
        long_year,
        _STRIP.sub("", match["colon"]),
        has_seconds,
        noise,
        place,
        _STRIP.sub("", match["close"]),
    )
    return style, before or after


def split_sender(rest: str) -> tuple[str | None, str]:
    """The name before the first colon, and what stands behind; None where a line has no name.

    >>> split_sender("Ann: hi: you"), split_sender('Ann created group "Trip: Rome"')
    (('Ann', 'hi: you'), (None, 'Ann created group "Trip: Rome"'))
    """
    at = rest.find(": ", 0, _MAX_SENDER_CHARS)
    if at < 0:
        # a message without words may have lost the blank behind the colon
        at = len(rest) - 1 if rest.endswith(":") and len(rest) <= _MAX_SENDER_CHARS else -1
    if at <= 0:
        return None, rest
    sender = rest[:at]
    if _has_open_quote(sender):  # what is quoted goes on behind the colon
        return None, rest
    return sender, rest[at + 2 :]


@lru_cache(maxsize=4096)
def _has_open_quote(sender: str) -> bool:
    return len(_QUOTES.findall(sender)) % 2 == 1

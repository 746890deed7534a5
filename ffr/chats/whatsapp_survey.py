"""What all headers of a WhatsApp export tell together: its style, its dates, its names.

A file is gone through once before it is read: only all of it tells the order of day and month, and
which of the lines that look like headers are quoted in a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime

from ffr.chats.dates import (
    CALENDAR_WORDS,
    Calendar,
    DayOrder,
    Order,
    calendar_of,
    clock_time,
    day_of,
    numbers_of,
    unmarked,
)
from ffr.chats.stream import ReadChoices
from ffr.chats.whatsapp_headers import (
    LIKE_HEADER,
    NAMED,
    NO_YEAR,
    Header,
    HeaderReader,
    Style,
    split_sender,
)
from ffr.chats.whatsapp_words import is_notice, language_of
from ffr.text import counted, one_line

_MAX_STYLES = 64
_MAX_SECOND_NAME_CHARS = 40
_MIN_NAMED = 3
_LOG = re.compile(r"\W{0,3}(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)(?:\s*[:|\]]| - )")


@dataclass(slots=True)
class _Name:
    """What stands before the first colon of lines, and behind it to a second one in all of them."""

    count: int
    more: str


@dataclass
class _Seen:
    """What was seen of one style."""

    first_line: int
    count: int = 0
    order: DayOrder = field(default_factory=DayOrder)
    calendars: dict[Calendar, int] = field(default_factory=dict)
    latest_hour: int = 0
    halves: set[str] = field(default_factory=set)
    has_zeros: bool = False
    opens_with_notice: bool = False
    names: dict[str, _Name] = field(default_factory=dict)
    last_numbers: tuple[str, str, str] = ("", "", "")
    example: str = ""


@dataclass
class Survey:
    """What the whole of a file tells of its headers.

    Args:
        own: The styles that begin messages; others are quoted in one.
        alike: Styles that differ from one of these by a word beside the time that is not known.
        num_foreign: Lines in other styles.
        has_marked_lines: Whether lines by the app begin with a mark, as iPhones write them today.
        notice: The group or person under whose name the first notice stands; "" for none.
    """

    own: dict[Style, tuple[Order, Calendar]] = field(default_factory=dict)
    alike: dict[Style, Style] = field(default_factory=dict)
    num_foreign: int = 0
    first_foreign: int = 0
    has_marked_lines: bool = False
    notice: str = ""
    decisions: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    reader: HeaderReader = field(default_factory=HeaderReader)
    _long_names: dict[str, str] = field(default_factory=dict)
    _plain_names: dict[str, str] = field(default_factory=dict)
    _days: dict[tuple[str, str, str], date | None] = field(default_factory=dict)

    def is_own(self, header: Header) -> bool:
        """Whether a header begins a message."""
        return header.style in self.own or header.style in self.alike

    def looks_like_one(self, line: str) -> bool:
        """Whether a line without a header begins as one would."""
        return line[:1] != "" and not line[0].isalpha() and LIKE_HEADER.match(line) is not None

    def time(self, header: Header) -> datetime | None:
        """When a message was sent, by the clock there; None where no calendar has that day."""
        numbers = header.numbers
        if not numbers[2]:
            return None
        if numbers in self._days:
            day = self._days[numbers]
        else:
            if len(self._days) > 20_000:
                self._days.clear()
            day = self._days[numbers] = self._day(header)
        clock = clock_time(*header.clock)
        return None if day is None or clock is None else datetime.combine(day, clock)

    def _day(self, header: Header) -> date | None:
        style = header.style
        order, calendar = self.own[self.alike.get(style, style)]
        first, middle, last = header.numbers
        _, month, day = numbers_of((int(first), int(middle), int(last)), order)
        return day_of(first if order[0] == "y" else last, month, day, calendar)

    def split(self, rest: str) -> tuple[str | None, str]:
        """Who speaks, and what is said; None where the app speaks."""
        sender, text = split_sender(rest)
        if sender is None or is_notice(rest):
            return None, rest
        long = self._long_names.get(sender)
        if long is not None and text.startswith(long):
            sender, text = f"{sender}: {long[:-2]}", text[len(long) :]
        plain = self._plain_names.get(sender)
        return plain or unmarked(sender), text


def first_header(lines: Iterable[str]) -> Header | None:
    """The first header among lines; None where they are of no chat.

    Where other lines stand before it, as in a chat that was cut, one line in four from there on
    must have a header of its style and a name: a chat may be quoted in anything. Logs of programs
    are no chats.
    """
    reader = HeaderReader()
    first: Header | None = None
    num_lines = num_headers = 0
    for line in lines:
        if not line.strip():
            continue
        found = reader.header(line)
        num_lines += 1
        if found is None:
            continue
        if first is None and _LOG.match(line[found.end : found.end + 40]) is not None:
            return None
        has_name = split_sender(line[found.end :])[0] is not None
        if num_lines == 1 and not num_headers:
            return found
        if first is None and has_name:
            first, num_lines = found, 1
        num_headers += first is not None and found.style == first.style and has_name
    return first if 4 * num_headers >= num_lines else None


def survey(lines: Iterator[tuple[int, str]], choices: ReadChoices) -> Survey:
    """Goes through a file once.

    Args:
        lines: Its lines with their numbers.
        choices: What was told of it.

    Raises:
        UsageError: where an order of dates was told that is none.
    """
    result = Survey()
    reader = result.reader
    seen: dict[Style, _Seen] = {}
    languages: dict[str, int] = {}
    is_thai = has_lettered = False
    for number, line in lines:
        found = reader.header(line)
        if number < 1000:
            is_thai = is_thai or any("\u0e00" <= char <= "\u0e7f" for char in line[:200])
        if found is None:
            if number > 200:
                reader.is_lettered = has_lettered
            continue
        has_lettered = has_lettered or line[0].isalpha()
        if found.style not in seen:
            if len(seen) >= _MAX_STYLES:
                continue
            seen[found.style] = _Seen(number, example=line)
            reader.form = next(iter(seen)).form
        entry = seen[found.style]
        _note(entry, found, line, is_thai)
        if entry.count <= 200:
            rest = line[found.end :]
            sender, text = split_sender(rest)
            said = rest if sender is None else text
            language = language_of(said)
            if language:
                languages[language] = languages.get(language, 0) + 1
            if is_notice(said) and entry.count == 1:
                entry.opens_with_notice = True
                if not result.notice and sender is not None:
                    result.notice = unmarked(sender)
        if line[0] == "\u200e":
            result.has_marked_lines = True
    _choose(result, seen)
    for style in result.own:
        _settle(result, style, seen[style], choices, languages)
    reader.is_lettered = has_lettered
    return result


def _note(entry: _Seen, found: Header, line: str, is_thai: bool) -> None:
    """Takes a header into account."""
    numbers = found.numbers
    # a day has many messages, and tells once
    if numbers != entry.last_numbers:
        entry.last_numbers = numbers
        _note_day(entry, found, is_thai)
    entry.count += 1
    if "?" in found.style.words:
        entry.latest_hour = max(entry.latest_hour, int(found.clock[0]))
    if entry.count < 50 and found.clock[3]:
        entry.halves.add("upper" if re.search("AM|PM", line[: found.end]) else "other")
    sender, text = split_sender(line[found.end :])
    if sender is None:
        return
    name = entry.names.get(sender)
    if name is None:
        entry.names[sender] = _Name(1, _second_name(text))
        return
    name.count += 1
    if name.more and not text.startswith(name.more):
        name.more = ""


def _note_day(entry: _Seen, found: Header, is_thai: bool) -> None:
    numbers = found.numbers
    if not numbers[2]:
        return
    if found.style.form != NAMED and not found.era:
        if not entry.order.trials:
            entry.order.separator = found.style.signs[0]
        entry.order.see(*numbers)
    year = numbers[0] if found.style.long_year == "first" else numbers[2]
    calendar = calendar_of(year, found.era, is_thai=is_thai)
    entry.calendars[calendar] = entry.calendars.get(calendar, 0) + 1
    entry.has_zeros = entry.has_zeros or (numbers[0][0] == "0" or numbers[1][0] == "0")


def _second_name(text: str) -> str:
    """What may be the rest of a name with a colon in it."""
    at = text.find(": ", 0, _MAX_SECOND_NAME_CHARS)
    return text[: at + 2] if at > 0 else ""


def _choose(result: Survey, seen: dict[Style, _Seen]) -> None:
    """Which styles begin messages.

    A file is written by one program: its first header shows the style. Files that were put together
    have more: another export's begins with the notice of encryption, or goes on for long. Where no
    style comes twice as often as all others, as in a collection of lines, all count.
    """
    if not seen:
        return
    total = sum(entry.count for entry in seen.values())
    exported = [style for style in seen if not style.is_copied]
    first = next(iter(seen))
    # a file may be cut so that it begins within a message that quotes
    if 10 * seen[first].count < total or (first.is_copied and seen[first].count == 1):
        most = max(exported or seen, key=lambda style: seen[style].count)
        first = most if seen[most].count > seen[first].count else first
    is_collection = len(exported) >= 4 and 2 * seen[first].count < total
    for style, entry in seen.items():
        is_long = entry.count >= 100 and 10 * entry.count >= total
        is_other = entry.opens_with_notice or is_long or is_collection
        if style is first or (is_other and not style.is_copied):
            result.own[style] = ("dmy", "gregorian")
    for style, entry in seen.items():
        if style not in result.own and style.is_like(first):
            result.alike[style] = first
            result.faults.append(_without(style, entry))
        elif style not in result.own:
            result.first_foreign = min(result.first_foreign or entry.first_line, entry.first_line)
            result.num_foreign += entry.count
    if len(result.own) > 1:
        result.decisions.append(f"{len(result.own)} styles of headers in one file")


def _without(style: Style, entry: _Seen) -> str:
    """What is missing in the dates of a style, as a fault."""
    example = one_line(entry.example, 40)
    lines = counted(entry.count, "line has", "lines have")
    if "?" in style.words:
        return (
            f"{lines} a word beside the time that is not known ({example}); the hour is taken as it "
            "stands"
        )
    return f"{lines} a date without a year ({example}); no time is kept"


def _settle(
    result: Survey, style: Style, entry: _Seen, choices: ReadChoices, languages: dict[str, int]
) -> None:
    """Decides order, calendar, clock and names of a style."""
    order: Order = "ymd" if style.long_year == "first" and style.form != NAMED else "dmy"
    calendar: Calendar = "gregorian"
    if entry.calendars:
        calendar = max(entry.calendars, key=entry.calendars.__getitem__)
    if entry.order.trials:
        # 年月日 name what they part
        is_named = style.signs[0] in "年년" and style.signs[0] != ""
        order, words = entry.order.decide(choices.date_order, _hint(style, entry, languages))
        if not is_named and not any(said.startswith(words) for said in result.decisions):
            of_style = f" in {one_line(unmarked(entry.example), 24)}" if len(result.own) > 1 else ""
            result.decisions.append(words + of_style)
    if calendar in CALENDAR_WORDS:
        result.decisions.append(CALENDAR_WORDS[calendar])
    result.own[style] = (order, calendar)
    if style.form == NO_YEAR or (style.form == NAMED and not style.long_year):
        result.faults.append(_without(style, entry))
    if "?" in style.words and entry.latest_hour <= 12 and not style.half_place:
        result.faults.append(
            f"a word beside the time is not known ({one_line(entry.example, 40)}); if it names a "
            "half of the day, hours from noon on are 12 too early"
        )
    for name, seen in entry.names.items():
        if seen.more and seen.count >= _MIN_NAMED:
            result._long_names[name] = seen.more
    plain = {unmarked(name) for name in entry.names}
    for name in entry.names:
        said = unmarked(name)
        bare = said[1:].strip() if said.startswith("~") else ""
        # a stranger may bear the name of someone known
        result._plain_names[name] = bare if bare and bare not in plain else said


def _hint(style: Style, entry: _Seen, languages: dict[str, int]) -> tuple[Order, str] | None:
    """What speaks for an order where dates alone do not tell."""
    language = max(languages, key=languages.__getitem__, default="")
    if style.signs[0] == ".":
        return "dmy", "by its dots"
    if language and language != "en":
        return "dmy", f"by the language of the app's lines, {language}"
    if style.half_place and "upper" in entry.halves and not style.long_year:
        return "mdy", "by its clock of AM and PM and its short years"
    if style.half_place == "after" and "upper" in entry.halves and language == "en":
        return ("dmy", "by its zeros") if entry.has_zeros else ("mdy", "by its clock of AM and PM")
    if language == "en" and not style.half_place:
        return "dmy", "by its clock of 24 hours"
    if language == "en" and entry.halves == {"other"}:
        return "dmy", "by its clock of am and pm"
    if style.half_place and entry.halves == {"other"}:
        return "dmy", "by the words of its clock"
    return None

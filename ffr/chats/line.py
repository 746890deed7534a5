"""LINE's "export chat": a text with a line for each day, and times without dates."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple

from ffr.chats.account import Account
from ffr.chats.chat import Message
from ffr.chats.dates import (
    CALENDAR_WORDS,
    MARKS,
    SPACES,
    Calendar,
    DayOrder,
    Order,
    calendar_of,
    clock_time,
    day_of,
    half_of,
    month_of,
    numbers_of,
    unmarked,
    weekdays_of,
)
from ffr.chats.export_files import ExportFiles
from ffr.chats.line_words import content_of, is_system, is_unsent, title_of
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.text import counted, one_line

_M = f"[{MARKS}]{{0,6}}"
# a tab parts columns
_BLANKS = SPACES.replace("\t", "")
_S = f"[{_BLANKS}]"
_SIGN = f"{_M}{_S}?(?:[./\\-年月년월]{_S}?|{_S}){_M}"
# 2024/01/15(Mon)   2024.01.15 Monday   Mon, 01/15/2024   2024年1月15日 月曜日   T2, 15/01/2024
_DAY = re.compile(
    rf"^{_M}(?P<before>[^\d\t:]{{0,24}}?|T[2-7],? |CN,? ){_S}?"
    rf"(?P<first>\d{{1,4}})(?P<sign>{_SIGN})(?P<middle>\d{{1,2}})(?P<sign2>{_SIGN})(?P<last>\d{{1,4}})"
    rf"[.日일]?{_S}?(?P<after>[^\d\t:]{{0,24}}?){_M}{_S}{{0,4}}$"
)
# Monday, January 15, 2024   15 January 2024
_NAMED_DAY = re.compile(
    rf"^{_M}(?P<before>[^\W\d_][^\d\t:,]{{1,14}}, )?"
    r"(?:(?P<month>[^\W\d_][^\d\t:,]{2,13}) (?P<day>\d{1,2}),?|(?P<day2>\d{1,2})[. ]+(?:de )?"
    rf"(?P<month2>[^\W\d_][^\d\t:,]{{2,13}}?)),? (?:de )?(?P<year>\d{{4}})(?P<after>[^\d\t:]{{0,24}}){_S}*$"
)
_CLOCK = (
    rf"{_M}(?P<before>[^\d\t:\[]{{0,16}}?){_S}?(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})"
    r"(?::(?P<second>\d{2}))?"
)
_TABBED = re.compile(rf"^{_CLOCK}{_S}?(?P<after>[^\d\t:]{{0,16}}){_M}\t(?P<rest>.*)$", re.DOTALL)
_BLANKED = re.compile(
    rf"^{_CLOCK}(?:{_S}?(?P<after>[ap]\.?m\.?|[ap]\.{_S}?m\.)(?={_S}))?{_S}+(?P<rest>\S.*)$",
    re.DOTALL | re.IGNORECASE,
)
_FIRST_LINE = re.compile(rf"^{_M}\[LINE\]", re.IGNORECASE)
_HEAD_LINES = 60
_MAX_HEADING_LINES = 4
_MAX_QUOTED_LINES = 2000
_MAX_QUOTED_CHARS = 30_000
_MAX_NAME_WORDS = 6
_MIN_NAMED = 3


class _Day(NamedTuple):
    """A line that begins a day: its style, its numbers, and the words beside them."""

    style: tuple[str, str, bool, bool]
    numbers: tuple[str, str, str]
    weekday: str


class _Spoken(NamedTuple):
    """A line that begins a message."""

    clock: time | None
    sender: str | None
    text: str


def _day_line(line: str) -> _Day | None:
    """The day that a line begins; None where it is no such line."""
    if len(line) > 80:
        return None
    match = _DAY.match(line)
    if match is not None:
        before, after = match["before"], match["after"]
        numbers = (match["first"], match["middle"], match["last"])
        style = (unmarked(match["sign"]), unmarked(match["sign2"]), bool(before), bool(after))
    else:
        match = _NAMED_DAY.match(line)
        month = None if match is None else month_of(match["month"] or match["month2"])
        if match is None or month is None:
            return None
        before, after = match["before"] or "", match["after"]
        numbers = (match["day"] or match["day2"], str(month), match["year"])
        style = ("month", "", bool(before), bool(after))
    if not any(len(number) > 2 for number in numbers):
        return None  # a year of LINE has four digits
    words = [word for word in (before, after) if unmarked(word).strip("().,（） ")]
    known = [word for word in words if weekdays_of(word)]
    # what else stands beside a date makes it a sentence, but for a weekday of an unknown tongue
    if any(len(word.split()) > 2 for word in words if word not in known):
        return None
    return _Day(style, numbers, known[0] if known else "")


def _clocked(match: re.Match[str] | None) -> re.Match[str] | None:
    """The match of a line with a time, if what stands beside the time is a half of the day."""
    if match is None or half_of(match["before"])[1] or half_of(match["after"] or "")[1]:
        return None
    return match


@dataclass
class _Survey:
    """What the whole of a file tells of its lines."""

    is_tabbed: bool = True
    day_style: tuple[str, str, bool, bool] | None = None
    order: Order = "ymd"
    calendar: Calendar = "gregorian"
    names: tuple[str, ...] = ()
    decisions: list[str] = field(default_factory=list)

    def spoken(self, line: str) -> _Spoken | None:
        """What a line says that begins a message; None where it goes on with the one before."""
        if self.is_tabbed and "\t" not in line:
            return None
        match = _clocked((_TABBED if self.is_tabbed else _BLANKED).match(line))
        if match is None:
            return None
        half = half_of(match["before"])[0] or half_of(match["after"] or "")[0]
        clock = clock_time(match["hour"], match["minute"], match["second"], half)
        rest = match["rest"]
        if self.is_tabbed:
            name, tab, text = rest.partition("\t")
            name = unmarked(name)
            return _Spoken(clock, (name or None) if tab else None, text if tab else rest)
        return self._parted(clock, rest)

    def _parted(self, clock: time | None, rest: str) -> _Spoken | None:
        if is_system(rest) or (" " not in rest and is_unsent(rest)):
            return _Spoken(clock, None, rest)
        for name in self.names:
            if rest.startswith(name) and rest[len(name) : len(name) + 1] in ("", " ", "\u3000"):
                return _Spoken(clock, name, rest[len(name) + 1 :])
        name, _, text = rest.partition(" ")
        return _Spoken(clock, name, text)

    def day(self, found: _Day) -> date | None:
        """The day that a line begins; None where no calendar has it."""
        first, middle, last = found.numbers
        if found.style[0] == "month":
            return day_of(last, int(middle), int(first))
        _, month, day = numbers_of((int(first), int(middle), int(last)), self.order)
        return day_of(first if self.order[0] == "y" else last, month, day, self.calendar)

    def is_day(self, found: _Day | None) -> bool:
        """Whether a line with a date alone begins a day: all of a file look the same."""
        if found is None or found.style != self.day_style:
            return False
        day = self.day(found)
        named = weekdays_of(found.weekday)
        return day is None or not named or day.weekday() in named


def _surveyed(lines: Iterator[tuple[int, str]], choices: ReadChoices, title: str) -> _Survey:
    """Goes through a file once: how its columns are parted, its days are written, who speaks."""
    found = _Survey()
    order = DayOrder()
    calendars: Counter[Calendar] = Counter()
    num_tabbed = num_blanked = 0
    counts: Counter[tuple[str, ...]] = Counter()
    for _, line in lines:
        day = _day_line(line) if len(line) <= 80 else None
        if day is not None and found.day_style in (None, day.style):
            if found.day_style is None:
                found.day_style = day.style
                order.separator = day.style[0]
            if day.style[0] != "month":
                order.see(*day.numbers, unmarked(day.weekday).strip("().,（） "))
                year = max(day.numbers, key=len)
                calendars[calendar_of(year)] += 1
            continue
        if "\t" in line and _clocked(_TABBED.match(line)) is not None:
            num_tabbed += 1
        elif num_tabbed < 10 and (match := _clocked(_BLANKED.match(line))) is not None:
            num_blanked += 1
            words = tuple(match["rest"][:200].split(" ")[: _MAX_NAME_WORDS + 1])
            counts.update(words[:length] for length in range(1, len(words) + 1))
    found.is_tabbed = num_tabbed >= num_blanked
    if order.trials:
        found.order, how = order.decide(choices.date_order, None)
        if found.day_style is not None and found.day_style[0] not in ("年", "년"):
            found.decisions.append(how)
    if calendars:
        found.calendar = calendars.most_common(1)[0][0]
        if found.calendar in CALENDAR_WORDS:
            found.decisions.append(CALENDAR_WORDS[found.calendar])
    if not found.is_tabbed:
        found.names = tuple(_names(counts, title))
        found.decisions.append(
            "names parted from words by blanks alone, so that a name of several words may be cut "
            "to its first"
        )
    return found


def _names(counts: Counter[tuple[str, ...]], title: str) -> Iterator[str]:
    """Who speaks, longest first, where only blanks part names from words.

    A name goes on as long as every line that begins with it goes on with the same word.
    """
    longer: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {}
    for words, count in counts.items():
        if len(words) > 1 and count > longer.get(words[:-1], ((), 0))[1]:
            longer[words[:-1]] = (words, count)
    names = {title} if title else set()
    for words, count in counts.items():
        if len(words) != 1:
            continue
        while count >= _MIN_NAMED and words in longer and len(words) < _MAX_NAME_WORDS:
            following, num_following = longer[words]
            if num_following < count:
                break
            words = following
        names.add(" ".join(words))
    yield from sorted(names, key=len, reverse=True)


class _Reading:
    """One file on its way to messages."""

    def __init__(
        self, export: ExportFiles, name: str, stream: ChatStream, choices: ReadChoices
    ) -> None:
        self._export = export
        self._name = name
        self._stream = stream
        self._choices = choices
        self._survey = _Survey()
        self._day: date | None = None
        self._waiting: deque[tuple[int, str]] = deque()
        self._num_timeless = self._first_timeless = 0

    def messages(self) -> Iterator[Message]:
        """All messages; the account is whole when they end."""
        account = self._stream.account
        lines = self._export.lines
        self._survey = _surveyed(lines(self._name, Account()), self._choices, self._stream.title)
        account.decisions.extend(self._survey.decisions)
        source = lines(self._name, account)
        begun: tuple[int, _Spoken, list[str]] | None = None
        num_blank = 0
        while (taken := self._next(source)) is not None:
            number, line = taken
            if not unmarked(line):
                num_blank += 1
                continue
            spoken = self._survey.spoken(line)
            found = None if spoken is not None else _day_line(line)
            is_day = self._survey.is_day(found)
            if begun is not None and (spoken is not None or is_day):
                yield self._message(*begun)
                begun = None
            if spoken is not None:
                begun = (number, spoken, [spoken.text])
                if spoken.text.startswith('"'):
                    quoted = self._quoted(spoken, source)
                    if quoted is not None:
                        yield self._message(number, spoken, quoted)
                        begun = None
            elif is_day and found is not None:
                account.num_system += 1
                self._begin_day(found, number)
            elif begun is not None:
                # blanks between the lines of a message belong to it, others part days
                begun[2].extend([""] * num_blank)
                begun[2].append(line)
                account.num_continuations += 1 + num_blank
                num_blank = 0
            elif number <= _MAX_HEADING_LINES and self._day is None:
                account.num_system += 1
            else:
                account.not_understood(self._name, number, line)
            account.num_blank += num_blank
            num_blank = 0
        account.num_blank += num_blank
        if begun is not None:
            yield self._message(*begun)
        self._close()

    def _next(self, source: Iterator[tuple[int, str]]) -> tuple[int, str] | None:
        return self._waiting.popleft() if self._waiting else next(source, None)

    def _quoted(self, spoken: _Spoken, source: Iterator[tuple[int, str]]) -> list[str] | None:
        """The lines of a message that stands in quotes; None where the quote is one of its words.

        Within, quotes are doubled; the one that ends it stands at the end of a line.
        """
        if _closes(spoken.text[1:]) is not None:
            return None  # closed on the line itself: not quoted for having several
        lines = [spoken.text[1:]]
        taken: list[tuple[int, str]] = []
        size = 0
        closed: bool | None = None
        while len(taken) < _MAX_QUOTED_LINES and size < _MAX_QUOTED_CHARS:
            item = self._next(source)
            if item is None:
                break
            taken.append(item)
            size += len(item[1])
            closed = _closes(item[1])
            if closed is not None:
                break
            lines.append(item[1])
        if closed:
            # somebody's inches: what is quoted was said before
            last = self._survey.spoken(taken[-1][1])
            if last is not None and last.clock is not None and spoken.clock is not None:
                closed = last.clock < spoken.clock
        if not closed:
            self._waiting.extendleft(reversed(taken))
            return None
        lines.append(taken[-1][1].rstrip()[:-1])
        self._stream.account.num_continuations += len(taken)
        return [line.replace('""', '"') for line in lines]

    def _begin_day(self, found: _Day, number: int) -> None:
        self._day = self._survey.day(found)
        if self._day is None:
            self._stream.account.fault(
                f"{self._name}:{number} names a day that no calendar has, so that what was said on "
                "it has no time"
            )

    def _message(self, number: int, spoken: _Spoken, lines: list[str]) -> Message:
        account, stream = self._stream.account, self._stream
        text = "\n".join(lines).rstrip()
        if len(lines) > 1 and len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        moment = None
        if self._day is not None and spoken.clock is not None:
            moment = datetime.combine(self._day, spoken.clock)
        else:
            self._num_timeless += 1
            self._first_timeless = self._first_timeless or number
        sender = spoken.sender
        if sender is None:
            account.num_system += 1
            return Message(None, unmarked(text), moment, "system", line=number)
        account.num_messages += 1
        if sender not in stream.people:
            stream.person(sender, sender, is_me=sender == self._choices.me)
        content = content_of(text, is_bare=not self._survey.is_tabbed)
        return Message(
            sender,
            content.text,
            moment,
            content.kind,
            content.media,
            is_deleted=content.is_deleted,
            line=number,
        )

    def _close(self) -> None:
        account = self._stream.account
        if self._num_timeless:
            verb = counted(self._num_timeless, "line has", "lines have")
            account.fault(
                f"{verb} no time that can be told, the first is {self._name}:{self._first_timeless}"
            )
        me = self._choices.me
        if me is not None and me not in self._stream.people:
            account.fault(f"nobody here is called {one_line(me, 60)}, so nobody is marked as me")


def _closes(line: str) -> bool | None:
    """Whether a line ends what stands in quotes: False where a quote in it is no doubled one."""
    if '"' not in line:
        return None
    rest = line.replace('""', "").rstrip()
    if '"' not in rest:
        # three quotes at the end are a doubled one and the last
        return None
    return rest.count('"') == 1 and rest.endswith('"')


def _find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The texts of an export that are chats of LINE."""
    names = [
        name
        for name in export.text_names
        if PurePosixPath(name).suffix.lower() == ".txt" or len(export.names) == 1
    ]
    return [(name,) for name in names if _is_line(islice(_head(export, name), _HEAD_LINES))]


def _head(export: ExportFiles, name: str) -> Iterable[str]:
    head = export.head(name)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in head[:1024]:
        return []
    return head[: 1 << 18].decode(encoding, "replace").split("\n")


def _is_line(lines: Iterable[str]) -> bool:
    """Whether lines begin a chat: with LINE's mark, or a day and a message of it.

    A diary has days and times too: where only blanks part the columns, the day has its name.
    """
    day: _Day | None = None
    is_first = True
    for line in lines:
        line = line.rstrip("\r")
        if not line.strip():
            continue
        if is_first and _FIRST_LINE.match(line) is not None:
            return True
        is_first = False
        if day is not None and _clocked(_TABBED.match(line)) is not None:
            return True
        if day is not None and day.weekday and _clocked(_BLANKED.match(line)) is not None:
            return True
        day = day or _day_line(line)
    return False


def _read(
    export: ExportFiles, names: tuple[str, ...], choices: ReadChoices
) -> Iterator[ChatStream]:
    for name in names:
        first = next((line for line in _head(export, name) if line.strip()), "")
        stem = export.path.stem if len(export.names) == 1 else PurePosixPath(name).stem
        said = first if _FIRST_LINE.match(first) is not None else stem
        stream = ChatStream("line", title_of(unmarked(said)))
        stream.messages = _Reading(export, name, stream, choices).messages()
        yield stream


FORMAT = ChatFormat("line", "a chat export of LINE", _find, _read)

"""Days and times as chat apps write them: any digits, 12-hour clocks, calendars, orders of dates."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from functools import lru_cache
from typing import Literal

from ffr.errors import UsageError

Order = Literal["dmy", "mdy", "ymd", "ydm"]
ORDERS: tuple[Order, ...] = ("dmy", "mdy", "ymd")
"""The orders of a date that may be told by `ReadChoices.date_order`."""
ORDER_WORDS: dict[str, str] = {"dmy": "d/m", "mdy": "m/d", "ymd": "y/m/d", "ydm": "y/d/m"}

MARKS = "\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
"""Characters that nobody sees, for a regular expression's class: they stand anywhere in exports."""
SPACES = " \t\u00a0\u2009\u200a\u202f\u3000"
"""What parts words in headers, for a class too."""
_UNSEEN = re.compile(f"[{MARKS}]+")
_EDGES = re.compile(f"^[{MARKS}{SPACES}]+|[{MARKS}{SPACES}]+$")
_PARTING = re.compile(rf"[{SPACES}_.,،、·'’׳״\"()]+")

# Half of the day, as 12-hour clocks name it. `night` is what lies on both sides of midnight, `noon`
# on both sides of noon; all other names are of one half.
_HALVES = {
    "am": """
        am vorm vorm. öö sa fm ap pd de dop fh vm pg yb rn el πμ дп проб претпл претпладне үө тң то to
        преподне prepodne prepodne prijepodne priešpiet priekšp priekšpusdienā dopoledne délelőtt
        ص صباحا صباحًا قظ قبلازظهر قبلدوپہر غم لفנהצ לפנהצ לפניהצהריים בבוקר
        पूर्वाह्न मपू सुबह পূর্বাহ্ণ পূর্বাহ্ন ਪੂਦੁ முற்பகல் முப ಪೂರ್ವಾಹ್ನ పూర్వాహ్నం පෙව
        ก่อนเที่ยง ກ່ອນທ່ຽງ ព្រឹក နံနက် ጥዋት կա დილის gh sn bn بن
        午前 上午 清晨 早上 早晨 凌晨 오전 새벽 아침
    """,
    "pm": """
        pm nachm nachm. ös ch em ip md du pop odp eh nm ptg yh in pl μμ пп слоб попл попладне үх тк tk
        поподне popodne popiet pēcp pēcpusdienā odpoledne délután
        م مساء مساءً بظ بعدازظهر بعددوپہر غو אחהצ אחריהצהריים בערב
        अपराह्न मउ शाम অপরাহ্ণ অপরাহ্ন ਬਾਦੁ பிற்பகல் பிப ಅಪರಾಹ್ನ అపరాహ్నం පව
        หลังเที่ยง ຫຼັງທ່ຽງ ល្ងាច ညနေ ከሰዓት կհ საღამოს gd gn dn دن
        午後 下午 傍晚 오후 저녁
    """,
    "noon": "中午 正午 낮 noon midday",
    "night": "晚上 深夜 半夜 夜 夜间 夜間 밤",
}
_HALF_OF = {word: half for half, words in _HALVES.items() for word in words.split()}


def unmarked(text: str) -> str:
    r"""A text without unseen marks and without blanks at its ends; all blanks are plain ones.

    >>> unmarked("\u202a+49\u00a0170\u202c ")
    '+49 170'
    """
    if text.isascii():
        return text.strip()
    text = _UNSEEN.sub("", text)
    return re.sub(f"[{SPACES}]", " ", text).strip()


def begins_marked(text: str) -> bool:
    """Whether a text begins with a character that nobody sees."""
    return _UNSEEN.match(text) is not None


def edges_unmarked(text: str) -> str:
    """A text without marks and blanks at its ends; what stands inside stays."""
    return text.strip() if text.isascii() else _EDGES.sub("", text)


@lru_cache(maxsize=4096)
def half_of(said: str) -> tuple[str, str]:
    """What stands beside a time: the half of the day that it names, and what else it says.

    Args:
        said: All between date and time, or behind the time.

    Returns:
        `am`, `pm`, `noon`, `night` or "" with the words that are none of these.

    >>> half_of("\u202fp. m."), half_of(", 오후 "), half_of(" klo ")
    (('pm', ''), ('pm', ''), ('', 'klo'))
    """
    words = [word for word in _PARTING.split(_UNSEEN.sub("", said).lower()) if word]
    if words and words[0][0] in "日일号號" and len(words[0]) > 1:
        words[:1] = [words[0][0], words[0][1:]]
    for first in range(len(words)):
        half = _HALF_OF.get("".join(words[first:]))
        if half is not None:
            return half, " ".join(words[:first])
    return "", " ".join(words)


def hour_of(hour: int, half: str) -> int:
    """The hour of a day of 24 hours.

    >>> hour_of(12, "am"), hour_of(12, "pm"), hour_of(9, "pm"), hour_of(12, "night"), hour_of(1, "noon")
    (0, 12, 21, 0, 13)
    """
    if not half or hour > 12:
        return hour
    hour %= 12
    if half == "pm" or (half == "noon" and hour < 10) or (half == "night" and hour >= 5):
        return hour + 12
    return hour


def clock_time(hour: str, minute: str, second: str | None, half: str) -> time | None:
    """A time of day; None where no clock shows it."""
    try:
        return time(hour_of(int(hour), half), int(minute), int(second or 0))
    except ValueError:
        return None


Calendar = Literal["gregorian", "buddhist", "persian", "hijri", "minguo", "reiwa", "heisei"]
_ERAS: dict[str, Calendar] = {
    "令和": "reiwa",
    "r": "reiwa",
    "平成": "heisei",
    "h": "heisei",
    "民國": "minguo",
    "民国": "minguo",
}
ERA = "令和|平成|民國|民国|[RH](?=\\d)"
CALENDAR_WORDS: dict[Calendar, str] = {
    "buddhist": "years of the Buddhist era",
    "persian": "dates of the Persian calendar",
    "hijri": "dates of the Hijri calendar, turned by its arithmetic form, so that a day may be one off",
    "minguo": "years of the Minguo era",
    "reiwa": "years of the Reiwa era",
    "heisei": "years of the Heisei era",
}


def calendar_of(year: str, era: str = "", *, is_thai: bool = False) -> Calendar:
    """The calendar that a year belongs to, as far as it shows: chat apps are younger than 2005.

    Args:
        year: Its digits.
        era: The word before it.
        is_thai: Whether years of two digits may be those of Thailand.

    >>> calendar_of("2566"), calendar_of("1402"), calendar_of("1445"), calendar_of("2023")
    ('buddhist', 'persian', 'hijri', 'gregorian')
    """
    known = _ERAS.get(era.strip(". ").lower())
    if known is not None:
        return known
    number = int(year)
    if len(year) == 4:
        if 2480 <= number <= 2700:
            return "buddhist"
        if 1380 <= number < 1430:
            return "persian"
        if 1430 <= number <= 1500:
            return "hijri"
    elif len(year) == 3 and 95 <= number <= 189:
        return "minguo"
    elif len(year) == 2 and is_thai and number >= 48:
        return "buddhist"
    return "gregorian"


@lru_cache(maxsize=1 << 15)
def day_of(year: str, month: int, day: int, calendar: Calendar = "gregorian") -> date | None:
    """A day by the numbers of its calendar; None where the calendar has no such day.

    Args:
        year: Its digits; two mean 1970 to 2069.
        month: From 1.
        day: From 1.
        calendar: Whose numbers they are.

    >>> day_of("2566", 12, 31, "buddhist"), day_of("1402", 10, 10, "persian")
    (datetime.date(2023, 12, 31), datetime.date(2023, 12, 31))
    """
    number = int(year)
    try:
        if calendar == "persian":
            return _persian_day(number, month, day)
        if calendar == "hijri":
            return _hijri_day(number, month, day)
        if calendar == "buddhist":
            number += 2500 - 543 if len(year) <= 2 else -543
        elif calendar == "minguo":
            number += 1911
        elif calendar in ("reiwa", "heisei"):
            number += 2018 if calendar == "reiwa" else 1988
        elif len(year) <= 2:
            number += 2000 if number < 70 else 1900
        return date(number, month, day)
    except (ValueError, OverflowError):
        return None


# leap years of the Persian calendar within 33 years, right from 1244 to 1472
_PERSIAN_LEAPS = (1, 5, 9, 13, 17, 22, 26, 30)


def _persian_day(year: int, month: int, day: int) -> date:
    is_leap = year % 33 in _PERSIAN_LEAPS
    length = 31 if month <= 6 else 30 if month <= 11 or is_leap else 29
    if not (1 <= month <= 12 and 1 <= day <= length and 1300 <= year <= 1472):
        raise ValueError
    start = date(1921, 3, 21)  # the first day of 1300
    leaps = sum(past % 33 in _PERSIAN_LEAPS for past in range(1300, year))
    days = (year - 1300) * 365 + leaps + 31 * min(month - 1, 6) + 30 * max(month - 7, 0) + day - 1
    return start + timedelta(days=days)


def _hijri_day(year: int, month: int, day: int) -> date:
    """By the arithmetic calendar: months of 30 and 29 days, 11 leap years in 30."""
    if not (1 <= month <= 12 and 1 <= day <= 30 and year >= 1):
        raise ValueError
    days = (year - 1) * 354 + (3 + 11 * year) // 30 + 29 * (month - 1) + month // 2 + day - 1
    return date(622, 7, 19) + timedelta(days=days)


# months by the beginnings of their names; a beginning that two languages use for two months is left
# out
_MONTH_WORDS = """
    jan janv janeiro enero ene gen gennaio ocak oca sty led jaan tammi янв січ ιαν يناير ינו जन ม.ค
    feb févr fév fevereiro febrero feb şubat şub lut úno veebr helmi фев лют φεβ فبراير פבר फ़र ก.พ
    mar mars mär märz maa maart mrt março marzo mart már märts maalis мар бер μαρ مارس מרץ मार्च มี.ค
    apr avr abr abril aprile nis nisan kwi dub ápr huhti апр кві απρ أبريل אפר अप्रै เม.ย
    may mai mei maj mag maggio maio mayo mayıs kvě máj touko мая май тра μαΐ مايو מאי मई พ.ค
    jun juin juni giu junho junio haz haziran cze čvn jún kesä июн чер ιουν يونيو יונ जून มิ.ย
    jul juil juli lug julho julio tem temmuz čvc júl heinä июл лип ιουλ يوليو יול जुल ก.ค
    aug août ago agosto ağu ağustos sie srp elo авг сер αυγ أغسطس אוג अग ส.ค
    sep sept set setembro septiembre eyl eylül wrz zář szept syys сен вер σεπ سبتمبر ספט सितं ก.ย
    oct okt out ott octobre ottobre eki ekim paź říj loka окт жов οκτ أكتوبر אוק अक्टू ต.ค
    nov novembre kas kasım marras ноя лис νοε نوفمبر נוב नवं พ.ย
    dec dez dic déc dicembre diciembre ara aralık gru pro joulu дек гру δεκ ديسمبر דצמ दिसं ธ.ค
"""
_MONTH_OF = {
    word.replace(".", ""): number
    for number, line in enumerate(_MONTH_WORDS.strip().splitlines(), 1)
    for word in line.split()
}


def month_of(word: str) -> int | None:
    """The number of a month by its name or the beginning of it; None where it is none.

    >>> month_of("Feb."), month_of("dezembro"), month_of("Monday")
    (2, 12, None)
    """
    word = _UNSEEN.sub("", word).replace(".", "").strip().lower()
    for length in range(min(len(word), 10), 1, -1):
        found = _MONTH_OF.get(word[:length])
        if found is not None:
            # "mon" and "maybe" are no months: an ending must belong to a name
            return found if length >= 3 or length == len(word) else None
    return None


@dataclass
class _Trial:
    """How the dates of a file look under one order."""

    num_bad: int = 0
    num_back: int = 0
    years: set[int] = field(default_factory=set)
    last: tuple[int, int, int] = (0, 0, 0)
    first_back: str = ""


@dataclass
class DayOrder:
    """Which number of a date is the day, found out from all dates of a file.

    Args:
        separator: What stands between the numbers, to show a date that told.

    >>> order = DayOrder()
    >>> for numbers in ("3/3/23", "27/3/23"):
    ...     order.see(*numbers.split("/"))
    >>> order.decide(None)
    ('dmy', 'day/month order d/m (seen 27/3)')
    """

    separator: str = "/"
    trials: dict[Order, _Trial] = field(default_factory=dict)
    _telling: dict[Order, str] = field(default_factory=dict)
    _last: tuple[str, str, str] = ("", "", "")

    def see(self, first: str, second: str, third: str, weekday: str = "") -> None:
        """Takes a date into account, by its three numbers as they stand there.

        Args:
            first: The first number.
            second: The second.
            third: The third.
            weekday: A word that may name the day of the week; an order under which it is another
                day is a wrong one.
        """
        if (first, second, third) == self._last:
            return
        self._last = (first, second, third)
        if len(first) >= 3:
            orders: tuple[Order, ...] = ("ymd", "ydm")
        elif len(third) >= 3:
            orders = ("dmy", "mdy")
        else:
            orders = ORDERS
        if not self.trials:
            self.trials = {order: _Trial() for order in orders}
        numbers = (int(first), int(second), int(third))
        shown, whole = f"{first}{self.separator}{second}", self.separator.join(self._last)
        if weekday:
            shown = f"{weekday} {shown}"
        for order, trial in self.trials.items():
            key = numbers_of(numbers, order)
            year, month, day = key
            is_short = len(self._last[order.index("y")]) <= 2
            # no chat app is older than 2009; 48 and more are the short years of Thailand
            is_wrong = not (1 <= month <= 12 and 1 <= day <= 31) or (is_short and year < 9)
            if is_wrong or not _is_weekday(self._last[order.index("y")], month, day, weekday):
                trial.num_bad += 1
                self._telling.setdefault(order, shown if order[0] != "y" else whole)
            else:
                if key < trial.last:
                    trial.num_back += 1
                    trial.first_back = trial.first_back or shown
                trial.last = key
                trial.years.add(year)

    def decide(self, told: str | None, hint: tuple[Order, str] | None = None) -> tuple[Order, str]:
        """The order, and a sentence that says how it was found.

        Args:
            told: The order by the word of whoever reads.
            hint: An order for which something else speaks, with what that is.

        Raises:
            UsageError: where no order is called so.
        """
        if told is not None and told not in ORDERS:
            raise UsageError(f"no order of dates is called {told}; there are {', '.join(ORDERS)}")
        possible = dict(self.trials) or {"dmy": _Trial()}
        for order in ORDERS:
            if order == told and order in possible:
                return order, _sentence(order, "as told")
        if told is not None:
            order, words = self.decide(None, hint)
            return order, f"{words}; {ORDER_WORDS[told]} was told, and the years stand elsewhere"
        fewest = min(trial.num_bad for trial in possible.values())
        left = {order: trial for order, trial in possible.items() if trial.num_bad == fewest}
        if "ymd" in left and "dmy" not in possible:
            return "ymd", _sentence("ymd", "the year stands first")
        if len(left) == 1:
            (order,) = left
            rivals: tuple[Order, ...] = ("mdy", "dmy", "ymd", "ydm")
            # of the others, the one that people would think of first
            other = next(item for item in rivals if item != order and item in self._telling)
            return order, _sentence(order, f"seen {self._telling[other]}")
        least = min(trial.num_back for trial in left.values())
        forward = {order: trial for order, trial in left.items() if trial.num_back == least}
        if len(forward) == 1:
            (order,) = forward
            return order, self._against(order, max(left, key=lambda item: left[item].num_back))
        if "ymd" in forward:
            # whoever takes a day for a short year sees many years, or such as have not come yet
            this_year = date.today().year % 100
            year_last = [item for order, item in forward.items() if order != "ymd"]
            is_far = all(this_year + 1 < max(item.years, default=0) < 48 for item in year_last)
            is_many = all(len(item.years) > len(forward["ymd"].years) for item in year_last)
            if is_far or is_many:
                return "ymd", _sentence("ymd", "so the years stay together")
            del forward["ymd"]
            if len(forward) == 1:
                (order,) = forward
                return order, self._against(order, "mdy" if order == "dmy" else "dmy")
        if hint is not None and hint[0] in forward:
            return hint[0], _sentence(hint[0], hint[1])
        order = "dmy" if "dmy" in forward else next(iter(forward))
        return order, _sentence(
            order, "a guess: nothing in the file tells; --date-order settles it"
        )

    def _against(self, order: Order, rival: Order) -> str:
        """Why it is this order and not the rival."""
        if rival in self._telling:
            return _sentence(order, f"seen {self._telling[rival]}")
        place = self.trials[rival].first_back
        return _sentence(order, f"under {ORDER_WORDS[rival]} times run backwards at {place}")


def _is_weekday(year: str, month: int, day: int, word: str) -> bool:
    """Whether a day may be of that name; so is every day where the word names none."""
    named = weekdays_of(word) if word else frozenset()
    found = day_of(year, month, day, calendar_of(year)) if named else None
    return found is None or found.weekday() in named


def _sentence(order: Order, reason: str) -> str:
    return f"day/month order {ORDER_WORDS[order]} ({reason})"


def numbers_of(numbers: tuple[int, int, int], order: Order) -> tuple[int, int, int]:
    """Year, month and day of three numbers in an order.

    >>> numbers_of((27, 3, 23), "dmy")
    (23, 3, 27)
    """
    if order == "dmy":
        return numbers[2], numbers[1], numbers[0]
    if order == "mdy":
        return numbers[2], numbers[0], numbers[1]
    return numbers if order == "ymd" else (numbers[0], numbers[2], numbers[1])


# Monday first; the beginnings by which calendars name the days
_WEEKDAYS = """
    mon lun seg mo pon po пн пон 月 星期一 周一 週一 월 จ จันทร์ sen δευ hét pzt ma
    tue mar ter di wt út вт вто 火 星期二 周二 週二 화 อ อังคาร sel τρι kedd sal ti
    wed mer mié qua mi śr st ср сре 水 星期三 周三 週三 수 พ พุธ rab τετ sze çar wo
    thu jeu gio jue qui do czw čt чт чет 木 星期四 周四 週四 목 พฤ พฤหัสบดี kam πεμ csüt per to
    fri ven vie sex fr pt pá пт пет 金 星期五 周五 週五 금 ศ ศุกร์ jum παρ péntek cum vr
    sat sam sab sáb sa so сб суб 土 星期六 周六 週六 토 ส เสาร์ sab σάβ szombat cmt za
    sun dim dom so nd ne вс нед 日 星期日 星期天 周日 週日 일 อา อาทิตย์ min κυρ vas paz zo
"""
_WEEKDAY_OF: dict[str, set[int]] = {}
for _number, _line in enumerate(_WEEKDAYS.strip().splitlines()):
    for _word in _line.split():
        _WEEKDAY_OF.setdefault(_word, set()).add(_number)


def weekdays_of(word: str) -> frozenset[int]:
    """The weekdays that a word may name, Monday = 0; nothing where it names none.

    A word that names different days in different languages gives all of them.

    >>> sorted(weekdays_of("Monday")), sorted(weekdays_of("(月)")), sorted(weekdays_of("hello"))
    ([0], [0], [])
    """
    word = re.sub(r"[().\s,，、（）]+", "", _UNSEEN.sub("", word).lower())
    for suffix in ("曜日", "요일"):
        word = word.removesuffix(suffix)
    for length in range(len(word), 0, -1):
        # one or two letters are the whole word, or they are nothing
        if word[:length] in _WEEKDAY_OF and (length == len(word) or length >= 3):
            return frozenset(_WEEKDAY_OF[word[:length]])
    return frozenset()

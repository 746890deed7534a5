"""Moments as exports write them: seconds since 1970, ISO 8601, a clock without a zone.

What is no moment of a chat (a word, a year before 1970 or beyond 9999) is None.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

_NONE = timedelta()
_QUARTER = timedelta(minutes=15)
_FARTHEST = timedelta(hours=15)
# those that were seen: at most one a quarter of an hour
_ZONES: dict[timedelta, timezone] = {}
# seconds of the year 5138: a larger number counts thousandths, or millionths, of a second
_MOST_SECONDS = 100_000_000_000
_MOST_CHARS = 40


def moment(value: object) -> datetime | None:
    """The moment of a count since 1970, in UTC.

    Args:
        value: Seconds, thousandths or millionths of them, as a number or its digits: which of the
            three is known by its size. Fractions of a second are kept.

    >>> moment(1692821483), moment("1692821483000") == moment(1692821483.0), moment("soon")
    (datetime.datetime(2023, 8, 23, 20, 11, 23, tzinfo=datetime.timezone.utc), True, None)
    """
    if isinstance(value, str) and len(value) <= _MOST_CHARS:
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 < value < _MOST_SECONDS * 1_000_000:
        return None
    while value >= _MOST_SECONDS:
        value /= 1000
    return datetime.fromtimestamp(value, UTC)


def clock(value: object) -> datetime | None:
    """A time as a clock shows it, with the zone where one is written behind it.

    >>> clock("2023-08-23T13:11:23"), clock("2023-02-31")
    (datetime.datetime(2023, 8, 23, 13, 11, 23), None)
    """
    if not isinstance(value, str) or len(value) > _MOST_CHARS:
        return None
    try:
        time = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return time if time.year >= 1970 else None


def zoned(at: datetime | None, shown: datetime | None) -> datetime | None:
    """The moment that an export counts and its clock shows: with the zone that follows from both.

    Args:
        at: The moment, in UTC.
        shown: What the clock of the phone showed then.

    Without the count, the clock's time without a zone; where the two fit no zone, the moment in UTC.

    >>> zoned(moment(1692821483), clock("2023-08-23T13:11:23")).isoformat()
    '2023-08-23T13:11:23-07:00'
    """
    if at is None or shown is None or shown.tzinfo is not None:
        return shown if at is None else at
    # a count may have thousandths that the clock does not show
    ahead = shown - at.replace(tzinfo=None, microsecond=shown.microsecond)
    zone = _ZONES.get(ahead)
    if zone is None and ahead % _QUARTER == _NONE and abs(ahead) <= _FARTHEST:
        zone = _ZONES.setdefault(ahead, timezone(ahead))
    return at if zone is None else shown.replace(tzinfo=zone)

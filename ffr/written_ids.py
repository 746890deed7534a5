"""The numbers in a list of ids as models write it: ids, and what looks like one and is none."""

from __future__ import annotations

import re

MAX_ID = 999_999_999
"""The largest id that an answer in the format can name."""

# any sign of a digit: \u00b2… superscripts and subscripts, \u2460… numbers in circles
_DIGIT = r"\d\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089\u2460-\u249b"
_DASH = "\\-−–—~～…"
_RANGE = re.compile(
    rf"(?<=[{_DIGIT}])\s*(?:[{_DASH}]|\.{{2,}}|至|到|\b(?:to|through)\b)\s*(?=[{_DIGIT}])"
)
_ITEM = re.compile(rf"[A-Za-z_.+{_DASH}{_DIGIT}]+")
HAS_DIGIT = re.compile(rf"[{_DIGIT}]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_NO_NUMBER = {"nan", "infinity"}
_MAX_NUMBER_CHARS = 400
NO_IDS_FROM = 2**52


def read_numbers(body: str) -> tuple[list[int], bool]:
    """The ids in a list, and whether it names things that are no ids: each a number of its own.

    Args:
        body: What stands between the markers of a list.

    >>> read_numbers("[0, 00, 3.0, 1.5]")
    ([0, 0, 3, 4503599627370496], True)
    """
    found: list[int] = []
    others: dict[str, int] = {}
    for item in _ITEM.findall(_RANGE.sub("–", body)):
        item = item.rstrip(".")
        if not HAS_DIGIT.search(item) and item.lstrip("+-").lower() not in _NO_NUMBER:
            continue
        value = _value(item)
        found.append(others.setdefault(item, NO_IDS_FROM + len(others)) if value is None else value)
    return found, bool(others) or any(item > MAX_ID for item in found)


def _value(item: str) -> int | None:
    """The whole number that an item is; None where it is none, or beyond 2^52."""
    if len(item) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(item):
        return None
    # float() is exact below 2^52; above it a number is no id anyway
    value = float(item)
    return int(value) if 0 <= value < NO_IDS_FROM and value.is_integer() else None

"""The ways by which dialogues are recalled, by name.

words     BM25 of the query's words, over messages and the text in pictures
lines     the line whose vector lies closest to the query's
segments  likewise, the stretch of lines on one thing
pictures  likewise, the picture itself, or the words for what it shows
"""

from __future__ import annotations

from collections.abc import Sequence

from ffr.errors import UsageError
from ffr.text import one_line

WORDS = "words"
"""The one way that needs no vectors."""

WAYS = (WORDS, "lines", "segments", "pictures")

MOST_DIALOGUES = 20
"""Dialogues that recall hands on if nothing else is said."""


def check_ways(ways: Sequence[str], k: int) -> None:
    """Refuses ways that are unknown, and numbers of dialogues that ask for nothing.

    Raises:
        UsageError: likewise.
    """
    if isinstance(ways, str) or not ways or any(way not in WAYS for way in ways):
        said = ways if isinstance(ways, str) else ", ".join(map(str, ways)) or "of none"
        raise UsageError(
            f"there is no way called {one_line(said, 60)}; name some of {', '.join(WAYS)}"
        )
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k {one_line(k, 40)} asks for nothing; give a whole number from 1")

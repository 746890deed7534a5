"""Words as full text finds them: letters in one case, and pairs of characters where none part words.

The tokenizers that come with full-text engines find no Chinese word of two characters, so texts are
written into the index as these terms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ffr.retrieval.function_words import FUNCTION_WORDS

# scripts whose words stand without blanks between them
_UNPARTED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
_PIECES = re.compile(
    rf"([{_UNPARTED}]+)|([^\W_{_UNPARTED}]+)|([\U0001f000-\U0001faff\u2600-\u27bf])"
)


def terms_of(text: str) -> list[str]:
    """The terms of a text, in order.

    A run of characters that no blanks part gives each character and each pair of neighbours.

    >>> terms_of("Gleis ９: 公交车!")
    ['gleis', '9', '公', '公交', '交', '交车', '车']
    """
    found: list[str] = []
    for run, word, sign in _PIECES.findall(unicodedata.normalize("NFKC", text).casefold()):
        if run:
            for place, char in enumerate(run):
                found.append(char)
                if place + 1 < len(run):
                    found.append(run[place : place + 2])
        else:
            found.append(word or sign)
    return found


def query_terms(text: str) -> list[str]:
    """The different terms to look for: of a run of characters its pairs, or itself where it is one.

    >>> query_terms("Bus 公交车 bus 猫")
    ['bus', '公交', '交车', '猫']
    """
    found: dict[str, None] = {}
    for run, word, sign in _PIECES.findall(unicodedata.normalize("NFKC", text).casefold()):
        if len(run) > 1:
            found |= dict.fromkeys(run[place : place + 2] for place in range(len(run) - 1))
        else:
            found[run or word or sign] = None
    return list(found)


def matched_words(query: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The words of a query that stand in texts, in its order.

    Pairs of neighbours that are found are one word again. Words that every English text has are
    left out.

    Args:
        query: What was looked for.
        texts: Where it was found.

    >>> matched_words("坐公交车 to the Rome", ["上了公交车", "to the ROME!"])
    ('公交车', 'rome')
    """
    there = {term for text in texts for term in terms_of(text)}
    found: dict[str, None] = {}
    for run, word, sign in _PIECES.findall(unicodedata.normalize("NFKC", query).casefold()):
        if len(run) < 2:
            found |= dict.fromkeys({run or word or sign} & there - FUNCTION_WORDS)
            continue
        start: int | None = None
        for place in range(len(run)):
            is_there = place + 1 < len(run) and run[place : place + 2] in there
            if is_there and start is None:
                start = place
            elif not is_there and start is not None:
                found[run[start : place + 1]] = None
                start = None
    return tuple(found)

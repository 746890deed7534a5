"""What is seen of words by `lines`: their stems, what a question asks for, what a line says."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache

import snowballstemmer

from ffr.retrieval.function_words import FUNCTION_WORDS
from ffr.retrieval.lexical import overlap_terms

ASKED = {
    "when": r"\bwhen\b|\bwhat (?:date|day|time|month|year)|什么时候|何时|哪天|几点",
    "number": r"\bhow (?:many|much|often|long|old)\b|多少|几[个次天年张]",
    "who": r"\bwho|谁",
    "where": r"\bwhere\b|哪里|哪儿|什么地方",
    "why": r"\bwhy\b|为什么|为何",
    "picture": r"\b(?:picture|photo|image|show)|图|照片",
    "which": r"\bwhich\b|\bwhat (?:kind|type|sort)|哪[种类个些]",
    "what": r"\bwhat\b|什么",
    "how": r"\bhow\b|怎么|怎样|如何",
}
"""What a question may ask for, by the words that say so in English and Chinese."""

SAID = {
    "time": r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|since|recently|morning|days?|week"
    r"(?:end)?s?|months?|years?|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|"
    r"april|may|june|july|august|september|october|november|december|(?:19|20)\d\d)\b|"
    r"[昨今明]天|[上下]周|[去今明]年|星期|周末|\d[月号日点]",
    "number": r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|twice|couple|several)\b|"
    r"[两三四五六七八九十][个次天年张]",
    "question": r"[?？]",
    "picture": r"\[picture",
}
"""What a line may say, likewise; `[picture` is how a picture stands that is not here."""

_WANTED = {
    "pictures": r"\b(?:images|pictures|photos)\b",
    "a picture": r"\b(?:image|picture|photo)\b",
    "all": r"\b(?:list|all|various|different|each|every|both|mentioned|kinds|types|items|things|"
    r"times|activities)\b|所有|全部|哪些|都",
    "plural": r"\b(?:what|which|whose)(?: \w+)? \w+[^s\W]s\b",
    "how many": r"\bhow many\b|多少|几",
    "early": r"\b(?:first|initial|originally|before|earlier|start)\b|最初|一开始|之前|第一",
    "late": r"\b(?:last|latest|final|finally|after|later|recent|recently|end|now|current)\b|"
    r"最后|最近|之后|现在",
    "contradiction": r"\b(?:conflict|contradict|contradiction|inconsisten)|矛盾|冲突",
    "yes or no": r"^(?:did|does|is|was|has|have|do|are|were|can)\b|吗|是否",
    "two things": r"\band\b|和|以及",
    "a guess": r"\b(?:might|would|could|likely|considered)\b|可能|也许",
}
_NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10,
}  # fmt: skip
_NUMBER = re.compile(
    rf"\b(?:{'|'.join(list(_NUMBERS)[:9])})\b|[两三四五六七八九十](?=[张个次])|\b1?\d\b"
)

_ASKED = {name: re.compile(pattern) for name, pattern in ASKED.items()}
_SAID = {name: re.compile(pattern) for name, pattern in SAID.items()}
_WANTS = [re.compile(pattern) for pattern in _WANTED.values()]


def asked(query: str) -> list[bool]:
    """Which of `ASKED` a question asks for.

    >>> [name for name, is_so in zip(ASKED, asked("When did Ann call?"), strict=True) if is_so]
    ['when']
    """
    lowered = query.lower()
    return [pattern.search(lowered) is not None for pattern in _ASKED.values()]


def wanted(query: str) -> list[float]:
    """What tells how many lines a question wants, and from where.

    Returns:
        The number below 20 that it names first, 0 for none; the count of its words; and 1 or 0 for
        whether it speaks of several pictures, of one, of all or of plural things, asks for a
        number, for what was early or late, for a contradiction, for yes or no, for two things, or
        for a guess.

    >>> wanted("Which six images show dresses?")[:5]
    [6.0, 5.0, 1.0, 0.0, 0.0]
    """
    lowered = query.lower()
    match = _NUMBER.search(lowered)
    number = (_NUMBERS.get(match[0]) or int(match[0])) if match else 0
    count = len(re.findall(r"\w+", lowered))
    return [float(number), float(count), *(float(bool(p.search(lowered))) for p in _WANTS)]


def said(line: str) -> list[bool]:
    """Which of `SAID` a line says.

    >>> [name for name, is_so in zip(SAID, said("Two days ago?"), strict=True) if is_so]
    ['time', 'number', 'question']
    """
    lowered = line.lower()
    return [pattern.search(lowered) is not None for pattern in _SAID.values()]


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    # a stemmer holds the word that it is at: each call has its own
    return str(snowballstemmer.stemmer("english").stemWord(word))


def stems(text: str) -> list[str]:
    """The stems of a text's words, English ones as Porter's second stemmer has them; of Chinese pairs.

    >>> stems("They were painting 公交车")
    ['they', 'were', 'paint', '公交', '交车']
    """
    return [_stem(word) for word in overlap_terms(text)]


def content_stems(text: str) -> list[str]:
    """Likewise, less the words that every text has.

    >>> content_stems("When did she paint?")
    ['paint']
    """
    return [_stem(word) for word in overlap_terms(text) if word not in FUNCTION_WORDS]


def pairs(terms: list[str]) -> list[str]:
    """Neighbouring terms, joined.

    >>> pairs(["support", "group", "met"])
    ['support group', 'group met']
    """
    return [f"{first} {second}" for first, second in itertools.pairwise(terms)]


def beginnings(terms: list[str]) -> list[str]:
    """The first four letters of terms that have as many, by which `psychology` meets `psychologist`.

    >>> beginnings(["psycholog", "art"])
    ['psyc']
    """
    return [term[:4] for term in terms if len(term) >= 4]

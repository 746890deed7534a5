"""The forms in which people are named in texts, and one pattern that finds them all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

# scripts that part no words: a name stands in the middle of others
_UNPARTED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u303f\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff"
)
NAME_BEGINS = rf"(?<![^\W{_UNPARTED}])"
_NAME_ENDS = rf"(?![^\W{_UNPARTED}])"
_IS_UNPARTED = re.compile(f"[{_UNPARTED}]")
_HAN = re.compile(r"[\u3400-\u9fff]+")
_HANGUL = re.compile(r"[\uac00-\ud7af]+")
_WORDS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# parts of names that name nobody
_TITLES_SAID = """
    the of and von van de da do del la el le der den bin ibn al dr mr mrs ms prof sir mum mom mama dad
    papa aunt uncle tía tío oma opa grandma grandpa granny work home office team family group school
    boss mobile new old my me you job shop taxi doctor bank club class
"""
_TITLES = frozenset(_TITLES_SAID.split())
# words that are names too: they count where they are written with a capital
_WORDS_TOO_SAID = """
    may will mark rose hope grace jack bill rob sue art pat dan don faith joy june april august summer
    dawn iris ivy lily daisy violet ruby pearl amber olive sky star sunny rich frank max guy dean earl
    king long young wood hill lake bush rock stone miles chance chase drew grant lance nick pierce ray
    reed wade ward penny ginger sandy misty crystal jade melody harmony gene jean norm sol mar luz paz
    an so no in on he she we it is be to do at or us
"""
_WORDS_TOO = frozenset(_WORDS_TOO_SAID.split())
_CHINESE_TITLES = (
    "总|總|哥|姐|老师|老師|先生|女士|小姐|经理|經理|医生|醫生|叔|阿姨|さん|くん|ちゃん|様"
)

MAX_FORM_CHARS = 80
"""A longer name is replaced as the sender, and not looked for in texts."""
Place = Literal["word", "capital", "inside", "called", "titled"]
"""Where a form counts: as a whole word, as one with a capital, anywhere, behind what friends say
(小明), before a title (王总)."""


class NameForm(NamedTuple):
    """A form of a name.

    Args:
        word: What is looked for, in small letters.
        place: Where it counts.
    """

    word: str
    place: Place


def name_forms(folded: str) -> Iterator[NameForm]:
    """All forms in which a name is looked for.

    Args:
        folded: The name in small letters, without marks.

    >>> [form.word for form in name_forms("zoë smith")], [form.word for form in name_forms("王小明")]
    (['zoë smith', 'zoë', 'zoe', 'smith'], ['王小明', '小明', '王', '明'])
    """
    words = _WORDS.findall(folded)
    if not words and not any(char.isalnum() for char in folded):
        return  # a name of signs alone would take them out of all texts
    if len(folded) > 1 and not (len(words) == 1 and words[0] == folded):
        yield NameForm(folded, "word")
    for word in words:
        if _IS_UNPARTED.search(word) is not None:
            yield from _unparted_forms(word)
        elif len(word) >= 2 and (word not in _TITLES or len(words) == 1):
            yield NameForm(word, "capital" if word in _WORDS_TOO else "word")
            plain = _plain(word)
            if plain != word and len(plain) >= 2:
                yield NameForm(plain, "word")


def _unparted_forms(word: str) -> Iterator[NameForm]:
    if len(word) > 1:
        yield NameForm(word, "inside")
    if _HAN.fullmatch(word) is not None and len(word) > 1:
        surname = word[: 2 if len(word) >= 4 else 1]
        given = word[len(surname) :]
        if len(given) >= 2:
            yield NameForm(given, "inside")
        yield NameForm(surname, "inside" if len(surname) == 2 else "titled")
        yield NameForm(word[-1], "called")
    elif _HANGUL.fullmatch(word) is not None and len(word) in (3, 4):
        yield NameForm(word[-2:], "inside")


def pattern_of(forms: Iterable[NameForm]) -> str:
    """One pattern for all forms; the longest that fits is found.

    >>> re.findall(pattern_of([NameForm("ann", "word"), NameForm("ann lee", "word")]), "ANN Lee, annie")
    ['ANN Lee']
    """
    words: dict[Place, list[str]] = {}
    for word, place in sorted(set(forms)):
        # a tree of longer ones is deeper than Python goes
        if len(word) <= MAX_FORM_CHARS:
            words.setdefault(place, []).append(word)
    capitals = words.get("capital", [])
    said: dict[str, list[str]] = {
        "inside": words.get("inside", []),
        "capital": [form for word in capitals for form in (word.capitalize(), word.upper())],
        "word": words.get("word", []),
    }
    patterns = []
    if said["inside"]:
        patterns.append(f"(?i:{_branches(said['inside'])})")
    if said["word"]:
        patterns.append(f"{NAME_BEGINS}(?i:{_branches(said['word'])}){_NAME_ENDS}")
    if said["capital"]:
        patterns.append(f"{NAME_BEGINS}{_branches(said['capital'])}{_NAME_ENDS}")
    if "called" in words:
        patterns.append(f"[小阿老][{''.join(words['called'])}]")
    if "titled" in words:
        patterns.append(f"[{''.join(words['titled'])}](?:{_CHINESE_TITLES})")
    return "|".join(patterns) or "(?!)"


def _branches(words: Iterable[str]) -> str:
    """A pattern for any of some words, whose time does not grow with their number.

    Words that begin alike share what they begin with.
    """
    tree: dict[str, dict] = {}  # type: ignore[type-arg]
    for word in words:
        at = tree
        for char in word:
            at = at.setdefault(char, {})
        at[""] = {}
    return _branch(tree)


def _branch(tree: dict[str, dict]) -> str:  # type: ignore[type-arg]
    """The pattern of a tree of characters; one without a branch goes on in the same loop."""
    said = ""
    while len(tree) == 1 and "" not in tree:
        ((char, tree),) = tree.items()
        said += r"\s+" if char == " " else re.escape(char)
    rest = [
        (r"\s+" if char == " " else re.escape(char)) + _branch(more)
        for char, more in tree.items()
        if char
    ]
    if rest:
        said += f"(?:{'|'.join(rest)})" + ("?" if "" in tree else "")
    return said


def untitled(folded: str) -> str:
    """A Chinese name without what it is addressed by: 王总 → 王."""
    return re.sub(rf"^[小阿老大](?=.$)|(?:{_CHINESE_TITLES})$", "", folded)


def _plain(text: str) -> str:
    """Without accents: Zoë → Zoe."""
    parts = unicodedata.normalize("NFD", text)
    return "".join(char for char in parts if not unicodedata.combining(char))

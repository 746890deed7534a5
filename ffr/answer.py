"""Fragment ⇄ answer text.

Writing, strict reading (rewards), lenient reading (evaluation), and the answer grammar.

The answer is `<|utt_ids_start|>[0, 3, 4]<|utt_ids_end|>;<|img_ids_start|>[1]<|img_ids_end|>`; empty
lists are `[]`. In the style `think` a thought goes first: `<think>…</think><answer>…</answer>`
around the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ffr.dialogue import Fragment
from ffr.text import described
from ffr.thoughts import (
    ANSWER_END,
    ANSWER_START,
    THINK_END,
    THINK_START,
    THOUGHT_TAGS,
    closed_thought,
    last_said,
    tags_of,
)
from ffr.written_ids import HAS_DIGIT, NO_IDS_FROM, read_numbers

AnswerStyle = Literal["bare", "think"]
"""`bare`: the answer alone. `think`: a thought, then the answer, each between its tags."""

UTT_IDS_START, UTT_IDS_END = "<|utt_ids_start|>", "<|utt_ids_end|>"
IMG_IDS_START, IMG_IDS_END = "<|img_ids_start|>", "<|img_ids_end|>"

_ID = r"(?:0|[1-9][0-9]{0,8})"
_LIST = rf"\[((?:{_ID}(?:, ?{_ID})*)?)\]"
ANSWER_PATTERN = re.compile(
    re.escape(UTT_IDS_START) + _LIST + re.escape(UTT_IDS_END) + ";"
    + re.escape(IMG_IDS_START) + _LIST + re.escape(IMG_IDS_END)
)  # fmt: skip
"""The whole answer; a strict reader uses `fullmatch`. A missing space after a comma is let through,
as in the released code."""

_MARKER = re.compile(
    "(" + "|".join(map(re.escape, (UTT_IDS_START, UTT_IDS_END, IMG_IDS_START, IMG_IDS_END))) + ")"
)
_CLOSED_BY = {UTT_IDS_START: UTT_IDS_END, IMG_IDS_START: IMG_IDS_END}


def format_answer(fragment: Fragment) -> str:
    """Writes a fragment as the answer text, in the order the fragment has.

    >>> format_answer(Fragment((0, 3, 4), (1,)))
    '<|utt_ids_start|>[0, 3, 4]<|utt_ids_end|>;<|img_ids_start|>[1]<|img_ids_end|>'
    """
    utterances = ", ".join(map(str, fragment.utterance_ids))
    images = ", ".join(map(str, fragment.image_ids))
    return f"{UTT_IDS_START}[{utterances}]{UTT_IDS_END};{IMG_IDS_START}[{images}]{IMG_IDS_END}"


def parse_strict(text: str) -> Fragment | None:
    """Reads an answer that follows the format to the byte; None for anything else.

    Ids stand in the order and number the text has: whether they repeat is for the caller to judge.

    >>> parse_strict("<|utt_ids_start|>[0, 3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>")
    Fragment(utterance_ids=(0, 3), image_ids=())
    >>> parse_strict("[0, 3]") is None
    True
    """
    match = ANSWER_PATTERN.fullmatch(text)
    if match is None:
        return None
    utterances, images = (
        tuple(int(item) for item in group.split(",") if item) for group in match.groups()
    )
    return Fragment(utterances, images)


def unwrap_answer(text: str, style: AnswerStyle, *, opened: str | None = "") -> str | None:
    """The answer inside a completion; None where the completion is not in the style.

    Args:
        text: The whole completion.
        style: `bare`: the completion is the answer. `think`: it is
            `<think>…</think><answer>ANSWER</answer>`, each tag once and in this order, with nothing
            but white space before, between and after the two parts. What stands between the
            answer's tags is handed out as it is, white space included.
        opened: The thought that the prompt has begun, from the tag that opens it
            (`ffr.thoughts.opened_thought`): the completion must then go on within that thought and
            close it, in the style `bare` too, where the answer follows the thought, with or without
            white space between. Empty where the prompt opens none; None where that is not known: a
            completion that closes a thought without opening one is then taken for one whose prompt
            did.

    Raises:
        ValueError: where `opened` begins with no tag of a thought.

    >>> unwrap_answer("<think>3 names the cat</think> <answer>[3]</answer>", "think")
    '[3]'
    >>> unwrap_answer("[3]", "think") is None, unwrap_answer("[3]", "bare")
    (True, '[3]')
    >>> unwrap_answer("3 names the cat</think>[3]", "bare", opened="<think>")
    '[3]'
    """
    if opened:
        return _unwrap_opened(text, style, tags_of(opened)[1])
    if opened is None:
        # one end may close thoughts of several kinds
        for end in dict.fromkeys(end for _, end in THOUGHT_TAGS if end in text):
            answer = _unwrap_opened(text, style, end)
            if answer is not None:
                return answer
    if style == "bare":
        return text
    pieces, tags = _split(text, THINK_START, THINK_END)
    if tags != [THINK_START, THINK_END, ANSWER_START, ANSWER_END]:
        return None
    return pieces[3] if not (pieces[0] + pieces[2] + pieces[4]).strip() else None


def _unwrap_opened(text: str, style: AnswerStyle, end: str) -> str | None:
    """The answer behind a thought that the prompt has opened and `end` closes."""
    starts = [start for start, other in THOUGHT_TAGS if other == end]
    pieces, tags = _split(text, *starts, end)
    if style == "bare":
        return pieces[1].lstrip() if tags == [end] else None
    if tags != [end, ANSWER_START, ANSWER_END]:
        return None
    return pieces[2] if not (pieces[1] + pieces[3]).strip() else None


def _split(text: str, *tags: str) -> tuple[list[str], list[str]]:
    """What stands between these tags and those of an answer, and the tags that were found."""
    pieces = re.split(f"({'|'.join(map(re.escape, (*tags, ANSWER_START, ANSWER_END)))})", text)
    return pieces[::2], pieces[1::2]


def wrap_answer(answer: str, style: AnswerStyle, thought: str = "", *, opened: str = "") -> str:
    r"""The completion that holds an answer: the inverse of `unwrap_answer`.

    Args:
        answer: The answer's text.
        style: As for `unwrap_answer`.
        thought: What stands between the tags of the thought.
        opened: The thought that the prompt has begun, as for `unwrap_answer`; the completion then
            closes it and opens none.

    Raises:
        ValueError: where a thought is given but the style has no place for it, a text holds one of
            the tags, or `opened` begins with no tag of a thought.

    >>> wrap_answer("[3]", "think", "3 names the cat")
    '<think>3 names the cat</think><answer>[3]</answer>'
    >>> wrap_answer("[3]", "bare", opened="<think>\n")
    '\n</think>\n\n[3]'
    """
    if style == "bare":
        if thought:
            raise ValueError("a bare answer has no place for a thought")
        return (closed_thought(opened) if opened else "") + answer
    start, end = tags_of(opened) if opened else (THINK_START, THINK_END)
    for text in (answer, thought):
        if found := _split(text, start, end)[1]:
            raise ValueError(
                f"the tag {found[0]} stands inside a thought or an answer; take it out"
            )
    return f"{'' if opened else start}{thought}{end}{ANSWER_START}{answer}{ANSWER_END}"


_ID_PROBLEMS = tuple(
    f"{name} ids {fault}" for name in ("utterance", "image") for fault in ("repeat", "out of range")
)


@dataclass(frozen=True, slots=True)
class LenientAnswer:
    """What could be read from an answer, and what was wrong with it, if anything."""

    fragment: Fragment
    problems: tuple[str, ...] = ()

    @property
    def is_well_formed(self) -> bool:
        return not self.problems

    def within(self, num_utterances: int | None, num_images: int | None) -> LenientAnswer:
        """The same without ids that a dialogue of this size does not have; they are a problem.

        Args:
            num_utterances: Number of utterances of the dialogue; None to leave ids unchecked.
            num_images: Likewise of images.

        >>> inside = LenientAnswer(Fragment((3, 99))).within(5, 0)
        >>> inside.fragment.utterance_ids, inside.problems
        ((3,), ('utterance ids out of range',))
        """
        kept: list[tuple[int, ...]] = []
        problems = set(self.problems)
        for name, ids, limit in (
            ("utterance", self.fragment.utterance_ids, num_utterances),
            ("image", self.fragment.image_ids, num_images),
        ):
            inside = ids if limit is None else tuple(item for item in ids if item < limit)
            if len(inside) < len(ids):
                problems.add(f"{name} ids out of range")
            kept.append(inside)
        of_form = tuple(problem for problem in self.problems if problem not in _ID_PROBLEMS)
        of_ids = tuple(problem for problem in _ID_PROBLEMS if problem in problems)
        return LenientAnswer(Fragment(*kept), of_form + of_ids)


def parse_lenient(
    text: str, *, num_utterances: int | None = None, num_images: int | None = None
) -> LenientAnswer:
    """Reads as much of an answer as can be read without guessing, and says what was wrong.

    Thoughts are no answer (`last_said`). Of several answers the last whole one counts, one with
    both lists between their markers; where none is whole, the last that has both kinds of lists,
    else the last list. The numbers between the markers count, however they are separated, each by
    its value: `00` and `0.0` are id 0. What is written with digits but is no id is a false positive
    and is named as a problem: a negative number, one that is not whole, a range (`3-7` is neither 3
    nor 7), digits of another script, `id5`. Such a thing becomes a number that no dialogue has as
    an id. Without markers nothing counts. Repeats, and ids that the dialogue does not have where
    its size is given, are dropped and named as problems.

    Args:
        text: The model's response.
        num_utterances: Number of utterances of the dialogue; None to leave ids unchecked.
        num_images: Number of images of the dialogue; None to leave ids unchecked.

    >>> said = "Sure: <|utt_ids_start|>[3, 3, 99<|img_ids_start|>[0]"
    >>> answer = parse_lenient(said, num_utterances=5)
    >>> answer.fragment
    Fragment(utterance_ids=(3,), image_ids=(0,))
    >>> answer.problems
    ('not in the answer format', 'utterance ids repeat', 'utterance ids out of range')
    """
    problems: list[str] = []
    strict = _read_whole(text)
    found: dict[str, list[int]] = {"utterance": [], "image": []}
    if strict is not None:
        found = {"utterance": list(strict.utterance_ids), "image": list(strict.image_ids)}
    else:
        problems.append("not in the answer format")
        lists = _last_answer(last_said(text))
        for name, marker in (("utterance", UTT_IDS_START), ("image", IMG_IDS_START)):
            if marker not in lists:
                problems.append(f"no {name} ids")
                continue
            found[name], has_others = read_numbers(lists[marker].body)
            if has_others:
                problems.append(f"{name} ids that are no ids")
    problems += [f"{name} ids repeat" for name, ids in found.items() if len(set(ids)) < len(ids)]
    fragment = Fragment.of(found["utterance"], found["image"])
    return LenientAnswer(fragment, tuple(problems)).within(num_utterances, num_images)


def _read_whole(text: str) -> Fragment | None:
    """The answer in a response that is nothing else but perhaps a thought before it."""
    said = text.lstrip()
    opened = next((start for start, _ in THOUGHT_TAGS if said.startswith(start)), None)
    said = text if opened is None else said.removeprefix(opened)
    styles: tuple[AnswerStyle, ...] = ("bare", "think")
    for style in styles:
        answer = unwrap_answer(said, style, opened=opened)
        fragment = None if answer is None else parse_strict(answer)
        if fragment is not None:
            return fragment
    return None


@dataclass(frozen=True, slots=True)
class _List:
    """What follows a starting marker, up to the next marker, and whether that is its end."""

    body: str
    is_closed: bool

    @property
    def is_whole(self) -> bool:
        """Whether it is a list between both markers, and no words that stand for one."""
        has_words = any(char.isalpha() for char in self.body)
        return self.is_closed and (not has_words or bool(HAS_DIGIT.search(self.body)))


def _last_answer(text: str) -> dict[str, _List]:
    """The lists of the last answer in a text, by their starting markers; the last whole one."""
    pieces = _MARKER.split(text)
    answers: list[dict[str, _List]] = []
    for place in range(1, len(pieces), 2):
        marker = pieces[place]
        if marker not in _CLOSED_BY:
            continue
        # an answer has one list of a kind, so a second begins another
        if not answers or marker in answers[-1]:
            answers.append({})
        is_closed = pieces[place + 2 : place + 3] == [_CLOSED_BY[marker]]
        answers[-1][marker] = _List(pieces[place + 1], is_closed)
    both = [item for item in answers if len(item) == 2]
    whole = [item for item in both if all(part.is_whole for part in item.values())]
    return (whole or both or answers or [{}])[-1]


def id_text(item: int) -> str:
    """An id of a read answer as it is shown: what was no id at all is a number of no meaning.

    >>> id_text(3), id_text(read_answer("<|utt_ids_start|>[1.5]").utterance_ids[0])
    ('3', 'no id')
    """
    return str(item) if item < NO_IDS_FROM else "no id"


class AnswerGrammar:
    """The well-formed answers for one dialogue: ids that exist, ascending, without repeats.

    `allows` tells whether some well-formed answer starts with a text, `is_complete` whether the
    text is a whole one; decoding keeps to it token by token.

    Args:
        num_utterances: Number of utterances of the dialogue.
        num_images: Number of images of the dialogue.

    >>> grammar = AnswerGrammar(num_utterances=12, num_images=0)
    >>> grammar.allows("<|utt_ids_start|>[1, 1")      # 10 and 11 can still follow
    True
    >>> grammar.allows("<|utt_ids_start|>[1, 0"), grammar.allows("<|utt_ids_start|>[12")
    (False, False)
    >>> grammar.is_complete(format_answer(Fragment((1,))))
    True
    """

    def __init__(self, num_utterances: int, num_images: int) -> None:
        self.num_utterances = num_utterances
        self.num_images = num_images
        self._parts = (
            (f"{UTT_IDS_START}[", num_utterances),
            (f"]{UTT_IDS_END};{IMG_IDS_START}[", num_images),
            (f"]{IMG_IDS_END}", None),
        )

    def allows(self, text: str) -> bool:
        """Whether `text` is the beginning of (or the whole of) a well-formed answer."""
        return self._read(text) is not None

    def is_complete(self, text: str) -> bool:
        """Whether `text` is a well-formed answer."""
        return self._read(text) is True

    def _read(self, text: str) -> bool | None:
        """True for a whole answer, False for the beginning of one, None for neither."""
        position = 0
        for literal, limit in self._parts:
            rest = text[position:]
            if not rest.startswith(literal):
                return False if literal.startswith(rest) else None
            position += len(literal)
            if limit is None:
                return True if position == len(text) else None
            end = text.find("]", position)
            if end < 0:
                return False if self._list_prefix(text[position:], limit) else None
            if not self._whole_list(text[position:end], limit):
                return None
            position = end
        return None

    @staticmethod
    def _whole_list(text: str, limit: int) -> bool:
        if not text:
            return True
        last = -1
        for item in text.split(", "):
            if not _is_id(item) or not last < int(item) < limit:
                return False
            last = int(item)
        return True

    @classmethod
    def _list_prefix(cls, text: str, limit: int) -> bool:
        if not text:
            return True
        head, separator, tail = text.rpartition(", ")
        if separator and (not head or not cls._whole_list(head, limit)):
            return False
        last = int(head.rpartition(", ")[2]) if separator else -1
        if not tail:
            return last + 1 < limit
        if tail.endswith(","):
            return _is_id(tail[:-1]) and last < int(tail[:-1]) < limit - 1
        if not _is_id(tail):
            return False
        # some number that starts with these digits lies in last+1 … limit-1
        low = high = int(tail)
        if low == 0:
            return last < 0 < limit
        while low < limit:
            if max(low, last + 1) <= min(high, limit - 1):
                return True
            low, high = low * 10, high * 10 + 9
        return False


def _is_id(text: str) -> bool:
    return (
        len(text) <= 9
        and text.isascii()
        and text.isdigit()
        and (text == "0" or not text.startswith("0"))
    )


def read_response(response: str) -> LenientAnswer:
    """Reads a response of either style for scoring: the ids that its answer names, each once.

    Ids that the dialogue does not have are kept, so that an invented id costs precision as any
    wrong one does, and what is no id at all as a number that no dialogue has; they are wrong, not
    malformed (`LenientAnswer.within` names them).

    >>> read = read_response(format_answer(Fragment((3, 99))).replace("3", "3, 3"))
    >>> read.fragment, read.is_well_formed
    (Fragment(utterance_ids=(3, 99), image_ids=()), False)
    """
    return parse_lenient(response)


def is_well_formed(response: str) -> bool:
    """Whether a response keeps to the format to the byte and repeats no id.

    A thought may go before the answer, in the style `think` or closed before a bare one.

    >>> is_well_formed("<|utt_ids_start|>[3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>")
    True
    """
    return read_response(response).is_well_formed


def read_answer(response: str) -> Fragment:
    """The fragment of `read_response` alone."""
    return read_response(response).fragment


def parse(text: str, *, strict: bool = False) -> Fragment:
    """The fragment that an answer names: `ffr.parse`.

    Args:
        text: What a model has written, of either style.
        strict: Take nothing but an answer that keeps to the format to the byte and repeats no id.
            Else all that can be read without guessing is read, as `ffr eval` does; a text that
            names nothing gives an empty fragment.

    Raises:
        ValueError: where it is no text; with `strict`, where it is not in the format.

    >>> parse("Here: <|utt_ids_start|>[0, 3]<|utt_ids_end|>")
    Fragment(utterance_ids=(0, 3), image_ids=())
    >>> parse("lines 0 and 3", strict=True)
    Traceback (most recent call last):
        ...
    ValueError: 'lines 0 and 3' is no well-formed answer: not in the answer format, ...
    """
    if not isinstance(text, str):
        raise ValueError(f"{described(text)} is no answer; give the text that a model has written")
    read = read_response(text)
    if strict and not read.is_well_formed:
        problems = ", ".join(read.problems)
        raise ValueError(f"{text[:80]!r} is no well-formed answer: {problems}")
    return read.fragment

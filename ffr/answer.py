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

_MAX_LENIENT_CHARS = 100_000
_SECTIONS = {
    "utterance": re.compile(
        re.escape(UTT_IDS_START) + r"(.*?)(?:" + re.escape(UTT_IDS_END) + "|" + re.escape(IMG_IDS_START) + r"|\Z)", re.S
    ),
    "image": re.compile(
        re.escape(IMG_IDS_START) + r"(.*?)(?:" + re.escape(IMG_IDS_END) + "|" + re.escape(UTT_IDS_START) + r"|\Z)", re.S
    ),
}
_LENIENT_ID = re.compile(r"(?<![\w.\-])[0-9]{1,9}(?![\w])(?!\.[0-9])", re.ASCII)


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
    utterances, images = (tuple(int(item) for item in group.split(",") if item) for group in match.groups())
    return Fragment(utterances, images)


_TAG = re.compile(r"(</?(?:think|answer)>)")
_TAG_ORDER = ["<think>", "</think>", "<answer>", "</answer>"]


def unwrap_answer(text: str, style: AnswerStyle) -> str | None:
    """The answer inside a completion; None where the completion is not in the style.

    Args:
        text: The whole completion.
        style: `bare`: the completion is the answer. `think`: it is
            `<think>…</think><answer>ANSWER</answer>`, each tag once and in this order, with nothing
            but white space before, between and after the two parts. What stands between the
            answer's tags is handed out as it is, white space included.

    >>> unwrap_answer("<think>3 names the cat</think> <answer>[3]</answer>", "think")
    '[3]'
    >>> unwrap_answer("[3]", "think") is None, unwrap_answer("[3]", "bare")
    (True, '[3]')
    """
    if style == "bare":
        return text
    pieces = _TAG.split(text)
    if pieces[1::2] != _TAG_ORDER:
        return None
    before, _, between, answer, after = pieces[::2]
    return None if (before + between + after).strip() else answer


def without_thought(text: str) -> str:
    """An answer of either style as a bare one.

    What stands in its answer tags where it is a thought and an answer, else all of it.

    >>> without_thought("<think>hm, [7]</think><answer>[3]</answer>"), without_thought("[3]")
    ('[3]', '[3]')
    """
    answer = unwrap_answer(text, "think")
    return text if answer is None else answer


def wrap_answer(answer: str, style: AnswerStyle, thought: str = "") -> str:
    """The completion that holds an answer: the inverse of `unwrap_answer`.

    Args:
        answer: The answer's text.
        style: As for `unwrap_answer`.
        thought: What stands between the tags of the thought.

    Raises:
        ValueError: where a thought is given but the style has no place for it, or a text holds one
            of the tags.

    >>> wrap_answer("[3]", "think", "3 names the cat")
    '<think>3 names the cat</think><answer>[3]</answer>'
    """
    if style == "bare":
        if thought:
            raise ValueError("a bare answer has no place for a thought")
        return answer
    for text in (answer, thought):
        if tag := _TAG.search(text):
            raise ValueError(f"the tag {tag[0]} stands inside a thought or an answer; take it out")
    return f"<think>{thought}</think><answer>{answer}</answer>"


_ID_PROBLEMS = tuple(f"{name} ids {fault}" for name in ("utterance", "image") for fault in ("repeat", "out of range"))


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

        >>> LenientAnswer(Fragment((3, 99))).within(5, 0)
        LenientAnswer(fragment=Fragment(utterance_ids=(3,), image_ids=()), problems=('utterance ids out of range',))
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


def parse_lenient(text: str, *, num_utterances: int | None = None, num_images: int | None = None) -> LenientAnswer:
    """Reads as much of an answer as can be read without guessing, and says what was wrong.

    The ids between the markers count, however they are separated; without markers nothing counts.
    Repeats, and ids that the dialogue does not have where its size is given, are dropped and named
    as problems.

    Args:
        text: The model's answer.
        num_utterances: Number of utterances of the dialogue; None to leave ids unchecked.
        num_images: Number of images of the dialogue; None to leave ids unchecked.

    >>> answer = parse_lenient("Sure: <|utt_ids_start|>[3, 3, 99<|img_ids_start|>[0]", num_utterances=5)
    >>> answer.fragment
    Fragment(utterance_ids=(3,), image_ids=(0,))
    >>> answer.problems
    ('not in the answer format', 'utterance ids repeat', 'utterance ids out of range')
    """
    problems: list[str] = []
    strict = parse_strict(text)
    found: dict[str, list[int]] = {"utterance": [], "image": []}
    if strict is not None:
        found = {"utterance": list(strict.utterance_ids), "image": list(strict.image_ids)}
    else:
        problems.append("not in the answer format")
        for name, section in _SECTIONS.items():
            match = section.search(text[:_MAX_LENIENT_CHARS])
            if match is None:
                problems.append(f"no {name} ids")
            else:
                found[name] = [int(item) for item in _LENIENT_ID.findall(match[1])]
    problems += [f"{name} ids repeat" for name, ids in found.items() if len(set(ids)) < len(ids)]
    fragment = Fragment.of(found["utterance"], found["image"])
    return LenientAnswer(fragment, tuple(problems)).within(num_utterances, num_images)


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
    >>> grammar.is_complete("<|utt_ids_start|>[1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>")
    True
    """

    def __init__(self, num_utterances: int, num_images: int) -> None:
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
    return len(text) <= 9 and text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))


def read_response(response: str) -> LenientAnswer:
    """Reads a response of either style for scoring: the ids between the markers, each once.

    Ids that the dialogue does not have are kept, so that an invented id costs precision as any
    wrong one does; they are wrong, not malformed (`LenientAnswer.within` names them).

    >>> read = read_response("<|utt_ids_start|>[3, 3, 99]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>")
    >>> read.fragment, read.is_well_formed
    (Fragment(utterance_ids=(3, 99), image_ids=()), False)
    """
    return parse_lenient(without_thought(response))


def is_well_formed(response: str) -> bool:
    """Whether a response keeps to the format to the byte and repeats no id.

    >>> is_well_formed("<|utt_ids_start|>[3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>")
    True
    """
    return read_response(response).is_well_formed


def read_answer(response: str) -> Fragment:
    """The fragment of `read_response` alone."""
    return read_response(response).fragment

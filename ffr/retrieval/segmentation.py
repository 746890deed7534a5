"""Who cuts a dialogue into segments: every so many lines, or a model; and what its answer says.

What a model is asked is, to the byte, what FFRS (arXiv 2606.04591) asks: its published script turns a
dialogue into this prompt (`1_convert_wechat2_split.py`, HanboBizl/FFRS.github.io).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ffr.dialogue import Example, FilePrompt, Utterance
from ffr.errors import UsageError
from ffr.prompt import IMAGE_MARK, UTT_ID_END, UTT_ID_START, check_markers
from ffr.retrieval.interface import Answer, Retriever, answers_of
from ffr.thoughts import last_said
from ffr.written_ids import read_numbers

SYSTEM = "你是一个多模态对话分段助手。"
_USER = (
    "请根据下列多模态长对话内容，按照主题语义将对话划分为多个子片段。\n\n"
    "每条发言以<|utt_id_start|>句子ID<|utt_id_end|>标注，可能为文本、图像。请将语义连贯的句子归为一组。\n\n"
    "输出格式严格为：[[id,id,...],[id,...],...]，仅输出句子ID，不含其他内容。\n\n"
    "对话内容如下：\n"
)
_USERS = {"user1": "User1", "user 1": "User1", "u1": "User1"} | {
    "user2": "User2",
    "user 2": "User2",
    "u2": "User2",
}
_MOST_CHARS = 1_000_000
_LIST = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Cut:
    """A dialogue cut into segments, and what was wrong with the lists that it was made of.

    Args:
        numbers: For each line, the number of its segment: lines of one number belong together,
            side by side or not, and numbers count from 0 in the order in which segments begin.
        num_missing: Lines that stood in no list: each went to the segment of the line before it.
        num_extra: Ids of lines that the dialogue does not have: left out.
        num_doubled: Further mentions of a line: the first one holds.
        failure: Why there was no answer to read; None where there was one, or none is needed.
    """

    numbers: tuple[int, ...]
    num_missing: int = 0
    num_extra: int = 0
    num_doubled: int = 0
    failure: str | None = None


class Segmenter(Protocol):
    """Anything that cuts dialogues into segments."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what it does, JSON-ready."""
        ...

    def cut(self, examples: Sequence[Example]) -> list[Cut]:
        """Cuts the dialogue of each example."""
        ...


def repaired(segments: Sequence[Sequence[int]], num_lines: int) -> Cut:
    """Lists of lines, as a model writes them → each line in exactly one segment.

    Args:
        segments: The ids of the lines of each segment.
        num_lines: n.

    Raises:
        ValueError: where n is negative.

    >>> repaired([[0, 1], [1, 3, 9]], 5)
    Cut(numbers=(0, 0, 0, 1, 1), num_missing=2, num_extra=1, num_doubled=1, failure=None)
    """
    if num_lines < 0:
        raise ValueError(f"a dialogue of {num_lines} lines")
    found: list[int | None] = [None] * num_lines
    num_extra = num_doubled = 0
    for label, lines in enumerate(segments):
        for line in lines:
            if not 0 <= line < num_lines:
                num_extra += 1
            elif found[line] is not None:
                num_doubled += 1
            else:
                found[line] = label
    num_missing = found.count(None)
    # what comes before all lists goes with the first line that stands in one
    last = next((number for number in found if number is not None), 0)
    whole = []
    for number in found:
        last = last if number is None else number
        whole.append(last)
    return Cut(in_order(whole), num_missing, num_extra, num_doubled)


def in_order(labels: Sequence[int]) -> tuple[int, ...]:
    """Labels of lines → numbers of segments, from 0 in the order in which they begin.

    >>> in_order([7, 7, 2, 7])
    (0, 0, 1, 0)
    """
    known: dict[int, int] = {}
    return tuple(known.setdefault(label, len(known)) for label in labels)


def segmentation_prompt(example: Example) -> FilePrompt:
    r"""What a model is asked to cut the dialogue of an example into segments, as published.

    A line is `<|utt_id_start|>0<|utt_id_end|> Speaker: text`; a picture is `<image>` alone, for only
    lines are named. Where pictures stand beside each other or beside words there is a blank between.

    Raises:
        DataError: where a text holds one of the task's markers.

    >>> from ffr.dialogue import Dialogue, Image, Utterance
    >>> lines = Utterance("user1", ("hi",)), Utterance("ann", (Image("a.png"), Image("b.png")))
    >>> print(*segmentation_prompt(Example(Dialogue("d", lines), "")).user.splitlines()[-2:], sep="\n")
    <|utt_id_start|>0<|utt_id_end|> User1: hi
    <|utt_id_start|>1<|utt_id_end|> Ann: <image> <image>
    """
    check_markers(example.dialogue)
    lines = [
        f"{UTT_ID_START}{number}{UTT_ID_END} {_speaker(line.speaker)}: {_said(line)}"
        for number, line in enumerate(example.dialogue.utterances)
    ]
    return FilePrompt(_USER + "\n".join(lines), SYSTEM)


def _speaker(name: str) -> str:
    name = name.strip()
    return _USERS.get(name.lower(), name[:1].upper() + name[1:])


def _said(line: Utterance) -> str:
    return " ".join(part if isinstance(part, str) else IMAGE_MARK for part in line.segments)


def read_segments(response: str) -> list[list[int]]:
    r"""The lists of ids that a response names, whatever stands around them.

    Thoughts are left aside. Where lists stand in a list, those count; a list that stands by itself
    is one segment. What is no id of a line keeps its place as a number that no line has.

    Args:
        response: What a model has written.

    >>> read_segments("<think>[[9]]</think>```json\n[[0, 1], [2, 3]]\n```")
    [[0, 1], [2, 3]]
    >>> read_segments("none")
    []
    """
    said = last_said(response[-_MOST_CHARS:])
    return [numbers for body in _LIST.findall(said) if (numbers := read_numbers(body)[0])]


class EverySegmenter:
    """Segments of so many lines each, whatever is said: a floor for every other method.

    Args:
        num_lines: Of a segment; None for one segment a dialogue.

    Raises:
        UsageError: where that is no number from 1.
    """

    def __init__(self, num_lines: int | None) -> None:
        if num_lines is not None and num_lines < 1:
            raise UsageError(f"segments of {num_lines} lines; give a number from 1")
        self._num_lines = num_lines

    @property
    def name(self) -> str:
        return "whole" if self._num_lines is None else f"every-{self._num_lines}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "every", "num_lines": self._num_lines}

    def cut(self, examples: Sequence[Example]) -> list[Cut]:
        """Cuts the dialogue of each example."""
        sizes = [len(example.dialogue.utterances) for example in examples]
        return [
            Cut(tuple(line // (self._num_lines or size) for line in range(size))) for size in sizes
        ]


class ModelSegmenter:
    """A model that reads prompts, asked for segments (`segmentation_prompt`).

    Whatever it answers, each line is in exactly one segment: see `repaired`. Where it gives no
    answer the dialogue is one segment.

    Args:
        retriever: A vision-language model here, or one behind a server.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    @property
    def name(self) -> str:
        return self._retriever.name

    @property
    def identity(self) -> dict[str, Any]:
        return {**self._retriever.identity, "asked_for": "segments"}

    def cut(self, examples: Sequence[Example]) -> list[Cut]:
        """Cuts the dialogue of each example.

        Raises:
            UsageError: where the model asks with words of its own, whatever it is asked.
        """
        asked = [
            replace(example, query="segments", prompt=segmentation_prompt(example))
            for example in examples
        ]
        for example in asked:
            if self._retriever.prompt(example) != example.prompt:
                raise UsageError(
                    f"{self.name} reads prompts of its own template alone; name a model that was "
                    "not trained by ffr, without --template and --query-position"
                )
        batches = self._retriever.plan(asked)
        found: dict[int, Answer] = {}
        for number, answers in answers_of(self._retriever, batches, asked):
            found |= dict(zip(batches[number], answers, strict=True))
        return [
            replace(
                repaired(read_segments(found[place].response), len(example.dialogue.utterances)),
                failure=found[place].failure,
            )
            for place, example in enumerate(asked)
        ]

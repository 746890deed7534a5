"""Who cuts dialogues: whatever a model answers, each line is in exactly one segment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Example, FilePrompt, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer
from ffr.retrieval.segmentation import (
    SYSTEM,
    EverySegmenter,
    ModelSegmenter,
    read_segments,
    repaired,
    segmentation_prompt,
)

_CHAT = Dialogue(
    "d",
    (*(Utterance("User1", (f"line {n}",)) for n in range(4)), Utterance("b", (Image("a.png"),))),
)


@given(st.lists(st.lists(st.integers(-3, 14))), st.integers(0, 12))
def test_each_line_is_in_exactly_one_segment(lists: list[list[int]], num_lines: int) -> None:
    cut = repaired(lists, num_lines)
    assert len(cut.numbers) == num_lines
    # numbers count from 0 in the order in which segments begin
    assert list(dict.fromkeys(cut.numbers)) == list(range(len(set(cut.numbers))))
    named = [line for lines in lists for line in lines]
    inside = [line for line in named if 0 <= line < num_lines]
    assert cut.num_extra == len(named) - len(inside)
    assert cut.num_doubled == len(inside) - len(set(inside))
    assert cut.num_missing == num_lines - len(set(inside))
    # lines whose first mention is in one list stay together
    first = {line: place for place, lines in reversed([*enumerate(lists)]) for line in lines}
    for one in set(inside):
        for two in set(inside):
            assert (first[one] == first[two]) == (cut.numbers[one] == cut.numbers[two])


def test_a_line_that_was_left_out_goes_with_the_one_before_it() -> None:
    assert repaired([[2], [4]], 6).numbers == (0, 0, 0, 0, 1, 1)
    assert repaired([], 3).numbers == (0, 0, 0)


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        ("[[0, 1], [2]]", [[0, 1], [2]]),
        ("[[0,1],[2]", [[0, 1], [2]]),
        ('{"segments": [[0], [1, 2]]}', [[0], [1, 2]]),
        ("<think>[[7, 8]]</think>[[0, 1]]", [[0, 1]]),
        ("[[[[0, 1]]], [[2]]]", [[0, 1], [2]]),
        ("[0, 1, 2]", [[0, 1, 2]]),
        ("[]", []),
        ("[[]]", []),
        ("I cannot do that", []),
        ("[[\"0\", '1'], [２]]", [[0, 1]]),
        ("[" * 100_000 + "1" + "]" * 100_000, [[1]]),
    ],
)
def test_hostile_answers_are_read(response: str, wanted: list[list[int]]) -> None:
    found = read_segments(response)
    assert [[line for line in lines if line < 100] for lines in found][: len(wanted)] == wanted


@pytest.mark.parametrize("body", ["1-3", "2.5", "-1", "9" * 5000, "NaN", "²"])
def test_what_is_no_id_is_counted_as_one_that_no_line_has(body: str) -> None:
    cut = repaired(read_segments(f"[[0, {body}], [1, 2]]"), 3)
    assert cut.num_extra == 1
    assert cut.numbers == (0, 1, 1)


@given(st.text(alphabet="[]0123456789, \n<think>/²١-", max_size=60))
def test_no_answer_is_too_odd(response: str) -> None:
    assert len(repaired(read_segments(response), 5).numbers) == 5


def test_the_prompt_is_the_published_one_to_the_byte() -> None:
    picture = Image("a.png")
    chat = Dialogue(
        "d",
        (
            Utterance("USER 2", ("first\nsecond",)),
            Utterance(" u1 ", ("look", picture)),
            Utterance("ann lee", (picture, picture)),
            Utterance("李", ()),
        ),
    )
    prompt = segmentation_prompt(Example(chat, "x"))
    assert prompt.system == SYSTEM == "你是一个多模态对话分段助手。"
    lines = (
        "<|utt_id_start|>0<|utt_id_end|> User2: first\nsecond\n"
        "<|utt_id_start|>1<|utt_id_end|> User1: look <image>\n"
        "<|utt_id_start|>2<|utt_id_end|> Ann lee: <image> <image>\n"
        "<|utt_id_start|>3<|utt_id_end|> 李: "
    )
    # the digest of what stands before the dialogue in the published script
    instruction = prompt.user.removesuffix(lines)
    assert instruction != prompt.user
    assert hashlib.sha256(instruction.encode()).hexdigest() == (
        "5f9f0fc62a7bc774602e0514ba5de8ebf0a3f1d2e0a17c77bb5a59d15ee26245"
    )
    marked = Dialogue("d", (Utterance("a", ("<image>",)),))
    with pytest.raises(DataError, match="contains the marker <image>"):
        segmentation_prompt(Example(marked, "x"))


class _Written:
    """A retriever that writes what it is told, and keeps what it was asked."""

    name = "written"
    identity: dict[str, Any] = {"kind": "written"}  # noqa: RUF012

    def __init__(self, *responses: str, template: str | None = None) -> None:
        self.responses = responses
        self.template = template
        self.asked: list[FilePrompt] = []

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[index] for index in reversed(range(len(examples)))]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example, template=self.template)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        self.asked += [self.prompt(example) for example in examples]
        response = self.responses[int(examples[0].dialogue.id)]
        if response == "fail":
            raise DataError("too long")
        return [Answer(response)]


def test_a_model_is_asked_once_a_dialogue_and_repaired() -> None:
    examples = [Example(replace(_CHAT, id=str(number)), "any") for number in range(3)]
    model = _Written("[[0, 1], [2, 3, 4]]", "[[0, 9], [0, 4]]", "fail")
    segmenter = ModelSegmenter(model)
    whole, torn, failed = segmenter.cut(examples)
    assert whole.numbers == (0, 0, 1, 1, 1)
    assert (whole.num_missing, whole.num_extra, whole.num_doubled, whole.failure) == (0, 0, 0, None)
    assert torn.numbers == (0, 0, 0, 0, 1)
    assert (torn.num_missing, torn.num_extra, torn.num_doubled) == (3, 1, 1)
    assert failed.numbers == (0,) * 5
    assert failed.failure == "too long"
    assert model.asked[-1] == segmentation_prompt(examples[0])
    assert segmenter.identity == {"kind": "written", "asked_for": "segments"}


def test_a_model_that_asks_in_its_own_words_is_refused() -> None:
    with pytest.raises(UsageError, match="written reads prompts of its own template alone"):
        ModelSegmenter(_Written("[[0]]", template="en")).cut([Example(_CHAT, "any")])


def test_floors() -> None:
    example = Example(_CHAT, "any")
    assert EverySegmenter(None).cut([example])[0].numbers == (0,) * 5
    assert EverySegmenter(2).cut([example])[0].numbers == (0, 0, 1, 1, 2)
    with pytest.raises(UsageError, match="segments of 0 lines"):
        EverySegmenter(0)

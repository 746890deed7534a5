"""Answers: round trips, readers against anything, the grammar against all well-formed answers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ffr.answer import (
    AnswerGrammar,
    format_answer,
    parse_lenient,
    parse_strict,
    read_answer,
    unwrap_answer,
    wrap_answer,
)
from ffr.dialogue import Fragment
from ffr.thoughts import THOUGHT_TAGS
from ffr.written_ids import MAX_ID

_IDS = st.lists(st.integers(0, 999_999_999), max_size=20).map(tuple)
_PIECES = st.lists(
    st.sampled_from(
        [
            "<|utt_ids_start|>",
            "<|utt_ids_end|>",
            ";",
            "<|img_ids_start|>",
            "<|img_ids_end|>",
            "[",
            "]",
            ", ",
            ",",
            "0",
            "1",
            "12",
            "-3",
            "1.5",
            " ",
            "\n",
            "x",
            "٣",
            "²",
            "<|",
            "9" * 50,
            "1e3",
            "0x1",
            "id5",
            "００",
        ]
    ),
    max_size=14,
).map("".join)


def _answer(utterances: str, images: str) -> str:
    return f"<|utt_ids_start|>{utterances}<|utt_ids_end|>;<|img_ids_start|>{images}<|img_ids_end|>"


@given(_IDS, _IDS)
def test_every_fragment_comes_back(
    utterance_ids: tuple[int, ...], image_ids: tuple[int, ...]
) -> None:
    fragment = Fragment(utterance_ids, image_ids)
    text = format_answer(fragment)
    assert parse_strict(text) == fragment
    lenient = parse_lenient(text)
    assert lenient.fragment == Fragment.of(utterance_ids, image_ids)
    repeats = len(set(utterance_ids)) < len(utterance_ids) or len(set(image_ids)) < len(image_ids)
    assert lenient.is_well_formed is not repeats


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[0]",
        _answer("[0]", "[1]") + " ",
        _answer("[0]", "[1]") + "\n",
        " " + _answer("[0]", "[1]"),
        _answer("[00]", "[]"),
        _answer("[-1]", "[]"),
        _answer("[1.0]", "[]"),
        _answer("[1,]", "[]"),
        _answer("[ 1]", "[]"),
        _answer("[1,  2]", "[]"),
        _answer("[٣]", "[]"),
        _answer("[1234567890]", "[]"),
        _answer("", "[]"),
        _answer("[1]", "[]") * 2,
    ],
)
def test_strict_reading_refuses(text: str) -> None:
    assert parse_strict(text) is None


def test_strict_reading_lets_a_missing_space_through() -> None:
    assert parse_strict(_answer("[1,2]", "[]")) == Fragment((1, 2), ())


@pytest.mark.parametrize(
    ("text", "utterance_ids", "image_ids"),
    [
        ("I think " + _answer("[2, 1]", "[0]") + ".", (1, 2), (0,)),
        (_answer("2; 3 and 5", "none"), (2, 3, 5), ()),
        ("<|utt_ids_start|>[1, 2", (1, 2), ()),
        ("<|img_ids_start|>[4]<|img_ids_end|>", (), (4,)),
        ("utterances 1 and 2", (), ()),
        (_answer("[0 1]", "[句子0]"), (0, 1), (0,)),
        (_answer("[00, +1, 2.0, 1e1, 5.]", '["1"]'), (0, 1, 2, 5, 10), (1,)),
    ],
)
def test_lenient_reading(
    text: str, utterance_ids: tuple[int, ...], image_ids: tuple[int, ...]
) -> None:
    answer = parse_lenient(text)
    assert answer.fragment == Fragment(utterance_ids, image_ids)
    assert not answer.is_well_formed


@pytest.mark.parametrize(
    ("body", "ids", "num_others"),
    [
        ("[3, 10000000000]", {3}, 1),
        ("[3, -1, 1.5]", {3}, 2),
        ("[3, 7" + "7" * 500 + "]", {3}, 1),
        ("[3, 1e99, NaN, -Infinity]", {3}, 3),
        ("[3-7]", set(), 1),
        ("[3 – 7]", set(), 1),
        ("[3..7]", set(), 1),
        ("[3 to 7]", set(), 1),
        ("[3至7]", set(), 1),
        ("[0, １2]", {0}, 1),
        ("[0, 5²]", {0}, 1),
        ("[0, id5]", {0}, 1),
        ("[3, -1, -1]", {3}, 1),
    ],
)
def test_what_is_no_id_is_a_false_positive_and_named(
    body: str, ids: set[int], num_others: int
) -> None:
    answer = parse_lenient(_answer(body, "[]"), num_utterances=10)
    assert set(answer.fragment.utterance_ids) == ids
    assert "utterance ids that are no ids" in answer.problems
    named = read_answer(_answer(body, body))
    for found in (named.utterance_ids, named.image_ids):
        assert len(set(found) - ids) == num_others
        assert all(item > MAX_ID for item in set(found) - ids)


@pytest.mark.parametrize(
    ("text", "utterance_ids", "image_ids"),
    [
        (_answer("[0]", "[1]") + " or rather " + _answer("[2]", "[]"), (2,), ()),
        # the last whole one: neither half of what is cut off, nor the words that stand for lists
        (_answer("[0]", "[1]") + "\n<|utt_ids_start|>[2]<|utt_ids_end|>;<|img_ids_st", (0,), (1,)),
        (_answer("[句子ID列表]", "[图片ID列表]") + _answer("[2]", "[0]"), (2,), (0,)),
        (_answer("[2]", "[0]") + " in the form " + _answer("[ids]", "[ids]"), (2,), (0,)),
        ("<|img_ids_start|>[4]<|img_ids_end|><|utt_ids_start|>[1]<|utt_ids_end|>", (1,), (4,)),
        ("<|utt_ids_start|>[1]<|utt_ids_end|> no: <|utt_ids_start|>[2]<|utt_ids_end|>", (2,), ()),
        (" " * 200_000 + _answer("[2]", "[0]"), (2,), (0,)),
    ],
)
def test_of_several_answers_the_last_whole_one_counts(
    text: str, utterance_ids: tuple[int, ...], image_ids: tuple[int, ...]
) -> None:
    assert parse_lenient(text).fragment == Fragment(utterance_ids, image_ids)


_SAID, _QUOTED = _answer("[2]", "[0]"), _answer("[7]", "[7]")


@pytest.mark.parametrize(
    ("text", "is_well_formed"),
    [
        (f"<think>{_QUOTED}</think><answer>{_SAID}</answer>", True),
        (f"{_QUOTED}</think>\n<answer>{_SAID}</answer>\n", True),
        (f"<think>\n\n</think>\n\n{_SAID}", True),
        (f"{_QUOTED}</think>{_SAID}", True),
        (f"<think>{_QUOTED}<think>{_QUOTED}</think>{_QUOTED}</think>{_SAID}", False),
        (f"{_QUOTED}</think>{_QUOTED}</think>{_SAID}", False),
        (f"<think>{_QUOTED}<answer>{_SAID}</answer>", False),
        (f"<think>{_QUOTED}</think><answer>{_SAID}", False),
        (f"<think>{_QUOTED}</think>{_SAID}</answer>", False),
        (f"<answer>{_QUOTED}</answer><answer>{_SAID}</answer>", False),
        (f"{_SAID}<think>{_QUOTED}", False),
        (f"so: <think>{_QUOTED}</think> it is {_SAID}.", False),
    ],
)
def test_thoughts_are_never_read(text: str, is_well_formed: bool) -> None:
    answer = parse_lenient(text)
    assert answer.fragment == Fragment((2,), (0,))
    assert answer.is_well_formed is is_well_formed


@pytest.mark.parametrize(
    "text", [f"<think>{_QUOTED}", f"<think>{_QUOTED}</think>", f"{_QUOTED}</think>", "</think>"]
)
def test_a_thought_alone_is_an_empty_answer(text: str) -> None:
    assert parse_lenient(text).fragment == Fragment()
    assert not parse_lenient(text).is_well_formed


@settings(max_examples=400)
@given(
    st.one_of(st.text(max_size=200), _PIECES),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 20),
)
@example("<|utt_ids_start|>[" + "9" * 5000, 5, 5)
def test_readers_take_anything(
    text: str, num_utterances: int | None, num_images: int | None
) -> None:
    strict = parse_strict(text)
    answer = parse_lenient(text, num_utterances=num_utterances, num_images=num_images)
    for ids, limit in (
        (answer.fragment.utterance_ids, num_utterances),
        (answer.fragment.image_ids, num_images),
    ):
        assert list(ids) == sorted(set(ids))
        assert limit is None or all(index < limit for index in ids)
    if answer.is_well_formed:
        assert strict == answer.fragment
    grammar = AnswerGrammar(num_utterances or 0, num_images or 0)
    if grammar.is_complete(text):
        assert strict is not None
    grammar.allows(text)


def test_long_hostile_answers_are_read_quickly() -> None:
    for text in (
        "<|utt_ids_start|>" * 50_000,
        "[" * 10**6,
        "<|utt_ids_start|>[" + "1, " * 400_000,
        "<|utt_ids_start|>" + "1" * 10**6,
        "<|utt_ids_start|>" + "1 " * 5 + " " * 10**6 + "-" * 10**6,
        "<think>" * 100_000 + "<answer>" * 100_000,
    ):
        parse_strict(text)
        parse_lenient(text, num_utterances=10)
        AnswerGrammar(10, 3).allows(text)


def _all_answers(num_utterances: int, num_images: int) -> list[str]:
    def subsets(count: int) -> list[tuple[int, ...]]:
        return [
            ids for size in range(count + 1) for ids in itertools.combinations(range(count), size)
        ]

    return [
        format_answer(Fragment(a, b)) for a in subsets(num_utterances) for b in subsets(num_images)
    ]


@pytest.mark.parametrize(
    ("num_utterances", "num_images"), [(0, 0), (1, 0), (0, 1), (3, 2), (2, 3), (11, 0), (12, 1)]
)
def test_grammar_is_the_list_of_all_answers(num_utterances: int, num_images: int) -> None:
    grammar = AnswerGrammar(num_utterances, num_images)
    answers = _all_answers(num_utterances, num_images)
    whole = set(answers)
    prefixes = {answer[:length] for answer in answers for length in range(len(answer) + 1)}
    for answer in answers[:: max(1, len(answers) // 500)]:
        assert grammar.is_complete(answer)
    for prefix in sorted(prefixes)[:: max(1, len(prefixes) // 4000)]:
        assert grammar.allows(prefix), prefix
        for char in "0123456789,][; <|ux":
            longer = prefix + char
            assert grammar.allows(longer) == (longer in prefixes), longer
            assert grammar.is_complete(longer) == (longer in whole)


_TAGS = ["<answer>", "</answer>", *itertools.chain.from_iterable(THOUGHT_TAGS)]


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_wrapped_answer_comes_back(answer: str, thought: str) -> None:
    if any(tag in answer + thought for tag in _TAGS):
        return
    assert unwrap_answer(wrap_answer(answer, "think", thought), "think") == answer
    assert unwrap_answer(wrap_answer(answer, "bare"), "bare") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think></think><answer>[1]</answer>", "[1]"),
        (" \n<think>a\nb < c</think>\n\n<answer>[1]</answer>\t\n", "[1]"),
        ("<think>a</think><answer> [1]\n</answer>", " [1]\n"),
        ("<think>a</think><answer></answer>", ""),
    ],
)
def test_an_answer_after_a_thought(text: str, answer: str) -> None:
    assert unwrap_answer(text, "think") == answer
    assert unwrap_answer(text, "bare") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "<answer>[1]</answer>",
        "<think>a</think>[1]",
        "<think>a</think><answer>[1]",
        "<think>a<answer>[1]</answer></think>",
        "<answer>[1]</answer><think>a</think>",
        "so <think>a</think><answer>[1]</answer>",
        "<think>a</think> is <answer>[1]</answer>",
        "<think>a</think><answer>[1]</answer>.",
        "<think>a<think>b</think><answer>[1]</answer>",
        "<think>a</think><think>b</think><answer>[1]</answer>",
        "<think>a <answer>[0]</answer></think><answer>[1]</answer>",
        "<think>a</think><answer>[1]</answer><answer>[1]</answer>",
        "<THINK>a</THINK><answer>[1]</answer>",
    ],
)
def test_what_is_no_thought_and_answer(text: str) -> None:
    assert unwrap_answer(text, "think") is None


@given(st.text(max_size=30), st.sampled_from(["", "3 names it"]))
def test_an_answer_behind_a_thought_that_the_prompt_opened(answer: str, thought: str) -> None:
    if any(tag in answer for tag in _TAGS):
        return
    text = wrap_answer(answer, "think", thought, opened="<think>")
    assert unwrap_answer(text, "think", opened="<think>") == answer
    assert unwrap_answer(text, "think", opened=None) == answer
    assert unwrap_answer(text, "think") is None
    assert unwrap_answer("<think>" + text, "think", opened="<think>") is None
    bare = wrap_answer(answer, "bare", opened="<think>")
    assert unwrap_answer(thought + bare, "bare", opened="<think>") == answer.lstrip()
    assert unwrap_answer(answer, "bare", opened="<think>") is None
    assert unwrap_answer(answer, "bare", opened=None) == answer


def test_what_cannot_be_wrapped() -> None:
    with pytest.raises(ValueError, match="no place for a thought"):
        wrap_answer("[1]", "bare", "a")
    for answer, thought in (("[1]</answer>", ""), ("[1]", "a<think>")):
        with pytest.raises(ValueError, match="stands inside"):
            wrap_answer(answer, "think", thought)


def test_long_hostile_thoughts_are_read_quickly() -> None:
    for text in (
        "<think>" * 200_000,
        " " * 10**6,
        "<think>" + "<" * 10**6 + "</think>",
        "<answer></think>" * 100_000,
    ):
        assert unwrap_answer(text, "think") is None


OTHER_THOUGHTS = {
    "thinking": "<thinking>{}</thinking>{}",
    "reasoning": "<reasoning>{}</reasoning>\n\n{}",
    "thought": "<thought>{}</thought>{}",
    "seed": "<seed:think>{}</seed:think>{}",
    "brackets": "[THINK]{}[/THINK]{}",
    "begin of thought": "<|begin_of_thought|>{}<|end_of_thought|>{}",
    "channels": "<|channel|>analysis<|message|>{}<|end|><|start|>assistant"
    "<|channel|>final<|message|>{}<|return|>",
}


@pytest.mark.parametrize("name", OTHER_THOUGHTS)
def test_thoughts_of_other_families_are_not_read(name: str) -> None:
    considered, meant = (format_answer(Fragment((number,))) for number in (7, 3))
    said = OTHER_THOUGHTS[name].format(considered, meant)
    assert read_answer(said) == Fragment((3,))
    unclosed = said[: said.index(considered) + len(considered)]
    assert read_answer(unclosed) == Fragment()
    without_opening = said[said.index(considered) :]
    assert read_answer(without_opening) == Fragment((3,))

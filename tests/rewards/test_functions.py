"""Rewards: worked numbers, properties, hostile answers, a user's own functions, and TRL's trainer."""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ffr.answer import format_answer, wrap_answer
from ffr.dialogue import Fragment
from ffr.embedding import CachedEncoder
from ffr.errors import DataError, UsageError
from ffr.images import LoadedPicture
from ffr.metrics.functional import fragment_order_coherence
from ffr.rewards.functions import (
    FragmentF1Reward,
    FragmentOrderReward,
    RewardFunction,
    format_reward,
    fragment_f1_reward,
    fragment_mcc_reward,
)
from ffr.rewards.reading import warn_of_cut_markers
from ffr.rewards.terms import (
    load_reward,
    reward_terms,
)
from ffr.settings import GrpoConfig

NO_MODEL: Any = None
"""In place of the policy, where no reward looks at it."""
DOCS = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"


def answer(utterance_ids: Sequence[int] = (), image_ids: Sequence[int] = ()) -> str:
    return format_answer(Fragment(tuple(utterance_ids), tuple(image_ids)))


def f1(text: str, truth: str, reward: FragmentF1Reward = fragment_f1_reward) -> float:
    return reward([""], [text], solution=[truth])[0]


def mcc(text: str, truth: str, num_utterances: int, num_images: int) -> float:
    return fragment_mcc_reward(
        [""],
        [text],
        solution=[truth],
        utterances=[["x"] * num_utterances],
        images=[["x"] * num_images],
    )[0]


VECTORS = {
    "left": [1.0, 0.0],
    "both": [0.6, 0.8],
    "down": [0.0, -1.0],
    "p.png": [0.0, 1.0],
    "q.png": [1.0, 0.0],
}


class Known:
    """Vectors written down by name."""

    name = "known"
    fingerprint = "known"

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([VECTORS[text] for text in texts])

    def embed_images(self, images: Sequence[str | Path]) -> torch.Tensor:
        return torch.tensor([VECTORS[Path(image).name] for image in images])


def order(
    text: str, truth: str, *, reward: FragmentOrderReward | None = None, **columns: Any
) -> float:
    """The order reward in a dialogue left+p.png+q.png, both, down, left."""
    dialogue = {
        "utterances": [["left", "both", "down", "left"]],
        "images": [["p.png", "q.png"]],
        "image_utterance_ids": [[0, 0]],
    }
    return (reward or FragmentOrderReward(Known()))(
        [""], [text], solution=[truth], **dialogue | columns
    )[0]


# -- rules ------------------------------------------------------------------------------------------------------------------


def test_the_worked_numbers_of_the_docs() -> None:
    truth, text = answer([1, 2, 4], [0]), answer([1, 2, 3, 5], [0])
    assert format_reward([""], [text]) == [1.0]
    assert f1(text, truth) == pytest.approx(0.5 * (4 / 7 * 0.95 + 1))
    assert mcc(text, truth, 8, 3) == pytest.approx(0.5 * (4 / 240**0.5 + 1))
    by_hand = {
        "utterances": [["left", "down", "both"]],
        "images": [["p.png"]],
        "image_utterance_ids": [[0]],
    }
    coherence = order(answer([0, 2], [0]), answer([0]), **by_hand)
    assert coherence == pytest.approx(0.4)
    overlong = overlong_penalty(1024, 256)(
        prompts=[""], completions=[text], completion_ids=[[7] * 896]
    )
    assert overlong == [-0.5]
    table = DOCS.read_text(encoding="utf-8")
    for cell in (
        "| 0 or 1 | 1 |",
        f"| {f1(text, truth):.6f} |",
        f"| {mcc(text, truth, 8, 3):.6f} |",
        f"| {coherence:.1f} |",
        f"| −{-overlong[0]} |",
    ):
        assert cell in table


MALFORMED = [
    "",
    "[1]",
    answer([1]) + "\n",
    " " + answer([1]),
    answer([1]).replace("]<|utt", ",]<|utt", 1),
    answer([1]) * 2,
    wrap_answer(answer([1]), "think", "hm"),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_not_in_the_format_earns_nothing(text: str) -> None:
    for truth in (answer([1]), answer()):
        assert format_reward([""], [text]) == [0.0]
        assert f1(text, truth) == mcc(text, truth, 4, 2) == order(text, truth) == 0.0


def test_both_styles_earn_the_same() -> None:
    truth = answer([0, 1], [0])
    texts = [answer([0, 1], [0]), answer([1], [0, 1])]
    thought = [wrap_answer(text, "think", "so\nbe it") for text in texts]
    columns = {
        "solution": [truth] * 2,
        "utterances": [["left", "both", "down", "left"]] * 2,
        "images": [["p.png", "q.png"]] * 2,
        "image_utterance_ids": [[0, 0]] * 2,
    }
    functions: list[Callable[..., list[float]]] = [
        format_reward,
        fragment_f1_reward,
        fragment_mcc_reward,
        FragmentOrderReward(Known()),
    ]
    for reward in functions:
        bare = reward([""] * 2, texts, answer_style=["bare", "bare"], **columns)
        assert reward([""] * 2, thought, answer_style=["think", "think"], **columns) == bare
        assert reward([""] * 2, texts, **columns) == bare
        # each in the other's style is malformed
        assert reward(
            [""] * 2, [texts[0], thought[1]], answer_style=["think", "bare"], **columns
        ) == [0.0, 0.0]


def test_a_thought_that_the_prompt_opened() -> None:
    text = answer([0, 1], [0])
    within, whole = (
        f"hm\n</think>\n<answer>{text}</answer>",
        f"<think>hm</think><answer>{text}</answer>",
    )
    opening = "question<think>\n"

    def earned(prompt: Any, completion: str, style: str) -> float:
        return format_reward([prompt], [completion], answer_style=[style])[0]

    assert earned(opening, within, "think") == earned("", within, "think") == 1.0
    assert earned(opening, whole, "think") == 0.0  # opened twice
    assert earned("question", whole, "think") == earned("", whole, "think") == 1.0
    assert (
        earned(opening, f"hm\n</think>\n\n{text}", "bare")
        == earned("", f"hm</think>{text}", "bare")
        == 1.0
    )
    assert earned(opening, text, "bare") == 0.0  # said within the thought
    assert earned("question", f"<think>hm</think>{text}", "bare") == 0.0
    conversation = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "<think>"},
    ]
    assert earned(conversation, whole, "think") == 0.0
    assert earned(conversation, within, "think") == earned(conversation[:1], within, "think") == 1.0
    assert f1(within, text) == 0.0
    assert fragment_f1_reward([opening], [within], solution=[text], answer_style=["think"]) == [1.0]


def test_markers_that_trl_has_cut_are_warned_of_once() -> None:
    warn_of_cut_markers.cache_clear()
    cut = ["[0, 1];[]", "[2];[0]", "no [0] at all"]
    with pytest.warns(
        UserWarning, match="TRL decodes with skip_special_tokens and cuts them"
    ) as caught:
        assert format_reward([""] * 3, cut) == [0.0] * 3
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        format_reward([""] * 3, cut)  # once is enough
        warn_of_cut_markers.cache_clear()
        format_reward([""] * 2, [answer([1]), "[1]"])
    with pytest.warns(UserWarning, match="cuts them"):
        format_reward([""], ["<think>x</think><answer>[];[]</answer>"], answer_style=["think"])


def test_repeated_ids() -> None:
    repeated, clean = answer([1, 1, 2], [0]), answer([1, 2], [0])
    assert format_reward([""], [repeated, clean, answer([], [3, 3])]) == [0.0, 1.0, 0.0]
    assert f1(repeated, clean) == pytest.approx(0.5 * (0.8 * 0.95 + 1))
    # a repeat that hits the true length still has a miss to pay
    assert f1(answer([1, 1], [0]), clean) == pytest.approx(0.5 * (0.5 + 1))
    assert mcc(repeated, clean, 5, 2) == 1.0
    assert order(answer([0, 1, 1, 0]), clean) == order(answer([0, 1]), clean)


@pytest.mark.parametrize(
    ("text", "truth", "expected"),
    [
        (answer(), answer(), 1.0),
        (answer([3]), answer(), 0.5),
        (answer(), answer([3]), 0.5),
        (answer(), answer([3], [1]), 0.0),
        (answer([3], [1]), answer([3], [1]), 1.0),
        (answer([3, 4], [1]), answer([5], [2]), 0.0),
        (answer([99]), answer([3]), 0.5),
        (answer(range(10)), answer([3]), 0.5 * (2 / 11 * 0.95**9 + 1)),
    ],
)
def test_f1_by_hand(text: str, truth: str, expected: float) -> None:
    assert f1(text, truth) == pytest.approx(expected)


def test_f_beta_and_discount_by_hand() -> None:
    text, truth = answer([1, 2, 3, 5], [0]), answer([1, 2, 4], [0])
    # TP 2, FP 2, FN 1: (1+4)·2 / (5·2 + 4·1 + 2)
    assert f1(text, truth, FragmentF1Reward(beta=2, length_discount=0.5)) == pytest.approx(
        0.5 * (10 / 16 * 0.5 + 1)
    )
    for wrong in (
        {"beta": 0},
        {"beta": float("nan")},
        {"length_discount": 0},
        {"length_discount": 1.1},
    ):
        with pytest.raises(ValueError, match="it must be over 0"):
            FragmentF1Reward(**wrong)


_IDS = st.lists(st.integers(0, 7), max_size=6)


@given(_IDS, _IDS, _IDS, _IDS)
def test_f1_is_best_for_the_truth_alone(
    a: list[int], b: list[int], c: list[int], d: list[int]
) -> None:
    truth = Fragment.of(c, d)
    earned = f1(answer(a, b), format_answer(truth))
    assert 0 <= earned <= 1
    is_truth = sorted(a) == list(truth.utterance_ids) and sorted(b) == list(truth.image_ids)
    assert (earned == 1) is is_truth
    # repeating an id of the answer never pays
    for item in a:
        assert f1(answer([*a, item], b), format_answer(truth)) <= earned


@given(
    st.integers(1, 60),
    st.integers(0, 60),
    st.integers(1, 80),
    st.floats(0.1, 4.0),
    st.floats(0.5, 1.0),
)
def test_repeats_never_pay_however_short_the_answer(
    num_right: int, num_missed: int, num_repeats: int, beta: float, discount: float
) -> None:
    truth = format_answer(Fragment(tuple(range(num_right + num_missed))))
    reward = FragmentF1Reward(beta, discount)
    earned = [
        f1(answer([*range(num_right), *[0] * count]), truth, reward)
        for count in range(num_repeats + 1)
    ]
    assert earned == sorted(earned, reverse=True)


def test_repeats_by_hand() -> None:
    # as released: precision over the written length
    assert f1(answer([1, 1]), answer([1, 2])) == pytest.approx(0.5 * 0.5 + 0.5)
    assert f1(answer([1, 1, 2]), answer([1, 2])) == pytest.approx(0.5 * (0.8 * 0.95) + 0.5)
    # 20 of 40: the discount alone would give the repeats 0.5 · 40/80, more than 0.5 · 40/60 · 0.95^20
    right, truth = [*range(20)], answer(range(40))
    assert f1(answer(right), truth) == pytest.approx(0.5 * (40 / 60 * 0.95**20) + 0.5)
    assert f1(answer([*right, *[0] * 20]), truth) <= f1(answer(right), truth)


@given(_IDS, _IDS)
def test_mcc_is_that_of_the_ids_as_labels(predicted: list[int], true: list[int]) -> None:
    x = np.array([index in predicted for index in range(8)], dtype=float)
    y = np.array([index in true for index in range(8)], dtype=float)
    if (x == y).all():
        expected = 1.0
    elif x.std() == 0 or y.std() == 0:
        expected = 0.0
    else:
        expected = float(np.corrcoef(x, y)[0, 1])
    assert mcc(answer(predicted), answer(set(true)), 8, 0) == pytest.approx(0.5 * expected + 0.5)


def test_mcc_at_the_edges() -> None:
    assert mcc(answer([], [0]), answer([], [0]), 3, 1) == 1.0  # the only image
    assert mcc(answer([0, 1, 2]), answer([0, 1, 2]), 3, 0) == 1.0
    assert mcc(answer([0]), answer(), 3, 0) == 0.5
    assert mcc(answer([0]), answer([1]), 2, 0) == 0.0  # -1 and 1
    assert mcc(answer([9]), answer([1]), 2, 0) < 0.5  # an id that is not there is no true negative


@pytest.mark.parametrize(
    ("text", "truth", "expected"),
    [
        (answer(), answer(), 1.0),
        (answer(), answer([1]), 0.0),
        (answer([1]), answer(), 0.0),
        (answer([1]), answer([0]), 0.5),
        (answer([], [1]), answer([0]), 0.5),
        (answer([], [0, 1]), answer([0]), 0.5),  # both hang on one utterance: one element
        (answer([1, 0]), answer([0]), 0.6),  # text alone
        (answer([0, 1, 2]), answer([0]), (0.6 - 0.8) / 2),
        (answer([0, 1], [0]), answer([0]), (0.0 + 0.8) / 2),
        (answer([0], [0, 1]), answer([0]), 0.5**0.5),  # the mean of the two images
        (answer([0, 1, 50], [7]), answer([0]), 0.6),
        (answer([50], [7]), answer([0]), 0.0),
        (answer([50], [7]), answer(), 0.0),  # naming what is not there is not naming nothing
        (answer([1], [9]), answer([0]), 0.5),
    ],
)
def test_order_by_hand(text: str, truth: str, expected: float) -> None:
    assert order(text, truth) == pytest.approx(expected, abs=1e-6)


class Spread:
    """A vector of its own for every text and picture."""

    name = fingerprint = "spread"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += map(str, texts)
        rows = [
            torch.randn(6, generator=torch.Generator().manual_seed(sum(map(ord, str(text)))))
            for text in texts
        ]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    embed_images = embed_texts


def _batch(
    chance: random.Random, num_prompts: int, group_size: int
) -> tuple[list[str], dict[str, list[Any]]]:
    texts: list[str] = []
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("solution", "utterances", "images", "image_utterance_ids", "answer_style")
    }
    for prompt in range(num_prompts):
        lines = [f"{prompt} says {line}" for line in range(chance.randint(0, 30))]
        pictures = [
            f"{prompt}/{number}.png" for number in range(chance.randint(0, 5) if lines else 0)
        ]
        hangs_on = sorted(chance.choices(range(len(lines)), k=len(pictures)))
        truth = answer(chance.sample(range(8), 2) if chance.random() < 0.8 else [])
        for _ in range(group_size):
            texts.append(
                answer(
                    chance.sample(range(35), chance.randint(0, 6)),
                    chance.sample(range(7), chance.randint(0, 3)),
                )
            )
            row = (truth, list(lines), list(pictures), list(hangs_on), "bare")
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return texts, columns


def test_order_is_the_metric_whatever_is_in_the_batch() -> None:
    from ffr.answer import parse_strict

    encoder = Spread()
    texts, columns = _batch(random.Random(0), 40, 4)
    found = FragmentOrderReward(encoder)(texts, texts, **columns)
    num_compared = 0
    for row, text in enumerate(texts):
        truth, lines, pictures, hangs_on, _ = (column[row] for column in columns.values())
        predicted, true = parse_strict(text), parse_strict(truth)
        assert predicted is not None
        assert true is not None
        utterance_ids = [item for item in predicted.utterance_ids if item < len(lines)]
        image_ids = [item for item in predicted.image_ids if item < len(pictures)]
        if true.is_empty and not predicted.is_empty and not utterance_ids and not image_ids:
            expected = 0.0
        else:
            expected = float(
                fragment_order_coherence(
                    utterance_ids,
                    encoder.embed_texts([lines[item] for item in utterance_ids] or [""])[
                        : len(utterance_ids)
                    ],
                    [hangs_on[item] for item in image_ids],
                    encoder.embed_images([pictures[item] for item in image_ids] or [""])[
                        : len(image_ids)
                    ],
                    is_target_empty=true.is_empty,
                )
            )
            num_compared += 1
        assert found[row] == pytest.approx(expected, abs=1e-6)
    assert num_compared > 100
    assert len({round(value, 6) for value in found}) > 50


def test_the_same_content_hung_elsewhere_counts_for_itself() -> None:
    columns = {
        "solution": [answer([0])] * 2,
        "utterances": [["left", "both"]] * 2,
        "images": [["p.png"]] * 2,
        "image_utterance_ids": [[0], [1]],
    }
    texts = [answer([0, 1], [0])] * 2
    # left, p.png, both: (0 + 0.8) / 2; left, both, p.png: (0.6 + 0.8) / 2
    assert FragmentOrderReward(Known())(texts, texts, **columns) == pytest.approx([0.4, 0.7])


def test_a_dialogue_is_encoded_once(tmp_path: Path) -> None:
    encoder = Spread()
    reward = FragmentOrderReward(encoder, max_dialogues=3)
    texts, columns = _batch(random.Random(1), 3, 4)
    first = reward(texts, texts, **columns)
    asked = list(encoder.asked)
    assert len(asked) == len(set(asked))
    assert reward(texts, texts, **columns) == first
    assert encoder.asked == asked
    # a fourth dialogue takes the place of the one that was not asked for longest
    one = {
        "solution": [answer([0])], "utterances": [["new", "newer"]], "images": [[]], "image_utterance_ids": [[]],
    }  # fmt: skip
    reward([""], [answer([0, 1])], **one)
    assert len(reward._kept) == 3
    # another dialogue id, or no other than the content: the same vectors
    reward([""], [answer([0])], dialogue_id=["other"], **one)
    assert encoder.asked == [*asked, "new", "newer"]


def test_vectors_come_from_the_cache_folder(tmp_path: Path) -> None:
    columns = {
        "solution": [answer([0])],
        "utterances": [["new", "newer"]],
        "images": [[]],
        "image_utterance_ids": [[]],
    }
    values = []
    for expected in (["new", "newer"], ["a"]):  # the second run asks for the width alone
        encoder = Spread()
        reward = FragmentOrderReward(CachedEncoder(encoder, tmp_path, max_bytes=2**20))
        values.append(reward([""], [answer([0, 1])], **columns))
        assert encoder.asked == expected
    assert values[0] == values[1]


def test_rewards_of_a_large_step_are_cheap() -> None:
    texts, columns = _batch(random.Random(2), 64, 8)
    reward = FragmentOrderReward(Spread())
    reward(texts, texts, **columns)
    for function in (reward, fragment_f1_reward, fragment_mcc_reward, format_reward):
        seconds = []
        for _ in range(5):
            start = time.process_time()  # what else runs on the machine does not count
            function(texts, texts, **columns)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 0.25  # 2 to 20 ms on a quiet machine


def overlong_penalty(max_new_tokens: int, overlong_tokens: int) -> RewardFunction:
    """The reward that the setting makes, which is TRL's."""
    config = GrpoConfig(
        max_new_tokens=max_new_tokens,
        overlong_tokens=overlong_tokens,
        order_weight=0.0,
        format_weight=0.0,
    )
    terms = {term.name: term for term in reward_terms(config, NO_MODEL)}
    assert terms["overlong"].weight == 1
    return terms["overlong"].function


def test_overlong_by_hand() -> None:
    penalty = overlong_penalty(10, 4)
    ids = [[0] * length for length in (0, 6, 7, 9, 10, 12)]
    found = penalty(prompts=[""] * 6, completions=[""] * 6, completion_ids=ids)
    assert found == [0.0, 0.0, -0.25, -0.75, -1.0, -1.0]
    with pytest.raises(
        UsageError, match="overlong_tokens: 11 is more than the 10 tokens of the longest answer"
    ):
        overlong_penalty(10, 11)


def test_a_true_answer_out_of_format_is_said() -> None:
    with pytest.raises(DataError, match="the true answer 'nonsense' is not in the answer format"):
        f1(answer(), "nonsense")


@pytest.mark.parametrize("reward", [format_reward, fragment_f1_reward])
def test_columns_of_another_length_are_refused(reward: Callable[..., list[float]]) -> None:
    with pytest.raises(ValueError, match=r"answer_style has 2 entries for 1 completions; give one"):
        reward([""], [answer()], solution=[answer()], answer_style=["bare"] * 2)


ORDER_COLUMNS = {"utterances": [["left", "both"]], "images": [[]], "image_utterance_ids": [[]]}


@pytest.mark.parametrize(
    "reward",
    [format_reward, fragment_f1_reward, fragment_mcc_reward, FragmentOrderReward(Known())],
)
def test_the_most_natural_wrong_things_are_refused(reward: Callable[..., list[float]]) -> None:
    def asked(completions: Any, **changes: Any) -> list[float]:
        return reward([""], completions, **{"solution": [answer([0])], **ORDER_COLUMNS, **changes})

    right = asked([answer([0])])
    # a single text or conversation is one completion, a single text one solution
    assert asked(answer([0])) == right
    assert asked([{"role": "assistant", "content": answer([0])}]) == right
    assert asked([answer([0])], solution=answer([0])) == right
    assert asked([answer([0])], answer_style="bare") == right
    # ids in any natural form are true answers too
    for truth in (Fragment((0,)), ([0], []), (torch.tensor([0]), torch.tensor([]))):
        assert asked([answer([0])], solution=[truth]) == right
    wrong_completions: list[tuple[Any, str]] = [
        (None, "completions: None; give a list with one entry a completion"),
        (3, "completions: 3"),
        ([3], "3 is no completion; give a text, or a conversation"),
        ([None], "None is no completion"),
        ([[]], r"\[\] is no completion"),
        ([[{"role": "assistant"}]], "is no completion"),
        ({"content": "x"}, "completions: {'content'"),
    ]
    for completions, sentence in wrong_completions:
        with pytest.raises(ValueError, match=sentence):
            asked(completions)
    with pytest.raises(ValueError, match="answer_style 'loud' is unknown; choose one of bare"):
        asked([answer([0])], answer_style=["loud"])
    if reward is format_reward:
        return
    wrong_solutions: list[tuple[Any, str]] = [
        (None, "solution: None; give a list"),
        ([answer()] * 2, "solution has 2 entries for 1 completions"),
        ([None], "solution 0 is None"),
        ([0], "solution 0 is 0"),
        ([([0.5], [])], "utterance ids hold 0.5"),
        ([([True], [])], "as a mask does"),
    ]
    for solution, sentence in wrong_solutions:
        with pytest.raises(ValueError, match=sentence):
            asked([answer([0])], solution=solution)
    if reward is fragment_f1_reward:
        return
    for name in ("utterances", "images"):
        for column, sentence in (
            (["ab"], f"{name}: entry 0 is 'ab'; give the list of a whole dialogue each"),
            ("ab", f"{name}: 'ab'; give a list with one entry a completion"),
            ([2], f"{name}: entry 0 is 2"),
            ([[], []], f"{name} has 2 entries for 1 completions"),
        ):
            with pytest.raises(ValueError, match=sentence):
                asked([answer([0])], **{name: column})


def test_pictures_in_memory_have_vectors_too() -> None:
    red = PIL.Image.new("RGB", (4, 3), "red")
    seen: list[Any] = []

    class Seeing(Known):
        def embed_images(self, images: Any) -> torch.Tensor:
            seen.extend(images)
            return torch.tensor([[0.0, 1.0]] * len(images))

    reward = FragmentOrderReward(Seeing())
    found = reward(
        [""],
        [answer([0], [0])],
        solution=[answer([0], [0])],
        utterances=[["left"]],
        images=[[red]],
        image_utterance_ids=[[0]],
    )
    assert found == [0.0]
    assert seen == [LoadedPicture(red)]


# -- TRL's way --------------------------------------------------------------------------------------------------------------


def test_rewards_are_called_as_trl_calls_them() -> None:
    text, truth = answer([0, 1], [0]), answer([0, 1], [0])
    columns: dict[str, Any] = {
        "solution": [truth] * 2,
        "utterances": [["left", "both"]] * 2,
        "images": [["p.png"]] * 2,
        "image_utterance_ids": [[0]] * 2,
        "trainer_state": object(),
        "log_extra": print,
        "log_metric": print,
    }
    conversation = [{"role": "assistant", "content": text}]
    in_parts = [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}],
        }
    ]
    for reward, expected in (
        (format_reward, 1.0),
        (fragment_f1_reward, 1.0),
        (fragment_mcc_reward, 1.0),
        (FragmentOrderReward(Known()), 0.4),
        (overlong_penalty(8, 6), -1 / 6),
    ):
        for completions in ([text, text], [conversation, in_parts]):
            values = reward(
                prompts=["p"] * 2,
                completions=completions,
                completion_ids=[[1, 2, 3]] * 2,
                **columns,
            )
            assert values == pytest.approx([expected] * 2)
            assert isinstance(values, list)
    # as docs/rewards.md hands on a column of another name
    order_reward = FragmentOrderReward(Known())
    image_files = columns.pop("images")
    assert order_reward(["p"] * 2, [text, text], images=image_files, **columns) == pytest.approx(
        [0.4] * 2
    )
    names = [item.__name__ for item in (format_reward, fragment_f1_reward, fragment_mcc_reward)]
    names += [FragmentOrderReward(Known()).__name__]
    assert names == [
        "format_reward",
        "fragment_f1_reward",
        "fragment_mcc_reward",
        "fragment_order_reward",
    ]


@pytest.mark.slow
def test_trl_trains_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    (tmp_path / "my_rewards.py").write_text(
        "def last_ids(prompts, completions, *, completion_ids, solution, **columns):\n"
        "    assert len(prompts) == len(completions) == len(solution)\n"
        "    return [ids[-1] / 10 for ids in completion_ids]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    mine = load_reward("my_rewards:last_ids")

    words = [
        "<pad>",
        "<eos>",
        answer([0]),
        answer([1], [0]),
        answer(),
        *(f"t{number}" for number in range(5)),
    ]
    tokens = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>")
    )
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<pad>",
        padding_side="left",
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, eos_token_id=1, pad_token_id=0, bos_token_id=None,
        )
    )  # fmt: skip
    seen: dict[str, list[list[float]]] = {"format": [], "f1": []}

    def watched(name: str, reward: Callable[..., list[float]]) -> Callable[..., list[float]]:
        def call(**arguments: Any) -> list[float]:
            values = reward(**arguments)
            seen[name].append(values)
            return values

        call.__name__ = name
        return call

    before = [weight.detach().clone() for weight in model.parameters()]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[
            format_reward, fragment_f1_reward, mine, watched("format", format_reward), watched("f1", fragment_f1_reward),
        ],
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"), per_device_train_batch_size=8, num_generations=8, max_completion_length=1,
            max_steps=1, learning_rate=1e-2, reward_weights=[0.3, 1.0, 1.0, 0.0, 0.0], report_to=[], save_strategy="no",
            logging_steps=1, bf16=False, use_cpu=True, gradient_checkpointing=False, disable_tqdm=True, seed=0,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["t1 t2 t3"] * 4, "solution": [answer([0])] * 4}),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {
        "rewards/format_reward/mean",
        "rewards/fragment_f1_reward/mean",
        "rewards/last_ids/mean",
    } <= set(logged)
    assert logged["rewards/last_ids/std"] > 0
    assert [len(values) for values in seen["f1"]] == [8]
    assert logged["rewards/fragment_f1_reward/mean"] == pytest.approx(sum(seen["f1"][0]) / 8)
    assert logged["rewards/format_reward/mean"] == pytest.approx(sum(seen["format"][0]) / 8)
    assert 0 < logged["rewards/format_reward/mean"] < 1  # some of the eight are answers
    assert any(
        not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
    )

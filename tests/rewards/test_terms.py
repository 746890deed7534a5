"""The terms of the reward: what the settings ask for, a user's own functions, and their sum."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ffr.answer import format_answer
from ffr.data.catalog import load_dataset
from ffr.dialogue import Fragment
from ffr.embedding import CachedEncoder
from ffr.embedding.policy import PolicyEncoder
from ffr.errors import FfrError, UsageError
from ffr.rewards.functions import FragmentOrderReward, format_reward, fragment_f1_reward
from ffr.rewards.terms import (
    RewardError,
    RewardTerm,
    compute_rewards,
    load_reward,
    reward_terms,
    total_rewards,
)
from ffr.settings import GrpoConfig
from ffr.training.common.setup import load_base, make_prompt_builder
from ffr.training.grpo.rollout import columns_of

NO_MODEL: Any = None
"""In place of the policy, where no reward looks at it."""


def answer(utterance_ids: Sequence[int] = (), image_ids: Sequence[int] = ()) -> str:
    return format_answer(Fragment(tuple(utterance_ids), tuple(image_ids)))


# -- what the settings ask for ---------------------------------------------------------------------


def test_weights_choose_the_terms() -> None:
    """A term with a weight of 0 is left out; beta and discount reach the F1 reward."""
    off = {"f1_weight": 0.0, "format_weight": 0.0, "order_weight": 0.0}
    found = reward_terms(
        GrpoConfig(**{**off, "mcc_weight": 0.5, "f1_weight": 2.0, "f1_beta": 2.0}), NO_MODEL
    )
    assert [(term.name, term.weight) for term in found] == [("f1", 2.0), ("mcc", 0.5)]
    # one of two true ids is named: recall 1/2 and precision 1 give F2 = 5/9, one id too few x 0.95;
    # the pictures' lists are both empty
    text, truth = answer([1]), answer([1, 2])
    assert found[0].function(prompts=[""], completions=[text], solution=[truth]) == pytest.approx(
        [0.5 * (5 / 9 * 0.95 + 1)]
    )
    with pytest.raises(UsageError, match="no reward has a weight"):
        reward_terms(GrpoConfig(**off), NO_MODEL)


@pytest.mark.parametrize("name", ["f1", "std", "brevity"])
def test_rewards_of_one_name_share_no_column(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (f"mine_a_{name}", f"mine_b_{name}"):
        code = f"def {name}(completions, **_):\n    return [0.0 for _ in completions]\n"
        (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = f"mine_a_{name}:{name}=1"
    if name == "brevity":
        rewards += f", mine_b_{name}:{name}=1"
    sentence = f"the column reward_{name} of metrics.csv is taken; give the function {name} another"
    with pytest.raises(UsageError, match=sentence):
        reward_terms(GrpoConfig(order_weight=0.0, rewards=rewards), NO_MODEL)


def test_vectors_are_kept_in_the_folder_that_is_named(sample_home: Path, tmp_path: Path) -> None:
    """A second run finds them, and embeds nothing; the pixels' bound is part of what they are."""
    settings = {
        "encoder": "tiny-clip", "encoder_cache_dir": str(tmp_path), "encoder_cache_mb": 3, "max_image_pixels": 1000,
        "f1_weight": 0.0, "format_weight": 0.0, "accelerator": "cpu",
    }  # fmt: skip
    config = GrpoConfig(**settings)
    vlm = load_base(config, "tiny")
    data = load_dataset("sample", split="val")
    index = next(
        number
        for number, example in enumerate(data)
        if example.fragment and example.fragment.image_ids
    )
    columns = {
        name: [value]
        for name, value in columns_of(make_prompt_builder(config, vlm).opened_prompt, data)(
            index
        ).items()
    }

    def reward() -> tuple[FragmentOrderReward, CachedEncoder]:
        (term,) = reward_terms(config, PolicyEncoder(vlm))
        assert isinstance(term.function, FragmentOrderReward)
        assert isinstance(term.function.encoder, CachedEncoder)
        return term.function, term.function.encoder

    def value_of(function: FragmentOrderReward) -> float:
        return function(
            completions=columns["solution"], **{**columns, "prompts": columns["prompt"]}
        )[0]

    first, encoder = reward()
    assert encoder.max_bytes == 3 * 2**20
    value = value_of(first)
    assert (
        len(list((tmp_path / "1000-pixels").rglob("*"))) > len(data[index].dialogue.utterances) / 2
    )
    second, encoder = reward()

    embed_texts = encoder._encoder.embed_texts

    def embed_no_more(items: Sequence[Any]) -> torch.Tensor:
        assert list(items) == ["a"], "besides a text that tells the width of the space"
        return embed_texts(items)

    encoder._encoder.embed_texts = encoder._encoder.embed_images = embed_no_more
    assert value_of(second) == value


# -- a user's own -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_function_of_the_current_folder(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_folder / "own_reward_a.py").write_text(
        "limit = 3\n"
        "class Both:\n"
        "    def __call__(self, **columns): return [1.0]\n"
        "both = Both()\n"
        "def late(completions, **columns):\n"
        "    from own_reward_b import value\n"
        "    return [value] * len(completions)\n"
        "async def later(completions, **columns):\n"
        "    return [0.0]\n"
    )
    (in_folder / "own_reward_b.py").write_text("value = 2.5\n")
    late = load_reward("own_reward_a:late")
    monkeypatch.chdir("/")
    assert late(completions=["x", "y"]) == [2.5, 2.5]
    assert load_reward("own_reward_a:both")() == [1.0]
    for name, message in (
        ("own_reward_a:none", "module own_reward_a has no none"),
        ("own_reward_a:limit", "limit is of type int"),
        ("own_reward_a:Both", "Both is a class"),
    ):
        with pytest.raises(UsageError, match=message):
            load_reward(name)
    with pytest.raises(RewardError, match="reward later is asynchronous"):
        compute_rewards(
            [RewardTerm("later", load_reward("own_reward_a:later"))], ["p"], ["c"], {}, ["a"]
        )


@pytest.mark.parametrize("name", ["", "plain", "module:", ":function", ":"])
def test_names_without_a_module_or_a_function(name: str) -> None:
    with pytest.raises(UsageError, match="is not of the form module:function"):
        load_reward(name)


@pytest.mark.parametrize(
    ("content", "reason", "kind"),
    [
        (None, "ModuleNotFoundError: No module named", ModuleNotFoundError),
        (
            "import no_such_module_at_all",
            "No module named 'no_such_module_at_all'",
            ModuleNotFoundError,
        ),
        ("def f(:", "SyntaxError", SyntaxError),
        ("1 / 0", "ZeroDivisionError: division by zero", ZeroDivisionError),
        ("raise SystemExit(0)", "SystemExit", SystemExit),
    ],
)
def test_modules_that_cannot_be_imported(
    content: str | None, reason: str, kind: type[BaseException], in_folder: Path
) -> None:
    if content is not None:
        (in_folder / "own_reward_broken.py").write_text(content)
    with pytest.raises(UsageError, match="own_reward_broken cannot be imported") as caught:
        load_reward("own_reward_broken:f")
    assert reason in str(caught.value)
    assert isinstance(caught.value.__cause__, kind)
    assert "\n" not in str(caught.value)


# -- sums -------------------------------------------------------------------------------------------------------------------


def _compute(function: Callable[..., Any], num: int = 3) -> torch.Tensor:
    texts = [f"c{row}" for row in range(num)]
    ids = [f"d{row}" for row in range(num)]
    return compute_rewards(
        [RewardTerm("mine", function)], texts, texts, {"number": list(range(num))}, ids
    )


def test_values_of_all_terms() -> None:
    texts = [answer([0]), answer([1]), "no"]
    terms = [
        RewardTerm("f1", fragment_f1_reward, 1.0),
        RewardTerm("format", format_reward, 0.3),
        RewardTerm("tensor", lambda completions, **columns: torch.arange(3), 2.0),
        RewardTerm(
            "mixed", lambda completions, **columns: [True, np.float32(0.5), torch.tensor(-1)], -1.0
        ),
        RewardTerm("array", lambda completions, **columns: np.array([1, 2, 3]), 0.0),
    ]
    values = compute_rewards(terms, texts, texts, {"solution": [answer([0])] * 3}, ["a", "b", "c"])
    assert values.dtype == torch.float32
    expected = [[1.0, 1.0, 0.0, 1.0, 1.0], [0.5, 1.0, 1.0, 0.5, 2.0], [0.0, 0.0, 2.0, -1.0, 3.0]]
    torch.testing.assert_close(values, torch.tensor(expected))
    torch.testing.assert_close(total_rewards(values, terms), torch.tensor([0.3, 2.3, 5.0]))
    assert compute_rewards([], texts, texts, {}, ["a", "b", "c"]).shape == (3, 0)
    assert total_rewards(torch.zeros(3, 0), []).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        None,
        "1",
        1e300,
        10**400,
        1j,
        [1.0],
        torch.tensor(float("nan")),
    ],
)
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(
        RewardError, match=r"reward mine gave .* for sample d1; return a finite number"
    ):
        _compute(lambda **columns: [0.0, value, 0.0])


@pytest.mark.parametrize(
    "given",
    [None, 1.0, "abc", {"a": 1}, (item for item in "abc"), torch.zeros(3, 1), torch.tensor(1)],
)
def test_what_is_no_list_of_numbers(given: Any) -> None:
    with pytest.raises(RewardError, match=r"reward mine gave a .* instead of a list of numbers"):
        _compute(lambda **columns: given)


def test_lists_of_another_length() -> None:
    with pytest.raises(
        RewardError,
        match="reward mine gave 2 numbers for 3 completions, the first of them sample d0",
    ):
        _compute(lambda **columns: [1.0, 2.0])


def test_a_reward_that_raises_is_named_with_the_sample() -> None:
    def fails(completions: Sequence[str], number: Sequence[int], **columns: Any) -> list[float]:
        return [1 / (item - 1) for item in number]

    with pytest.raises(
        RewardError, match="reward mine failed on sample d1: ZeroDivisionError: division by zero"
    ) as caught:
        _compute(fails)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value, FfrError)
    assert caught.value.exit_code == 1

    def only_together(completions: Sequence[str], **columns: Any) -> list[float]:
        if len(completions) > 1:
            raise KeyError("rank\nof a group")
        return [0.0]

    with pytest.raises(
        RewardError, match="failed on samples d0 … d2 together: KeyError: 'rank"
    ) as caught:
        _compute(only_together)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "\n" not in str(caught.value)

    with pytest.raises(RewardError, match="missing 1 required keyword-only argument: 'solution'"):
        _compute(fragment_f1_reward)


def test_an_interrupt_is_no_fault_of_the_reward() -> None:
    def stops(**columns: Any) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _compute(stops)

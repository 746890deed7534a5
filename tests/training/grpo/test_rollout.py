"""Rollouts of a scripted sampler: which prompts are answered anew, which answers stay, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ffr.models.decoding.loop import Generated
from ffr.models.rows import Encoded
from ffr.rewards.terms import RewardTerm
from ffr.settings import GrpoConfig
from ffr.training.grpo.policy import Answers
from ffr.training.grpo.rollout import Rollout, Sampler

# what each prompt is answered with at its first, second and third attempt
SCRIPT = {
    10: ["1 0", "9 9", "9 9"],  # has signal at once, and is not asked again
    11: ["0 0", "2 2", "3 4"],  # has signal at its third attempt
    12: ["5 5", "6 6", "7 7"],  # never has any, and keeps its first answers
    13: ["8 8", "1 2", "9 9"],  # has signal at its second attempt
}


class Script:
    """A policy that gives the next attempt of each prompt, and notes what it was asked with."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.is_rolling_out = False
        self.asked: list[list[tuple[int, int]]] = []
        self.earlier: list[list[Answers]] = []
        self._attempts = {prompt: iter(attempts) for prompt, attempts in SCRIPT.items()}

    @contextmanager
    def rolling_out(self) -> Iterator[None]:
        self.is_rolling_out = True
        yield
        self.is_rolling_out = False

    def sample(
        self,
        prompts: Sequence[Encoded],
        dialogue_numbers: Sequence[int],
        generator: Any,
        earlier: Sequence[Answers],
    ) -> list[list[Generated]]:
        assert self.is_rolling_out
        self.earlier.append(list(earlier))
        numbers = [prompt.input_ids[0] for prompt in prompts]
        self.asked.append(list(zip(numbers, dialogue_numbers, strict=True)))
        return [
            [
                Generated(word, (int(word), 99), (-1.0, -1.0))
                for word in next(self._attempts[number]).split()
            ]
            for number in numbers
        ]


@pytest.fixture
def script() -> Script:
    return Script()


def value(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(text) for text in completions]


def index_of(
    prompts: Sequence[Any], completions: Sequence[str], *, index: Sequence[int], **_: Any
) -> list[float]:
    """The same for all answers of a prompt, so that it gives no signal."""
    return [float(item) for item in index]


def roll_out(script: Any, **settings: Any) -> Rollout:
    sampler = Sampler(
        script,
        GrpoConfig(num_generations=2, **settings),
        [RewardTerm("value", value, 2.0), RewardTerm("index", index_of, 10.0)],
        lambda index: {"prompt": "", "dialogue_id": "d", "query": "q", "index": index},
    )
    prompts = [Encoded([number]) for number in SCRIPT]
    return sampler.roll_out([3, 4, 5, 6], prompts, [70, 71, 72, 73], seed=0)


def test_prompts_without_signal_are_answered_anew_and_replaced(script: Script) -> None:
    found = roll_out(script, resample_attempts=2, batch_size=4)
    assert script.asked == [
        [(10, 70), (11, 71), (12, 72), (13, 73)],
        [(11, 71), (12, 72), (13, 73)],
        [(11, 71), (12, 72)],
    ]
    assert [answer.text for answer in found.answers] == ["1", "0", "3", "4", "5", "5", "1", "2"]
    assert found.values.tolist() == [[1, 3], [0, 3], [3, 4], [4, 4], [5, 5], [5, 5], [1, 6], [2, 6]]
    assert found.rewards.tolist() == [32, 30, 46, 48, 60, 60, 62, 64]
    assert found.indices == [3, 4, 5, 6]
    assert found.num_without_signal == 3, "at the first attempt"
    assert found.num_attempts == 3 + 2


def test_attempts_are_bounded(script: Script) -> None:
    found = roll_out(script, resample_attempts=1, batch_size=4)
    assert [answer.text for answer in found.answers] == ["1", "0", "0", "0", "5", "5", "1", "2"]
    assert (found.num_without_signal, found.num_attempts) == (3, 3)


def test_without_attempts_all_stays(script: Script) -> None:
    found = roll_out(script, resample_attempts=0, batch_size=4)
    assert [answer.text for answer in found.answers] == ["1", "0", "0", "0", "5", "5", "8", "8"]
    assert (found.num_without_signal, found.num_attempts) == (3, 0)
    assert len(script.asked) == 1


def test_the_last_answers_are_at_hand_where_tokens_are_guessed(script: Script) -> None:
    """Those of the step's attempt before, of each prompt its own; the most frequent last."""
    roll_out(script, resample_attempts=2, batch_size=4, draft_tokens=3)
    assert script.earlier == [
        [[], [], [], []],
        [[(0, 99)], [(5, 99)], [(8, 99)]],
        [[(2, 99)], [(6, 99)]],
    ]


def test_nothing_is_kept_where_none_are(script: Script) -> None:
    roll_out(script, resample_attempts=2, batch_size=4)
    assert script.earlier == [[[]] * 4, [[]] * 3, [[]] * 2]


def test_few_prompts_are_answered_at_once(script: Script) -> None:
    found = roll_out(script, resample_attempts=1, rollout_batch=3)
    assert [[number for number, _ in asked] for asked in script.asked] == [
        [10, 11, 12],
        [13],
        [11, 12, 13],
    ]
    assert [answer.text for answer in found.answers] == ["1", "0", "0", "0", "5", "5", "1", "2"]

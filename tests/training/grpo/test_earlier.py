"""The answers that prompts got last: what is kept of them, and that a checkpoint gives it back."""

from __future__ import annotations

import pytest
import torch

from ffr.training.grpo import earlier as module
from ffr.training.grpo.earlier import EarlierAnswers


def test_the_last_visit_counts_and_the_most_frequent_answer_comes_last() -> None:
    earlier = EarlierAnswers(is_wanted=True)
    earlier.note(3, [(9,)])
    earlier.note(3, [(1, 2), (4,), (1, 2), (5,)])
    assert earlier.of(3) == [(5,), (4,), (1, 2)]
    earlier.begin_step()
    assert earlier.of(3) == [(5,), (4,), (1, 2)]


def test_long_answers_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_KEPT", 5)
    earlier = EarlierAnswers(is_wanted=True)
    earlier.note(0, [(1, 1, 1), (2, 2, 2), (2, 2, 2), (3,)])
    assert earlier.of(0) == [(1, 1), (2, 2, 2)]


def test_a_state_is_all_there_is() -> None:
    earlier, again = EarlierAnswers(is_wanted=True), EarlierAnswers(is_wanted=True)
    earlier.note(7, [(1, 2, 3), (4,)])
    earlier.note(2, [(5, 6)])
    state = earlier.state()
    assert state is not None
    assert {name: item.dtype for name, item in state.items()} == {
        "prompts": torch.int64, "lengths": torch.int64, "tokens": torch.int32,
    }  # fmt: skip
    again.note(1, [(9,)])
    again.load_state(state)
    assert [again.of(index) for index in (7, 2, 1)] == [[(4,), (1, 2, 3)], [(5, 6)], []]
    empty = EarlierAnswers(is_wanted=True).state()
    assert empty is not None
    again.load_state(empty)
    assert again.of(7) == []


def test_nothing_is_kept_where_nothing_is_guessed() -> None:
    earlier = EarlierAnswers(is_wanted=False)
    earlier.note(3, [(1,)])
    assert (earlier.of(3), earlier.state()) == ([], None)


def test_several_processes_keep_a_steps_attempts() -> None:
    earlier = EarlierAnswers(is_wanted=True, outlast_steps=False)
    earlier.note(3, [(1,)])
    assert (earlier.of(3), earlier.state()) == ([(1,)], None)
    earlier.begin_step()
    assert earlier.of(3) == []

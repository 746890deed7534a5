"""The plan of a training: each example once an epoch, any number of processes, any step again."""

from __future__ import annotations

import dataclasses
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ffr.training.common.plan import TrainPlan, share_of_process

SIZES = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(1, 50), min_size=1, max_size=80),
        "batch_size": st.integers(1, 5),
        "accumulate": st.integers(1, 3),
        "num_processes": st.integers(1, 3),
        "epochs": st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]),
        "seed": st.integers(0, 5),
    }
)


@given(SIZES)
def test_each_example_once_an_epoch(sizes: dict) -> None:
    plan = TrainPlan(**sizes)
    steps = plan.steps()
    taken = Counter(index for step in steps for batch in step for index in batch)
    number = round(len(sizes["lengths"]) * sizes["epochs"])
    assert sum(taken.values()) == number
    assert max(taken.values(), default=0) <= -(-number // len(sizes["lengths"]))
    assert len(steps) == plan.num_steps or number == 0


@given(SIZES)
def test_only_the_last_step_is_short(sizes: dict) -> None:
    plan = TrainPlan(**sizes)
    counts = [sum(map(len, step)) for step in plan.steps()]
    assert all(count == plan.items_per_step for count in counts[:-1])


@given(SIZES)
def test_processes_share_a_step_evenly(sizes: dict) -> None:
    plan = TrainPlan(**sizes)
    for step in plan.steps():
        shares = [
            share_of_process(step, number, sizes["num_processes"])
            for number in range(sizes["num_processes"])
        ]
        assert len({len(share) for share in shares}) == 1
        together = sorted(index for share in shares for batch in share for index in batch)
        assert together == sorted(index for batch in step for index in batch)


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    def plan(seed: int) -> list:
        return TrainPlan(
            list(range(100)), batch_size=4, accumulate=1, num_processes=1, epochs=2, seed=seed
        ).steps()

    assert plan(1) == plan(1) != plan(2)


def test_like_lengths_stand_together_and_steps_are_shuffled() -> None:
    lengths = [(index * 37) % 256 for index in range(256)]
    plan = TrainPlan(lengths, batch_size=8, accumulate=1, num_processes=1, epochs=1)
    steps = [[lengths[index] for index in step[0]] for step in plan.steps()]
    assert all(max(step) - min(step) == 7 for step in steps)
    assert [step[0] for step in steps] != sorted(step[0] for step in steps)


def test_a_short_step_stays_last_so_that_all_others_are_whole() -> None:
    """Were it in the middle, the steps behind it would be cut across two blocks of like lengths."""
    plan = TrainPlan(list(range(9)), batch_size=2, accumulate=2, num_processes=1, epochs=1)
    for seed in range(5):
        *whole, last = dataclasses.replace(plan, seed=seed).steps()
        assert sorted(sorted(index for batch in step for index in batch) for step in whole) == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
        ]
        assert last == [[8]]


def test_max_steps_cuts() -> None:
    plan = TrainPlan([1] * 100, batch_size=10, accumulate=1, num_processes=1, epochs=1, max_steps=3)
    assert plan.num_steps == len(plan.steps()) == 3

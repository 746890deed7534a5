"""Levels by hand, the orders' promises, and that a restored order draws the very same."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ffr.errors import UsageError
from ffr.training.curriculum.order import (
    DataOrder,
    Difficulty,
    OnlineOrder,
    PacedOrder,
    PaperOrder,
    ShuffledOrder,
    assign_levels,
    kept_items,
    level_shares,
    quartiles,
)

DOCS = Path(__file__).resolve().parents[3] / "docs" / "curriculum.md"


def documented_example() -> tuple[list[Difficulty], list[str], list[int]]:
    section = DOCS.read_text(encoding="utf-8").split("### A worked example")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    difficulties, levels, kept = [], [], []
    for number, f1, entropy, is_empty, level, is_kept in rows[2:11]:
        assert int(number) == len(levels)
        difficulties.append(Difficulty(float(f1), float(entropy), is_empty == "yes"))
        levels.append(level)
        if is_kept == "yes":
            kept.append(int(number))
    assert len(levels) == 9
    return difficulties, levels, kept


DIFFICULTIES, _, _ = documented_example()

difficulty = st.builds(
    Difficulty, st.sampled_from([0.0, 0.25, 0.5, 2 / 3, 0.9, 1.0]), st.floats(0, 5), st.booleans()
)
numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def test_worked_example_of_the_docs():
    difficulties, levels, kept = documented_example()
    assert assign_levels(difficulties) == levels
    assert kept_items(difficulties, assign_levels(difficulties)) == kept == [0, 2, 4, 5, 7, 8]
    assert quartiles([item.f1 for item in difficulties]) == (0.2, 0.5, 0.8)
    assert quartiles([item.entropy for item in difficulties]) == (1.2, 2.0, 2.4)


@given(numbers)
def test_quartiles_are_those_of_numpy(values):
    np.testing.assert_allclose(
        quartiles(values), np.quantile(values, [0.25, 0.5, 0.75]), rtol=1e-12, atol=1e-9
    )


def test_equal_items_are_all_easy():
    # every value is its own quartile; what is equal to a quartile is on its easier side
    assert assign_levels([Difficulty(0.0, 1.0, False)] * 5) == ["easy"] * 5
    assert assign_levels([]) == []


def test_shares_that_are_kept():
    items = [Difficulty(index / 100, 1.0, False) for index in range(100)]
    count = Counter(len(kept_items(items[:num], ["medium"] * num)) for num in range(1, 11))
    assert count == {1: 10}
    assert len(kept_items(items[:11], ["medium"] * 11)) == 2
    assert kept_items(items, ["medium"] * 100) == list(range(90, 100))
    assert kept_items(items[:7], ["confusing"] * 7) == [3, 4, 5, 6]
    for level in ("easy", "hard"):
        assert kept_items(items, [level] * 100) == list(range(100))


def test_empty_truths_are_dropped_before_the_share_is_taken():
    empty, full = Difficulty(1.0, 0.0, True), Difficulty(0.5, 1.0, False)
    levels = ["easy", "medium", "confusing", "hard"]
    assert kept_items([empty] * 4, levels) == [2, 3]
    # the tenth is of the eleven that are left, so two
    assert kept_items([empty] * 10 + [full] * 11, ["medium"] * 21) == [10, 11]


def test_ties_go_to_less_entropy_then_to_the_first():
    items = [Difficulty(0.5, entropy, False) for entropy in (2.0, 1.0, 1.0, 1.0, 0.5, 3.0)]
    assert kept_items(items, ["confusing"] * 6) == [1, 2, 4]


@given(st.lists(difficulty, min_size=1, max_size=40))
def test_levels_and_kept_items_hang_together(items):
    levels = assign_levels(items)
    kept = kept_items(items, levels)
    assert kept == sorted(set(kept))
    assert all(not items[index].is_empty for index in kept if levels[index] in ("easy", "medium"))
    for index, level in enumerate(levels):
        if level == "hard":
            assert index in kept
    worst_kept = min(
        (items[index].f1 for index in kept if levels[index] == "confusing"), default=0.0
    )
    left_out = [
        items[index].f1
        for index in range(len(items))
        if levels[index] == "confusing" and index not in kept
    ]
    assert all(f1 <= worst_kept for f1 in left_out)


def test_level_shares():
    assert level_shares([]) == {}
    shares = level_shares(["medium", "easy", "medium", "hard"])
    assert shares == {
        "level_easy": 0.25,
        "level_medium": 0.5,
        "level_confusing": 0.0,
        "level_hard": 0.25,
    }


def packs_of(num_items: int) -> list[list[int]]:
    """Every third item in one pack, far from each other in the data."""
    return [list(range(start, num_items, 3)) for start in range(min(3, num_items))]


def order_of(kind: str, items: list[Difficulty], seed: int = 0, num_draws: int = 40) -> DataOrder:
    if kind == "shuffled":
        return ShuffledOrder(len(items), seed)
    if kind == "packed":
        return ShuffledOrder(len(items), seed, packs_of(len(items)))
    if kind == "paper":
        levels = assign_levels(items)
        return PaperOrder(levels, kept_items(items, levels), seed)
    return {"paced": PacedOrder, "online": OnlineOrder}[kind](items, num_draws, seed)


KINDS = ("shuffled", "packed", "paper", "paced", "online")
outcome = st.tuples(st.floats(-2, 2), st.floats(0, 2))


@given(
    kind=st.sampled_from(KINDS),
    items=st.lists(difficulty, min_size=1, max_size=20),
    seed=st.integers(0, 9),
    num_draws=st.integers(0, 60),
    before=st.lists(st.tuples(st.integers(0, 7), outcome), max_size=6),
    after=st.lists(st.tuples(st.integers(0, 30), outcome), min_size=1, max_size=4),
)
def test_a_restored_order_draws_the_very_same(kind, items, seed, num_draws, before, after):
    levels = assign_levels(items)
    assume(kind != "paper" or kept_items(items, levels))

    def go_on(order, calls):
        drawn = []
        for num, (mean, spread) in calls:
            found = order.draw(num)
            assert len(found) == num
            order.observe(found, [mean] * num, [spread + 0.01 * index for index in found])
            drawn.append(found)
        return drawn

    whole = order_of(kind, items, seed, num_draws)
    go_on(whole, before)
    state = json.loads(json.dumps(whole.state_dict()))
    fresh = order_of(kind, items, seed, num_draws)
    # a state is taken over whatever the order did before
    go_on(fresh, after)
    fresh.load_state_dict(state)
    assert fresh.state_dict() == whole.state_dict()
    assert go_on(fresh, after) == go_on(whole, after)
    assert fresh.state_dict() == whole.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_the_draws(kind):
    def draws(seed):
        return order_of(kind, DIFFICULTIES, seed).draw(30)

    assert draws(1) == draws(1)
    assert len({tuple(draws(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize("kind", ["shuffled", "packed", "paper", "paced"])
def test_draws_do_not_depend_on_how_they_are_asked_for(kind):
    whole, parts = order_of(kind, DIFFICULTIES), order_of(kind, DIFFICULTIES)
    assert whole.draw(30) == [index for num in (1, 0, 7, 22) for index in parts.draw(num)]


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_another_order_is_refused(kind):
    state = order_of(kind, DIFFICULTIES).state_dict()
    others = [order_of(kind, DIFFICULTIES, seed=1), order_of(kind, DIFFICULTIES[:7])]
    others += [order_of(other, DIFFICULTIES) for other in KINDS if other != kind]
    if kind in ("paper", "paced", "online"):
        # the level of the last item changes
        others.append(order_of(kind, [*DIFFICULTIES[:8], Difficulty(1.0, 0.1, False)]))
    for other in others:
        with pytest.raises(UsageError, match="the checkpoint's data order was made of other data"):
            other.load_state_dict(state)


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(UsageError, match="no example is left to draw from"):
        PaperOrder(["easy"], [], seed=0)
    with pytest.raises(UsageError, match="above 0 and at most 1, not 0"):
        PacedOrder(DIFFICULTIES, 10, 0, start_share=0)


def test_states_stay_small():
    for kind in ("shuffled", "packed", "paper", "paced"):
        order = order_of(kind, DIFFICULTIES * 50)
        order.draw(5000)
        assert len(json.dumps(order.state_dict())) < 80


def test_shuffled_takes_each_item_once_a_pass():
    order = ShuffledOrder(20, seed=3)
    passes = [order.draw(20) for _ in range(3)]
    assert all(sorted(items) == list(range(20)) for items in passes)
    assert len(set(map(tuple, passes))) == 3
    assert order.num_items == 20


def test_groups_stay_side_by_side():
    order = ShuffledOrder(20, 3, packs_of(20))
    passes = [order.draw(20) for _ in range(12)]
    starts = set()
    for items in passes:
        assert sorted(items) == list(range(20))
        assert sum(one % 3 != other % 3 for one, other in itertools.pairwise(items)) == 2
        starts.add(items[0])
    assert starts == {0, 1, 2}


def test_paper_goes_from_easy_to_hard_and_begins_again():
    levels = assign_levels(DIFFICULTIES)
    order = order_of("paper", DIFFICULTIES)
    assert order.num_items == 6
    for _ in range(3):
        drawn = order.draw(6)
        assert sorted(drawn) == [0, 2, 4, 5, 7, 8]
        assert [levels[index] for index in drawn] == [
            "easy",
            "medium",
            "confusing",
            "confusing",
            "hard",
            "hard",
        ]
    # shuffled within a level, anew each pass
    assert len({tuple(order.draw(6)) for _ in range(20)}) == 4


def test_paced_pool_grows_as_documented():
    """Everything that was not drawn since the pool was used up is in the pool; the pool is a beginning of the ranks."""
    items = DIFFICULTIES
    highest = dict.fromkeys((0, 36, 72), 0)
    for seed in range(200):
        order = PacedOrder(items, 90, seed)
        drawn = order.draw(90)
        assert max(drawn[:1]) < 3
        assert max(drawn[:36]) < 6
        for time in highest:
            highest[time] = max(highest[time], drawn[time])
    # ranked as they stand: 3 items in the pool at first, 6 from draw 36 on, all 9 from draw 72 on
    assert highest == {0: 2, 36: 5, 72: 8}


def test_paced_ranks_by_level_then_f1_then_entropy():
    items = [Difficulty(0.5, 2.0, False), Difficulty(0.5, 1.0, False), Difficulty(0.9, 1.5, False)]
    items += [Difficulty(1.0, 0.1, False)]
    assert assign_levels(items) == ["hard", "confusing", "confusing", "easy"]
    # one item in the pool, then two, …: items come up first in the order of the ranks
    order = PacedOrder(items, num_draws=400, seed=0, start_share=0.25)
    assert list(dict.fromkeys(order.draw(400))) == [3, 2, 1, 0]


@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 5))
def test_paced_uses_the_pool_up_before_it_repeats(num_items, num_draws, seed):
    items = [Difficulty(1.0, 0.0, False)] * num_items
    order = PacedOrder(items, num_draws, seed, start_share=1.0)
    for _ in range(3):
        assert sorted(order.draw(num_items)) == list(range(num_items))


def test_online_prior_comes_from_f1():
    order = OnlineOrder(DIFFICULTIES, 100, seed=0)
    assert order.estimate(4) == (0.5, 0.5)
    assert [order.estimate(index)[1] for index in (0, 1, 8)] == [0, 0, 0]
    order.observe([0], [0.4], [0.3])
    assert order.estimate(0) == (0.7, 0.15)
    order.observe([0], [0.7], [0.25])
    assert order.estimate(0) == pytest.approx((0.7, 0.2))


def test_online_prefers_items_with_signal():
    items = [Difficulty(0.5, 1.0, False)] * 40
    order = OnlineOrder(items, num_draws=1000, seed=5)
    counts: Counter[int] = Counter()
    for _ in range(250):
        drawn = order.draw(4)
        assert len(set(drawn)) == 4
        counts.update(drawn)
        # the answers to every fourth item earn unequal rewards, those to the others all the same
        order.observe(drawn, [0.5] * 4, [0.4 if index % 4 == 0 else 0.0 for index in drawn])
    with_signal = sum(counts[index] for index in range(0, 40, 4)) / 1000
    assert with_signal > 0.5, "a quarter of the items, drawn uniformly, would be 0.25"
    assert min(counts[index] for index in range(40)) > 0, "exploration reaches every item"


def test_online_explores_less_as_training_goes_on():
    items = [Difficulty(0.5, 1.0, False), *[Difficulty(1.0, 0.0, False)] * 9]

    def share_of_first(num_drawn_before):
        hits = 0
        for seed in range(400):
            order = OnlineOrder(items, 100, seed)
            for _ in range(num_drawn_before):
                order.draw(1)
            hits += order.draw(1) == [0]
        return hits / 400

    # weight of the only item with spread: (1 - e) + e / 10 with e = 0.5 at first, 0.1 from draw 80 on
    assert share_of_first(0) == pytest.approx(0.55, abs=0.08)
    assert share_of_first(80) == pytest.approx(0.91, abs=0.05)


def test_online_without_any_spread_is_uniform():
    order = OnlineOrder([Difficulty(1.0, 0.0, False)] * 4, 10, seed=0)
    counts = Counter(index for _ in range(800) for index in order.draw(1))
    assert all(150 < counts[index] < 250 for index in range(4))
    assert sorted(order.draw(8)) == [0, 0, 1, 1, 2, 2, 3, 3], "more than there are: whole rounds"


@pytest.mark.parametrize(
    "seen",
    [
        ([9], [0.0], [0.0]),
        ([-1], [0.0], [0.0]),
        ([0], [float("nan")], [0.0]),
        ([0], [0.0], [float("inf")]),
        ([0, 1], [0.0], [0.0]),
    ],
)
def test_online_refuses_what_cannot_be(seen):
    order = OnlineOrder(DIFFICULTIES, 10, seed=0)
    with pytest.raises(ValueError):  # noqa: PT011 - one of two, told apart by the case
        order.observe(*seen)


def test_policy_imports_neither_torch_nor_numpy():
    code = "import sys, ffr.training.curriculum.order; assert not {'torch', 'numpy', 'lightning'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Which items a training takes next: the paper's levels, and orders that can be saved.

Everything here is plain Python. An order's randomness comes from its seed and from how much it has
drawn, so that its state is a few numbers and what is drawn after a restore is what would have been
drawn without one.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ffr.errors import UsageError

Level = Literal["easy", "medium", "confusing", "hard"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The levels, the easiest first."""
LEVEL_COLUMNS = tuple(f"level_{level}" for level in LEVELS)
"""Names of the figures that say how the items of a step divide among the levels."""

PACING_END = 0.8
"""Share of the draws after which a paced order has all items and an online one explores least."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard an item was for the model that training starts from.

    Args:
        f1: Mean of utterance and image F1 of its answer, in [0, 1].
        entropy: Entropy of the answer's token probabilities after they are made to sum to one, in
            nats.
        is_empty: Whether the true answer is empty.
    """

    f1: float
    entropy: float
    is_empty: bool


@dataclass(frozen=True, slots=True)
class GroupOutcomes:
    """What the sampled answers of a step's prompts earned.

    Args:
        indices: Index of each prompt's item in the data.
        mean_rewards: Mean reward of its answers.
        reward_stds: Standard deviation of their rewards.
    """

    indices: list[int]
    mean_rewards: list[float]
    reward_stds: list[float]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The three quartiles, linearly interpolated.

    The q-quantile stands at place q·(n − 1) of the sorted values: the same numbers as
    `numpy.quantile` gives by default.

    >>> quartiles([4.0, 1.0, 3.0, 2.0])
    (1.75, 2.5, 3.25)
    """
    ordered = sorted(values)

    def at(share: float) -> float:
        below = math.floor(share * (len(ordered) - 1))
        weight = share * (len(ordered) - 1) - below
        low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
        # from the nearer end, so that the result never passes the other
        return low + (high - low) * weight if weight < 0.5 else high - (high - low) * (1 - weight)

    return at(0.25), at(0.5), at(0.75)


def assign_levels(difficulties: Sequence[Difficulty]) -> list[Level]:
    """Divides items into levels by the quartiles of F1 and entropy H over all of them.

    As in F2RVLM (arXiv 2508.17714). easy: f1 ≥ q75(f1) and H ≤ q25(H); else medium: f1 ≥ q50 and H
    ≤ q50; else confusing: f1 ≥ q25 and H ≤ q75; else hard. A value that is equal to a quartile is
    on its easier side.

    >>> assign_levels([Difficulty(f1, 1 - f1, False) for f1 in (1.0, 0.6, 0.4, 0.0)])
    ['easy', 'medium', 'confusing', 'hard']
    """
    if not difficulties:
        return []
    f1_low, f1_middle, f1_high = quartiles([item.f1 for item in difficulties])
    entropy_low, entropy_middle, entropy_high = quartiles([item.entropy for item in difficulties])
    levels: list[Level] = []
    for item in difficulties:
        if item.f1 >= f1_high and item.entropy <= entropy_low:
            levels.append("easy")
        elif item.f1 >= f1_middle and item.entropy <= entropy_middle:
            levels.append("medium")
        elif item.f1 >= f1_low and item.entropy <= entropy_high:
            levels.append("confusing")
        else:
            levels.append("hard")
    return levels


def kept_items(difficulties: Sequence[Difficulty], levels: Sequence[Level]) -> list[int]:
    """Indices of the items that the paper trains on, ascending.

    Easy and medium items with an empty truth are dropped. Of what is left: all easy, the best tenth
    of medium by F1, the better half of confusing by F1, all hard. Shares are rounded up; of items
    with the same F1 the one with less entropy is better, then the one that comes first in the data.

    >>> items = [Difficulty(0.5, 0.1 * number, False) for number in range(4)]
    >>> kept_items(items, ["confusing"] * 4)
    [0, 1]
    """
    by_level: dict[Level, list[int]] = {level: [] for level in LEVELS}
    for index, (item, level) in enumerate(zip(difficulties, levels, strict=True)):
        if not (item.is_empty and level in ("easy", "medium")):
            by_level[level].append(index)

    def best(level: Level, one_in: int) -> list[int]:
        found = sorted(
            by_level[level],
            key=lambda index: (-difficulties[index].f1, difficulties[index].entropy, index),
        )
        return found[: -(-len(found) // one_in)]

    return sorted(
        [*by_level["easy"], *best("medium", 10), *best("confusing", 2), *by_level["hard"]]
    )


def level_shares(levels: Iterable[Level]) -> dict[str, float]:
    """Share of each level, under the names of `LEVEL_COLUMNS`; empty where there are no levels.

    >>> level_shares(["easy", "hard", "hard", "hard"])
    {'level_easy': 0.25, 'level_medium': 0.0, 'level_confusing': 0.0, 'level_hard': 0.75}
    """
    found = list(levels)
    if not found:
        return {}
    return {
        column: found.count(level) / len(found)
        for column, level in zip(LEVEL_COLUMNS, LEVELS, strict=True)
    }


class DataOrder(ABC):
    """Tells which items of the data are taken next, for ever.

    Args:
        num_items: Items of one pass.
        made_of: All that decides the draws besides how many there were; JSON-ready. A state is
            restored only where it is the same.

    Raises:
        UsageError: where there is no item.
    """

    def __init__(self, num_items: int, made_of: list[Any]) -> None:
        if num_items < 1:
            raise UsageError(
                "no example is left to draw from; choose other data or another order of it"
            )
        self._num_items = num_items
        content = json.dumps([type(self).__name__, num_items, *made_of])
        self._fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def num_items(self) -> int:
        """Items of one pass."""
        return self._num_items

    @abstractmethod
    def draw(self, num: int) -> list[int]:
        """Indices of the next `num` items in the data."""

    @abstractmethod
    def observe(
        self, indices: Sequence[int], mean_rewards: Sequence[float], reward_stds: Sequence[float]
    ) -> None:
        """Is told what the answers to drawn items earned; see `GroupOutcomes`."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What changes as items are drawn and observed; JSON-ready."""

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None:
        """Takes what `_state` gave."""

    def state_dict(self) -> dict[str, Any]:
        """The state, JSON-ready."""
        return {"made_of": self._fingerprint, **self._state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state: the draws that follow are the very same.

        Raises:
            UsageError: where the state is of another order: other data, difficulties, seed or
                settings.
        """
        if state.get("made_of") != self._fingerprint:
            raise UsageError(
                "the checkpoint's data order was made of other data, difficulties, seed or "
                "settings; "
                "resume with those it was started with, or start a new run"
            )
        self._restore(state)


class _PassOrder(DataOrder):
    """Goes through the data pass by pass, each item once; what is observed changes nothing."""

    def __init__(self, num_items: int, made_of: list[Any]) -> None:
        super().__init__(num_items, made_of)
        self._num_drawn = 0
        self._current: tuple[int, list[int]] = (
            -1,
            [],
        )  # number of the pass that was made last, its items

    @abstractmethod
    def _items_of_pass(self, number: int) -> list[int]:
        """The items of a pass, in order; a function of its number alone."""

    def draw(self, num: int) -> list[int]:
        drawn: list[int] = []
        while len(drawn) < num:
            number, place = divmod(self._num_drawn, self.num_items)
            if self._current[0] != number:
                self._current = (number, self._items_of_pass(number))
            taken = self._current[1][place : place + num - len(drawn)]
            drawn += taken
            self._num_drawn += len(taken)
        return drawn

    def observe(
        self, indices: Sequence[int], mean_rewards: Sequence[float], reward_stds: Sequence[float]
    ) -> None:
        """Nothing: this order is fixed from the start."""

    def _state(self) -> dict[str, Any]:
        return {"num_drawn": self._num_drawn}

    def _restore(self, state: dict[str, Any]) -> None:
        self._num_drawn = state["num_drawn"]


class ShuffledOrder(_PassOrder):
    """No curriculum: each pass is all items, shuffled anew.

    Args:
        num_examples: Size of the data.
        seed: Seed of the shuffles.
        packs: Indices of items that stay side by side, such as the queries on a dialogue, every
            item in one pack; None shuffles them one by one.

    >>> order = ShuffledOrder(3, seed=0)
    >>> sorted(order.draw(3)), sorted(order.draw(3))
    ([0, 1, 2], [0, 1, 2])
    >>> ShuffledOrder(5, seed=0, packs=[[0, 3], [1], [2, 4]]).draw(5)
    [0, 3, 2, 4, 1]
    """

    def __init__(
        self, num_examples: int, seed: int, packs: Sequence[Sequence[int]] | None = None
    ) -> None:
        super().__init__(
            num_examples, [seed] if packs is None else [seed, [list(pack) for pack in packs]]
        )
        self._packs = [[index] for index in range(num_examples)] if packs is None else list(packs)
        self._seed = seed

    def _items_of_pass(self, number: int) -> list[int]:
        packs = list(self._packs)
        random.Random(f"{self._seed} {number}").shuffle(packs)
        return [index for pack in packs for index in pack]


class PaperOrder(_PassOrder):
    """The paper's way: the kept items from easy to hard, shuffled within their level.

    A further pass begins at easy again.

    Args:
        levels: Level of every item of the data.
        kept: Indices of the items that are trained on.
        seed: Seed of the shuffles.

    Raises:
        UsageError: where no item is kept.

    >>> PaperOrder(["hard", "easy", "medium"], [0, 1], seed=0).draw(4)
    [1, 0, 1, 0]
    """

    def __init__(self, levels: Sequence[Level], kept: Sequence[int], seed: int) -> None:
        super().__init__(len(kept), [list(levels), list(kept), seed])
        self._by_level = [[index for index in kept if levels[index] == level] for level in LEVELS]
        self._seed = seed

    def _items_of_pass(self, number: int) -> list[int]:
        shuffler = random.Random(f"{self._seed} {number}")
        items: list[int] = []
        for of_level in self._by_level:
            shuffled = list(of_level)
            shuffler.shuffle(shuffled)
            items += shuffled
        return items


def _facts(difficulties: Sequence[Difficulty]) -> list[Any]:
    return [[item.f1, item.entropy, item.is_empty] for item in difficulties]


class PacedOrder(DataOrder):
    """Draws from a pool of the easiest items that grows until it holds all of them.

    Items are ranked by level, then by falling F1, then by rising entropy, then as in the data.
    Before draw t (from 0) of `num_draws` the pool is the easiest ceil(s·n) items, s = start_share +
    (1 − start_share) · min(1, t / (0.8 · num_draws)). An item is drawn from those of the pool that
    were not drawn since the pool was last used up, all equally likely. No item is dropped.

    Args:
        difficulties: Difficulty of every item of the data.
        num_draws: How many items the training will draw; the order goes on after that.
        seed: Seed of the draws.
        start_share: Share of the items in the first pool.

    Raises:
        UsageError: where there is no item, or `start_share` is not above 0 and at most 1.

    >>> items = [Difficulty(f1, 1 - f1, False) for f1 in (0.0, 1.0, 0.4, 0.6)]
    >>> PacedOrder(items, num_draws=100, seed=0, start_share=0.25).draw(2)
    [1, 3]
    """

    def __init__(
        self,
        difficulties: Sequence[Difficulty],
        num_draws: int,
        seed: int,
        start_share: float = 0.25,
    ) -> None:
        if not 0 < start_share <= 1:
            raise UsageError(f"a pool starts with a share above 0 and at most 1, not {start_share}")
        super().__init__(len(difficulties), [_facts(difficulties), num_draws, seed, start_share])
        levels = assign_levels(difficulties)
        self._ranked = sorted(
            range(len(difficulties)),
            key=lambda index: (
                LEVELS.index(levels[index]),
                -difficulties[index].f1,
                difficulties[index].entropy,
                index,
            ),
        )
        self._num_draws = num_draws
        self._seed = seed
        self._start_share = start_share
        self._begin()

    def _begin(self) -> None:
        self._random = random.Random(f"{self._seed}")
        self._num_drawn = 0
        self._pool_size = 0
        self._waiting: list[
            int
        ] = []  # items of the pool that were not drawn since it was last used up

    def _pool_size_at(self, num_drawn: int) -> int:
        progress = min(1.0, num_drawn / (PACING_END * self._num_draws)) if self._num_draws else 1.0
        share = self._start_share + (1 - self._start_share) * progress
        # a share that stands for a whole number of items must not be rounded up past it
        return min(self.num_items, max(1, math.ceil(share * self.num_items - 1e-9)))

    def draw(self, num: int) -> list[int]:
        drawn: list[int] = []
        for _ in range(num):
            size = self._pool_size_at(self._num_drawn)
            self._waiting += self._ranked[self._pool_size : size]
            self._pool_size = size
            if not self._waiting:
                self._waiting = self._ranked[:size]
            place = int(self._random.random() * len(self._waiting))
            self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
            drawn.append(self._waiting.pop())
            self._num_drawn += 1
        return drawn

    def observe(
        self, indices: Sequence[int], mean_rewards: Sequence[float], reward_stds: Sequence[float]
    ) -> None:
        """Nothing: this order is fixed from the start."""

    def _state(self) -> dict[str, Any]:
        return {"num_drawn": self._num_drawn}

    def _restore(self, state: dict[str, Any]) -> None:
        # the draws so far are made once more (about a million a second), so that the state stays
        # one number
        self._begin()
        self.draw(state["num_drawn"])


class OnlineOrder(DataOrder):
    """Prefers items whose sampled answers earn unequal rewards: only such groups have a gradient.

    For each item it estimates the mean m and the standard deviation s of its answers' rewards.
    Before anything is seen m = f1 and s = sqrt(f1 · (1 − f1)), the spread of answers that are right
    with probability f1. What is observed moves both half of the way to the new value (exponential
    moving average). Item i is drawn with the weight

        w_i = (1 − e) · s_i / Σ s + e / n        (1 / n where Σ s = 0)

    where e, the share of exploring draws, falls from 0.5 to 0.1 over the first 80 % of `num_draws`,
    as estimates get to rest on what was seen. The items of one call of `draw` differ from each
    other as long as there are enough.

    Args:
        difficulties: Difficulty of every item of the data.
        num_draws: How many items the training will draw; the order goes on after that.
        seed: Seed of the draws.

    Raises:
        UsageError: where there is no item.

    >>> items = [Difficulty(0.5, 1.0, False), Difficulty(1.0, 0.0, False)]
    >>> order = OnlineOrder(items, num_draws=100, seed=0)
    >>> order.observe([1], [0.5], [0.25])
    >>> order.estimate(1)
    (0.75, 0.125)
    """

    _RATE = 0.5
    _EXPLORATION = (0.5, 0.1)

    def __init__(self, difficulties: Sequence[Difficulty], num_draws: int, seed: int) -> None:
        super().__init__(len(difficulties), [_facts(difficulties), num_draws, seed])
        self._prior = [(item.f1, math.sqrt(item.f1 * (1 - item.f1))) for item in difficulties]
        self._observed: dict[int, tuple[float, float]] = {}
        self._num_draws = num_draws
        self._seed = seed
        self._num_drawn = 0
        self._num_calls = 0

    def estimate(self, index: int) -> tuple[float, float]:
        """Estimated mean and standard deviation of the rewards of an item's answers."""
        return self._observed.get(index, self._prior[index])

    def _weights(self) -> list[float]:
        spreads = [self.estimate(index)[1] for index in range(self.num_items)]
        total = math.fsum(spreads)
        if total == 0:
            return [1 / self.num_items] * self.num_items
        progress = (
            min(1.0, self._num_drawn / (PACING_END * self._num_draws)) if self._num_draws else 1.0
        )
        first, last = self._EXPLORATION
        exploring = first + (last - first) * progress
        return [(1 - exploring) * spread / total + exploring / self.num_items for spread in spreads]

    def draw(self, num: int) -> list[int]:
        weights = self._weights()
        chance = random.Random(f"{self._seed} {self._num_calls}")
        drawn: list[int] = []
        while len(drawn) < num:
            # the item with the smallest exponential variate of rate w comes first with probability
            # w / Σ w (Efraimidis and Spirakis 2006); the next is then drawn likewise from the
            # others
            arrivals = [-math.log(1 - chance.random()) / weight for weight in weights]
            drawn += heapq.nsmallest(
                num - len(drawn), range(self.num_items), key=arrivals.__getitem__
            )
        self._num_calls += 1
        self._num_drawn += num
        return drawn

    def observe(
        self, indices: Sequence[int], mean_rewards: Sequence[float], reward_stds: Sequence[float]
    ) -> None:
        """Moves the estimates of these items towards what their answers earned.

        Raises:
            ValueError: where the three differ in length, an index is no item, or a number is not
                finite.
        """
        for index, *seen in zip(indices, mean_rewards, reward_stds, strict=True):
            if not 0 <= index < self.num_items or not all(map(math.isfinite, seen)):
                raise ValueError(
                    f"item {index} of {self.num_items} with mean reward {seen[0]} and deviation "
                    f"{seen[1]}"
                )
            mean, spread = self.estimate(index)
            self._observed[index] = (
                mean + self._RATE * (seen[0] - mean),
                spread + self._RATE * (seen[1] - spread),
            )

    def _state(self) -> dict[str, Any]:
        observed = [[index, *self._observed[index]] for index in sorted(self._observed)]
        return {"num_drawn": self._num_drawn, "num_calls": self._num_calls, "observed": observed}

    def _restore(self, state: dict[str, Any]) -> None:
        self._num_drawn, self._num_calls = state["num_drawn"], state["num_calls"]
        self._observed = {index: (mean, spread) for index, mean, spread in state["observed"]}

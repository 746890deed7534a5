"""Which items each optimizer step takes: a function of seed and sizes, so that any can be resumed.

An item is an example, or a pack of queries on one dialogue where these are packed. A step is
`accumulate` micro-batches on each of `num_processes` processes. Items of like length are put in one
step, so that little is padded; the order of the steps is shuffled. Over a whole epoch each item is
taken exactly once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS_SORTED_TOGETHER = 32


@dataclass(frozen=True)
class TrainPlan:
    """The steps of a training.

    Args:
        lengths: A length (any unit) for each item of the data.
        batch_size: Items in a micro-batch of one process.
        accumulate: Micro-batches of one process in a step.
        num_processes: Processes that train together.
        epochs: Passes over the data; a fraction takes that share of the last pass.
        max_steps: At most so many steps; None for no bound.
        seed: Seed of the order.

    >>> plan = TrainPlan([5, 1, 4, 2, 3], batch_size=2, accumulate=1, num_processes=1, epochs=1.0)
    >>> plan.num_steps, sorted(index for step in plan.steps() for batch in step for index in batch)
    (3, [0, 1, 2, 3, 4])
    """

    lengths: Sequence[int]
    batch_size: int
    accumulate: int
    num_processes: int
    epochs: float
    max_steps: int | None = None
    seed: int = 0

    @property
    def items_per_step(self) -> int:
        return self.batch_size * self.accumulate * self.num_processes

    @property
    def num_steps(self) -> int:
        num_items = round(len(self.lengths) * self.epochs)
        steps = max(1, -(-num_items // self.items_per_step)) if self.lengths else 0
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def steps(self) -> list[list[list[int]]]:
        """All steps; a step is its micro-batches (indices of items), those of process 0 first.

        The last step may have fewer items; it has at least one micro-batch.
        """
        remaining = round(len(self.lengths) * self.epochs)
        shuffler = random.Random(self.seed)
        order: list[int] = []
        while remaining > 0:
            epoch = list(range(len(self.lengths)))
            shuffler.shuffle(epoch)
            order += self._grouped(epoch[:remaining], shuffler)
            remaining -= len(epoch)
        size = self.items_per_step
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        return [self._micro_batches(chunk) for chunk in chunks[: self.num_steps]]

    def _grouped(self, epoch: list[int], shuffler: random.Random) -> list[int]:
        """The epoch with items of like length next to each other, in shuffled steps."""
        size = self.items_per_step
        window = size * _STEPS_SORTED_TOGETHER
        steps: list[list[int]] = []
        for start in range(0, len(epoch), window):
            block = sorted(epoch[start : start + window], key=lambda index: self.lengths[index])
            steps += [block[at : at + size] for at in range(0, len(block), size)]
        # a short step stays last, so that all others are whole
        tail = [step for step in steps if len(step) < size]
        whole = [step for step in steps if len(step) == size]
        shuffler.shuffle(whole)
        return [index for step in whole + tail for index in step]

    def _micro_batches(self, step: list[int]) -> list[list[int]]:
        return [step[at : at + self.batch_size] for at in range(0, len(step), self.batch_size)]


def share_of_process(
    step: Sequence[Sequence[int]], process: int, num_processes: int
) -> list[list[int]]:
    """The micro-batches of one process; where the last step has too few for all, some are empty.

    >>> share_of_process([[1, 2], [3]], 1, 2), share_of_process([[1, 2]], 1, 2)
    ([[3]], [[]])
    """
    per_process = -(-len(step) // num_processes)
    own = [list(batch) for batch in step[process::num_processes]]
    return own + [[] for _ in range(per_process - len(own))]

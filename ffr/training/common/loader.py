"""Feeds a process its micro-batches in the plan's order, from any step on, encoded ahead.

One-process-per-thread reading is enough: decoding and resizing pictures, the slow part, runs
outside Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from ffr.training.common.plan import TrainPlan, share_of_process


class Item(Protocol):
    """What a step takes several of: an encoded example, or a pack of queries on one dialogue."""

    @property
    def num_answer_tokens(self) -> int: ...

    @property
    def num_tokens(self) -> int: ...


AnyItem = TypeVar("AnyItem", bound=Item)


@dataclass
class MicroBatch(Generic[AnyItem]):
    """What one process takes through the model at once.

    Args:
        numbers: Numbers of the items in the plan.
        items: The encoded items.
        is_padding: True where the last step had no item left for this process: it must take part,
            and counts for nothing.
        num_step_tokens: Answer tokens of the whole step, over all micro-batches and processes.
        num_tokens: All tokens of this micro-batch, prompts included.
        ends_step: Whether this is the process's last micro-batch of its step.
    """

    numbers: list[int]
    items: list[AnyItem]
    is_padding: bool
    num_step_tokens: int
    num_tokens: int
    ends_step: bool


class StepLoader(Generic[AnyItem]):
    """An iterable of `MicroBatch`, sized, whose position is saved and restored.

    Args:
        plan: Which items each step takes.
        encode: Encodes the item of an index; called in threads.
        count_answer_tokens: Number of answer tokens of the item of an index, without its prompt and
            pictures; asked for the items that other processes take.
        process: Number of this process.
        num_processes: Processes that train together.
        num_workers: Threads that encode ahead; 0 encodes in the caller's.
    """

    def __init__(
        self,
        plan: TrainPlan,
        encode: Callable[[int], AnyItem],
        count_answer_tokens: Callable[[int], int],
        *,
        process: int = 0,
        num_processes: int = 1,
        num_workers: int = 2,
    ) -> None:
        self._steps = plan.steps()
        self._encode = encode
        self._count_answer_tokens = count_answer_tokens
        self._process = process
        self._num_processes = num_processes
        self._num_workers = num_workers
        self._start_step = 0
        self._steps_given = 0

    def __len__(self) -> int:
        """Micro-batches of the whole training, done ones too: Lightning counts on from them."""
        return sum(-(-len(step) // self._num_processes) for step in self._steps)

    def state_dict(self) -> dict[str, int]:
        return {"steps_given": self._steps_given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start_step = int(state["steps_given"])

    def __iter__(self) -> Iterator[MicroBatch[AnyItem]]:
        self._steps_given = self._start_step
        steps = self._steps[self._start_step :]
        if self._num_workers == 0:
            for step in steps:
                yield from self._give(
                    step, [self._encode(index) for index in self._own_indices(step)]
                )
            return
        ahead = 1 + self._num_workers
        with ThreadPoolExecutor(self._num_workers, thread_name_prefix="encode") as pool:
            waiting: deque[tuple[list[list[int]], list[Future[AnyItem]]]] = deque()
            remaining = iter(steps)
            try:
                while True:
                    for step in islice(remaining, ahead - len(waiting)):
                        waiting.append(
                            (
                                step,
                                [
                                    pool.submit(self._encode, index)
                                    for index in self._own_indices(step)
                                ],
                            )
                        )
                    if not waiting:
                        return
                    step, futures = waiting.popleft()
                    yield from self._give(step, [future.result() for future in futures])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _own_indices(self, step: Sequence[Sequence[int]]) -> list[int]:
        return [
            index
            for batch in share_of_process(step, self._process, self._num_processes)
            for index in batch
        ]

    def _give(
        self, step: Sequence[Sequence[int]], encoded: list[AnyItem]
    ) -> Iterator[MicroBatch[AnyItem]]:
        own = share_of_process(step, self._process, self._num_processes)
        by_index = dict(zip([index for batch in own for index in batch], encoded, strict=True))
        num_step_tokens = sum(
            by_index[index].num_answer_tokens
            if index in by_index
            else self._count_answer_tokens(index)
            for batch in step
            for index in batch
        )
        for number, batch in enumerate(own):
            numbers = list(batch) or [step[0][0]]
            items = [by_index[index] for index in batch] or [self._encode(step[0][0])]
            ends_step = number == len(own) - 1
            if ends_step:
                self._steps_given += 1
            yield MicroBatch(
                numbers=numbers,
                items=items,
                is_padding=not batch,
                num_step_tokens=num_step_tokens,
                num_tokens=sum(item.num_tokens for item in items),
                ends_step=ends_step,
            )

"""Feeds a process its share of each step's prompts, drawn from an order when the step begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from ffr.training.grpo.policy import Prompt


class Order(Protocol):
    """Decides which items come next, such as `ffr.training.curriculum.order.DataOrder`."""

    def draw(self, num: int) -> list[int]: ...


@dataclass
class StepPrompts:
    """The prompts of one step.

    Args:
        indices: Indices in the data of this process's prompts.
        prompts: Them, encoded, without answers.
        dialogue_numbers: A number for each: neighbours of one number are queries on one dialogue,
            which goes through the model once for all.
        ends_step: Always true: a batch is a whole step.
    """

    indices: list[int]
    prompts: list[Any]
    dialogue_numbers: list[int]
    ends_step: bool = True


class PromptLoader:
    """An iterable of `StepPrompts`, sized, whose position is saved and restored.

    The order saves its own state. Nothing is drawn ahead: an order may look at what the last step's
    answers earned.

    Args:
        order: Decides which items come next; the same on every process.
        encode: Encodes the prompt of an index; called in threads.
        num_steps: Steps of the whole training.
        prompts_per_step: Prompts of a step, over all processes; each takes as many.
        process: Number of this process.
        num_processes: Processes that train together.
        num_workers: Threads that encode; 0 encodes in the caller's.
        dialogue_numbers: A number for each item of the data, as `StepPrompts` has them; None where
            each has its own.
    """

    def __init__(
        self,
        order: Order,
        encode: Callable[[int], Prompt],
        *,
        num_steps: int,
        prompts_per_step: int,
        process: int = 0,
        num_processes: int = 1,
        num_workers: int = 2,
        dialogue_numbers: Sequence[int] | None = None,
    ) -> None:
        if prompts_per_step % num_processes:
            raise ValueError(
                f"{prompts_per_step} prompts cannot be shared out evenly over {num_processes} "
                "processes"
            )
        self._order = order
        self._encode = encode
        self._num_steps = num_steps
        self._prompts_per_step = prompts_per_step
        self._process = process
        self._num_processes = num_processes
        self._num_workers = num_workers
        self._dialogue_numbers = dialogue_numbers
        self._steps_given = 0

    def __len__(self) -> int:
        return self._num_steps

    def state_dict(self) -> dict[str, int]:
        return {"steps_given": self._steps_given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps_given = int(state["steps_given"])

    def __iter__(self) -> Iterator[StepPrompts]:
        with ThreadPoolExecutor(max(1, self._num_workers), thread_name_prefix="encode") as pool:
            while self._steps_given < self._num_steps:
                drawn = self._order.draw(self._prompts_per_step)
                # neighbours stay together
                share = self._prompts_per_step // self._num_processes
                own = drawn[self._process * share :][:share]
                prompts = list(
                    pool.map(self._encode, own) if self._num_workers else map(self._encode, own)
                )
                self._steps_given += 1
                yield StepPrompts(
                    own,
                    prompts,
                    own
                    if self._dialogue_numbers is None
                    else [self._dialogue_numbers[index] for index in own],
                )

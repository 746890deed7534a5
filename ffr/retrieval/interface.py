"""What answers queries: the interface that a model, a server, an encoder and a baseline share."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ffr.dialogue import Example, FilePrompt
from ffr.errors import DataError


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        response: The text.
        logprobs: Log-probability of each of its tokens; None where they were not asked for or do
            not exist.
        is_cut_off: Whether it ended only because it had reached the longest length allowed.
        extra: What else its line of the predictions file says; JSON-ready. Numbers under `usage`
            are added up in the results.
        failure: Why there is none, where this query cannot be answered, whatever becomes of the
            others; the text is empty then.
        score: How sure it is, from 0 to 1, comparable among answers of one retriever alone; None
            where that is not known. What it is, each retriever says.
    """

    response: str
    logprobs: tuple[float, ...] | None = None
    is_cut_off: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    score: float | None = None


def token_score(logprobs: Sequence[float]) -> float | None:
    """The score of a written answer: the geometric mean of its tokens' probabilities.

        s = exp((1/T) Σ_t log p_t)

    Args:
        logprobs: Log-probability of each of its T tokens; None comes of none.

    >>> token_score([0.0, -1.0, -1.0, 0.0])
    0.6065306597126334
    """
    # what a server sends may be over 0
    return math.exp(min(0.0, math.fsum(logprobs) / len(logprobs))) if logprobs else None


class Retriever(Protocol):
    """Anything that answers queries on dialogues."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides its answers, JSON-ready; where it differs no evaluation is taken up."""
        ...

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        """Which examples are answered together, in the order of the work; every index once."""
        ...

    def prompt(self, example: Example) -> FilePrompt:
        """The prompt that the example is asked with."""
        ...

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        """Answers the examples of one batch."""
        ...


@runtime_checkable
class ParallelRetriever(Protocol):
    """A retriever that works on several batches at a time."""

    def answer_as_they_come(
        self, batches: Iterable[Sequence[Example]]
    ) -> Iterator[tuple[int, list[Answer]]]:
        """The number of a batch and its answers, in the order in which they are ready.

        Batches are taken when there is room for them. An example that cannot be answered says so in
        its answer; a fault that concerns all of them raises once all that was under way has been
        handed out.
        """
        ...


def answers_of(
    retriever: Retriever, batches: Sequence[Sequence[int]], examples: Sequence[Example]
) -> Generator[tuple[int, list[Answer]], None, None]:
    """The number of each batch and its answers, as they come.

    One that cannot be given says why (`Answer.failure`).

    Args:
        retriever: What answers.
        batches: Indices of the examples that are answered together, as `Retriever.plan` gives them.
        examples: The examples.
    """
    if isinstance(retriever, ParallelRetriever):
        yield from retriever.answer_as_they_come(
            [examples[index] for index in batch] for batch in batches
        )
        return
    for number, batch in enumerate(batches):
        yield number, answers_or_failures(retriever.answer, [examples[index] for index in batch])


def answers_or_failures(
    answer: Callable[[Sequence[Example]], list[Answer]], examples: Sequence[Example]
) -> list[Answer]:
    """Answers of a batch.

    Where one of it cannot be given, each is asked for by itself, and that one says why.

    Args:
        answer: As `Retriever.answer`.
        examples: The batch.
    """
    try:
        return answer(examples)
    except DataError as error:
        if len(examples) == 1:
            return [Answer("", failure=str(error))]
    return [found for example in examples for found in answers_or_failures(answer, [example])]


def by_dialogue(examples: Sequence[Example]) -> dict[str, list[int]]:
    """The indices of the examples on each dialogue, dialogues in the order in which they come.

    >>> from ffr.dialogue import Dialogue
    >>> one, two = Dialogue.of([("a", "tea")]), Dialogue.of([("a", "soup")])
    >>> [*by_dialogue([Example(one, "x"), Example(two, "x"), Example(one, "y")]).values()]
    [[0, 2], [1]]
    """
    found: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        found.setdefault(example.dialogue.fingerprint, []).append(index)
    return found


def add_usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of what was used, name by name.

    >>> add_usage([{"prompt_tokens": 7}, {"prompt_tokens": 5, "cost": 0.5}])
    {'prompt_tokens': 12, 'cost': 0.5}
    """
    total: dict[str, Any] = {}
    for usage in usages:
        for name, number in usage.items():
            total[name] = total.get(name, 0) + number
    return total

"""Who answers, and what becomes of a query that cannot be answered: it alone says why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from ffr.dialogue import Dialogue, Example, Utterance
from ffr.errors import DataError, UsageError
from ffr.retrieval.interface import (
    Answer,
    ParallelRetriever,
    add_usage,
    answers_of,
    answers_or_failures,
)


def queries(*texts: str) -> list[Example]:
    return [Example(Dialogue("d", (Utterance("a", ("hi",)),)), text) for text in texts]


class Choosy:
    """Answers with the query; refuses those that begin with `bad`, and with them their whole batch."""

    def __init__(self, error: type[Exception] = DataError) -> None:
        self.asked: list[list[str]] = []
        self._error = error

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        texts = [example.query for example in examples]
        self.asked.append(texts)
        for text in texts:
            if text.startswith("bad"):
                raise self._error(f"{text} is refused")
        return [Answer(text) for text in texts]


def test_a_good_batch_is_asked_once() -> None:
    retriever = Choosy()
    found = answers_or_failures(retriever.answer, queries("a", "b"))
    assert found == [Answer("a"), Answer("b")]
    assert retriever.asked == [["a", "b"]]


def test_one_bad_query_does_not_take_its_batch_along() -> None:
    retriever = Choosy()
    found = answers_or_failures(retriever.answer, queries("a", "bad 1", "b", "bad 2"))
    assert found == [
        Answer("a"), Answer("", failure="bad 1 is refused"), Answer("b"), Answer("", failure="bad 2 is refused"),
    ]  # fmt: skip
    assert retriever.asked == [["a", "bad 1", "b", "bad 2"], ["a"], ["bad 1"], ["b"], ["bad 2"]]


def test_a_fault_of_the_call_is_none_of_a_query() -> None:
    with pytest.raises(UsageError, match="bad is refused"):
        answers_or_failures(Choosy(UsageError).answer, queries("a", "bad"))


def test_batches_are_answered_in_their_order() -> None:
    examples = queries("a", "b", "bad", "c")
    retriever: Any = Choosy()
    found = list(answers_of(retriever, [[3, 0], [2], [1]], examples))
    assert [(number, [answer.response for answer in answers]) for number, answers in found] == [
        (0, ["c", "a"]), (1, [""]), (2, ["b"]),
    ]  # fmt: skip
    assert found[1][1][0].failure == "bad is refused"
    assert list(answers_of(retriever, [], examples)) == []


def test_nothing_is_asked_before_it_is_wanted() -> None:
    retriever: Any = Choosy()
    stream = answers_of(retriever, [[0], [1]], queries("a", "b"))
    assert retriever.asked == []
    next(stream)
    assert retriever.asked == [["a"]]


class Backwards(Choosy):
    """Works on all batches at a time."""

    def answer_as_they_come(
        self, batches: Iterable[Sequence[Example]]
    ) -> Iterator[tuple[int, list[Answer]]]:
        for number, batch in reversed(list(enumerate(batches))):
            yield number, self.answer(batch)


def test_parallel_answers_come_as_they_are_ready() -> None:
    retriever: Any = Backwards()
    assert isinstance(retriever, ParallelRetriever)
    assert not isinstance(Choosy(), ParallelRetriever)
    found = list(answers_of(retriever, [[0, 2], [1]], queries("a", "b", "c")))
    assert [(number, [answer.response for answer in answers]) for number, answers in found] == [
        (1, ["b"]),
        (0, ["a", "c"]),
    ]


def test_what_was_used_is_added_up_name_by_name() -> None:
    assert add_usage([]) == {}
    parts = [{"prompt_tokens": 3, "cost": 0.25}, {"prompt_tokens": 4}, {"completion_tokens": 2}]
    assert add_usage(parts) == {"prompt_tokens": 7, "cost": 0.25, "completion_tokens": 2}
    assert parts[0] == {"prompt_tokens": 3, "cost": 0.25}, "what was given stays as it was"

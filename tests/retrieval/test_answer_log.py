"""Answers on disk: what counts as answered, what a torn file keeps, and in which order it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ffr.dialogue import Example
from ffr.errors import DataError, UsageError
from ffr.progress import Progress
from ffr.retrieval.answer_log import AnswerLog, ask_all, open_answer_log
from ffr.retrieval.interface import Answer


def line(index: int, response: str = "x", **more: object) -> bytes:
    return json.dumps({"index": index, "response": response, **more}).encode() + b"\n"


def asked_of(retriever: type) -> type:
    """A retriever of the tests that keeps the batches it was asked."""

    class Asked(retriever):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[list[str]] = []

        def answer(self, examples: Sequence[Example]) -> list[Answer]:
            self.asked.append([example.key for example in examples])
            return super().answer(examples)  # type: ignore[no-any-return]

    return Asked


def test_a_batch_is_answered_when_all_of_it_is(tmp_path: Path) -> None:
    with closing(AnswerLog(tmp_path / "log", 4)) as log:
        assert (log.num_answers, log.has_all([0])) == (0, False)
        log.append([2, 0], [line(2), line(0)])
        assert log.num_answers == 2
        assert log.has_all([0, 2])
        assert not log.has_all([0, 1])
        assert not log.has_all([1, 3])


def test_a_torn_line_is_cut_off_and_those_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(1, "long") + line(0) + line(2)[:-1])
    with closing(AnswerLog(path, 3)) as log:
        assert (log.num_answers, log.has_all([0, 1]), log.has_all([2])) == (2, True, False)
        assert path.read_bytes() == line(1, "long") + line(0)
        log.append([2], [line(2, "again")])
        log.finish()
    assert path.read_bytes() == line(0) + line(1, "long") + line(2, "again")


def test_a_failed_query_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(0, "", failure="too long") + line(1))
    with closing(AnswerLog(path, 2)) as log:
        assert (log.num_answers, log.has_all([0]), log.has_all([1])) == (1, False, True)
        log.append([0], [line(0, "now")])
        log.finish()
    # the line that failed is gone, the later one stands in its place
    assert path.read_bytes() == line(0, "now") + line(1)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ([line(0), line(1)], True),
        ([line(1), line(0)], False),
        ([line(0), line(1, "first"), line(1)], False),
    ],
    ids=["in order", "out of order", "one twice"],
)
def test_the_end_is_in_the_order_of_the_data(
    tmp_path: Path, written: list[bytes], kept: bool
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(written))
    before = path.stat().st_ino
    with closing(AnswerLog(path, 2)) as log:
        log.finish()
    assert path.read_bytes() == line(0) + line(1)
    assert (path.stat().st_ino == before) == kept, "a file in order is left as it is"


@pytest.mark.parametrize("num_lines", [1, 2, 4, 5])
def test_a_half_answered_batch_is_asked_again_as_a_whole(
    examples: list[Example], fake_retriever: type, tmp_path: Path, num_lines: int
) -> None:
    """Batches of three; a crash leaves one or two lines of the first or the second."""
    retriever = asked_of(fake_retriever)()
    with open_answer_log(tmp_path, {}, len(examples)) as log:
        ask_all(examples, examples, retriever, log, None)
        log.finish()
    whole = (tmp_path / "predictions.jsonl").read_bytes()
    batches = retriever.asked
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]

    by_key = {json.loads(text)["key"]: text for text in whole.splitlines(keepends=True)}
    order = [key for batch in batches for key in batch]
    (tmp_path / "predictions.jsonl").write_bytes(b"".join(by_key[key] for key in order[:num_lines]))
    (tmp_path / "SHA256SUMS").unlink()
    again = asked_of(fake_retriever)()
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    progress: Progress = tell
    with open_answer_log(tmp_path, {}, len(examples)) as log:
        ask_all(examples, examples, again, log, progress)
        log.finish()
    assert again.asked == batches[num_lines // 3 :]
    assert told[0] == (num_lines, 10)
    assert told[-1] == (10, 10)
    assert (tmp_path / "predictions.jsonl").read_bytes() == whole


class Failing:
    """Cannot answer what has the query `nothing of the kind`, one query at a time."""

    name = "failing"
    identity: dict[str, object] = {}  # noqa: RUF012 - read only

    def __init__(self, retriever: type, always: bool = False) -> None:
        self._inner, self._always = retriever(), always
        self.prompt = self._inner.prompt

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[index] for index in range(len(examples))]

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        if self._always or examples[0].query == "nothing of the kind":
            raise DataError("is too long", where=f"dialogue {examples[0].dialogue.id!r}")
        return self._inner.answer(examples)  # type: ignore[no-any-return]


def test_more_failures_than_allowed_end_the_work(
    examples: list[Example], fake_retriever: type, tmp_path: Path
) -> None:
    """Every second of ten queries fails: the third failure is the sixth query."""
    with open_answer_log(tmp_path, {}, 10) as log:
        with pytest.raises(
            DataError,
            match=r"'d2': is too long \(this is failure 3, and max_failures is 2: stopped; the "
            r"answers so far are kept\)",
        ):
            ask_all(examples, examples, Failing(fake_retriever), log, None, max_failures=2)
        assert log.has_all([0, 2, 4])
    lines = [json.loads(text) for text in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [item["index"] for item in lines] == [0, 1, 2, 3, 4, 5]
    assert ["failure" in item for item in lines] == [False, True] * 3


def test_as_many_failures_as_allowed_do_not(
    examples: list[Example], fake_retriever: type, tmp_path: Path
) -> None:
    with open_answer_log(tmp_path, {}, 10) as log:
        ask_all(examples, examples, Failing(fake_retriever), log, None, max_failures=5)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 10


def test_not_one_answer_is_a_fault(
    examples: list[Example], fake_retriever: type, tmp_path: Path
) -> None:
    with (
        open_answer_log(tmp_path / "many", {}, 10) as log,
        pytest.raises(
            DataError,
            match="none of 10 queries can be answered; the first: dialogue 'd0': is too long",
        ),
    ):
        ask_all(examples, examples, Failing(fake_retriever, always=True), log, None)
    with (
        open_answer_log(tmp_path / "one", {}, 1) as log,
        pytest.raises(DataError, match=r"^dialogue 'd0': is too long$"),
    ):
        ask_all(examples[:1], examples[:1], Failing(fake_retriever, always=True), log, None)


def test_a_folder_of_another_evaluation_is_named_by_what_differs(tmp_path: Path) -> None:
    model = {"name": "a", "dtype": "float32"}
    with open_answer_log(tmp_path, {"model": model, "seed": 1}, 1):
        pass
    with (
        pytest.raises(UsageError, match="differs in model dtype, seed; pass another --out"),
        open_answer_log(tmp_path, {"model": {**model, "dtype": "bfloat16"}, "seed": 2}, 1),
    ):
        pass
    with open_answer_log(tmp_path, {"model": model, "seed": 1}, 1) as log:
        assert log.num_answers == 0

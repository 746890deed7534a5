"""Difficulty of single answers by hand, scoring that is stopped and taken up, and tables that are refused."""

from __future__ import annotations

import csv
import json
import math
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError, UsageError
from ffr.evaluation.run import evaluate
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer
from ffr.training.curriculum.difficulty import (
    COLUMNS,
    answers_fingerprint,
    default_cache_folder,
    difficulty_of,
    entropy_of_tokens,
    load_difficulties,
    score_dataset,
    write_difficulties,
)
from ffr.training.curriculum.order import Difficulty, assign_levels, kept_items


def answer_text(utterances: str, images: str) -> str:
    return (
        f"<|utt_ids_start|>[{utterances}]<|utt_ids_end|>;<|img_ids_start|>[{images}]<|img_ids_end|>"
    )


def test_entropy_by_hand():
    assert entropy_of_tokens([]) == 0
    assert entropy_of_tokens([-3.0]) == 0
    assert entropy_of_tokens([-2.0] * 7) == pytest.approx(math.log(7))
    # p = 0.5, 0.25, 0.25 stays as it is: H = 1.5 ln 2
    assert entropy_of_tokens([math.log(0.5), math.log(0.25), math.log(0.25)]) == pytest.approx(
        1.5 * math.log(2)
    )
    # far below what a float can hold as a probability
    assert entropy_of_tokens([-2000.0, -2000.0]) == pytest.approx(math.log(2))


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=20))
def test_entropy_is_that_of_the_normalised_probabilities(logprobs):
    probabilities = [math.exp(value) for value in logprobs]
    shares = [value / sum(probabilities) for value in probabilities]
    assert entropy_of_tokens(logprobs) == pytest.approx(
        -sum(q * math.log(q) for q in shares), abs=1e-9
    )
    assert 0 <= entropy_of_tokens(logprobs) <= math.log(len(logprobs)) + 1e-9


@pytest.mark.parametrize("value", [0.5, math.inf, -math.inf, math.nan])
def test_what_is_no_logprob_is_refused(value):
    with pytest.raises(ValueError, match="finite number of at most 0"):
        entropy_of_tokens([-1.0, value])


@pytest.mark.parametrize(
    ("response", "truth", "f1"),
    [
        (answer_text("0, 1", "0"), Fragment((0, 1), (0,)), 1.0),
        (answer_text("0, 1", ""), Fragment((1,)), (2 / 3 + 1) / 2),
        (answer_text("0, 1", "3"), Fragment((1,)), (2 / 3 + 0) / 2),
        (answer_text("", ""), Fragment(), 1.0),
        (answer_text("4", ""), Fragment(), 0.5),
        (answer_text("", ""), Fragment((4,), (1,)), 0.0),
        # lenient: repeats count once, ids the dialogue lacks are wrong, noise around the markers is passed over
        ("well: " + answer_text("1, 1 999", "0"), Fragment((1,), (0,)), (2 / 3 + 1) / 2),
        ("I do not know", Fragment((1,)), 0.5),
    ],
)
def test_f1_by_hand(response, truth, f1):
    found = difficulty_of(response, truth, [-1.0, -1.0])
    assert found.f1 == pytest.approx(f1)
    assert found.entropy == pytest.approx(math.log(2))
    assert found.is_empty == truth.is_empty


class FakeRetriever:
    """Answers by the query, two at a time; can stop after some batches."""

    def __init__(self, stop_after: int | None = None, logprobs: bool = True) -> None:
        self.stop_after, self.logprobs, self.num_asked = stop_after, logprobs, 0
        self.name = "fake"
        self.identity = {"kind": "fake"}

    def plan(self, examples):
        order = list(reversed(range(len(examples))))
        return [order[start : start + 2] for start in range(0, len(order), 2)]

    def prompt(self, example):
        return prompt_of(example)

    def answer(self, examples):
        if self.stop_after == 0:
            raise KeyboardInterrupt
        if self.stop_after is not None:
            self.stop_after -= 1
        self.num_asked += len(examples)
        return [self._answer(int(example.query.split()[-1])) for example in examples]

    def _answer(self, number: int) -> Answer:
        logprobs = tuple(-0.1 * index for index in range(number)) if self.logprobs else None
        return Answer(answer_text(", ".join(map(str, range(number % 4))), ""), logprobs)


@pytest.fixture
def examples() -> list[Example]:
    found = []
    for number in range(9):
        chat = Dialogue(
            f'd,"{number}\r',
            tuple(Utterance("a", (f"line {index} of {number}",)) for index in range(4)),
        )
        found.append(Example(chat, f"query {number}", Fragment(() if number % 3 == 0 else (0, 1))))
    return found


def test_table_of_a_data_set(examples, tmp_path):
    retriever = FakeRetriever()
    scored = score_dataset(examples, retriever, tmp_path / "out")
    assert scored.table == tmp_path / "out" / "difficulty.csv"
    assert retriever.num_asked == 9
    files = {path.name for path in scored.folder.iterdir()}
    assert files == {"evaluation.json", "predictions.jsonl", "difficulty.csv", "SHA256SUMS"}
    # item 1: [0] against [0, 1] is 2/3, images 1; one token
    assert scored.difficulties[1] == Difficulty(pytest.approx(5 / 6), 0.0, False)
    # item 0: both empty, no token
    assert scored.difficulties[0] == Difficulty(1.0, 0.0, True)
    assert scored.difficulties[2].entropy == pytest.approx(entropy_of_tokens([0.0, -0.1]))
    with scored.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    levels = assign_levels(scored.difficulties)
    kept = kept_items(scored.difficulties, levels)
    assert [row["level"] for row in rows] == levels
    assert [index for index, row in enumerate(rows) if row["kept"] == "1"] == kept
    assert [row["dialogue_id"] for row in rows] == [example.dialogue.id for example in examples]
    assert [row["key"] for row in rows] == [example.key for example in examples]
    for place in (scored.table, scored.folder):
        assert load_difficulties(place, examples) == scored.difficulties, (
            "every bit of the numbers is kept"
        )


def test_the_model_is_not_asked_twice(examples, tmp_path):
    first = score_dataset(examples, FakeRetriever(), tmp_path / "out")
    table = first.table.read_bytes()
    again = FakeRetriever()
    assert score_dataset(examples, again, tmp_path / "out") == first
    assert again.num_asked == 0
    assert first.table.read_bytes() == table


def test_the_answers_of_an_evaluation_are_taken_up(examples, tmp_path):
    """Folders that hold an evaluation of the same model on the same data need no second answer."""
    evaluate(examples, FakeRetriever(), tmp_path / "out", dataset="made", baselines=())
    retriever = FakeRetriever()
    scored = score_dataset(examples, retriever, tmp_path / "out")
    assert retriever.num_asked == 0
    assert (
        scored.difficulties
        == score_dataset(examples, FakeRetriever(), tmp_path / "new").difficulties
    )


@pytest.mark.parametrize("num_batches", [0, 1, 4])
def test_stopped_and_taken_up_gives_the_same_table(examples, tmp_path, num_batches):
    whole = score_dataset(examples, FakeRetriever(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        score_dataset(examples, FakeRetriever(stop_after=num_batches), tmp_path / "out")
    assert not (tmp_path / "out" / "difficulty.csv").exists()
    retriever = FakeRetriever()
    resumed = score_dataset(examples, retriever, tmp_path / "out")
    assert retriever.num_asked == 9 - 2 * num_batches
    assert resumed.table.read_bytes() == whole.table.read_bytes()


def test_cache_folder_is_named_by_model_and_data(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "cache" / "data"))
    scored = score_dataset(examples, FakeRetriever())
    assert scored.folder.parent == tmp_path / "cache" / "difficulty"
    again = FakeRetriever()
    assert score_dataset(examples, again) == scored
    assert again.num_asked == 0
    # other data or another model go elsewhere, instead of being refused
    assert score_dataset(examples[:5], FakeRetriever()).folder != scored.folder
    other = FakeRetriever()
    other.identity = {"kind": "fake", "dtype": "bfloat16"}
    assert answers_fingerprint(other) != answers_fingerprint(again)
    assert score_dataset(examples, other).folder != scored.folder
    assert default_cache_folder("a" * 64, "b" * 64).name == f"{'a' * 16}-{'b' * 16}"
    # the folder named by hand holds one evaluation only
    with pytest.raises(UsageError, match="holds an evaluation that differs"):
        score_dataset(examples, other, scored.folder)


def _bounded(bound: int) -> FakeRetriever:
    """Answers of 0 to 8 tokens, whatever the bound."""
    retriever = FakeRetriever()
    retriever.identity = {"kind": "fake", "max_new_tokens": bound}
    return retriever


def test_scores_are_shared_where_no_answer_reached_a_bound(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "data"))
    first = score_dataset(examples, _bounded(512))
    assert first.folder.name.endswith("-512")
    for bound in (1024, 8):
        again = _bounded(bound)
        assert score_dataset(examples, again) == first
        assert again.num_asked == 0
    # the longest answer has 8 tokens
    shorter = _bounded(7)
    assert score_dataset(examples, shorter).folder != first.folder
    assert shorter.num_asked == 9
    assert score_dataset(examples, _bounded(7)).folder.name.endswith("-7")


@pytest.mark.parametrize("fault", ["is_cut_off", "failure", None])
def test_scores_of_cut_off_and_failed_answers_are_not_shared(
    examples, tmp_path, monkeypatch, fault
):
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "data"))
    first = score_dataset(examples, _bounded(512))
    predictions = first.folder / "predictions.jsonl"
    lines = predictions.read_text(encoding="utf-8").splitlines()
    if fault is not None:
        lines[3] = json.dumps({**json.loads(lines[3]), fault: "yes"})
    else:
        lines[3] = lines[3][:-5]
    predictions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    other = _bounded(1024)
    assert score_dataset(examples, other).folder != first.folder
    assert other.num_asked == 9


def test_what_cannot_be_scored_is_named(examples, tmp_path):
    unknown = Example(examples[0].dialogue, "query 0", None)
    retriever = FakeRetriever()
    with pytest.raises(DataError, match=r"example 9 \(dialogue .*\): it has no true answer"):
        score_dataset([*examples, unknown], retriever, tmp_path / "out")
    assert retriever.num_asked == 0
    with pytest.raises(
        DataError, match=r"predictions\.jsonl:1: the answer has no log-probabilities"
    ):
        score_dataset(examples, FakeRetriever(logprobs=False), tmp_path / "out")


def test_a_table_of_other_data_is_refused(examples, tmp_path):
    path = tmp_path / "difficulty.csv"
    write_difficulties(
        path, examples, [Difficulty(0.5, 1.0, example.fragment.is_empty) for example in examples]
    )
    with pytest.raises(
        DataError, match=r"difficulty\.csv: has 9 items, but the data has 8; score this data with"
    ):
        load_difficulties(path, examples[:8])
    swapped = [examples[1], examples[0], *examples[2:]]
    with pytest.raises(DataError, match="item 0 is of other data"):
        load_difficulties(path, swapped)
    relabelled = [*examples[:8], Example(examples[8].dialogue, "query 8", Fragment((1,)))]
    with pytest.raises(DataError, match="item 8 is of other data"):
        load_difficulties(path, relabelled)
    with pytest.raises(DataError, match="not found; `ffr curriculum score` writes it"):
        load_difficulties(tmp_path / "none.csv", examples)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"f1"', '"f2"', "is not a table of difficulties"),
        ("0.5,1.0", "1.5,1.0", "item 0 has a number that cannot be"),
        ("0.5,1.0", "nan,1.0", "item 0 has a number that cannot be"),
        ("0.5,1.0", "0.5,inf", "item 0 has a number that cannot be"),
        ("0.5,1.0", "0.5,x", "item 0 has a number that cannot be"),
        ('1.0,1,"easy"', '1.0,2,"easy"', "item 0 has a number that cannot be"),
        (
            '"easy"',
            '"hard"',
            "item 0 stands as 'hard', kept 0, but its f1 and entropy make it 'easy', kept 0",
        ),
        ('"easy",0', '"easy",1', "item 0 stands as 'easy', kept 1"),
        ('"easy",0', '"easy"x,0', "cannot be read as a table"),
    ],
)
def test_a_damaged_table_is_refused(examples, tmp_path, old, new, sentence):
    path = tmp_path / "difficulty.csv"
    write_difficulties(
        path, examples, [Difficulty(0.5, 1.0, example.fragment.is_empty) for example in examples]
    )
    content = path.read_bytes().decode()
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode())
    with pytest.raises(DataError, match=sentence):
        load_difficulties(path, examples)


def test_a_torn_table_is_refused_at_any_byte(examples, tmp_path):
    path = tmp_path / "difficulty.csv"
    write_difficulties(
        path, examples, [Difficulty(0.5, 1.0, example.fragment.is_empty) for example in examples]
    )
    content = path.read_bytes()
    for cut in range(0, len(content) - 1, 7):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError):
            load_difficulties(path, examples)


def test_tiny_on_the_sample_is_stopped_and_taken_up(sample_home, tmp_path):
    from ffr.data.catalog import load_dataset
    from ffr.data.dataset import FirstExamples
    from ffr.models.loading import load_vlm
    from ffr.retrieval.vlm import VlmRetriever

    data = FirstExamples(load_dataset("sample", split="train"), 8)
    vlm = load_vlm("tiny")

    def retriever():
        return VlmRetriever(vlm, name="tiny", max_new_tokens=16, batch_tokens=1, with_logprobs=True)

    whole = score_dataset(data, retriever(), tmp_path / "whole")
    assert len(whole.difficulties) == 8
    assert all(
        0 <= item.f1 <= 1 and 0 < item.entropy <= math.log(16) for item in whole.difficulties
    )

    def stop(num_done: int, num_total: int) -> None:
        if (
            0 < num_done < num_total
        ):  # between two dialogues: the queries on one are answered together
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_dataset(data, retriever(), tmp_path / "out", progress=stop)
    resumed = score_dataset(data, retriever(), tmp_path / "out")
    assert resumed.table.read_bytes() == whole.table.read_bytes()
    shutil.copy(whole.table, tmp_path / "moved.csv")
    assert load_difficulties(tmp_path / "moved.csv", data) == whole.difficulties
    # the fingerprint of a model leaves its trainable weights out, so that the cache could not tell them apart
    next(vlm.parameters()).requires_grad_(True)
    with pytest.raises(ValueError, match="before its weights are made trainable"):
        score_dataset(data, retriever(), tmp_path / "whole")

"""A suite on data that is named when it is run, and its figures by the kind of question."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.errors import UsageError
from ffr.evaluation import run as run_module
from ffr.evaluation.bootstrap import interval_table
from ffr.suites.run import run_suite
from ffr.suites.suite import Suite, load_suite, read_suite

MEMORY = """\
figures: [sample_utterance_f1]
slices: [by_truth]
models: [{label: BM25, model: "baseline:bm25@1"}, {label: all, model: "baseline:everything"}]
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Writes two dialogues with questions of two kinds, and one that nothing answers."""
    monkeypatch.setattr(
        run_module, "interval_table", functools.partial(interval_table, num_resamples=50)
    )

    def write() -> Path:
        examples = []
        for name, what in (("one", "soup"), ("two", "bread")):
            chat = Dialogue.of(
                [("a", f"the {what} is hot"), ("b", "no"), ("a", "a view [picture: a hill]")], name
            )
            for query, truth, kind in (
                (f"{what}?", Fragment((0,)), "food"),
                ("a hill?", Fragment((2,)), "view"),
                ("zebra?", Fragment(), "view"),
            ):
                examples.append(Example(chat, query, truth, None, None, {"category": kind}))
        path = tmp_path / "data.jsonl"
        write_examples(path, examples, format="raw")
        return path

    return write


def memory() -> Suite:
    return read_suite(MEMORY, name="m", where="m.yaml")


def test_figures_by_kind_by_hand(written: Callable[[], Path], tmp_path: Path) -> None:
    run_suite(memory().with_data([f"mine={written()}"], []), tmp_path / "out")
    with (tmp_path / "out" / "categories.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["label"], row["category"]): row for row in csv.DictReader(file)}
    kinds = ("with evidence", "nothing", "food", "view")
    assert list(rows) == [(label, kind) for label in ("BM25", "all") for kind in kinds]
    bm25, everything = rows["BM25", "with evidence"], rows["all", "with evidence"]
    assert (bm25["utterance_f1"], bm25["num_queries"], bm25["num_dialogues"]) == ("1.0", "4", "2")
    assert (bm25["caption_f1"], bm25["num_with_captions"], bm25["num_lines"]) == ("1.0", "2", "1.0")
    # one of three lines is true: 2 · 1 / (3 + 1)
    assert (everything["utterance_f1"], everything["utterance_recall"]) == ("0.5", "1.0")
    assert (everything["low"], everything["high"]) == ("0.5", "0.5")
    assert (
        rows["BM25", "nothing"]["utterance_f1"] == rows["BM25", "nothing"]["empty_share"] == "1.0"
    )
    assert rows["all", "nothing"]["utterance_f1"] == "0.0"
    assert rows["all", "nothing"]["utterance_recall"] == ""
    assert float(bm25["seconds_a_query"]) >= 0


def test_the_second_call_measures_nothing_anew(written: Callable[[], Path], tmp_path: Path) -> None:
    suite = memory().with_data([f"mine={written()}"], [])
    run_suite(suite, tmp_path / "out")
    first = (tmp_path / "out" / "categories.csv").read_text(encoding="utf-8")
    run_suite(suite, tmp_path / "out")
    again = (tmp_path / "out" / "categories.csv").read_text(encoding="utf-8")
    # of answers of an earlier call nobody knows the time
    cut = [[line.rpartition(",")[0] for line in text.splitlines()] for text in (first, again)]
    assert cut[0] == cut[1]
    assert again.splitlines()[1].endswith(",")


def test_data_and_what_is_fitted_on() -> None:
    suite = load_suite("memory").with_data(["A=a.jsonl", "B=b.jsonl"], ["A=odd.jsonl"])
    assert [(one.label, one.dataset) for one in suite.datasets] == [
        ("A", "a.jsonl"),
        ("B", "b.jsonl"),
    ]
    lines = next(row for row in suite.rows if row.label == "lines")
    bm25 = next(row for row in suite.rows if row.label == "BM25, 1 line")
    assert suite.settings_of(lines, suite.datasets[0]).fit_dataset == "odd.jsonl"
    assert suite.settings_of(lines, suite.datasets[1]).fit_dataset is None
    assert suite.settings_of(bm25, suite.datasets[0]).fit_dataset is None


@pytest.mark.parametrize(
    ("data", "fit", "sentence"),
    [
        ([], [], "the suite memory names no data; add --data NAME=FILE"),
        (["x.jsonl"], [], "--data x.jsonl: write NAME=FILE"),
        (["A=x", "a=y"], [], "--data a is given twice"),
        (["A=x"], ["B=y"], "--fit B: no --data has this name"),
        ([f"{'A' * 200}=x"], [], "must be one line of 1 to 120 characters"),
    ],
)
def test_data_that_is_named_wrongly(data: list[str], fit: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_suite("memory").with_data(data, fit)


def test_a_suite_with_data_takes_none() -> None:
    suite = load_suite("sample")
    assert suite.with_data([], []) is not None
    with pytest.raises(UsageError, match="the suite sample names its own data"):
        suite.with_data(["A=x"], [])

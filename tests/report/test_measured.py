"""A model measured from Python: the figures of `ffr eval`, a table, a record a query."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

import ffr
from ffr.data.catalog import load_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Example, Fragment
from ffr.errors import UsageError
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate as evaluate_into
from ffr.report.measured import Measured
from ffr.retrieval.lexical import BASELINES, BaselineRetriever


@pytest.fixture
def measured(examples: list[Example]) -> Measured:
    return ffr.evaluate("baseline:overlap", examples)


def test_the_figures_are_those_of_eval(
    measured: Measured, examples: list[Example], tmp_path: Path
) -> None:
    expected = evaluate_into(
        examples, BaselineRetriever("overlap"), tmp_path / "out", dataset="examples"
    )
    assert measured.results.summary == expected.summary
    assert measured.results.baselines == expected.baselines
    assert measured.results.intervals == expected.intervals
    assert measured.scores == expected.summary["scores"]


def test_a_record_a_query(measured: Measured, examples: list[Example]) -> None:
    frame = measured.per_query
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(examples) == len(measured.records)
    assert frame["joint_f1"].mean() == pytest.approx(measured.scores["sample_joint_f1"])
    first = measured.records[0]
    assert (first["query"], first["true_utterance_ids"]) == ("talk about lines", [0, 1])
    # `talk` and `about` … the words that the lines share with the query
    assert first["utterance_ids"] == [0, 1, 2, 3]
    json.dumps(measured.records)


def test_records_where_pandas_is_not_there(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return found(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert measured.per_query == measured.records
    assert measured.per_query is not measured.records


def test_the_table_is_what_the_command_prints(measured: Measured) -> None:
    table = measured.table()
    assert "baseline:overlap" in table
    assert "random-third" in table
    assert "95 % intervals" in table
    assert "\x1b" not in table
    assert max(map(len, measured.table(width=80).splitlines())) <= 80
    assert len(measured.table(with_slices=True)) > len(table)


def test_it_shows_itself(measured: Measured) -> None:
    percent = f"{100 * float(measured.scores['joint_f1'] or 0):.2f}"
    assert repr(measured).startswith(f"<baseline:overlap: joint_f1 {percent} % over 10 queries")
    html = measured._repr_html_()
    assert f"<th>{percent}</th>" in html
    # head, model, baselines beside it, foot
    assert html.count("<tr>") == 3 + len(BASELINES) - 1


def test_data_by_name_file_or_records(examples: list[Example], tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "data.jsonl"
    write_examples(path, examples)
    by_examples = ffr.evaluate("baseline:overlap", examples, baselines=[])
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for data in (path, str(path), load_dataset(path), load_dataset(path).to_hf(), records):
        found = ffr.evaluate("baseline:overlap", data, baselines=[])
        assert found.scores == by_examples.scores
        assert found.results.baselines == {}
    one = ffr.evaluate("baseline:overlap", examples[0])
    assert len(one.records) == 1
    assert len(ffr.evaluate("baseline:overlap", path, limit=3).records) == 3


def test_an_output_folder_is_kept_and_taken_up(examples: list[Example], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ffr.evaluate("baseline:nothing", examples, out=str(out))
    assert Results.load(out).summary == first.results.summary
    again = ffr.evaluate("baseline:nothing", examples, out=out)
    assert again.results.provenance["num_answers_resumed"] == len(examples)
    with pytest.raises(UsageError, match="holds an evaluation that differs"):
        ffr.evaluate("baseline:everything", examples, out=out)


def test_an_encoder_that_was_fitted_is_not_measured_on_its_data(
    small_sample_home: Path,
) -> None:
    model = ffr.load_model("embedding:tiny-clip", fit_dataset="sample", fit_split="val")
    with pytest.raises(UsageError, match="queries to fit on are evaluated too"):
        ffr.evaluate(model, "sample")
    fitted = ffr.load_model("embedding:tiny-clip", fit_dataset="sample", fit_split="grpo")
    found = ffr.evaluate(fitted, "sample", limit=5, encoder="tiny-clip", baselines=[])
    assert found.results.data["split"] == "val"
    assert -1 <= found.results.summary["coherence"]["query_similarity"] <= 1


def test_the_control_with_wrong_pictures(examples: list[Example]) -> None:
    found = ffr.evaluate("baseline:overlap", examples, wrong_pictures=True)
    assert found.results.notes[0].startswith("CONTROL WITH WRONG PICTURES")


def test_queries_without_truth_have_no_figures(examples: list[Example]) -> None:
    unknown = [Example(examples[0].dialogue, "q", image_root=examples[0].image_root)]
    found = ffr.evaluate("baseline:everything", unknown)
    assert found.scores["joint_f1"] is None
    assert found.records[0]["joint_f1"] is None
    assert found.records[0]["true_utterance_ids"] is None
    assert repr(found) == "<baseline:everything: nothing was scored; .table() shows all>"
    assert Fragment(tuple(found.records[0]["utterance_ids"])) == Fragment((0, 1, 2, 3))

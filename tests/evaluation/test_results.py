"""results.json: written strictly, and read through one check that no reader needs to repeat."""

from __future__ import annotations

import json
import random

import pytest

from ffr.errors import DataError
from ffr.evaluation.results import SCHEMA, Results
from ffr.evaluation.run import evaluate


@pytest.fixture
def folder(examples, fake_retriever, tmp_path):
    evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made")
    return tmp_path / "out"


def test_what_is_saved_is_loaded(folder):
    results = Results.load(folder)
    assert Results.load(results.save_as(folder / "again.json")) == results
    assert (results.schema, results.label, results.num_scored) == (SCHEMA, "fake", 10)


def test_a_number_that_is_none_is_not_written(folder):
    results = Results.load(folder)
    before = (folder / "results.json").read_bytes()
    for number in (float("nan"), float("inf")):
        results.summary["scores"]["joint_f1"] = number
        with pytest.raises(DataError, match="a figure is no finite number"):
            results.save(folder)
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda content: content | {"schema": 1},
            "results.json: has form 1 but this ffr reads form 2; evaluate again",
        ),
        (
            lambda content: content | {"schema": 3},
            "has form 3 but this ffr reads form 2; evaluate again",
        ),
        (lambda content: {"what": 1}, "is not a results file of ffr; `ffr eval` writes one"),
        (lambda content: [1], "is not a results file of ffr; `ffr eval` writes one"),
        (
            lambda content: content | {"notes": "x"},
            "is not a results file of ffr (notes: input should be a valid list)",
        ),
    ],
)
def test_other_forms_are_refused(folder, change, sentence):
    path = folder / "results.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError) as caught:
        Results.load(folder)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_figure_that_is_missing_is_named(folder):
    path = folder / "results.json"
    content = json.loads(path.read_text())
    del content["baselines"]["baseline:overlap"]["strict_scores"]["image_mcc"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError,
        match="has form 2 but lacks the figure image_mcc, which this ffr reports; evaluate again",
    ):
        Results.load(path)


def test_each_flipped_bit_is_noticed(folder):
    path, draw = folder / "results.json", random.Random(7)
    whole = path.read_bytes()
    end = len(whole) - 1  # the last byte is the line break behind the object
    seal = whole.index(b'"sha256"')
    for place in (*(draw.randrange(end) for _ in range(300)), *range(seal, seal + 80)):
        torn = bytearray(whole)
        torn[place] ^= 1 << draw.randrange(8)
        path.write_bytes(torn)
        with pytest.raises(DataError):
            Results.load(folder)


def test_figures_that_were_changed_are_refused(folder):
    path = folder / "results.json"
    path.write_text(path.read_text().replace('"num_examples": 10', '"num_examples": 11'))
    with pytest.raises(
        DataError,
        match=r"is not what was written \(its sha256 says so\); restore it, or evaluate again",
    ):
        Results.load(folder)


def test_files_from_before_there_were_checksums_are_read(folder):
    results, path = Results.load(folder), folder / "results.json"
    content = json.loads(path.read_text())
    assert len(content["provenance"].pop("sha256")) == 64
    path.write_text(json.dumps(content))
    assert Results.load(folder) == results

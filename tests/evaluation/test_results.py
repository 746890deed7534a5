"""results.json: written strictly, and read through one check that no reader needs to repeat."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from rich.console import Console

from ffr.errors import DataError
from ffr.evaluation.results import SCHEMA, Results
from ffr.evaluation.run import evaluate
from ffr.report.answered import open_evaluation
from ffr.report.html.page import write_report
from ffr.report.tables import print_report


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
        (lambda content: content | {"schema": 1}, "results.json: has form 1 but this ffr reads form 2; evaluate again"),
        (lambda content: content | {"schema": 3}, "has form 3 but this ffr reads form 2; evaluate again"),
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
        DataError, match="has form 2 but lacks the figure image_mcc, which this ffr reports; evaluate again"
    ):
        Results.load(path)


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


@pytest.mark.parametrize("wrong", ["<b>x</b>", None, -1])
def test_any_leaf_may_be_wrong(folder, wrong, tmp_path):
    """Whatever stands in one place of the file: refused in a sentence, or shown without a fault."""
    path = folder / "results.json"
    content = json.loads(path.read_text())
    found = list(leaves(content))
    # figures are alike, so of the many only joint F1, and of the slices and baselines one
    alike = ("utterance_", "image_", "joint_p", "joint_r", "joint_m", "sample_", "strict_j", "strict_i")
    alike += ("strict_u", "strict_e", "strict_sa", "by_d", "by_la", "35", ">65", "baseline:n", "baseline:r")
    tried = [
        place for place in found if "standard_errors" in place or not any(str(key).startswith(alike) for key in place)
    ]
    num_refused = 0
    for place in tried:
        changed = copy.deepcopy(content)
        at = changed
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = wrong
        path.write_text(json.dumps(changed))
        try:
            results = Results.load(path)
        except DataError:
            num_refused += 1
            continue
        print_report(results, Console(file=(tmp_path / "shown").open("w"), width=80))
    assert num_refused > 30, (num_refused, len(tried))


def test_a_label_that_is_markup_is_text_on_the_page(folder, tmp_path):
    results = Results.load(folder)
    label = "<script>alert(1)</script> {{ 7 * 7 }} \"'&"
    dataclasses.replace(results, model=results.model | {"label": label}).save(folder)
    page = write_report(open_evaluation(folder), tmp_path / "page.html").pages[0].read_text()
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }} &#34;&#39;&amp; on made</title>" in page
    assert "<script>alert" not in page

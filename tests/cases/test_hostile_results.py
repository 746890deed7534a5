"""Results, answers and logs of a stranger: on the page, in the terminal, in a build log."""

from __future__ import annotations

import copy
import dataclasses
import json

import PIL.Image
import pytest
from click.testing import CliRunner
from rich.console import Console

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Fragment, Image, Utterance
from ffr.errors import DataError
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.report.answered import open_evaluation
from ffr.report.html.page import write_report
from ffr.report.tables import print_report
from ffr.run_log import read_metrics


@pytest.fixture
def folder(examples, fake_retriever, tmp_path):
    evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made")
    return tmp_path / "out"


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


@pytest.mark.parametrize("wrong", ["<b>x</b>", None, pytest.param(-1, marks=pytest.mark.slow)])
def test_any_leaf_may_be_wrong(folder, wrong, tmp_path):
    """Whatever stands in one place of the file: refused in a sentence, or shown without a fault."""
    path = folder / "results.json"
    content = json.loads(path.read_text())
    found = list(leaves(content))
    # figures are alike, so of the many only joint F1, and of the slices and baselines one
    alike = (
        "utterance_",
        "image_",
        "joint_p",
        "joint_r",
        "joint_m",
        "sample_",
        "strict_j",
        "strict_i",
    )
    alike += (
        "strict_u",
        "strict_e",
        "strict_sa",
        "by_d",
        "by_la",
        "35",
        ">65",
        "baseline:n",
        "baseline:r",
    )
    tried = [
        place
        for place in found
        if "standard_errors" in place or not any(str(key).startswith(alike) for key in place)
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
    assert (
        "<title>&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }} &#34;&#39;&amp; on made</title>"
        in page
    )
    assert "<script>alert" not in page


def test_a_label_writes_no_line_of_its_own(folder, tmp_path):
    content = json.loads((folder / "results.json").read_text())
    content["model"]["label"] = "::error::m\n::error file=app.py,line=1::leaked"
    del content["provenance"]["sha256"]
    (tmp_path / "named.json").write_text(json.dumps(content))
    done = CliRunner().invoke(
        ffr, ["gate", str(tmp_path / "named.json"), "--baseline", str(folder)]
    )
    assert done.exit_code == 0, done.output
    text = done.output
    assert not any(line.strip().startswith("::") for line in text.splitlines())
    assert text.startswith("⟨::⟩error::m ::error file=app.py,line=1::leaked (")


def test_pictures_outside_the_datas_folder_stay_closed(examples, fake_retriever, tmp_path):
    (tmp_path / "private").mkdir()
    PIL.Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "private" / "a.png")
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "private" / "a.png")
    sources = ("../private/a.png", str(tmp_path / "private" / "a.png"), "link.png", "0-3.png")
    chat = Dialogue("d", (Utterance("a", tuple(Image(source) for source in sources)),))
    own = [dataclasses.replace(examples[0], dialogue=chat, fragment=Fragment((0,)))]
    write_examples(tmp_path / "pictures" / "own.jsonl", own)
    evaluate(
        own, fake_retriever(), tmp_path / "own", dataset=str(tmp_path / "pictures" / "own.jsonl")
    )
    written = write_report(open_evaluation(tmp_path / "own"), tmp_path / "report.html")
    page = written.pages[0].read_text(encoding="utf-8")
    content = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    pictures = json.loads(content)["pictures"]
    assert [len(picture) for picture in pictures] == [1, 1, 1, 3]
    assert "lies outside the data's folder" in pictures[0][0]
    assert written.num_unopened == 3
    assert written.notes[-1].startswith(
        "3 pictures lie outside the data's folder, with a placeholder instead"
    )
    written = write_report(
        open_evaluation(tmp_path / "own"), tmp_path / "report.html", takes_outside_pictures=True
    )
    assert written.num_unopened == 0
    assert not any("outside" in note for note in written.notes)


@pytest.mark.parametrize("row", ["nan,1", "inf,1", "1,1e999999999x", "2," + "9" * 200_000])
def test_a_row_of_a_log_without_numbers_is_left_out(tmp_path, row):
    (tmp_path / "metrics.csv").write_text(f"step,loss\n1,0.5\n{row}\n3,0.25\n")
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]


def test_a_damaged_row_of_a_log_is_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"step,loss\n1,0.5\n2,\xff\xfe\n3,0.25\n4,")
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]
